//! Activations as signed bytes: each 32 of a row share one float scale, their largest magnitude over 127.

use crate::Pool;
use crate::pool::Shareable;

/// Activations that share a scale.
pub(super) const BLOCK: usize = 32;

/// Quantised rows, and the sums that weights with a minimum or an offset are multiplied by. Buffers are kept from call to
/// call.
#[derive(Default)]
pub(super) struct Activations {
    /// `[m, k]`, −127…127.
    pub(super) quants: Vec<i8>,
    /// `[m, k / 32]`: what a quant of the block is worth.
    pub(super) scales: Vec<f32>,
    /// `[m, k / 32]`: sum of the block's quants times its scale.
    pub(super) sums: Vec<f32>,
    /// `[m, k / 16]`: −32 times the sums of half a block's quants, those whose index modulo 4 is 0 or 1 and those where
    /// it is 2 or 3. It takes back the offset of six-bit weights.
    pub(super) offsets: Vec<[i16; 2]>,
}

impl Activations {
    /// Quantises `m` rows of `k` activations; `k` is a whole number of blocks. A NaN counts as 0.
    pub(super) fn quantise(&mut self, pool: &Pool, x: &[f32], m: usize, k: usize) {
        /// Activations quantised by one worker at once: about 10 µs of work.
        const GRAIN: usize = 16384;
        assert!(x.len() == m * k && k.is_multiple_of(BLOCK), "{m} rows of {k} in blocks of {BLOCK}");
        self.quants.resize(m * k, 0);
        self.scales.resize(m * k / BLOCK, 0.0);
        self.sums.resize(m * k / BLOCK, 0.0);
        self.offsets.resize(m * k / BLOCK * 2, [0; 2]);
        let (quants, scales) = (Shareable(self.quants.as_mut_ptr()), Shareable(self.scales.as_mut_ptr()));
        let (sums, offsets) = (Shareable(self.sums.as_mut_ptr()), Shareable(self.offsets.as_mut_ptr()));
        pool.for_each(m * k / BLOCK, GRAIN / BLOCK, &|range| {
            let (at, len) = (range.start, range.len());
            // SAFETY: the buffers have been sized for all blocks, and ranges are disjoint.
            let (quants, scales, sums, offsets) = unsafe {
                (
                    std::slice::from_raw_parts_mut(quants.get().add(at * BLOCK), len * BLOCK),
                    std::slice::from_raw_parts_mut(scales.get().add(at), len),
                    std::slice::from_raw_parts_mut(sums.get().add(at), len),
                    std::slice::from_raw_parts_mut(offsets.get().add(at * 2), len * 2),
                )
            };
            quantise(&x[at * BLOCK..(at + len) * BLOCK], quants, scales, sums, offsets);
        });
    }
}

fn quantise(x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [f32], offsets: &mut [[i16; 2]]) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2(x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [f32], offsets: &mut [[i16; 2]]) {
            blocks(x, quants, scales, sums, offsets);
        }
        if crate::dispatch::Backend::Avx2.available() {
            // SAFETY: just checked.
            return unsafe { avx2(x, quants, scales, sums, offsets) };
        }
    }
    blocks(x, quants, scales, sums, offsets);
}

/// The same operations in the same order whatever the instruction set, so the bytes are the same on every backend.
#[inline(always)]
fn blocks(x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [f32], offsets: &mut [[i16; 2]]) {
    let (x, _) = x.as_chunks::<BLOCK>();
    let (quants, _) = quants.as_chunks_mut::<BLOCK>();
    let (offsets, _) = offsets.as_chunks_mut::<2>();
    for ((((x, quants), scale), sum), offsets) in x.iter().zip(quants).zip(scales).zip(sums).zip(offsets) {
        let mut largest = [0.0_f32; 8];
        for i in 0..BLOCK {
            let magnitude = x[i].abs();
            largest[i % 8] = if magnitude > largest[i % 8] { magnitude } else { largest[i % 8] };
        }
        let largest = largest.iter().fold(0.0, |a, &b| if a > b { a } else { b });
        // Below this the reciprocal overflows, and nothing is lost.
        let inverse = if largest > 1e-30 { 127.0 / largest } else { 0.0 };
        *scale = if largest > 1e-30 { largest / 127.0 } else { 0.0 };
        let mut halves = [[0_i32; 4]; 2];
        for i in 0..BLOCK {
            let quant = (x[i] * inverse).round_ties_even() as i32;
            quants[i] = quant as i8;
            halves[i / 16][i % 4] += quant;
        }
        let total: i32 = halves.as_flattened().iter().sum();
        *sum = *scale * total as f32;
        *offsets = halves.map(|[a, b, c, d]| [(-32 * (a + b)) as i16, (-32 * (c + d)) as i16]);
    }
}
