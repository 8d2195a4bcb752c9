//! Products of few tokens with weights of eight or four bits, which halve or quarter the bytes that decoding reads:
//! `y[t, o] = Σ_c x[t, c] w[o, c]`, sums in f32.
//!
//! x: `[tokens, k]` bf16. y: `[tokens, n]` bf16. Weights as [`Format`] says; a scale is f32.

pub(crate) mod cases;
pub mod cuda;
pub mod reference;

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Eight-bit floats (E4M3 of arXiv 2209.05433), `[n, k]`, and a scale an output.
    Fp8,
    /// Four-bit integers less 8, `[n, k / 2]` with the even input in the low half, and a scale for [`Format::GROUP`] inputs.
    Int4,
}

/// A matrix as a device takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The values.
    pub bytes: Vec<u8>,
    /// What they are multiplied by.
    pub scales: Vec<f32>,
}

/// The largest number of E4M3.
const FP8_MAX: f32 = 448.0;
/// The largest distance from 0 on both sides.
const INT4_MAX: f32 = 7.0;

impl Format {
    /// Inputs that share a scale, for four bits.
    pub const GROUP: usize = 128;

    /// Inputs that share a scale, of rows of `k`.
    pub fn group(self, k: usize) -> usize {
        match self {
            Self::Fp8 => k,
            Self::Int4 => Self::GROUP,
        }
    }

    /// Inputs of a row have to be a multiple of this.
    pub fn multiple(self) -> usize {
        match self {
            Self::Fp8 => 16,
            Self::Int4 => Self::GROUP,
        }
    }

    /// Bytes of a row of `k` inputs.
    pub fn row_bytes(self, k: usize) -> usize {
        match self {
            Self::Fp8 => k,
            Self::Int4 => k / 2,
        }
    }

    /// Rounds rows of `k` values to the nearest that the format has, with the scale that just holds the largest.
    ///
    /// # Panics
    /// If k does not fit the format, or a value is not finite.
    pub fn pack(self, values: &[f32], k: usize) -> Packed {
        assert!(k > 0 && k.is_multiple_of(self.multiple()) && values.len().is_multiple_of(k), "{self:?}: rows of {k}");
        let mut packed = Packed { bytes: Vec::new(), scales: Vec::new() };
        for group in values.chunks(self.group(k)) {
            let most = group.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            assert!(most.is_finite(), "{self:?}: a weight is not finite");
            let limit = if self == Self::Fp8 { FP8_MAX } else { INT4_MAX };
            let scale = if most > 0.0 { most / limit } else { 1.0 };
            packed.scales.push(scale);
            match self {
                Self::Fp8 => packed.bytes.extend(group.iter().map(|v| to_fp8(v / scale))),
                Self::Int4 => {
                    let nibble = |v: f32| ((v / scale).round_ties_even() + 8.0) as u8;
                    packed.bytes.extend(group.as_chunks::<2>().0.iter().map(|&[a, b]| nibble(a) | nibble(b) << 4));
                }
            }
        }
        packed
    }
}

/// The nearest E4M3 number, ties to even; what is too large becomes the largest.
fn to_fp8(x: f32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    let x = x.abs().min(FP8_MAX);
    // Steps are 1/8 of the power of two below, and 2^-9 below the smallest normal number.
    let exponent = ((x.to_bits() >> 23) as i32 - 127).max(-6);
    let step = 2.0_f32.powi(exponent - 3);
    let steps = (x / step).round_ties_even() as u32;
    // Eight steps are one exponent: a carry moves on by itself.
    let code = ((exponent + 6) as u32 * 8 + steps) as u8;
    sign | code
}

#[cfg(test)]
mod tests {
    use super::reference::from_fp8;
    use super::{Format, to_fp8};

    #[test]
    fn every_fp8_number_is_its_own_nearest() {
        for code in (0..=255_u8).filter(|code| code & 0x7f != 0x7f) {
            assert_eq!(to_fp8(from_fp8(code)), code, "{}", from_fp8(code));
        }
        // Halfway between neighbours: the even one.
        for code in 0..0x7e_u8 {
            let half = (from_fp8(code) + from_fp8(code + 1)) / 2.0;
            assert_eq!(to_fp8(half), code + code % 2, "{half}");
        }
        assert_eq!((to_fp8(1e9), to_fp8(-1e9), from_fp8(0x7e)), (0x7e, 0xfe, 448.0));
    }

    #[test]
    fn packed_weights_are_near_what_they_were() {
        let values: Vec<f32> = (0..3 * 256).map(|i| (i as f32 * 0.7).sin() * (1 + i / 256) as f32).collect();
        for (format, relative) in [(Format::Fp8, 1.0 / 28.0), (Format::Int4, 0.5 / 7.0)] {
            let packed = format.pack(&values, 256);
            let back = super::reference::unpack(format, &packed.bytes, &packed.scales, 256);
            for (row, (back, values)) in back.chunks(256).zip(values.chunks(256)).enumerate() {
                for (b, v) in back.iter().zip(values) {
                    assert!((b - v).abs() <= relative * (1 + row) as f32, "{format:?}: {b} for {v}");
                }
            }
        }
    }
}
