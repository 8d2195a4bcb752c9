//! PCM and G.711 in and out.

use causerie_units::SampleRate;
use proptest::prelude::*;

use super::*;
use crate::{AudioOutput, MAX_PUSH_BYTES, OutputFormat, Packet, fuzz, g711, level};

#[test]
fn g711_codes_survive_the_round_trip() {
    for code in 0..=255u8 {
        let again = g711::encode_mulaw(g711::MULAW[usize::from(code)]);
        // Two codes mean zero; the encoder uses the positive one.
        let expected = if code == 0x7f { 0xff } else { code };
        assert_eq!(again, expected, "µ-law {code:#04x}");
        assert_eq!(g711::encode_alaw(g711::ALAW[usize::from(code)]), code, "A-law {code:#04x}");
    }
}

#[test]
fn g711_has_the_values_of_the_recommendation() {
    // ITU-T G.711 tables 1a to 2b, in 16 bits.
    for (code, sample) in
        [(0x00, -32_124), (0x80, 32_124), (0xff, 0), (0xfe, 8), (0x7e, -8), (0xef, 132), (0x8f, 16_764)]
    {
        assert_eq!(g711::MULAW[code], sample, "µ-law {code:#04x}");
    }
    for (code, sample) in [(0xd5, 8), (0x55, -8), (0xaa, 32_256), (0x2a, -32_256), (0xc5, 264), (0x80, 5504)] {
        assert_eq!(g711::ALAW[code], sample, "A-law {code:#04x}");
    }
}

#[test]
fn g711_takes_the_nearest_code() {
    for sample in i16::MIN..=i16::MAX {
        for (name, code, table) in
            [("µ-law", g711::encode_mulaw(sample), &g711::MULAW), ("A-law", g711::encode_alaw(sample), &g711::ALAW)]
        {
            let off = (i32::from(table[usize::from(code)]) - i32::from(sample)).abs();
            // Half a step of the segment, which has 16 of them for an octave; clipping at the top.
            let step = (i32::from(sample).abs() / 16).max(16);
            assert!(off <= step / 2 + 8 || i32::from(sample).abs() > 32_124, "{name} {sample} is off by {off}");
        }
    }
}

#[test]
fn pcm_at_16_khz_is_untouched_and_undelayed() {
    let samples: Vec<i16> = (0..2000).map(|n| (n * 7919 % 65_536 - 32_768) as i16).collect();
    let little: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let big: Vec<u8> = samples.iter().flat_map(|sample| sample.to_be_bytes()).collect();
    let expected: Vec<f32> = samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
    for (mime, bytes) in [("audio/pcm;rate=16000", little), ("audio/l16;rate=16000;endian=big", big)] {
        let mut input = AudioInput::open(&InputFormat::parse(mime).unwrap()).unwrap();
        let mut pcm = Vec::new();
        input.push(&bytes, &mut pcm).unwrap();
        assert_eq!(pcm, expected, "{mime}");
        assert_eq!(input.lookahead(), 0);
        assert_eq!(input.flush(&mut pcm), Ok(()));
        assert_eq!(pcm.len(), expected.len());
    }
}

#[test]
fn every_rate_in_gives_sixteen_thousand_a_second() {
    for hz in [8_000, 16_000, 22_050, 24_000, 44_100, 48_000] {
        for channels in [1, 2] {
            let bytes = vec![0; 10 * 2 * hz * channels];
            let mime = format!("audio/pcm;rate={hz};channels={channels}");
            let (pcm, end) = decode(&mime, &bytes, 1234).unwrap();
            assert_eq!((pcm.len(), end), (160_000, Ok(())), "{mime}");
        }
    }
    for mime in ["audio/pcmu", "audio/pcma"] {
        assert_eq!(decode(mime, &[0xd5; 80_000], 160).unwrap().0.len(), 160_000, "{mime}");
    }
}

#[test]
fn channels_are_mixed() {
    let bytes: Vec<u8> = [8192i16, -4096].repeat(100).iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let (pcm, _) = decode("audio/pcm;rate=16000;channels=2", &bytes, 3).unwrap();
    assert_eq!(pcm, vec![0.0625; 100]);
}

#[test]
fn half_a_sample_at_the_end_is_told() {
    let (pcm, end) = decode("audio/pcm", &[0; 5], 5).unwrap();
    assert_eq!(pcm.len(), 2);
    assert!(matches!(end, Err(CodecError::Truncated(_))), "{end:?}");
    let (_, end) = decode("audio/pcm;channels=3", &[0; 8], 5).unwrap();
    assert_eq!(end, Err(CodecError::Truncated("the audio ended after 1 of 3 channels".into())));
}

#[test]
fn huge_blobs_meet_the_limit_and_leave_the_stream_alive() {
    let mut input = AudioInput::open(&InputFormat::parse("audio/pcm").unwrap()).unwrap();
    let mut pcm = Vec::new();
    let error = input.push(&vec![0; 10 << 20], &mut pcm).unwrap_err();
    assert_eq!(error.to_string(), format!("10485760 bytes of audio at once are more than {MAX_PUSH_BYTES}"));
    assert!(pcm.is_empty());
    input.push(&[0; 640], &mut pcm).unwrap();
    assert_eq!(pcm.len(), 320);
    // Within the bytes, but nine minutes of sound.
    let mut input = AudioInput::open(&InputFormat::parse("audio/pcmu").unwrap()).unwrap();
    assert!(matches!(input.push(&vec![0; MAX_PUSH_BYTES], &mut pcm), Err(CodecError::Limit(_))));
}

