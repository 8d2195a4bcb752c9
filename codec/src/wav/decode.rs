//! RIFF/WAVE, streamed: the header is checked before anything is believed, and files may follow one another in one
//! stream.

use causerie_units::SampleRate;

use crate::convert::FrameSink;
use crate::format::check_channels;
use crate::{CodecError, g711, pcm, resample};

/// Most bytes of a `fmt ` chunk; the longest in use, WAVE_FORMAT_EXTENSIBLE, has 40.
const MAX_FORMAT_BYTES: u32 = 512;
/// From here on the size of the data means "until the end": writers to a pipe cannot know it and put 2 GiB or 4 GiB less
/// a little.
const UNKNOWN_BYTES: u32 = 0x7fff_0000;

/// Bytes in any chunking to interleaved samples. Keeps a header or a frame that is not yet complete.
#[derive(Default)]
pub(crate) struct WavDecoder {
    state: State,
    /// Bytes of the header or frame that `state` waits for.
    partial: Vec<u8>,
    format: Option<Format>,
    samples: Vec<f32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// The 12 bytes of a RIFF header.
    #[default]
    Riff,
    /// The 8 bytes before a chunk.
    Chunk,
    /// The body of the `fmt ` chunk, padded to even.
    Format(u32),
    /// Sound, `None` for until the end of the stream, and whether a byte of padding follows.
    Data(Option<u32>, bool),
    /// A chunk nobody needs, or a byte of padding.
    Skip(u64),
}

#[derive(Clone, Copy, Debug)]
struct Format {
    rate: SampleRate,
    channels: usize,
    coding: Coding,
    frame_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    U8,
    S16,
    S24,
    S32,
    F32,
    F64,
    Mulaw,
    Alaw,
}

impl WavDecoder {
    /// Decodes `bytes` into `sink`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], sink: &mut impl FrameSink) -> Result<(), CodecError> {
        while !bytes.is_empty() {
            match self.state {
                State::Riff => {
                    let Some(header) = self.take::<12>(&mut bytes) else { break };
                    self.state = riff(&header)?;
                }
                State::Chunk => {
                    let Some([a, b, c, d, size @ ..]) = self.take::<8>(&mut bytes) else { break };
                    self.chunk([a, b, c, d], u32::from_le_bytes(size))?;
                }
                State::Format(size) => {
                    if !self.fill(size.next_multiple_of(2) as usize, &mut bytes) {
                        break;
                    }
                    let format = Format::parse(&self.partial)?;
                    self.partial.clear();
                    sink.begin(format.rate, format.channels)?;
                    self.format = Some(format);
                    self.state = State::Chunk;
                }
                State::Data(left, padded) => self.data(left, padded, &mut bytes, sink),
                State::Skip(left) => {
                    let skip = left.min(bytes.len() as u64);
                    bytes = &bytes[skip as usize..];
                    self.state = if skip == left { State::Chunk } else { State::Skip(left - skip) };
                }
            }
        }
        Ok(())
    }

    /// The end of the stream: is anything missing? Resets.
    pub(crate) fn finish(&mut self) -> Result<(), CodecError> {
        let Self { state, partial, format, .. } = std::mem::take(self);
        match (state, format) {
            (State::Riff, _) if partial.is_empty() => Ok(()),
            (State::Data(Some(left), _), _) if left > 0 => {
                Err(CodecError::Truncated(format!("the WAV data ended {left} bytes before its declared size")))
            }
            (State::Data(..), _) if !partial.is_empty() => {
                let left = partial.len();
                Err(CodecError::Truncated(format!("the WAV data ended within a frame, after {left} bytes of it")))
            }
            // Rubbish of a few bytes after the last chunk is common.
            (State::Data(..) | State::Chunk | State::Skip(_), Some(_)) => Ok(()),
            _ => Err(CodecError::Truncated("the WAV stream ended within its header".into())),
        }
    }

    fn chunk(&mut self, id: [u8; 4], size: u32) -> Result<(), CodecError> {
        self.state = match &id {
            b"fmt " if (16..=MAX_FORMAT_BYTES).contains(&size) => State::Format(size),
            b"fmt " => {
                return Err(CodecError::Malformed(format!("a WAV format chunk of {size} bytes is not 16 to 512")));
            }
            b"data" if self.format.is_none() => {
                return Err(CodecError::Malformed("the WAV data comes before its format".into()));
            }
            b"data" if size == 0 || size >= UNKNOWN_BYTES => State::Data(None, false),
            b"data" => State::Data(Some(size), size % 2 == 1),
            b"RIFF" | b"RF64" => {
                // Another file follows; its id and size are read, its form comes next.
                self.partial.extend(id);
                self.partial.extend(size.to_le_bytes());
                State::Riff
            }
            _ => State::Skip(u64::from(size).next_multiple_of(2)),
        };
        Ok(())
    }

    fn data(&mut self, left: Option<u32>, padded: bool, bytes: &mut &[u8], sink: &mut impl FrameSink) {
        let Some(format) = self.format else { return };
        let here = left.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        let (mut now, later) = bytes.split_at(here);
        *bytes = later;
        self.samples.clear();
        if !self.partial.is_empty() {
            let missing = (format.frame_bytes - self.partial.len()).min(now.len());
            self.partial.extend_from_slice(&now[..missing]);
            now = &now[missing..];
            if self.partial.len() == format.frame_bytes {
                format.coding.decode(&self.partial, &mut self.samples);
                self.partial.clear();
            }
        }
        let whole = now.len() / format.frame_bytes * format.frame_bytes;
        format.coding.decode(&now[..whole], &mut self.samples);
        self.partial.extend_from_slice(&now[whole..]);
        sink.frames(&self.samples);
        if let Some(left) = left {
            let left = left - here as u32;
            self.state = State::Data(Some(left), padded);
            if left == 0 {
                // Half a frame at the end of the chunk belongs to nothing.
                self.partial.clear();
                self.state = State::Skip(u64::from(padded));
            }
        }
    }

    /// Collects `N` bytes, over as many pushes as it takes.
    fn take<const N: usize>(&mut self, bytes: &mut &[u8]) -> Option<[u8; N]> {
        if !self.fill(N, bytes) {
            return None;
        }
        let header = self.partial.first_chunk().copied();
        self.partial.clear();
        header
    }

    /// Moves bytes to `partial` until it holds `wanted`; true when it does.
    fn fill(&mut self, wanted: usize, bytes: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..missing]);
        *bytes = &bytes[missing..];
        self.partial.len() >= wanted
    }
}

