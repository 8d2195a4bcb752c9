//! Weights as files store them: GGML's block layouts, and what a block means in floats.
//!
//! A row is a whole number of blocks. `d` is a scale, `m` a minimum, `q` a quant; nibbles of a byte hold weights half a
//! block (or, in super-blocks, 32 weights) apart.

#![expect(clippy::needless_range_loop, reason = "layouts are stated by index")]

use half::f16;

use crate::KernelError;

/// Types of weights as they are stored in files (names and block layouts are GGML's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// IEEE half floats.
    F16,
    /// Blocks of 32: f16 scale, 32 signed bytes.
    Q8_0,
    /// Blocks of 32: f16 scale, 32 nibbles that mean −8…7.
    Q4_0,
    /// Blocks of 32: f16 scale, f16 minimum, 32 nibbles.
    Q4_1,
    /// Super-blocks of 256 with 8 six-bit scales and minima, 4.5 bits a weight.
    Q4K,
    /// Super-blocks of 256 with 16 eight-bit scales, 6.5625 bits a weight.
    Q6K,
}

impl WeightType {
    /// Every type.
    pub const ALL: [Self; 7] = [Self::F32, Self::F16, Self::Q8_0, Self::Q4_0, Self::Q4_1, Self::Q4K, Self::Q6K];

    /// Weights in a block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `k` weights.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] if `k` is not a whole number of blocks.
    pub fn row_bytes(self, k: usize) -> Result<usize, KernelError> {
        if !k.is_multiple_of(self.block_len()) {
            let block = self.block_len();
            return Err(KernelError::Unsupported(format!(
                "a row of {k} weights is not a whole number of {self:?} blocks of {block}"
            )));
        }
        Ok(k / self.block_len() * self.block_bytes())
    }

    /// Floats of a row stored in `bytes`.
    ///
    /// # Panics
    /// If the lengths do not fit each other.
    pub fn dequantise_row(self, bytes: &[u8], out: &mut [f32]) {
        let (len, size) = (self.block_len(), self.block_bytes());
        assert_eq!(bytes.len() * len, out.len() * size, "a row of {self:?} does not fit its floats");
        for (block, out) in bytes.chunks_exact(size).zip(out.chunks_exact_mut(len)) {
            match self {
                Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                Self::F16 => out[0] = half_at(block, 0),
                Self::Q8_0 => {
                    let d = half_at(block, 0);
                    (0..32).for_each(|i| out[i] = d * f32::from(block[2 + i] as i8));
                }
                Self::Q4_0 => {
                    let d = half_at(block, 0);
                    let q = nibbles(&block[2..]);
                    (0..32).for_each(|i| out[i] = d * (f32::from(q[i]) - 8.0));
                }
                Self::Q4_1 => {
                    let (d, m) = (half_at(block, 0), half_at(block, 2));
                    let q = nibbles(&block[4..]);
                    (0..32).for_each(|i| out[i] = d * f32::from(q[i]) + m);
                }
                Self::Q4K => {
                    let q = Q4K::read(block);
                    for i in 0..256 {
                        out[i] = q.d * f32::from(q.scales[i / 32]) * f32::from(q.quants[i])
                            - q.dmin * f32::from(q.mins[i / 32]);
                    }
                }
                Self::Q6K => {
                    let q = Q6K::read(block);
                    for i in 0..256 {
                        out[i] = q.d * f32::from(q.scales[i / 16]) * (f32::from(q.quants[i]) - 32.0);
                    }
                }
            }
        }
    }
}

