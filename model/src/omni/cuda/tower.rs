//! The layers that both towers are made of, on a device: the same as in the module of that name for a CPU.

use causerie_kernels::cuda::{Buffer, Gpu, Slice};
use causerie_kernels::ops::gemm::cuda::{Activation, Epilogue, Way, linear};
use causerie_kernels::ops::layer_norm::cuda::layer_norm;
use half::bf16;

use super::weights::{Linear, Norm, Uploader};
use crate::omni::OmniError;
use crate::omni::tower::Names;

/// One layer's weights.
pub(super) struct Layer {
    attention_norm: Norm,
    /// Queries, keys and values, one after another.
    qkv: Linear,
    output: Linear,
    feed_forward_norm: Norm,
    up: Linear,
    down: Linear,
}

impl Layer {
    /// The layer `name`, `hidden` wide and `inner` in its feed-forward network.
    pub(super) fn load(
        up: &Uploader<'_>,
        name: &str,
        names: &Names,
        (hidden, inner): (usize, usize),
    ) -> Result<Self, OmniError> {
        let part = |part: &str| format!("{name}.{part}");
        let n = 3 * hidden / names.qkv.len();
        let all = |kind: &str| names.qkv.iter().map(|name| (format!("{}.{kind}", part(name)), n)).collect::<Vec<_>>();
        let biases = all("bias").iter().map(|(name, n)| up.values(name, &[*n])).collect::<Result<Vec<_>, _>>()?;
        let weights = up.stacked(&all("weight"), hidden)?;
        Ok(Self {
            attention_norm: up.norm(&part(names.attention_norm), hidden)?,
            qkv: Linear { weights, bias: up.upload(&biases.concat())?, n: 3 * hidden, k: hidden },
            output: up.linear(&part(names.output), hidden, hidden)?,
            feed_forward_norm: up.norm(&part(names.feed_forward_norm), hidden)?,
            up: up.linear(&part(names.up), inner, hidden)?,
            down: up.linear(&part(names.down), hidden, inner)?,
        })
    }

    /// Rows `[n, hidden]` through the layer. `attend` makes what rows get of each other, `[n, hidden]`, of their queries,
    /// keys and values, `[n, 3 × hidden]`.
    pub(super) fn forward(
        &self,
        gpu: &Gpu,
        x: Slice<'_, bf16>,
        (eps, activation): (f32, Activation),
        attend: impl FnOnce(Slice<'_, bf16>, &mut Buffer<bf16>) -> Result<(), OmniError>,
    ) -> Result<Buffer<bf16>, OmniError> {
        let normed = norm(gpu, &self.attention_norm, x, eps)?;
        let qkv = apply(gpu, &self.qkv, normed.all(), Activation::None, None)?;
        let mut attended = gpu.allocate(x.len())?;
        attend(qkv.all(), &mut attended)?;
        let y = apply(gpu, &self.output, attended.all(), Activation::None, Some(x))?;
        let normed = norm(gpu, &self.feed_forward_norm, y.all(), eps)?;
        let inner = apply(gpu, &self.up, normed.all(), activation, None)?;
        apply(gpu, &self.down, inner.all(), Activation::None, Some(y.all()))
    }
}

/// Rows normalised.
pub(super) fn norm(gpu: &Gpu, norm: &Norm, x: Slice<'_, bf16>, eps: f32) -> Result<Buffer<bf16>, OmniError> {
    let mut y = gpu.allocate(x.len())?;
    layer_norm(gpu, x, norm.gamma.all(), norm.beta.all(), eps, &mut y.all_mut())?;
    Ok(y)
}

/// A layer with its end.
pub(super) fn apply(
    gpu: &Gpu,
    layer: &Linear,
    x: Slice<'_, bf16>,
    activation: Activation,
    residual: Option<Slice<'_, bf16>>,
) -> Result<Buffer<bf16>, OmniError> {
    let mut y = gpu.allocate(x.len() / layer.k * layer.n)?;
    let end = Epilogue { bias: Some(layer.bias.all()), activation, residual };
    linear(gpu, x, layer.weights.all(), end, Way::ByTokens, layer.k, &mut y.all_mut())?;
    Ok(y)
}
