//! One reply on its way from an utterance to speech.

use std::collections::VecDeque;

use causerie_model_api::{Event, FinishReason, TurnId};

use super::addressed::Choice;
use super::networks::{Heard, Networks};
use crate::reply::{Caller, Reply};
use crate::speech::clauses::{Clause, Splitter};
use crate::tools::{Piece, Scanner};

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

/// A reply being made.
pub(super) struct Turn<N: Networks> {
    pub(super) reply: Reply,
    pub(super) stage: Stage<N>,
    /// What the user said; `None` until heard, or when the turn answers the history.
    pub(super) heard: Option<Heard>,
    pub(super) prompt: Vec<u32>,
    /// Tokens drawn so far.
    pub(super) drawn: Vec<u32>,
    pub(super) detokenizer: N::Detokenizer,
    /// Whether what it answers is meant for the model is not known yet: what may answer that.
    pub(super) choice: Option<Choice>,
    /// It is known, or was never asked.
    pub(super) addressed: bool,
    /// Parts calls from what is said.
    pub(super) scanner: Scanner,
    splitter: Splitter,
    pub(super) clauses: VecDeque<Clause>,
}

impl<N: Networks> Turn<N> {
    pub(super) fn new(
        id: TurnId,
        committed: bool,
        utterance: Option<(u64, u64)>,
        stage: Stage<N>,
        scanner: Scanner,
    ) -> Self {
        Self {
            reply: Reply::new(id, committed, utterance),
            stage,
            heard: None,
            prompt: Vec::new(),
            drawn: Vec::new(),
            detokenizer: N::Detokenizer::default(),
            choice: None,
            addressed: utterance.is_none(),
            scanner,
            splitter: Splitter::default(),
            clauses: VecDeque::new(),
        }
    }

    /// Takes a piece of text that was drawn. Returns whether the part is over: nothing is said between a call and its
    /// result.
    pub(super) fn write(&mut self, delta: Written<'_>, audio: bool, caller: Caller<'_>, out: &mut Vec<Event>) -> bool {
        let mut pieces = Vec::new();
        match delta {
            Written::Text(delta) => self.scanner.push(delta, &mut pieces),
            Written::End => self.scanner.finish(&mut pieces),
        }
        for piece in pieces {
            let enough = match piece {
                Piece::Text(text) if self.reply.calls.is_empty() => {
                    self.grow(text, audio, out);
                    false
                }
                Piece::Text(text) => !text.trim().is_empty(),
                Piece::Call { name, arguments } => self.reply.call(caller, (name, arguments, true), out),
                Piece::Wrong { name, arguments } => self.reply.call(caller, (name, arguments, false), out),
            };
            if enough {
                return true;
            }
        }
        false
    }

    /// The thought is over: the reply begins after `held` and `after`.
    pub(super) fn speak_up(&mut self, held: &[u32], after: &[u32]) {
        self.reply.thought = None;
        self.prompt = [held, after].concat();
        self.drawn.clear();
        self.detokenizer = N::Detokenizer::default();
        self.stage = Stage::Prefill;
    }

    /// The next part begins: the prompt is made anew, from a history with the calls and their results.
    pub(super) fn go_on(&mut self, scanner: Scanner) {
        self.scanner = scanner;
        self.detokenizer = N::Detokenizer::default();
        self.prompt.clear();
        self.drawn.clear();
        self.stage = Stage::Prefill;
    }

    /// Takes text for the listener, and cuts off the clauses that it completes.
    fn grow(&mut self, mut delta: String, audio: bool, out: &mut Vec<Event>) {
        if delta.is_empty() {
            return;
        }
        let Reply { text, text_from, parts, .. } = &mut self.reply;
        let blank = |text: &str| text.ends_with(char::is_whitespace);
        if *parts > 0 && text.len() == *text_from && !text.is_empty() && !blank(text) {
            // The words before a call and those after it are one reply.
            delta.insert(0, ' ');
        }
        text.push_str(&delta);
        if audio {
            let clauses = self.splitter.push(&delta);
            self.add_clauses(clauses);
        }
        self.reply.emit(Event::Text { turn: self.reply.id, delta }, out);
    }

    /// The splitter counts from the beginning of the part.
    fn add_clauses(&mut self, clauses: Vec<Clause>) {
        let from = self.reply.text_from;
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
            self.reply.speak(pcm[from..until.max(from)].to_vec(), text_until, out);
            from = until.max(from);
        }
        if from < pcm.len() {
            self.reply.speak(pcm[from..].to_vec(), clause.range.end, out);
        }
    }
}

/// What [`Turn::write`] takes.
pub(super) enum Written<'a> {
    /// A piece of text.
    Text(&'a str),
    /// There will be no more.
    End,
}
