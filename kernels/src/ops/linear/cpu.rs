//! The op on a pool of CPU threads: which kernel, which tiles, where the results go.

use std::cell::Cell;
use std::ops::Range;

use super::activations::Activations;
use super::lanes::Lanes;
use super::narrow::Narrow;
use super::pack::Packed;
use super::panel::{self, Element, Half, Single};
use super::portable::Portable;
use super::tile::{self, Kernel, Q4_1, Q4K, Q6K, Q8_0, Rows};
use super::{WeightType, Weights};
use crate::Pool;
use crate::dispatch::Backend;
use crate::pool::Shareable;

/// One call of the op.
struct Job<'a> {
    x: &'a [f32],
    quantised: &'a Activations,
    m: usize,
    /// Outputs of a row of `y`, those of other stacked matrices included.
    width: usize,
    bias: Option<&'a [f32]>,
    y: Shareable<f32>,
}

/// `y = x Wᵀ + b`; shapes have been checked.
pub(super) fn linear(
    pool: &Pool,
    quantised: &mut Activations,
    x: &[f32],
    m: usize,
    w: &Weights,
    bias: Option<&[f32]>,
    y: &mut [f32],
) {
    if w.parts.iter().any(|part| !matches!(part.kind, WeightType::F32 | WeightType::F16)) {
        quantised.quantise(pool, x, m, w.k);
    }
    let job = Job { x, quantised, m, width: w.n, bias, y: Shareable(y.as_mut_ptr()) };
    if let Some(narrow) = &w.narrow {
        let rows = 2 * backend_lanes(w.backend);
        let tiles = narrow.n.div_ceil(rows);
        // A tile is widened before it is multiplied, which costs as much as a few rows do.
        return pool.for_each(tiles, grain(pool, tiles, 4 * rows * narrow.k * (m + 4)), &|range| {
            // SAFETY: as below.
            unsafe { run_narrow(w.backend, narrow, &job, range) };
        });
    }
    let tiles: usize = w.parts.iter().map(Packed::tiles).sum();
    pool.for_each(tiles, grain(pool, tiles, w.bytes() / tiles * m), &|range| {
        let (mut first_tile, mut first_output) = (0, 0);
        for part in &w.parts {
            let start = range.start.max(first_tile) - first_tile;
            let end = range.end.clamp(first_tile, first_tile + part.tiles()) - first_tile;
            if start < end {
                // SAFETY: the backend was found available when the weights were packed, tiles `start..end` of the part
                // are this worker's alone, and so are their outputs.
                unsafe { run(w.backend, part, &job, start..end, first_output) };
            }
            first_tile += part.tiles();
            first_output += part.n;
        }
    });
}

/// Tiles a worker takes at once, each costing about `cost` (bytes of weights read, times rows of activations): enough to
/// make taking them cheap, few enough that workers end together.
fn grain(pool: &Pool, tiles: usize, cost: usize) -> usize {
    /// About 5 µs.
    const LEAST_COST: usize = 1 << 16;
    LEAST_COST.div_ceil(cost.max(1)).max(tiles / (pool.threads() * 16)).max(1)
}

/// Runs tiles of one matrix whose outputs start at `first_output`.
///
/// # Safety
/// The processor has the backend's instructions, the part was packed for it, and nobody else touches the tiles' outputs.
unsafe fn run(backend: Backend, part: &Packed, job: &Job, tiles: Range<usize>, first_output: usize) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match backend {
            Backend::Portable => portable::run(part, job, tiles, first_output),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => avx2::run(part, job, tiles, first_output),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::run(part, job, tiles, first_output),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon => neon::run(part, job, tiles, first_output),
            #[cfg(target_arch = "aarch64")]
            Backend::NeonDot => neon_dot::run(part, job, tiles, first_output),
            _ => unreachable!("{backend:?} is not available on this architecture"),
        }
    }
}

/// As [`run`], for a narrowed matrix.
///
/// # Safety
/// The processor has the backend's instructions, and nobody else touches the tiles' outputs.
unsafe fn run_narrow(backend: Backend, narrow: &Narrow, job: &Job, tiles: Range<usize>) {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        match backend {
            Backend::Portable => portable::narrow(narrow, job, tiles),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx2 => avx2::narrow(narrow, job, tiles),
            #[cfg(target_arch = "x86_64")]
            Backend::Avx512 => avx512::narrow(narrow, job, tiles),
            #[cfg(target_arch = "aarch64")]
            Backend::Neon => neon::narrow(narrow, job, tiles),
            #[cfg(target_arch = "aarch64")]
            Backend::NeonDot => neon_dot::narrow(narrow, job, tiles),
            _ => unreachable!("{backend:?} is not available on this architecture"),
        }
    }
}

/// [`Lanes::ROWS`] of a backend.
fn backend_lanes(backend: Backend) -> usize {
    if backend == Backend::Avx512 { 16 } else { 8 }
}

