//! Sound on its way in: bytes of a client's stream become mono `f32` at 16 kHz.

use causerie_units::SampleRate;

use crate::container::ContainerDecoder;
use crate::convert::{Converter, FrameSink};
use crate::opus::OpusDecoder;
use crate::pcm::{self, Samples16};
use crate::wav::WavDecoder;
use crate::{CodecError, InputFormat, g711};

/// What the models hear.
pub const INPUT_RATE: SampleRate = SampleRate::HZ_16000;
/// Most bytes of one push: the largest message that gRPC takes by default.
pub const MAX_PUSH_BYTES: usize = 4 << 20;
/// Most sound of one push, in samples at 16 kHz: five minutes, 19 MB. A few bytes of a silent FLAC decode to hours.
pub const MAX_PUSH_SAMPLES: usize = 300 * 16_000;
/// Bytes decoded between two looks at [`MAX_PUSH_SAMPLES`].
const PIECE: usize = 16 << 10;

/// The decoder of one stream.
///
/// The output does not depend on how the bytes were split, except that a push of `audio/opus` is one packet. A push
/// returns when its bytes are decoded; that takes time in proportion to the sound in them (1/100 of its duration or
/// less), so a caller with other duties splits a large blob and does them in between.
///
/// ```
/// use causerie_codec::{AudioInput, InputFormat};
/// let mut input = AudioInput::open(&InputFormat::parse("audio/pcm;rate=48000")?)?;
/// let mut pcm = Vec::new();
/// input.push(&[0; 960], &mut pcm)?; // 10 ms
/// input.flush(&mut pcm)?;
/// assert_eq!(pcm.len(), 160);
/// # Ok::<(), causerie_codec::CodecError>(())
/// ```
pub struct AudioInput {
    decoder: Box<dyn Decode>,
    /// The error that ended the stream, until it is reset.
    failed: Option<CodecError>,
    /// A push is one packet and must not be split.
    packets: bool,
}

/// The seam between the stream and its decoders.
pub(crate) trait Decode: Send {
    /// Appends what `bytes` complete.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError>;
    /// Appends the rest; the next push starts a new stream, whatever this returns.
    fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), CodecError>;
    /// Drops what is inside; the next push starts a new stream.
    fn reset(&mut self);
    /// Output samples by which the output trails the input it is about.
    fn lookahead(&self) -> u64;
    /// Fills a gap of lost packets.
    fn conceal(&mut self, samples: u64, out: &mut Vec<f32>) -> Result<(), CodecError> {
        out.resize(out.len() + samples as usize, 0.0);
        Ok(())
    }
}

impl AudioInput {
    /// A decoder with no past. Containers get a thread here, which ends with the stream.
    pub fn open(format: &InputFormat) -> Result<Self, CodecError> {
        let decoder: Box<dyn Decode> = match *format {
            InputFormat::Pcm { rate, channels, endian } => {
                Box::new(Raw::open(rate, channels, Coding::Linear(Samples16::new(endian)))?)
            }
            InputFormat::Mulaw { rate } => Box::new(Raw::open(rate, 1, Coding::Table(&g711::MULAW))?),
            InputFormat::Alaw { rate } => Box::new(Raw::open(rate, 1, Coding::Table(&g711::ALAW))?),
            InputFormat::Opus => Box::new(OpusDecoder::new()?),
            InputFormat::Wav => Box::new(Wav::default()),
            InputFormat::Container(container) => Box::new(ContainerDecoder::open(container)?),
        };
        Ok(Self { decoder, failed: None, packets: matches!(format, InputFormat::Opus) })
    }

