//! Scaled dot-product attention: `out[i, h] = Σ_j softmax_j(scale · q[i, h] · k[j, g]) v[j, g]`, `g = h · kv_heads / heads`.
//!
//! q: `[queries, heads, head_dim]` f32. k, v: `[keys, kv_heads, head_dim]` f32 or f16. All three are [`View`]s with
//! strides, so that they may lie inside wider rows or be head-major. out: `[queries, heads, head_dim]` f32, contiguous.
//!
//! One op serves a decoder with grouped queries over an f16 cache ([`Shape::causal`]), an encoder, and cross-attention.
//! The scores of a few query rows are kept whole (two passes, not the running maximum of arXiv 2205.14135): contexts here
//! are short, and the order of every sum then depends on the row's own number of keys alone.

mod portable;
pub mod reference;
#[cfg(test)]
mod tests;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code, reason = "no backend here"))]
mod tile;

use half::f16;

use crate::Pool;
use crate::dispatch::Backend;
#[cfg(target_arch = "x86_64")]
use crate::ops::linear::avx2::Avx2;
#[cfg(target_arch = "aarch64")]
use crate::ops::linear::neon::Neon;
use crate::pool::Shareable;

/// Query rows that one worker handles at once: their scores stay in the second-level cache up to some 8k keys.
const TILE: usize = 12;
/// Rows at once while there are few: enough items for the workers. A multiple of it is [`TILE`].
const SMALL_TILE: usize = 3;

/// Rows of heads inside a buffer. Element `d` of head `h` at time `t` is `data[t · row_stride + h · head_stride + d]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    /// The buffer.
    pub data: &'a [T],
    /// From one time to the next.
    pub row_stride: usize,
    /// From one head to the next.
    pub head_stride: usize,
}

impl<'a, T> View<'a, T> {
    /// A contiguous `[time, heads, head_dim]`.
    pub fn contiguous(data: &'a [T], heads: usize, head_dim: usize) -> Self {
        Self { data, row_stride: heads * head_dim, head_stride: head_dim }
    }

    /// Whether `rows` times and `heads` heads lie inside the buffer.
    fn holds(&self, rows: usize, heads: usize, head_dim: usize) -> bool {
        let last = |count: usize, stride: usize| count.checked_sub(1)?.checked_mul(stride);
        let end = || last(rows, self.row_stride)?.checked_add(last(heads, self.head_stride)?)?.checked_add(head_dim);
        end().is_some_and(|end| end <= self.data.len())
    }
}

/// What is attended to by what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Heads of q and out.
    pub heads: usize,
    /// Heads of k and v; divides `heads`.
    pub kv_heads: usize,
    /// Values of one head.
    pub head_dim: usize,
    /// Rows of q and out.
    pub queries: usize,
    /// Rows of k and v.
    pub keys: usize,
    /// The queries are the last of the keys' positions, and see no key after their own.
    pub causal: bool,
    /// Usually `1 / sqrt(head_dim)`.
    pub scale: f32,
}

impl Shape {
    /// Keys that query row `i` sees.
    fn visible(&self, i: usize) -> usize {
        if self.causal { self.keys - self.queries + i + 1 } else { self.keys }
    }
}

/// What keys and values are stored as.
pub trait Element: Copy + Send + Sync + private::Sealed {
    /// The value.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
}

mod private {
    /// Closes [`super::Element`] and tells the fast version what to load.
    pub trait Sealed {
        /// Whether it is f16; f32 otherwise.
        const HALF: bool;
    }

    impl Sealed for f32 {
        const HALF: bool = false;
    }

    impl Sealed for half::f16 {
        const HALF: bool = true;
    }
}

/// Computes attention. The result of a row does not depend on the other rows or on the number of threads: a causal row
/// gives the same bits alone and inside a longer chunk.
///
/// # Panics
/// If a view is smaller than its shape, `out` is not `queries · heads · head_dim` long, there are no keys, `kv_heads` does
/// not divide `heads`, or a causal shape has more queries than keys.
pub fn attention<T: Element>(
    pool: &Pool,
    shape: &Shape,
    q: View<'_, f32>,
    k: View<'_, T>,
    v: View<'_, T>,
    out: &mut [f32],
) {
    attention_on(Backend::best(), pool, shape, q, k, v, out);
}

