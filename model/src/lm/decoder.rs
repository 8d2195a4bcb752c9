//! The network: a pre-norm transformer decoder with rotary positions and grouped queries.
//!
//! One pass takes rows of several conversations at once: matrices see all rows together, attention sees each
//! conversation's own. Every op's result for a row is independent of the other rows, so a conversation gives the same
//! bits alone and in company, whole and in chunks.

use causerie_kernels::Pool;
use causerie_kernels::ops::attention::{Shape, View, attention};
use causerie_kernels::ops::linear::{self, Weights, linear};
use causerie_kernels::ops::rms_norm::rms_norm;
use causerie_kernels::ops::rope::{Rope, Turns};

use super::moe::{self, FeedForward};
use super::{Config, KvCache};

/// All weights of a model.
pub(super) struct Decoder {
    pub(super) embedding: Weights,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Vec<f32>,
    /// `None` if the embedding is the output matrix too.
    pub(super) head: Option<Weights>,
    pub(super) rope: Rope,
}

pub(super) struct Layer {
    pub(super) attention_norm: Vec<f32>,
    pub(super) q: Projection,
    pub(super) k: Projection,
    pub(super) v: Projection,
    /// Normalise each head of queries and keys before they are turned (Qwen3).
    pub(super) q_norm: Option<Vec<f32>>,
    pub(super) k_norm: Option<Vec<f32>>,
    pub(super) output: Weights,
    pub(super) feed_forward_norm: Vec<f32>,
    pub(super) feed_forward: FeedForward,
}

pub(super) struct Projection {
    pub(super) weights: Weights,
    pub(super) bias: Option<Vec<f32>>,
}

/// Tokens of one conversation in a pass.
pub struct Segment<'a> {
    /// What the model remembers of it. The tokens are appended.
    pub cache: &'a mut KvCache,
    /// What comes next in it.
    pub tokens: &'a [u32],
    /// Whether what follows the last of them is wanted.
    pub want_logits: bool,
}

/// Buffers reused from pass to pass, and the logits of the last one.
#[derive(Default)]
pub struct Scratch {
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
    logits: Vec<f32>,
    vocabulary: usize,
    /// Which row of `logits` belongs to a segment.
    rows: Vec<Option<usize>>,
}

impl Scratch {
    /// What follows the last token of segment `i` of the last pass: one logit a token of the vocabulary. May be changed
    /// in place, by penalties for instance.
    ///
    /// # Panics
    /// If that segment did not want logits.
    pub fn logits(&mut self, i: usize) -> &mut [f32] {
        let row = self.rows[i].expect("the segment wanted logits");
        &mut self.logits[row * self.vocabulary..(row + 1) * self.vocabulary]
    }
}

