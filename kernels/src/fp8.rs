//! Eight-bit floats: sign, four bits of exponent, three of mantissa, no infinities (E4M3 of arXiv 2209.05433).

/// An eight-bit float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct F8(pub u8);

/// The largest.
pub const MAX: f32 = 448.0;
/// The smallest with all digits.
const SMALLEST_NORMAL: f32 = 0.015_625;

/// What all of them mean.
static VALUES: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut bits = 0;
    while bits < 256 {
        values[bits] = value(bits as u8);
        bits += 1;
    }
    values
};

const fn value(bits: u8) -> f32 {
    let (exponent, mantissa) = ((bits >> 3 & 15) as i32, (bits & 7) as f32);
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 512.0,
        // 2^(exponent − 7), as bits.
        _ => f32::from_bits(((exponent - 7 + 127) as u32) << 23) * (1.0 + mantissa / 8.0),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

impl F8 {
    /// The nearest, ties to the even one; [`MAX`] for what is larger.
    #[inline]
    pub fn from_f32(x: f32) -> Self {
        let sign = (x.to_bits() >> 24) as u8 & 0x80;
        if x.is_nan() {
            return Self(sign | 0x7f);
        }
        let a = x.abs().min(MAX);
        if a < SMALLEST_NORMAL {
            // Eight of these are the smallest normal one, and are written so.
            return Self(sign | (a * 512.0).round_ties_even() as u8);
        }
        let bits = a.to_bits();
        let rounded = bits + 0x7_ffff + (bits >> 20 & 1);
        Self(sign | ((rounded >> 20) - ((127 - 7) << 3)) as u8)
    }

    /// The value.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        VALUES[self.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_becomes_the_nearest() {
        let all: Vec<f32> = (0..=255).map(|bits| F8(bits).to_f32()).filter(|v| !v.is_nan()).collect();
        assert_eq!(all.len(), 254);
        assert_eq!(all.iter().copied().fold(0.0, f32::max), MAX);
        for bits in (0..=255).filter(|bits| bits & 0x7f != 0x7f) {
            assert_eq!(F8::from_f32(F8(bits).to_f32()), F8(bits), "{bits:#x}");
        }
        let nearest = |x: f32| all.iter().map(|v| (v - x).abs()).fold(f32::INFINITY, f32::min);
        for i in 0..200_000 {
            let x = (i as f32 * 0.61).sin() * 10.0_f32.powf((i % 700) as f32 / 100.0 - 4.0);
            let x = x.clamp(-MAX, MAX);
            assert_eq!((F8::from_f32(x).to_f32() - x).abs(), nearest(x), "{x}");
        }
        assert_eq!(F8::from_f32(1e9).to_f32(), MAX);
        assert_eq!(F8::from_f32(f32::NEG_INFINITY).to_f32(), -MAX);
        assert!(F8::from_f32(f32::NAN).to_f32().is_nan());
        // Between 16 and 18 lies 17: the even one of the two is 16. Between 18 and 20, 20.
        assert_eq!([17.0, 19.0].map(|x| F8::from_f32(x).to_f32()), [16.0, 20.0]);
    }
}
