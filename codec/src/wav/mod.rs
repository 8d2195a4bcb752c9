//! WAV files (Multimedia Programming Interface and Data Specifications 1.0, 1991; RFC 2361 for the codes): a streaming
//! decoder, and a reader and a writer for tools.

mod decode;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use causerie_units::SampleRate;

pub(crate) use decode::WavDecoder;
pub use write::Writer;

use crate::convert::{FrameSink, mix};
use crate::{CodecError, resample};

/// Most samples that [`read`] loads: an hour at 96 kHz is past it, an hour at 16 kHz far below.
const MAX_READ_SAMPLES: usize = 256 << 20;

/// Reads a whole WAV file as mono: its rate and its samples. A file cut short yields what it has.
pub fn read(path: impl AsRef<Path>) -> Result<(SampleRate, Vec<f32>), CodecError> {
    let path = path.as_ref();
    let failed = |error: io::Error| CodecError::Failed(format!("cannot read {}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let mut decoder = WavDecoder::default();
    let mut mono = Mono::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            n => decoder.push(&buffer[..n], &mut mono)?,
        }
        if mono.samples.len() > MAX_READ_SAMPLES {
            let path = path.display();
            return Err(CodecError::Limit(format!("{path} holds more than {MAX_READ_SAMPLES} samples")));
        }
    }
    match (decoder.finish(), mono.rate) {
        (Ok(()) | Err(CodecError::Truncated(_)), Some(rate)) => Ok((rate, mono.samples)),
        (Err(error), _) => Err(error),
        (Ok(()), None) => Err(CodecError::Malformed(format!("{} is empty", path.display()))),
    }
}

/// Reads a whole WAV file as mono at the rate asked for.
pub fn read_at(path: impl AsRef<Path>, rate: SampleRate) -> Result<Vec<f32>, CodecError> {
    let (from, samples) = read(path)?;
    let mut resampler = resample::Resampler::new(from, rate)?;
    let mut out = Vec::new();
    resampler.push(&samples, &mut out);
    resampler.flush(&mut out);
    Ok(out)
}

#[derive(Default)]
struct Mono {
    rate: Option<SampleRate>,
    channels: usize,
    samples: Vec<f32>,
}

impl FrameSink for Mono {
    fn begin(&mut self, rate: SampleRate, channels: usize) -> Result<(), CodecError> {
        self.channels = channels;
        match self.rate.replace(rate) {
            Some(first) if first != rate => {
                Err(CodecError::Unsupported(format!("the sample rate changes from {first} to {rate} in the file")))
            }
            _ => Ok(()),
        }
    }

    fn frames(&mut self, interleaved: &[f32]) {
        mix(interleaved, self.channels, &mut self.samples);
    }
}