/// The half float at byte `at`.
pub(super) fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// The 32 nibbles of 16 bytes: low ones first.
pub(super) fn nibbles(bytes: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

/// A super-block of Q4_K: weight `i` is `d · scales[i / 32] · quants[i] − dmin · mins[i / 32]`.
pub(super) struct Q4K {
    pub(super) d: f32,
    pub(super) dmin: f32,
    /// Six bits each.
    pub(super) scales: [u8; 8],
    /// Six bits each.
    pub(super) mins: [u8; 8],
    /// Four bits each.
    pub(super) quants: [u8; 256],
}

impl Q4K {
    pub(super) fn read(block: &[u8]) -> Self {
        let ((scales, mins), q) = (six_bit_scales(&block[4..16]), &block[16..144]);
        // Each 32 bytes hold 64 weights: 32 in the low nibbles, the next 32 in the high ones.
        let quants = std::array::from_fn(|i| {
            let byte = q[i / 64 * 32 + i % 32];
            if i % 64 < 32 { byte & 15 } else { byte >> 4 }
        });
        Self { d: half_at(block, 0), dmin: half_at(block, 2), scales, mins, quants }
    }
}

/// Eight scales and eight minima of six bits from the twelve bytes of a Q4_K block: 0–3 are the low six bits of bytes 0–3
/// and 4–7, whose upper two bits belong to 4–7; the nibbles of bytes 8–11 are the rest of those.
pub(super) fn six_bit_scales(packed: &[u8]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for i in 0..4 {
        scales[i] = packed[i] & 63;
        mins[i] = packed[i + 4] & 63;
        scales[i + 4] = packed[i + 8] & 15 | packed[i] >> 6 << 4;
        mins[i + 4] = packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4;
    }
    (scales, mins)
}

/// The inverse of [`six_bit_scales`].
pub(super) fn pack_six_bit_scales(scales: [u8; 8], mins: [u8; 8]) -> [u8; 12] {
    std::array::from_fn(|i| match i {
        0..4 => scales[i] | scales[i + 4] >> 4 << 6,
        4..8 => mins[i - 4] | mins[i] >> 4 << 6,
        _ => scales[i - 4] & 15 | mins[i - 4] << 4,
    })
}

/// A super-block of Q6_K: weight `i` is `d · scales[i / 16] · (quants[i] − 32)`.
pub(super) struct Q6K {
    pub(super) d: f32,
    pub(super) scales: [i8; 16],
    /// Six bits each.
    pub(super) quants: [u8; 256],
}

impl Q6K {
    pub(super) fn read(block: &[u8]) -> Self {
        // Each half of 128 weights has 64 bytes of low nibbles (weights 0–63 low, 64–127 high) and 32 bytes of upper bit
        // pairs (weights 32 apart, from the lowest pair up).
        let (low, _) = block[..128].as_chunks::<64>();
        let (high, _) = block[128..192].as_chunks::<32>();
        let mut quants = [0; 256];
        let (halves, _) = quants.as_chunks_mut::<128>();
        for ((quants, low), high) in halves.iter_mut().zip(low).zip(high) {
            for i in 0..32 {
                quants[i] = low[i] & 15 | (high[i] & 3) << 4;
                quants[32 + i] = low[32 + i] & 15 | (high[i] >> 2 & 3) << 4;
                quants[64 + i] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
                quants[96 + i] = low[32 + i] >> 4 | high[i] >> 6 << 4;
            }
        }
        Self { d: half_at(block, 208), scales: std::array::from_fn(|i| block[192 + i] as i8), quants }
    }
}

/// The 256 six-bit quants as 192 bytes: three bytes for the weights `i`, `i + 32`, `i + 64` and `i + 96` of a half, each
/// with one of the first three in its lower bits and two bits of the fourth on top. They come in groups of four `i`: four
/// first bytes, four second, four third.
pub(super) fn sextets(quants: &[u8; 256]) -> [u8; 192] {
    let mut packed = [0; 192];
    let (halves, _) = packed.as_chunks_mut::<96>();
    for (packed, quants) in halves.iter_mut().zip(quants.as_chunks::<128>().0) {
        let mut bytes = [[0; 32]; 3];
        for i in 0..32 {
            bytes[0][i] = quants[i] | quants[96 + i] << 6;
            bytes[1][i] = quants[32 + i] | quants[96 + i] >> 2 << 6;
            bytes[2][i] = quants[64 + i] | quants[96 + i] >> 4 << 6;
        }
        for (group, packed) in packed.chunks_exact_mut(12).enumerate() {
            for (packed, bytes) in packed.chunks_exact_mut(4).zip(&bytes) {
                packed.copy_from_slice(&bytes[4 * group..4 * group + 4]);
            }
        }
    }
    packed
}

/// The inverse of [`sextets`].
pub(super) fn from_sextets(packed: &[u8; 192]) -> [u8; 256] {
    std::array::from_fn(|index| {
        let (half, block, i) = (index / 128, index % 128 / 32, index % 32);
        let byte = |which: usize| packed[half * 96 + i / 4 * 12 + which * 4 + i % 4];
        if block < 3 {
            byte(block) & 63
        } else {
            (0..3).fold(0, |quant, which| quant | byte(which) >> 6 << (2 * which))
        }
    })
}

/// Writes quants into the first 192 bytes of a Q6_K block: the inverse of what [`Q6K::read`] does with them.
pub(super) fn write_six_bit_quants(quants: &[u8; 256], block: &mut [u8]) {
    block.fill(0);
    for (i, quant) in quants.iter().enumerate() {
        let (half, j) = (i / 128, i % 128);
        block[half * 64 + j % 64] |= (quant & 15) << (j / 64 * 4);
        block[128 + half * 32 + j % 32] |= quant >> 4 << (j / 32 * 2);
    }
}
