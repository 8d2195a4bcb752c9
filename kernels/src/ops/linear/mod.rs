//! `y = x Wᵀ + b`: the one op that carries nearly all weights, for float and block-quantised types.
//!
//! x: `[m, k]` f32, row-major. W: `[n, k]` packed by [`Weights`]. b: `[n]` f32. y: `[m, n]` f32.
//!
//! [`reference`] says what it means. The fast version keeps float weights and activations as they are; for quantised
//! weights of a file it quantises activations as well, to eight bits with a scale for each 32, and multiplies integers;
//! floats that were narrowed here (`narrow`) are widened panel by panel. `format` knows the files' blocks, `stored` those
//! that are converted to others first, `pack` the order in memory, `activations` the eight bits; `tile` and `panel` are the
//! kernels, written over the vector operations of `lanes`, which `avx512`, `avx2`, `neon` and `portable` provide.

mod activations;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cpu;
mod format;
pub(super) mod lanes;
mod narrow;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
mod pack;
mod panel;
mod portable;
pub mod reference;
mod stored;
mod tile;

#[cfg(test)]
mod tests;

pub use format::WeightType;
pub use narrow::{INT4_GROUP, NarrowType};
pub use stored::{StoredType, quantise_q8_0};

use crate::dispatch::Backend;
use crate::{KernelError, Pool};

/// A weight matrix `[n, k]`, repacked for the machine at hand. It may be a stack of matrices of different types.
pub struct Weights {
    n: usize,
    k: usize,
    backend: Backend,
    parts: Vec<pack::Packed>,
    /// Instead of parts.
    narrow: Option<narrow::Narrow>,
}

impl Weights {
    /// Repacks `bytes`, rows of `k` weights of type `kind` one after another, `n` rows.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] if the length does not fit `n × k` or one of them is 0, [`KernelError::Unsupported`] if
    /// `k` is not a whole number of blocks.
    pub fn pack(pool: &Pool, kind: WeightType, n: usize, k: usize, bytes: &[u8]) -> Result<Self, KernelError> {
        Self::pack_for(Backend::best(), pool, kind, n, k, bytes)
    }

    /// As [`Weights::pack`], for a backend of the caller's choice.
    ///
    /// # Errors
    /// As [`Weights::pack`]; [`KernelError::Unsupported`] if the backend is not available.
    pub fn pack_for(
        backend: Backend,
        pool: &Pool,
        kind: WeightType,
        n: usize,
        k: usize,
        bytes: &[u8],
    ) -> Result<Self, KernelError> {
        if !backend.available() {
            return Err(KernelError::Unsupported(format!("this processor has no {backend:?}")));
        }
        let part = pack::Packed::new(pool, backend, kind, n, k, bytes)?;
        Ok(Self { n, k, backend, parts: vec![part], narrow: None })
    }

    /// Converts `weights`, a matrix `[n, k]`, to fewer bits.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] if the length does not fit `n × k` or one of them is 0.
    pub fn narrow(pool: &Pool, kind: NarrowType, n: usize, k: usize, weights: &[f32]) -> Result<Self, KernelError> {
        Self::narrow_for(Backend::best(), pool, kind, n, k, weights)
    }

    /// As [`Weights::narrow`], for a backend of the caller's choice.
    ///
    /// # Errors
    /// As [`Weights::narrow`]; [`KernelError::Unsupported`] if the backend is not available.
    pub fn narrow_for(
        backend: Backend,
        pool: &Pool,
        kind: NarrowType,
        n: usize,
        k: usize,
        weights: &[f32],
    ) -> Result<Self, KernelError> {
        if !backend.available() {
            return Err(KernelError::Unsupported(format!("this processor has no {backend:?}")));
        }
        let narrow = narrow::Narrow::new(pool, kind, n, k, weights)?;
        Ok(Self { n, k, backend, parts: Vec::new(), narrow: Some(narrow) })
    }

    /// Puts matrices with the same input on top of each other: one product gives the outputs of all, those of the first
    /// matrix first. Types may differ.
    ///
    /// # Errors
    /// [`KernelError::Malformed`] if there is none, or widths or backends differ.
    pub fn stack(matrices: impl IntoIterator<Item = Self>) -> Result<Self, KernelError> {
        let mut matrices = matrices.into_iter();
        let Some(mut all) = matrices.next() else {
            return Err(KernelError::Malformed("a stack of no matrices".into()));
        };
        for next in matrices {
            if next.narrow.is_some() || all.narrow.is_some() {
                return Err(KernelError::Malformed("narrowed matrices cannot be stacked".into()));
            }
            if next.k != all.k || next.backend != all.backend {
                let message = format!(
                    "a matrix of width {} on {:?} cannot be stacked on one of width {} on {:?}",
                    next.k, next.backend, all.k, all.backend
                );
                return Err(KernelError::Malformed(message));
            }
            all.n += next.n;
            all.parts.extend(next.parts);
        }
        Ok(all)
    }

    /// Rows: outputs.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns: inputs.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let narrow = self.narrow.as_ref().map_or(0, narrow::Narrow::bytes);
        self.parts.iter().map(pack::Packed::bytes).sum::<usize>() + narrow
    }

    /// Row `index` as floats (an embedding that shares its table with the output layer).
    ///
    /// # Panics
    /// If there is no such row or `out` is not `k` long.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.n && out.len() == self.k, "row {index} of [{}, {}] into {}", self.n, self.k, out.len());
        if let Some(narrow) = &self.narrow {
            return narrow.row(index, |c, value| out[c] = value);
        }
        let mut first = 0;
        for part in &self.parts {
            if index < first + part.n {
                return part.kind.dequantise_row(&part.file_row(index - first), out);
            }
            first += part.n;
        }
    }
}

impl std::fmt::Debug for Weights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<_> = self.parts.iter().map(|part| part.kind).collect();
        let narrow = self.narrow.as_ref().map(|narrow| narrow.kind);
        let mut all = f.debug_struct("Weights");
        all.field("n", &self.n)
            .field("k", &self.k)
            .field("kinds", &kinds)
            .field("narrow", &narrow)
            .field("backend", &self.backend)
            .finish()
    }
}

/// Buffers reused from call to call (quantised activations).
#[derive(Default)]
pub struct Scratch {
    activations: activations::Activations,
}

/// Computes `y = x Wᵀ + b` for `m` rows of x. The result of a row does not depend on the other rows or on the number of
/// threads, to the bit.
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
    assert!(x.len() == m * w.k, "x has {} elements, not {m} × {}", x.len(), w.k);
    assert!(y.len() == m * w.n, "y has {} elements, not {m} × {}", y.len(), w.n);
    assert!(bias.is_none_or(|bias| bias.len() == w.n), "the bias has not {} elements", w.n);
    if m > 0 {
        cpu::linear(pool, &mut scratch.activations, x, m, w, bias, y);
    }
}
