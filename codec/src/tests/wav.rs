//! WAV: what is read, what is refused, what is written.

use std::io::Cursor;

use causerie_units::SampleRate;
use proptest::prelude::*;

use super::*;
use crate::{fuzz, g711, wav};

struct Header {
    tag: u16,
    channels: u16,
    rate: u32,
    bits: u16,
    frame_bytes: u16,
}

const MONO: Header = Header { tag: 1, channels: 1, rate: 16_000, bits: 16, frame_bytes: 2 };

impl Header {
    fn chunk(&self) -> Vec<u8> {
        let mut chunk = Vec::new();
        chunk.extend(self.tag.to_le_bytes());
        chunk.extend(self.channels.to_le_bytes());
        chunk.extend(self.rate.to_le_bytes());
        chunk.extend(self.rate.wrapping_mul(self.frame_bytes.into()).to_le_bytes());
        chunk.extend(self.frame_bytes.to_le_bytes());
        chunk.extend(self.bits.to_le_bytes());
        chunk
    }

    fn file(&self, data: &[u8]) -> Vec<u8> {
        riff(&[(b"fmt ", &self.chunk()), (b"data", data)])
    }
}

fn riff(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut body = b"WAVE".to_vec();
    for (id, data) in chunks {
        body.extend(*id);
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(*data);
        body.resize(body.len().next_multiple_of(2), 0);
    }
    [b"RIFF".as_slice(), &(body.len() as u32).to_le_bytes(), &body].concat()
}

#[test]
fn every_coding_is_read() {
    let wanted = [0.5f32, -0.25, 0.0, 0.75];
    let bytes = |encode: &dyn Fn(f32) -> Vec<u8>| wanted.iter().flat_map(|&x| encode(x)).collect::<Vec<u8>>();
    for (tag, bits, data, off) in [
        (1, 8, bytes(&|x| vec![(x * 128.0 + 128.0) as u8]), 0.0),
        (1, 16, bytes(&|x| ((x * 32_768.0) as i16).to_le_bytes().to_vec()), 0.0),
        (1, 24, bytes(&|x| ((x * 8_388_608.0) as i32).to_le_bytes()[..3].to_vec()), 0.0),
        (1, 32, bytes(&|x| ((x * 2_147_483_648.0) as i32).to_le_bytes().to_vec()), 0.0),
        (3, 32, bytes(&|x| x.to_le_bytes().to_vec()), 0.0),
        (3, 64, bytes(&|x| f64::from(x).to_le_bytes().to_vec()), 0.0),
        (6, 8, bytes(&|x| vec![g711::encode_alaw((x * 32_768.0) as i16)]), 0.02),
        (7, 8, bytes(&|x| vec![g711::encode_mulaw((x * 32_768.0) as i16)]), 0.02),
    ] {
        let header = Header { tag, bits, frame_bytes: bits / 8, ..MONO };
        let (pcm, end) = decode("audio/wav", &header.file(&data), 1).unwrap();
        assert_eq!(end, Ok(()));
        assert_eq!(pcm.len(), 4);
        for (want, got) in wanted.iter().zip(&pcm) {
            assert!((want - got).abs() <= off, "code {tag} of {bits} bits: {want} became {got}");
        }
    }
}

#[test]
fn extensible_headers_odd_chunks_and_sizes_of_pipes_are_understood() {
    let data = [0x00, 0x40, 0x00, 0xc0];
    let mut extensible = Header { tag: 0xfffe, ..MONO }.chunk();
    extensible.extend([22, 0, 16, 0, 4, 0, 0, 0]);
    extensible.extend([1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71]);
    let files = [
        riff(&[(b"fmt ", &extensible), (b"data", &data)]),
        riff(&[(b"LIST", b"odd"), (b"fmt ", &MONO.chunk()), (b"fact", &[0; 4]), (b"data", &data), (b"LIST", b"x")]),
    ];
    for file in files {
        assert_eq!(decode("audio/wav", &file, 5), Ok((vec![0.5, -0.5], Ok(()))));
    }
    for size in [0u32, u32::MAX, 0x7fff_f024] {
        let mut file = MONO.file(&data);
        file[40..44].copy_from_slice(&size.to_le_bytes());
        assert_eq!(decode("audio/wav", &file, 5), Ok((vec![0.5, -0.5], Ok(()))), "size {size:#x}");
    }
}

