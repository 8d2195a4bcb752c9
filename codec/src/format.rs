//! MIME types of audio, parsed once at the edge (RFC 2045 §5.1 for the syntax).

use causerie_units::SampleRate;

use crate::CodecError;
use crate::resample;

/// Longest MIME type that is looked at; real ones are under 60 bytes.
const MAX_MIME_BYTES: usize = 255;
/// Most channels of an input; they are mixed to one.
pub(crate) const MAX_CHANNELS: usize = 8;

/// What a client says it sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputFormat {
    /// `audio/pcm;rate=16000` or `audio/l16;rate=16000`: 16-bit signed samples, interleaved. The rate defaults to
    /// 16 kHz. Both are little-endian unless `endian=big` is given: RFC 4856 §2.1.1 wants network order for L16, but
    /// the telephone platforms and live APIs that name it send little-endian.
    Pcm {
        /// Samples a second of each channel.
        rate: SampleRate,
        /// Interleaved channels, 1 to 8.
        channels: usize,
        /// Byte order of a sample.
        endian: Endian,
    },
    /// `audio/pcmu`, `audio/basic`: G.711 µ-law, 8 kHz unless a rate is given.
    Mulaw {
        /// Samples a second.
        rate: SampleRate,
    },
    /// `audio/pcma`: G.711 A-law, 8 kHz unless a rate is given.
    Alaw {
        /// Samples a second.
        rate: SampleRate,
    },
    /// `audio/opus`: one Opus packet a message, without container (RFC 6716).
    Opus,
    /// `audio/wav`: a RIFF file, streamed.
    Wav,
    /// A container or framed stream.
    Container(Container),
}

/// Byte order of a 16-bit sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

/// Formats that carry their own framing and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `audio/flac`: native FLAC.
    Flac,
    /// `audio/mpeg`: MPEG-1/2 layer III.
    Mp3,
    /// `audio/aac`: AAC-LC in ADTS.
    Aac,
    /// `audio/ogg`: Opus, Vorbis or FLAC in Ogg.
    Ogg,
    /// `audio/webm`: Opus or Vorbis in WebM or Matroska.
    WebM,
    /// `audio/mp4`: AAC-LC, Opus or FLAC in MP4, fragmented or with its index in front.
    Mp4,
}

impl Container {
    /// The name to use in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flac => "FLAC",
            Self::Mp3 => "MP3",
            Self::Aac => "ADTS AAC",
            Self::Ogg => "Ogg",
            Self::WebM => "WebM",
            Self::Mp4 => "MP4",
        }
    }
}

/// What a client wants to be sent. Speech is mono.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// `audio/pcm;rate=24000`: 16-bit signed little-endian samples at 8, 16, 24 (the default) or 48 kHz.
    Pcm(SampleRate),
    /// `audio/pcmu`: G.711 µ-law at 8 kHz.
    Mulaw,
    /// `audio/pcma`: G.711 A-law at 8 kHz.
    Alaw,
    /// `audio/opus`: Opus packets of 20 ms, one a message.
    Opus,
}

impl InputFormat {
    /// Bytes of a second, for formats whose bytes are samples.
    pub fn bytes_per_second(&self) -> Option<usize> {
        match self {
            Self::Pcm { rate, channels, .. } => Some(rate.hz() as usize * channels * size_of::<i16>()),
            Self::Mulaw { rate } | Self::Alaw { rate } => Some(rate.hz() as usize),
            Self::Opus | Self::Wav | Self::Container(_) => None,
        }
    }

    /// Parses a MIME type. Letter case and unknown parameters (`codecs=opus`) do not matter.
    pub fn parse(mime: &str) -> Result<Self, CodecError> {
        let mime = Mime::parse(mime)?;
        Ok(match mime.kind.as_str() {
            "audio/pcm" | "audio/x-pcm" | "audio/raw" | "audio/l16" | "audio/x-l16" => {
                Self::Pcm { rate: mime.rate(SampleRate::HZ_16000)?, channels: mime.channels()?, endian: mime.endian()? }
            }
            "audio/pcmu" | "audio/x-pcmu" | "audio/mulaw" | "audio/x-mulaw" | "audio/ulaw" | "audio/x-ulaw"
            | "audio/basic" => Self::Mulaw { rate: mime.mono_rate(SampleRate::HZ_8000)? },
            "audio/pcma" | "audio/x-pcma" | "audio/alaw" | "audio/x-alaw" => {
                Self::Alaw { rate: mime.mono_rate(SampleRate::HZ_8000)? }
            }
            "audio/opus" => Self::Opus,
            "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" | "audio/x-pn-wav" => Self::Wav,
            "audio/flac" | "audio/x-flac" => Self::Container(Container::Flac),
            "audio/mpeg" | "audio/mp3" | "audio/x-mp3" | "audio/x-mpeg" | "audio/mpeg3" => {
                Self::Container(Container::Mp3)
            }
            "audio/aac" | "audio/x-aac" | "audio/aacp" => Self::Container(Container::Aac),
            "audio/ogg" | "application/ogg" | "audio/x-ogg" | "audio/vorbis" => Self::Container(Container::Ogg),
            "audio/webm" | "video/webm" | "audio/x-matroska" => Self::Container(Container::WebM),
            "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "video/mp4" => Self::Container(Container::Mp4),
            "video/mp2t" | "audio/mp2t" => {
                return Err(CodecError::Unsupported(
                    "MPEG-TS is not supported; send audio/aac, audio/mp4 or audio/mpeg".into(),
                ));
            }
            other => {
                return Err(CodecError::Unsupported(format!(
                    "MIME type {other:?} is not supported; send audio/pcm, audio/l16, audio/pcmu, audio/pcma, \
                     audio/opus, audio/wav, audio/flac, audio/mpeg, audio/aac, audio/ogg, audio/webm or audio/mp4"
                )));
            }
        })
    }
}

