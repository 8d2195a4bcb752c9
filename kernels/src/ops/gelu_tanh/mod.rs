//! `y = x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`: the approximation that vision towers were trained with (arXiv
//! 1606.08415 §2). The exact function is [`gelu`](super::gelu).

mod cpu;
pub(in crate::ops) mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::Pool;

/// Values handed to a worker at once.
const GRAIN: usize = 1 << 13;

/// Applies the activation in place.
pub fn gelu_tanh(pool: &Pool, x: &mut [f32]) {
    let values = cpu::best();
    for_each_rows(pool, x, 1, GRAIN, &|_, x| values(x));
}
