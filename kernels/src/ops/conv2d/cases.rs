//! The case table of the kernel, and its run on a device.

use super::cuda::{Planes, conv2d};
use crate::cuda::Gpu;
use crate::cuda::check::Report;
use crate::ops::conv1d::Window;
use crate::ops::gemm::cuda::Activation;

/// count, rows, columns, c_in, n; kernel, stride, pad. The last has the channels of the audio tower.
const CASES: [([usize; 5], [usize; 3]); 6] = [
    ([1, 1, 1, 8, 2], [3, 2, 1]),
    ([2, 7, 5, 8, 18], [3, 2, 1]),
    ([1, 20, 13, 16, 66], [3, 1, 1]),
    ([1, 9, 9, 24, 8], [2, 2, 0]),
    ([1, 50, 16, 8, 8], [3, 2, 1]),
    ([1, 4, 6, 480, 96], [3, 2, 1]),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for ([count, rows, columns, c_in, n], [kernel, stride, pad]) in CASES {
        report.case(
            gpu,
            format_args!("{count} of {rows}×{columns}×{c_in} → {n}, {kernel} {stride} {pad}"),
            |noise| {
                let (planes, window) = (Planes { count, rows, columns, c_in }, Window { kernel, stride, pad });
                let x = gpu.upload(&noise.bf16s(count * rows * columns * c_in, 1.0))?;
                let w = gpu.upload(&noise.bf16s(n * kernel * kernel * c_in, 1.0))?;
                let bias = gpu.upload(&noise.bf16s(n, 2.0))?;
                let mut y = gpu.allocate(count * window.outputs(rows) * window.outputs(columns) * n)?;
                conv2d(gpu, x.all(), planes, w.all(), window, bias.all(), Activation::Gelu, &mut y.all_mut())
            },
        );
    }
}
