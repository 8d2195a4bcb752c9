//! Speech on its way to a client: mono 24 kHz in any chunking becomes packets of the client's format.

use causerie_units::SampleRate;

use crate::opus::{self, OpusEncoder};
use crate::resample::Resampler;
use crate::{CodecError, OutputFormat, g711, pcm};

/// What the voices say.
pub const OUTPUT_RATE: SampleRate = SampleRate::HZ_24000;

/// One message's worth of encoded sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The encoded bytes. Owned, as they become the body of a message.
    pub bytes: Vec<u8>,
    /// How long it plays, at [`OutputFormat::sample_rate`].
    pub samples: u64,
}

/// The encoder of one stream.
///
/// PCM and G.711 yield at most one packet a push, Opus one for every 20 ms completed. Over a stream, the packets of PCM
/// and G.711 joined do not depend on the chunking, and neither does the sequence of Opus packets.
///
/// ```
/// use causerie_codec::{AudioOutput, OutputFormat};
/// let mut output = AudioOutput::open(OutputFormat::parse("audio/pcm;rate=8000")?)?;
/// let mut packets = Vec::new();
/// output.push(&[0.0; 480], &mut packets)?;
/// output.flush(&mut packets)?;
/// assert_eq!(packets.iter().map(|packet| packet.samples).sum::<u64>(), 160);
/// # Ok::<(), causerie_codec::CodecError>(())
/// ```
pub struct AudioOutput {
    format: OutputFormat,
    mime: String,
    resampler: Resampler,
    encoder: Option<OpusEncoder>,
    /// The input without NaN, and the same at the output's rate.
    tame: Vec<f32>,
    resampled: Vec<f32>,
}

impl AudioOutput {
    /// An encoder with no past.
    pub fn open(format: OutputFormat) -> Result<Self, CodecError> {
        Ok(Self {
            format,
            mime: format.mime(),
            resampler: Resampler::new(OUTPUT_RATE, format.sample_rate())?,
            encoder: if format == OutputFormat::Opus { Some(OpusEncoder::new()?) } else { None },
            tame: Vec::new(),
            resampled: Vec::new(),
        })
    }

    /// The MIME type of the packets.
    pub fn mime(&self) -> &str {
        &self.mime
    }

    /// The format it was opened with.
    pub fn format(&self) -> OutputFormat {
        self.format
    }

    /// Samples, at [`OutputFormat::sample_rate`], by which the packets trail the input.
    pub fn lookahead(&self) -> u64 {
        self.resampler.lookahead() + self.encoder.as_ref().map_or(0, OpusEncoder::lookahead)
    }

    /// Appends the packets that `pcm` completes.
    pub fn push(&mut self, pcm: &[f32], out: &mut Vec<Packet>) -> Result<(), CodecError> {
        self.tame.clear();
        self.tame.extend(pcm.iter().map(|&sample| pcm::tame(sample)));
        self.resampled.clear();
        self.resampler.push(&self.tame, &mut self.resampled);
        self.encode(out)
    }

    /// Ends a stretch of speech: appends what is still inside. The next push starts another.
    pub fn flush(&mut self, out: &mut Vec<Packet>) -> Result<(), CodecError> {
        self.resampled.clear();
        self.resampler.flush(&mut self.resampled);
        self.encode(out)?;
        match &mut self.encoder {
            Some(encoder) => encoder.flush(|bytes| out.push(opus_packet(bytes))),
            None => Ok(()),
        }
    }

    /// Drops what is inside, after an interruption.
    pub fn reset(&mut self) -> Result<(), CodecError> {
        self.resampler.reset();
        self.encoder.as_mut().map_or(Ok(()), OpusEncoder::reset)
    }

    fn encode(&mut self, out: &mut Vec<Packet>) -> Result<(), CodecError> {
        if let Some(encoder) = &mut self.encoder {
            return encoder.push(&self.resampled, |bytes| out.push(opus_packet(bytes)));
        }
        if self.resampled.is_empty() {
            return Ok(());
        }
        let samples = self.resampled.iter().map(|&sample| pcm::to_i16(sample));
        let bytes = match self.format {
            OutputFormat::Pcm(_) | OutputFormat::Opus => {
                let mut bytes = vec![0; 2 * self.resampled.len()];
                bytes.as_chunks_mut().0.iter_mut().zip(samples).for_each(|(pair, sample)| *pair = sample.to_le_bytes());
                bytes
            }
            OutputFormat::Mulaw => samples.map(g711::encode_mulaw).collect(),
            OutputFormat::Alaw => samples.map(g711::encode_alaw).collect(),
        };
        out.push(Packet { bytes, samples: self.resampled.len() as u64 });
        Ok(())
    }
}

fn opus_packet(bytes: &[u8]) -> Packet {
    Packet { bytes: bytes.to_vec(), samples: opus::FRAME as u64 }
}
