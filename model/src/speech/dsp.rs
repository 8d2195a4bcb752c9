//! From the spectrum that the acoustic network predicts to a waveform at 24 kHz.
//!
//! A frame is 12.5 ms. With the pulse train p of the predicted pitch and complex Gaussian noise Z,
//!
//! ```text
//! S = exp(lh) · e^{iπ·tanh θ} · STFT(p) / 300  +  exp(ln) · Z  +  exp(lr) · e^{iφ}
//! ```
//!
//! and the waveform is the inverse STFT of S (Hann window of 1200, hop 300, centred). The noise is drawn from a seed,
//! so equal inputs give equal samples.

use std::f32::consts::PI;
use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

/// Samples between frames.
pub(crate) const HOP: usize = 300;
/// Values of one frame in each spectral part.
pub(crate) const BINS: usize = N_FFT / 2 + 1;

const N_FFT: usize = 1200;
const SAMPLE_RATE: f64 = 24_000.0;
/// Below this pitch, in hertz, a sample is unvoiced.
const VOICED: f32 = 40.0;
/// Harmonics reach up to here, in hertz.
const HIGHEST_HARMONIC: f32 = 11_000.0;
/// Logarithms are cut here, as the network was trained: an outlier must not blow up.
const HIGHEST_LOG: f32 = 7.0;

/// What the network predicts for `frames` frames. The spectral parts are `[BINS, frames]`, row-major.
pub(crate) struct Spectrum<'a> {
    /// Log magnitude of the filter on the pulses.
    pub(crate) lh: &'a [f32],
    /// Its phase, before the tanh.
    pub(crate) theta: &'a [f32],
    /// Log magnitude of the noise.
    pub(crate) ln: &'a [f32],
    /// Log magnitude of the part with a free phase.
    pub(crate) lr: &'a [f32],
    /// That phase.
    pub(crate) phi: &'a [f32],
    /// `[frames]`, hertz; 0 is unvoiced.
    pub(crate) f0: &'a [f32],
}

/// Plans and windows, made once.
pub(crate) struct Renderer {
    forward: Arc<dyn RealToComplex<f32>>,
    inverse: Arc<dyn ComplexToReal<f32>>,
    window: Vec<f32>,
}

impl Renderer {
    pub(crate) fn new() -> Self {
        let mut planner = RealFftPlanner::new();
        // Periodic, so that squares of windows a hop apart sum to a constant.
        let window = (0..N_FFT).map(|n| 0.5 - 0.5 * (2.0 * PI * n as f32 / N_FFT as f32).cos()).collect();
        Self { forward: planner.plan_fft_forward(N_FFT), inverse: planner.plan_fft_inverse(N_FFT), window }
    }

    /// Appends `frames · HOP` samples to `out`. Without `noise` the noise part is left out.
    pub(crate) fn render(&self, s: &Spectrum<'_>, mut noise: Option<Noise>, out: &mut Vec<f32>) {
        let frames = s.f0.len();
        assert!(
            [s.lh, s.theta, s.ln, s.lr, s.phi].iter().all(|part| part.len() == BINS * frames),
            "every part has a value for each bin and frame"
        );
        let source = pulses(s.f0);
        let mut time = self.forward.make_input_vec();
        let mut spectrum = self.forward.make_output_vec();
        let mut scratch = self.forward.make_scratch_vec();
        let mut scratch_inverse = self.inverse.make_scratch_vec();
        let mut sum = vec![0.0f32; frames * HOP + N_FFT];
        let mut weight = vec![0.0f32; frames * HOP + N_FFT];
        for frame in 0..frames {
            let start = (frame * HOP) as isize - (N_FFT / 2) as isize;
            for (n, (x, w)) in time.iter_mut().zip(&self.window).enumerate() {
                *x = source[reflect(start + n as isize, source.len())] * w / HOP as f32;
            }
            self.forward.process_with_scratch(&mut time, &mut spectrum, &mut scratch).expect("the plan made them");
            for (bin, value) in spectrum.iter_mut().enumerate() {
                let i = bin * frames + frame;
                *value *= polar(s.lh[i], PI * s.theta[i].tanh());
                *value += polar(s.lr[i], s.phi[i]);
                if let Some(noise) = &mut noise {
                    *value += noise.complex() * magnitude(s.ln[i]);
                }
            }
            // A real signal has none, and the inverse plan insists.
            spectrum[0].im = 0.0;
            spectrum[BINS - 1].im = 0.0;
            self.inverse
                .process_with_scratch(&mut spectrum, &mut time, &mut scratch_inverse)
                .expect("the plan made them");
            let at = frame * HOP;
            for (((y, total), x), w) in sum[at..].iter_mut().zip(&mut weight[at..]).zip(&time).zip(&self.window) {
                *y += x * w / N_FFT as f32;
                *total += w * w;
            }
        }
        let half = N_FFT / 2;
        out.extend(sum[half..].iter().zip(&weight[half..]).take(frames * HOP).map(|(y, w)| y / w.max(1e-11)));
    }
}

