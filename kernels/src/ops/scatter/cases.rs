//! The case table, and its run on a device.

use super::cuda::scatter;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// rows of x, rows of y, h.
const CASES: [(usize, usize, usize); 4] = [(1, 1, 8), (5, 9, 64), (3, 7, 2048), (2, 4, 2056)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (rows, all, h) in CASES {
        for add in [false, true] {
            report.case(gpu, format_args!("{rows} of {all} × {h}, {add}"), |noise| {
                // Every place once, and two outside.
                let mut places: Vec<i32> = (-1..=all as i32).collect();
                let ids: Vec<i32> = (0..rows).map(|_| places.swap_remove(noise.below(places.len()))).collect();
                let (x, ids) = (gpu.upload(&noise.bf16s(rows * h, 1.0))?, gpu.upload(&ids)?);
                let mut y = gpu.upload(&noise.bf16s(all * h, 1.0))?;
                scatter(gpu, x.all(), ids.all(), h, add, &mut y.all_mut())
            });
        }
    }
}
