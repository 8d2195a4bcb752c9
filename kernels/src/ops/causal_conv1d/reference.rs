//! What the op means for a stream that begins with `x`.

use super::Taps;

/// The formula, in f64; w is `[c_out, c_in, kernel]` as frameworks store it.
pub(super) fn causal_conv1d(x: &[f32], c_in: usize, w: &[f32], bias: &[f32], taps: Taps) -> Vec<f32> {
    let mut y = Vec::new();
    for t in 0..x.len() / c_in {
        for (o, bias) in bias.iter().enumerate() {
            let mut sum = f64::from(*bias);
            for j in 0..taps.kernel {
                let Some(at) = t.checked_sub((taps.kernel - 1 - j) * taps.dilation) else { continue };
                for c in 0..c_in {
                    sum += f64::from(w[(o * c_in + c) * taps.kernel + j]) * f64::from(x[at * c_in + c]);
                }
            }
            y.push(sum as f32);
        }
    }
    y
}
