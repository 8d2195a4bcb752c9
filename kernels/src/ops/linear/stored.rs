//! Weights as files store them that no kernel reads: converted once, when they are loaded.
//!
//! Block layouts are GGML's; names as in [`super::format`]. Quants of at most five bits become [`WeightType::Q8_0`],
//! whose eight bits a block of 32 hold them with an error of 1/254 of the block's largest weight; bf16 becomes
//! [`WeightType::F16`], which has more digits and less range.

use half::{bf16, f16};

use super::WeightType;
use super::format::{half_at, nibbles, six_bit_scales};
use crate::KernelError;

/// A type of weights that files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// One that kernels read as it is.
    Kernel(WeightType),
    /// The upper half of 32-bit floats.
    Bf16,
    /// Blocks of 32: f16 scale, a fifth bit for each, 32 nibbles; −16…15.
    Q5_0,
    /// Blocks of 32: f16 scale, f16 minimum, a fifth bit for each, 32 nibbles.
    Q5_1,
    /// Super-blocks of 256 with 16 four-bit scales and minima, 2.625 bits a weight.
    Q2K,
    /// Super-blocks of 256 with 16 six-bit scales, 3.4375 bits a weight.
    Q3K,
    /// Super-blocks of 256 with 8 six-bit scales and minima, 5.5 bits a weight.
    Q5K,
}

