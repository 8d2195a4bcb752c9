//! The decoder: tokens in, logits of the next token out, with the keys and values of what came before kept.

use causerie_kernels::Pool;
use causerie_kernels::ops::attention::attention;
use causerie_kernels::ops::linear::{Weights, linear};

use super::layers::{Buffers, FeedForward, Linear, Norm, SelfAttention, add, part, shape};

/// Weights of the decoder.
pub(super) struct Decoder {
    /// `[tokens, width]`, for tokens in and logits out.
    pub(super) embeddings: Weights,
    /// `[positions, width]`.
    pub(super) positions: Vec<f32>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    pub(super) heads: usize,
    pub(super) width: usize,
}

pub(super) struct Layer {
    pub(super) self_attention: SelfAttention,
    pub(super) cross_attention: CrossAttention,
    pub(super) feed_forward: FeedForward,
}

pub(super) struct CrossAttention {
    pub(super) norm: Norm,
    pub(super) query: Linear,
    /// Keys, then values.
    pub(super) key_value: Linear,
    pub(super) out: Linear,
}

/// Keys and values of one transcription.
#[derive(Default)]
pub(super) struct Cache {
    /// For each layer `[rows, 2 width]`: keys, then values, of what was heard.
    cross: Vec<Vec<f32>>,
    /// For each layer `[len, 3 width]`: queries (not needed again), keys and values of the tokens.
    own: Vec<Vec<f32>>,
    len: usize,
}

impl Cache {
    /// Tokens held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all tokens but the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Decoder {
    /// Tokens that it has positions for.
    pub(super) fn max_tokens(&self) -> usize {
        self.positions.len() / self.width
    }

    /// Prepares what was heard for the next layer; true when that was the last.
    pub(super) fn hear(&self, pool: &Pool, buffers: &mut Buffers, cache: &mut Cache, encoded: &[f32]) -> bool {
        if let Some(layer) = self.layers.get(cache.cross.len()) {
            let mut cross = Vec::new();
            layer.cross_attention.key_value.forward(pool, &mut buffers.scratch, encoded, &mut cross);
            cache.cross.push(cross);
        }
        cache.cross.len() == self.layers.len()
    }

    /// Appends `tokens` and returns the logits behind those at `wanted` (indices into `tokens`), one row each.
    ///
    /// # Panics
    /// If there is no position left, or [`Decoder::hear`] was not finished.
    pub(super) fn forward(
        &self,
        pool: &Pool,
        buffers: &mut Buffers,
        cache: &mut Cache,
        tokens: &[u32],
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) {
        let (width, heads) = (self.width, self.heads);
        let (before, len) = (cache.len, cache.len + tokens.len());
        let mut x = vec![0.0; tokens.len() * width];
        for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            self.embeddings.row(token as usize, x);
        }
        add(&mut x, &self.positions[before * width..len * width]);
        cache.own.resize_with(self.layers.len(), Vec::new);
        for ((layer, own), cross) in self.layers.iter().zip(&mut cache.own).zip(&cache.cross) {
            let Buffers { scratch, normed, wide, mixed, out } = buffers;
            mixed.resize(x.len(), 0.0);

            layer.self_attention.norm.forward(pool, &x, normed);
            layer.self_attention.qkv.forward(pool, scratch, normed, wide);
            own.truncate(before * 3 * width);
            own.extend_from_slice(wide);
            let part_of = |data, i| part(data, i, 3, width, heads);
            let (q, k, v) = (part_of(wide, 0), part_of(own, 1), part_of(own, 2));
            attention(pool, &shape(width, heads, tokens.len(), len, true), q, k, v, mixed);
            layer.self_attention.out.forward(pool, scratch, mixed, out);
            add(&mut x, out);

            layer.cross_attention.norm.forward(pool, &x, normed);
            layer.cross_attention.query.forward(pool, scratch, normed, wide);
            let (q, k, v) =
                (part(wide, 0, 1, width, heads), part(cross, 0, 2, width, heads), part(cross, 1, 2, width, heads));
            attention(pool, &shape(width, heads, tokens.len(), cross.len() / (2 * width), false), q, k, v, mixed);
            layer.cross_attention.out.forward(pool, scratch, mixed, out);
            add(&mut x, out);

            layer.feed_forward.forward(pool, buffers, &mut x);
        }
        cache.len = len;
        let last: Vec<f32> = wanted.iter().flat_map(|&row| &x[row * width..(row + 1) * width]).copied().collect();
        self.norm.forward(pool, &last, &mut buffers.normed);
        logits.resize(wanted.len() * self.embeddings.n(), 0.0);
        linear(pool, &mut buffers.scratch, &buffers.normed, wanted.len(), &self.embeddings, None, logits);
    }
}
