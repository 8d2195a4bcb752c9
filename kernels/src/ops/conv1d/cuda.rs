//! Dispatch to the kernels of `conv1d.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, DeviceError, Element, Gpu, Launch, Slice, SliceMut};
use crate::ops::gemm::cuda::{Epilogue, TILED, tiled_shared_bytes};

/// The taps of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps {
    /// Inputs of an output.
    pub count: usize,
    /// Rows from one output's first input to the next one's.
    pub stride: usize,
    /// Rows from one input of an output to the next.
    pub dilation: usize,
}

impl Taps {
    /// Neighbours, for every row.
    pub fn dense(count: usize) -> Self {
        Self { count, stride: 1, dilation: 1 }
    }

    /// Rows that an output takes beyond its first.
    pub fn history(self) -> usize {
        (self.count - 1) * self.dilation
    }

    /// Outputs of `rows` rows.
    pub fn outputs(self, rows: usize) -> usize {
        rows.checked_sub(self.history() + 1).map_or(0, |last| last / self.stride + 1)
    }
}

/// Convolves the rows of `x` where all taps are inside. x: `[rows, c_in]`, its history in front. weights: `[n, taps, c_in]`.
/// y: `[outputs, n]`, rounded.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit, c_in is not a multiple of 8 or n not one of 2.
pub fn conv1d<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    c_in: usize,
    weights: Slice<'a, bf16>,
    taps: Taps,
    epilogue: Epilogue<'a>,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    launch(gpu, "conv1d_bf16", x, c_in, weights, taps, epilogue, y, Tolerance::bf16())
}

/// As [`conv1d`], with results in f32.
///
/// # Errors
/// As [`conv1d`].
///
/// # Panics
/// As [`conv1d`].
pub fn conv1d_f32<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    c_in: usize,
    weights: Slice<'a, bf16>,
    taps: Taps,
    epilogue: Epilogue<'a>,
    y: &mut SliceMut<'_, f32>,
) -> Result<(), DeviceError> {
    launch(gpu, "conv1d_f32", x, c_in, weights, taps, epilogue, y, Tolerance::f32())
}

#[allow(clippy::too_many_arguments)] // The operands of both functions above.
fn launch<'a, Y: Element + Into<f32>>(
    gpu: &Gpu,
    kernel: &'static str,
    x: Slice<'a, bf16>,
    c_in: usize,
    weights: Slice<'a, bf16>,
    taps: Taps,
    epilogue: Epilogue<'a>,
    y: &mut SliceMut<'_, Y>,
    tolerance: Tolerance,
) -> Result<(), DeviceError> {
    let Taps { count, stride, dilation } = taps;
    assert!(count > 0 && stride > 0 && dilation > 0, "conv1d: {taps:?}");
    assert!(c_in > 0 && c_in.is_multiple_of(8) && x.len().is_multiple_of(c_in), "conv1d: {} / {c_in}", x.len());
    assert!(weights.len().is_multiple_of(count * c_in), "conv1d: {} weights", weights.len());
    let (n, outputs) = (weights.len() / (count * c_in), taps.outputs(x.len() / c_in));
    assert!(n > 0 && n.is_multiple_of(2) && y.len() == outputs * n, "conv1d: {} results of {outputs} × {n}", y.len());
    epilogue.check(n, outputs);
    if outputs == 0 {
        return Ok(());
    }
    let args = Args::new().input(x).input(weights).optional_input(epilogue.bias).optional_input(epilogue.residual);
    let args = args.output(y).size(epilogue.activation as usize).size(outputs).size(c_in);
    let args = args.size(count).size(stride).size(dilation).size(n);
    let blocks = [n.div_ceil(TILED.0), outputs.div_ceil(TILED.0), 1];
    let launch = Launch { shared_bytes: tiled_shared_bytes(1), ..Launch::new(kernel, blocks, TILED.1, &args) };
    // SAFETY: the arguments are the kernel's. It reads rows of x up to the last output's last tap, which is inside.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("conv1d", |checks| {
        let (x, w) = (gpu.widened(x)?, gpu.widened(weights)?);
        let mut expected = reference::valid(&x, c_in, &w, taps);
        let tolerance = tolerance.summing(count * c_in, greatest(&x) * greatest(&w));
        let tolerance = epilogue.expected(gpu, &mut expected, n, tolerance)?;
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, tolerance);
        Ok(())
    })
}
