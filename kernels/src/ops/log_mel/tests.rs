use super::{BINS, HOP, LogMel, N_FFT, cpu, reference};
use crate::Pool;
use crate::dispatch::Backend;

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// A chirp over noise 60 dB below, so that filters with little energy are looked at too.
fn chirp(n: usize) -> Vec<f32> {
    let noise = noise(7, n);
    (0..n).map(|i| (1e-6 * (i * i) as f32 + 0.05 * i as f32).sin() * 0.5 + 1e-3 * noise[i]).collect()
}

const VERSIONS: &[(Backend, cpu::Power)] = &[
    (Backend::Portable, cpu::scalar),
    #[cfg(target_arch = "x86_64")]
    (Backend::Avx2, cpu::avx2),
    #[cfg(target_arch = "aarch64")]
    (Backend::Neon, cpu::neon),
];

#[test]
fn spectra_are_those_of_the_definition() {
    let tables = cpu::Fourier::new();
    let mut windows = [0.0; cpu::FRAMES * N_FFT];
    windows.copy_from_slice(&noise(3, cpu::FRAMES * N_FFT));
    for (backend, version) in VERSIONS.iter().filter(|(backend, _)| backend.available()) {
        let mut got = [0.0; cpu::FRAMES * cpu::PADDED_BINS];
        version(&tables, &windows, &mut got);
        for frame in 0..cpu::FRAMES {
            for k in 0..BINS {
                let (mut re, mut im) = (0.0, 0.0);
                for n in 0..N_FFT {
                    let turn = 2.0 * std::f64::consts::PI / N_FFT as f64;
                    let x = (0.5 - 0.5 * (turn * n as f64).cos()) * f64::from(windows[frame * N_FFT + n]);
                    re += x * (turn * (n * k) as f64).cos();
                    im += x * (turn * (n * k) as f64).sin();
                }
                let want = re * re + im * im;
                let error = (f64::from(got[frame * cpu::PADDED_BINS + k]) - want).abs();
                // Amplitudes are sums of 400 products, about 10 in size.
                assert!(
                    error < 2e-5 * (1.0 + want),
                    "{backend:?}: bin {k} of frame {frame} is off by {error} of {want}"
                );
            }
        }
    }
}

#[test]
fn agrees_with_the_reference() {
    for (mels, samples, frames) in
        [(80, 0, 2), (80, 1, 2), (80, 400, 3), (128, 3000, 19), (80, 3200, 20), (80, 900, 41)]
    {
        let plan = LogMel::new(mels);
        let pcm = chirp(samples);
        let want = reference::log_mel(&plan.filters, &pcm, frames);
        for threads in [1, 2] {
            let mut got = vec![f32::NAN; frames * mels];
            plan.compute(&Pool::new(threads), &pcm, &mut got);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let (frame, band) = (i / mels, i % mels);
                assert!((got - want).abs() < 1e-4, "{samples} samples: [{frame}, {band}] is {got}, not {want}");
            }
        }
    }
}

#[test]
fn silence_is_flat_and_more_zeros_change_nothing_before() {
    let plan = LogMel::new(80);
    let pool = Pool::new(1);
    let mut out = vec![0.0; 80 * 10];
    plan.compute(&pool, &[], &mut out);
    assert!(out.iter().all(|&v| (v - out[0]).abs() < 1e-6));
    let pcm = chirp(16_000);
    let (mut short, mut long) = (vec![0.0; 80 * 150], vec![0.0; 80 * 300]);
    plan.compute(&pool, &pcm, &mut short);
    plan.compute(&pool, &pcm, &mut long);
    assert_eq!(short, long[..short.len()]);
}

#[test]
fn a_sample_changes_only_the_frames_that_see_it() {
    let plan = LogMel::new(80);
    let pool = Pool::new(1);
    let mut pcm = chirp(8000);
    let mut before = vec![0.0; 80 * 50];
    plan.compute(&pool, &pcm, &mut before);
    pcm[4000] += 0.01;
    let mut after = vec![0.0; 80 * 50];
    plan.compute(&pool, &pcm, &mut after);
    for frame in 0..50 {
        let sees = (frame * HOP).abs_diff(4000) < N_FFT / 2;
        let same = before[frame * 80..][..80] == after[frame * 80..][..80];
        assert_eq!(same, !sees, "frame {frame}");
    }
}
