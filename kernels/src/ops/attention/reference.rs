//! What the op means.

use super::{Element, Shape, View};

/// The formula, in loops and f64.
pub fn attention<T: Element>(shape: &Shape, q: View<'_, f32>, k: View<'_, T>, v: View<'_, T>, out: &mut [f32]) {
    for i in 0..shape.queries {
        for h in 0..shape.heads {
            let g = h * shape.kv_heads / shape.heads;
            let scores: Vec<f64> = (0..shape.visible(i))
                .map(|j| {
                    let dot: f64 = (0..shape.head_dim)
                        .map(|d| {
                            let q = q.data[i * q.row_stride + h * q.head_stride + d];
                            let k = k.data[j * k.row_stride + g * k.head_stride + d];
                            f64::from(q) * f64::from(k.widen())
                        })
                        .sum();
                    dot * f64::from(shape.scale)
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for d in 0..shape.head_dim {
                let value: f64 = scores
                    .iter()
                    .enumerate()
                    .map(|(j, s)| {
                        (s - max).exp() / sum * f64::from(v.data[j * v.row_stride + g * v.head_stride + d].widen())
                    })
                    .sum();
                out[(i * shape.heads + h) * shape.head_dim + d] = value as f32;
            }
        }
    }
}
