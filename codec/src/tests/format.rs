//! MIME types.

use causerie_units::SampleRate;
use proptest::prelude::*;

use super::*;
use crate::{Container, Endian, OutputFormat, fuzz};

#[test]
fn what_clients_send_is_understood() {
    let pcm = |hz, channels, endian| InputFormat::Pcm { rate: SampleRate::new(hz).unwrap(), channels, endian };
    for (mime, expected) in [
        ("audio/pcm;rate=16000", pcm(16_000, 1, Endian::Little)),
        ("audio/pcm", pcm(16_000, 1, Endian::Little)),
        ("Audio/PCM ; Rate=\"48000\"; channels=2;", pcm(48_000, 2, Endian::Little)),
        ("audio/L16;codec=pcm;rate=24000", pcm(24_000, 1, Endian::Little)),
        ("audio/l16;rate=44100;endian=big", pcm(44_100, 1, Endian::Big)),
        ("audio/pcmu", InputFormat::Mulaw { rate: SampleRate::HZ_8000 }),
        ("audio/x-mulaw;rate=8000", InputFormat::Mulaw { rate: SampleRate::HZ_8000 }),
        ("audio/PCMA;rate=16000", InputFormat::Alaw { rate: SampleRate::HZ_16000 }),
        ("audio/opus", InputFormat::Opus),
        ("audio/x-wav", InputFormat::Wav),
        ("audio/webm;codecs=opus", InputFormat::Container(Container::WebM)),
        ("audio/mp4;codecs=\"mp4a.40.2\"", InputFormat::Container(Container::Mp4)),
        ("audio/mp3", InputFormat::Container(Container::Mp3)),
    ] {
        assert_eq!(InputFormat::parse(mime), Ok(expected), "{mime}");
    }
}

#[test]
fn what_cannot_be_taken_is_named() {
    for (mime, expected) in [
        ("", "the MIME type is empty"),
        ("image/jpeg", "MIME type \"image/jpeg\" is not supported; send audio/pcm, "),
        ("audio/pcm;rate=0", "sample rate 0 Hz is not supported"),
        ("audio/pcm;rate=7350", "sample rate 7350 Hz is not supported"),
        ("audio/pcm;rate=-1", "rate=\"-1\" is not a number"),
        ("audio/pcm;rate", "not of the form name=value"),
        ("audio/pcm;channels=65535", "audio of 65535 channels is not supported; send 1 to 8"),
        ("audio/pcm;endian=middle", "is not little or big"),
        ("audio/pcmu;channels=2", "G.711 of 2 channels"),
        ("video/mp2t", "MPEG-TS is not supported"),
        (&"x".repeat(1000), "a MIME type of 1000 bytes"),
    ] {
        let error = InputFormat::parse(mime).unwrap_err().to_string();
        assert!(error.contains(expected), "{mime}: {error}");
    }
    for (mime, expected) in [
        ("audio/pcm;rate=44100", "use 8000, 16000, 24000 or 48000 Hz"),
        ("audio/pcmu;rate=16000", "use 8000 Hz"),
        ("audio/mpeg", "use audio/pcm, audio/pcmu, audio/pcma or audio/opus"),
        ("audio/pcm;channels=2", "mono"),
    ] {
        let error = OutputFormat::parse(mime).unwrap_err().to_string();
        assert!(error.contains(expected), "{mime}: {error}");
    }
}

#[test]
fn output_formats_name_themselves() {
    for mime in ["audio/pcm;rate=24000", "audio/pcm;rate=8000", "audio/pcmu", "audio/pcma", "audio/opus"] {
        assert_eq!(OutputFormat::parse(mime).unwrap().mime(), mime);
    }
    assert_eq!(OutputFormat::parse("audio/pcm"), Ok(OutputFormat::Pcm(SampleRate::HZ_24000)));
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn no_text_makes_it_panic(text in "(audio/(pcm|l16|opus|pcmu))?[ ;=a-z0-9\"\\PC]{0,40}") {
        fuzz::fuzz_mime(text.as_bytes());
    }
}
