//! Containers: files of every kind, in any split, broken and misnamed.

use proptest::prelude::*;

use super::*;
use crate::fuzz;

struct File {
    mime: &'static str,
    name: &'static str,
    /// Samples at 16 kHz; 19,200 where the format can say where the sound ends.
    samples: usize,
    snr_db: f64,
    /// Where the sound starts: 1024 samples late where the format does not say what an AAC encoder put in front.
    lag: std::ops::RangeInclusive<isize>,
}

const fn file(mime: &'static str, name: &'static str, samples: usize, snr_db: f64) -> File {
    File { mime, name, samples, snr_db, lag: 0..=0 }
}

const FILES: [File; 13] = [
    file("audio/flac", "tone_16k_mono.flac", 19_200, 80.0),
    file("audio/mpeg", "tone_44k1_stereo.mp3", 19_200, 45.0),
    File { lag: 682..=683, ..file("audio/aac", "tone_24k_mono.aac", 20_480, 20.0) },
    file("audio/ogg; codecs=opus", "tone_opus_stereo.ogg", 19_200, 30.0),
    file("audio/ogg", "tone_vorbis_22k05.ogg", 19_227, 40.0),
    file("audio/ogg", "tone_flac_16k.ogg", 19_200, 80.0),
    file("audio/webm;codecs=opus", "tone_opus.webm", 19_416, 30.0),
    file("audio/webm", "tone_vorbis.webm", 19_456, 40.0),
    File { lag: 341..=341, ..file("audio/mp4", "tone_48k_fragmented.mp4", 19_798, 20.0) },
    file("audio/mp4", "tone_opus_fragmented.mp4", 19_416, 30.0),
    File { lag: 371..=372, ..file("audio/mp4", "tone_44k1_faststart.m4a", 19_691, 18.0) },
    file("audio/wav", "tone_s16_pipe_8k.wav", 19_200, 80.0),
    file("audio/wav", "tone_mulaw_8k.wav", 19_200, 35.0),
];

#[test]
fn every_kind_of_file_is_heard_as_it_was_made() {
    let tone = golden_tone();
    for File { mime, name, samples, snr_db, lag } in FILES {
        let (pcm, end) = decode(mime, &golden(name), 320).unwrap();
        assert_eq!(end, Ok(()), "{name}");
        assert_eq!(pcm.len(), samples, "{name}");
        let (snr, at, gain) = match_snr(&tone, &pcm, lag);
        assert!(snr > snr_db, "{name}: {snr:.1} dB at lag {at}, wanted {snr_db}");
        // Stereo files have half the level on the right.
        assert!((0.7..1.01).contains(&gain), "{name}: gain {gain}");
    }
}

#[test]
fn the_split_does_not_matter() {
    for File { mime, name, .. } in FILES {
        let bytes = golden(name);
        let whole = decode(mime, &bytes, bytes.len()).unwrap();
        for split in [3, 997, 4096] {
            assert!(decode(mime, &bytes, split).unwrap() == whole, "{name} in pieces of {split}");
        }
    }
}

#[test]
fn sound_comes_while_the_bytes_come() {
    for File { mime, name, .. } in FILES {
        let bytes = golden(name);
        let mut input = AudioInput::open(&InputFormat::parse(mime).unwrap()).unwrap();
        let mut pcm = Vec::new();
        input.push(&bytes[..bytes.len() * 3 / 4], &mut pcm).unwrap();
        assert!(pcm.len() > 4_800, "{name}: {} samples of three quarters of the bytes", pcm.len());
    }
}

#[test]
fn a_stream_starts_anew_after_its_end_and_after_a_reset() {
    for File { mime, name, .. } in FILES {
        let bytes = golden(name);
        let (once, _) = decode(mime, &bytes, 1000).unwrap();
        let mut input = AudioInput::open(&InputFormat::parse(mime).unwrap()).unwrap();
        let mut pcm = Vec::new();
        input.push(&bytes, &mut pcm).unwrap();
        input.flush(&mut pcm).unwrap();
        input.push(&bytes[..bytes.len() / 2], &mut Vec::new()).unwrap();
        input.reset();
        input.push(&bytes, &mut pcm).unwrap();
        input.flush(&mut pcm).unwrap();
        assert!(pcm == [once.clone(), once].concat(), "{name}");
    }
}

#[test]
fn tags_in_front_are_passed_over() {
    let tag = [b"ID3\x04\0\0\0\0\x02\x00".as_slice(), &[0; 256]].concat();
    for (mime, name) in [("audio/mpeg", "tone_44k1_stereo.mp3"), ("audio/flac", "tone_16k_mono.flac")] {
        let plain = golden(name);
        let tagged = [tag.clone(), plain.clone()].concat();
        for split in [1, 100, tagged.len()] {
            assert!(decode(mime, &tagged, split).unwrap() == decode(mime, &plain, split).unwrap(), "{name} {split}");
        }
    }
}

