//! `y = x Φ(x)` with the exact normal distribution (erf), not the tanh approximation: the activation of Whisper and of
//! most audio encoders (arXiv 1606.08415).

mod cpu;
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::Pool;

/// Values handed to a worker at once.
const GRAIN: usize = 1 << 14;

/// Applies the activation in place.
pub fn gelu(pool: &Pool, x: &mut [f32]) {
    let values = cpu::best();
    for_each_rows(pool, x, 1, GRAIN, &|_, x| values(x));
}
