//! Tests of the crate through its front, and what they share.

mod container;
mod format;
mod opus;
mod raw;
mod resample;
mod wav;

use std::f64::consts::TAU;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, RngSeed};

use crate::{AudioInput, CodecError, InputFormat};

/// A sine at `hz`, `count` samples of `rate`.
fn sine(hz: f64, rate: f64, amplitude: f64, count: usize) -> Vec<f32> {
    (0..count).map(|n| (amplitude * (TAU * hz * n as f64 / rate).sin()) as f32).collect()
}

/// The sound of the golden files (tests/golden/media/make.py), at 16 kHz.
fn golden_tone() -> Vec<f32> {
    let seconds = 1.2;
    (0..(seconds * 16_000.0) as usize)
        .map(|n| {
            let t = n as f64 / 16_000.0;
            let fade = (t.min(seconds - t) / 0.05).min(1.0);
            ((0.3 * (TAU * 440.0 * t).sin() + 0.1 * (TAU * 1250.0 * t).sin()) * fade) as f32
        })
        .collect()
}

fn golden(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/media").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Signal to noise in dB of `got` against `want`, after the best gain and shift (in samples, `got` later by) within
/// `lags`. Only where both exist and away from the ends.
fn match_snr(want: &[f32], got: &[f32], lags: std::ops::RangeInclusive<isize>) -> (f64, isize, f64) {
    let mut best = (f64::NEG_INFINITY, 0, 0.0);
    for lag in lags {
        let pairs: Vec<(f64, f64)> = (800..want.len() as isize - 800)
            .filter_map(|n| Some((f64::from(want[n as usize]), f64::from(*got.get((n + lag) as usize)?))))
            .collect();
        let cross: f64 = pairs.iter().map(|(a, b)| a * b).sum();
        let energy: f64 = pairs.iter().map(|(a, _)| a * a).sum();
        let gain = cross / energy;
        let noise: f64 = pairs.iter().map(|(a, b)| (b - gain * a).powi(2)).sum();
        let snr = 10.0 * (gain * gain * energy / noise).log10();
        if gain > 0.0 && snr > best.0 {
            best = (snr, lag, gain);
        }
    }
    best
}

/// Decodes a whole stream, `split` bytes at a time, and what the flush said.
fn decode(mime: &str, bytes: &[u8], split: usize) -> Result<(Vec<f32>, Result<(), CodecError>), CodecError> {
    let mut input = AudioInput::open(&InputFormat::parse(mime)?)?;
    let mut pcm = Vec::new();
    for piece in bytes.chunks(split.max(1)) {
        input.push(piece, &mut pcm)?;
    }
    let end = input.flush(&mut pcm);
    Ok((pcm, end))
}

/// Few cases, always the same.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

/// `whole` cut at the given places.
fn pieces<'a, T>(whole: &'a [T], cuts: &[prop::sample::Index]) -> Vec<&'a [T]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).collect();
    places.sort_unstable();
    let mut start = 0;
    let mut pieces: Vec<&[T]> = Vec::new();
    for end in places.into_iter().chain([whole.len()]) {
        pieces.push(&whole[start..end]);
        start = end;
    }
    pieces
}

#[test]
fn streams_can_move_between_threads() {
    fn check<T: Send>() {}
    check::<AudioInput>();
    check::<crate::AudioOutput>();
}
