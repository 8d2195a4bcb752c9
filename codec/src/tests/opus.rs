//! Opus packets.

use proptest::prelude::*;

use super::*;
use crate::level::rms_db;
use crate::opus::{OpusDecoder, OpusEncoder, packet_samples};
use crate::{AudioOutput, OutputFormat, Packet, fuzz};

fn packets(pcm: &[f32]) -> Vec<Packet> {
    let mut output = AudioOutput::open(OutputFormat::Opus).unwrap();
    let mut packets = Vec::new();
    output.push(pcm, &mut packets).unwrap();
    output.flush(&mut packets).unwrap();
    packets
}

#[test]
fn speech_survives_and_its_length_is_whole_packets() {
    let packets = packets(&sine(440.0, 24_000.0, 0.4, 24_000));
    // A second is 50 packets; the encoder's lookahead of 6.5 ms needs one more.
    assert_eq!(packets.len(), 51);
    assert!(packets.iter().all(|packet| packet.samples == 480 && packet.bytes.len() < 400));
    let mut input = AudioInput::open(&InputFormat::Opus).unwrap();
    let mut pcm = Vec::new();
    for packet in &packets {
        input.push(&packet.bytes, &mut pcm).unwrap();
    }
    input.flush(&mut pcm).unwrap();
    assert_eq!(pcm.len(), 51 * 320);
    let (snr, lag, gain) = match_snr(&sine(440.0, 16_000.0, 0.4, 16_000), &pcm, 90..=130);
    assert!(snr > 20.0 && (0.95..1.05).contains(&gain), "{snr:.1} dB at {lag}, gain {gain:.3}");
    // 6.5 ms at 16 kHz, as the encoder says of itself.
    let lookahead = OpusEncoder::new().unwrap().lookahead() * 16 / 24;
    assert!((lag - lookahead as isize).abs() <= 2, "lag {lag}, lookahead {lookahead}");
}

#[test]
fn durations_are_those_of_the_table_of_contents() {
    // RFC 6716 §3.1, table 2, in samples at 16 kHz.
    for (packet, expected) in [
        (vec![0 << 3], Some(160)),
        (vec![3 << 3], Some(960)),
        (vec![11 << 3 | 1], Some(1920)),
        (vec![13 << 3], Some(320)),
        (vec![16 << 3], Some(40)),
        (vec![31 << 3 | 3, 6], Some(1920)),
        (vec![16 << 3 | 3, 48], Some(1920)),
        (vec![31 << 3 | 3, 7], None),
        (vec![3 << 3 | 3, 3], None),
        (vec![16 << 3 | 3, 49], None),
        (vec![3], None),
        (vec![3, 0], None),
        (vec![], None),
    ] {
        assert_eq!(packet_samples(&packet).ok(), expected, "{packet:?}");
    }
    assert_eq!(
        packet_samples(&[31 << 3 | 3, 7]).unwrap_err().to_string(),
        "an Opus packet of 140 ms is longer than 120 ms"
    );
}

#[test]
fn a_bad_packet_does_not_end_the_stream() {
    let packets = packets(&sine(440.0, 24_000.0, 0.4, 4800));
    let mut input = AudioInput::open(&InputFormat::Opus).unwrap();
    let mut pcm = Vec::new();
    input.push(&packets[0].bytes, &mut pcm).unwrap();
    assert!(matches!(input.push(&[0xff, 0x3f], &mut pcm), Err(CodecError::Malformed(_))));
    assert!(input.push(&[0xfb, 0x83, 0xff], &mut pcm).is_err());
    input.push(&packets[1].bytes, &mut pcm).unwrap();
    assert_eq!(pcm.len(), 640);
    input.push(&[], &mut pcm).unwrap();
    assert_eq!(pcm.len(), 640, "an empty message is nothing");
}

#[test]
fn a_loss_is_concealed_and_a_long_one_fades() {
    let packets = packets(&sine(440.0, 24_000.0, 0.4, 12_000));
    let mut input = AudioInput::open(&InputFormat::Opus).unwrap();
    let mut pcm = Vec::new();
    for packet in &packets[..10] {
        input.push(&packet.bytes, &mut pcm).unwrap();
    }
    let before = rms_db(&pcm[pcm.len() - 320..]);
    let mut lost = Vec::new();
    input.conceal(16_000, &mut lost).unwrap();
    assert_eq!(lost.len(), 16_000);
    assert!((rms_db(&lost[..320]) - before).abs() < 3.0, "the first 20 ms go on");
    assert!(rms_db(&lost[8_000..]) < before - 30.0, "half a second later there is silence");
    // Rounded up to what Opus can conceal; nothing but silence for formats without a guess.
    lost.clear();
    OpusDecoder::new().unwrap().conceal(1, &mut lost).unwrap();
    assert_eq!(lost.len(), 40);
    lost.clear();
    AudioInput::open(&InputFormat::parse("audio/pcm").unwrap()).unwrap().conceal(7, &mut lost).unwrap();
    assert_eq!(lost, [0.0; 7]);
    assert!(matches!(input.conceal(u64::MAX, &mut lost), Err(CodecError::Limit(_))));
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn no_packet_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::fuzz_opus(&bytes);
    }
}
