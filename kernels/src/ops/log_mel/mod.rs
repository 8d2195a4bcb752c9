//! The log-mel spectrogram of Whisper (arXiv 2212.04356 §2.2) and of the models that borrow its front end.
//!
//! Audio at 16 kHz, windows of 400 samples (periodic Hann) every 160, centred, the ends reflected; power spectrum; mel
//! filters on Slaney's scale with Slaney's area normalisation, 0 to 8000 Hz; `log10` with a floor of 1e-10, then of the
//! maximum less 8; `(x + 4) / 4`. The frame centred behind the last sample is dropped, as the models were trained so.
//!
//! pcm: `[samples]` f32. out: `[frames, mels]` f32, row-major, time first.

pub(crate) mod cases;
mod cpu;
pub mod cuda;
mod filters;
mod reference;
#[cfg(test)]
mod tests;

use super::split::for_each_rows;
use crate::Pool;
use cpu::Fourier;
use filters::Filters;

/// Samples from one frame to the next.
pub const HOP: usize = 160;
/// Samples of a window.
pub const N_FFT: usize = 400;
const BINS: usize = N_FFT / 2 + 1;

/// Powers below this are this.
const FLOOR: f32 = 1e-10;
/// Decades (of power) below the maximum that are kept.
const RANGE: f32 = 8.0;
/// Frames handed to a worker at once; a multiple of what is transformed together.
const GRAIN: usize = 32;

/// Tables for a number of mel bands.
pub struct LogMel {
    fourier: Fourier,
    filters: Filters,
}

impl LogMel {
    /// Tables for `mels` bands (80 for Whisper up to large-v2, 128 after).
    pub fn new(mels: usize) -> Self {
        Self { fourier: Fourier::new(), filters: Filters::new(mels) }
    }

    /// Bands.
    pub fn mels(&self) -> usize {
        self.filters.mels()
    }

    /// Computes `out.len() / mels` frames of `pcm`, which is cut or extended with zeros to [`HOP`] samples a frame.
    ///
    /// # Panics
    /// If `out` is not whole frames, or is one frame alone (there is nothing to reflect).
    pub fn compute(&self, pool: &Pool, pcm: &[f32], out: &mut [f32]) {
        self.logarithms(pool, pcm, out);
        scale(out, loudest(out));
    }

    /// The logarithms that [`scale`] makes a spectrogram of: for streams, whose maximum is not known yet.
    ///
    /// # Panics
    /// As [`LogMel::compute`].
    pub fn logarithms(&self, pool: &Pool, pcm: &[f32], out: &mut [f32]) {
        let mels = self.mels();
        assert!(out.len().is_multiple_of(mels), "log_mel: {} values are not frames of {mels}", out.len());
        let frames = out.len() / mels;
        assert!(frames != 1, "log_mel: one frame has nothing to reflect");
        let samples = frames * HOP;
        let pcm = &pcm[..pcm.len().min(samples)];
        let power = cpu::best();
        for_each_rows(pool, out, mels, GRAIN, &|first, out| {
            let mut windows = [0.0; cpu::FRAMES * N_FFT];
            let mut spectra = [0.0; cpu::FRAMES * cpu::PADDED_BINS];
            for (group, out) in out.chunks_mut(cpu::FRAMES * mels).enumerate() {
                let first = first + group * cpu::FRAMES;
                let mut silent = true;
                for (frame, window) in windows.chunks_exact_mut(N_FFT).enumerate() {
                    silent &= fill(pcm, samples, first + frame, window);
                }
                if silent {
                    out.fill(FLOOR.log10());
                    continue;
                }
                power(&self.fourier, &windows, &mut spectra);
                for (out, spectrum) in out.chunks_exact_mut(mels).zip(spectra.chunks_exact(cpu::PADDED_BINS)) {
                    self.filters.apply(&spectrum[..BINS], out);
                    out.iter_mut().for_each(|v| *v = v.max(FLOOR).log10());
                }
            }
        });
    }
}

/// The largest of some logarithms.
pub fn loudest(logarithms: &[f32]) -> f32 {
    logarithms.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Makes a spectrogram of logarithms, of which the largest is `loudest`.
pub fn scale(logarithms: &mut [f32], loudest: f32) {
    let floor = loudest - RANGE;
    logarithms.iter_mut().for_each(|v| *v = (v.max(floor) + 4.0) / 4.0);
}

/// Copies the samples around the centre of `frame`, reflected at 0 and at `samples`, zero from the end of `pcm` up to
/// there. Whether all are zero.
fn fill(pcm: &[f32], samples: usize, frame: usize, window: &mut [f32]) -> bool {
    let start = (frame * HOP) as isize - (N_FFT / 2) as isize;
    let end = start + N_FFT as isize;
    if start >= 0 && end <= pcm.len() as isize {
        window.copy_from_slice(&pcm[start as usize..end as usize]);
        return false;
    }
    let mut silent = true;
    for (at, value) in (start..end).zip(window) {
        let last = samples as isize - 1;
        let reflected = if at < 0 { -at } else { last - (last - at).abs() };
        // Groups of frames are filled to the end even where the spectrogram ends before.
        *value = usize::try_from(reflected).ok().and_then(|at| pcm.get(at)).copied().unwrap_or(0.0);
        silent &= *value == 0.0;
    }
    silent
}
