//! What the op means.

pub(in crate::ops) fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) {
    let n = gamma.len();
    for (x, y) in x.chunks(n).zip(y.chunks_mut(n)) {
        let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n as f64;
        let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n as f64;
        let scale = 1.0 / (variance + f64::from(eps)).sqrt();
        for i in 0..n {
            y[i] = ((f64::from(x[i]) - mean) * scale * f64::from(gamma[i]) + f64::from(beta[i])) as f32;
        }
    }
}
