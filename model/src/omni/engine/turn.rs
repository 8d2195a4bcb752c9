//! One reply on its way from an utterance to words and speech.

use std::collections::VecDeque;

use causerie_kernels::ops::rope::Position;
use causerie_model_api::{Event, FinishReason, TurnId};

use super::hearing::Hearing;
use super::history::Entry;
use super::networks::Voice;
use super::prompt::Prompt;
use super::schedule::Class;
use crate::lm::Decoder;
use crate::omni::kv::Sequence;
use crate::reply::{Caller, Reply};
use crate::tools::{Piece, Scanner};

/// A listener with less speech than this left is close to silence: 1.5 s.
const NEARLY_DRY: u64 = 36_000;

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
    /// Its calls are being run.
    Waiting,
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
    pub(super) reply: Reply,
    pub(super) stage: Stage,
    /// What was heard, and seen before its end.
    pub(super) heard: Option<Entry>,
    pub(super) prompt: Option<Prompt>,
    /// All words drawn so far, thoughts and calls among them.
    pub(super) drawn: Vec<u32>,
    /// Those that are neither.
    pub(super) written: usize,
    /// Parts calls from what is said.
    pub(super) scanner: Scanner,
    /// Words that may still turn out to be part of a call, and the bytes of each; what is settled of the first.
    held: VecDeque<(u32, usize)>,
    settled: usize,
    /// Words of this part that are for the listener.
    pub(super) words: Vec<u32>,
    /// Where each of them ends in the text.
    pub(super) ends: Vec<usize>,
    pub(super) detokenizer: Decoder,
    pub(super) speech: Option<Speech>,
}

impl Turn {
    pub(super) fn new(
        id: TurnId,
        committed: bool,
        utterance: Option<(u64, u64)>,
        stage: Stage,
        scanner: Scanner,
    ) -> Self {
        Self {
            reply: Reply::new(id, committed, utterance),
            stage,
            heard: None,
            prompt: None,
            drawn: Vec::new(),
            written: 0,
            scanner,
            held: VecDeque::new(),
            settled: 0,
            words: Vec::new(),
            ends: Vec::new(),
            detokenizer: Decoder::default(),
            speech: None,
        }
    }

    /// How urgent what would be heard `later` samples from now is, and how long the listener has until then.
    pub(super) fn class(&self, later: u64) -> (Class, u64) {
        let ahead = self.reply.ahead() + later;
        match (self.reply.committed, self.reply.audio_until) {
            (false, _) => (Class::Proposed, 0),
            (true, 0) => (Class::First, 0),
            (true, _) if self.speech.as_ref().is_some_and(|speech| speech.ended) => (Class::Ahead, ahead),
            (true, _) if ahead < NEARLY_DRY => (Class::Dry, ahead),
            (true, _) => (Class::Ahead, ahead),
        }
    }

    /// Words that the talker has not said yet.
    pub(super) fn words_ahead(&self) -> u64 {
        let said = self.speech.as_ref().map_or(0, |speech| speech.codes.len());
        self.words.len().saturating_sub(said) as u64
    }

    /// Takes a word and the text that it completes, or with `None` the end. Returns whether the part is over: nothing is
    /// said between a call and its result.
    pub(super) fn write(&mut self, word: Option<(u32, &str)>, caller: Caller<'_>, out: &mut Vec<Event>) -> bool {
        let mut pieces = Vec::new();
        match word {
            Some((word, delta)) => {
                self.held.push_back((word, delta.len()));
                self.scanner.push(delta, &mut pieces);
            }
            None => self.scanner.finish(&mut pieces),
        }
        for piece in pieces {
            let (name, arguments, possible) = match piece {
                Piece::Text(text) if self.reply.calls.is_empty() => {
                    self.grow(text, out);
                    continue;
                }
                Piece::Text(text) if text.trim().is_empty() => continue,
                Piece::Text(_) => return true,
                Piece::Call { name, arguments } => (name, arguments, true),
                Piece::Wrong { name, arguments } => (name, arguments, false),
            };
            // Calls are not spoken.
            (self.held, self.settled) = (VecDeque::new(), 0);
            if self.reply.call(caller, (name, arguments, possible), out) {
                return true;
            }
        }
        if word.is_none() && self.reply.calls.is_empty() {
            self.settled = usize::MAX;
        }
        self.release();
        false
    }

    /// Takes text for the listener.
    fn grow(&mut self, text: String, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        self.settled += text.len();
        self.reply.text.push_str(&text);
        self.reply.emit(Event::Text { turn: self.reply.id, delta: text }, out);
        self.release();
    }

    /// Words whose text is settled are for the talker.
    fn release(&mut self) {
        while let Some(&(word, bytes)) = self.held.front()
            && bytes <= self.settled
        {
            self.held.pop_front();
            self.settled -= bytes;
            self.words.push(word);
            self.ends.push(self.reply.text.len().saturating_sub(self.settled).max(self.reply.text_from));
        }
    }

    /// The next part begins: the prompt is made anew, from a history with the calls and their results. Returns what the
    /// talker remembers of this one.
    pub(super) fn go_on(&mut self, scanner: Scanner) -> Option<Sequence> {
        self.scanner = scanner;
        (self.held, self.settled) = (VecDeque::new(), 0);
        self.detokenizer = Decoder::default();
        self.prompt = None;
        self.words.clear();
        self.ends.clear();
        self.stage = Stage::Prefill;
        self.speech.take().map(|speech| speech.sequence)
    }

    /// Takes the sound of a frame, the `frame`th of the answer: it says the word that the talker was given before it.
    pub(super) fn spoke(&mut self, frame: usize, pcm: Vec<f32>, out: &mut Vec<Event>) {
        let text_until = self.ends.get(frame).or(self.ends.last()).copied().unwrap_or(0);
        self.reply.speak(pcm, text_until, out);
    }

    /// The word that goes into the row after frame `k`, once it is known: the answer's words one a frame, then the end,
    /// then padding.
    pub(super) fn word_after(&self, k: usize, eos: u32, pad: u32) -> Option<u32> {
        match self.words.get(k + 1) {
            Some(word) => Some(*word),
            None if !matches!(self.stage, Stage::Written(_)) => None,
            None if k + 1 == self.words.len() => Some(eos),
            None => Some(pad),
        }
    }
}
