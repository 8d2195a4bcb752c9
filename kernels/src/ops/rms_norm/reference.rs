//! What the op means.

/// The formula, in f64.
pub fn rms_norm(x: &[f32], gamma: &[f32], eps: f32, y: &mut [f32]) {
    let n = gamma.len();
    for (x, y) in x.chunks(n).zip(y.chunks_mut(n)) {
        let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64;
        let scale = 1.0 / (mean + f64::from(eps)).sqrt();
        for i in 0..n {
            y[i] = (f64::from(x[i]) * scale * f64::from(gamma[i])) as f32;
        }
    }
}
