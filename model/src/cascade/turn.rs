//! One reply on its way from an utterance to speech.

use std::collections::VecDeque;

use causerie_model_api::{CREDIT_AHEAD, Event, FinishReason, ToolBehavior, ToolCall, TurnId, Usage};

use super::addressed::Choice;
use super::networks::{Heard, Networks};
use crate::speech::clauses::{Clause, Splitter};
use crate::tools::{Piece, Scanner};

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
    /// Its calls are being run.
    Waiting,
}

/// A thought before the reply.
pub(crate) struct Thought {
    /// Tokens that may still be thought.
    pub(super) left: u32,
    pub(super) text: String,
    /// Bytes of the text that were handed on.
    told: usize,
    /// Tokens up to the end of its last whole sentence or line.
    whole: usize,
}

impl Thought {
    pub(crate) fn new(budget: u32) -> Self {
        Self { left: budget, text: String::new(), told: 0, whole: 0 }
    }

    /// Whether what was thought last ends a line or a sentence. A full stop after a digit may be a decimal point or an
    /// item's number, and a colon announces what is not there yet.
    fn rests(&self) -> bool {
        let text = self.text.trim_end();
        let ends = |mark: char| {
            let before = text.strip_suffix(mark).and_then(|text| text.chars().next_back());
            before.is_some_and(|before| !before.is_ascii_digit())
        };
        let line = self.text[text.len()..].contains('\n') && !text.ends_with(':');
        line || ['.', '!', '?'].into_iter().any(ends)
    }

    /// Takes a piece, with which it is `all` tokens long. What may be handed on; and once the thought is over, how many of
    /// its tokens the reply follows from. Of a thought that the budget cuts it is the whole sentences, because the model
    /// takes half a calculation for its result. What may be the beginning of the model's mark is held back.
    pub(crate) fn take(&mut self, delta: &str, mark: Option<&str>, all: usize) -> (String, Option<usize>) {
        self.text.push_str(delta);
        if self.rests() {
            self.whole = all;
        }
        self.left = self.left.saturating_sub(1);
        let marked = mark.and_then(|mark| self.text.find(mark));
        let over = marked.is_some() || self.left == 0;
        let begins = |at: &usize| mark.is_some_and(|mark| mark.starts_with(&self.text[*at..]));
        let until = match marked {
            Some(at) => at,
            None if over => self.text.len(),
            None => self
                .text
                .char_indices()
                .map(|(at, _)| at)
                .skip_while(|at| *at < self.told)
                .find(begins)
                .unwrap_or(self.text.len()),
        };
        let delta = self.text.get(self.told..until).unwrap_or_default().to_owned();
        self.told = self.told.max(until);
        (delta, over.then_some(if marked.is_none() && self.whole > 0 { self.whole } else { all }))
    }
}

/// Calls of one part of a turn. A model that makes more has lost its way.
pub(crate) const MAX_CALLS: usize = 16;

/// What the model is told of a call that cannot be made. It goes on with that, and nobody else hears of it.
pub(crate) const WRONG: &str =
    r#"{"error": "no function has this name and these arguments; answer in words yourself"}"#;

/// What the model is told of a call that it does not wait for.
const RUNNING: &str = r#"{"status": "running, the result will come later"}"#;
/// What the model is told of a call whose turn was interrupted.
const CANCELLED: &str = r#"{"error": "cancelled, the user interrupted"}"#;

/// A call that a turn has made.
pub(crate) struct Called {
    pub(crate) call: ToolCall,
    pub(crate) behavior: ToolBehavior,
    /// What came back so far, and whether that is all.
    pub(crate) results: Vec<String>,
    pub(crate) answered: bool,
}

