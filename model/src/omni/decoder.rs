//! The decoder that the thinker, the talker and the code predictor share: pre-norm, grouped queries with normalised
//! heads, rotary positions of three coordinates, experts or dense layers, over blocks of memory.
//!
//! Rows are embeddings, not tokens, because media come as rows of their own. One pass takes rows of several sequences:
//! matrices see all of them together, attention sees each sequence's own, and every row's result is independent of the
//! others. A sequence gives the same bits alone and in company, whole and in chunks.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{self, Weights, linear};
use causerie_kernels::ops::paged_attention::{Sequence as Paged, Shape, Visible};
use causerie_kernels::ops::rms_norm::rms_norm;
use causerie_kernels::ops::rope::{Position, Rope, Turns};

use super::OmniError;
use super::config::{FeedForwardConfig, TextConfig};
use super::kv::{KvStore, KvType, Layout, Sequence};
use super::load::Loader;
use super::rope::rope;
use super::trace::Trace;
use crate::lm::moe::{self, Expert, FeedForward, Router, Shared};
use crate::lm::resize;

/// The layers and the final norm.
pub(super) struct Decoder {
    config: TextConfig,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    rope: Rope,
}

struct Layer {
    input_norm: Vec<f32>,
    q: Weights,
    k: Weights,
    v: Weights,
    q_norm: Vec<f32>,
    k_norm: Vec<f32>,
    output: Weights,
    feed_forward_norm: Vec<f32>,
    feed_forward: FeedForward,
}

/// Rows of one sequence in a pass.
pub(super) struct Segment<'a> {
    /// What came before. The rows are appended.
    pub(super) sequence: &'a mut Sequence,
    /// How many rows.
    pub(super) rows: usize,
}

/// What goes through the layers.
pub(super) struct Input<'a> {
    /// `[rows, hidden]`.
    pub(super) embeddings: &'a [f32],
    /// One a row.
    pub(super) positions: &'a [Position],
    /// What the vision tower adds to some rows after the first layers.
    pub(super) deepstack: Deepstack<'a>,
    /// Keep the state after so many layers, for the talker.
    pub(super) keep: Option<usize>,
}

/// Features of the vision tower for the first layers.
#[derive(Clone, Copy, Default)]
pub(super) struct Deepstack<'a> {
    /// Rows of the pass that are placeholders of pictures, in order.
    pub(super) rows: &'a [usize],
    /// For each of the first layers `[rows, hidden]`, added to its output.
    pub(super) layers: &'a [Vec<f32>],
}

/// Buffers reused from pass to pass, and the results of the last one.
#[derive(Default)]
pub(super) struct Scratch {
    linear: linear::Scratch,
    moe: moe::Scratch,
    turns: Turns,
    x: Vec<f32>,
    normed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    heads: Vec<f32>,
    out: Vec<f32>,
    router: Vec<f32>,
    /// `[rows, hidden]`: the output, normalised.
    pub(super) hidden: Vec<f32>,
    /// `[rows, hidden]`: the state after the layers of [`Input::keep`].
    pub(super) kept: Vec<f32>,
}

impl Scratch {
    /// The buffers of the linear op, for what follows the decoder.
    pub(super) fn linear(&mut self) -> &mut linear::Scratch {
        &mut self.linear
    }
}

