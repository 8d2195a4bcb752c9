//! What the op means.

/// x Φ(x), with erf by its Taylor series near zero and by the continued fraction of erfc beyond.
pub(in crate::ops) fn gelu(x: f32) -> f32 {
    let x = f64::from(x);
    let z = x.abs() / std::f64::consts::SQRT_2;
    let erfc = if z < 2.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        1.0 - sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let mut fraction = z;
        for n in (1..200).rev() {
            fraction = z + f64::from(n) / 2.0 / fraction;
        }
        (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    let phi = if x < 0.0 { 0.5 * erfc } else { 1.0 - 0.5 * erfc };
    (x * phi) as f32
}
