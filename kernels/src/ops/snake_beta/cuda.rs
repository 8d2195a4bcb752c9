//! Dispatch to the kernel of `snake_beta.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};

const THREADS: usize = 256;

/// The parameters of all channels, on a device.
pub struct Parameters {
    /// (frequency over π, scale) of a channel.
    values: Buffer<f32>,
    /// (alpha, beta), for the reference.
    logarithms: Vec<(f32, f32)>,
}

impl Parameters {
    /// From the logarithms that checkpoints hold.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// If there are not as many of one as of the other, or their number is not a multiple of 8.
    pub fn new(gpu: &Gpu, alpha: &[f32], beta: &[f32]) -> Result<Self, DeviceError> {
        assert!(alpha.len() == beta.len() && alpha.len().is_multiple_of(8), "snake_beta: {} channels", alpha.len());
        let logarithms: Vec<(f32, f32)> = alpha.iter().copied().zip(beta.iter().copied()).collect();
        let value = |(alpha, beta): &(f32, f32)| {
            let frequency = f64::from(*alpha).exp() / std::f64::consts::PI;
            [frequency as f32, (1.0 / (f64::from(*beta).exp() + 1e-9)) as f32]
        };
        Ok(Self { values: gpu.upload(&logarithms.iter().flat_map(value).collect::<Vec<_>>())?, logarithms })
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.logarithms.len()
    }
}

/// Applies the activation. x, y: `[rows, channels]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn snake_beta<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    parameters: &'a Parameters,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let channels = parameters.channels();
    assert!(channels > 0 && x.len() == y.len() && x.len().is_multiple_of(channels), "snake_beta: {}", x.len());
    if x.is_empty() {
        return Ok(());
    }
    let args = Args::new().input(x).input(parameters.values.all()).output(y).size(x.len() / channels).size(channels);
    let blocks = [(x.len() / 8).div_ceil(THREADS), 1, 1];
    // SAFETY: the arguments are the kernel's, and lengths were checked.
    unsafe { gpu.launch(&Launch::new("snake_beta", blocks, THREADS as u32, &args))? };
    gpu.verify("snake_beta", |checks| {
        let x = gpu.widened(x)?;
        let each = || x.iter().zip(parameters.logarithms.iter().cycle());
        let expected: Vec<f32> = each().map(|(&x, &(alpha, beta))| reference::snake_beta(x, alpha, beta)).collect();
        // The phase is rounded to f32, and the wave is as steep as its scale.
        let steepness = each().map(|(x, (alpha, beta))| x.abs() * alpha.exp() / (beta.exp() + 1e-9));
        let phase = greatest(&steepness.collect::<Vec<_>>()) * 4.0 * f32::EPSILON;
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, Tolerance::bf16().plus(phase + 1e-6));
        Ok(())
    })
}
