//! One reply on its way from an utterance to words and speech.

use std::sync::Arc;

use causerie_kernels::ops::rope::Position;
use causerie_model_api::{CREDIT_AHEAD, Event, FinishReason, OutputSamples, TurnId, Usage};

use super::history::Clip;
use super::prompt::Prompt;
use crate::lm::Decoder;
use crate::omni::audio::AudioStream;
use crate::omni::code2wav::Voice;
use crate::omni::kv::Sequence;

/// Usage counts an audio token for so many output samples (40 ms).
const OUTPUT_SAMPLES_PER_TOKEN: u64 = 960;
/// The same at the input rate.
const INPUT_SAMPLES_PER_TOKEN: u64 = 640;

/// Where a turn's words are.
pub(super) enum Stage {
    /// The utterance goes through the audio tower.
    Hearing(Box<Hearing>),
    /// What is to be answered is known; the prompt is not complete in memory.
    Prefill,
    /// The next word to run.
    Decode(u32),
    /// All words are there.
    Written(FinishReason),
}

/// An utterance on its way through the audio tower.
pub(super) struct Hearing {
    /// `[frames, mels]`.
    pub(super) mel: Vec<f32>,
    /// Values of `mel` that went through.
    pub(super) done: usize,
    pub(super) stream: AudioStream,
    pub(super) rows: Vec<f32>,
}

/// The talker's side of a reply.
pub(super) struct Speech {
    pub(super) sequence: Sequence,
    /// Rows of the opening that have not run.
    pub(super) rows: Vec<f32>,
    pub(super) positions: Vec<Position>,
    /// The position of the next frame's row.
    pub(super) next: f64,
    /// The frame whose row has not run.
    pub(super) frame: Vec<u32>,
    /// First codes of all frames.
    pub(super) codes: Vec<u32>,
    pub(super) voice: Voice,
    pub(super) ended: bool,
}

/// A reply being made.
pub(super) struct Turn {
    pub(super) id: TurnId,
    /// Whether its events may leave.
    pub(super) committed: bool,
    /// Start and end of the utterance it answers; `None` when it answers the history.
    pub(super) utterance: Option<(u64, u64)>,
    pub(super) stage: Stage,
    /// What was heard.
    pub(super) clip: Option<Arc<Clip>>,
    pub(super) prompt: Option<Prompt>,
    /// The prompt does not fit and waits until the session forgets something: its length and the limit.
    pub(super) crowded: Option<(usize, usize)>,
    /// Words drawn so far.
    pub(super) reply: Vec<u32>,
    /// Where each word ends in `text`.
    pub(super) ends: Vec<usize>,
    pub(super) text: String,
    pub(super) detokenizer: Decoder,
    pub(super) speech: Option<Speech>,
    /// Samples spoken so far.
    pub(super) audio_until: u64,
    /// Samples that may be spoken.
    pub(super) credit: u64,
    /// Text positions by sample position, ascending.
    pub(super) alignment: Vec<(u64, usize)>,
    pub(super) usage: Usage,
    withheld: Vec<Event>,
}

impl Turn {
    pub(super) fn new(id: TurnId, committed: bool, utterance: Option<(u64, u64)>, stage: Stage) -> Self {
        let heard = utterance.map_or(0, |(from, until)| until.saturating_sub(from));
        let prompt_audio = u32::try_from(heard / INPUT_SAMPLES_PER_TOKEN).unwrap_or(u32::MAX);
        Self {
            id,
            committed,
            utterance,
            stage,
            clip: None,
            prompt: None,
            crowded: None,
            reply: Vec::new(),
            ends: Vec::new(),
            text: String::new(),
            detokenizer: Decoder::default(),
            speech: None,
            audio_until: 0,
            credit: CREDIT_AHEAD.0,
            alignment: Vec::new(),
            usage: Usage { prompt_audio, ..Usage::default() },
            withheld: Vec::new(),
        }
    }

    /// Samples that the listener is behind what has been spoken.
    pub(super) fn ahead(&self) -> u64 {
        (self.audio_until + CREDIT_AHEAD.0).saturating_sub(self.credit)
    }

    /// Hands an event on, or keeps it until the turn is committed.
    pub(super) fn emit(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.committed {
            out.push(event);
        } else {
            self.withheld.push(event);
        }
    }

    /// Lets the withheld events go.
    pub(super) fn commit(&mut self, out: &mut Vec<Event>) {
        self.committed = true;
        out.append(&mut self.withheld);
    }

    /// Takes a word and the text that it completes.
    pub(super) fn wrote(&mut self, word: u32, delta: String, out: &mut Vec<Event>) {
        self.reply.push(word);
        self.usage.response_text += 1;
        self.text.push_str(&delta);
        self.ends.push(self.text.len());
        if !delta.is_empty() {
            self.emit(Event::Text { turn: self.id, delta }, out);
        }
    }

    /// Takes the sound of a frame, the `frame`th of the answer: it says the word that the talker was given before it.
    pub(super) fn spoke(&mut self, frame: usize, pcm: Vec<f32>, out: &mut Vec<Event>) {
        if pcm.is_empty() {
            return;
        }
        let start = OutputSamples(self.audio_until);
        self.audio_until += pcm.len() as u64;
        self.usage.response_audio = u32::try_from(self.audio_until / OUTPUT_SAMPLES_PER_TOKEN).unwrap_or(u32::MAX);
        let text_until = self.ends.get(frame).or(self.ends.last()).copied().unwrap_or(0);
        self.alignment.push((self.audio_until, text_until));
        self.emit(Event::Audio { turn: self.id, start, pcm, text_until }, out);
    }

    /// The word that goes into the row after frame `k`, once it is known: the answer's words one a frame, then the end,
    /// then padding.
    pub(super) fn word_after(&self, k: usize, eos: u32, pad: u32) -> Option<u32> {
        match self.reply.get(k + 1) {
            Some(word) => Some(*word),
            None if !matches!(self.stage, Stage::Written(_)) => None,
            None if k + 1 == self.reply.len() => Some(eos),
            None => Some(pad),
        }
    }
}

/// The last text position whose speech ended at or before `samples`.
pub(super) fn text_heard(alignment: &[(u64, usize)], samples: u64) -> usize {
    let known = alignment.partition_point(|(end, _)| *end <= samples);
    known.checked_sub(1).map_or(0, |i| alignment[i].1)
}
