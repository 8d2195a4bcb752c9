//! The kernels: one tile of weights times one to four rows of quantised activations, written over [`Lanes`].
//!
//! The sums of an output are formed in the same order whatever the number of rows computed together: blocks along `k` in
//! turn, one float accumulator.

#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use super::activations::{Activations, BLOCK};
use super::lanes::Lanes;

/// Rows of activations that share one pass over a tile: as many as the accumulators leave registers for.
pub(super) const GROUP: usize = 4;

/// How far ahead of the kernel weights are fetched: a page. Of 0, 1, 2 and 4 KiB it was the fastest for Q4_K and Q6_K on an
/// EPYC of the first generation, by a quarter over none.
const AHEAD: usize = 4096;

/// `M` rows of activations, from the first.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) k: usize,
    quants: *const i8,
    scales: *const f32,
    sums: *const f32,
    offsets: *const [i16; 2],
}

impl Rows {
    /// Rows of `x` from `first` on; `m` rows must exist from there.
    pub(super) fn of(x: &Activations, k: usize, first: usize, m: usize) -> Self {
        let blocks = k / BLOCK;
        Self {
            k,
            quants: x.quants[first * k..(first + m) * k].as_ptr(),
            scales: x.scales[first * blocks..(first + m) * blocks].as_ptr(),
            sums: x.sums[first * blocks..(first + m) * blocks].as_ptr(),
            offsets: x.offsets[first * blocks * 2..(first + m) * blocks * 2].as_ptr(),
        }
    }

    /// Quants of `row` from block `block` on.
    #[inline(always)]
    unsafe fn quants(&self, row: usize, block: usize) -> *const i8 {
        // SAFETY: the caller names a row and a block that exist, here and below.
        unsafe { self.quants.add(row * self.k + block * BLOCK) }
    }

    #[inline(always)]
    unsafe fn scale(&self, row: usize, block: usize) -> f32 {
        // SAFETY: see `quants`.
        unsafe { *self.scales.add(row * (self.k / BLOCK) + block) }
    }

    #[inline(always)]
    unsafe fn sum(&self, row: usize, block: usize) -> f32 {
        // SAFETY: see `quants`.
        unsafe { *self.sums.add(row * (self.k / BLOCK) + block) }
    }

    /// Offsets of the block's two halves.
    #[inline(always)]
    unsafe fn offsets(&self, row: usize, block: usize) -> *const [i16; 2] {
        // SAFETY: see `quants`.
        unsafe { self.offsets.add((row * (self.k / BLOCK) + block) * 2) }
    }
}

/// Bytes at `at`, and a hint for those [`AHEAD`] of them: tiles are read from end to end, and the processor's own prefetcher
/// stops at the end of a page.
#[inline(always)]
unsafe fn fetch<L: Lanes, const M: usize>(at: *const u8) -> L::Bytes {
    // With more rows the kernel is slower than memory.
    if M == 1 {
        L::prefetch(at.wrapping_add(AHEAD));
    }
    // SAFETY: the caller's promise.
    unsafe { L::bytes(at) }
}

/// A type of weights: how a tile is multiplied.
pub(super) trait Kernel {
    /// Products of the `L::ROWS` rows of `tile` with `M` rows of activations.
    ///
    /// # Safety
    /// The processor has the instructions of `L`; `tile` was packed for it, `x.k` wide; `x` has `M` rows.
    unsafe fn run<L: Lanes, const M: usize>(tile: *const u8, x: Rows) -> [L::Floats; M];
}

/// `d · scale · quant − dmin · min`, scales and minima of 32 weights.
pub(super) struct Q4K;

