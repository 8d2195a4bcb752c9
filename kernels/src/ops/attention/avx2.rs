//! AVX2, FMA and F16C.
//!
//! A tile of keys is read once for all rows of a part, three rows and four keys at a time (twelve sums, three queries and
//! one key fill the sixteen registers). Values likewise: three rows and 32 columns. Every sum runs in an order given by
//! the row's own keys, so tiles and neighbours leave no trace in the bits. Traffic: each key and value is read once for
//! twelve rows; the scores of a part (`12 · keys` floats) are written and read twice.

use core::arch::x86_64::*;
use std::cell::RefCell;

use half::f16;

use super::{Part, Whole, private::Sealed};
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

impl Sealed for f32 {
    #[inline(always)]
    unsafe fn load8(at: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(at) }
    }
}

impl Sealed for f16 {
    #[inline(always)]
    unsafe fn load8(at: *const Self) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
}

/// # Safety
/// The processor has AVX2, FMA and F16C; the views and `out` hold the shape; `head_dim` is a multiple of 8; no other
/// thread writes the same rows of `out`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn part<T: Sealed>(whole: &Whole<'_, T>, part: Part) {
    let d = whole.shape.head_dim;
    let visible: [usize; super::TILE] =
        std::array::from_fn(|r| if r < part.count { whole.visible(part, r) } else { 0 });
    let keys = visible[part.count - 1];
    let stride = keys.next_multiple_of(8);
    let kv_offset = |view: &super::View<'_, T>| part.kv_head * view.head_stride;

    SCORES.with_borrow_mut(|scores| {
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
                    block_of_scores(q, k, whole.k.row_stride, d, from..until, whole.shape.scale, s);
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
                    while column + 8 * COLUMNS <= d {
                        block_of_values::<T, COLUMNS>(p, v, whole.v.row_stride, column, from..until, o);
                        column += 8 * COLUMNS;
                    }
                    while column < d {
                        block_of_values::<T, 1>(p, v, whole.v.row_stride, column, from..until, o);
                        column += 8;
                    }
                }
            }
        }
    });
}

/// `s[i][j] = scale · q[i] · k[j]` for the keys of `range`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block_of_scores<T: Sealed>(
    q: [*const f32; ROWS],
    k: *const T,
    stride: usize,
    d: usize,
    range: std::ops::Range<usize>,
    scale: f32,
    s: [*mut f32; ROWS],
) {
    let scale = _mm_set1_ps(scale);
    let last = range.end - 1;
    for j in range.clone().step_by(4) {
        // SAFETY: keys past the range's end are replaced by its last one, and their scores are not stored.
        unsafe {
            let k: [*const T; 4] = std::array::from_fn(|i| k.add((j + i).min(last) * stride));
            let mut sums = [[_mm256_setzero_ps(); 4]; ROWS];
            for at in (0..d).step_by(8) {
                let q: [__m256; ROWS] = std::array::from_fn(|i| _mm256_loadu_ps(q[i].add(at)));
                for i in 0..4 {
                    let k = T::load8(k[i].add(at));
                    for r in 0..ROWS {
                        sums[r][i] = _mm256_fmadd_ps(q[r], k, sums[r][i]);
                    }
                }
            }
            for r in 0..ROWS {
                let four = _mm_mul_ps(scale, horizontal(sums[r]));
                if j + 4 <= range.end {
                    _mm_storeu_ps(s[r].add(j), four);
                } else {
                    let mut values = [0.0; 4];
                    _mm_storeu_ps(values.as_mut_ptr(), four);
                    let rest = range.end - j;
                    std::ptr::copy_nonoverlapping(values.as_ptr(), s[r].add(j), rest);
                }
            }
        }
    }
}

/// The sums of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn horizontal([a, b, c, d]: [__m256; 4]) -> __m128 {
    let ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    let lanes = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xEE>(ab, cd));
    _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes))
}

/// `o[i][column..] += Σ_j p[i][j] v[j][column..]` over the keys of `range`; it begins with zero at key 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block_of_values<T: Sealed, const N: usize>(
    p: [*const f32; ROWS],
    v: *const T,
    stride: usize,
    column: usize,
    range: std::ops::Range<usize>,
    o: [*mut f32; ROWS],
) {
    let mut sums = [[_mm256_setzero_ps(); N]; ROWS];
    // SAFETY: the caller's promise.
    unsafe {
        if range.start > 0 {
            for (sums, o) in sums.iter_mut().zip(o) {
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(o.add(column + 8 * n));
                }
            }
        }
        for j in range {
            let v = v.add(j * stride + column);
            let p: [__m256; ROWS] = std::array::from_fn(|r| _mm256_broadcast_ss(&*p[r].add(j)));
            for n in 0..N {
                let v = T::load8(v.add(8 * n));
                for (sums, p) in sums.iter_mut().zip(p) {
                    sums[n] = _mm256_fmadd_ps(p, v, sums[n]);
                }
            }
        }
        for (sums, o) in sums.iter().zip(o) {
            for (n, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(o.add(column + 8 * n), *sum);
            }
        }
    }
}
