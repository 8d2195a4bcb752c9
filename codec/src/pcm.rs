//! 16-bit samples and the `f32` inside.

use crate::Endian;

/// Full scale of a 16-bit sample.
const SCALE: f32 = 32768.0;

/// `i16` to [-1, 1).
pub(crate) fn from_i16(sample: i16) -> f32 {
    f32::from(sample) / SCALE
}

/// The nearest 16-bit sample; beyond full scale saturates and NaN is 0.
pub(crate) fn to_i16(sample: f32) -> i16 {
    (sample * SCALE).round_ties_even() as i16
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
