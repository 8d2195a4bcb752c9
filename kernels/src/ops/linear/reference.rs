//! What the op means: weights as floats, sums in f64.

use super::WeightType;

/// `y[i, o] = bias[o] + Σ x[i, c] · W[o, c]` for weights as a file stores them, `n` rows of type `kind` in `bytes`.
pub fn linear(x: &[f32], m: usize, kind: WeightType, n: usize, bytes: &[u8], bias: Option<&[f32]>, y: &mut [f32]) {
    let k = x.len() / m;
    let mut row = vec![0.0; k];
    for o in 0..n {
        let size = bytes.len() / n;
        kind.dequantise_row(&bytes[o * size..(o + 1) * size], &mut row);
        for i in 0..m {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[o]));
            for c in 0..k {
                sum += f64::from(x[i * k + c]) * f64::from(row[c]);
            }
            y[i * n + o] = sum as f32;
        }
    }
}