fn magnitude(log: f32) -> f32 {
    log.min(HIGHEST_LOG).exp()
}

fn polar(log: f32, phase: f32) -> Complex<f32> {
    Complex::from_polar(magnitude(log), phase)
}

/// Index into a signal that is mirrored at both ends, the end samples not repeated.
fn reflect(i: isize, len: usize) -> usize {
    let period = (2 * (len as isize - 1)).max(1);
    let i = i.rem_euclid(period);
    (if i < len as isize { i } else { period - i }) as usize
}

/// Band-limited pulse train: every harmonic below [`HIGHEST_HARMONIC`] at unit amplitude, in closed form
/// Σ_{h=1..H} cos(h·t) = sin((H + ½)t) / (2 sin(t/2)) − ½, and 0 where the pitch is unvoiced.
fn pulses(f0: &[f32]) -> Vec<f32> {
    let last = f0.len().saturating_sub(1);
    let mut phase = 0.0f64;
    let mut out = Vec::with_capacity(f0.len() * HOP);
    for frame in 0..f0.len() {
        for n in 0..HOP {
            // The pitch of a frame is that of its middle.
            let offset = (n as f32 + 0.5) / HOP as f32 - 0.5;
            let (a, b, t) = if offset < 0.0 {
                (f0[frame.saturating_sub(1)], f0[frame], offset + 1.0)
            } else {
                (f0[frame], f0[(frame + 1).min(last)], offset)
            };
            let hertz = a * (1.0 - t) + b * t;
            let clamped = hertz.max(VOICED);
            phase = (phase + f64::from(clamped) / SAMPLE_RATE).fract();
            out.push(if hertz > VOICED { pulse(phase, clamped) } else { 0.0 });
        }
    }
    out
}

fn pulse(phase: f64, hertz: f32) -> f32 {
    let t = (2.0 * std::f64::consts::PI * phase) as f32;
    let order = (HIGHEST_HARMONIC / hertz).floor() + 0.5;
    let divisor = 2.0 * (t * 0.5).sin();
    // Near t = 0 the quotient tends to its limit and is not computable.
    let quotient = if divisor.abs() <= 2e-3 { order } else { (order * t).sin() / divisor };
    quotient - 0.5
}

/// Complex Gaussian noise from a seed (SplitMix64, Box–Muller).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Both parts have variance 1.
    fn complex(&mut self) -> Complex<f32> {
        let bits = self.bits();
        let unit = |bits: u64| ((bits >> 8) as f32 + 0.5) / (1u32 << 24) as f32;
        let (radius, turn) = (unit(bits & 0xFFFF_FFFF), unit(bits >> 32));
        Complex::from_polar((-2.0 * radius.ln()).sqrt(), 2.0 * PI * turn)
    }
}

#[cfg(test)]
mod tests;
