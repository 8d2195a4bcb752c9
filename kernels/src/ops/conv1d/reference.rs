//! What the op means.

use super::Window;

/// `w`: `[c_out, c_in, kernel]`, as frameworks store it.
pub(super) fn conv1d(x: &[f32], c_in: usize, w: &[f32], bias: &[f32], window: Window) -> Vec<f32> {
    let Window { kernel, stride, pad } = window;
    let t = x.len() / c_in;
    let mut y = Vec::new();
    for out in 0..window.outputs(t) {
        for (o, bias) in bias.iter().enumerate() {
            let mut sum = f64::from(*bias);
            for c in 0..c_in {
                for j in 0..kernel {
                    let at = (out * stride + j) as isize - pad as isize;
                    if (0..t as isize).contains(&at) {
                        sum += f64::from(w[(o * c_in + c) * kernel + j]) * f64::from(x[at as usize * c_in + c]);
                    }
                }
            }
            y.push(sum as f32);
        }
    }
    y
}
