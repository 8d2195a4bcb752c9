//! What the op means.

use super::Format;

/// An E4M3 number.
pub fn from_fp8(code: u8) -> f32 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    let value = match exponent {
        0 => fraction * 2.0_f32.powi(-9),
        _ => (8.0 + fraction) * 2.0_f32.powi(exponent - 10),
    };
    if code & 0x80 == 0 { value } else { -value }
}

/// The weights `[n, k]`.
pub fn unpack(format: Format, bytes: &[u8], scales: &[f32], k: usize) -> Vec<f32> {
    let plain: Vec<f32> = match format {
        Format::Fp8 => bytes.iter().map(|&code| from_fp8(code)).collect(),
        Format::Int4 => bytes.iter().flat_map(|b| [b & 15, b >> 4].map(|q| f32::from(q) - 8.0)).collect(),
    };
    plain.iter().enumerate().map(|(i, v)| v * scales[i / format.group(k)]).collect()
}
