//! Dispatch to the kernel of `noise.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::rounded;
use crate::cuda::{Args, DeviceError, Gpu, Launch, SliceMut};

const THREADS: usize = 256;
/// Values of a thread.
const EACH: usize = 8;

/// Fills `y` with the values of the places from 0 on, evenly between -`scale` and `scale`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If there is not a multiple of eight values.
pub fn noise(gpu: &Gpu, seed: u64, scale: f32, y: &mut SliceMut<'_, bf16>) -> Result<(), DeviceError> {
    assert!(y.len().is_multiple_of(EACH), "noise: {} values", y.len());
    if y.is_empty() {
        return Ok(());
    }
    let args = Args::new().output(y).long(seed).long((y.len() / EACH) as u64).float(scale);
    let launch = Launch::new("noise", [y.len().div_ceil(THREADS * EACH), 1, 1], THREADS as u32, &args);
    // SAFETY: the arguments are the kernel's, and it writes as many values as there are.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("noise", |checks| {
        let expected = reference::noise(seed, 0..y.len() as u64, scale);
        checks.equal("y", &gpu.widened(y.as_slice())?, &rounded(&expected));
        Ok(())
    })
}
