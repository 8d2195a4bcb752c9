//! What the op means, by the definition of the Fourier transform.

use std::f64::consts::PI;

use super::filters::Filters;
use super::{BINS, FLOOR, HOP, N_FFT, RANGE};

pub(super) fn log_mel(filters: &Filters, pcm: &[f32], frames: usize) -> Vec<f32> {
    let samples = (frames * HOP) as isize;
    let sample = |at: isize| {
        let at = if at < 0 { -at } else { at };
        let at = if at >= samples { 2 * (samples - 1) - at } else { at };
        f64::from(pcm.get(at as usize).copied().unwrap_or(0.0))
    };
    let mut out = Vec::new();
    for frame in 0..frames {
        let mut spectrum = [0.0; BINS];
        for (k, power) in spectrum.iter_mut().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for n in 0..N_FFT {
                let hann = 0.5 - 0.5 * (2.0 * PI * n as f64 / N_FFT as f64).cos();
                let x = hann * sample((frame * HOP + n) as isize - (N_FFT / 2) as isize);
                let angle = 2.0 * PI * ((k * n) % N_FFT) as f64 / N_FFT as f64;
                re += x * angle.cos();
                im -= x * angle.sin();
            }
            *power = (re * re + im * im) as f32;
        }
        let mut mel = vec![0.0; filters.mels()];
        filters.apply(&spectrum, &mut mel);
        out.extend(mel.iter().map(|p| p.max(FLOOR).log10()));
    }
    let floor = out.iter().copied().fold(f32::NEG_INFINITY, f32::max) - RANGE;
    out.iter().map(|v| (v.max(floor) + 4.0) / 4.0).collect()
}