fn riff(header: &[u8; 12]) -> Result<State, CodecError> {
    match (&header[..4], &header[8..]) {
        (b"RIFF" | b"RF64", b"WAVE") => Ok(State::Chunk),
        (b"RIFX", b"WAVE") => Err(CodecError::Unsupported("big-endian WAV (RIFX) is not supported".into())),
        _ => Err(CodecError::Malformed(format!(
            "the audio is not WAV: it starts with {}, not RIFF",
            header[..4].escape_ascii()
        ))),
    }
}

impl Format {
    fn parse(chunk: &[u8]) -> Result<Self, CodecError> {
        let u16_at = |at: usize| chunk.get(at..at + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let (mut tag, bits) = (u16_at(0), u16_at(14));
        // WAVE_FORMAT_EXTENSIBLE has the true code at the start of a GUID.
        if tag == 0xfffe && chunk.len() >= 40 {
            tag = u16_at(24);
        }
        let coding = match (tag, bits) {
            (1, 8) => Coding::U8,
            (1, 16) => Coding::S16,
            (1, 24) => Coding::S24,
            (1, 32) => Coding::S32,
            (3, 32) => Coding::F32,
            (3, 64) => Coding::F64,
            (6, 8) => Coding::Alaw,
            (7, 8) => Coding::Mulaw,
            (tag, bits) => {
                return Err(CodecError::Unsupported(format!(
                    "WAV of code {tag:#06x} with {bits} bits a sample is not supported; send PCM, float or G.711"
                )));
            }
        };
        let channels = check_channels(usize::from(u16_at(2)))?;
        let rate = resample::supported(u32_at(4))?;
        let frame_bytes = channels * usize::from(bits) / 8;
        match usize::from(u16_at(12)) {
            declared if declared == frame_bytes => Ok(Self { rate, channels, coding, frame_bytes }),
            declared => Err(CodecError::Malformed(format!(
                "the WAV header says {declared} bytes a frame, but {channels} channels of {bits} bits are {frame_bytes}"
            ))),
        }
    }
}

impl Coding {
    /// Appends the samples of whole frames.
    fn decode(self, bytes: &[u8], out: &mut Vec<f32>) {
        match self {
            Self::U8 => out.extend(bytes.iter().map(|&byte| (f32::from(byte) - 128.0) / 128.0)),
            Self::S16 => {
                out.extend(bytes.as_chunks::<2>().0.iter().map(|&word| pcm::from_i16(i16::from_le_bytes(word))));
            }
            Self::S24 => {
                out.extend(
                    bytes.as_chunks::<3>().0.iter().map(|&[low, middle, high]| {
                        (i32::from_le_bytes([0, low, middle, high]) >> 8) as f32 / 8_388_608.0
                    }),
                )
            }
            Self::S32 => {
                let scale = 1.0 / 2_147_483_648.0;
                out.extend(bytes.as_chunks::<4>().0.iter().map(|&word| i32::from_le_bytes(word) as f32 * scale));
            }
            Self::F32 => {
                out.extend(bytes.as_chunks::<4>().0.iter().map(|&word| pcm::tame(f32::from_le_bytes(word))));
            }
            Self::F64 => {
                out.extend(bytes.as_chunks::<8>().0.iter().map(|&word| pcm::tame(f64::from_le_bytes(word) as f32)));
            }
            Self::Mulaw => out.extend(bytes.iter().map(|&code| pcm::from_i16(g711::MULAW[usize::from(code)]))),
            Self::Alaw => out.extend(bytes.iter().map(|&code| pcm::from_i16(g711::ALAW[usize::from(code)]))),
        }
    }
}