#[test]
fn files_may_follow_one_another() {
    let quiet = MONO.file(&[0; 3200]);
    let other = Header { rate: 8_000, ..MONO }.file(&[0; 1600]);
    let both = [quiet.clone(), other, quiet].concat();
    for split in [1, 1000, both.len()] {
        let (pcm, end) = decode("audio/wav", &both, split).unwrap();
        assert_eq!((pcm.len(), end), (1600 * 3, Ok(())));
    }
}

#[test]
fn bad_headers_are_refused_before_they_are_believed() {
    let file = |header: Header| header.file(&[0; 64]);
    for (bytes, expected) in [
        (file(Header { channels: 65_535, ..MONO }), "audio of 65535 channels is not supported"),
        (file(Header { channels: 0, ..MONO }), "audio of 0 channels is not supported"),
        (file(Header { rate: 0, ..MONO }), "sample rate 0 Hz is not supported"),
        (file(Header { rate: 7350, ..MONO }), "sample rate 7350 Hz is not supported"),
        (file(Header { rate: u32::MAX, ..MONO }), "sample rate 4294967295 Hz is not supported"),
        (file(Header { tag: 2, bits: 4, ..MONO }), "WAV of code 0x0002 with 4 bits a sample is not supported"),
        (file(Header { bits: 0, ..MONO }), "WAV of code 0x0001 with 0 bits"),
        (file(Header { frame_bytes: 0, ..MONO }), "says 0 bytes a frame"),
        (riff(&[(b"data", &[0; 64])]), "the WAV data comes before its format"),
        (riff(&[(b"fmt ", &[0; 15])]), "a WAV format chunk of 15 bytes"),
        (b"RIFX\0\0\0\0WAVE".to_vec(), "big-endian"),
        (b"ID3\x04 and so on".to_vec(), "the audio is not WAV: it starts with ID3\\x04"),
        (MONO.file(&[0; 64])[..30].to_vec(), "ended within its header"),
        (MONO.file(&[0; 64])[..100].to_vec(), "the WAV data ended 8 bytes before its declared size"),
    ] {
        for split in [1, bytes.len()] {
            let error = decode("audio/wav", &bytes, split).map_or_else(Err, |(_, end)| end).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let tone = sine(440.0, 24_000.0, 0.5, 2400);
    let mut writer = wav::Writer::new(Cursor::new(Vec::new()), SampleRate::HZ_24000).unwrap();
    writer.push(&tone[..1000]).unwrap();
    writer.push(&tone[1000..]).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    assert_eq!(bytes.len(), 44 + 4800);
    assert_eq!(&bytes[4..8], (36 + 4800u32).to_le_bytes());
    let path = std::env::temp_dir().join(format!("causerie-codec-{}.wav", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    let (rate, samples) = wav::read(&path).unwrap();
    let at_16k = wav::read_at(&path, SampleRate::HZ_16000).unwrap();
    // Cut short, it yields what it has.
    std::fs::write(&path, &bytes[..1045]).unwrap();
    let short = wav::read(&path).unwrap().1;
    std::fs::remove_file(&path).unwrap();
    assert_eq!((rate, samples.len(), at_16k.len()), (SampleRate::HZ_24000, 2400, 1600));
    assert!(samples.iter().zip(&tone).all(|(a, b)| (a - b).abs() <= 0.5 / 32_768.0));
    assert_eq!(short, samples[..500]);
    assert!(wav::read(&path).unwrap_err().to_string().starts_with("cannot read "));
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn damaged_files_never_panic_or_depend_on_the_split(
        data in prop::collection::vec(any::<u8>(), 0..300),
        damage in prop::collection::vec((0usize..60, any::<u8>()), 0..4),
        stereo in any::<bool>(),
    ) {
        let header = if stereo { Header { channels: 2, frame_bytes: 4, ..MONO } } else { MONO };
        let mut file = riff(&[(b"LIST", &data[..data.len() / 3]), (b"fmt ", &header.chunk()), (b"data", &data)]);
        for (place, value) in damage {
            if let Some(byte) = file.get_mut(place) {
                *byte = value;
            }
        }
        fuzz::fuzz_wav(&file);
    }
}
