//! Opus packets without a container (RFC 6716), by libopus.
//!
//! The decoder runs at 16 kHz mono whatever the sender encoded: libopus mixes and band-limits inside, so no resampler
//! and none of its delay follows. The encoder takes the 24 kHz of the voices.

use causerie_units::SampleRate;
use opusic_c::{Application, Bitrate, Channels, Decoder, Encoder, ErrorCode, InbandFec, Signal};

use crate::CodecError;

/// Of 10. A second of speech takes 13 ms of one core of 2.4 GHz at 5, and 20 ms at the default of 9.
const COMPLEXITY: u8 = 5;
/// Samples at 16 kHz of 2.5 ms, the shortest Opus frame; every duration is a multiple of it.
const TICK: usize = 40;
/// Longest packet that Opus has, 120 ms, in samples at 16 kHz (RFC 6716 §3.2.5, R5).
pub const MAX_PACKET_SAMPLES: usize = 48 * TICK;
/// Longest frame that Opus has, in bytes (RFC 6716 §3.2.1); a packet holds at most 48 of them.
const MAX_FRAME_BYTES: usize = 1275;
/// Samples at 24 kHz of the 20 ms that a packet of ours holds.
pub const FRAME: usize = 480;
/// Largest packet of ours in bytes: 20 ms at 160 kbit/s, five times the rate we ask for.
const MAX_ENCODED_BYTES: usize = 400;
/// Fullband mono speech (RFC 7587 §3.1.1 recommends 28 to 40 kbit/s).
const BITRATE: u32 = 32_000;

/// Samples at 16 kHz that a packet will decode to, read from its first two bytes (RFC 6716 §3.1).
pub fn packet_samples(packet: &[u8]) -> Result<usize, CodecError> {
    let Some(&toc) = packet.first() else {
        return Err(CodecError::Malformed("an Opus packet is empty".into()));
    };
    let config = toc >> 3;
    let ticks = match config {
        0..12 => [4, 8, 16, 24][usize::from(config % 4)],
        12..16 => [4, 8][usize::from(config % 2)],
        _ => 1 << (config % 4),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => match packet.get(1).map(|count| usize::from(count & 0x3f)) {
            None | Some(0) => return Err(CodecError::Malformed("an Opus packet has no frames".into())),
            Some(frames) => frames,
        },
    };
    let samples = ticks * frames * TICK;
    if samples > MAX_PACKET_SAMPLES {
        return Err(CodecError::Malformed(format!(
            "an Opus packet of {} ms is longer than 120 ms",
            samples as f64 / 16.0
        )));
    }
    Ok(samples)
}

/// Packets in, mono 16 kHz out.
pub struct OpusDecoder {
    decoder: Decoder,
    /// Room for the longest packet.
    pcm: Box<[f32; MAX_PACKET_SAMPLES]>,
}

impl OpusDecoder {
    /// A decoder with no past.
    pub fn new() -> Result<Self, CodecError> {
        let decoder = Decoder::new(Channels::Mono, opusic_c::SampleRate::Hz16000).map_err(failed)?;
        Ok(Self { decoder, pcm: Box::new([0.0; MAX_PACKET_SAMPLES]) })
    }

    /// Decodes one packet. After an error the decoder goes on with the next one.
    pub fn push(&mut self, packet: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        let samples = packet_samples(packet)?;
        let most = 48 * (MAX_FRAME_BYTES + 2) + 2;
        if packet.len() > most {
            let len = packet.len();
            return Err(CodecError::Malformed(format!("an Opus packet of {len} bytes is longer than {most}")));
        }
        let decoded = self.decoder.decode_float_to_slice(packet, &mut self.pcm[..samples], false);
        self.deliver(decoded, out)
    }

