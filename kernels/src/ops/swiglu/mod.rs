//! `gate_i ← gate_i / (1 + exp(-gate_i)) * up_i`: the gated activation of most decoders (arXiv 2002.05202).
//!
//! gate, up: equally long, f32.

mod cpu;
pub mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::Pool;

/// Values handed to a worker at once.
const GRAIN: usize = 1 << 13;

/// Multiplies `up` into the activated `gate`, in place.
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(pool: &Pool, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "swiglu");
    let values = cpu::best();
    for_each_rows(pool, gate, 1, GRAIN, &|first, gate| values(gate, &up[first..][..gate.len()]));
}
