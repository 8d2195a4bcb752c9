//! Dispatch to the kernel of `scatter.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::rounded;
use crate::cuda::{Args, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Puts rows of `x` in their places in `y`, or adds them.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit, or a row has not a multiple of 8 values.
pub fn scatter<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    ids: Slice<'a, i32>,
    h: usize,
    add: bool,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    assert!(h > 0 && h.is_multiple_of(8) && x.len() == ids.len() * h, "scatter: {} values of {h}", x.len());
    assert!(y.len().is_multiple_of(h), "scatter: {} values of {h}", y.len());
    if ids.is_empty() || y.is_empty() {
        return Ok(());
    }
    let before = gpu.before(Some(y.as_slice()))?;
    let args = Args::new().input(x).input(ids).output(y).size(y.len() / h).size(h).size(usize::from(add));
    // SAFETY: the arguments are the kernel's; ids outside of y are not followed, and lengths were checked.
    unsafe { gpu.launch(&Launch::new("scatter", [ids.len(), 1, 1], 256, &args))? };
    gpu.verify("scatter", |checks| {
        let mut expected = before.unwrap_or_default();
        reference::scatter(&gpu.widened(x)?, &gpu.fetch(ids)?, h, add, &mut expected);
        checks.equal("y", &gpu.widened(y.as_slice())?, &rounded(&expected));
        Ok(())
    })
}
