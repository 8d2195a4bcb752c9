//! What the op means.

use super::Pairing;

/// Turns one head of `dims` values for `position`.
pub fn rope(head: &mut [f32], position: usize, base: f32, pairing: Pairing) {
    let dims = head.len();
    for i in 0..dims / 2 {
        let angle = position as f64 * f64::from(base).powf(-2.0 * i as f64 / dims as f64);
        let (a, b) = match pairing {
            Pairing::Adjacent => (2 * i, 2 * i + 1),
            Pairing::Halves => (i, i + dims / 2),
        };
        let (x, y) = (f64::from(head[a]), f64::from(head[b]));
        head[a] = (x * angle.cos() - y * angle.sin()) as f32;
        head[b] = (x * angle.sin() + y * angle.cos()) as f32;
    }
}
