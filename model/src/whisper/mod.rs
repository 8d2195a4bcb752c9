//! Whisper (arXiv 2212.04356): speech to text, in resumable quanta.
//!
//! [`Whisper`] holds weights and vocabulary and is shared by all conversations; a [`Pass`] is one transcription in
//! progress. The work of a pass is the log-mel spectrogram, two convolutions, the encoder's half-layers one by one, the
//! keys and values of the cross-attention, and the decoder a token at a time; [`Pass::step`] does one of these.
//!
//! The encoder was trained on windows of 30 s. Its cost grows with the window, so short utterances get a short one:
//! [`window`] says how short, and how longer recordings are cut.

mod beam;
mod ct2;
mod decoder;
mod encoder;
mod greedy;
mod layers;
mod load;
mod pass;
mod stable;
#[cfg(test)]
mod tests;
mod tokenizer;
mod window;

use std::path::Path;

use causerie_kernels::{KernelError, Pool};

pub use pass::{Options, Pass, Progress, Transcript};
pub use stable::StablePrefix;

/// Rate of the audio that is transcribed, in hertz.
pub const SAMPLE_RATE: u32 = 16_000;

/// Weights and vocabulary.
pub struct Whisper {
    encoder: encoder::Encoder,
    decoder: decoder::Decoder,
    vocabulary: tokenizer::Vocabulary,
    rules: greedy::Rules,
    plan: window::Plan,
}

impl Whisper {
    /// Loads a folder with `model.bin` (CTranslate2), `config.json` and `vocabulary.json` or `vocabulary.txt`.
    ///
    /// # Errors
    /// [`WhisperError`], naming the file and what is wrong with it.
    pub fn load(pool: &Pool, dir: &Path) -> Result<Self, WhisperError> {
        load::load(pool, dir, load::Precision::default())
    }

    /// Tags of the languages that it understands, English first.
    pub fn languages(&self) -> &[&str] {
        self.vocabulary.languages()
    }

    /// Begins to transcribe mono samples at [`SAMPLE_RATE`], nominally in [-1, 1].
    pub fn begin(&self, pcm: Vec<f32>, options: Options) -> Pass {
        Pass::new(self, pcm, options)
    }
}

/// Why a model was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WhisperError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Its error.
        source: std::io::Error,
    },
    /// A file is not what it claims to be.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A file is sound, but of a kind not known here.
    #[error("{path}: {reason}")]
    Unsupported {
        /// The file.
        path: String,
        /// What is not known.
        reason: String,
    },
    /// The kernels refused weights.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}
