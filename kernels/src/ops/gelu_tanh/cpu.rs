//! One body in lanes of eight, compiled once for the plain machine and once with fused multiplication, for AVX2 or NEON.
//! With `u` the argument of the hyperbolic tangent, `1/2 (1 + tanh u)` is `1 / (1 + exp(-2 u))`.

use crate::dispatch::Backend;
use crate::ops::softmax::exp_lanes;

pub(super) type Values = fn(&mut [f32]);

const LANES: usize = 8;
/// 2 √(2/π).
const SPEED: f32 = 1.595_769;

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

#[inline(always)]
fn lanes<const FMA: bool>(block: &mut [f32; LANES]) {
    let mut e = block.map(|x| -SPEED * x * (1.0 + 0.044_715 * x * x));
    exp_lanes::<FMA>(&mut e);
    for (x, e) in block.iter_mut().zip(e) {
        *x /= 1.0 + e;
    }
}