    /// Appends the samples that `bytes` complete. An error ends the stream until [`reset`](Self::reset) or
    /// [`flush`](Self::flush), but for a single bad Opus packet, whose successors are independent of it.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if bytes.len() > MAX_PUSH_BYTES {
            let len = bytes.len();
            return Err(CodecError::Limit(format!("{len} bytes of audio at once are more than {MAX_PUSH_BYTES}")));
        }
        if self.packets {
            return if bytes.is_empty() { Ok(()) } else { self.decoder.push(bytes, out) };
        }
        let before = out.len();
        for piece in bytes.chunks(PIECE) {
            let result = self.decoder.push(piece, out).and_then(|()| check_samples(out.len() - before));
            if let Err(error) = result {
                self.failed = Some(error.clone());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Ends a stretch of sound: appends the samples still inside. The next push starts a new stream (a container starts
    /// with its header again).
    pub fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), CodecError> {
        match self.failed.take() {
            None => self.decoder.flush(out),
            Some(error) => {
                self.decoder.reset();
                Err(error)
            }
        }
    }

    /// Fills a gap of `samples` at 16 kHz where packets were lost: a guess of the voice for raw Opus, silence for the
    /// rest. For formats that are packets by nature (PCM, G.711, Opus).
    pub fn conceal(&mut self, samples: u64, out: &mut Vec<f32>) -> Result<(), CodecError> {
        check_samples(usize::try_from(samples).unwrap_or(usize::MAX))?;
        self.decoder.conceal(samples, out)
    }

    /// Drops what is inside. The next push starts a new stream.
    pub fn reset(&mut self) {
        self.failed = None;
        self.decoder.reset();
    }

    /// Output samples by which the output trails the input it is about; known for a container once its header was seen.
    pub fn lookahead(&self) -> u64 {
        self.decoder.lookahead()
    }
}

/// Refuses more sound than a push may yield.
pub(crate) fn check_samples(samples: usize) -> Result<(), CodecError> {
    if samples > MAX_PUSH_SAMPLES {
        return Err(CodecError::Limit(format!(
            "more than {} s of audio at once; send it in smaller messages",
            MAX_PUSH_SAMPLES / 16_000
        )));
    }
    Ok(())
}

/// Samples without framing: PCM and G.711.
struct Raw {
    coding: Coding,
    channels: usize,
    converter: Converter,
    /// Decoded samples; less than a frame between two pushes.
    samples: Vec<f32>,
}

enum Coding {
    Linear(Samples16),
    Table(&'static [i16; 256]),
}

impl Raw {
    fn open(rate: SampleRate, channels: usize, coding: Coding) -> Result<Self, CodecError> {
        let mut converter = Converter::default();
        converter.sink(&mut Vec::new()).begin(rate, channels)?;
        Ok(Self { coding, channels, converter, samples: Vec::new() })
    }
}

impl Decode for Raw {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        match &mut self.coding {
            Coding::Linear(samples) => samples.push(bytes, &mut self.samples),
            Coding::Table(table) => {
                self.samples.extend(bytes.iter().map(|&code| pcm::from_i16(table[usize::from(code)])));
            }
        }
        let whole = self.samples.len() / self.channels * self.channels;
        self.converter.sink(out).frames(&self.samples[..whole]);
        self.samples.drain(..whole);
        Ok(())
    }

    fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), CodecError> {
        self.converter.flush(out);
        let odd = match &mut self.coding {
            Coding::Linear(samples) => samples.reset(),
            Coding::Table(_) => false,
        };
        let samples = std::mem::take(&mut self.samples).len();
        if odd {
            return Err(CodecError::Truncated("the audio ended in the middle of a 16-bit sample".into()));
        }
        if samples > 0 {
            let channels = self.channels;
            return Err(CodecError::Truncated(format!("the audio ended after {samples} of {channels} channels")));
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.converter.reset();
        self.samples.clear();
        if let Coding::Linear(samples) = &mut self.coding {
            samples.reset();
        }
    }

    fn lookahead(&self) -> u64 {
        self.converter.lookahead()
    }
}

impl Decode for OpusDecoder {
    fn push(&mut self, packet: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        OpusDecoder::push(self, packet, out)
    }

    fn flush(&mut self, _out: &mut Vec<f32>) -> Result<(), CodecError> {
        Ok(())
    }

    fn reset(&mut self) {
        OpusDecoder::reset(self);
    }

    fn lookahead(&self) -> u64 {
        0
    }

    fn conceal(&mut self, samples: u64, out: &mut Vec<f32>) -> Result<(), CodecError> {
        OpusDecoder::conceal(self, samples, out)
    }
}

/// WAV to 16 kHz.
#[derive(Default)]
struct Wav {
    decoder: WavDecoder,
    converter: Converter,
}

impl Decode for Wav {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        self.decoder.push(bytes, &mut self.converter.sink(out))
    }

    fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), CodecError> {
        self.converter.flush(out);
        self.decoder.finish()
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn lookahead(&self) -> u64 {
        self.converter.lookahead()
    }
}