impl Decoder {
    /// The output matrix.
    pub(super) fn head(&self) -> &Weights {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(super) fn forward(&self, config: &Config, pool: &Pool, s: &mut Scratch, segments: &mut [Segment<'_>]) {
        let m: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
        let hidden = config.hidden;
        self.embed(s, segments, m, hidden);
        let positions = segments.iter().flat_map(|g| g.cache.len()..g.cache.len() + g.tokens.len());
        self.rope.turns(positions, &mut s.turns);
        for segment in segments.iter_mut() {
            segment.cache.reserve(segment.tokens.len());
        }
        for (index, layer) in self.layers.iter().enumerate() {
            resize(&mut s.normed, m * hidden);
            rms_norm(pool, &s.x, &layer.attention_norm, config.norm_eps, &mut s.normed);
            layer.attend(config, pool, s, segments, m, index, &self.rope);
            moe::add(&mut s.x, &s.out);
            rms_norm(pool, &s.x, &layer.feed_forward_norm, config.norm_eps, &mut s.normed);
            layer.feed_forward.forward(pool, &mut s.linear, &mut s.moe, &s.normed, m, &mut s.x);
        }
        for segment in segments.iter_mut() {
            segment.cache.advance(segment.tokens);
        }
        self.project(config, pool, s, segments);
    }

    fn embed(&self, s: &mut Scratch, segments: &[Segment<'_>], m: usize, hidden: usize) {
        resize(&mut s.x, m * hidden);
        let tokens = segments.iter().flat_map(|segment| segment.tokens);
        for (&token, row) in tokens.zip(s.x.chunks_exact_mut(hidden)) {
            self.embedding.row(token as usize, row);
        }
    }

    /// Logits of the last row of each segment that wants them.
    fn project(&self, config: &Config, pool: &Pool, s: &mut Scratch, segments: &[Segment<'_>]) {
        let (hidden, head) = (config.hidden, self.head());
        s.normed.clear();
        s.rows.clear();
        let (mut end, mut wanted) = (0, 0);
        for segment in segments {
            end += segment.tokens.len();
            let wants = segment.want_logits && !segment.tokens.is_empty();
            s.rows.push(wants.then_some(wanted));
            if wants {
                s.normed.extend_from_slice(&s.x[(end - 1) * hidden..end * hidden]);
                wanted += 1;
            }
        }
        resize(&mut s.x, wanted * hidden);
        rms_norm(pool, &s.normed, &self.norm, config.norm_eps, &mut s.x);
        s.vocabulary = head.n();
        resize(&mut s.logits, wanted * head.n());
        if wanted > 0 {
            linear(pool, &mut s.linear, &s.x, wanted, head, None, &mut s.logits);
        }
    }
}

impl Layer {
    /// Attention of all segments, from `s.normed` to `s.out`.
    #[allow(clippy::too_many_arguments)] // A step of the pass, cut out to be read on its own.
    fn attend(
        &self,
        config: &Config,
        pool: &Pool,
        s: &mut Scratch,
        segments: &mut [Segment<'_>],
        m: usize,
        index: usize,
        rope: &Rope,
    ) {
        let Config { heads, kv_heads, head_dim, .. } = *config;
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        for (projection, norm, heads, y) in [
            (&self.q, &self.q_norm, heads, &mut s.q),
            (&self.k, &self.k_norm, kv_heads, &mut s.k),
            (&self.v, &None, kv_heads, &mut s.v),
        ] {
            resize(y, m * heads * head_dim);
            linear(pool, &mut s.linear, &s.normed, m, &projection.weights, projection.bias.as_deref(), y);
            if let Some(norm) = norm {
                resize(&mut s.heads, y.len());
                rms_norm(pool, y, norm, config.norm_eps, &mut s.heads);
                std::mem::swap(y, &mut s.heads);
            }
        }
        rope.apply(&s.turns, &mut s.q, q_width, heads, head_dim);
        rope.apply(&s.turns, &mut s.k, kv_width, kv_heads, head_dim);

        resize(&mut s.heads, m * q_width);
        let mut row = 0;
        for segment in segments.iter_mut().filter(|segment| !segment.tokens.is_empty()) {
            let rows = row..row + segment.tokens.len();
            row = rows.end;
            let kv = rows.start * kv_width..rows.end * kv_width;
            segment.cache.append(index, &s.k[kv.clone()], &s.v[kv]);
            let shape = Shape {
                heads,
                kv_heads,
                head_dim,
                queries: rows.len(),
                keys: segment.cache.len() + rows.len(),
                causal: true,
                scale: 1.0 / (head_dim as f32).sqrt(),
            };
            let (k, v) = segment.cache.layer(index);
            let (k, v) = (View::contiguous(k, kv_heads, head_dim), View::contiguous(v, kv_heads, head_dim));
            let rows = rows.start * q_width..rows.end * q_width;
            let q = View::contiguous(&s.q[rows.clone()], heads, head_dim);
            attention(pool, &shape, q, k, v, &mut s.heads[rows]);
        }
        resize(&mut s.out, m * config.hidden);
        linear(pool, &mut s.linear, &s.heads, m, &self.output, None, &mut s.out);
    }
}

/// Makes a buffer `len` long; what is in it does not matter.
pub(crate) fn resize(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    buffer.truncate(len);
}
