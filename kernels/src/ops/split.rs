//! Disjoint mutable pieces of one slice for the workers of a pool, without unsafe code.

use std::sync::{Mutex, PoisonError};

use crate::Pool;

/// Calls `body(first_row, rows)` on pieces of `y` of at most `grain` rows of `width` values each, on all workers.
pub(super) fn for_each_rows(
    pool: &Pool,
    y: &mut [f32],
    width: usize,
    grain: usize,
    body: &(dyn Fn(usize, &mut [f32]) + Sync),
) {
    let grain = grain.max(1);
    if pool.threads() == 1 || y.len() <= width * grain {
        return body(0, y);
    }
    // Each piece is locked once, by the worker it was handed to: the lock only proves to the compiler what the ranges
    // of the pool promise.
    let pieces: Vec<_> = y.chunks_mut(width * grain).map(Mutex::new).collect();
    pool.for_each(pieces.len(), 1, &|range| {
        for piece in range {
            body(piece * grain, &mut pieces[piece].lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
}