impl Kernel for Q4K {
    #[inline(always)]
    unsafe fn run<L: Lanes, const M: usize>(tile: *const u8, x: Rows) -> [L::Floats; M] {
        // SAFETY: offsets are those of `pack::Layout`; the rest is the caller's promise.
        unsafe {
            let mut total = [L::splat(0.0); M];
            for super_block in 0..x.k / 256 {
                let at = tile.add(super_block * 148 * L::ROWS);
                let (d, dmin) = (L::halves(at), L::halves(at.add(2 * L::ROWS)));
                let (scales, mins) = (at.add(4 * L::ROWS), at.add(12 * L::ROWS));
                let mut product = [L::splat(0.0); M];
                for pair in 0..4 {
                    let block = super_block * 8 + 2 * pair;
                    let quants = at.add((20 + 32 * pair) * L::ROWS);
                    let mut low = [L::zero_sums(); M];
                    let mut high = [L::zero_sums(); M];
                    for group in 0..8 {
                        let bytes = fetch::<L, M>(quants.add(4 * group * L::ROWS));
                        let weights = (L::low(bytes), L::high(bytes));
                        for row in 0..M {
                            let x = x.quants(row, block).add(4 * group);
                            low[row] = L::dot(low[row], weights.0, x);
                            high[row] = L::dot(high[row], weights.1, x.add(BLOCK));
                        }
                    }
                    for (half, sums) in [low, high].into_iter().enumerate() {
                        let index = 2 * pair + half;
                        let scale = L::scales_u8(scales.add(index * L::ROWS));
                        let min = L::mul(dmin, L::floats_u8(mins.add(index * L::ROWS)));
                        for row in 0..M {
                            let dot = L::floats(L::scale(sums[row], scale));
                            product[row] = L::mul_add(dot, L::splat(x.scale(row, block + half)), product[row]);
                            total[row] = L::mul_sub(min, L::splat(x.sum(row, block + half)), total[row]);
                        }
                    }
                }
                for row in 0..M {
                    total[row] = L::mul_add(d, product[row], total[row]);
                }
            }
            total
        }
    }
}

/// `d · scale · (quant − 32)`, scales of 16 weights.
pub(super) struct Q6K;

impl Kernel for Q6K {
    #[inline(always)]
    unsafe fn run<L: Lanes, const M: usize>(tile: *const u8, x: Rows) -> [L::Floats; M] {
        // SAFETY: offsets are those of `pack::Layout`; the rest is the caller's promise.
        unsafe {
            let mut total = [L::splat(0.0); M];
            for super_block in 0..x.k / 256 {
                let at = tile.add(super_block * 212 * L::ROWS);
                let mut product = [L::splat(0.0); M];
                for half in 0..2 {
                    let block = super_block * 8 + 4 * half;
                    let scales = at.add((4 + 8 * half) * L::ROWS);
                    let quants = at.add((20 + 96 * half) * L::ROWS);
                    // As many blocks at once as there are registers for their sums.
                    if M == 1 {
                        q6k_blocks::<L, M, 0, 4>(quants, scales, x, block, &mut product);
                    } else {
                        q6k_blocks::<L, M, 0, 2>(quants, scales, x, block, &mut product);
                        q6k_blocks::<L, M, 2, 2>(quants, scales, x, block, &mut product);
                    }
                }
                let d = L::halves(at);
                for row in 0..M {
                    total[row] = L::mul_add(d, product[row], total[row]);
                }
            }
            total
        }
    }
}

