use realfft::RealFftPlanner;
use serde::Deserialize;

use super::*;
use crate::testing::{golden, model};

#[derive(Deserialize)]
struct Row {
    phonemes: String,
    samples: usize,
    bands: Vec<Vec<f32>>,
}

/// As in the script that made the golden file.
fn bands(wave: &[f32]) -> Vec<Vec<f32>> {
    let fft = RealFftPlanner::<f32>::new().plan_fft_forward(1200);
    let hann = |n: usize| 0.5 - 0.5 * (std::f32::consts::TAU * n as f32 / 1200.0).cos();
    let level = |band: &[realfft::num_complex::Complex<f32>]| {
        10.0 * (band.iter().map(|z| z.norm_sqr()).sum::<f32>() / band.len() as f32 + 1e-6).log10()
    };
    wave.chunks_exact(1200)
        .map(|block| {
            let mut block: Vec<f32> = block.iter().enumerate().map(|(n, x)| x * hann(n)).collect();
            let mut spectrum = fft.make_output_vec();
            fft.process(&mut block, &mut spectrum).unwrap();
            (0..16).map(|b| level(&spectrum[1 + 12 * b..][..12])).collect()
        })
        .collect()
}

#[test]
fn sounds_like_the_released_package() {
    let Some(dir) = model("hibari") else { return };
    let voice = Acoustic::load(&dir.join("hibari.onnx"), &Worker::new()).unwrap();
    let rows: Vec<Row> = serde_json::from_str(&golden("speech/voice.json")).unwrap();
    for row in rows {
        let mut wave = Vec::new();
        let phonemes: Vec<char> = row.phonemes.chars().collect();
        let ends = voice.speak(&phonemes, 1.0, false, &mut wave).unwrap();
        assert_eq!(wave.len(), row.samples, "{}", row.phonemes);
        assert!(ends.is_sorted() && ends.last().is_some_and(|end| *end <= wave.len()));
        let differences: Vec<f32> =
            bands(&wave).iter().flatten().zip(row.bands.iter().flatten()).map(|(a, b)| (a - b).abs()).collect();
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        println!("{}: mean difference {mean:.2} dB over {} bands", row.phonemes, differences.len());
        // Two runtimes round the eight-bit network differently; equal audio measures 0 and another sentence 10.
        assert!(mean < 1.5, "{}: mean difference {mean:.2} dB", row.phonemes);
    }
}

#[test]
fn the_rate_changes_the_length() {
    let Some(dir) = model("hibari") else { return };
    let voice = Acoustic::load(&dir.join("hibari.onnx"), &Worker::new()).unwrap();
    let phonemes: Vec<char> = "ðə kwˈɪk bɹˈWn fˈɑks.".chars().collect();
    let len = |rate| {
        let mut out = Vec::new();
        voice.speak(&phonemes, rate, true, &mut out).unwrap();
        out.len() as f32
    };
    let usual = len(1.0);
    assert!((len(2.0) / usual - 0.5).abs() < 0.15);
    assert!((len(0.5) / usual - 2.0).abs() < 0.3);
}

#[test]
fn characters_outside_the_alphabet_are_passed_over() {
    assert_eq!(id('ˈ'), Some(156));
    assert_eq!(id('ᵻ'), Some(177));
    assert_eq!(id(' '), Some(16));
    assert_eq!(id('日'), None);
    let Some(dir) = model("hibari") else { return };
    let voice = Acoustic::load(&dir.join("hibari.onnx"), &Worker::new()).unwrap();
    let mut out = Vec::new();
    assert_eq!(voice.speak(&['日', '本'], 1.0, true, &mut out).unwrap(), [0, 0]);
    assert!(out.is_empty());
}
