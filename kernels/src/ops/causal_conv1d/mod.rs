//! Causal convolution of a stream: `y[t, o] = b[o] + Σ_{j, c} w[o, j, c] x[t - (kernel - 1 - j) · dilation, c]`.
//!
//! x: `[t, c_in]` f32, row-major (time first), the next rows of a stream. w: `[c_out, kernel, c_in]`, packed by
//! [`conv1d::pack`](super::conv1d::pack). y: `[t, c_out]` f32. history: the last `(kernel - 1) · dilation` rows before x,
//! `[rows, c_in]`, which the call brings up to date; a stream begins with zeros.
//!
//! Rows come out as they go in, so a stream may be cut anywhere.

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use super::linear::{Scratch, Weights, linear};
use crate::Pool;

/// The taps of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// Inputs of an output.
    pub kernel: usize,
    /// From one of them to the next.
    pub dilation: usize,
}

impl Taps {
    /// Rows that a stream remembers.
    pub fn history(self) -> usize {
        (self.kernel - 1) * self.dilation
    }
}

/// Convolves the next rows of a stream. `columns` is a buffer reused from call to call.
///
/// # Panics
/// If a slice's length does not fit its shape.
#[allow(clippy::too_many_arguments)] // The op's operands, as in `conv1d`, and the stream's history.
pub fn causal_conv1d(
    pool: &Pool,
    scratch: &mut Scratch,
    columns: &mut Vec<f32>,
    history: &mut [f32],
    x: &[f32],
    w: &Weights,
    bias: Option<&[f32]>,
    taps: Taps,
    y: &mut [f32],
) {
    let Taps { kernel, dilation } = taps;
    assert!(kernel > 0 && dilation > 0 && w.k().is_multiple_of(kernel), "causal_conv1d: {taps:?} of {}", w.k());
    let c_in = w.k() / kernel;
    assert!(x.len().is_multiple_of(c_in), "causal_conv1d: {} values are not rows of {c_in}", x.len());
    assert_eq!(history.len(), taps.history() * c_in, "causal_conv1d: the history of {taps:?}");
    let t = x.len() / c_in;
    columns.clear();
    columns.reserve(t * w.k());
    for out in 0..t {
        for j in 0..kernel {
            // Counted from the first row of the history.
            let at = (out + j * dilation) * c_in;
            columns.extend_from_slice(match at.checked_sub(history.len()) {
                Some(at) => &x[at..at + c_in],
                None => &history[at..at + c_in],
            });
        }
    }
    linear(pool, scratch, columns, t, w, bias, y);
    remember(history, x);
}

/// The history after `x` has gone by.
pub(super) fn remember(history: &mut [f32], x: &[f32]) {
    let keep = history.len().saturating_sub(x.len());
    let from = history.len() - keep;
    history.copy_within(from.., 0);
    history[keep..].copy_from_slice(&x[x.len() - from..]);
}
