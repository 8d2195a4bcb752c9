//! One body in lanes of eight, compiled once for the plain machine and once with fused multiplication, for AVX2 or NEON.
//! The result of a value does not depend on its place.

use crate::dispatch::Backend;
use crate::ops::softmax::exp_lanes;

pub(super) type Values = fn(&mut [f32], &[f32]);

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

pub(super) fn scalar(gate: &mut [f32], up: &[f32]) {
    values::<false>(gate, up);
}

/// NEON is what a plain build for this architecture has: this adds multiplication and addition in one rounding.
#[cfg(target_arch = "aarch64")]
pub(super) fn neon(gate: &mut [f32], up: &[f32]) {
    values::<true>(gate, up);
}

/// Only [`best`] and the tests hand this out, after asking the machine.
#[cfg(target_arch = "x86_64")]
pub(super) fn avx2(gate: &mut [f32], up: &[f32]) {
    #[target_feature(enable = "avx2,fma")]
    fn compiled(gate: &mut [f32], up: &[f32]) {
        values::<true>(gate, up);
    }
    // SAFETY: callers have checked that the machine has AVX2 and FMA.
    unsafe { compiled(gate, up) }
}

#[inline(always)]
fn values<const FMA: bool>(gate: &mut [f32], up: &[f32]) {
    let (gates, rest) = gate.as_chunks_mut::<LANES>();
    let (ups, up_rest) = up.as_chunks::<LANES>();
    for (gate, up) in gates.iter_mut().zip(ups) {
        lanes::<FMA>(gate, up);
    }
    let (mut last, mut last_up) = ([0.0; LANES], [0.0; LANES]);
    last[..rest.len()].copy_from_slice(rest);
    last_up[..rest.len()].copy_from_slice(up_rest);
    lanes::<FMA>(&mut last, &last_up);
    rest.copy_from_slice(&last[..rest.len()]);
}

#[inline(always)]
fn lanes<const FMA: bool>(gate: &mut [f32; LANES], up: &[f32; LANES]) {
    let mut e = gate.map(|x| -x);
    exp_lanes::<FMA>(&mut e);
    for i in 0..LANES {
        gate[i] = gate[i] / (1.0 + e[i]) * up[i];
    }
}
