//! Transposed convolution of a stream, without the ends of the whole: with `kernel = taps · stride`, block `i` of `stride`
//! outputs is `y[i, s, o] = b[o] + Σ_{j < taps, c} w[c, o, (taps - 1 - j) · stride + s] x[i + j, c]`.
//!
//! That is a framework's transposed convolution with `kernel - stride` samples cut from both ends. `taps - 1` rows of
//! look-ahead are needed: the first call gives so many blocks less than it takes rows.
//!
//! x: `[t, c_in]` f32, row-major (time first), the next rows of a stream. w: packed by [`TransposedConv1d::pack`]. y:
//! `[blocks · stride, c_out]` f32. history: the last `taps - 1` rows, empty where the stream begins.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use super::linear::{Scratch, WeightType, Weights, linear};
use crate::{KernelError, Pool};

/// Weights of the op.
pub struct TransposedConv1d {
    weights: Weights,
    bias: Vec<f32>,
    c_in: usize,
    taps: usize,
}

impl TransposedConv1d {
    /// Packs weights `[c_in, c_out, kernel]`, as frameworks store them, and a bias `[c_out]`.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] if the length does not fit the shape or the kernel is not a multiple of the stride.
    pub fn pack(pool: &Pool, w: &[f32], bias: &[f32], c_in: usize, stride: usize) -> Result<Self, KernelError> {
        let c_out = bias.len();
        let kernel = w.len().checked_div(c_in * c_out).unwrap_or(0);
        if stride == 0 || kernel == 0 || !kernel.is_multiple_of(stride) || kernel * c_in * c_out != w.len() {
            let message = format!("{} weights are not [{c_in}, {c_out}, taps × {stride}]", w.len());
            return Err(KernelError::Malformed(message));
        }
        let taps = kernel / stride;
        let mut bytes = Vec::with_capacity(w.len() * 4);
        for s in 0..stride {
            for o in 0..c_out {
                for j in 0..taps {
                    for c in 0..c_in {
                        let at = (c * c_out + o) * kernel + (taps - 1 - j) * stride + s;
                        bytes.extend_from_slice(&w[at].to_le_bytes());
                    }
                }
            }
        }
        let weights = Weights::pack(pool, WeightType::F32, stride * c_out, taps * c_in, &bytes)?;
        Ok(Self { weights, bias: bias.repeat(stride), c_in, taps })
    }

    /// Values that come out for `values` that go in, after `history` values.
    pub fn outputs(&self, history: usize, values: usize) -> usize {
        let rows = (history + values) / self.c_in;
        (rows + 1).saturating_sub(self.taps) * self.weights.n()
    }
}

/// Convolves the next rows of a stream. `columns` is a buffer reused from call to call.
///
/// # Panics
/// If a slice's length does not fit its shape.
pub fn transposed_conv1d(
    pool: &Pool,
    scratch: &mut Scratch,
    columns: &mut Vec<f32>,
    history: &mut Vec<f32>,
    x: &[f32],
    w: &TransposedConv1d,
    y: &mut [f32],
) {
    let (c_in, taps) = (w.c_in, w.taps);
    assert!(x.len().is_multiple_of(c_in), "transposed_conv1d: {} values are not rows of {c_in}", x.len());
    assert!(history.len().is_multiple_of(c_in) && history.len() < taps * c_in, "transposed_conv1d: the history");
    history.extend_from_slice(x);
    let rows = history.len() / c_in;
    let blocks = (rows + 1).saturating_sub(taps);
    columns.clear();
    for block in 0..blocks {
        columns.extend_from_slice(&history[block * c_in..(block + taps) * c_in]);
    }
    linear(pool, scratch, columns, blocks, &w.weights, Some(&w.bias), y);
    history.drain(..(rows - rows.min(taps - 1)) * c_in);
}
