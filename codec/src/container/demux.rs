//! What runs on the thread: demux, decode, convert.

use std::io;
use std::sync::Arc;

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_OPUS;
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::{Error, Result as Symphonia};
use symphonia::core::formats::probe::ProbeableFormat;
use symphonia::core::formats::{FormatOptions, FormatReader, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::core::packet::Packet;
use symphonia::default::formats::{AdtsReader, FlacReader, IsoMp4Reader, MkvReader, MpaReader, OggReader};

use super::worker::{Shared, Source};
use super::{MAX_BARREN_BYTES, MAX_BROKEN_PACKETS};
use crate::convert::{Converter, FrameSink};
use crate::opus::OpusDecoder;
use crate::resample;
use crate::{CodecError, Container, INPUT_RATE};

/// Decodes until the end of the stream or until nobody wants more.
pub(super) fn run(container: Container, shared: &Arc<Shared>) -> Result<(), CodecError> {
    let name = container.name();
    let fail = |error: Error| -> CodecError {
        match error {
            _ if shared.is_barren() => CodecError::Limit(format!("{MAX_BARREN_BYTES} bytes of {name} held no sound")),
            Error::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                CodecError::Truncated(format!("the {name} stream ended within its header"))
            }
            // What the reader says of an MP4 whose index comes after the sound.
            Error::Unsupported("isomp4: missing moov atom") => CodecError::Unsupported(
                "MP4 with its index (moov) at the end cannot be streamed; write it fragmented or with faststart".into(),
            ),
            Error::Unsupported(what) => CodecError::Unsupported(format!("{name} stream: {what}")),
            Error::LimitError(what) => CodecError::Limit(format!("{name} stream: {what}")),
            other => CodecError::Malformed(format!("{name} stream: {other}")),
        }
    };
    let mut reader = open(container, Source(shared.clone())).map_err(fail)?;
    let mut track = Track::select(container, reader.as_ref())?;
    let mut converter = Converter::default();
    let (mut pcm, mut heard, mut broken) = (Vec::new(), false, 0);
    loop {
        match reader.next_packet() {
            Ok(Some(packet)) if packet.track_id != track.id => {}
            Ok(Some(packet)) => match track.decode(&packet, &mut converter, &mut pcm) {
                Ok(()) => (heard, broken) = (true, 0),
                Err(Trouble::Packet(what)) => {
                    broken += 1;
                    if broken > MAX_BROKEN_PACKETS {
                        return Err(CodecError::Malformed(format!("{broken} {name} packets in a row: {what}")));
                    }
                }
                Err(Trouble::Stream(error)) => return Err(error),
            },
            Ok(None) => break,
            // The next link of a chain of Ogg streams.
            Err(Error::ResetRequired) => track = Track::select(container, reader.as_ref())?,
            // Live streams have no end of their own: they stop.
            Err(Error::IoError(error)) if heard && error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(fail(error)),
        }
        if !pcm.is_empty() && !shared.put(&mut pcm, converter.lookahead())? {
            return Ok(());
        }
    }
    converter.flush(&mut pcm);
    shared.put(&mut pcm, converter.lookahead())?;
    if heard { Ok(()) } else { Err(CodecError::Truncated(format!("the {name} stream ended before any sound"))) }
}

fn open(container: Container, source: Source) -> Symphonia<Box<dyn FormatReader>> {
    let stream = MediaSourceStream::new(Box::new(ReadOnlySource::new(source)), MediaSourceStreamOptions::default());
    let options = FormatOptions::default();
    match container {
        Container::Flac => FlacReader::try_probe_new(stream, options),
        Container::Mp3 => MpaReader::try_probe_new(stream, options),
        Container::Aac => AdtsReader::try_probe_new(stream, options),
        Container::Ogg => OggReader::try_probe_new(stream, options),
        Container::WebM => MkvReader::try_probe_new(stream, options),
        Container::Mp4 => IsoMp4Reader::try_probe_new(stream, options),
    }
}

