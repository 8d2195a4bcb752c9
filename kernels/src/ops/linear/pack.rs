//! Weights in the order in which the kernels read them.
//!
//! `ROWS` rows (the lanes of the backend) make a tile, the last one padded with zeros. Inside a tile the blocks of its
//! rows lie one after another along `k`, so a product with one row of activations reads memory from end to end:
//! - quantised: the scales of a block's rows, then its quants, four bytes of each row in turn: a load gives a register of
//!   all rows at the same `k`. Nibbles stay in the bytes in which the file has them, six-bit quants are put together such
//!   that three of four need no shift, six-bit scales get a byte each.
//! - floats: tiles of twice `ROWS` rows, `[k, 2 · ROWS]`.

use std::ops::Range;

use super::WeightType;
use crate::dispatch::Backend;
use crate::mmap::Pages;
use crate::pool::Shareable;
use crate::{KernelError, Pool};

/// One matrix `[n, k]`, packed.
pub(super) struct Packed {
    pub(super) kind: WeightType,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Bytes of a tile.
    tile_bytes: usize,
    pages: Pages,
}

impl Packed {
    pub(super) fn new(
        pool: &Pool,
        backend: Backend,
        kind: WeightType,
        n: usize,
        k: usize,
        bytes: &[u8],
    ) -> Result<Self, KernelError> {
        let row_bytes = kind.row_bytes(k)?;
        if n == 0 || k == 0 || n.checked_mul(row_bytes) != Some(bytes.len()) {
            return Err(KernelError::Malformed(format!("{} bytes are not {n} × {k} {kind:?} weights", bytes.len())));
        }
        let layout = Layout::of(kind);
        let rows = layout.tile_rows(backend);
        let tile_bytes = layout.bytes * rows * (k / kind.block_len());
        let tiles = n.div_ceil(rows);
        let mut pages = Pages::zeroed(tiles * tile_bytes)?;
        let base = Shareable(pages.bytes_mut().as_mut_ptr());
        let grain = (1_usize << 18).div_ceil(tile_bytes);
        pool.for_each(tiles, grain, &|range| {
            for tile in range {
                // SAFETY: `pages` holds `tiles` tiles, and every tile is handed out once.
                let out = unsafe { std::slice::from_raw_parts_mut(base.get().add(tile * tile_bytes), tile_bytes) };
                for row in 0..rows.min(n - tile * rows) {
                    let from = (tile * rows + row) * row_bytes;
                    layout.put(rows, row, &bytes[from..from + row_bytes], out);
                }
            }
        });
        Ok(Self { kind, n, k, rows, tile_bytes, pages })
    }

    /// Tiles, the padded one included.
    pub(super) fn tiles(&self) -> usize {
        self.n.div_ceil(self.rows)
    }

    /// Bytes of a tile.
    pub(super) fn tile_bytes(&self) -> usize {
        self.tile_bytes
    }

    /// The tile's bytes.
    pub(super) fn tile(&self, tile: usize) -> &[u8] {
        &self.pages.bytes()[tile * self.tile_bytes..][..self.tile_bytes]
    }

    /// Row `index` as the file had it.
    pub(super) fn file_row(&self, index: usize) -> Vec<u8> {
        let blocks = self.k / self.kind.block_len();
        let mut row = vec![0; blocks * self.kind.block_bytes()];
        Layout::of(self.kind).get(self.rows, index % self.rows, self.tile(index / self.rows), &mut row);
        row
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.pages.bytes().len()
    }
}

/// How a block of a row is spread over a tile: pieces that are copied as they are, and what is converted.
struct Layout {
    kind: WeightType,
    /// Bytes of a row's block in the tile.
    bytes: usize,
    /// Piece by piece: bytes in the file's block, size of what one row contributes at a time, offset in the tile's block
    /// (a row's share of it).
    pieces: &'static [(Range<usize>, usize, usize)],
}

/// Two bytes of every row (a half float), then two bytes unused, so that quants stay aligned.
const HALVES: usize = 4;

