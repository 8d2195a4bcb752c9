//! Layers that several of the networks have, over the kernels.

use causerie_kernels::Pool;
use causerie_kernels::ops::layer_norm::layer_norm;
use causerie_kernels::ops::linear::{Scratch, Weights, linear};

use super::OmniError;
use super::load::Loader;
use crate::lm::resize;

/// A layer `x Wᵀ + b`.
pub(super) struct Linear {
    weights: Weights,
    bias: Option<Vec<f32>>,
}

/// A layer norm's scale and offset.
pub(super) struct Norm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    eps: f32,
}

impl Linear {
    /// `{name}.weight`, `[n, k]`, and `{name}.bias`.
    pub(super) fn load(loader: &Loader<'_>, name: &str, n: usize, k: usize) -> Result<Self, OmniError> {
        let bias = Some(loader.vector(&format!("{name}.bias"), n)?);
        Ok(Self { weights: loader.matrix(&format!("{name}.weight"), n, k)?, bias })
    }

    /// Several matrices and their biases, one below the other: `[n, k]` in all, and all of one size.
    pub(super) fn stacked(loader: &Loader<'_>, names: &[String], n: usize, k: usize) -> Result<Self, OmniError> {
        let (mut weights, mut bias) = (Vec::with_capacity(n * k), Vec::with_capacity(n));
        for name in names {
            weights.extend(loader.read(&format!("{name}.weight"), &[n / names.len(), k])?);
            bias.extend(loader.vector(&format!("{name}.bias"), n / names.len())?);
        }
        Ok(Self { weights: loader.pack(n, k, &weights)?, bias: Some(bias) })
    }

    /// The width of its results.
    pub(super) fn outputs(&self) -> usize {
        self.weights.n()
    }

    /// Weights that were packed by the caller.
    pub(super) fn of(weights: Weights, bias: Option<Vec<f32>>) -> Self {
        Self { weights, bias }
    }

    /// `y ← x Wᵀ + b`, for as many rows as there are.
    pub(super) fn apply(&self, pool: &Pool, scratch: &mut Scratch, x: &[f32], y: &mut Vec<f32>) {
        let m = x.len() / self.weights.k();
        resize(y, m * self.weights.n());
        linear(pool, scratch, x, m, &self.weights, self.bias.as_deref(), y);
    }
}

impl Norm {
    /// `{name}.weight` and `{name}.bias`, `[n]`.
    pub(super) fn load(loader: &Loader<'_>, name: &str, n: usize, eps: f32) -> Result<Self, OmniError> {
        let gamma = loader.vector(&format!("{name}.weight"), n)?;
        Ok(Self { gamma, beta: loader.vector(&format!("{name}.bias"), n)?, eps })
    }

    /// Normalises the rows of `x` into `y`.
    pub(super) fn apply(&self, pool: &Pool, x: &[f32], y: &mut Vec<f32>) {
        resize(y, x.len());
        layer_norm(pool, x, &self.gamma, &self.beta, self.eps, y);
    }
}
