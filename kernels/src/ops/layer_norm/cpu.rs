//! One body in lanes of eight, compiled once for the plain machine and once for AVX2.

use crate::dispatch::Backend;

pub(super) type Rows = fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

const LANES: usize = 8;

/// The fastest version that this machine runs.
pub(super) fn best() -> Rows {
    match Backend::best() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 | Backend::Avx512 => avx2,
        _ => scalar,
    }
}

pub(super) fn scalar(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    rows(x, gamma, beta, eps, y);
}

/// Only [`best`] and the tests hand this out, after asking the machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
        rows(x, gamma, beta, eps, y);
    }
    // SAFETY: callers have checked that the machine has AVX2 and FMA.
    unsafe { compiled(x, gamma, beta, eps, y) }
}

#[inline(always)]
fn rows(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    let n = gamma.len();
    for (x, y) in x.chunks_exact(n).zip(y.chunks_exact_mut(n)) {
        let mean = sum(x, |v| v) / n as f32;
        // Two passes: the squares of values far from zero would cancel in one.
        let variance = sum(x, |v| (v - mean) * (v - mean)) / n as f32;
        let scale = 1.0 / (variance + eps).sqrt();
        for (((y, x), gamma), beta) in y.iter_mut().zip(x).zip(gamma).zip(beta) {
            *y = (x - mean) * scale * gamma + beta;
        }
    }
}

#[inline(always)]
fn sum(x: &[f32], value: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        for (lane, &v) in lanes.iter_mut().zip(block) {
            *lane += value(v);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&v| value(v)).sum::<f32>()
}
