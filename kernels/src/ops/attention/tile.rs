//! The kernel, written over the vector operations of [`Lanes`].
//!
//! A tile of keys is read once for all rows of a part, three rows and four keys at a time (twelve sums, three queries and
//! one key fill the sixteen registers of AVX2; NEON needs two registers for each, and has 32). Values likewise: three rows
//! and four vectors of columns. Every sum runs in an order given by the row's own keys, so tiles and neighbours leave no
//! trace in the bits. Traffic: each key and value is read once for twelve rows; the scores of a part (`12 · keys` floats)
//! are written and read twice.

#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use std::cell::RefCell;
use std::ops::Range;

use super::{Element, Part, View, Whole};
use crate::ops::linear::lanes::Lanes;
use crate::ops::softmax;

/// Keys whose rows stay in the first-level cache: 64 · 128 · 2 bytes.
const KEYS: usize = 64;
/// Rows of one register block.
const ROWS: usize = 3;
/// Vectors of one register block of values.
const COLUMNS: usize = 4;

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// # Safety
/// The processor has the instructions of `L`; the views and `out` hold the shape; `head_dim` is a multiple of `L::ROWS`; no
/// other thread writes the same rows of `out`.
#[inline(always)]
pub(super) unsafe fn part<L: Lanes, T: Element>(whole: &Whole<'_, T>, part: Part) {
    let d = whole.shape.head_dim;
    let visible: [usize; super::TILE] =
        std::array::from_fn(|r| if r < part.count { whole.visible(part, r) } else { 0 });
    let keys = visible[part.count - 1];
    let stride = keys.next_multiple_of(8);
    let kv_offset = |view: &View<'_, T>| part.kv_head * view.head_stride;

    let mut scores = SCORES.take();
    if scores.len() < part.count * stride {
        scores.resize(part.count * stride, 0.0);
    }
    // SAFETY: rows are below `part.count`, keys below the last row's number of visible keys, which is at most
    // `shape.keys`; the caller promises the rest.
    unsafe {
        let k = whole.k.data.as_ptr().add(kv_offset(&whole.k));
        let v = whole.v.data.as_ptr().add(kv_offset(&whole.v));
        for from in (0..keys).step_by(KEYS) {
            let until = keys.min(from + KEYS);
            for r in (0..part.count).step_by(ROWS) {
                // A block at the end repeats the last row instead of reading past it.
                let row = |i: usize| (r + i).min(part.count - 1);
                let q = std::array::from_fn(|i| whole.q.data.as_ptr().add(whole.offsets(part, row(i)).0));
                let s = std::array::from_fn(|i| scores.as_mut_ptr().add(row(i) * stride));
                block_of_scores::<L, T>(q, k, whole.k.row_stride, d, from..until, whole.shape.scale, s);
            }
        }
        for (row, &keys) in scores.chunks_exact_mut(stride).zip(&visible[..part.count]) {
            softmax::row(&mut row[..keys]);
            row[keys..].fill(0.0);
        }
        for from in (0..keys).step_by(KEYS) {
            let until = keys.min(from + KEYS);
            for r in (0..part.count).step_by(ROWS) {
                let row = |i: usize| (r + i).min(part.count - 1);
                let p = std::array::from_fn(|i| scores.as_ptr().add(row(i) * stride));
                let o = std::array::from_fn(|i| whole.out.get().add(whole.offsets(part, row(i)).1));
                let mut column = 0;
                while column + L::ROWS * COLUMNS <= d {
                    block_of_values::<L, T, COLUMNS>(p, v, whole.v.row_stride, column, from..until, o);
                    column += L::ROWS * COLUMNS;
                }
                while column < d {
                    block_of_values::<L, T, 1>(p, v, whole.v.row_stride, column, from..until, o);
                    column += L::ROWS;
                }
            }
        }
    }
    SCORES.set(scores);
}

/// `s[i][j] = scale · q[i] · k[j]` for the keys of `range`.
///
/// # Safety
/// See [`part`].
#[inline(always)]
unsafe fn block_of_scores<L: Lanes, T: Element>(
    q: [*const f32; ROWS],
    k: *const T,
    stride: usize,
    d: usize,
    range: Range<usize>,
    scale: f32,
    s: [*mut f32; ROWS],
) {
    let last = range.end - 1;
    for j in range.clone().step_by(4) {
        // SAFETY: keys past the range's end are replaced by its last one, and their scores are not stored.
        unsafe {
            let k: [*const T; 4] = std::array::from_fn(|i| k.add((j + i).min(last) * stride));
            let mut sums = [[L::splat(0.0); 4]; ROWS];
            for at in (0..d).step_by(L::ROWS) {
                let mut rows = [L::splat(0.0); ROWS];
                for r in 0..ROWS {
                    rows[r] = L::load(q[r].add(at));
                }
                for i in 0..4 {
                    let k = load::<L, T>(k[i].add(at));
                    for r in 0..ROWS {
                        sums[r][i] = L::mul_add(rows[r], k, sums[r][i]);
                    }
                }
            }
            for r in 0..ROWS {
                let mut four = L::sums_of_four(sums[r]);
                four.iter_mut().for_each(|sum| *sum *= scale);
                if j + 4 <= range.end {
                    s[r].add(j).cast::<[f32; 4]>().write_unaligned(four);
                } else {
                    std::ptr::copy_nonoverlapping(four.as_ptr(), s[r].add(j), range.end - j);
                }
            }
        }
    }
}

/// `o[i][column..] += Σ_j p[i][j] v[j][column..]` over the keys of `range`; it begins with zero at key 0.
///
/// # Safety
/// See [`part`].
#[inline(always)]
unsafe fn block_of_values<L: Lanes, T: Element, const N: usize>(
    p: [*const f32; ROWS],
    v: *const T,
    stride: usize,
    column: usize,
    range: Range<usize>,
    o: [*mut f32; ROWS],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; ROWS];
        if range.start > 0 {
            for r in 0..ROWS {
                for n in 0..N {
                    sums[r][n] = L::load(o[r].add(column + L::ROWS * n));
                }
            }
        }
        for j in range {
            let v = v.add(j * stride + column);
            let mut weights = [L::splat(0.0); ROWS];
            for r in 0..ROWS {
                weights[r] = L::splat(*p[r].add(j));
            }
            for n in 0..N {
                let v = load::<L, T>(v.add(L::ROWS * n));
                for r in 0..ROWS {
                    sums[r][n] = L::mul_add(weights[r], v, sums[r][n]);
                }
            }
        }
        for r in 0..ROWS {
            for n in 0..N {
                L::store(o[r].add(column + L::ROWS * n), sums[r][n]);
            }
        }
    }
}

/// `L::ROWS` values from `at`.
///
/// # Safety
/// So many are readable there, and the processor has the instructions of `L`.
#[inline(always)]
unsafe fn load<L: Lanes, T: Element>(at: *const T) -> L::Floats {
    // SAFETY: the caller's promise; `Element` is closed, so T is what `HALF` says.
    unsafe { if T::HALF { L::halves(at.cast()) } else { L::load(at.cast()) } }
}
