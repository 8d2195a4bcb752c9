//! Weights that were converted from floats to fewer bits when they were loaded: bfloat16, eight-bit floats with a scale
//! for each output, four-bit integers with a scale for each 128 inputs.
//!
//! Rows lie one after another as they are. The kernel widens a panel of rows to floats and multiplies it as it does float
//! weights, so the error is that of the conversion and nothing else.

use half::bf16;

use crate::KernelError;
use crate::Pool;
use crate::fp8::{self, F8};
use crate::pool::Shareable;

/// What weights are narrowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NarrowType {
    /// The upper half of 32-bit floats, rounded: an error of at most 2⁻⁸ of the weight.
    Bf16,
    /// Eight-bit floats, the largest of a row being the largest there is: an error of at most 2⁻⁴ of the weight, or 2⁻¹⁰ ·
    /// scale for small ones.
    Fp8,
    /// −7…7 times a scale that 128 weights of a row share: an error of at most half the scale (1/14 of their largest), and
    /// a little for the rounding of the scale itself.
    Int4,
}

/// Weights that share a scale in [`NarrowType::Int4`].
pub const INT4_GROUP: usize = 128;

impl NarrowType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::Fp8, Self::Int4];

    /// Bytes of a matrix of `n` rows of `k` weights, scales included.
    pub const fn bytes(self, n: u64, k: u64) -> u64 {
        match self {
            Self::Bf16 => 2 * n * k,
            Self::Fp8 => n * k + 4 * n,
            Self::Int4 => n * k.div_ceil(2) + 2 * n * k.div_ceil(INT4_GROUP as u64),
        }
    }
}

/// A matrix `[n, k]` of few bits.
pub(super) struct Narrow {
    pub(super) kind: NarrowType,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Rows one after another.
    values: Vec<u8>,
    /// Of rows (f32), or of the groups of rows (the bits of bf16, which a row's groups have one after another).
    row_scales: Vec<f32>,
    group_scales: Vec<bf16>,
}

impl Narrow {
    pub(super) fn new(pool: &Pool, kind: NarrowType, n: usize, k: usize, weights: &[f32]) -> Result<Self, KernelError> {
        if n == 0 || k == 0 || n.checked_mul(k) != Some(weights.len()) {
            return Err(KernelError::Malformed(format!("{} weights are not {n} × {k}", weights.len())));
        }
        let (row, groups) = match kind {
            NarrowType::Bf16 => (2 * k, 0),
            NarrowType::Fp8 => (k, 0),
            NarrowType::Int4 => (k.div_ceil(2), k.div_ceil(INT4_GROUP)),
        };
        let scales = if kind == NarrowType::Fp8 { n } else { 0 };
        let mut narrow = Self {
            kind,
            n,
            k,
            values: vec![0; n * row],
            row_scales: vec![1.0; scales],
            group_scales: vec![bf16::ONE; n * groups],
        };
        let (values, row_scales, group_scales) = (
            Shareable(narrow.values.as_mut_ptr()),
            Shareable(narrow.row_scales.as_mut_ptr()),
            Shareable(narrow.group_scales.as_mut_ptr()),
        );
        pool.for_each(n, (1 << 16) / k + 1, &|rows| {
            for index in rows {
                let from = &weights[index * k..][..k];
                // SAFETY: every row is handed out once, its values and scales are its own, and the vectors are borrowed
                // for the whole loop.
                let (to, groups) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(values.get().add(index * row), row),
                        std::slice::from_raw_parts_mut(group_scales.get().add(index * groups), groups),
                    )
                };
                match kind {
                    NarrowType::Bf16 => {
                        for (to, from) in to.as_chunks_mut::<2>().0.iter_mut().zip(from) {
                            *to = bf16::from_f32(*from).to_le_bytes();
                        }
                    }
                    NarrowType::Fp8 => {
                        let scale = scale_of(largest(from), fp8::MAX);
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = F8::from_f32(from / scale).0);
                        // SAFETY: as above.
                        unsafe { *row_scales.get().add(index) = scale };
                    }
                    NarrowType::Int4 => int4(from, to, groups),
                }
            }
        });
        Ok(narrow)
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.values.len() + size_of_val(&self.row_scales[..]) + size_of_val(&self.group_scales[..])
    }

    /// Calls `put(column, value)` for every weight of a row.
    #[inline(always)]
    pub(super) fn row(&self, index: usize, mut put: impl FnMut(usize, f32)) {
        let k = self.k;
        match self.kind {
            NarrowType::Bf16 => {
                let values = &self.values[2 * index * k..][..2 * k];
                for (c, value) in values.as_chunks::<2>().0.iter().enumerate() {
                    put(c, f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16));
                }
            }
            NarrowType::Fp8 => {
                let (values, scale) = (&self.values[index * k..][..k], self.row_scales[index]);
                values.iter().enumerate().for_each(|(c, value)| put(c, F8(*value).to_f32() * scale));
            }
            NarrowType::Int4 => {
                let (bytes, groups) = (k.div_ceil(2), k.div_ceil(INT4_GROUP));
                let values = &self.values[index * bytes..][..bytes];
                let scales = &self.group_scales[index * groups..][..groups];
                for (group, (values, scale)) in values.chunks(INT4_GROUP / 2).zip(scales).enumerate() {
                    let scale = scale.to_f32();
                    for (i, byte) in values.iter().enumerate() {
                        let c = group * INT4_GROUP + 2 * i;
                        put(c, (f32::from(byte & 15) - 8.0) * scale);
                        if c + 1 < k {
                            put(c + 1, (f32::from(byte >> 4) - 8.0) * scale);
                        }
                    }
                }
            }
        }
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, value| most.max(value.abs()))
}

/// What makes `most` of the largest; anything for a row of zeros.
fn scale_of(largest: f32, most: f32) -> f32 {
    if largest > 0.0 { (largest / most).max(f32::MIN_POSITIVE) } else { 1.0 }
}

/// Two to a byte, the first in the low half, eight added.
fn int4(from: &[f32], to: &mut [u8], scales: &mut [bf16]) {
    let groups = from.chunks(INT4_GROUP).zip(to.chunks_mut(INT4_GROUP / 2));
    for ((from, to), scale) in groups.zip(scales) {
        *scale = bf16::from_f32(scale_of(largest(from), 7.0));
        let wide = scale.to_f32().max(f32::MIN_POSITIVE);
        let nibble = |value: f32| ((value / wide).round_ties_even().clamp(-7.0, 7.0) + 8.0) as u8;
        for (pair, to) in from.chunks(2).zip(to) {
            *to = nibble(pair[0]) | pair.get(1).map_or(8, |value| nibble(*value)) << 4;
        }
    }
}