impl StoredType {
    /// The type that a number of the GGUF specification's `ggml_type` stands for.
    pub fn from_ggml(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::Kernel(WeightType::F32),
            1 => Self::Kernel(WeightType::F16),
            2 => Self::Kernel(WeightType::Q4_0),
            3 => Self::Kernel(WeightType::Q4_1),
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Kernel(WeightType::Q8_0),
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Kernel(WeightType::Q4K),
            13 => Self::Q5K,
            14 => Self::Kernel(WeightType::Q6K),
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// The type that it is computed in.
    pub fn kernel_type(self) -> WeightType {
        match self {
            Self::Kernel(kind) => kind,
            Self::Bf16 => WeightType::F16,
            Self::Q5_0 | Self::Q5_1 | Self::Q2K | Self::Q3K | Self::Q5K => WeightType::Q8_0,
        }
    }

    /// Weights in a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::Kernel(kind) => kind.block_len(),
            Self::Bf16 => 1,
            Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q2K | Self::Q3K | Self::Q5K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Kernel(kind) => kind.block_bytes(),
            Self::Bf16 => 2,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q5K => 176,
        }
    }

    /// Bytes of a row of `k` weights.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] if `k` is not a whole number of blocks.
    pub fn row_bytes(self, k: usize) -> Result<usize, KernelError> {
        if !k.is_multiple_of(self.block_len()) {
            let block = self.block_len();
            let message = format!("a row of {k} weights is not a whole number of {self:?} blocks of {block}");
            return Err(KernelError::Unsupported(message));
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
            self.dequantise_block(block, out);
        }
    }

    fn dequantise_block(self, block: &[u8], out: &mut [f32]) {
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (i % 8) & 1;
        match self {
            Self::Kernel(kind) => kind.dequantise_row(block, out),
            Self::Bf16 => fill(out, |_| bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            Self::Q5_0 => {
                let (d, high, low) = (half_at(block, 0), &block[2..6], nibbles(&block[6..]));
                fill(out, |i| d * (f32::from(low[i] | bit(high, i) << 4) - 16.0))
            }
            Self::Q5_1 => {
                let (d, m, high, low) = (half_at(block, 0), half_at(block, 2), &block[4..8], nibbles(&block[8..]));
                fill(out, |i| d * f32::from(low[i] | bit(high, i) << 4) + m)
            }
            Self::Q2K => {
                let (scales, quants) = (&block[..16], &block[16..80]);
                let (d, dmin) = (half_at(block, 80), half_at(block, 82));
                fill(out, |i| {
                    let scale = scales[i / 16];
                    d * f32::from(scale & 15) * f32::from(pair(quants, i)) - dmin * f32::from(scale >> 4)
                })
            }
            Self::Q3K => {
                let (high, quants, packed, d) = (&block[..32], &block[32..96], &block[96..108], half_at(block, 108));
                fill(out, |i| {
                    let s = i / 16;
                    let low = if s < 8 { packed[s] & 15 } else { packed[s - 8] >> 4 };
                    let scale = i32::from(low | (packed[8 + s % 4] >> (2 * (s / 4)) & 3) << 4) - 32;
                    // The third bit is stored inverted: where it is missing, four is taken away.
                    let missing = 1 - i32::from(high[i % 32] >> (i / 32) & 1);
                    d * scale as f32 * (i32::from(pair(quants, i)) - 4 * missing) as f32
                })
            }
            Self::Q5K => {
                let (d, dmin) = (half_at(block, 0), half_at(block, 2));
                let ((scales, mins), high, low) = (six_bit_scales(&block[4..16]), &block[16..48], &block[48..176]);
                fill(out, |i| {
                    let byte = low[i / 64 * 32 + i % 32];
                    let nibble = if i % 64 < 32 { byte & 15 } else { byte >> 4 };
                    let quant = nibble | (high[i % 32] >> (i / 32) & 1) << 4;
                    d * f32::from(scales[i / 32]) * f32::from(quant) - dmin * f32::from(mins[i / 32])
                })
            }
        }
    }

    /// Rows of `k` weights as [`StoredType::kernel_type`] stores them.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] if `k` is no whole number of blocks of either type, [`KernelError::Malformed`] if
    /// `bytes` are no whole number of rows.
    pub fn convert(self, k: usize, bytes: &[u8]) -> Result<Vec<u8>, KernelError> {
        let (size, kind) = (self.row_bytes(k)?, self.kernel_type());
        if size == 0 || !bytes.len().is_multiple_of(size) {
            return Err(KernelError::Malformed(format!("{} bytes are no rows of {k} {self:?} weights", bytes.len())));
        }
        let mut converted = Vec::with_capacity(bytes.len() / size * kind.row_bytes(k)?);
        let mut row = vec![0.0; k];
        for stored in bytes.chunks_exact(size) {
            self.dequantise_row(stored, &mut row);
            match kind {
                WeightType::F16 => converted.extend(row.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
                _ => quantise_q8_0(&row, &mut converted),
            }
        }
        Ok(converted)
    }
}

/// Every weight of a block by its index.
#[inline]
fn fill(out: &mut [f32], weight: impl Fn(usize) -> f32) {
    out.iter_mut().enumerate().for_each(|(i, out)| *out = weight(i));
}

/// The two bits of weight `i` of a super-block: each half of 128 weights has 32 bytes, with weights 32 apart in a byte.
fn pair(quants: &[u8], i: usize) -> u8 {
    quants[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3
}

/// Appends `values` as blocks of [`WeightType::Q8_0`].
///
/// # Panics
/// If they are not a whole number of blocks.
pub fn quantise_q8_0(values: &[f32], out: &mut Vec<u8>) {
    let (blocks, rest) = values.as_chunks::<32>();
    assert!(rest.is_empty(), "{} weights are not a whole number of blocks of 32", values.len());
    for block in blocks {
        let largest = block.iter().fold(0.0_f32, |max, v| if v.abs() > max { v.abs() } else { max });
        let scale = f16::from_f32(largest / 127.0);
        let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
        out.extend(scale.to_le_bytes());
        out.extend(block.iter().map(|v| {
            // The scale was rounded, so the largest may be a little more than 127; adding a half rounds when cut off.
            let scaled = (v * inverse).clamp(-127.0, 127.0);
            (scaled + 0.5_f32.copysign(scaled)) as i8 as u8
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `tests/golden/lm/blocks.json`: a row of every type and its floats by an independent implementation.
    #[derive(serde::Deserialize)]
    struct Golden {
        ggml_type: u32,
        k: usize,
        bytes: Vec<u8>,
        floats: Vec<f32>,
    }

    #[test]
    fn rows_mean_what_the_format_says() {
        let golden: Vec<Golden> =
            serde_json::from_str(include_str!("../../../../tests/golden/lm/blocks.json")).unwrap();
        assert_eq!(golden.len(), 13);
        for Golden { ggml_type, k, bytes, floats } in golden {
            let stored = StoredType::from_ggml(ggml_type).unwrap();
            let mut row = vec![f32::NAN; k];
            stored.dequantise_row(&bytes, &mut row);
            for (i, (got, want)) in row.iter().zip(&floats).enumerate() {
                assert!((got - want).abs() <= 1e-6 * want.abs().max(1.0), "{stored:?} {i}: {got}, not {want}");
            }
            // What kernels read is near it.
            let converted = match stored {
                StoredType::Kernel(_) => bytes,
                _ => stored.convert(k, &bytes).unwrap(),
            };
            let mut again = vec![f32::NAN; k];
            stored.kernel_type().dequantise_row(&converted, &mut again);
            for (i, (got, want)) in again.iter().zip(&row).enumerate() {
                let block = &row[i / 32 * 32..(i / 32 * 32 + 32).min(k)];
                let largest = block.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
                assert!((got - want).abs() <= largest / 250.0, "{stored:?} {i}: {got}, not {want}");
            }
        }
    }

    #[test]
    fn rows_that_are_none_are_refused() {
        assert_eq!(StoredType::from_ggml(16), None);
        let error = |stored: StoredType, k, len| stored.convert(k, &vec![0; len]).unwrap_err().to_string();
        assert_eq!(error(StoredType::Q5K, 128, 88), "a row of 128 weights is not a whole number of Q5K blocks of 256");
        assert_eq!(error(StoredType::Q5K, 256, 175), "175 bytes are no rows of 256 Q5K weights");
    }

    #[test]
    fn nothing_and_odd_values_are_quantised_to_something() {
        let mut bytes = Vec::new();
        let mut values = [0.0; 64];
        values[32] = 1.0;
        values[33] = f32::NAN;
        quantise_q8_0(&values, &mut bytes);
        let mut back = [f32::NAN; 64];
        WeightType::Q8_0.dequantise_row(&bytes, &mut back);
        assert_eq!(back[..32], [0.0; 32]);
        assert!((back[32] - 1.0).abs() < 1e-3 && back[33] == 0.0);
    }
}
