//! `y_i = exp(x_i - max x) / Σ_j exp(x_j - max x)`, row by row and in place.
//!
//! x: `[m, n]` f32, row-major. An entry of -∞ gets probability zero.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

pub(crate) use cpu::exp_lanes;

use super::split::for_each_rows;
use crate::Pool;

/// Values handed to a worker at once.
const GRAIN: usize = 1 << 13;

/// Applies softmax to rows of `n` values. The result of a row does not depend on the others.
///
/// # Panics
/// If `x` is not whole rows.
pub fn softmax(pool: &Pool, x: &mut [f32], n: usize) {
    assert!(n > 0 && x.len().is_multiple_of(n), "softmax: {} values are not rows of {n}", x.len());
    let one = cpu::best();
    for_each_rows(pool, x, n, GRAIN.div_ceil(n), &|_, rows| {
        rows.chunks_exact_mut(n).for_each(|row| _ = one(row));
    });
}

/// Applies softmax to one row on the calling thread, and returns the logarithm of `Σ exp x`: the logarithm of a
/// probability is the logit less that.
pub fn row(x: &mut [f32]) -> f32 {
    if x.is_empty() {
        return f32::NEG_INFINITY;
    }
    cpu::best()(x)
}
