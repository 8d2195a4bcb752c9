//! The case table of the kernels, and its run on a device.

use super::cuda::{LogMel, PLACE};
use super::{HOP, N_FFT};
use crate::cuda::Gpu;
use crate::cuda::check::{Noise, Report};

/// A sample by its number.
type Sample = fn(usize, &mut Noise) -> f32;

/// Frames, bands, and samples.
const CASES: [(usize, usize, Sample); 4] = [
    (1, 80, |_, noise| noise.f32s(1, 0.5)[0]),
    (7, 128, |_, noise| noise.f32s(1, 1.0)[0]),
    // A tone and silence.
    (3, 128, |n, _| 0.3 * (n as f32 * 0.4).sin()),
    (2, 80, |_, _| 0.0),
];

pub(crate) fn on_device(gpu: &Gpu, report: &mut Report) {
    for (frames, mels, sample) in CASES {
        report.case(gpu, format_args!("{frames} frames of {mels}"), |noise| {
            let op = LogMel::new(gpu, mels)?;
            let pcm: Vec<f32> = (0..(frames - 1) * HOP + N_FFT).map(|n| sample(n, noise)).collect();
            let (pcm, mut out) = (gpu.upload(&pcm)?, gpu.allocate(frames * mels)?);
            let mut peak = gpu.upload(&[LogMel::silence()])?;
            op.frames(gpu, pcm.all(), &mut out.all_mut(), &mut peak.all_mut())?;
            op.finish(gpu, out.all(), peak.all(), &mut gpu.allocate(frames * mels * PLACE)?.all_mut())
        });
    }
}
