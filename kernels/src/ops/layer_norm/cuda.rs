//! Dispatch to the kernels of `layer_norm.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Longest row.
pub const MAX_N: usize = 6144;
const THREADS: u32 = 256;

/// Normalises the rows of `x` into `y`, both `[m, n]`. gamma, beta: `[n]`. n is a multiple of 8, at most [`MAX_N`].
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn layer_norm<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    gamma: Slice<'a, bf16>,
    beta: Slice<'a, bf16>,
    eps: f32,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let n = gamma.len();
    assert!(n > 0 && n.is_multiple_of(8) && n <= MAX_N && beta.len() == n, "layer_norm: rows of {n}");
    assert!(x.len() == y.len() && x.len().is_multiple_of(n), "layer_norm: {} → {}, n = {n}", x.len(), y.len());
    if x.is_empty() {
        return Ok(());
    }
    let args = Args::new().input(x).input(gamma).input(beta).output(y).size(n).float(eps);
    let kernel = if n <= 2048 { "layer_norm_2048" } else { "layer_norm_6144" };
    // SAFETY: the arguments are the kernel's; it reads and writes the rows of x and y, whose lengths were checked.
    unsafe { gpu.launch(&Launch::new(kernel, [x.len() / n, 1, 1], THREADS, &args))? };
    gpu.verify("layer_norm", |checks| {
        let (x, gamma, beta) = (gpu.widened(x)?, gpu.widened(gamma)?, gpu.widened(beta)?);
        let mut expected = vec![0.0; x.len()];
        reference::layer_norm(&x, &gamma, &beta, eps, &mut expected);
        // The mean is off by as much as the sum is, and a small variance magnifies that.
        let normal = (greatest(&x) / eps.sqrt()).min((n as f32).sqrt());
        let tolerance = Tolerance::bf16().summing(n, 4.0 * normal * greatest(&gamma) + greatest(&beta));
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, tolerance);
        Ok(())
    })
}
