//! What the op means.

use super::Window;

/// The formula, in f64; w is `[c_out, c_in, kernel, kernel]` as frameworks store it.
pub(super) fn conv2d(x: &[f32], rows: usize, c_in: usize, w: &[f32], bias: &[f32], window: Window) -> Vec<f32> {
    let Window { kernel, stride, pad } = window;
    let columns = x.len() / (rows * c_in);
    let mut y = Vec::new();
    for i in 0..window.outputs(rows) {
        for j in 0..window.outputs(columns) {
            for (o, bias) in bias.iter().enumerate() {
                let mut sum = f64::from(*bias);
                for a in 0..kernel {
                    for b in 0..kernel {
                        let (r, k) = ((i * stride + a).wrapping_sub(pad), (j * stride + b).wrapping_sub(pad));
                        if r < rows && k < columns {
                            for c in 0..c_in {
                                sum += f64::from(w[((o * c_in + c) * kernel + a) * kernel + b])
                                    * f64::from(x[(r * columns + k) * c_in + c]);
                            }
                        }
                    }
                }
                y.push(sum as f32);
            }
        }
    }
    y
}

/// As [`conv2d`] without a bias, with w `[c_out, kernel, kernel, c_in]`.
pub(super) fn channels_last(x: &[f32], rows: usize, c_in: usize, w: &[f32], window: Window) -> Vec<f32> {
    let taps = window.kernel * window.kernel;
    let c_out = w.len() / (taps * c_in);
    let place = |i: usize| (i / (taps * c_in), i / taps % c_in, i % taps);
    let framework: Vec<f32> = (0..w.len()).map(place).map(|(o, c, tap)| w[(o * taps + tap) * c_in + c]).collect();
    conv2d(x, rows, c_in, &framework, &vec![0.0; c_out], window)
}
