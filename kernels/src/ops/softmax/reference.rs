//! What the op means.

/// The formula, in f64; returns `ln Σ exp x`.
pub fn row(x: &mut [f32]) -> f32 {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = x.iter().map(|&x| f64::from(x - max).exp()).sum();
    for x in x.iter_mut() {
        *x = (f64::from(*x - max).exp() / sum) as f32;
    }
    (f64::from(max) + sum.ln()) as f32
}
