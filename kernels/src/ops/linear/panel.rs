//! The kernel of float weights: a panel of twice [`Lanes::ROWS`] rows, `[k, 2 · ROWS]`, times up to six rows of
//! activations, each broadcast value serving the whole panel. One accumulator an output, `k` in turn, whatever the number
//! of rows computed together.

#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use super::lanes::Lanes;

/// Rows of activations that share one pass over a panel: with two registers of weights, twelve accumulators of sixteen
/// registers.
pub(super) const GROUP: usize = 6;

/// How a weight is stored.
pub(super) trait Element {
    /// Bytes of a weight.
    const BYTES: usize;
    /// `L::ROWS` weights as floats.
    ///
    /// # Safety
    /// The processor has the instructions of `L`; there are that many weights at `at`.
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats;
}

/// f32.
pub(super) struct Single;

impl Element for Single {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats {
        // SAFETY: the caller's promise; `load` accepts any alignment.
        unsafe { L::load(at.cast()) }
    }
}

/// f16, widened on the way into a register.
pub(super) struct Half;

impl Element for Half {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<L: Lanes>(at: *const u8) -> L::Floats {
        // SAFETY: the caller's promise.
        unsafe { L::halves(at) }
    }
}

/// Products of `P` panels, `step` bytes apart, with `M` rows of `k` activations.
///
/// # Safety
/// The processor has the instructions of `L`; the panels were packed for it from `E`, `k` long; `x` has `M` rows.
#[inline(always)]
pub(super) unsafe fn run<L: Lanes, E: Element, const M: usize, const P: usize>(
    panel: *const u8,
    step: usize,
    x: *const f32,
    k: usize,
) -> [[[L::Floats; 2]; M]; P] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut total = [[[L::splat(0.0); 2]; M]; P];
        for c in 0..k {
            for p in 0..P {
                let at = panel.add(p * step + c * 2 * L::ROWS * E::BYTES);
                let weights = [E::load::<L>(at), E::load::<L>(at.add(L::ROWS * E::BYTES))];
                for row in 0..M {
                    let x = L::splat(*x.add(row * k + c));
                    total[p][row][0] = L::mul_add(weights[0], x, total[p][row][0]);
                    total[p][row][1] = L::mul_add(weights[1], x, total[p][row][1]);
                }
            }
        }
        total
    }
}

/// Widens a panel of `k` times twice [`Lanes::ROWS`] weights.
///
/// # Safety
/// The processor has the instructions of `L`; there are that many weights at `panel` and floats at `out`.
#[inline(always)]
pub(super) unsafe fn widen<L: Lanes, E: Element>(panel: *const u8, k: usize, out: *mut f32) {
    for index in 0..2 * k {
        // SAFETY: the caller's promise.
        unsafe { L::store(out.add(index * L::ROWS), E::load::<L>(panel.add(index * L::ROWS * E::BYTES))) };
    }
}
