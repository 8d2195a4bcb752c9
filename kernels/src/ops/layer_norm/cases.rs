//! The case table of the kernels, and its run on a device.

use super::cuda;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// Rows, values of a row, magnitude.
const CASES: [(usize, usize, f32); 9] = [
    (1, 8, 1.0),
    (3, 32, 1.0),
    (5, 1280, 3.0),
    (2, 2040, 1.0),
    (1, 2048, 30.0),
    (2, 2056, 1.0),
    (3, 4608, 0.1),
    (1, 1024, 0.0),
    (1, 6144, 1.0),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (m, n, scale) in CASES {
        report.case(gpu, format_args!("{m}×{n} × {scale}"), |noise| {
            let (x, gamma) = (gpu.upload(&noise.bf16s(m * n, scale))?, gpu.upload(&noise.bf16s(n, 2.0))?);
            let (beta, mut y) = (gpu.upload(&noise.bf16s(n, 1.0))?, gpu.allocate(m * n)?);
            cuda::layer_norm(gpu, x.all(), gamma.all(), beta.all(), 1e-5, &mut y.all_mut())
        });
    }
}
