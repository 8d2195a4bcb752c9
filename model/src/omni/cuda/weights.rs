//! From a checkpoint's tensors to buffers on a device.

use causerie_kernels::cuda::{Buffer, Gpu};
use half::bf16;

use crate::omni::OmniError;
use crate::omni::load::Loader;

/// Takes tensors out of a checkpoint and puts them on a device, rounded to bf16.
pub(super) struct Uploader<'a> {
    pub(super) gpu: &'a Gpu,
    loader: &'a Loader<'a>,
}

/// A layer `x Wᵀ + b`.
pub(super) struct Linear {
    pub(super) weights: Buffer<bf16>,
    pub(super) bias: Buffer<bf16>,
    pub(super) n: usize,
    pub(super) k: usize,
}

/// A layer norm's scale and offset.
pub(super) struct Norm {
    pub(super) gamma: Buffer<bf16>,
    pub(super) beta: Buffer<bf16>,
}

impl<'a> Uploader<'a> {
    pub(super) fn new(gpu: &'a Gpu, loader: &'a Loader<'a>) -> Self {
        Self { gpu, loader }
    }

    /// The values of a tensor of that shape.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OmniError> {
        self.loader.values(name, shape)
    }

    /// Values that the caller arranged.
    pub(super) fn upload(&self, values: &[f32]) -> Result<Buffer<bf16>, OmniError> {
        let rounded: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        Ok(self.gpu.upload(&rounded)?)
    }

    /// A tensor as it is.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Buffer<bf16>, OmniError> {
        self.upload(&self.values(name, shape)?)
    }

    /// Matrices `[n, k]` below each other.
    pub(super) fn stacked(&self, parts: &[(String, usize)], k: usize) -> Result<Buffer<bf16>, OmniError> {
        let parts = parts.iter().map(|(name, n)| self.values(name, &[*n, k]));
        self.upload(&parts.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// `{name}.weight` and `{name}.bias`.
    pub(super) fn linear(&self, name: &str, n: usize, k: usize) -> Result<Linear, OmniError> {
        let weights = self.tensor(&format!("{name}.weight"), &[n, k])?;
        Ok(Linear { weights, bias: self.tensor(&format!("{name}.bias"), &[n])?, n, k })
    }

    /// `{name}.weight` and `{name}.bias`, `[n]`.
    pub(super) fn norm(&self, name: &str, n: usize) -> Result<Norm, OmniError> {
        let gamma = self.tensor(&format!("{name}.weight"), &[n])?;
        Ok(Norm { gamma, beta: self.tensor(&format!("{name}.bias"), &[n])? })
    }
}

/// Rows of `k` values extended with zeros to rows of `padded`, and the matrix with rows of zeros to `rows` of them.
pub(super) fn padded(values: &[f32], k: usize, padded: usize, rows: usize) -> Vec<f32> {
    let mut all = vec![0.0; rows * padded];
    for (row, to) in values.chunks_exact(k).zip(all.chunks_exact_mut(padded)) {
        to[..k].copy_from_slice(row);
    }
    all
}

/// The next multiple of the eight values that kernels load at once.
pub(super) fn whole(n: usize) -> usize {
    n.next_multiple_of(8)
}
