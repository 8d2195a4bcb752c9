//! What the op means.

use super::{Element, Sequence, Shape, Visible};

/// The formula, in loops and f64.
pub fn paged_attention<T: Element>(
    shape: &Shape,
    q: &[f32],
    k: &[T],
    v: &[T],
    sequences: &[Sequence<'_>],
    out: &mut [f32],
) {
    let Shape { heads, kv_heads, head_dim, block, scale, visible } = *shape;
    let mut r = 0;
    for sequence in sequences {
        for i in sequence.keys - sequence.queries..sequence.keys {
            for h in 0..heads {
                let g = h * kv_heads / heads;
                let at = |j: usize, d: usize| {
                    ((sequence.table[j / block] as usize * block + j % block) * kv_heads + g) * head_dim + d
                };
                let sees = |j: usize| match visible {
                    Visible::All => true,
                    Visible::Recent { window, sinks } => j < sinks || i - j < window,
                };
                let seen: Vec<usize> = (0..=i).filter(|&j| sees(j)).collect();
                let query = &q[(r * heads + h) * head_dim..][..head_dim];
                let score = |&j: &usize| {
                    let terms = query.iter().enumerate().map(|(d, q)| f64::from(*q) * f64::from(k[at(j, d)].widen()));
                    terms.sum::<f64>() * f64::from(scale)
                };
                let scores: Vec<f64> = seen.iter().map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for d in 0..head_dim {
                    let terms = seen.iter().zip(&scores);
                    let value =
                        terms.map(|(&j, s)| (s - max).exp() / sum * f64::from(v[at(j, d)].widen())).sum::<f64>();
                    out[(r * heads + h) * head_dim + d] = value as f32;
                }
            }
            r += 1;
        }
    }
}

/// One row of one head on its own, and how far roundings of its weights to bf16 may move each value: the length of a random
/// walk of terms `p v / 256`.
pub(super) fn weigh(q: &[f32], keys: &[(&[f32], &[f32])], scale: f32) -> (Vec<f32>, Vec<f32>) {
    let dot = |k: &[f32]| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * f64::from(scale);
    let scores: Vec<f64> = keys.iter().map(|(k, _)| dot(k)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
    let term = |d: usize| keys.iter().zip(&scores).map(move |((_, v), s)| (s - max).exp() / sum * f64::from(v[d]));
    let value = |d| term(d).sum::<f64>() as f32;
    let spread = |d| (term(d).map(|t| t * t).sum::<f64>().sqrt() / 256.0) as f32;
    ((0..q.len()).map(value).collect(), (0..q.len()).map(spread).collect())
}
