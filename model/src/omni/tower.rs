//! The layers that both towers are made of: normalised before attention and before the feed-forward network, everything
//! with biases, and rows attend to all that go in with them.

use causerie_kernels::Pool;
use causerie_kernels::ops::attention::{Shape, View, attention};
use causerie_kernels::ops::linear;
use causerie_kernels::ops::rope::{Rope, Turns};

use super::OmniError;
use super::layers::{Linear, Norm};
use super::load::Loader;
use crate::lm::moe::add;
use crate::lm::resize;

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

/// What a checkpoint calls the parts of a layer.
pub(super) struct Names {
    pub(super) attention_norm: &'static str,
    /// One matrix, or three.
    pub(super) qkv: &'static [&'static str],
    pub(super) output: &'static str,
    pub(super) feed_forward_norm: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

/// How a tower uses its layers.
pub(super) struct Form<'a> {
    pub(super) heads: usize,
    /// Turns queries and keys.
    pub(super) rope: Option<(&'a Rope, &'a Turns)>,
    pub(super) activation: fn(&Pool, &mut [f32]),
}

/// Buffers reused from layer to layer.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) linear: linear::Scratch,
    /// The rows that go through.
    pub(super) x: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) next: Vec<f32>,
    pub(super) out: Vec<f32>,
    qkv: Vec<f32>,
}

impl Layer {
    /// The layer `name`, `hidden` wide and `inner` in its feed-forward network.
    pub(super) fn load(
        loader: &Loader<'_>,
        name: &str,
        names: &Names,
        (hidden, inner): (usize, usize),
        eps: f32,
    ) -> Result<Self, OmniError> {
        let part = |part: &str| format!("{name}.{part}");
        let qkv: Vec<String> = names.qkv.iter().copied().map(part).collect();
        Ok(Self {
            attention_norm: Norm::load(loader, &part(names.attention_norm), hidden, eps)?,
            qkv: Linear::stacked(loader, &qkv, 3 * hidden, hidden)?,
            output: Linear::load(loader, &part(names.output), hidden, hidden)?,
            feed_forward_norm: Norm::load(loader, &part(names.feed_forward_norm), hidden, eps)?,
            up: Linear::load(loader, &part(names.up), inner, hidden)?,
            down: Linear::load(loader, &part(names.down), hidden, inner)?,
        })
    }

    /// The rows of `s.x` through the layer.
    pub(super) fn forward(&self, pool: &Pool, s: &mut Scratch, form: &Form<'_>) {
        let hidden = self.output.outputs();
        let (n, width, heads, head_dim) = (s.x.len() / hidden, 3 * hidden, form.heads, hidden / form.heads);
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = Shape { heads, kv_heads: heads, head_dim, queries: n, keys: n, causal: false, scale };
        self.attention_norm.apply(pool, &s.x, &mut s.normed);
        self.qkv.apply(pool, &mut s.linear, &s.normed, &mut s.qkv);
        if let Some((rope, turns)) = form.rope {
            rope.apply(turns, &mut s.qkv, width, heads, head_dim);
            rope.apply(turns, &mut s.qkv[hidden..], width, heads, head_dim);
        }
        resize(&mut s.next, n * hidden);
        let view = |part: usize| View { data: &s.qkv[part * hidden..], row_stride: width, head_stride: head_dim };
        attention(pool, &shape, view(0), view(1), view(2), &mut s.next);
        self.output.apply(pool, &mut s.linear, &s.next, &mut s.out);
        add(&mut s.x, &s.out);
        self.feed_forward_norm.apply(pool, &s.x, &mut s.normed);
        self.up.apply(pool, &mut s.linear, &s.normed, &mut s.next);
        (form.activation)(pool, &mut s.next);
        self.down.apply(pool, &mut s.linear, &s.next, &mut s.out);
        add(&mut s.x, &s.out);
    }
}
