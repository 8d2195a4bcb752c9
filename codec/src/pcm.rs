//! 16-bit samples and the `f32` inside.

use crate::Endian;

/// Full scale of a 16-bit sample.
const SCALE: f32 = 32768.0;

/// `i16` to [-1, 1).
pub(crate) fn from_i16(sample: i16) -> f32 {
    f32::from(sample) / SCALE
}

/// The nearest 16-bit sample, ties to even; beyond full scale saturates and NaN is 0.
pub(crate) fn to_i16(sample: f32) -> i16 {
    /// Adding this rounds to whole numbers, as none with a fraction are as large. `round_ties_even` does the same, but
    /// is a call a sample where the processor is not known to have an instruction for it.
    const WHOLE: f32 = 1.5 * (1 << 23) as f32;
    let sample = (sample * SCALE).clamp(f32::from(i16::MIN), f32::from(i16::MAX));
    (sample + WHOLE - WHOLE) as i16
}

/// What a foreign float may be inside: NaN and infinities are silence, the rest saturates.
pub(crate) fn tame(sample: f32) -> f32 {
    if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }
}

/// Bytes of 16-bit samples in any chunking. Keeps the odd byte between two pushes.
#[derive(Clone, Debug)]
pub(crate) struct Samples16 {
    endian: Endian,
    odd: Option<u8>,
}

impl Samples16 {
    pub(crate) fn new(endian: Endian) -> Self {
        Self { endian, odd: None }
    }

    /// Appends the samples that `bytes` complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<f32>) {
        let decode = match self.endian {
            Endian::Little => |pair: [u8; 2]| from_i16(i16::from_le_bytes(pair)),
            Endian::Big => |pair: [u8; 2]| from_i16(i16::from_be_bytes(pair)),
        };
        if let (Some(first), Some((&second, rest))) = (self.odd, bytes.split_first()) {
            out.push(decode([first, second]));
            self.odd = None;
            bytes = rest;
        }
        let (pairs, odd) = bytes.as_chunks::<2>();
        out.extend(pairs.iter().map(|&pair| decode(pair)));
        if let Some(&odd) = odd.first() {
            self.odd = Some(odd);
        }
    }

    /// Forgets the odd byte; true if there was one.
    pub(crate) fn reset(&mut self) -> bool {
        self.odd.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_and_saturates() {
        for value in i16::MIN..=i16::MAX {
            assert_eq!(to_i16(from_i16(value)), value);
        }
        let lsb = 1.0 / SCALE;
        let cases = [0.4, 0.5, 0.6, 1.5, 2.5, -0.4, -0.5, -0.6, -1.5, 32_766.5, 32_767.5, 40_000.0, -40_000.0];
        for sample in cases {
            let nearest = f64::from(sample as f32).round_ties_even().clamp(-32_768.0, 32_767.0);
            assert_eq!(f64::from(to_i16(sample as f32 * lsb)), nearest, "{sample}");
        }
        assert_eq!([f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(to_i16), [0, i16::MAX, i16::MIN]);
    }
}
