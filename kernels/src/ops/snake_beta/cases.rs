//! The case table of the kernel, and its run on a device.

use super::cuda::{Parameters, snake_beta};
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// rows, channels, magnitude.
const CASES: [(usize, usize, f32); 4] = [(1, 8, 1.0), (65, 24, 30.0), (3, 1536, 4.0), (640, 96, 1.0)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (rows, channels, magnitude) in CASES {
        report.case(gpu, format_args!("{rows}×{channels} × {magnitude}"), |noise| {
            let parameters = Parameters::new(gpu, &noise.f32s(channels, 2.0), &noise.f32s(channels, 2.0))?;
            let x = gpu.upload(&noise.bf16s(rows * channels, magnitude))?;
            snake_beta(gpu, x.all(), &parameters, &mut gpu.allocate(rows * channels)?.all_mut())
        });
    }
}