    /// Fills a gap of `samples` (at 16 kHz, rounded up to 2.5 ms) with what libopus guesses was lost: the voice goes on
    /// and fades over about 100 ms.
    pub fn conceal(&mut self, samples: u64, out: &mut Vec<f32>) -> Result<(), CodecError> {
        let mut missing = samples.next_multiple_of(TICK as u64);
        while missing > 0 {
            // 20 ms at a time: the pieces that libopus conceals in.
            let piece = missing.min(8 * TICK as u64) as usize;
            let decoded = self.decoder.decode_float_to_slice(&[], &mut self.pcm[..piece], false);
            self.deliver(decoded, out)?;
            missing -= piece as u64;
        }
        Ok(())
    }

    /// Forgets the past.
    pub fn reset(&mut self) {
        // Resetting touches only the state's own memory and has no failure.
        let _ = self.decoder.reset();
    }

    fn deliver(&mut self, decoded: Result<usize, ErrorCode>, out: &mut Vec<f32>) -> Result<(), CodecError> {
        let samples = decoded.map_err(|error| match error {
            ErrorCode::InvalidPacket | ErrorCode::BadArg | ErrorCode::BufferTooSmall => {
                CodecError::Malformed(format!("an Opus packet is broken: {}", error.message()))
            }
            other => failed(other),
        })?;
        out.extend(self.pcm[..samples].iter().map(|&sample| crate::pcm::tame(sample)));
        Ok(())
    }
}

/// Mono 24 kHz in any chunking, packets of 20 ms out.
pub struct OpusEncoder {
    encoder: Encoder,
    /// Less than a frame between two pushes.
    pending: Vec<f32>,
    lookahead: usize,
}

impl OpusEncoder {
    /// A speech encoder at 32 kbit/s that expects a few losses.
    pub fn new() -> Result<Self, CodecError> {
        let mut encoder =
            Encoder::new(Channels::Mono, opusic_c::SampleRate::Hz24000, Application::Voip).map_err(failed)?;
        encoder.set_bitrate(Bitrate::Value(BITRATE)).map_err(failed)?;
        encoder.set_signal(Signal::Voice).map_err(failed)?;
        encoder.set_inband_fec(InbandFec::Mode1).map_err(failed)?;
        encoder.set_packet_loss(3).map_err(failed)?;
        encoder.set_complexity(COMPLEXITY).map_err(failed)?;
        let lookahead = encoder.get_look_ahead().map_err(failed)? as usize;
        Ok(Self { encoder, pending: Vec::with_capacity(FRAME), lookahead })
    }

    /// Samples at 24 kHz by which the decoded sound trails the input: the stream's `pre_skip`.
    pub fn lookahead(&self) -> u64 {
        self.lookahead as u64
    }

    /// Calls `packet` with every packet that `pcm` completes.
    pub fn push(&mut self, mut pcm: &[f32], mut packet: impl FnMut(&[u8])) -> Result<(), CodecError> {
        while self.pending.len() + pcm.len() >= FRAME {
            let (now, later) = pcm.split_at(FRAME - self.pending.len());
            self.pending.extend_from_slice(now);
            pcm = later;
            let mut bytes = [0; MAX_ENCODED_BYTES];
            let encoded = self.encoder.encode_float_to_slice(&self.pending, &mut bytes);
            self.pending.clear();
            packet(&bytes[..encoded.map_err(failed)?]);
        }
        self.pending.extend_from_slice(pcm);
        Ok(())
    }

    /// Pads the rest, and the encoder's lookahead, with silence to whole packets. The encoder keeps its state: the
    /// listener's decoder goes on with the next reply.
    pub fn flush(&mut self, packet: impl FnMut(&[u8])) -> Result<(), CodecError> {
        let rest = self.pending.len() + self.lookahead;
        let padding = rest.next_multiple_of(FRAME) - self.pending.len();
        self.push(&vec![0.0; padding], packet)
    }

    /// Forgets the past.
    pub fn reset(&mut self) -> Result<(), CodecError> {
        self.pending.clear();
        self.encoder.reset().map_err(failed)
    }
}

/// The rate that [`OpusEncoder`] takes.
pub const ENCODER_RATE: SampleRate = SampleRate::HZ_24000;

fn failed(error: ErrorCode) -> CodecError {
    CodecError::Failed(format!("libopus failed: {}", error.message()))
}