/// Adds `COUNT` of four blocks, those from `FIRST` on, to `product`. The four are in three registers of bytes a group: the
/// lower six bits are blocks 0 to 2, the upper two of each are block 3.
#[inline(always)]
unsafe fn q6k_blocks<L: Lanes, const M: usize, const FIRST: usize, const COUNT: usize>(
    quants: *const u8,
    scales: *const u8,
    x: Rows,
    block: usize,
    product: &mut [L::Floats; M],
) {
    // SAFETY: as in `Q6K::run`, the only caller.
    unsafe {
        let mut ints = [[L::zero_ints(); COUNT]; M];
        for half in 0..2 {
            let mut sums = [[L::zero_sums(); COUNT]; M];
            for row in 0..M {
                for b in 0..COUNT {
                    sums[row][b] = L::start_sums(x.offsets(row, block + FIRST + b).add(half));
                }
            }
            for group in 4 * half..4 * half + 4 {
                let at = quants.add(12 * group * L::ROWS);
                let bytes = [fetch::<L, M>(at), fetch::<L, M>(at.add(4 * L::ROWS)), fetch::<L, M>(at.add(8 * L::ROWS))];
                for b in 0..COUNT {
                    let weights = match FIRST + b {
                        3 => L::upper_two(bytes),
                        index => L::lower_six(bytes[index]),
                    };
                    for row in 0..M {
                        let x = x.quants(row, block + FIRST + b).add(4 * group);
                        sums[row][b] = L::dot(sums[row][b], weights, x);
                    }
                }
            }
            for b in 0..COUNT {
                let scale = L::scales_i8(scales.add((2 * (FIRST + b) + half) * L::ROWS));
                for row in 0..M {
                    ints[row][b] = L::add_ints(ints[row][b], L::scale(sums[row][b], scale));
                }
            }
        }
        for row in 0..M {
            for b in 0..COUNT {
                let scale = L::splat(x.scale(row, block + FIRST + b));
                product[row] = L::mul_add(L::floats(ints[row][b]), scale, product[row]);
            }
        }
    }
}

/// `d · quant + m`, d and m of 32 weights. Q4_0 is packed like this too.
pub(super) struct Q4_1;

impl Kernel for Q4_1 {
    #[inline(always)]
    unsafe fn run<L: Lanes, const M: usize>(tile: *const u8, x: Rows) -> [L::Floats; M] {
        // SAFETY: offsets are those of `pack::Layout`; the rest is the caller's promise.
        unsafe {
            let mut total = [L::splat(0.0); M];
            for block in 0..x.k / BLOCK {
                let at = tile.add(block * 20 * L::ROWS);
                let mut sums = [L::zero_sums(); M];
                for group in 0..4 {
                    let bytes = fetch::<L, M>(at.add((4 + 4 * group) * L::ROWS));
                    let weights = (L::low(bytes), L::high(bytes));
                    for row in 0..M {
                        let x = x.quants(row, block).add(4 * group);
                        sums[row] = L::dot(sums[row], weights.0, x);
                        sums[row] = L::dot(sums[row], weights.1, x.add(16));
                    }
                }
                let (d, m) = (L::halves(at), L::halves(at.add(2 * L::ROWS)));
                for row in 0..M {
                    let scale = L::mul(d, L::splat(x.scale(row, block)));
                    total[row] = L::mul_add(L::floats(L::ints(sums[row])), scale, total[row]);
                    total[row] = L::mul_add(m, L::splat(x.sum(row, block)), total[row]);
                }
            }
            total
        }
    }
}

/// `d · quant`, d of 32 weights, quants signed.
pub(super) struct Q8_0;

impl Kernel for Q8_0 {
    #[inline(always)]
    unsafe fn run<L: Lanes, const M: usize>(tile: *const u8, x: Rows) -> [L::Floats; M] {
        // SAFETY: offsets are those of `pack::Layout`; the rest is the caller's promise.
        unsafe {
            let mut total = [L::splat(0.0); M];
            for block in 0..x.k / BLOCK {
                let at = tile.add(block * 36 * L::ROWS);
                let mut sums = [L::zero_ints(); M];
                for row in 0..M {
                    sums[row] = L::start_signed(x.offsets(row, block));
                }
                for group in 0..8 {
                    let weights = fetch::<L, M>(at.add((4 + 4 * group) * L::ROWS));
                    for row in 0..M {
                        let x = x.quants(row, block).add(4 * group);
                        sums[row] = L::dot_signed(sums[row], weights, x);
                    }
                }
                let d = L::halves(at);
                for row in 0..M {
                    let scale = L::mul(d, L::splat(x.scale(row, block)));
                    total[row] = L::mul_add(L::floats(sums[row]), scale, total[row]);
                }
            }
            total
        }
    }
}
