//! One body in lanes of eight, compiled once for the plain machine and once with fused multiplication, for AVX2 or NEON.
//!
//! `erf` is Abramowitz and Stegun 7.1.26 (absolute error below 1.5e-7, so that of the activation is below
//! 1e-7 |x|); its exponential is 2^k · p(r) with the Taylor polynomial of degree 6 on |r| ≤ ln 2 / 2.

use crate::dispatch::Backend;

pub(super) type Values = fn(&mut [f32]);

const LANES: usize = 8;

/// The fastest version that this machine runs.
pub(super) fn best() -> Values {
    match Backend::best() {
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 | Backend::Avx512 => avx2,
        #[cfg(target_arch = "aarch64")]
        Backend::Neon | Backend::NeonDot => neon,
        _ => scalar,
    }
}

pub(super) fn scalar(x: &mut [f32]) {
    values::<false>(x);
}

/// NEON is what a plain build for this architecture has: this adds multiplication and addition in one rounding.
#[cfg(target_arch = "aarch64")]
pub(super) fn neon(x: &mut [f32]) {
    values::<true>(x);
}

/// Only [`best`] and the tests hand this out, after asking the machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(x: &mut [f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(x: &mut [f32]) {
        values::<true>(x);
    }
    // SAFETY: callers have checked that the machine has AVX2 and FMA.
    unsafe { compiled(x) }
}

#[inline(always)]
fn values<const FMA: bool>(x: &mut [f32]) {
    let (blocks, rest) = x.as_chunks_mut::<LANES>();
    for block in blocks {
        lanes::<FMA>(block);
    }
    let mut block = [0.0; LANES];
    block[..rest.len()].copy_from_slice(rest);
    lanes::<FMA>(&mut block);
    rest.copy_from_slice(&block[..rest.len()]);
}

/// `a b + c`; in one instruction only where there is one, because elsewhere it is a call.
#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn lanes<const FMA: bool>(block: &mut [f32; LANES]) {
    for x in block {
        let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
        let t = 1.0 / fma::<FMA>(0.327_591_1, z, 1.0);
        let mut p = 1.061_405_4;
        for a in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
            p = fma::<FMA>(p, t, a);
        }
        let tail = 0.5 * p * t * exp_of_negative::<FMA>(-z * z);
        // Φ(-|x|) is the tail itself, which keeps the relative error of small results; Φ(|x|) is one minus it.
        *x *= if *x < 0.0 { tail } else { 1.0 - tail };
    }
}

/// e^x for x ≤ 0; below -87 it is e^-87, which the caller cannot tell from zero.
#[inline(always)]
fn exp_of_negative<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.max(-87.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let k = shifted - ROUND;
    // ln 2 in two parts, so that k ln 2 is subtracted without rounding.
    let r = fma::<FMA>(k, 2.121_944_4e-4, fma::<FMA>(k, -0.693_359_4, x));
    let mut p = 1.0 / 720.0;
    for a in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = fma::<FMA>(p, r, a);
    }
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}
