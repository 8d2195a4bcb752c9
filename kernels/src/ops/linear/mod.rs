//! `y = x Wᵀ + b`: the one op that carries nearly all weights, for float and block-quantised types.
//!
//! x: `[m, k]` f32, row-major. W: `[n, k]` packed by [`Weights`]. b: `[n]` f32. y: `[m, n]` f32.

use crate::{KernelError, Pool};

/// Types of weights as they are stored in files (names and block layouts are GGML's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// Blocks of 32: f16 scale, 32 signed bytes.
    Q8_0,
    /// Blocks of 32: f16 scale, f16 minimum, 32 nibbles.
    Q4_1,
    /// Super-blocks of 256 with 8 six-bit scales and minima, 4.5 bits a weight.
    Q4K,
    /// Super-blocks of 256 with 16 eight-bit scales, 6.5625 bits a weight.
    Q6K,
}

/// A weight matrix `[n, k]`, repacked for the machine at hand.
pub struct Weights {
    n: usize,
    k: usize,
}

impl Weights {
    /// Repacks `bytes`, rows of `k` weights of type `kind` one after another, `n` rows.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] if the length does not fit `n × k`, [`KernelError::Unsupported`] if `k` is not a whole
    /// number of blocks.
    pub fn pack(pool: &Pool, kind: WeightType, n: usize, k: usize, bytes: &[u8]) -> Result<Self, KernelError> {
        let _ = (pool, kind, bytes);
        Ok(Self { n, k })
    }

    /// Rows: outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Row `index` as floats (an embedding that shares its table with the output layer).
    pub fn row(&self, index: usize, out: &mut [f32]) {
        let _ = (index, out);
    }
}

/// Buffers reused from call to call (quantised activations).
#[derive(Default)]
pub struct Scratch {}

/// Computes `y = x Wᵀ + b` for `m` rows of x. The result of a row does not depend on the other rows or on the number of
/// threads.
///
/// # Panics
/// If a slice's length does not fit its shape.
pub fn linear(
    pool: &Pool,
    scratch: &mut Scratch,
    x: &[f32],
    m: usize,
    w: &Weights,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    let _ = (pool, scratch, x, m, w, bias, y);
}
