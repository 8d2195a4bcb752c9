//! The voice: from the text that a language model writes to speech at 24 kHz.
//!
//! [`clauses::Splitter`] cuts growing text into pieces that can be spoken; [`normalize::normalize`] turns each into
//! words; the reading rules turn words into phonemes; the acoustic network and the renderer turn phonemes into
//! samples. [`Speech`] does all but the first for one piece, and says which byte of the text each sample has reached.
//!
//! The voice is the released hibari network with its dictionaries; everything around the networks is here.

mod acoustic;
pub mod clauses;
mod dsp;
mod g2p;
mod levels;
pub mod normalize;

use std::path::Path;

use acoustic::{Acoustic, MAX_PHONEMES};
use causerie_model_api::Voice;
use g2p::{G2p, Phonemes};

use crate::onnx::{OnnxError, Worker};

/// Slowest and fastest rate of speech; the network was trained between them.
pub const RATES: std::ops::RangeInclusive<f32> = 0.5..=2.0;

/// Why nothing was said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeechError {
    /// A network or table cannot be loaded or run.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// There is no such voice.
    #[error("there is no voice `{voice}`; there are {known}")]
    UnknownVoice {
        /// What was asked for.
        voice: String,
        /// What there is.
        known: String,
    },
    /// A text longer than [`MAX_TEXT`].
    #[error("text of {0} bytes is too long to be spoken at once; cut it into clauses")]
    TooLong(usize),
    /// A rate of speech outside [`RATES`].
    #[error("speaking rate {0} is not between 0.5 and 2")]
    Rate(f32),
}

/// What was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// Samples that were appended.
    pub samples: usize,
    /// For each word: the byte of the text behind it, and the sample at which it has been said, counted from the first
    /// appended one. Both ascend.
    pub words: Vec<(usize, usize)>,
}

/// A voice with everything that it needs to read English.
pub struct Speech {
    g2p: G2p,
    acoustic: Acoustic,
    voices: Vec<Voice>,
}

impl Speech {
    /// The voice's name in the released package.
    pub const VOICE: &str = "heart";

    /// Loads networks and dictionaries from the folder that holds them.
    ///
    /// # Errors
    /// A file is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, SpeechError> {
        let worker = Worker::new();
        let voice = Voice { name: Self::VOICE.into(), language: "en-US".into(), gender: "female".into() };
        Ok(Self {
            g2p: G2p::load(dir, &worker)?,
            acoustic: Acoustic::load(&dir.join("hibari.onnx"), &worker)?,
            voices: vec![voice],
        })
    }

    /// The voices there are; the first is the default.
    pub fn voices(&self) -> &[Voice] {
        &self.voices
    }

    /// Speaks `text`, at most [`MAX_TEXT`] bytes and best a clause, and appends mono samples at
    /// [`causerie_model_api::OUTPUT_RATE`] in [-1, 1] to `out`. Equal arguments give equal samples. An empty `voice`
    /// is the default one; text without words appends nothing.
    ///
    /// # Errors
    /// The voice or rate is unknown, the text is too long, or the networks failed; `out` is then as it was.
    pub fn synthesize(&self, text: &str, voice: &str, rate: f32, out: &mut Vec<f32>) -> Result<Spoken, SpeechError> {
        if !voice.is_empty() && self.voices.iter().all(|v| v.name != voice) {
            let known = self.voices.iter().map(|v| v.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(SpeechError::UnknownVoice { voice: voice.into(), known });
        }
        if !RATES.contains(&rate) {
            return Err(SpeechError::Rate(rate));
        }
        if text.len() > MAX_TEXT {
            return Err(SpeechError::TooLong(text.len()));
        }
        let start = out.len();
        let spoken = self.speak(text, rate, out);
        if spoken.is_err() {
            out.truncate(start);
        }
        spoken
    }

    fn speak(&self, text: &str, rate: f32, out: &mut Vec<f32>) -> Result<Spoken, SpeechError> {
        let start = out.len();
        let mut spoken = Spoken::default();
        let mut splitter = clauses::Splitter::default();
        let mut clauses = splitter.push(text);
        clauses.extend(splitter.flush());
        // A short text is one utterance, however it could be cut.
        if let [first, .., last] = &clauses[..]
            && text.len() <= ONE_UTTERANCE
        {
            clauses = vec![clauses::Clause { text: text.into(), range: first.range.start..last.range.end }];
        }
        for clause in &clauses {
            let said = normalize::normalize(&clause.text);
            let phonemes = self.g2p.phonemes(&said.text)?;
            let ending = levels::Ending::of(&said.text);
            for part in parts(&phonemes, ending) {
                let from = out.len();
                let mut ends = self.acoustic.speak(&part.chars, rate, true, out)?;
                let lead = levels::finish(out, from, part.ending, rate);
                let words = &mut spoken.words;
                for (byte, phoneme) in part.word_ends {
                    let sample = ends.get_mut(phoneme.wrapping_sub(1)).map_or(0, |s| s.saturating_sub(lead));
                    let sample = (from - start + sample).min(out.len() - start);
                    let byte = clause.range.start + said.source_end(byte);
                    match words.last_mut() {
                        // A number of several words is one in the text.
                        Some(last) if last.0 >= byte => last.1 = last.1.max(sample),
                        last => {
                            let sample = last.map_or(sample, |last| sample.max(last.1));
                            words.push((byte, sample));
                        }
                    }
                }
            }
        }
        spoken.samples = out.len() - start;
        Ok(spoken)
    }
}

/// Longest text, in bytes, that is spoken at once: about a quarter of an hour.
pub const MAX_TEXT: usize = 16 << 10;

/// Longest text, in bytes, that is spoken in one breath when it is given at once.
const ONE_UTTERANCE: usize = 240;

/// A run of phonemes short enough for the network.
struct Part {
    chars: Vec<char>,
    word_ends: Vec<(usize, usize)>,
    ending: levels::Ending,
}

/// Cuts phonemes between words so that no part is longer than the network was trained on.
fn parts(phonemes: &Phonemes, ending: levels::Ending) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = &phonemes.chars[..];
    let mut taken = 0;
    while !rest.is_empty() {
        let len = if rest.len() <= MAX_PHONEMES {
            rest.len()
        } else {
            rest[..MAX_PHONEMES].iter().rposition(|c| *c == ' ').map_or(MAX_PHONEMES, |space| space + 1)
        };
        let (now, later) = rest.split_at(len);
        let ends = phonemes.word_ends.iter().filter(|w| w.1 > taken && w.1 <= taken + len);
        parts.push(Part {
            chars: now.to_vec(),
            word_ends: ends.map(|w| (w.0, w.1 - taken)).collect(),
            ending: if later.is_empty() { ending } else { levels::Ending::None },
        });
        taken += len;
        rest = later;
    }
    // A full stop that belongs to an abbreviation ends the sentence too, and the voice should hear of it.
    if let Some(last) = parts.last_mut()
        && ending == levels::Ending::Sentence
        && !last.chars.ends_with(&['.'])
        && last.chars.last().is_some_and(|c| !".!?…”\")".contains(*c))
    {
        last.chars.push('.');
    }
    parts
}

#[cfg(test)]
mod tests;
