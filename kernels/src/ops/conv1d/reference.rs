//! What the op means.

#[cfg(test)]
use super::Window;
use super::cuda::Taps;

/// `w`: `[c_out, c_in, kernel]`, as frameworks store it.
#[cfg(test)]
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

/// The outputs whose taps are all inside of x; w is `[c_out, taps, c_in]`.
pub(super) fn valid(x: &[f32], c_in: usize, w: &[f32], taps: Taps) -> Vec<f32> {
    let c_out = w.len() / (taps.count * c_in);
    let mut y = Vec::new();
    for t in 0..taps.outputs(x.len() / c_in) {
        for o in 0..c_out {
            let term = |j: usize, c: usize| {
                f64::from(w[(o * taps.count + j) * c_in + c])
                    * f64::from(x[(t * taps.stride + j * taps.dilation) * c_in + c])
            };
            let terms = (0..taps.count).flat_map(|j| (0..c_in).map(move |c| (j, c)));
            y.push(terms.map(|(j, c)| term(j, c)).sum::<f64>() as f32);
        }
    }
    y
}
