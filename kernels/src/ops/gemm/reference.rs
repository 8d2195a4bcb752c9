//! What the op means.

use super::cuda::Activation;
use crate::ops::{gelu, gelu_tanh};

/// Which token belongs to which group, and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// Tokens of group g are `offsets[g]..offsets[g + 1]`.
    pub offsets: &'a [usize],
    /// The row of x that a token takes.
    pub rows: &'a [usize],
}

/// `W[g] x[row(i)]` in f64, `n` outputs of each token. `weights`: `[groups, n, k]`.
pub fn gemm(x: &[f32], weights: &[f32], groups: Groups<'_>, n: usize, k: usize) -> Vec<f32> {
    let mut y = Vec::new();
    for (g, range) in groups.offsets.windows(2).enumerate() {
        for token in range[0]..range[1] {
            let x = &x[groups.rows[token] * k..][..k];
            for o in 0..n {
                let w = &weights[(g * n + o) * k..][..k];
                y.push(x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() as f32);
            }
        }
    }
    y
}

/// `silu(gate) · up` of rows of `2 n` values, gates first.
pub fn gated(both: &[f32], n: usize) -> Vec<f32> {
    let one = |(gate, up): (&f32, &f32)| {
        let (gate, up) = (f64::from(*gate), f64::from(*up));
        (gate / (1.0 + (-gate).exp()) * up) as f32
    };
    both.chunks(2 * n).flat_map(|row| row[..n].iter().zip(&row[n..]).map(one).collect::<Vec<_>>()).collect()
}

/// `f(x + bias) + residual`, in place; rows have `n` values.
pub fn end(x: &mut [f32], bias: Option<&[f32]>, activation: Activation, residual: Option<&[f32]>, n: usize) {
    for (i, x) in x.iter_mut().enumerate() {
        let value = *x + bias.map_or(0.0, |bias| bias[i % n]);
        let value = match activation {
            Activation::None => value,
            Activation::Silu => (f64::from(value) / (1.0 + (-f64::from(value)).exp())) as f32,
            Activation::Gelu => gelu::reference::gelu(value),
            Activation::GeluTanh => gelu_tanh::reference::gelu_tanh(value),
        };
        *x = value + residual.map_or(0.0, |residual| residual[i]);
    }
}
