//! Dispatch to the kernels of `log_mel.cu`.

use std::f64::consts::TAU;

use half::bf16;

use super::filters::Filters;
use super::{HOP, N_FFT, RANGE, reference};
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};

const THREADS: usize = 256;
/// Values of a place in the plane of [`LogMel::finish`].
pub const PLACE: usize = 8;

/// Tables for a number of mel bands, on a device.
pub struct LogMel {
    tables: Buffer<f32>,
    firsts: Buffer<i32>,
    offsets: Buffer<i32>,
    weights: Buffer<f32>,
    filters: Filters,
}

/// Integers in the order of floats, as the kernel keeps its maximum.
fn ordered(x: f32) -> i32 {
    let bits = x.to_bits() as i32;
    if bits >= 0 { bits } else { bits ^ i32::MAX }
}

impl LogMel {
    /// Tables for `mels` bands.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn new(gpu: &Gpu, mels: usize) -> Result<Self, DeviceError> {
        let filters = Filters::new(mels);
        let angle = |n: usize| TAU * n as f64 / N_FFT as f64;
        let table = |of: fn(f64) -> f64| (0..N_FFT).map(move |n| of(angle(n)) as f32);
        let tables: Vec<f32> = table(|a| 0.5 - 0.5 * a.cos()).chain(table(f64::cos)).chain(table(f64::sin)).collect();
        let mut offsets = vec![0];
        filters.bands().iter().for_each(|band| offsets.push(offsets[offsets.len() - 1] + band.weights.len() as i32));
        let firsts: Vec<i32> = filters.bands().iter().map(|band| band.first as i32).collect();
        let weights: Vec<f32> = filters.bands().iter().flat_map(|band| band.weights.iter().copied()).collect();
        Ok(Self {
            tables: gpu.upload(&tables)?,
            firsts: gpu.upload(&firsts)?,
            offsets: gpu.upload(&offsets)?,
            weights: gpu.upload(&weights)?,
            filters,
        })
    }

    /// What a maximum begins with.
    pub fn silence() -> i32 {
        ordered(f32::NEG_INFINITY)
    }

    /// The logarithms of all bands of frames, and their maximum with what `peak` holds. pcm: as many samples as the frames'
    /// windows, `(frames - 1) · 160 + 400`. out: `[frames, mels]`. peak: one value, [`LogMel::silence`] at first.
    ///
    /// # Errors
    /// As [`Gpu::synchronize`].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn frames<'a>(
        &'a self,
        gpu: &Gpu,
        pcm: Slice<'a, f32>,
        out: &mut SliceMut<'_, f32>,
        peak: &mut SliceMut<'_, i32>,
    ) -> Result<(), DeviceError> {
        let mels = self.filters.mels();
        let frames = out.len() / mels;
        assert!(frames > 0 && out.len() == frames * mels && peak.len() == 1, "log_mel: {} values", out.len());
        assert_eq!(pcm.len(), (frames - 1) * HOP + N_FFT, "log_mel: samples for {frames} frames");
        let args = Args::new().input(pcm).input(self.tables.all()).input(self.firsts.all()).input(self.offsets.all());
        let args = args.input(self.weights.all()).output(out).output(peak).size(mels);
        // SAFETY: the arguments are the kernel's, bands are inside of the spectrum, and lengths were checked.
        unsafe { gpu.launch(&Launch::new("log_mel_frames", [frames, 1, 1], THREADS as u32, &args))? };
        gpu.verify("log_mel", |checks| {
            let pcm = gpu.fetch(pcm)?;
            // A sum of 400 products, for every bin.
            let error = 4.0 * f32::EPSILON * (N_FFT as f32).sqrt() * greatest(&pcm);
            let frame = |frame: usize| {
                let spectrum = reference::spectrum(|n| f64::from(pcm[frame * HOP + n]));
                reference::bands(&self.filters, &spectrum, error)
            };
            let (expected, allowed): (Vec<f32>, Vec<f32>) = (0..frames).flat_map(frame).unzip();
            let got = gpu.fetch(out.as_slice())?;
            checks.within("out", &got, &expected, |at| allowed[at]);
            let most = got.iter().copied().map(ordered).max().unwrap_or(i32::MIN);
            checks.equal("peak is at least the maximum", &[gpu.fetch(peak.as_slice())?[0] >= most], &[true]);
            Ok(())
        })
    }

    /// Values as a network takes them, each at the beginning of [`PLACE`] values: `(max(x, peak - 8) + 4) / 4`.
    ///
    /// # Errors
    /// As [`Gpu::synchronize`].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn finish<'a>(
        &self,
        gpu: &Gpu,
        x: Slice<'a, f32>,
        peak: Slice<'a, i32>,
        y: &mut SliceMut<'_, bf16>,
    ) -> Result<(), DeviceError> {
        assert!(y.len() == x.len() * PLACE && peak.len() == 1, "log_mel: {} values for {}", y.len(), x.len());
        if x.is_empty() {
            return Ok(());
        }
        let args = Args::new().input(x).input(peak).output(y).size(x.len());
        let launch = Launch::new("log_mel_finish", [x.len().div_ceil(THREADS), 1, 1], THREADS as u32, &args);
        // SAFETY: the arguments are the kernel's, and lengths were checked.
        unsafe { gpu.launch(&launch)? };
        gpu.verify("log_mel", |checks| {
            let (x, peak) = (gpu.fetch(x)?, gpu.fetch(peak)?[0]);
            let floor = f32::from_bits((if peak >= 0 { peak } else { peak ^ i32::MAX }) as u32) - RANGE;
            let place = |x: &f32| std::iter::once((x.max(floor) + 4.0) / 4.0).chain([0.0; PLACE - 1]);
            let expected: Vec<f32> = x.iter().flat_map(place).collect();
            checks.close("y", &gpu.fetch(y.as_slice())?, &expected, Tolerance::bf16());
            Ok(())
        })
    }
}
