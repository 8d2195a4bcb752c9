//! `y = (x - mean) / sqrt(variance + eps) * gamma + beta`, row by row, with the population variance.
//!
//! x, y: `[m, n]` f32, row-major. gamma, beta: `[n]` f32.

pub(crate) mod cases;
mod cpu;
pub mod cuda;
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::Pool;

/// Rows handed to a worker at once: large enough to hide the cost of handing out.
const GRAIN: usize = 32;

/// Normalises the rows of `x` into `y`. The result of a row does not depend on the other rows or on the number of
/// threads.
///
/// # Panics
/// If `gamma` and `beta` differ in length, or the lengths of `x` and `y` differ or are not whole rows.
pub fn layer_norm(pool: &Pool, x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    let n = gamma.len();
    assert!(n > 0 && beta.len() == n, "layer_norm: gamma has {n} values, beta {}", beta.len());
    assert!(x.len() == y.len() && x.len().is_multiple_of(n), "layer_norm: {} values in, {} out", x.len(), y.len());
    let rows = cpu::best();
    for_each_rows(pool, y, n, GRAIN, &|first, y| rows(&x[first * n..][..y.len()], gamma, beta, eps, y));
}
