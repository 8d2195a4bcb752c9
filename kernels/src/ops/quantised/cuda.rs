//! Dispatch to the kernels of `quantised.cu`.

use half::bf16;

use super::{Format, reference};
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};
use crate::ops::gemm::reference::{Groups, gemm};

/// Outputs of a block, a warp each.
const OUTPUTS: usize = 8;
/// Tokens that weights are read once for.
const TOKENS: usize = 8;

/// A matrix on a device.
pub struct Matrix {
    format: Format,
    bytes: Buffer<u8>,
    scales: Buffer<f32>,
    n: usize,
    k: usize,
}

impl Matrix {
    /// Rounds rows of `k` values and uploads them.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// As [`Format::pack`].
    pub fn new(gpu: &Gpu, format: Format, values: &[f32], k: usize) -> Result<Self, DeviceError> {
        let packed = format.pack(values, k);
        let (bytes, scales) = (gpu.upload(&packed.bytes)?, gpu.upload(&packed.scales)?);
        Ok(Self { format, bytes, scales, n: values.len() / k, k })
    }
}

/// `y = x Wᵀ`. x: `[tokens, k]`. y: `[tokens, n]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn linear<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    matrix: &'a Matrix,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let Matrix { format, n, k, .. } = *matrix;
    let tokens = x.len() / k;
    assert!(x.len() == tokens * k && y.len() == tokens * n, "quantised: {} → {}", x.len(), y.len());
    if tokens == 0 {
        return Ok(());
    }
    let args = Args::new().input(x).input(matrix.bytes.all()).input(matrix.scales.all()).output(y);
    let args = args.size(tokens).size(n).size(k);
    let kernel = match format {
        Format::Fp8 => "linear_fp8",
        Format::Int4 => "linear_int4",
    };
    let blocks = [n.div_ceil(OUTPUTS), tokens.div_ceil(TOKENS), 1];
    // SAFETY: the arguments are the kernel's; the matrix was packed with these n and k, and lengths were checked.
    unsafe { gpu.launch(&Launch::new(kernel, blocks, 256, &args))? };
    gpu.verify("quantised", |checks| {
        let weights = reference::unpack(format, &matrix.bytes.read()?, &matrix.scales.read()?, k);
        let (x, rows) = (gpu.widened(x)?, (0..tokens).collect::<Vec<_>>());
        let expected = gemm(&x, &weights, Groups { offsets: &[0, tokens], rows: &rows }, n, k);
        let tolerance = Tolerance::bf16().summing(k, greatest(&x) * greatest(&weights));
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, tolerance);
        Ok(())
    })
}
