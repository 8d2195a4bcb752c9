//! `y = x / sqrt(mean(x²) + eps) * gamma`, row by row (arXiv 1910.07467).
//!
//! x, y: `[m, n]` f32, row-major. gamma: `[n]` f32.

pub(crate) mod cases;
mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::Pool;

/// Rows handed to a worker at once.
const GRAIN: usize = 16;

/// Normalises the rows of `x` into `y`. The result of a row does not depend on the other rows or on the number of
/// threads.
///
/// # Panics
/// If the lengths of `x` and `y` differ or are not whole rows of `gamma`'s length.
pub fn rms_norm(pool: &Pool, x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32]) {
    let n = gamma.len();
    assert!(n > 0 && x.len() == y.len() && x.len().is_multiple_of(n), "rms_norm: {} → {}, n = {n}", x.len(), y.len());
    let rows = cpu::best();
    for_each_rows(pool, y, n, GRAIN, &|first, y| rows(&x[first * n..][..y.len()], gamma, eps, y));
}
