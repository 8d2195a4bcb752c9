//! One reply on its way from an utterance to speech.

use std::collections::VecDeque;

use causerie_model_api::{CREDIT_AHEAD, Event, FinishReason, TurnId, Usage};

use super::networks::{Heard, Networks};
use crate::speech::clauses::{Clause, Splitter};

/// Audio tokens are counted at this many input samples each (40 ms).
const INPUT_SAMPLES_PER_TOKEN: u64 = 640;
/// The same at the output rate.
const OUTPUT_SAMPLES_PER_TOKEN: u64 = 960;

/// Where a turn is.
pub(super) enum Stage<N: Networks> {
    /// The utterance is being transcribed.
    Hearing(N::Hearing),
    /// What is to be answered is known; the prompt is not complete in memory.
    Prefill,
    /// The next token to run.
    Decode(u32),
    /// All text is there.
    Spoken(FinishReason),
}

/// A reply being made.
pub(super) struct Turn<N: Networks> {
    pub(super) id: TurnId,
    /// Whether its events may leave.
    pub(super) committed: bool,
    /// Start and end of the utterance it answers; `None` when it answers the history.
    pub(super) utterance: Option<(u64, u64)>,
    pub(super) stage: Stage<N>,
    /// What the user said; `None` until heard, or when the turn answers the history.
    pub(super) heard: Option<Heard>,
    pub(super) prompt: Vec<u32>,
    /// Tokens drawn so far.
    pub(super) reply: Vec<u32>,
    pub(super) detokenizer: N::Detokenizer,
    pub(super) text: String,
    splitter: Splitter,
    pub(super) clauses: VecDeque<Clause>,
    /// Samples spoken so far.
    pub(super) audio_until: u64,
    /// Samples that may be spoken.
    pub(super) credit: u64,
    /// Text positions by sample position, ascending.
    pub(super) alignment: Vec<(u64, usize)>,
    pub(super) usage: Usage,
    withheld: Vec<Event>,
}

impl<N: Networks> Turn<N> {
    pub(super) fn new(id: TurnId, committed: bool, utterance: Option<(u64, u64)>, stage: Stage<N>) -> Self {
        let heard_samples = utterance.map_or(0, |(from, until)| until.saturating_sub(from));
        Self {
            id,
            committed,
            utterance,
            stage,
            heard: None,
            prompt: Vec::new(),
            reply: Vec::new(),
            detokenizer: N::Detokenizer::default(),
            text: String::new(),
            splitter: Splitter::default(),
            clauses: VecDeque::new(),
            audio_until: 0,
            credit: CREDIT_AHEAD.0,
            alignment: Vec::new(),
            usage: Usage {
                prompt_audio: u32::try_from(heard_samples / INPUT_SAMPLES_PER_TOKEN).unwrap_or(u32::MAX),
                ..Usage::default()
            },
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

    /// Takes a piece of text that was drawn, and cuts off the clauses that it completes.
    pub(super) fn grow(&mut self, delta: String, audio: bool, out: &mut Vec<Event>) {
        if delta.is_empty() {
            return;
        }
        self.text.push_str(&delta);
        if audio {
            self.clauses.extend(self.splitter.push(&delta));
        }
        self.emit(Event::Text { turn: self.id, delta }, out);
    }

    /// No more text will come.
    pub(super) fn end_text(&mut self, audio: bool, reason: FinishReason) {
        if audio {
            self.clauses.extend(self.splitter.flush());
        }
        self.stage = Stage::Spoken(reason);
    }

    /// Takes the speech of `clause` and hands it on word by word, so that an interruption can be placed.
    pub(super) fn spoke(&mut self, clause: &Clause, pcm: &[f32], words: &[(usize, usize)], out: &mut Vec<Event>) {
        /// Pieces shorter than this are joined: 160 ms.
        const PIECE: usize = 3_840;
        let mut from = 0;
        for (i, &(byte, sample)) in words.iter().enumerate() {
            let last = i + 1 == words.len();
            let until = if last { pcm.len() } else { sample.min(pcm.len()) };
            if !last && until.saturating_sub(from) < PIECE {
                continue;
            }
            let text_until = if last { clause.range.end } else { (clause.range.start + byte).min(clause.range.end) };
            self.push_audio(&pcm[from..until.max(from)], text_until, out);
            from = until.max(from);
        }
        if from < pcm.len() {
            self.push_audio(&pcm[from..], clause.range.end, out);
        }
    }

    fn push_audio(&mut self, pcm: &[f32], text_until: usize, out: &mut Vec<Event>) {
        if pcm.is_empty() {
            return;
        }
        let start = causerie_model_api::OutputSamples(self.audio_until);
        self.audio_until += pcm.len() as u64;
        self.alignment.push((self.audio_until, text_until));
        self.usage.response_audio = u32::try_from(self.audio_until / OUTPUT_SAMPLES_PER_TOKEN).unwrap_or(u32::MAX);
        self.emit(Event::Audio { turn: self.id, start, pcm: pcm.to_vec(), text_until }, out);
    }

    /// Bytes of the text that a listener knows who heard `samples` of the speech.
    pub(super) fn heard_text(&self, samples: u64) -> usize {
        text_heard(&self.alignment, samples)
    }
}

/// The last text position whose speech ended at or before `samples`.
pub(super) fn text_heard(alignment: &[(u64, usize)], samples: u64) -> usize {
    let known = alignment.partition_point(|(end, _)| *end <= samples);
    known.checked_sub(1).map_or(0, |i| alignment[i].1)
}
