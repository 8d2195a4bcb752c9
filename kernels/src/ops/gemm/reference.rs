//! What the op means.

/// Which token belongs to which group, and what it takes.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// Tokens of group g are `offsets[g]..offsets[g + 1]`.
    pub offsets: &'a [usize],
    /// The row of x that a token takes.
    pub rows: &'a [usize],
}

/// `W[g] x[row(i)] + b` in f64, `n` outputs of each token. `weights`: `[groups, n, k]`.
pub fn gemm(x: &[f32], weights: &[f32], bias: Option<&[f32]>, groups: Groups<'_>, n: usize, k: usize) -> Vec<f32> {
    let mut y = Vec::new();
    for (g, range) in groups.offsets.windows(2).enumerate() {
        for token in range[0]..range[1] {
            let x = &x[groups.rows[token] * k..][..k];
            for o in 0..n {
                let w = &weights[(g * n + o) * k..][..k];
                let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                y.push((sum + bias.map_or(0.0, |bias| f64::from(bias[o]))) as f32);
            }
        }
    }
    y
}

/// `silu(G[g] x) · (U[g] x)`: a product with `2 n` outputs, gates first, then gated.
pub fn gated(x: &[f32], weights: &[f32], groups: Groups<'_>, n: usize, k: usize) -> Vec<f32> {
    let both = gemm(x, weights, None, groups, 2 * n, k);
    let one = |(gate, up): (&f32, &f32)| {
        let (gate, up) = (f64::from(*gate), f64::from(*up));
        (gate / (1.0 + (-gate).exp()) * up) as f32
    };
    both.chunks(2 * n).flat_map(|row| row[..n].iter().zip(&row[n..]).map(one).collect::<Vec<_>>()).collect()
}