impl OutputFormat {
    /// Parses a MIME type.
    pub fn parse(mime: &str) -> Result<Self, CodecError> {
        let mime = Mime::parse(mime)?;
        let only_8k = |format: Self| match mime.rate(SampleRate::HZ_8000)?.hz() {
            8_000 => Ok(format),
            hz => Err(CodecError::Unsupported(format!("G.711 output at {hz} Hz is not supported; use 8000 Hz"))),
        };
        match mime.kind.as_str() {
            "audio/pcm" | "audio/x-pcm" | "audio/raw" | "audio/l16" => {
                let rate = mime.rate(SampleRate::HZ_24000)?;
                if mime.channels()? != 1 || mime.endian()? != Endian::Little {
                    return Err(CodecError::Unsupported("output is mono and little-endian only".into()));
                }
                match rate.hz() {
                    8_000 | 16_000 | 24_000 | 48_000 => Ok(Self::Pcm(rate)),
                    hz => Err(CodecError::Unsupported(format!(
                        "output at {hz} Hz is not supported; use 8000, 16000, 24000 or 48000 Hz"
                    ))),
                }
            }
            "audio/pcmu" | "audio/mulaw" | "audio/x-mulaw" | "audio/ulaw" | "audio/basic" => only_8k(Self::Mulaw),
            "audio/pcma" | "audio/alaw" | "audio/x-alaw" => only_8k(Self::Alaw),
            "audio/opus" => Ok(Self::Opus),
            other => Err(CodecError::Unsupported(format!(
                "output as {other:?} is not supported; use audio/pcm, audio/pcmu, audio/pcma or audio/opus"
            ))),
        }
    }

    /// The MIME type of packets of this format.
    pub fn mime(self) -> String {
        match self {
            Self::Pcm(rate) => format!("audio/pcm;rate={}", rate.hz()),
            Self::Mulaw => "audio/pcmu".into(),
            Self::Alaw => "audio/pcma".into(),
            Self::Opus => "audio/opus".into(),
        }
    }

    /// Samples a second of the encoded stream: the unit of [`crate::Packet::samples`].
    pub fn sample_rate(self) -> SampleRate {
        match self {
            Self::Pcm(rate) => rate,
            Self::Mulaw | Self::Alaw => SampleRate::HZ_8000,
            Self::Opus => SampleRate::HZ_24000,
        }
    }
}

struct Mime {
    kind: String,
    parameters: Vec<(String, String)>,
}

impl Mime {
    fn parse(text: &str) -> Result<Self, CodecError> {
        if text.len() > MAX_MIME_BYTES {
            return Err(CodecError::Malformed(format!(
                "a MIME type of {} bytes is longer than {MAX_MIME_BYTES}",
                text.len()
            )));
        }
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        if kind.is_empty() {
            return Err(CodecError::Malformed("the MIME type is empty".into()));
        }
        let mut parameters = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').ok_or_else(|| {
                CodecError::Malformed(format!("MIME parameter {part:?} of {kind:?} is not of the form name=value"))
            })?;
            let value = value.trim().trim_matches('"').to_ascii_lowercase();
            parameters.push((name.trim().to_ascii_lowercase(), value));
        }
        Ok(Self { kind, parameters })
    }

    fn get(&self, names: &[&str]) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| names.contains(&name.as_str())).map(|(_, value)| value.as_str())
    }

    fn number(&self, names: &[&str], default: u32) -> Result<u32, CodecError> {
        let Some(text) = self.get(names) else { return Ok(default) };
        text.parse().map_err(|_| CodecError::Malformed(format!("MIME parameter {}={text:?} is not a number", names[0])))
    }

    fn rate(&self, default: SampleRate) -> Result<SampleRate, CodecError> {
        resample::supported(self.number(&["rate", "sample_rate", "samplerate"], default.hz())?)
    }

    fn mono_rate(&self, default: SampleRate) -> Result<SampleRate, CodecError> {
        match self.channels()? {
            1 => self.rate(default),
            n => Err(CodecError::Unsupported(format!("G.711 of {n} channels is not supported; send 1"))),
        }
    }

    fn channels(&self) -> Result<usize, CodecError> {
        check_channels(self.number(&["channels"], 1)? as usize)
    }

    fn endian(&self) -> Result<Endian, CodecError> {
        match self.get(&["endian", "endianness"]) {
            None | Some("little" | "little-endian") => Ok(Endian::Little),
            Some("big" | "big-endian") => Ok(Endian::Big),
            Some(other) => Err(CodecError::Malformed(format!("MIME parameter endian={other:?} is not little or big"))),
        }
    }
}

/// Refuses channel counts that no speech client has.
pub(crate) fn check_channels(channels: usize) -> Result<usize, CodecError> {
    match channels {
        1..=MAX_CHANNELS => Ok(channels),
        n => Err(CodecError::Unsupported(format!("audio of {n} channels is not supported; send 1 to {MAX_CHANNELS}"))),
    }
}