#[test]
fn a_reset_forgets_and_a_flush_begins_again() {
    let mut input = AudioInput::open(&InputFormat::parse("audio/pcm;rate=8000").unwrap()).unwrap();
    let (mut noisy, mut clean) = (Vec::new(), Vec::new());
    input.push(&[0x7f; 4001], &mut noisy).unwrap();
    input.reset();
    input.push(&[0; 1600], &mut clean).unwrap();
    input.flush(&mut clean).unwrap();
    assert_eq!(clean, vec![0.0; 1600]);
}

fn encode(mime: &str, pcm: &[f32], split: usize) -> Vec<Packet> {
    let mut output = AudioOutput::open(OutputFormat::parse(mime).unwrap()).unwrap();
    let mut packets = Vec::new();
    for piece in pcm.chunks(split.max(1)) {
        output.push(piece, &mut packets).unwrap();
    }
    output.flush(&mut packets).unwrap();
    packets
}

fn joined(packets: &[Packet]) -> Vec<u8> {
    packets.iter().flat_map(|packet| packet.bytes.clone()).collect()
}

#[test]
fn speech_out_is_speech_in_again() {
    let tone = sine(700.0, 24_000.0, 0.4, 24_000);
    let heard = sine(700.0, 16_000.0, 0.4, 16_000);
    for (out, back, snr_db) in [
        ("audio/pcm;rate=24000", "audio/pcm;rate=24000", 70.0),
        ("audio/pcm;rate=8000", "audio/pcm;rate=8000", 65.0),
        ("audio/pcm;rate=16000", "audio/pcm;rate=16000", 70.0),
        ("audio/pcm;rate=48000", "audio/pcm;rate=48000", 70.0),
        ("audio/pcmu", "audio/pcmu", 35.0),
        ("audio/pcma", "audio/pcma", 35.0),
    ] {
        let packets = encode(out, &tone, 480);
        let format = OutputFormat::parse(out).unwrap();
        let samples: u64 = packets.iter().map(|packet| packet.samples).sum();
        assert_eq!(samples, u64::from(format.sample_rate().hz()), "{out}: one second");
        let (pcm, _) = decode(back, &joined(&packets), 100).unwrap();
        let (snr, _, gain) = match_snr(&heard, &pcm, 0..=0);
        assert!(snr > snr_db && (gain - 1.0).abs() < 0.02, "{out}: {snr:.1} dB, gain {gain}");
    }
}

#[test]
fn floats_that_are_no_numbers_are_silence_and_loud_ones_saturate() {
    let packets = encode("audio/pcm;rate=24000", &[f32::NAN, f32::INFINITY, -f32::INFINITY, 7.0, -7.0, 1.0, 0.5], 7);
    let samples: Vec<i16> = joined(&packets).as_chunks::<2>().0.iter().map(|&pair| i16::from_le_bytes(pair)).collect();
    assert_eq!(samples, [0, 0, 0, 32_767, -32_768, 32_767, 16_384]);
}

#[test]
fn levels() {
    assert_eq!(level::rms_db(&[]), level::SILENCE_DB);
    assert_eq!(level::rms_db(&[0.0; 10]), level::SILENCE_DB);
    assert_eq!(level::rms_db(&[1.0, -1.0]), 0.0);
    assert!((level::rms_db(&sine(1000.0, 16_000.0, 1.0, 16_000)) + 3.01).abs() < 0.01);
    assert!((level::peak_db(&[0.1, -0.5]) + 6.02).abs() < 0.01);
}

#[test]
fn one_second_of_silence_is_one_second() {
    for rate in [SampleRate::HZ_8000, SampleRate::HZ_48000] {
        let packets = encode(&OutputFormat::Pcm(rate).mime(), &[0.0; 24_000], 241);
        assert_eq!(joined(&packets).len(), 2 * rate.hz() as usize);
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn raw_bytes_never_panic_or_depend_on_the_split(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        fuzz::fuzz_raw(&bytes);
    }

    #[test]
    fn packets_do_not_depend_on_the_split(
        format in 0..6usize,
        pcm in prop::collection::vec(-1.2f32..1.2, 0..4000),
        split in 1usize..700,
    ) {
        let mimes = ["audio/pcm", "audio/pcm;rate=8000", "audio/pcm;rate=16000", "audio/pcm;rate=48000", "audio/pcmu", "audio/opus"];
        let (whole, pieces) = (encode(mimes[format], &pcm, 4000), encode(mimes[format], &pcm, split));
        prop_assert!(joined(&whole) == joined(&pieces), "{}", mimes[format]);
        let samples = |packets: &[Packet]| packets.iter().map(|packet| packet.samples).sum::<u64>();
        prop_assert_eq!(samples(&whole), samples(&pieces));
    }
}
