//! What the op means for a stream that begins with `x`.

/// The formula, in f64.
pub(super) fn depthwise_conv1d(x: &[f32], w: &[f32], bias: &[f32]) -> Vec<f32> {
    let channels = bias.len();
    let kernel = w.len() / channels;
    (0..x.len())
        .map(|i| {
            let (t, c) = (i / channels, i % channels);
            let terms = (0..kernel).filter_map(|j| Some((j, t.checked_sub(kernel - 1 - j)?)));
            let sum: f64 =
                terms.map(|(j, at)| f64::from(w[c * kernel + j]) * f64::from(x[at * channels + c])).sum::<f64>();
            (f64::from(bias[c]) + sum) as f32
        })
        .collect()
}
