//! What encoder and decoder are built of.

use causerie_kernels::Pool;
use causerie_kernels::ops::attention::{Shape, View};
use causerie_kernels::ops::gelu::gelu;
use causerie_kernels::ops::layer_norm::layer_norm;
use causerie_kernels::ops::linear::{Scratch, Weights, linear};

/// PyTorch's default, which Whisper was trained with.
const EPSILON: f32 = 1e-5;

/// `y = x Wᵀ + b`.
pub(super) struct Linear {
    pub(super) weights: Weights,
    pub(super) bias: Vec<f32>,
}

impl Linear {
    pub(super) fn forward(&self, pool: &Pool, scratch: &mut Scratch, x: &[f32], y: &mut Vec<f32>) {
        let m = x.len() / self.weights.k();
        y.resize(m * self.weights.n(), 0.0);
        linear(pool, scratch, x, m, &self.weights, Some(&self.bias), y);
    }
}

/// Layer normalisation.
pub(super) struct Norm {
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
}

impl Norm {
    pub(super) fn forward(&self, pool: &Pool, x: &[f32], y: &mut Vec<f32>) {
        y.resize(x.len(), 0.0);
        layer_norm(pool, x, &self.gamma, &self.beta, EPSILON, y);
    }
}

/// Self-attention: one product makes queries, keys and values, in this order.
pub(super) struct SelfAttention {
    pub(super) norm: Norm,
    pub(super) qkv: Linear,
    pub(super) out: Linear,
}

/// `x + W₁ gelu(W₀ norm(x))`.
pub(super) struct FeedForward {
    pub(super) norm: Norm,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl FeedForward {
    pub(super) fn forward(&self, pool: &Pool, buffers: &mut Buffers, x: &mut [f32]) {
        let Buffers { scratch, normed, wide, out, .. } = buffers;
        self.norm.forward(pool, x, normed);
        self.up.forward(pool, scratch, normed, wide);
        gelu(pool, wide);
        self.down.forward(pool, scratch, wide, out);
        add(x, out);
    }
}

/// Buffers reused from layer to layer.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) scratch: Scratch,
    pub(super) normed: Vec<f32>,
    pub(super) wide: Vec<f32>,
    pub(super) mixed: Vec<f32>,
    pub(super) out: Vec<f32>,
}

/// `x += y`.
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Attention over parts of a wider row: part `i` of rows that are `parts` times `width` long.
pub(super) fn part(data: &[f32], i: usize, parts: usize, width: usize, heads: usize) -> View<'_, f32> {
    View { data: &data[i * width..], row_stride: parts * width, head_stride: width / heads }
}

/// The shape of attention with heads of `width / heads` values.
pub(super) fn shape(width: usize, heads: usize, queries: usize, keys: usize, causal: bool) -> Shape {
    let head_dim = width / heads;
    Shape { heads, kv_heads: heads, head_dim, queries, keys, causal, scale: 1.0 / (head_dim as f32).sqrt() }
}
