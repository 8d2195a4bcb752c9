//! The case table of all versions, and its run on a device.

use super::cuda;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// Rows, values of a row, magnitude.
pub(super) const CASES: [(usize, usize, f32); 11] = [
    (1, 1, 1.0),
    (3, 7, 1.0),
    (2, 8, 1e-3),
    (65, 97, 30.0),
    (5, 576, 1.0),
    (1, 1536, 0.0),
    (7, 2040, 1.0),
    (2, 2048, 4.0),
    (3, 2056, 1.0),
    (1, 4608, 0.2),
    (2, 6144, 1.0),
];

/// Rows that kernels take: whole vectors.
pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (m, n, scale) in CASES.into_iter().filter(|(_, n, _)| n.is_multiple_of(8)) {
        for with_residual in [false, true] {
            report.case(gpu, format_args!("{m}×{n} residual {with_residual}"), |noise| {
                let (x, gamma) = (gpu.upload(&noise.bf16s(m * n, scale))?, gpu.upload(&noise.bf16s(n, 2.0))?);
                let (mut residual, mut y) = (gpu.upload(&noise.bf16s(m * n, scale))?, gpu.allocate(m * n)?);
                let mut residual = residual.all_mut();
                let residual = with_residual.then_some(&mut residual);
                cuda::rms_norm(gpu, x.all(), residual, gamma.all(), 1e-6, &mut y.all_mut())
            });
        }
    }
}
