//! Dispatch to the kernels of `rms_norm.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, rounded};
use crate::cuda::{Args, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Longest row.
pub const MAX_N: usize = 6144;
const THREADS: u32 = 256;

/// Normalises the rows of `x` into `y`. With a residual, `x` is added to it first, and the sum is normalised.
///
/// x, residual, y: `[m, n]` bf16, row-major. gamma: `[n]` bf16. n is a multiple of 8, at most [`MAX_N`].
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    mut residual: Option<&mut SliceMut<'_, bf16>>,
    gamma: Slice<'a, bf16>,
    eps: f32,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let n = gamma.len();
    assert!(n > 0 && n.is_multiple_of(8) && n <= MAX_N, "rms_norm: rows of {n}");
    assert!(x.len() == y.len() && x.len().is_multiple_of(n), "rms_norm: {} → {}, n = {n}", x.len(), y.len());
    assert!(residual.as_ref().is_none_or(|r| r.len() == x.len()), "rms_norm: the residual has another shape");
    if x.is_empty() {
        return Ok(());
    }
    let before = gpu.before(residual.as_ref().map(|r| r.as_slice()))?;
    let args = Args::new().input(x).optional_output(residual.as_deref_mut()).input(gamma).output(y).size(n).float(eps);
    let launch =
        Launch::new(if n <= 2048 { "rms_norm_2048" } else { "rms_norm_6144" }, [(x.len() / n), 1, 1], THREADS, &args);
    // SAFETY: the arguments are the kernel's; it reads and writes the rows of x, y and residual and `n` values of gamma,
    // whose lengths were checked.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("rms_norm", |checks| {
        let (mut sum, gamma) = (gpu.widened(x)?, gpu.widened(gamma)?);
        if let (Some(before), Some(residual)) = (before, residual) {
            sum.iter_mut().zip(&before).for_each(|(x, before)| *x += before);
            sum = rounded(&sum);
            checks.equal("residual", &gpu.widened(residual.as_slice())?, &sum);
        }
        let mut expected = vec![0.0; sum.len()];
        reference::rms_norm(&sum, &vec![1.0; n], eps, &mut expected);
        let mut expected = rounded(&expected);
        expected.iter_mut().zip(gamma.iter().cycle()).for_each(|(v, gamma)| *v *= gamma);
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, Tolerance::bf16());
        Ok(())
    })
}
