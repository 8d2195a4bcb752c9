//! One reply on its way from an utterance to words and speech.

use std::collections::VecDeque;

use causerie_kernels::ops::rope::Position;
use causerie_model_api::{CREDIT_AHEAD, Event, FinishReason, OutputSamples, ToolBehavior, ToolCall, TurnId, Usage};

use super::hearing::Hearing;
use super::history::Entry;
use super::networks::Voice;
use super::prompt::Prompt;
use super::schedule::Class;
use crate::cascade::{Called, MAX_CALLS, Thought, WRONG};
use crate::lm::Decoder;
use crate::omni::kv::Sequence;
use crate::tools::{self, Scanner};

/// Usage counts an audio token for so many output samples (40 ms).
const OUTPUT_SAMPLES_PER_TOKEN: u64 = 960;
/// The same at the input rate.
const INPUT_SAMPLES_PER_TOKEN: u64 = 640;

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
    pub(super) id: TurnId,
    /// Whether its events may leave.
    pub(super) committed: bool,
    /// Start and end of the utterance it answers; `None` when it answers the history.
    pub(super) utterance: Option<(u64, u64)>,
    pub(super) stage: Stage,
    /// What was heard, and seen before its end.
    pub(super) heard: Option<Entry>,
    pub(super) prompt: Option<Prompt>,
    /// The prompt does not fit and waits until the session forgets something: its length and the limit.
    pub(super) crowded: Option<(usize, usize)>,
    /// All words drawn so far, thoughts and calls among them.
    pub(super) drawn: Vec<u32>,
    /// Those that are neither.
    pub(super) written: usize,
    /// While it thinks and does not speak.
    pub(super) thought: Option<Thought>,
    /// Parts calls from what is said.
    pub(super) scanner: Scanner,
    /// Words that may still turn out to be part of a call, and the bytes of each; what is settled of the first.
    held: VecDeque<(u32, usize)>,
    settled: usize,
    /// Words of this part that are for the listener.
    pub(super) reply: Vec<u32>,
    /// Where each of them ends in `text`.
    pub(super) ends: Vec<usize>,
    /// The calls of this part, and how many were made in parts before.
    pub(super) calls: Vec<Called>,
    called_before: usize,
    /// A part ends with calls and the next begins with their results: how many ended, and where this one begins in the
    /// text.
    pub(super) parts: usize,
    pub(super) text_from: usize,
    /// Speech that was billed.
    audio_from: u64,
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
    pub(super) fn new(
        id: TurnId,
        committed: bool,
        utterance: Option<(u64, u64)>,
        stage: Stage,
        scanner: Scanner,
    ) -> Self {
        let heard = utterance.map_or(0, |(from, until)| until.saturating_sub(from));
        let prompt_audio = u32::try_from(heard / INPUT_SAMPLES_PER_TOKEN).unwrap_or(u32::MAX);
        Self {
            id,
            committed,
            utterance,
            stage,
            heard: None,
            prompt: None,
            crowded: None,
            drawn: Vec::new(),
            written: 0,
            thought: None,
            scanner,
            held: VecDeque::new(),
            settled: 0,
            reply: Vec::new(),
            ends: Vec::new(),
            calls: Vec::new(),
            called_before: 0,
            parts: 0,
            text_from: 0,
            audio_from: 0,
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

    /// How urgent what would be heard `later` samples from now is, and how long the listener has until then.
    pub(super) fn class(&self, later: u64) -> (Class, u64) {
        let ahead = self.ahead() + later;
        match (self.committed, self.audio_until) {
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
        self.reply.len().saturating_sub(said) as u64
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

    /// Takes a word and the text that it completes, or with `None` the end; a call becomes a [`ToolCall`] with what
    /// `declare` says of it. Returns whether the part is over: nothing is said between a call and its result.
    pub(super) fn write(
        &mut self,
        word: Option<(u32, &str)>,
        declare: impl Fn(&str, usize) -> (String, ToolBehavior),
        out: &mut Vec<Event>,
    ) -> bool {
        let mut pieces = Vec::new();
        match word {
            Some((word, delta)) => {
                self.held.push_back((word, delta.len()));
                self.scanner.push(delta, &mut pieces);
            }
            None => self.scanner.finish(&mut pieces),
        }
        for piece in pieces {
            let (call, behavior, results) = match piece {
                tools::Piece::Text(text) if self.calls.is_empty() => {
                    self.grow(text, out);
                    continue;
                }
                tools::Piece::Text(text) if text.trim().is_empty() => continue,
                tools::Piece::Text(_) => return true,
                tools::Piece::Call { name, arguments } => {
                    let (id, behavior) = declare(&name, self.called_before + self.calls.len());
                    let call = ToolCall { id, name, arguments };
                    self.emit(Event::ToolCall { turn: self.id, call: call.clone() }, out);
                    (call, behavior, Vec::new())
                }
                tools::Piece::Wrong { name, arguments } => {
                    let (id, _) = declare(&name, self.called_before + self.calls.len());
                    (ToolCall { id, name, arguments }, ToolBehavior::Blocking, vec![WRONG.to_owned()])
                }
            };
            // Calls are not spoken.
            (self.held, self.settled) = (VecDeque::new(), 0);
            let answered = !results.is_empty();
            self.calls.push(Called { call, behavior, results, answered });
            if self.calls.len() >= MAX_CALLS {
                return true;
            }
        }
        if word.is_none() && self.calls.is_empty() {
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
        self.text.push_str(&text);
        self.emit(Event::Text { turn: self.id, delta: text }, out);
        self.release();
    }

    /// Words whose text is settled are for the talker.
    fn release(&mut self) {
        while let Some(&(word, bytes)) = self.held.front()
            && bytes <= self.settled
        {
            self.held.pop_front();
            self.settled -= bytes;
            self.reply.push(word);
            self.ends.push(self.text.len().saturating_sub(self.settled).max(self.text_from));
        }
    }

    /// Takes a piece of a thought. Once it is over: how many of its words the answer follows from.
    pub(super) fn ponder(&mut self, delta: &str, mark: Option<&str>, out: &mut Vec<Event>) -> Option<usize> {
        let all = self.drawn.len();
        let Some(thought) = &mut self.thought else { return Some(all) };
        self.usage.thoughts += 1;
        let (delta, over) = thought.take(delta, mark, all);
        if !delta.is_empty() {
            self.emit(Event::Thought { turn: self.id, delta }, out);
        }
        over
    }

    /// What was used since it was asked last.
    pub(super) fn bill(&mut self) -> Usage {
        self.audio_from = self.audio_until;
        std::mem::take(&mut self.usage)
    }

    /// Whether all that the turn waits for is there.
    pub(super) fn answered(&self) -> bool {
        self.calls.iter().all(|called| called.answered || called.behavior == ToolBehavior::NonBlocking)
    }

    /// The next part begins: the prompt is made anew, from a history with the calls and their results. Returns what the
    /// talker remembers of this one.
    pub(super) fn go_on(&mut self, scanner: Scanner) -> Option<Sequence> {
        self.called_before += self.calls.len();
        self.calls.clear();
        self.parts += 1;
        self.text_from = self.text.len();
        self.scanner = scanner;
        (self.held, self.settled) = (VecDeque::new(), 0);
        self.detokenizer = Decoder::default();
        self.prompt = None;
        self.reply.clear();
        self.ends.clear();
        self.stage = Stage::Prefill;
        self.speech.take().map(|speech| speech.sequence)
    }

    /// Takes the sound of a frame, the `frame`th of the answer: it says the word that the talker was given before it.
    pub(super) fn spoke(&mut self, frame: usize, pcm: Vec<f32>, out: &mut Vec<Event>) {
        if pcm.is_empty() {
            return;
        }
        let start = OutputSamples(self.audio_until);
        self.audio_until += pcm.len() as u64;
        let tokens = |until: u64| until / OUTPUT_SAMPLES_PER_TOKEN;
        let spoken = tokens(self.audio_until) - tokens(self.audio_from);
        self.usage.response_audio = u32::try_from(spoken).unwrap_or(u32::MAX);
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
