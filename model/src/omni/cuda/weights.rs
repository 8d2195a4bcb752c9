//! From a checkpoint's tensors to buffers on a device.

use std::cell::Cell;

use causerie_kernels::cuda::{Buffer, Gpu};
use causerie_kernels::ops::noise;
use half::bf16;

use crate::omni::OmniError;
use crate::omni::load::Loader;

/// Takes tensors out of a checkpoint and puts them on a device, rounded to bf16; or draws them there, for measurements.
pub(super) struct Uploader<'a> {
    pub(super) gpu: &'a Gpu,
    source: Source<'a>,
}

enum Source<'a> {
    Checkpoint(&'a Loader<'a>),
    /// The seed of the next tensor.
    Drawn(Cell<u64>),
}

/// How large values are drawn, for sums of `k` of them to stay about as large as what is summed.
fn scale(shape: &[usize]) -> f32 {
    match shape {
        [_] => 0.5,
        [.., k] => (3.0 / *k as f32).sqrt(),
        [] => 1.0,
    }
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
        Self { gpu, source: Source::Checkpoint(loader) }
    }

    /// Weights that follow from a seed.
    pub(super) fn drawing(gpu: &'a Gpu, seed: u64) -> Self {
        Self { gpu, source: Source::Drawn(Cell::new(seed)) }
    }

    /// The values of a tensor of that shape.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, OmniError> {
        match &self.source {
            Source::Checkpoint(loader) => loader.values(name, shape),
            Source::Drawn(seed) => {
                let count = shape.iter().product::<usize>() as u64;
                Ok(noise::reference::noise(seed.replace(seed.get() + 1), 0..count, scale(shape)))
            }
        }
    }

    /// A tensor drawn on the device, if it may be.
    fn drawn(&self, shape: &[usize]) -> Result<Option<Buffer<bf16>>, OmniError> {
        let count = shape.iter().product::<usize>();
        let Source::Drawn(seed) = &self.source else { return Ok(None) };
        if !count.is_multiple_of(8) {
            return Ok(None);
        }
        let mut buffer = self.gpu.allocate(count)?;
        noise::cuda::noise(self.gpu, seed.replace(seed.get() + 1), scale(shape), &mut buffer.all_mut())?;
        Ok(Some(buffer))
    }

    /// Values that the caller arranged.
    pub(super) fn upload(&self, values: &[f32]) -> Result<Buffer<bf16>, OmniError> {
        let rounded: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
        Ok(self.gpu.upload(&rounded)?)
    }

    /// A tensor as it is.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Buffer<bf16>, OmniError> {
        match self.drawn(shape)? {
            Some(drawn) => Ok(drawn),
            None => self.upload(&self.values(name, shape)?),
        }
    }

    /// Matrices `[n, k]` below each other.
    pub(super) fn stacked(&self, parts: &[(String, usize)], k: usize) -> Result<Buffer<bf16>, OmniError> {
        if let Some(drawn) = self.drawn(&[parts.iter().map(|part| part.1).sum(), k])? {
            return Ok(drawn);
        }
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
