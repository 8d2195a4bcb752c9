//! Convolution along time: `y[t, o] = b[o] + Σ_{j, c} w[o, j, c] x[stride t + j - pad, c]`, zeros outside of x.
//!
//! x: `[t, c_in]` f32, row-major (time first). w: `[c_out, kernel, c_in]`, packed by [`pack`]. y: `[t_out, c_out]` f32
//! with `t_out = (t + 2 pad - kernel) / stride + 1`.
//!
//! With time first, the window of an output is a contiguous run of x: the columns are gathered by copying, and the rest
//! is [`linear`], which brings the speed and the types of weights.

pub(crate) mod cases;
pub mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use super::linear::{Scratch, WeightType, Weights, linear};
use crate::{KernelError, Pool};

/// The window of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Taps.
    pub kernel: usize,
    /// Inputs from one output to the next.
    pub stride: usize,
    /// Zeros before and after.
    pub pad: usize,
}

impl Window {
    /// Outputs for `t` inputs.
    pub fn outputs(self, t: usize) -> usize {
        (t + 2 * self.pad).checked_sub(self.kernel).map_or(0, |last| last / self.stride + 1)
    }
}

/// Packs weights `[c_out, c_in, kernel]`, as frameworks store them, for [`conv1d`].
///
/// # Errors
/// [`KernelError::Malformed`] if the length does not fit the shape.
pub fn pack(pool: &Pool, w: &[f32], c_out: usize, c_in: usize, kernel: usize) -> Result<Weights, KernelError> {
    if c_out.checked_mul(c_in).and_then(|n| n.checked_mul(kernel)) != Some(w.len()) {
        return Err(KernelError::Malformed(format!("{} weights are not [{c_out}, {c_in}, {kernel}]", w.len())));
    }
    let mut bytes = Vec::with_capacity(w.len() * 4);
    for o in 0..c_out {
        for j in 0..kernel {
            for c in 0..c_in {
                bytes.extend_from_slice(&w[(o * c_in + c) * kernel + j].to_le_bytes());
            }
        }
    }
    Weights::pack(pool, WeightType::F32, c_out, kernel * c_in, &bytes)
}

/// Convolves `t` rows of `c_in` values. `columns` is a buffer reused from call to call.
///
/// # Panics
/// If a slice's length does not fit its shape, or the stride is zero.
#[allow(clippy::too_many_arguments)] // The op's operands, as in `linear`, and its window.
pub fn conv1d(
    pool: &Pool,
    scratch: &mut Scratch,
    columns: &mut Vec<f32>,
    x: &[f32],
    c_in: usize,
    w: &Weights,
    bias: Option<&[f32]>,
    window: Window,
    y: &mut [f32],
) {
    let Window { kernel, stride, pad } = window;
    assert!(c_in > 0 && x.len().is_multiple_of(c_in), "conv1d: {} values are not rows of {c_in}", x.len());
    assert!(stride > 0 && w.k() == kernel * c_in, "conv1d: {} weights an output for {kernel} taps of {c_in}", w.k());
    let t = x.len() / c_in;
    let t_out = window.outputs(t);
    columns.clear();
    columns.resize(t_out * w.k(), 0.0);
    for (out, column) in columns.chunks_exact_mut(w.k()).enumerate() {
        let from = (out * stride).max(pad);
        let until = (out * stride + kernel).min(t + pad);
        if from < until {
            let skipped = from - out * stride;
            column[skipped * c_in..(skipped + until - from) * c_in]
                .copy_from_slice(&x[(from - pad) * c_in..(until - pad) * c_in]);
        }
    }
    linear(pool, scratch, columns, t_out, w, bias, y);
}
