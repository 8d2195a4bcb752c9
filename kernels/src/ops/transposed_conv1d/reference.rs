//! What the op means for a stream that begins with `x`.

/// The transposed convolution of all rows in f64, cut at both ends; w is `[c_in, c_out, kernel]`.
pub(super) fn transposed_conv1d(x: &[f32], c_in: usize, w: &[f32], bias: &[f32], stride: usize) -> Vec<f32> {
    let (t, c_out) = (x.len() / c_in, bias.len());
    let kernel = w.len() / (c_in * c_out);
    let len = t.saturating_sub(1) * stride + kernel;
    let mut full = vec![0.0f64; len * c_out];
    for at in 0..t {
        for c in 0..c_in {
            for o in 0..c_out {
                for k in 0..kernel {
                    full[(at * stride + k) * c_out + o] +=
                        f64::from(x[at * c_in + c]) * f64::from(w[(c * c_out + o) * kernel + k]);
                }
            }
        }
    }
    let cut = kernel - stride;
    let kept = cut..(len - cut).max(cut);
    kept.flat_map(|i| (0..c_out).map(move |o| (i, o)))
        .map(|(i, o)| (full[i * c_out + o] + f64::from(bias[o])) as f32)
        .collect()
}
