//! From what a decoder yields, any rate and channel count, to mono at 16 kHz.

use causerie_units::SampleRate;

use crate::format::check_channels;
use crate::resample::Resampler;
use crate::{CodecError, INPUT_RATE};

/// Where decoders put their samples.
pub(crate) trait FrameSink {
    /// The frames that follow have this rate and channel count.
    fn begin(&mut self, rate: SampleRate, channels: usize) -> Result<(), CodecError>;

    /// Interleaved samples of whole frames.
    fn frames(&mut self, interleaved: &[f32]);
}

/// Mixes to mono and resamples. A change of rate in the middle ends one stretch of sound and starts the next: no sample
/// of either is lost.
#[derive(Debug, Default)]
pub(crate) struct Converter {
    channels: usize,
    resampler: Option<(SampleRate, Resampler)>,
    mono: Vec<f32>,
}

impl Converter {
    /// A sink that appends to `out`.
    pub(crate) fn sink<'a>(&'a mut self, out: &'a mut Vec<f32>) -> impl FrameSink + 'a {
        Into { converter: self, out }
    }

    /// Appends what the resampler still holds. The format is kept.
    pub(crate) fn flush(&mut self, out: &mut Vec<f32>) {
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.flush(out);
        }
    }

    /// Forgets the past but not the format.
    pub(crate) fn reset(&mut self) {
        if let Some((_, resampler)) = &mut self.resampler {
            resampler.reset();
        }
    }

    pub(crate) fn lookahead(&self) -> u64 {
        self.resampler.as_ref().map_or(0, |(_, resampler)| resampler.lookahead())
    }
}

struct Into<'a> {
    converter: &'a mut Converter,
    out: &'a mut Vec<f32>,
}

impl FrameSink for Into<'_> {
    fn begin(&mut self, rate: SampleRate, channels: usize) -> Result<(), CodecError> {
        self.converter.channels = check_channels(channels)?;
        match &mut self.converter.resampler {
            Some((current, _)) if *current == rate => {}
            current => {
                let next = Resampler::new(rate, INPUT_RATE)?;
                if let Some((_, mut previous)) = current.replace((rate, next)) {
                    previous.flush(self.out);
                }
            }
        }
        Ok(())
    }

    fn frames(&mut self, interleaved: &[f32]) {
        let Some((_, resampler)) = &mut self.converter.resampler else { return };
        if self.converter.channels == 1 {
            return resampler.push(interleaved, self.out);
        }
        let mono = &mut self.converter.mono;
        mono.clear();
        mix(interleaved, self.converter.channels, mono);
        resampler.push(mono, self.out);
    }
}

/// Appends the mean of the channels of every frame.
pub(crate) fn mix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    let scale = 1.0 / channels as f32;
    mono.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * scale));
}
