//! Causal attention of many sequences over one pool of blocks:
//! `out[i, h] = Σ_j softmax_j(scale · q[i, h] · k[j, g]) v[j, g]`, `g = h · kv_heads / heads` (arXiv 2309.06180).
//!
//! q, out: `[rows, heads, head_dim]` f32, the rows of all sequences one after another. k, v: `[blocks, block, kv_heads,
//! head_dim]`, f32, f16, bf16 or eight-bit floats. A sequence is a table of blocks: key j lies in row `j % block` of block
//! `table[j / block]`. Its queries are the last of its positions, and none sees a key after its own.
//!
//! Memory may be shorter than the context: [`Visible`] keeps the latest keys and, as arXiv 2309.17453 found to be needed,
//! the very first ones. Blocks that no query sees may be anything, also outside of the pool.

pub(crate) mod cases;
mod cpu;
pub mod cuda;
pub mod reference;
#[cfg(test)]
mod tests;

use half::{bf16, f16};

use crate::Pool;
use crate::fp8::F8;
use crate::pool::Shareable;

/// What all sequences of a call have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Heads of q and out.
    pub heads: usize,
    /// Heads of k and v; divides `heads`.
    pub kv_heads: usize,
    /// Values of one head.
    pub head_dim: usize,
    /// Keys in a block.
    pub block: usize,
    /// Usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Which keys a query sees.
    pub visible: Visible,
}

/// Which of the keys up to its own a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible {
    /// All.
    All,
    /// The last `window`, its own among them, and the first `sinks`.
    Recent {
        /// Latest keys.
        window: usize,
        /// First keys.
        sinks: usize,
    },
}

impl Visible {
    /// Keys that the query at `position` sees: `0..sinks` and `from..=position`, as (sinks, from).
    pub fn of(self, position: usize) -> (usize, usize) {
        match self {
            Self::All => (0, 0),
            Self::Recent { window, sinks } => {
                let from = (position + 1).saturating_sub(window);
                (sinks.min(from), from)
            }
        }
    }
}

/// Rows of one sequence in a call.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Its blocks.
    pub table: &'a [u32],
    /// Keys, those of the queries included.
    pub keys: usize,
    /// Rows of q.
    pub queries: usize,
}

/// What keys and values are stored as.
pub trait Element: Copy + Send + Sync {
    /// The value.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Element for F8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// Computes attention. The result of a row does not depend on the other rows, on where its blocks lie or on the number of
/// threads, to the bit.
///
/// # Panics
/// If lengths do not fit the shape, a visible block is not in the pool, or a sequence has more queries than keys.
pub fn paged_attention<T: Element>(
    pool: &Pool,
    shape: &Shape,
    q: &[f32],
    k: &[T],
    v: &[T],
    sequences: &[Sequence<'_>],
    out: &mut [f32],
) {
    let &Shape { heads, kv_heads, head_dim, block, visible, .. } = shape;
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && head_dim > 0 && block > 0, "{shape:?}");
    assert!(visible != Visible::Recent { window: 0, sinks: 0 }, "{shape:?} sees nothing");
    let (row, stride) = (heads * head_dim, block * kv_heads * head_dim);
    assert!(k.len() == v.len() && k.len().is_multiple_of(stride), "{} and {} values for {shape:?}", k.len(), v.len());
    let rows: usize = sequences.iter().map(|sequence| sequence.queries).sum();
    assert!(q.len() == rows * row && out.len() == q.len(), "{} → {} for {rows} rows of {row}", q.len(), out.len());
    let blocks = k.len() / stride;
    // (sequence, position) of every row.
    let mut places = Vec::with_capacity(rows);
    for (index, sequence) in sequences.iter().enumerate() {
        let Sequence { table, keys, queries } = *sequence;
        assert!(queries <= keys && keys <= table.len() * block, "{queries} queries, {keys} keys, {table:?}");
        if let Some(first) = queries.checked_sub(1).map(|before| keys - 1 - before) {
            let (sinks, from) = visible.of(first);
            let seen = table[..sinks.div_ceil(block)].iter().chain(&table[from / block..keys.div_ceil(block)]);
            seen.for_each(|&b| assert!((b as usize) < blocks, "block {b} of {blocks}"));
        }
        places.extend((keys - queries..keys).map(|position| (index, position)));
    }
    let group = heads / kv_heads;
    let base = Shareable(out.as_mut_ptr());
    pool.for_each(rows * kv_heads, 1, &|items| {
        let mut scores = Vec::new();
        for item in items {
            let (r, g) = (item / kv_heads, item % kv_heads);
            let (sequence, position) = places[r];
            let keys = cpu::Keys { shape, k, v, table: sequences[sequence].table, position, head: g };
            for h in g * group..(g + 1) * group {
                let at = r * row + h * head_dim;
                // SAFETY: every row and head is one item's alone, and `out` is borrowed for the whole loop.
                let out = unsafe { std::slice::from_raw_parts_mut(base.get().add(at), head_dim) };
                cpu::row(&keys, &q[at..at + head_dim], &mut scores, out);
            }
        }
    });
}
