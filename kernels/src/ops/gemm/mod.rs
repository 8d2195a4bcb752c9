//! Products of bf16 activations and bf16 weights, for one matrix or one of each group, plain or gated:
//! `y[i] = f(W[g] x[row(i)] + b) + residual[i]`, or `silu(G[g] x[row(i)]) · (U[g] x[row(i)])`.
//!
//! x: `[rows, k]`. weights: `[groups, n, k]`, gated `[groups, 2 n, k]` with the gates first. bias: `[n]`. residual, y:
//! `[tokens, n]`. All row-major. offsets: `[groups + 1]`, tokens `offsets[g]..offsets[g + 1]` belong to group g; rows:
//! `[tokens]`, which row of x a token takes.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;
