//! The resampler: counts, place, causality, what passes and what does not.

use causerie_units::SampleRate;
use proptest::prelude::*;

use super::*;
use crate::level::rms_db;
use crate::resample::{Resampler, SUPPORTED_HZ};

fn rate(hz: u32) -> SampleRate {
    SampleRate::new(hz).unwrap()
}

fn convert(from: u32, to: u32, input: &[f32]) -> Vec<f32> {
    let mut resampler = Resampler::new(rate(from), rate(to)).unwrap();
    let mut out = Vec::new();
    resampler.push(input, &mut out);
    resampler.flush(&mut out);
    out
}

/// Every pair that a stream of ours uses.
fn pairs() -> impl Iterator<Item = (u32, u32)> {
    SUPPORTED_HZ.iter().map(|&hz| (hz, 16_000)).chain([8_000, 16_000, 24_000, 48_000].map(|hz| (24_000, hz)))
}

#[test]
fn counts_are_exact_over_ten_seconds() {
    for (from, to) in pairs() {
        assert_eq!(convert(from, to, &vec![0.0; 10 * from as usize]).len(), 10 * to as usize, "{from} to {to}");
        let odd = 10 * from as usize + 7;
        let expected = (odd as u64 * u64::from(to)).div_ceil(u64::from(from)) as usize;
        assert_eq!(convert(from, to, &vec![0.0; odd]).len(), expected, "{from} to {to}");
    }
}

#[test]
fn a_sine_comes_out_where_and_as_it_was() {
    for (from, to) in pairs() {
        for hz in [100.0, 1000.0, 3400.0, 0.43 * f64::from(from.min(to))] {
            let got = convert(from, to, &sine(hz, from.into(), 0.5, from as usize));
            let want = sine(hz, to.into(), 0.5, to as usize);
            // Away from the ends, where the silence around is heard too.
            let margin = to as usize / 50;
            let noise: Vec<f32> = want.iter().zip(&got).map(|(a, b)| a - b).collect();
            let body = margin..want.len() - margin;
            let snr = rms_db(&want[body.clone()]) - rms_db(&noise[body]);
            assert!(snr > 70.0, "{hz:.0} Hz from {from} to {to}: {snr:.1} dB");
        }
    }
}

#[test]
fn what_would_alias_is_kept_out() {
    for (from, to) in pairs().filter(|(from, to)| from > to) {
        let hz = 0.57 * f64::from(to);
        if hz < 0.5 * f64::from(from) {
            let got = convert(from, to, &sine(hz, from.into(), 0.5, from as usize));
            let margin = to as usize / 50;
            let level = rms_db(&got[margin..got.len() - margin]) - rms_db(&sine(hz, from.into(), 0.5, from as usize));
            assert!(level < -70.0, "{hz:.0} Hz from {from} to {to} is only {level:.1} dB");
        }
    }
}

#[test]
fn equal_rates_are_the_identity_without_delay() {
    let input = sine(440.0, 16_000.0, 0.9, 1000);
    let mut resampler = Resampler::new(rate(16_000), rate(16_000)).unwrap();
    let mut out = Vec::new();
    resampler.push(&input, &mut out);
    assert_eq!(out, input);
    assert_eq!(resampler.lookahead(), 0);
}

#[test]
fn lookahead_is_under_three_milliseconds() {
    for (from, to) in pairs() {
        let lookahead = Resampler::new(rate(from), rate(to)).unwrap().lookahead();
        let ms = lookahead as f64 * 1000.0 / f64::from(to);
        assert!(ms < 3.0, "{from} to {to}: {ms:.2} ms");
    }
}

#[test]
fn output_waits_for_no_more_than_the_lookahead() {
    for (from, to) in pairs() {
        let mut resampler = Resampler::new(rate(from), rate(to)).unwrap();
        let (mut out, mut sent) = (Vec::new(), 0);
        for _ in 0..100 {
            resampler.push(&[0.1; 37], &mut out);
            sent += 37u64;
            let due = sent * u64::from(to) / u64::from(from);
            assert!(out.len() as u64 + resampler.lookahead() >= due, "{from} to {to} after {sent}");
        }
    }
}

#[test]
fn unsupported_rates_say_so() {
    for hz in [0, 1, 7350, 15_999, 192_000] {
        let error = crate::resample::supported(hz).unwrap_err();
        assert_eq!(error.to_string(), format!("sample rate {hz} Hz is not supported"));
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn chunking_does_not_matter(
        pair in 0..15usize,
        input in prop::collection::vec(-1.0f32..1.0, 0..3000),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (from, to) = pairs().nth(pair).unwrap();
        let whole = convert(from, to, &input);
        let mut resampler = Resampler::new(rate(from), rate(to)).unwrap();
        let mut out = Vec::new();
        for piece in pieces(&input, &cuts) {
            resampler.push(piece, &mut out);
        }
        resampler.flush(&mut out);
        prop_assert!(out == whole, "{} to {}", from, to);
        // A flush leaves it as new.
        resampler.push(&input, &mut out);
        resampler.flush(&mut out);
        prop_assert!(out[whole.len()..] == whole);
    }

    #[test]
    fn changing_a_sample_changes_nothing_before_its_lookahead(pair in 0..15usize, at in 0usize..2000) {
        let (from, to) = pairs().nth(pair).unwrap();
        let input = sine(321.0, from.into(), 0.5, 2000);
        let mut changed = input.clone();
        changed[at] += 0.25;
        let (before, after) = (convert(from, to, &input), convert(from, to, &changed));
        let first = before.iter().zip(&after).position(|(a, b)| a != b).unwrap_or(before.len()) as u64;
        let lookahead = Resampler::new(rate(from), rate(to)).unwrap().lookahead();
        let place = at as u64 * u64::from(to) / u64::from(from);
        prop_assert!(first + lookahead >= place, "{from} to {to}: sample {at} changed output {first}");
    }
}
