//! What the op means.

/// The formula, in f64.
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        let x = f64::from(*gate);
        *gate = (x / (1.0 + (-x).exp()) * f64::from(*up)) as f32;
    }
}