fn attention_on<T: Element>(
    backend: Backend,
    pool: &Pool,
    shape: &Shape,
    q: View<'_, f32>,
    k: View<'_, T>,
    v: View<'_, T>,
    out: &mut [f32],
) {
    let &Shape { heads, kv_heads, head_dim, queries, keys, causal, .. } = shape;
    if queries == 0 {
        return;
    }
    assert!(kv_heads > 0 && heads.is_multiple_of(kv_heads) && head_dim > 0, "{shape:?}");
    assert!(keys > 0 && (!causal || queries <= keys), "{shape:?}");
    assert!(q.holds(queries, heads, head_dim), "q has {} values for {shape:?}", q.data.len());
    assert!(k.holds(keys, kv_heads, head_dim), "k has {} values for {shape:?}", k.data.len());
    assert!(v.holds(keys, kv_heads, head_dim), "v has {} values for {shape:?}", v.data.len());
    assert_eq!(out.len(), queries * heads * head_dim, "out of {shape:?}");

    // Heads that share keys are rows of one problem: row r is query r / group, head r % group of the group.
    let group = heads / kv_heads;
    let rows = queries * group;
    let tile = if rows * kv_heads >= 4 * TILE * pool.threads() { TILE } else { SMALL_TILE };
    let tiles = rows.div_ceil(tile);
    let whole = Whole { shape, q, k, v, group, out: Shareable(out.as_mut_ptr()) };
    pool.for_each(tiles * kv_heads, 1, &|items| {
        for item in items {
            let (kv_head, first) = (item / tiles, item % tiles * tile);
            let part = Part { kv_head, first, count: tile.min(rows - first) };
            match backend {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Backend::best` and the tests name only backends that the processor has; lengths were checked
                // above, and tiles of rows and heads do not overlap in `out`.
                Backend::Avx2 | Backend::Avx512 if head_dim.is_multiple_of(8) => unsafe { avx2(&whole, part) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                Backend::Neon | Backend::NeonDot if head_dim.is_multiple_of(8) => unsafe { neon(&whole, part) },
                _ => portable::part(&whole, part),
            }
        }
    });
}

/// [`tile::part`], compiled for AVX2.
///
/// # Safety
/// The same.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<T: Element>(whole: &Whole<'_, T>, part: Part) {
    // SAFETY: the caller's promise, passed on.
    unsafe { tile::part::<Avx2, T>(whole, part) }
}

/// [`tile::part`], compiled for NEON.
///
/// # Safety
/// The same.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
unsafe fn neon<T: Element>(whole: &Whole<'_, T>, part: Part) {
    // SAFETY: the caller's promise, passed on.
    unsafe { tile::part::<Neon<false>, T>(whole, part) }
}

/// The problem, as a worker sees it.
struct Whole<'a, T> {
    shape: &'a Shape,
    q: View<'a, f32>,
    k: View<'a, T>,
    v: View<'a, T>,
    group: usize,
    out: Shareable<f32>,
}

/// Rows `first..first + count` of one head of keys and values.
#[derive(Clone, Copy)]
struct Part {
    kv_head: usize,
    first: usize,
    count: usize,
}

impl<T> Whole<'_, T> {
    /// Offset of row `r`'s query in `q.data`, and of its result in `out`.
    fn offsets(&self, part: Part, r: usize) -> (usize, usize) {
        let (i, head) = ((part.first + r) / self.group, part.kv_head * self.group + (part.first + r) % self.group);
        let Shape { heads, head_dim, .. } = *self.shape;
        (i * self.q.row_stride + head * self.q.head_stride, (i * heads + head) * head_dim)
    }

    /// Keys that row `r` of a part sees.
    fn visible(&self, part: Part, r: usize) -> usize {
        self.shape.visible((part.first + r) / self.group)
    }
}
