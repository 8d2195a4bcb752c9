//! What the op means, by the definition of the Fourier transform.

use std::f64::consts::PI;

use super::filters::Filters;
use super::{BINS, FLOOR, N_FFT};
#[cfg(test)]
use super::{HOP, RANGE};

#[cfg(test)]
pub(super) fn log_mel(filters: &Filters, pcm: &[f32], frames: usize) -> Vec<f32> {
    let samples = (frames * HOP) as isize;
    let sample = |at: isize| {
        let at = if at < 0 { -at } else { at };
        let at = if at >= samples { 2 * (samples - 1) - at } else { at };
        f64::from(pcm.get(at as usize).copied().unwrap_or(0.0))
    };
    let mut out = Vec::new();
    for frame in 0..frames {
        let spectrum = spectrum(|n| sample((frame * HOP + n) as isize - (N_FFT / 2) as isize));
        let mut mel = vec![0.0; filters.mels()];
        filters.apply(&spectrum, &mut mel);
        out.extend(mel.iter().map(|p| p.max(FLOOR).log10()));
    }
    let floor = out.iter().copied().fold(f32::NEG_INFINITY, f32::max) - RANGE;
    out.iter().map(|v| (v.max(floor) + 4.0) / 4.0).collect()
}

/// The power in each bin of a window of [`N_FFT`] samples.
pub(super) fn spectrum(sample: impl Fn(usize) -> f64) -> [f32; BINS] {
    let angle = |turns: usize| 2.0 * PI * (turns % N_FFT) as f64 / N_FFT as f64;
    let windowed: Vec<f64> = (0..N_FFT).map(|n| (0.5 - 0.5 * angle(n).cos()) * sample(n)).collect();
    std::array::from_fn(|k| {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, x) in windowed.iter().enumerate() {
            re += x * angle(k * n).cos();
            im -= x * angle(k * n).sin();
        }
        (re * re + im * im) as f32
    })
}

/// The logarithm of each band of a spectrum, and how far off it may be if amplitudes are off by `error`.
pub(super) fn bands(filters: &Filters, spectrum: &[f32; BINS], error: f32) -> Vec<(f32, f32)> {
    let band = |band: &super::filters::Band| {
        let each = || band.weights.iter().zip(&spectrum[band.first..]).map(|(w, p)| (f64::from(*w), f64::from(*p)));
        let power: f64 = each().map(|(w, p)| w * p).sum();
        let off: f64 = each().map(|(w, p)| w * (2.0 * p.sqrt() + f64::from(error)) * f64::from(error)).sum();
        let power = power.max(f64::from(FLOOR));
        (power.log10() as f32, ((1.0 + off / power).log10() + 4e-6) as f32)
    };
    filters.bands().iter().map(band).collect()
}
