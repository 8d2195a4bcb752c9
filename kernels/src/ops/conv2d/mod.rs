//! Convolution of a plane: `y[i, j, o] = b[o] + Σ_{a, b, c} w[o, a, b, c] x[s i + a - pad, s j + b - pad, c]`, zeros outside
//! of x, with a square window.
//!
//! x: `[rows, columns, c_in]` f32, row-major (channels last). w: `[c_out, kernel, kernel, c_in]`, packed by [`pack`]. y:
//! `[rows', columns', c_out]` f32 with `rows' = (rows + 2 pad - kernel) / stride + 1`, columns alike.

pub(crate) mod cases;
pub mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use super::conv1d::Window;
use super::linear::{Scratch, WeightType, Weights, linear};
use crate::{KernelError, Pool};

/// Packs weights `[c_out, c_in, kernel, kernel]`, as frameworks store them. `transposed` is for planes whose rows are the
/// framework's columns.
///
/// # Errors
/// [`KernelError::Malformed`] if the length does not fit the shape.
pub fn pack(
    pool: &Pool,
    w: &[f32],
    (c_out, c_in, kernel): (usize, usize, usize),
    transposed: bool,
) -> Result<Weights, KernelError> {
    let taps = kernel * kernel;
    if c_out.checked_mul(c_in).and_then(|n| n.checked_mul(taps)) != Some(w.len()) {
        return Err(KernelError::Malformed(format!(
            "{} weights are not [{c_out}, {c_in}, {kernel}, {kernel}]",
            w.len()
        )));
    }
    let mut bytes = Vec::with_capacity(w.len() * 4);
    for o in 0..c_out {
        for tap in 0..taps {
            let tap = if transposed { tap % kernel * kernel + tap / kernel } else { tap };
            for c in 0..c_in {
                bytes.extend_from_slice(&w[(o * c_in + c) * taps + tap].to_le_bytes());
            }
        }
    }
    Weights::pack(pool, WeightType::F32, c_out, taps * c_in, &bytes)
}

/// Convolves a plane of `rows` rows. `cells` is a buffer reused from call to call.
///
/// # Panics
/// If a slice's length does not fit its shape, or the stride is zero.
#[allow(clippy::too_many_arguments)] // The op's operands, as in `conv1d`.
pub fn conv2d(
    pool: &Pool,
    scratch: &mut Scratch,
    cells: &mut Vec<f32>,
    x: &[f32],
    rows: usize,
    w: &Weights,
    bias: Option<&[f32]>,
    window: Window,
    y: &mut [f32],
) {
    let Window { kernel, stride, pad } = window;
    let taps = kernel * kernel;
    assert!(stride > 0 && kernel > 0 && w.k().is_multiple_of(taps), "conv2d: {window:?} of {} weights", w.k());
    let c_in = w.k() / taps;
    assert!(rows > 0 && x.len().is_multiple_of(rows * c_in), "conv2d: {} values are not {rows} rows", x.len());
    let columns = x.len() / (rows * c_in);
    let (rows_out, columns_out) = (window.outputs(rows), window.outputs(columns));
    cells.clear();
    cells.resize(rows_out * columns_out * w.k(), 0.0);
    for (at, cell) in cells.chunks_exact_mut(w.k()).enumerate() {
        let (i, j) = (at / columns_out * stride, at % columns_out * stride);
        // The part of a window's row that lies inside the plane is one run of x.
        let (from, until) = (j.max(pad), (j + kernel).min(columns + pad));
        for a in (0..kernel).filter(|a| (pad..rows + pad).contains(&(i + a))) {
            if from < until {
                let run = ((i + a - pad) * columns + from - pad) * c_in..((i + a - pad) * columns + until - pad) * c_in;
                let to = (a * kernel + from - j) * c_in;
                cell[to..to + run.len()].copy_from_slice(&x[run]);
            }
        }
    }
    linear(pool, scratch, cells, rows_out * columns_out, w, bias, y);
}