#[test]
fn bad_streams_get_an_error_that_says_what_is_wrong() {
    let flac = golden("tone_16k_mono.flac");
    let webm = golden("tone_opus.webm");
    let mp3 = golden("tone_44k1_stereo.mp3");
    for (mime, bytes, expected) in [
        ("audio/mp4", golden("tone_44k1_moov_last.m4a"), "index (moov) at the end"),
        ("audio/aac", golden("tone_aac.ts"), "MPEG-TS"),
        ("audio/mpeg", golden("tone_aac.ts"), "MPEG-TS"),
        ("audio/webm", flac.clone(), "declared as WebM, but the content is FLAC"),
        ("audio/wav", mp3.clone(), "the audio is not WAV"),
        ("audio/mpeg", webm.clone(), "declared as MP3, but the content is WebM"),
        ("audio/mpeg", golden("tone_24k_mono.aac"), "the content is ADTS AAC"),
        ("audio/ogg", vec![0; 100], r"bytes that start with \x00"),
        ("audio/flac", b"fLa".to_vec(), "ended within its header"),
        ("audio/flac", flac[..30].to_vec(), "FLAC stream"),
        ("audio/webm", webm[..100].to_vec(), "WebM stream"),
        ("audio/mp4", golden("tone_48k_fragmented.mp4")[..500].to_vec(), "MP4 stream"),
    ] {
        let error = decode(mime, &bytes, 100).map_or_else(Err, |(_, end)| end).unwrap_err();
        assert!(error.to_string().contains(expected), "{mime}: {error:?} does not say {expected:?}");
    }
}

#[test]
fn a_truncated_file_yields_what_it_has() {
    for File { mime, name, samples, .. } in FILES {
        let bytes = golden(name);
        let (pcm, _) = decode(mime, &bytes[..bytes.len() * 9 / 10], 500).unwrap();
        assert!(pcm.len() > samples / 2 && pcm.len() < samples, "{name}: {} of {samples}", pcm.len());
    }
}

#[test]
fn an_error_stays_until_the_stream_is_reset() {
    let mut input = AudioInput::open(&InputFormat::parse("audio/flac").unwrap()).unwrap();
    let mut pcm = Vec::new();
    let error = input.push(&[0; 64], &mut pcm).unwrap_err();
    assert_eq!(input.push(&golden("tone_16k_mono.flac"), &mut pcm), Err(error));
    input.reset();
    input.push(&golden("tone_16k_mono.flac"), &mut pcm).unwrap();
    assert!(pcm.len() > 10_000);
}

#[test]
fn a_silent_bomb_meets_the_limit() {
    // A FLAC of 65,535-sample frames of one constant: 14 bytes each, 4 s of sound. The header is that of the encoder's
    // own; the frames are built here (RFC 9639 §9).
    let mut bomb = b"fLaC\x80\0\0\x22".to_vec();
    bomb.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0]); // block sizes of 65535, frame sizes not known
    bomb.extend([0x03, 0xe8, 0x00, 0xf0, 0, 0, 0, 0]); // 16 kHz, mono, 16 bits, length not known
    bomb.extend([0; 16]); // no MD5
    for number in 0..120u8 {
        let mut frame = vec![0xff, 0xf8, 0x75, 0x08, number, 0xff, 0xfe];
        frame.push(crc(&frame, 8, 0x07) as u8);
        frame.extend([0x00, 0x00, 0x00]); // a constant subframe of value 0
        frame.extend((crc(&frame, 16, 0x8005)).to_be_bytes());
        bomb.extend(frame);
    }
    let end = decode("audio/flac", &bomb, bomb.len()).map_or_else(Err, |(_, end)| end);
    assert!(matches!(end, Err(CodecError::Limit(_))), "{end:?}");
}

#[test]
fn a_stream_of_nothing_but_padding_meets_the_limit() {
    let mut input = AudioInput::open(&InputFormat::parse("audio/mp4").unwrap()).unwrap();
    let mut pcm = Vec::new();
    input.push(b"\0\0\0\x10ftypisom\0\0\0\0\x7f\xff\xff\xfffree", &mut pcm).unwrap();
    let padding = vec![0; 1 << 20];
    let error = (0..20).find_map(|_| input.push(&padding, &mut pcm).err()).unwrap();
    assert_eq!(error.to_string(), "16777216 bytes of MP4 held no sound");
}

fn crc(bytes: &[u8], width: u32, polynomial: u32) -> u16 {
    let (top, mask) = (1 << (width - 1), (1u32 << width) - 1);
    bytes.iter().fold(0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << (width - 8), |crc, _| {
            if crc & top != 0 { (crc << 1 ^ polynomial) & mask } else { crc << 1 & mask }
        })
    }) as u16
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn broken_files_never_panic_or_depend_on_the_split(
        which in 0..FILES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let container = ["audio/flac", "audio/mpeg", "audio/aac", "audio/ogg", "audio/webm", "audio/mp4"];
        let kind = FILES[which].mime.split(';').next().unwrap_or_default();
        let mut bytes = golden(FILES[which].name);
        for (index, value) in damage {
            // Half of it in the headers, where it does most.
            let place = index.index(bytes.len());
            let place = if value & 1 == 0 { place % 600 } else { place };
            bytes[place] = value;
        }
        bytes.truncate(cut.index(bytes.len()).max(bytes.len() / 4));
        match container.iter().position(|mime| *mime == kind) {
            Some(choice) => fuzz::fuzz_container(&[&[choice as u8], bytes.as_slice()].concat()),
            None => fuzz::fuzz_wav(&bytes),
        }
    }

    #[test]
    fn rubbish_behind_the_right_magic_never_panics(which in 0..6u8, body in prop::collection::vec(any::<u8>(), 0..2000)) {
        let magic: &[u8] = match which {
            0 => b"fLaC",
            1 => b"\xff\xfb\x90\x00",
            2 => b"\xff\xf1\x50\x80",
            3 => b"OggS\0\x02",
            4 => b"\x1a\x45\xdf\xa3\x80",
            _ => b"\0\0\0\x10ftypisom\0\0\0\0",
        };
        fuzz::fuzz_container(&[&[which], magic, &body].concat());
    }
}
