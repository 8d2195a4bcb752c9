//! The power spectra of a few windows at once, as small matrix products.
//!
//! A Fourier transform of 400 real values has so much symmetry that folding it twice leaves four products of about 100
//! by 100: in `n` (cosines are even, sines odd around 200) and again around 100, which separates even bins from odd.
//! That is 40k multiplications a window, all in lanes, and no code for radix 5.
//!
//! One body in lanes of eight, compiled once for the plain machine and once with fused multiplication, for AVX2 or NEON.

use std::f64::consts::PI;

use super::{BINS, N_FFT};
use crate::dispatch::Backend;

/// Windows transformed together.
pub(super) const FRAMES: usize = 4;
/// Floats of a spectrum, padding included.
pub(super) const PADDED_BINS: usize = BINS + 7;
/// Bins of one product that are summed in registers.
const TILE: usize = 16;
/// Even bins (or odd ones), padded to tiles.
const HALF_BINS: usize = 112;
/// Values left after folding twice.
const FOLDED: usize = N_FFT / 4 + 1;

pub(super) type Power = fn(&Fourier, &[f32; FRAMES * N_FFT], &mut [f32; FRAMES * PADDED_BINS]);

/// Window and trigonometric tables, each `[FOLDED, HALF_BINS]`.
pub(super) struct Fourier {
    hann: Vec<f32>,
    cos_even: Vec<f32>,
    cos_odd: Vec<f32>,
    sin_even: Vec<f32>,
    sin_odd: Vec<f32>,
}

impl Fourier {
    pub(super) fn new() -> Self {
        let angle = |turns: usize| 2.0 * PI * (turns % N_FFT) as f64 / N_FFT as f64;
        let table = |parity: usize, of: fn(f64) -> f64| {
            let mut table = vec![0.0; FOLDED * HALF_BINS];
            for (n, row) in table.chunks_exact_mut(HALF_BINS).enumerate() {
                for (i, value) in row.iter_mut().enumerate().take(FOLDED - parity) {
                    *value = of(angle(n * (2 * i + parity))) as f32;
                }
            }
            table
        };
        Self {
            hann: (0..N_FFT).map(|n| (0.5 - 0.5 * angle(n).cos()) as f32).collect(),
            cos_even: table(0, f64::cos),
            cos_odd: table(1, f64::cos),
            sin_even: table(0, f64::sin),
            sin_odd: table(1, f64::sin),
        }
    }
}

/// The fastest version that this machine runs.
pub(super) fn best() -> Power {
    match Backend::best() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 | Backend::Avx512 => avx2,
        #[cfg(target_arch = "aarch64")]
        Backend::Neon | Backend::NeonDot => neon,
        _ => scalar,
    }
}

pub(super) fn scalar(tables: &Fourier, windows: &[f32; FRAMES * N_FFT], out: &mut [f32; FRAMES * PADDED_BINS]) {
    power::<false>(tables, windows, out);
}

/// NEON is what a plain build for this architecture has: this adds multiplication and addition in one rounding.
#[cfg(target_arch = "aarch64")]
pub(super) fn neon(tables: &Fourier, windows: &[f32; FRAMES * N_FFT], out: &mut [f32; FRAMES * PADDED_BINS]) {
    power::<true>(tables, windows, out);
}

/// Only [`best`] and the tests hand this out, after asking the machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(tables: &Fourier, windows: &[f32; FRAMES * N_FFT], out: &mut [f32; FRAMES * PADDED_BINS]) {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(tables: &Fourier, windows: &[f32; FRAMES * N_FFT], out: &mut [f32; FRAMES * PADDED_BINS]) {
        power::<true>(tables, windows, out);
    }
    // SAFETY: callers have checked that the machine has AVX2 and FMA.
    unsafe { compiled(tables, windows, out) }
}

type Folded = [[f32; FRAMES]; FOLDED];

#[inline(always)]
fn power<const FMA: bool>(tables: &Fourier, windows: &[f32; FRAMES * N_FFT], out: &mut [f32; FRAMES * PADDED_BINS]) {
    let zero: Folded = [[0.0; FRAMES]; FOLDED];
    let (mut cos_even, mut cos_odd, mut sin_even, mut sin_odd) = (zero, zero, zero, zero);
    for (frame, window) in windows.chunks_exact(N_FFT).enumerate() {
        let x = |n: usize| tables.hann[n] * window[n];
        // The window is zero at 0, and 200 is its own mirror image.
        let even = |n: usize| if n.is_multiple_of(N_FFT / 2) { x(n) } else { x(n) + x(N_FFT - n) };
        let odd = |n: usize| if n.is_multiple_of(N_FFT / 2) { 0.0 } else { x(n) - x(N_FFT - n) };
        for n in 0..FOLDED - 1 {
            let mirror = N_FFT / 2 - n;
            cos_even[n][frame] = even(n) + even(mirror);
            cos_odd[n][frame] = even(n) - even(mirror);
            sin_even[n][frame] = odd(n) - odd(mirror);
            sin_odd[n][frame] = odd(n) + odd(mirror);
        }
        cos_even[FOLDED - 1][frame] = even(FOLDED - 1);
        sin_odd[FOLDED - 1][frame] = odd(FOLDED - 1);
    }
    interleave::<FMA>(&tables.cos_even, &tables.sin_even, &cos_even, &sin_even, 0, out);
    interleave::<FMA>(&tables.cos_odd, &tables.sin_odd, &cos_odd, &sin_odd, 1, out);
}

/// Squares of the sums of cosines and sines, to every second bin from `parity`.
#[inline(always)]
fn interleave<const FMA: bool>(
    cos_table: &[f32],
    sin_table: &[f32],
    cos: &Folded,
    sin: &Folded,
    parity: usize,
    out: &mut [f32; FRAMES * PADDED_BINS],
) {
    for tile in (0..HALF_BINS).step_by(TILE) {
        let re = product::<FMA>(cos_table, cos, tile);
        let im = product::<FMA>(sin_table, sin, tile);
        for frame in 0..FRAMES {
            for i in 0..TILE {
                let bin = 2 * (tile + i) + parity;
                if bin < BINS {
                    out[frame * PADDED_BINS + bin] = re[frame][i] * re[frame][i] + im[frame][i] * im[frame][i];
                }
            }
        }
    }
}

#[inline(always)]
fn product<const FMA: bool>(table: &[f32], x: &Folded, tile: usize) -> [[f32; TILE]; FRAMES] {
    let mut sums = [[0.0f32; TILE]; FRAMES];
    for (x, row) in x.iter().zip(table.chunks_exact(HALF_BINS)) {
        let row: &[f32; TILE] = row[tile..tile + TILE].try_into().expect("a tile has that length");
        for (sums, &x) in sums.iter_mut().zip(x) {
            for (sum, &w) in sums.iter_mut().zip(row) {
                *sum = if FMA { x.mul_add(w, *sum) } else { x * w + *sum };
            }
        }
    }
    sums
}
