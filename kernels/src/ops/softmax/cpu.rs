//! One body in lanes of eight, compiled once for the plain machine and once with fused multiplication, for AVX2 or NEON.
//!
//! e^x is 2^k · p(r) with the Taylor polynomial of degree 6 on |r| ≤ ln 2 / 2, relative error below 2e-7.

use crate::dispatch::Backend;

pub(super) type Row = fn(&mut [f32]) -> f32;

const LANES: usize = 8;

/// The fastest version that this machine runs.
pub(super) fn best() -> Row {
    match Backend::best() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 | Backend::Avx512 => avx2,
        #[cfg(target_arch = "aarch64")]
        Backend::Neon | Backend::NeonDot => neon,
        _ => scalar,
    }
}

pub(super) fn scalar(x: &mut [f32]) -> f32 {
    body::<false>(x)
}

/// NEON is what a plain build for this architecture has: this adds multiplication and addition in one rounding.
#[cfg(target_arch = "aarch64")]
pub(super) fn neon(x: &mut [f32]) -> f32 {
    body::<true>(x)
}

/// Only [`best`] and the tests hand this out, after asking the machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(x: &mut [f32]) -> f32 {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(x: &mut [f32]) -> f32 {
        body::<true>(x)
    }
    // SAFETY: callers have checked that the machine has AVX2 and FMA.
    unsafe { compiled(x) }
}

#[inline(always)]
fn body<const FMA: bool>(x: &mut [f32]) -> f32 {
    let max = maximum(x);
    let mut sums = [0.0_f32; LANES];
    let (blocks, rest) = x.as_chunks_mut::<LANES>();
    for block in blocks {
        block.iter_mut().for_each(|x| *x -= max);
        exp_lanes::<FMA>(block);
        (0..LANES).for_each(|i| sums[i] += block[i]);
    }
    let mut last = [f32::NEG_INFINITY; LANES];
    last.iter_mut().zip(rest.iter()).for_each(|(l, r)| *l = r - max);
    exp_lanes::<FMA>(&mut last);
    (0..LANES).for_each(|i| sums[i] += last[i]);
    rest.copy_from_slice(&last[..rest.len()]);

    let sum: f32 = sums.iter().sum();
    let scale = 1.0 / sum;
    x.iter_mut().for_each(|x| *x *= scale);
    max + sum.ln()
}

#[inline(always)]
fn maximum(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = x.as_chunks::<LANES>();
    for block in blocks {
        (0..LANES).for_each(|i| lanes[i] = if block[i] > lanes[i] { block[i] } else { lanes[i] });
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `a b + c`; in one instruction only where there is one, because elsewhere it is a call.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Replaces each x by e^x. Below -87 the result is zero; above 88 it is that of 88.
#[inline(always)]
pub(crate) fn exp_lanes<const FMA: bool>(block: &mut [f32; LANES]) {
    // Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    for value in block {
        let x = value.clamp(-87.0, 88.0);
        let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
        let k = shifted - ROUND;
        // ln 2 in two parts, so that k ln 2 is subtracted without rounding.
        let r = fma::<FMA>(k, 2.121_944_4e-4, fma::<FMA>(k, -0.693_359_4, x));
        let mut p = 1.0 / 720.0;
        for a in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = fma::<FMA>(p, r, a);
        }
        let power = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
        *value = if *value < -87.0 { 0.0 } else { power };
    }
}
