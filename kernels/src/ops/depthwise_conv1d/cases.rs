//! The case table of the kernel, and its run on a device.

use super::cuda::depthwise_conv1d;
use crate::cuda::Gpu;
use crate::cuda::check::Report;

/// rows, channels, taps.
const CASES: [(usize, usize, usize); 5] = [(1, 8, 1), (3, 32, 7), (7, 1024, 7), (65, 40, 3), (2, 2048, 2)];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (rows, channels, taps) in CASES {
        report.case(gpu, format_args!("{rows}×{channels}, {taps} taps"), |noise| {
            let x = gpu.upload(&noise.bf16s((rows + taps - 1) * channels, 1.0))?;
            let w = gpu.upload(&noise.bf16s(taps * channels, 1.0))?;
            let (bias, mut y) = (gpu.upload(&noise.bf16s(channels, 1.0))?, gpu.allocate(rows * channels)?);
            depthwise_conv1d(gpu, x.all(), w.all(), bias.all(), &mut y.all_mut())
        });
    }
}