impl Decoder {
    /// Loads `{name}.layers` and `{name}.norm`.
    pub(super) fn load(loader: &Loader<'_>, name: &str, config: &TextConfig) -> Result<Self, OmniError> {
        let layers = (0..config.layers).map(|i| Layer::load(loader, &format!("{name}.layers.{i}"), config));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            norm: loader.vector(&format!("{name}.norm.weight"), config.hidden)?,
            rope: rope(&config.rope, config.head_dim),
            config: config.clone(),
        })
    }

    /// Memory for sequences of this decoder, in 32-bit floats, all of which rows see.
    pub(super) fn store(&self, block: usize, blocks: usize) -> KvStore {
        KvStore::new(layout(&self.config, KvType::F32, block, blocks), Visible::All)
    }

    /// Runs rows through all layers; results are in [`Scratch::hidden`] and [`Scratch::kept`].
    ///
    /// # Errors
    /// [`OmniError::NoRoom`] if the store has not enough blocks; no sequence has grown then.
    pub(super) fn forward(
        &self,
        pool: &Pool,
        s: &mut Scratch,
        store: &mut KvStore,
        segments: &mut [Segment<'_>],
        input: &Input<'_>,
        mut trace: Trace<'_>,
    ) -> Result<(), OmniError> {
        let (m, hidden) = (input.positions.len(), self.config.hidden);
        assert_eq!(m, segments.iter().map(|segment| segment.rows).sum::<usize>(), "a position a row");
        assert_eq!(input.embeddings.len(), m * hidden, "{m} rows of {hidden}");
        for segment in segments.iter_mut() {
            store.reserve(segment.sequence, segment.rows)?;
        }
        s.x.clear();
        s.x.extend_from_slice(input.embeddings);
        self.rope.turns_of(input.positions.iter().copied(), &mut s.turns);
        trace.rows("hidden_states", &s.x);
        for (index, layer) in self.layers.iter().enumerate() {
            if input.keep == Some(index) {
                s.kept.clone_from(&s.x);
            }
            if let Some(before) = index.checked_sub(1).and_then(|before| input.deepstack.layers.get(before)) {
                add_rows(&mut s.x, hidden, input.deepstack.rows, before);
            }
            resize(&mut s.normed, m * hidden);
            rms_norm(pool, &s.x, &layer.input_norm, self.config.norm_eps, &mut s.normed);
            self.attend(pool, s, store, segments, m, index);
            moe::add(&mut s.x, &s.out);
            rms_norm(pool, &s.x, &layer.feed_forward_norm, self.config.norm_eps, &mut s.normed);
            if let Some(router) = layer.feed_forward.router.as_ref().filter(|_| trace.is_on()) {
                resize(&mut s.router, m * router.weights.n());
                linear(pool, &mut s.linear, &s.normed, m, &router.weights, None, &mut s.router);
                trace.rows("router_logits", &s.router);
            }
            layer.feed_forward.forward(pool, &mut s.linear, &mut s.moe, &s.normed, m, &mut s.x);
            if index + 1 < self.layers.len() {
                trace.rows("hidden_states", &s.x);
            }
        }
        if let Some(last) = input.deepstack.layers.get(self.layers.len() - 1) {
            add_rows(&mut s.x, hidden, input.deepstack.rows, last);
        }
        for segment in segments.iter_mut() {
            store.advance(segment.sequence, segment.rows);
        }
        resize(&mut s.hidden, m * hidden);
        rms_norm(pool, &s.x, &self.norm, self.config.norm_eps, &mut s.hidden);
        trace.rows("hidden_states", &s.hidden);
        // The reference implementation replaces the last state by the normalised one.
        if input.keep == Some(self.layers.len()) {
            s.kept.clone_from(&s.hidden);
        }
        Ok(())
    }

    /// Attention of all segments, from `s.normed` to `s.out`.
    fn attend(
        &self,
        pool: &Pool,
        s: &mut Scratch,
        store: &mut KvStore,
        segments: &mut [Segment<'_>],
        m: usize,
        index: usize,
    ) {
        let (config, layer) = (&self.config, &self.layers[index]);
        let TextConfig { heads, kv_heads, head_dim, .. } = *config;
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        for (weights, norm, width, y) in [
            (&layer.q, Some(&layer.q_norm), q_width, &mut s.q),
            (&layer.k, Some(&layer.k_norm), kv_width, &mut s.k),
            (&layer.v, None, kv_width, &mut s.v),
        ] {
            resize(y, m * width);
            linear(pool, &mut s.linear, &s.normed, m, weights, None, y);
            if let Some(norm) = norm {
                resize(&mut s.heads, y.len());
                rms_norm(pool, y, norm, config.norm_eps, &mut s.heads);
                std::mem::swap(y, &mut s.heads);
            }
        }
        self.rope.apply(&s.turns, &mut s.q, q_width, heads, head_dim);
        self.rope.apply(&s.turns, &mut s.k, kv_width, kv_heads, head_dim);

        let mut row = 0;
        for segment in segments.iter() {
            let rows = row * kv_width..(row + segment.rows) * kv_width;
            store.write(index, segment.sequence, &s.k[rows.clone()], &s.v[rows]);
            row += segment.rows;
        }
        let sequences: Vec<Paged<'_>> = segments
            .iter()
            .map(|segment| Paged {
                table: segment.sequence.table(),
                keys: segment.sequence.len() + segment.rows,
                queries: segment.rows,
            })
            .collect();
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = Shape { heads, kv_heads, head_dim, block: store.block(), scale, visible: store.visible() };
        resize(&mut s.heads, m * q_width);
        store.attend(pool, index, &shape, &s.q, &sequences, &mut s.heads);
        resize(&mut s.out, m * config.hidden);
        linear(pool, &mut s.linear, &s.heads, m, &layer.output, None, &mut s.out);
    }
}

/// The layout of a decoder's memory.
pub(super) fn layout(config: &TextConfig, kind: KvType, block: usize, blocks: usize) -> Layout {
    Layout { kind, layers: config.layers, width: config.kv_width(), block, blocks }
}

impl Layer {
    fn load(loader: &Loader<'_>, name: &str, config: &TextConfig) -> Result<Self, OmniError> {
        let (hidden, q, kv) = (config.hidden, config.q_width(), config.kv_width());
        let attention = |part: &str| format!("{name}.self_attn.{part}.weight");
        Ok(Self {
            input_norm: loader.vector(&format!("{name}.input_layernorm.weight"), hidden)?,
            q: loader.layer_matrix(&attention("q_proj"), q, hidden)?,
            k: loader.layer_matrix(&attention("k_proj"), kv, hidden)?,
            v: loader.layer_matrix(&attention("v_proj"), kv, hidden)?,
            q_norm: loader.vector(&attention("q_norm"), config.head_dim)?,
            k_norm: loader.vector(&attention("k_norm"), config.head_dim)?,
            output: loader.layer_matrix(&attention("o_proj"), hidden, q)?,
            feed_forward_norm: loader.vector(&format!("{name}.post_attention_layernorm.weight"), hidden)?,
            feed_forward: feed_forward(loader, &format!("{name}.mlp"), config)?,
        })
    }
}

fn feed_forward(loader: &Loader<'_>, name: &str, config: &TextConfig) -> Result<FeedForward, OmniError> {
    let hidden = config.hidden;
    match config.feed_forward {
        FeedForwardConfig::Dense { inner } => Ok(FeedForward::dense(expert(loader, name, inner, hidden, true)?)),
        FeedForwardConfig::Experts { experts, top_k, inner, normalise, shared } => {
            let all = (0..experts).map(|e| expert(loader, &format!("{name}.experts.{e}"), inner, hidden, true));
            let weights = loader.matrix(&format!("{name}.gate.weight"), experts, hidden)?;
            let shared = shared.map(|inner| {
                Ok::<_, OmniError>(Shared {
                    expert: expert(loader, &format!("{name}.shared_expert"), inner, hidden, true)?,
                    gate: Some(loader.matrix(&format!("{name}.shared_expert_gate.weight"), 1, hidden)?),
                })
            });
            Ok(FeedForward {
                experts: all.collect::<Result<_, _>>()?,
                router: Some(Router { weights, top_k, normalise }),
                shared: shared.transpose()?,
            })
        }
    }
}

/// A gated network of two layers: `{name}.gate_proj`, `up_proj`, `down_proj`. Those of decoders' layers may be narrow.
pub(super) fn expert(
    loader: &Loader<'_>,
    name: &str,
    inner: usize,
    hidden: usize,
    layer: bool,
) -> Result<Expert, OmniError> {
    let matrix = |part: &str, n, k| {
        let name = format!("{name}.{part}_proj.weight");
        if layer { loader.layer_matrix(&name, n, k) } else { loader.matrix(&name, n, k) }
    };
    let (gate, up) = (matrix("gate", inner, hidden)?, matrix("up", inner, hidden)?);
    Ok(Expert { gate, up, down: matrix("down", hidden, inner)? })
}

/// Adds rows of `from`, one after another, to the `rows` of `x`.
fn add_rows(x: &mut [f32], width: usize, rows: &[usize], from: &[f32]) {
    for (&row, from) in rows.iter().zip(from.chunks_exact(width)) {
        moe::add(&mut x[row * width..(row + 1) * width], from);
    }
}
