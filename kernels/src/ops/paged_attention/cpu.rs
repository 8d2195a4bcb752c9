//! One query at a time in lanes that the compiler makes vectors of: the scores of all visible keys, their softmax, the
//! sum of the values. The order of every sum depends on the row's own position alone.

use super::{Element, Shape};
use crate::ops::softmax;

const LANES: usize = 8;

/// The keys of one query and one head of keys.
pub(super) struct Keys<'a, T> {
    pub(super) shape: &'a Shape,
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
    pub(super) table: &'a [u32],
    pub(super) position: usize,
    pub(super) head: usize,
}

impl<T> Keys<'_, T> {
    /// Where the visible keys lie in the pool, in order.
    fn places(&self) -> impl Iterator<Item = usize> {
        let Shape { kv_heads, head_dim, block, visible, .. } = *self.shape;
        let (sinks, from) = visible.of(self.position);
        (0..sinks).chain(from..self.position + 1).map(move |j| {
            let row = self.table[j / block] as usize * block + j % block;
            (row * kv_heads + self.head) * head_dim
        })
    }
}

/// Attention of one row and head.
pub(super) fn row<T: Element>(keys: &Keys<'_, T>, q: &[f32], scores: &mut Vec<f32>, out: &mut [f32]) {
    let Shape { head_dim, scale, .. } = *keys.shape;
    scores.clear();
    scores.extend(keys.places().map(|at| dot(q, &keys.k[at..at + head_dim]) * scale));
    softmax::row(scores);
    out.fill(0.0);
    for (at, &score) in keys.places().zip(scores.iter()) {
        let values = &keys.v[at..at + head_dim];
        out.iter_mut().zip(values).for_each(|(out, v)| *out += score * v.widen());
    }
}

#[inline]
fn dot<T: Element>(a: &[f32], b: &[T]) -> f32 {
    let (mut sums, mut rest) = ([0.0f32; LANES], 0.0);
    let (a_blocks, a_rest) = a.as_chunks::<LANES>();
    let (b_blocks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane].widen();
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        rest += a * b.widen();
    }
    sums.iter().sum::<f32>() + rest
}