/// The one track that is heard.
struct Track {
    id: u32,
    decoder: Decoder,
    interleaved: Vec<f32>,
}

enum Decoder {
    /// Not one of symphonia's. `pre_skip` samples at 16 kHz are still to be dropped.
    Opus {
        decoder: Box<OpusDecoder>,
        pre_skip: usize,
    },
    Symphonia(Box<dyn AudioDecoder>),
}

enum Trouble {
    /// This packet is lost.
    Packet(String),
    /// The stream cannot go on.
    Stream(CodecError),
}

impl Track {
    fn select(container: Container, reader: &dyn FormatReader) -> Result<Self, CodecError> {
        let name = container.name();
        let track = reader
            .default_track(TrackType::Audio)
            .or_else(|| reader.first_track(TrackType::Audio))
            .ok_or_else(|| CodecError::Unsupported(format!("the {name} stream has no audio track")))?;
        let Some(CodecParameters::Audio(parameters)) = &track.codec_params else {
            return Err(CodecError::Unsupported(format!("the codec of the {name} stream's audio is not known")));
        };
        let decoder = match parameters.codec {
            CODEC_ID_OPUS => opus(container, parameters)?,
            _ => Decoder::Symphonia(
                symphonia::default::get_codecs()
                    .make_audio_decoder(parameters, &AudioDecoderOptions::default())
                    .map_err(|error| {
                        CodecError::Unsupported(format!("the audio of the {name} stream cannot be decoded: {error}"))
                    })?,
            ),
        };
        Ok(Self { id: track.id, decoder, interleaved: Vec::new() })
    }

    fn decode(&mut self, packet: &Packet, converter: &mut Converter, out: &mut Vec<f32>) -> Result<(), Trouble> {
        let lost = |error: &dyn std::fmt::Display| Trouble::Packet(error.to_string());
        let mut sink = converter.sink(out);
        self.interleaved.clear();
        match &mut self.decoder {
            Decoder::Opus { decoder, pre_skip } => {
                decoder.push(&packet.data, &mut self.interleaved).map_err(|error| lost(&error))?;
                // Ogg pages count at 48 kHz, whatever was encoded (RFC 7845 §4).
                let end = self.interleaved.len().saturating_sub(packet.trim_end.get() as usize / 3);
                let start = (*pre_skip).min(end);
                *pre_skip -= start;
                sink.begin(INPUT_RATE, 1).map_err(Trouble::Stream)?;
                sink.frames(&self.interleaved[start..end]);
            }
            Decoder::Symphonia(decoder) => {
                let buffer = decoder.decode(packet).map_err(|error| lost(&error))?;
                let rate = resample::supported(buffer.spec().rate()).map_err(Trouble::Stream)?;
                sink.begin(rate, buffer.spec().channels().count()).map_err(Trouble::Stream)?;
                buffer.copy_to_vec_interleaved(&mut self.interleaved);
                for sample in &mut self.interleaved {
                    *sample = crate::pcm::tame(*sample);
                }
                sink.frames(&self.interleaved);
            }
        }
        Ok(())
    }
}

/// The identification header (RFC 7845 §5.1) says how much of the start to drop. Matroska and Ogg keep it as it is; MP4
/// has it in network order (Encapsulation of Opus in ISO Base Media File Format, §4.3.2).
fn opus(container: Container, parameters: &AudioCodecParameters) -> Result<Decoder, CodecError> {
    let head = parameters.extra_data.as_deref().unwrap_or_default();
    let pre_skip = match head.get(10..12) {
        Some(&[low, high]) if container != Container::Mp4 => u16::from_le_bytes([low, high]),
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    match head.get(18) {
        None | Some(0) => {}
        Some(family) => {
            return Err(CodecError::Unsupported(format!(
                "Opus with channel mapping family {family} is not supported; send mono or stereo"
            )));
        }
    }
    Ok(Decoder::Opus { decoder: Box::new(OpusDecoder::new()?), pre_skip: usize::from(pre_skip) / 3 })
}
