//! What a model remembers of one conversation: keys and values of every layer, and the tokens that they stand for.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::Config;

/// Tokens for which room is made at once.
const BLOCK: usize = 256;

/// Keys and values as f16, `[layers][tokens, kv_heads, head_dim]`. Memory grows with the conversation, block by block;
/// nothing is set aside for the whole context.
pub struct KvCache {
    tokens: Vec<u32>,
    width: usize,
    layers: Vec<LayerCache>,
}

#[derive(Default)]
struct LayerCache {
    k: Vec<f16>,
    v: Vec<f16>,
}

impl KvCache {
    pub(super) fn new(config: &Config) -> Self {
        let layers = (0..config.layers).map(|_| LayerCache::default()).collect();
        Self { tokens: Vec::new(), width: config.kv_width(), layers }
    }

    /// The tokens held.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// How many tokens are held.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Forgets all but the first `len` tokens. The memory stays for what comes next.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        let kept = self.tokens.len() * self.width;
        for layer in &mut self.layers {
            layer.k.truncate(kept);
            layer.v.truncate(kept);
        }
    }

    /// How many of `tokens` are held already, from the start.
    pub fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.tokens.iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }

    /// Becomes a copy of the first `len` tokens of `other`; of all of them if it has fewer.
    ///
    /// # Panics
    /// If the caches belong to models of different shapes.
    pub fn copy_prefix_from(&mut self, other: &Self, len: usize) {
        assert!(self.width == other.width && self.layers.len() == other.layers.len(), "caches of different models");
        let len = len.min(other.len());
        self.truncate(0);
        self.reserve(len);
        self.tokens.extend_from_slice(&other.tokens[..len]);
        for (to, from) in self.layers.iter_mut().zip(&other.layers) {
            to.k.extend_from_slice(&from.k[..len * self.width]);
            to.v.extend_from_slice(&from.v[..len * self.width]);
        }
    }

    /// Bytes taken by keys and values, room for tokens to come included.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|l| (l.k.capacity() + l.v.capacity()) * size_of::<f16>()).sum()
    }

    /// Makes room for `more` tokens.
    pub(super) fn reserve(&mut self, more: usize) {
        let wanted = (self.tokens.len() + more).next_multiple_of(BLOCK) * self.width;
        for layer in &mut self.layers {
            // Exact: the growth policy of `Vec` would double a long conversation's memory. Blocks are large enough for
            // the allocator to move pages instead of bytes.
            for values in [&mut layer.k, &mut layer.v] {
                if values.capacity() < wanted {
                    values.reserve_exact(wanted - values.len());
                }
            }
        }
    }

    /// Appends rows of keys and values to a layer. [`KvCache::advance`] follows when all layers have theirs.
    pub(super) fn append(&mut self, layer: usize, k: &[f32], v: &[f32]) {
        let layer = &mut self.layers[layer];
        for (held, new) in [(&mut layer.k, k), (&mut layer.v, v)] {
            let at = held.len();
            held.resize(at + new.len(), f16::ZERO);
            held[at..].convert_from_f32_slice(new);
        }
    }

    /// Keys and values of a layer, appended ones included.
    pub(super) fn layer(&self, layer: usize) -> (&[f16], &[f16]) {
        (&self.layers[layer].k, &self.layers[layer].v)
    }

    /// The tokens of the appended rows.
    pub(super) fn advance(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        debug_assert!(self.layers.iter().all(|l| l.k.len() == self.tokens.len() * self.width));
    }
}
