//! The case table of the kernels, and its run on a device.

use super::cuda::{Taps, conv1d, conv1d_f32};
use crate::cuda::Gpu;
use crate::cuda::check::Report;
use crate::ops::gemm::cuda::{Activation, Epilogue};

/// rows, c_in, n, taps. The last three are of the vocoder: its first convolution, a dilated one and a transposed one.
const CASES: [(usize, usize, usize, Taps); 9] = [
    (1, 8, 2, Taps { count: 1, stride: 1, dilation: 1 }),
    (9, 8, 18, Taps { count: 3, stride: 1, dilation: 1 }),
    (65, 16, 66, Taps { count: 2, stride: 1, dilation: 1 }),
    (71, 24, 8, Taps { count: 7, stride: 1, dilation: 1 }),
    (140, 8, 40, Taps { count: 7, stride: 1, dilation: 9 }),
    (50, 40, 16, Taps { count: 3, stride: 2, dilation: 3 }),
    (10, 1024, 128, Taps { count: 7, stride: 1, dilation: 1 }),
    (60, 96, 96, Taps { count: 7, stride: 1, dilation: 9 }),
    (3, 768, 384 * 4, Taps { count: 2, stride: 1, dilation: 1 }),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (rows, c_in, n, taps) in CASES {
        report.case(gpu, format_args!("{rows}×{c_in} → {n}, {taps:?}"), |noise| {
            let (x, w) = (noise.bf16s(rows * c_in, 1.0), noise.bf16s(n * taps.count * c_in, 1.0));
            let (x, w, bias) = (gpu.upload(&x)?, gpu.upload(&w)?, gpu.upload(&noise.bf16s(n, 2.0))?);
            let size = taps.outputs(rows) * n;
            let (residual, mut y) = (gpu.upload(&noise.bf16s(size, 3.0))?, gpu.allocate(size)?);
            let full =
                Epilogue { bias: Some(bias.all()), activation: Activation::Gelu, residual: Some(residual.all()) };
            conv1d(gpu, x.all(), c_in, w.all(), taps, full, &mut y.all_mut())?;
            let mut y = gpu.allocate(size)?;
            conv1d_f32(gpu, x.all(), c_in, w.all(), taps, Epilogue::bias(bias.all()), &mut y.all_mut())
        });
    }
}
