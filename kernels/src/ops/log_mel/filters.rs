//! Triangular mel filters on Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above, each of
//! unit area.

use super::{BINS, N_FFT};

const RATE: f64 = 16_000.0;
/// Width of a mel below [`BREAK_HZ`].
const HZ_PER_MEL: f64 = 200.0 / 3.0;
const BREAK_HZ: f64 = 1000.0;

/// The filters, without their zeros.
pub(super) struct Filters {
    bands: Vec<Band>,
}

pub(super) struct Band {
    pub(super) first: usize,
    pub(super) weights: Vec<f32>,
}

impl Filters {
    pub(super) fn new(mels: usize) -> Self {
        let top = mel(RATE / 2.0);
        let edge = |i: usize| hertz(top * i as f64 / (mels + 1) as f64);
        let bands = (0..mels).map(|band| Band::new(edge(band), edge(band + 1), edge(band + 2))).collect();
        Self { bands }
    }

    pub(super) fn bands(&self) -> &[Band] {
        &self.bands
    }

    pub(super) fn mels(&self) -> usize {
        self.bands.len()
    }

    /// Sums the power `spectrum` of [`BINS`] bins into the bands.
    pub(super) fn apply(&self, spectrum: &[f32], out: &mut [f32]) {
        for (band, out) in self.bands.iter().zip(out) {
            *out = band.weights.iter().zip(&spectrum[band.first..]).map(|(w, p)| w * p).sum();
        }
    }
}

impl Band {
    fn new(low: f64, centre: f64, high: f64) -> Self {
        let weight = |bin: usize| {
            let hz = bin as f64 * RATE / N_FFT as f64;
            let triangle = ((hz - low) / (centre - low)).min((high - hz) / (high - centre)).max(0.0);
            (triangle * 2.0 / (high - low)) as f32
        };
        let first = (0..BINS).find(|&bin| weight(bin) > 0.0).unwrap_or(0);
        let weights = (first..BINS).map(weight).take_while(|&w| w > 0.0).collect();
        Self { first, weights }
    }
}

fn mel(hz: f64) -> f64 {
    if hz < BREAK_HZ { hz / HZ_PER_MEL } else { BREAK_HZ / HZ_PER_MEL + (hz / BREAK_HZ).ln() * mels_per_e() }
}

fn hertz(mel: f64) -> f64 {
    let break_mel = BREAK_HZ / HZ_PER_MEL;
    if mel < break_mel { mel * HZ_PER_MEL } else { BREAK_HZ * ((mel - break_mel) / mels_per_e()).exp() }
}

/// 27 mels from 1 kHz to 6.4 kHz.
fn mels_per_e() -> f64 {
    27.0 / 6.4f64.ln()
}
