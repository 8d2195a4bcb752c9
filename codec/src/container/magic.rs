//! The first bytes of a stream: are they what was declared?

use crate::{CodecError, Container};

/// Bytes that settle the question for every format.
pub(super) const LENGTH: usize = 12;

/// What the bytes so far say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Too few to tell.
    NeedMore,
    /// A tag of this many bytes, header included, stands in front of the stream.
    Skip(u64),
    /// As declared.
    Start,
}

pub(super) fn check(container: Container, head: &[u8]) -> Result<Verdict, CodecError> {
    let Some(head) = head.first_chunk::<LENGTH>() else { return Ok(Verdict::NeedMore) };
    let tagged = matches!(container, Container::Flac | Container::Mp3 | Container::Aac);
    if tagged && head.starts_with(b"ID3") {
        return Ok(Verdict::Skip(id3v2_length(head)));
    }
    let found = identify(head);
    if found == Some(container) {
        return Ok(Verdict::Start);
    }
    let what = match (found, head) {
        (Some(other), _) => other.name().to_string(),
        (None, [b'R', b'I', b'F', b'F', ..]) => "RIFF".to_string(),
        (None, [0x47, ..]) => "MPEG-TS, which is not supported".to_string(),
        (None, _) => format!("bytes that start with {}", head[..4].escape_ascii()),
    };
    Err(CodecError::Malformed(format!("declared as {}, but the content is {what}", container.name())))
}

fn identify(head: &[u8; LENGTH]) -> Option<Container> {
    // ISO/IEC 11172-3 §2.4.2.3 and 13818-7 §6.2: after twelve bits of sync and the version, two bits of layer; zero
    // there is ADTS. Bit rate 15 and sampling frequency 3 do not exist.
    let sync = head[0] == 0xff && head[1] & 0xe0 == 0xe0;
    let layer = (head[1] >> 1) & 3;
    match head {
        [b'f', b'L', b'a', b'C', ..] => Some(Container::Flac),
        [b'O', b'g', b'g', b'S', ..] => Some(Container::Ogg),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => Some(Container::WebM),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some(Container::Mp4),
        _ if sync && head[1] & 0xf0 == 0xf0 && layer == 0 && (head[2] >> 2) & 0x0f < 13 => Some(Container::Aac),
        _ if sync && layer == 1 && head[2] >> 4 != 15 && (head[2] >> 2) & 3 != 3 => Some(Container::Mp3),
        _ => None,
    }
}

/// Length of an ID3v2 tag (id3.org, ID3v2.4 §3.1): seven bits a byte, a footer of ten more bytes if flagged.
fn id3v2_length(head: &[u8; LENGTH]) -> u64 {
    let body = head[6..10].iter().fold(0, |length, byte| length << 7 | u64::from(byte & 0x7f));
    let footer = if head[5] & 0x10 != 0 { 10 } else { 0 };
    10 + body + footer
}
