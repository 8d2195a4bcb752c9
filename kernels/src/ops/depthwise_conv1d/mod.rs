//! Causal convolution of a stream, every channel by itself: `y[t, c] = b[c] + Σ_j w[c, j] x[t - (kernel - 1 - j), c]`.
//!
//! x, y: `[t, channels]` f32, row-major (time first), the next rows of a stream. w: `[channels, kernel]` f32. history: the
//! last `kernel - 1` rows before x, which the call brings up to date; a stream begins with zeros.

pub(crate) mod cases;
pub mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use super::causal_conv1d::remember;
use super::split::for_each_rows;
use crate::Pool;

/// Values handed to a worker at once.
const GRAIN: usize = 1 << 12;

/// Convolves the next rows of a stream.
///
/// # Panics
/// If a slice's length does not fit its shape.
pub fn depthwise_conv1d(pool: &Pool, history: &mut [f32], x: &[f32], w: &[f32], bias: &[f32], y: &mut [f32]) {
    let channels = bias.len();
    assert!(channels > 0 && w.len().is_multiple_of(channels), "depthwise_conv1d: {} weights", w.len());
    let kernel = w.len() / channels;
    assert!(kernel > 0 && history.len() == (kernel - 1) * channels, "depthwise_conv1d: the history of {kernel} taps");
    assert!(x.len() == y.len() && x.len().is_multiple_of(channels), "depthwise_conv1d: {} → {}", x.len(), y.len());
    let past: &[f32] = history;
    for_each_rows(pool, y, channels, GRAIN.div_ceil(channels), &|first, y| {
        for (row, y) in y.chunks_exact_mut(channels).enumerate() {
            y.copy_from_slice(bias);
            for j in 0..kernel {
                let at = (first + row + j) * channels;
                let input = match at.checked_sub(past.len()) {
                    Some(at) => &x[at..at + channels],
                    None => &past[at..at + channels],
                };
                for (c, (y, x)) in y.iter_mut().zip(input).enumerate() {
                    *y += w[c * kernel + j] * x;
                }
            }
        }
    });
    remember(history, x);
}
