//! The transformer before the convolutions: pre-norm, scaled branches, each frame seeing the last few dozen.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{Weights, linear};
use causerie_kernels::ops::paged_attention::{Sequence, Shape, Visible, paged_attention};
use causerie_kernels::ops::rms_norm::rms_norm;
use causerie_kernels::ops::rope::{Rope, Turns};
use causerie_kernels::ops::swiglu::swiglu;

use super::Scratch;
use crate::lm::moe::Expert;
use crate::lm::resize;
use crate::omni::OmniError;
use crate::omni::config::Code2WavConfig;
use crate::omni::decoder::expert;
use crate::omni::load::Loader;
use crate::omni::rope::rope;

pub(super) struct Transformer {
    config: Code2WavConfig,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    rope: Rope,
}

struct Layer {
    attention_norm: Vec<f32>,
    q: Weights,
    k: Weights,
    v: Weights,
    output: Weights,
    attention_scale: Vec<f32>,
    feed_forward_norm: Vec<f32>,
    feed_forward: Expert,
    feed_forward_scale: Vec<f32>,
}

/// Keys and values of the frames that the next one sees.
pub(super) struct State {
    position: usize,
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    turns: Turns,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Transformer {
    pub(super) fn load(loader: &Loader<'_>, config: &Code2WavConfig) -> Result<Self, OmniError> {
        let name = |part: &str| format!("code2wav.pre_transformer.{part}");
        let layers = (0..config.layers).map(|i| Layer::load(loader, &name(&format!("layers.{i}")), config));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            norm: loader.vector(&name("norm.weight"), config.hidden)?,
            rope: rope(&config.rope, config.head_dim),
            config: config.clone(),
        })
    }

    pub(super) fn state(&self) -> State {
        State {
            position: 0,
            layers: vec![(Vec::new(), Vec::new()); self.layers.len()],
            turns: Turns::default(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
        }
    }

    /// From rows in `s.x` to normalised rows there.
    pub(super) fn forward(&self, pool: &Pool, state: &mut State, s: &mut Scratch) {
        let (eps, m) = (self.config.norm_eps, s.x.len() / self.config.hidden);
        self.rope.turns(state.position..state.position + m, &mut state.turns);
        state.position += m;
        for (index, layer) in self.layers.iter().enumerate() {
            resize(&mut s.normed, s.x.len());
            rms_norm(pool, &s.x, &layer.attention_norm, eps, &mut s.normed);
            self.attend(pool, layer, index, state, s, m);
            add_scaled(&mut s.x, &s.next, &layer.attention_scale);
            rms_norm(pool, &s.x, &layer.feed_forward_norm, eps, &mut s.normed);
            let Expert { gate, up, down } = &layer.feed_forward;
            resize(&mut s.inner, m * gate.n());
            resize(&mut s.columns, m * up.n());
            linear(pool, &mut s.linear, &s.normed, m, gate, None, &mut s.inner);
            linear(pool, &mut s.linear, &s.normed, m, up, None, &mut s.columns);
            swiglu(pool, &mut s.inner, &s.columns);
            linear(pool, &mut s.linear, &s.inner, m, down, None, &mut s.next);
            add_scaled(&mut s.x, &s.next, &layer.feed_forward_scale);
        }
        resize(&mut s.normed, s.x.len());
        rms_norm(pool, &s.x, &self.norm, eps, &mut s.normed);
        std::mem::swap(&mut s.x, &mut s.normed);
    }

    /// Attention from `s.normed` to `s.next`; the state keeps what the next frame sees.
    fn attend(&self, pool: &Pool, layer: &Layer, index: usize, state: &mut State, s: &mut Scratch, m: usize) {
        let Code2WavConfig { heads, kv_heads, head_dim, window, .. } = self.config;
        let (q_width, kv_width) = (heads * head_dim, kv_heads * head_dim);
        resize(&mut state.q, m * q_width);
        resize(&mut state.k, m * kv_width);
        resize(&mut state.v, m * kv_width);
        linear(pool, &mut s.linear, &s.normed, m, &layer.q, None, &mut state.q);
        linear(pool, &mut s.linear, &s.normed, m, &layer.k, None, &mut state.k);
        linear(pool, &mut s.linear, &s.normed, m, &layer.v, None, &mut state.v);
        self.rope.apply(&state.turns, &mut state.q, q_width, heads, head_dim);
        self.rope.apply(&state.turns, &mut state.k, kv_width, kv_heads, head_dim);
        let (keys, values) = &mut state.layers[index];
        keys.extend_from_slice(&state.k);
        values.extend_from_slice(&state.v);
        let held = keys.len() / kv_width;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let visible = Visible::Recent { window, sinks: 0 };
        // The window is one block of its own.
        let shape = Shape { heads, kv_heads, head_dim, block: held.max(1), scale, visible };
        let sequence = Sequence { table: &[0], keys: held, queries: m };
        resize(&mut s.inner, m * q_width);
        paged_attention(pool, &shape, &state.q, keys, values, &[sequence], &mut s.inner);
        let gone = held.saturating_sub(window - 1) * kv_width;
        keys.drain(..gone);
        values.drain(..gone);
        resize(&mut s.next, m * self.config.hidden);
        linear(pool, &mut s.linear, &s.inner, m, &layer.output, None, &mut s.next);
    }
}

impl Layer {
    fn load(loader: &Loader<'_>, name: &str, config: &Code2WavConfig) -> Result<Self, OmniError> {
        let (hidden, q, kv) = (config.hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let vector = |part: &str| loader.vector(&format!("{name}.{part}"), hidden);
        let matrix = |part: &str, n, k| loader.matrix(&format!("{name}.self_attn.{part}.weight"), n, k);
        Ok(Self {
            attention_norm: vector("input_layernorm.weight")?,
            q: matrix("q_proj", q, hidden)?,
            k: matrix("k_proj", kv, hidden)?,
            v: matrix("v_proj", kv, hidden)?,
            output: matrix("o_proj", hidden, q)?,
            attention_scale: vector("self_attn_layer_scale.scale")?,
            feed_forward_norm: vector("post_attention_layernorm.weight")?,
            feed_forward: expert(loader, &format!("{name}.mlp"), config.inner, hidden, false)?,
            feed_forward_scale: vector("mlp_layer_scale.scale")?,
        })
    }
}

/// `x += y · scale`, row by row.
pub(super) fn add_scaled(x: &mut [f32], y: &[f32], scale: &[f32]) {
    for (x, y) in x.chunks_exact_mut(scale.len()).zip(y.chunks_exact(scale.len())) {
        x.iter_mut().zip(y).zip(scale).for_each(|((x, y), scale)| *x += y * scale);
    }
}
