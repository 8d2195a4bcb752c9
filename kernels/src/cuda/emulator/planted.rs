//! Mistakes that only sanitizers see, to show that they are watching.

use std::path::Path;

use super::{Emulator, Sanitizer, build};
use crate::cuda::{Args, DeviceError, Gpu, Launch};

/// Kernels of `emu/conformance/undefined.cu`, and what the report of a sanitizer has to say.
pub const REPORTS: [(&str, &str); 3] = [
    ("write_past_the_end", "heap-buffer-overflow"),
    ("read_past_shared", "heap-buffer-overflow"),
    ("index_past_array", "out of bounds"),
];

/// Makes the mistake: accesses value 8 of 8.
///
/// # Errors
/// If there is no such mistake; with sanitizers, the process ends instead.
pub fn planted(kernel: &str) -> Result<(), DeviceError> {
    let (kernel, _) = REPORTS
        .iter()
        .find(|(name, _)| *name == kernel)
        .ok_or_else(|| DeviceError::Launch(format!("{kernel} is not a planted mistake")))?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("emu/conformance/undefined.cu");
    let gpu = Gpu::new(Emulator::open(&build(&[source], Sanitizer::from_environment())?, 0)?);
    let mut out = gpu.upload(&[0_i32; 8])?;
    let mut out = out.all_mut();
    let args = Args::new().output(&mut out).size(8);
    let launch = Launch { kernel, grid: [1; 3], block: [32, 1, 1], shared_bytes: 32, cooperative: false, args: &args };
    // SAFETY: none; the process is there to be ended by a sanitizer.
    unsafe { gpu.launch(&launch) }
}