/// The kernels of one backend, each compiled with its instructions.
macro_rules! backend {
    ($name:ident, $lanes:ty $(, $features:literal)?) => {
        mod $name {
            use super::*;

            /// See [`super::run`].
            ///
            /// # Safety
            /// The same.
            pub(super) unsafe fn run(part: &Packed, job: &Job, tiles: Range<usize>, first_output: usize) {
                // SAFETY: the caller's promise, passed on.
                unsafe {
                    match part.kind {
                        WeightType::F32 => floats::<Single>(part, job, tiles, first_output),
                        WeightType::F16 => floats::<Half>(part, job, tiles, first_output),
                        WeightType::Q8_0 => quants::<Q8_0>(part, job, tiles, first_output),
                        WeightType::Q4_0 | WeightType::Q4_1 => quants::<Q4_1>(part, job, tiles, first_output),
                        WeightType::Q4K => quants::<Q4K>(part, job, tiles, first_output),
                        WeightType::Q6K => quants::<Q6K>(part, job, tiles, first_output),
                    }
                }
            }

            /// See [`super::run_narrow`].
            ///
            /// # Safety
            /// The same.
            $(#[target_feature(enable = $features)])?
            pub(super) unsafe fn narrow(narrow: &Narrow, job: &Job, tiles: Range<usize>) {
                // SAFETY: the caller's promise, passed on.
                unsafe { narrow_tiles::<$lanes>(narrow, job, tiles) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn floats<E: Element>(part: &Packed, job: &Job, tiles: Range<usize>, first_output: usize) {
                // SAFETY: the caller's promise, passed on.
                unsafe { float_tiles::<$lanes, E>(part, job, tiles, first_output) }
            }

            $(#[target_feature(enable = $features)])?
            unsafe fn quants<K: Kernel>(part: &Packed, job: &Job, tiles: Range<usize>, first_output: usize) {
                // SAFETY: the caller's promise, passed on.
                unsafe { quantised_tiles::<$lanes, K>(part, job, tiles, first_output) }
            }
        }
    };
}

backend!(portable, Portable);
#[cfg(target_arch = "x86_64")]
backend!(avx2, super::super::avx2::Avx2, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
backend!(avx512, super::super::avx512::Avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512vnni");
#[cfg(target_arch = "aarch64")]
backend!(neon, super::super::neon::Neon<false>, "neon");
#[cfg(target_arch = "aarch64")]
backend!(neon_dot, super::super::neon::Neon<true>, "neon,dotprod");

/// All rows of activations times a range of tiles: tile by tile, so that a tile is read from memory once.
///
/// # Safety
/// See [`run`].
#[inline(always)]
unsafe fn quantised_tiles<L: Lanes, K: Kernel>(part: &Packed, job: &Job, tiles: Range<usize>, first_output: usize) {
    for tile in tiles {
        let at = part.tile(tile).as_ptr();
        let mut row = 0;
        while row < job.m {
            let group = (job.m - row).min(tile::GROUP);
            let x = Rows::of(job.quantised, part.k, row, group);
            let mut out = [0.0; tile::GROUP * MOST_LANES];
            // SAFETY: the tile was packed for these lanes, and there are `group` rows.
            unsafe {
                match group {
                    1 => keep::<L, 1>(K::run::<L, 1>(at, x), &mut out),
                    2 => keep::<L, 2>(K::run::<L, 2>(at, x), &mut out),
                    3 => keep::<L, 3>(K::run::<L, 3>(at, x), &mut out),
                    _ => keep::<L, 4>(K::run::<L, 4>(at, x), &mut out),
                }
                write(
                    job,
                    row,
                    &out[..group * L::ROWS],
                    L::ROWS,
                    first_output + tile * L::ROWS,
                    part.n - tile * L::ROWS,
                );
            }
            row += group;
        }
    }
}

/// As [`quantised_tiles`], for panels of floats. Half floats that many rows need are widened once.
///
/// # Safety
/// See [`run`].
#[inline(always)]
unsafe fn float_tiles<L: Lanes, E: Element>(part: &Packed, job: &Job, tiles: Range<usize>, first_output: usize) {
    let (width, k, step) = (2 * L::ROWS, part.k, part.tile_bytes());
    let many = job.m > panel::GROUP && E::BYTES < Single::BYTES;
    let mut wide = if many { WIDE.take() } else { Vec::new() };
    let mut tile = tiles.start;
    while tile < tiles.end {
        let at = part.tile(tile).as_ptr();
        // One row leaves a processor with deep pipelines idle: it takes two panels at once.
        let panels = if job.m == 1 && tile + 1 < tiles.end { 2 } else { 1 };
        let mut row = 0;
        if many {
            wide.resize((k * width).div_ceil(16), Line([0.0; 16]));
            // SAFETY: the panel is `k · width` weights, and `wide` holds as many floats.
            unsafe { panel::widen::<L, E>(at, k, wide.as_mut_ptr().cast()) };
        }
        while row < job.m {
            let group = (job.m - row).min(panel::GROUP);
            let x = job.x[row * k..(row + group) * k].as_ptr();
            let mut out = [0.0; panel::GROUP * 2 * MOST_LANES];
            // SAFETY: the panels were packed for these lanes and there are `group` rows.
            unsafe {
                if many {
                    panel_rows::<L, Single>(wide.as_ptr().cast(), step, x, k, (group, panels), &mut out);
                } else {
                    panel_rows::<L, E>(at, step, x, k, (group, panels), &mut out);
                }
                let (first, left) = (first_output + tile * width, part.n - tile * width);
                write(job, row, &out[..group * panels * width], panels * width, first, left);
            }
            row += group;
        }
        tile += panels;
    }
    if many {
        WIDE.set(wide);
    }
}

/// As [`float_tiles`], for a narrowed matrix: each panel is widened once.
///
/// # Safety
/// See [`run_narrow`].
#[inline(always)]
unsafe fn narrow_tiles<L: Lanes>(narrow: &Narrow, job: &Job, tiles: Range<usize>) {
    let (width, k) = (2 * L::ROWS, narrow.k);
    let mut wide = WIDE.take();
    wide.resize((k * width).div_ceil(16), Line([0.0; 16]));
    for tile in tiles {
        let first = tile * width;
        let left = narrow.n - first;
        // The panels of all kinds share the buffer: rows that are not there would be another matrix's.
        wide.iter_mut().filter(|_| left < width).for_each(|line| line.0.fill(0.0));
        for row in 0..width.min(left) {
            narrow.row(first + row, |c, value| wide[(c * width + row) / 16].0[(c * width + row) % 16] = value);
        }
        let mut row = 0;
        while row < job.m {
            let group = (job.m - row).min(panel::GROUP);
            let x = job.x[row * k..(row + group) * k].as_ptr();
            let mut out = [0.0; panel::GROUP * 2 * MOST_LANES];
            // SAFETY: the panel is `k · width` floats and there are `group` rows.
            unsafe {
                panel_rows::<L, Single>(wide.as_ptr().cast(), 0, x, k, (group, 1), &mut out);
                write(job, row, &out[..group * width], width, first, left);
            }
            row += group;
        }
    }
    WIDE.set(wide);
}

/// Floats aligned to a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// A widened panel, kept from call to call.
    static WIDE: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Runs the panel kernel for a number of rows and panels known only now.
///
/// # Safety
/// See [`panel::run`].
#[inline(always)]
unsafe fn panel_rows<L: Lanes, E: Element>(
    at: *const u8,
    step: usize,
    x: *const f32,
    k: usize,
    (group, panels): (usize, usize),
    out: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match (group, panels) {
            (1, 2) => keep_panels::<L, 1, 2>(panel::run::<L, E, 1, 2>(at, step, x, k), out),
            (1, _) => keep_panels::<L, 1, 1>(panel::run::<L, E, 1, 1>(at, step, x, k), out),
            (2, _) => keep_panels::<L, 2, 1>(panel::run::<L, E, 2, 1>(at, step, x, k), out),
            (3, _) => keep_panels::<L, 3, 1>(panel::run::<L, E, 3, 1>(at, step, x, k), out),
            (4, _) => keep_panels::<L, 4, 1>(panel::run::<L, E, 4, 1>(at, step, x, k), out),
            (5, _) => keep_panels::<L, 5, 1>(panel::run::<L, E, 5, 1>(at, step, x, k), out),
            _ => keep_panels::<L, 6, 1>(panel::run::<L, E, 6, 1>(at, step, x, k), out),
        }
    }
}

/// Lanes of the widest backend.
const MOST_LANES: usize = 16;

/// Stores registers, row by row.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn keep<L: Lanes, const M: usize>(values: [L::Floats; M], out: &mut [f32]) {
    for (out, value) in out[..M * L::ROWS].chunks_exact_mut(L::ROWS).zip(values) {
        // SAFETY: the chunk has `ROWS` floats.
        unsafe { L::store(out.as_mut_ptr(), value) };
    }
}

/// As [`keep`]; panels of a row lie side by side.
///
/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn keep_panels<L: Lanes, const M: usize, const P: usize>(values: [[[L::Floats; 2]; M]; P], out: &mut [f32]) {
    for (p, values) in values.into_iter().enumerate() {
        for (row, values) in values.into_iter().enumerate() {
            // SAFETY: the slice has `2 · ROWS` floats.
            unsafe {
                keep::<L, 2>(values, &mut out[(row * P + p) * 2 * L::ROWS..]);
            }
        }
    }
}

/// Writes rows of `lanes` results to outputs `output..`, of which the last `lanes − left` are padding.
///
/// # Safety
/// Nobody else touches these outputs.
#[inline(always)]
unsafe fn write(job: &Job, first_row: usize, values: &[f32], lanes: usize, output: usize, left: usize) {
    let valid = lanes.min(left);
    for (index, values) in values.chunks_exact(lanes).enumerate() {
        // SAFETY: `y` is `[m, width]`, and the outputs of a tile are its worker's alone.
        let out =
            unsafe { std::slice::from_raw_parts_mut(job.y.get().add((first_row + index) * job.width + output), valid) };
        match job.bias {
            Some(bias) => {
                let bias = &bias[output..output + valid];
                out.iter_mut().zip(values).zip(bias).for_each(|((out, value), bias)| *out = value + bias);
            }
            None => out.copy_from_slice(&values[..valid]),
        }
    }
}