impl Layout {
    fn of(kind: WeightType) -> Self {
        let (bytes, pieces): (usize, &'static [_]) = match kind {
            WeightType::F32 => (4, &[(0..4, 4, 0)]),
            WeightType::F16 => (2, &[(0..2, 2, 0)]),
            WeightType::Q8_0 => (HALVES + 32, &[(0..2, 2, 0), (2..34, 4, HALVES)]),
            // The scale, then −8 times the scale: as Q4_1.
            WeightType::Q4_0 => (4 + 16, &[(0..2, 2, 0), (2..18, 4, 4)]),
            WeightType::Q4_1 => (4 + 16, &[(0..2, 2, 0), (2..4, 2, 2), (4..20, 4, 4)]),
            // Scale, minimum, a byte each for eight scales and eight minima, nibbles.
            WeightType::Q4K => (4 + 16 + 128, &[(0..2, 2, 0), (2..4, 2, 2), (16..144, 4, 4 + 16)]),
            // Scale, sixteen scales, and for each half three bytes for every four weights 32 apart: see `sextets`.
            WeightType::Q6K => (HALVES + 16 + 192, &[(208..210, 2, 0), (192..208, 1, HALVES)]),
        };
        Self { kind, bytes, pieces }
    }

    fn tile_rows(&self, backend: Backend) -> usize {
        let lanes = if backend == Backend::Avx512 { 16 } else { 8 };
        match self.kind {
            WeightType::F32 | WeightType::F16 => 2 * lanes,
            _ => lanes,
        }
    }

    /// Writes `row` of a tile of `rows` rows.
    fn put(&self, rows: usize, row: usize, from: &[u8], tile: &mut [u8]) {
        match self.kind {
            WeightType::F32 => return spread::<4>(from, &mut tile[4 * row..], rows),
            WeightType::F16 => return spread::<2>(from, &mut tile[2 * row..], rows),
            _ => {}
        }
        for (from, to) in from.chunks_exact(self.kind.block_bytes()).zip(tile.chunks_exact_mut(self.bytes * rows)) {
            for (range, size, start) in self.pieces {
                let (from, to) = (&from[range.clone()], &mut to[start * rows + row * size..]);
                match size {
                    1 => spread::<1>(from, to, rows),
                    2 => spread::<2>(from, to, rows),
                    _ => spread::<4>(from, to, rows),
                }
            }
            match self.kind {
                WeightType::Q4_0 => {
                    let least = half::f16::from_f32(-8.0 * super::format::half_at(from, 0));
                    to[2 * rows + 2 * row..][..2].copy_from_slice(&least.to_le_bytes());
                }
                WeightType::Q4K => {
                    let (scales, mins) = super::format::six_bit_scales(&from[4..16]);
                    spread::<1>(&scales, &mut to[4 * rows + row..], rows);
                    spread::<1>(&mins, &mut to[12 * rows + row..], rows);
                }
                WeightType::Q6K => {
                    let packed = super::format::sextets(&super::format::Q6K::read(from).quants);
                    spread::<4>(&packed, &mut to[(HALVES + 16) * rows + 4 * row..], rows);
                }
                _ => {}
            }
        }
    }

    /// Reads `row` back: the inverse of [`Layout::put`].
    fn get(&self, rows: usize, row: usize, tile: &[u8], out: &mut [u8]) {
        for (out, from) in out.chunks_exact_mut(self.kind.block_bytes()).zip(tile.chunks_exact(self.bytes * rows)) {
            for (range, size, start) in self.pieces {
                gather(&from[start * rows + row * size..], *size, rows, &mut out[range.clone()]);
            }
            if self.kind == WeightType::Q4K {
                let (mut scales, mut mins) = ([0; 8], [0; 8]);
                gather(&from[4 * rows + row..], 1, rows, &mut scales);
                gather(&from[12 * rows + row..], 1, rows, &mut mins);
                out[4..16].copy_from_slice(&super::format::pack_six_bit_scales(scales, mins));
            }
            if self.kind == WeightType::Q6K {
                let mut packed = [0; 192];
                gather(&from[(HALVES + 16) * rows + 4 * row..], 4, rows, &mut packed);
                super::format::write_six_bit_quants(&super::format::from_sextets(&packed), &mut out[..192]);
            }
        }
    }
}

/// Copies `from`, `SIZE` bytes at a time, to places `rows · SIZE` apart.
#[inline]
fn spread<const SIZE: usize>(from: &[u8], to: &mut [u8], rows: usize) {
    for (from, to) in from.as_chunks::<SIZE>().0.iter().zip(to.chunks_mut(rows * SIZE)) {
        to[..SIZE].copy_from_slice(from);
    }
}

/// The inverse of [`spread`].
fn gather(from: &[u8], size: usize, rows: usize, to: &mut [u8]) {
    for (to, from) in to.chunks_exact_mut(size).zip(from.chunks(rows * size)) {
        to.copy_from_slice(&from[..size]);
    }
}
