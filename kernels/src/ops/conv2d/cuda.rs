//! Dispatch to the kernel of `conv2d.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, DeviceError, Gpu, Launch, Slice, SliceMut};
use crate::ops::conv1d::Window;
use crate::ops::gemm::cuda::{Activation, Epilogue, TILED, tiled_shared_bytes};

/// Planes of a call, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planes {
    /// How many.
    pub count: usize,
    /// Rows of one.
    pub rows: usize,
    /// Columns of one.
    pub columns: usize,
    /// Values at each place.
    pub c_in: usize,
}

/// Convolves planes. x: `[count, rows, columns, c_in]`. weights: `[n, kernel, kernel, c_in]`. bias: `[n]`. y: `[count,
/// rows', columns', n]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit, c_in is not a multiple of 8 or n not one of 2.
#[allow(clippy::too_many_arguments)] // The op's operands.
pub fn conv2d<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    planes: Planes,
    weights: Slice<'a, bf16>,
    window: Window,
    bias: Slice<'a, bf16>,
    activation: Activation,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let Planes { count, rows, columns, c_in } = planes;
    let Window { kernel, stride, pad } = window;
    let (n, k) = (bias.len(), kernel * kernel * c_in);
    let (rows_out, columns_out) = (window.outputs(rows), window.outputs(columns));
    assert!(stride > 0 && kernel > 0 && c_in > 0 && c_in.is_multiple_of(8), "conv2d: {window:?} of {planes:?}");
    assert!(x.len() == count * rows * columns * c_in, "conv2d: {} values of {planes:?}", x.len());
    assert!(n > 0 && n.is_multiple_of(2) && weights.len() == n * k, "conv2d: {} weights", weights.len());
    assert!(y.len() == count * rows_out * columns_out * n, "conv2d: {} results of {planes:?}", y.len());
    if y.is_empty() {
        return Ok(());
    }
    let args = Args::new().input(x).input(weights).input(bias).output(y).size(activation as usize);
    let args = args.size(rows).size(columns).size(rows_out).size(columns_out).size(c_in);
    let args = args.size(kernel).size(stride).size(pad).size(n);
    let blocks = [n.div_ceil(TILED.0), (rows_out * columns_out).div_ceil(TILED.0), count];
    let launch = Launch { shared_bytes: tiled_shared_bytes(1), ..Launch::new("conv2d", blocks, TILED.1, &args) };
    // SAFETY: the arguments are the kernel's, it reads only inside of planes, and lengths were checked.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("conv2d", |checks| {
        let (x, w) = (gpu.widened(x)?, gpu.widened(weights)?);
        let plane = |plane: &[f32]| reference::channels_last(plane, rows, c_in, &w, window);
        let mut expected: Vec<f32> = x.chunks(rows * columns * c_in).flat_map(plane).collect();
        let tolerance = Tolerance::bf16().summing(k, greatest(&x) * greatest(&w));
        let epilogue = Epilogue { activation, ..Epilogue::bias(bias) };
        let tolerance = epilogue.expected(gpu, &mut expected, n, tolerance)?;
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, tolerance);
        Ok(())
    })
}
