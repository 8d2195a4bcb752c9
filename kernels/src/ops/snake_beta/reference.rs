//! What the op means.

/// The formula, in f64.
pub(super) fn snake_beta(x: f32, alpha: f32, beta: f32) -> f32 {
    let (x, alpha, beta) = (f64::from(x), f64::from(alpha), f64::from(beta));
    (x + (x * alpha.exp()).sin().powi(2) / (beta.exp() + 1e-9)) as f32
}
