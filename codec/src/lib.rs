//! Media in and out: bytes of a client become mono `f32` at 16 kHz, speech at 24 kHz becomes packets for a client.
//!
//! - [`AudioInput`] takes the bytes of one stream, in any chunking, and yields what the models hear. Raw PCM, G.711 and
//!   WAV are decoded here; FLAC, MP3, AAC, Ogg, WebM and MP4 by symphonia on a thread of their own ([`container`]); Opus
//!   by libopus.
//! - [`AudioOutput`] takes what the models say and yields packets of PCM, G.711 or Opus.
//! - [`decode_picture`] takes what a camera sees.
//! - [`InputFormat`] and [`OutputFormat`] are MIME types, parsed once at the edge.
//! - [`resample`], [`g711`], [`opus`], [`wav`] and [`level`] are the parts, usable alone.
//!
//! Everything is push/pull and has no clock. Output does not depend on how input was chunked: two splits of the same
//! bytes give the same bits. Bad bytes give a [`CodecError`], never a panic, and every buffer has a bound
//! ([`MAX_PUSH_BYTES`], [`MAX_PUSH_SAMPLES`]).
#![forbid(unsafe_code)]

pub mod container;
mod convert;
mod error;
mod format;
pub mod g711;
mod input;
pub mod level;
pub mod opus;
mod output;
mod pcm;
pub mod picture;
pub mod resample;
pub mod wav;

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
#[cfg(test)]
mod tests;

pub use error::CodecError;
pub use format::{Container, Endian, InputFormat, OutputFormat};
pub use input::{AudioInput, INPUT_RATE, MAX_PUSH_BYTES, MAX_PUSH_SAMPLES};
pub use output::{AudioOutput, OUTPUT_RATE, Packet};
pub use picture::{Pixels, decode_picture};
