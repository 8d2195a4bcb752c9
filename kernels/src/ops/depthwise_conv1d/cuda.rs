//! Dispatch to the kernel of `depthwise_conv1d.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, DeviceError, Gpu, Launch, Slice, SliceMut};

const THREADS: usize = 256;

/// Convolves every channel by itself. x: `[taps - 1 + rows, channels]`, its history in front. weights: `[taps, channels]`.
/// bias: `[channels]`, a multiple of 8. y: `[rows, channels]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn depthwise_conv1d<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    bias: Slice<'a, bf16>,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let channels = bias.len();
    assert!(channels > 0 && channels.is_multiple_of(8), "depthwise_conv1d: {channels} channels");
    let taps = weights.len() / channels;
    assert!(taps > 0 && weights.len() == taps * channels, "depthwise_conv1d: {} weights", weights.len());
    assert!(y.len().is_multiple_of(channels), "depthwise_conv1d: {} results", y.len());
    assert!(x.len() == y.len() + (taps - 1) * channels, "depthwise_conv1d: {} → {}", x.len(), y.len());
    if y.is_empty() {
        return Ok(());
    }
    let args = Args::new().input(x).input(weights).input(bias).output(y);
    let args = args.size(y.len() / channels).size(channels).size(taps);
    let blocks = [(y.len() / 8).div_ceil(THREADS), 1, 1];
    // SAFETY: the arguments are the kernel's, and lengths were checked.
    unsafe { gpu.launch(&Launch::new("depthwise_conv1d", blocks, THREADS as u32, &args))? };
    gpu.verify("depthwise_conv1d", |checks| {
        let (x, w, bias) = (gpu.widened(x)?, gpu.widened(weights)?, gpu.widened(bias)?);
        // The reference takes a stream from its beginning and `[channels, taps]`.
        let turned: Vec<f32> = (0..w.len()).map(|i| w[i % taps * channels + i / taps]).collect();
        let expected = reference::depthwise_conv1d(&x, &turned, &bias);
        let tolerance = Tolerance::bf16().summing(taps + 1, greatest(&x) * greatest(&w) + greatest(&bias));
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected[(taps - 1) * channels..], tolerance);
        Ok(())
    })
}