impl Called {
    /// What the model is told of it where its turn ends.
    pub(crate) fn told(&self) -> impl Iterator<Item = &str> {
        let missing = match (self.behavior, self.answered) {
            (ToolBehavior::NonBlocking, _) => Some(RUNNING),
            (ToolBehavior::Blocking, false) => Some(CANCELLED),
            (ToolBehavior::Blocking, true) => None,
        };
        self.results.iter().map(String::as_str).chain(missing)
    }
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
    /// The prompt does not fit and waits until the session forgets something: its length and the limit.
    pub(super) crowded: Option<(usize, usize)>,
    /// Tokens drawn so far.
    pub(super) reply: Vec<u32>,
    pub(super) detokenizer: N::Detokenizer,
    /// What is said; calls are not part of it.
    pub(super) text: String,
    /// Whether what it answers is meant for the model is not known yet: what may answer that.
    pub(super) choice: Option<Choice>,
    /// It is known, or was never asked.
    pub(super) addressed: bool,
    /// While it thinks and does not speak.
    pub(super) thought: Option<Thought>,
    /// Parts calls from what is said.
    pub(super) scanner: Scanner,
    /// The calls of this part.
    pub(super) calls: Vec<Called>,
    /// Calls made in parts before.
    pub(super) called_before: usize,
    /// A part ends with calls and the next begins with their results: how many ended, and where this one begins in the
    /// text.
    pub(super) parts: usize,
    pub(super) text_from: usize,
    /// Speech that was billed.
    audio_from: u64,
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
    pub(super) fn new(
        id: TurnId,
        committed: bool,
        utterance: Option<(u64, u64)>,
        stage: Stage<N>,
        scanner: Scanner,
    ) -> Self {
        let heard_samples = utterance.map_or(0, |(from, until)| until.saturating_sub(from));
        Self {
            id,
            committed,
            utterance,
            stage,
            heard: None,
            prompt: Vec::new(),
            crowded: None,
            reply: Vec::new(),
            detokenizer: N::Detokenizer::default(),
            text: String::new(),
            choice: None,
            addressed: utterance.is_none(),
            thought: None,
            scanner,
            calls: Vec::new(),
            called_before: 0,
            parts: 0,
            text_from: 0,
            audio_from: 0,
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

    /// Takes a piece of text that was drawn; a call becomes a [`ToolCall`] with what `declare` says of it. Returns
    /// whether the part is over: nothing is said between a call and its result.
    pub(super) fn write(
        &mut self,
        delta: Written<'_>,
        audio: bool,
        declare: impl Fn(&str, usize) -> (String, ToolBehavior),
        out: &mut Vec<Event>,
    ) -> bool {
        let mut pieces = Vec::new();
        match delta {
            Written::Text(delta) => self.scanner.push(delta, &mut pieces),
            Written::End => self.scanner.finish(&mut pieces),
        }
        for piece in pieces {
            match piece {
                Piece::Text(text) if self.calls.is_empty() => self.grow(text, audio, out),
                Piece::Text(text) if text.trim().is_empty() => {}
                Piece::Text(_) => return true,
                Piece::Call { name, arguments } => {
                    let (id, behavior) = declare(&name, self.called_before + self.calls.len());
                    let call = ToolCall { id, name, arguments };
                    self.emit(Event::ToolCall { turn: self.id, call: call.clone() }, out);
                    self.calls.push(Called { call, behavior, results: Vec::new(), answered: false });
                }
                Piece::Wrong { name, arguments } => {
                    let (id, _) = declare(&name, self.called_before + self.calls.len());
                    let (call, behavior) = (ToolCall { id, name, arguments }, ToolBehavior::Blocking);
                    self.calls.push(Called { call, behavior, results: vec![WRONG.into()], answered: true });
                }
            }
            if self.calls.len() >= MAX_CALLS {
                return true;
            }
        }
        false
    }

    /// What was used since it was asked last.
    pub(super) fn bill(&mut self) -> Usage {
        self.audio_from = self.audio_until;
        std::mem::take(&mut self.usage)
    }

    /// Takes a piece of a thought. Once it is over: how many of its tokens the reply follows from.
    pub(super) fn ponder(&mut self, delta: &str, mark: Option<&str>, out: &mut Vec<Event>) -> Option<usize> {
        let all = self.reply.len();
        let Some(thought) = &mut self.thought else { return Some(all) };
        self.usage.thoughts += 1;
        let (delta, over) = thought.take(delta, mark, all);
        if !delta.is_empty() {
            self.emit(Event::Thought { turn: self.id, delta }, out);
        }
        over
    }

    /// The thought is over: the reply begins after `held` and `after`.
    pub(super) fn speak_up(&mut self, held: &[u32], after: &[u32]) {
        self.thought = None;
        self.prompt = [held, after].concat();
        self.reply.clear();
        self.detokenizer = N::Detokenizer::default();
        self.stage = Stage::Prefill;
    }

    /// Whether all that the turn waits for is there.
    pub(super) fn answered(&self) -> bool {
        self.calls.iter().all(|called| called.answered || called.behavior == ToolBehavior::NonBlocking)
    }

    /// The next part begins: the prompt is made anew, from a history with the calls and their results.
    pub(super) fn go_on(&mut self, scanner: Scanner) {
        self.called_before += self.calls.len();
        self.calls.clear();
        self.parts += 1;
        self.text_from = self.text.len();
        self.scanner = scanner;
        self.detokenizer = N::Detokenizer::default();
        self.prompt.clear();
        self.reply.clear();
        self.stage = Stage::Prefill;
    }

    /// Takes text for the listener, and cuts off the clauses that it completes.
    fn grow(&mut self, mut delta: String, audio: bool, out: &mut Vec<Event>) {
        if delta.is_empty() {
            return;
        }
        let blank = |text: &str| text.ends_with(char::is_whitespace);
        if self.parts > 0 && self.text.len() == self.text_from && !self.text.is_empty() && !blank(&self.text) {
            // The words before a call and those after it are one reply.
            delta.insert(0, ' ');
        }
        self.text.push_str(&delta);
        if audio {
            let clauses = self.splitter.push(&delta);
            self.add_clauses(clauses);
        }
        self.emit(Event::Text { turn: self.id, delta }, out);
    }

    /// The splitter counts from the beginning of the part.
    fn add_clauses(&mut self, clauses: Vec<Clause>) {
        let from = self.text_from;
        self.clauses.extend(
            clauses
                .into_iter()
                .map(|clause| Clause { range: clause.range.start + from..clause.range.end + from, ..clause }),
        );
    }

    /// No more text will come.
    pub(super) fn end_text(&mut self, audio: bool, reason: FinishReason) {
        if audio {
            let clauses = self.splitter.flush();
            self.add_clauses(clauses);
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
        let tokens = |until: u64| until / OUTPUT_SAMPLES_PER_TOKEN;
        let spoken = tokens(self.audio_until) - tokens(self.audio_from);
        self.usage.response_audio = u32::try_from(spoken).unwrap_or(u32::MAX);
        self.emit(Event::Audio { turn: self.id, start, pcm: pcm.to_vec(), text_until }, out);
    }

    /// Bytes of the text that a listener knows who heard `samples` of the speech.
    pub(super) fn heard_text(&self, samples: u64) -> usize {
        text_heard(&self.alignment, samples)
    }
}

/// What [`Turn::write`] takes.
pub(super) enum Written<'a> {
    /// A piece of text.
    Text(&'a str),
    /// There will be no more.
    End,
}

/// The last text position whose speech ended at or before `samples`.
pub(super) fn text_heard(alignment: &[(u64, usize)], samples: u64) -> usize {
    let known = alignment.partition_point(|(end, _)| *end <= samples);
    known.checked_sub(1).map_or(0, |i| alignment[i].1)
}
