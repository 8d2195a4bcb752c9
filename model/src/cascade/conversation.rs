//! One conversation inside the engine: its audio, its history, the utterance being listened to and the replies being
//! made. It decides what is to be done next for itself; the engine decides whose turn it is.

use std::collections::VecDeque;
use std::sync::Arc;

use causerie_model_api::{
    Cause, Content, Event, FinishReason, InputSamples, Item, Modality, Origin, OutputSamples, Request, SessionConfig,
    SessionId, ToolDeclaration, TurnId,
};

use super::addressed::doubtful;
use super::audio::AudioBuffer;
use super::history::History;
use super::networks::{Memory, Networks, User};
use super::thinking::{last_words, thinking_budget};
use super::turn::{Stage, Turn, Written};
use crate::reply::{Book as _, Caller, Reply, Thought};
use crate::tools::{Grammar, Scanner};
use crate::whisper::StablePrefix;

/// Input that is kept at most: 120 s. An utterance is settled piecewise long before.
const AUDIO_LIMIT: usize = 120 * 16_000;
/// Input that is kept from before the present: an utterance may reach back this far.
const AUDIO_BEFORE: u64 = 2 * 16_000;
/// How long after the end of an utterance its audio is kept, for a speaker who goes on after all: 4 s.
const TAKE_BACK: u64 = 4 * 16_000;
/// New input that makes another partial transcript worth its time: 400 ms.
const PARTIAL_STEP: u64 = 6_400;
/// The shortest utterance that a partial transcript is tried on: 600 ms.
const PARTIAL_MIN: u64 = 9_600;
/// An unsettled stretch longer than this is cut: 14 s.
const SETTLE_ABOVE: u64 = 14 * 16_000;
/// Where it may be cut, from its start: 8 to 12 s.
const SETTLE_BETWEEN: (u64, u64) = (8 * 16_000, 12 * 16_000);
/// A cut is made in the middle of the quietest stretch of this length: 240 ms.
const SETTLE_WINDOW: usize = 3_840;
/// Turns that may wait in one conversation.
const MAX_TURNS: usize = 4;
/// Clauses that wait for the voice at most; more text is not generated.
const MAX_CLAUSES: usize = 3;
/// A listener with less speech than this left is close to silence: 1.5 s.
const NEARLY_DRY: u64 = 36_000;
/// Tokens of a reply when the client sets no cap.
const DEFAULT_MAX_TOKENS: u32 = 512;

/// How urgent a task is; the order of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// Speech that is about to run dry.
    Dry,
    /// A committed turn that has not begun to speak.
    First,
    /// A committed turn with speech in reserve.
    Ahead,
    /// A proposed turn.
    Proposed,
    /// Instruction and history of a new conversation.
    Opening,
    /// Prefill of unfinished speech: a few tokens, which the next transcript would only delay.
    Prepare,
    /// A transcript of unfinished speech.
    Partial,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Transcribe for the turn at this index.
    Hear(usize),
    /// Run prompt or reply tokens of the first turn.
    Think,
    /// Synthesise the first turn's next clause.
    Speak,
    /// Prefill the prompt without an utterance.
    Open,
    /// Transcribe the unfinished utterance.
    Partial,
    /// Prefill the prompt with the unfinished utterance as it was last understood.
    Prepare,
}

/// Speech that is being listened to.
struct Utterance<N: Networks> {
    from: u64,
    /// Text of what lies before `settled_until`, which is not transcribed again.
    settled: String,
    settled_until: u64,
    /// The running pass, where it ends, and whether it settles.
    pass: Option<(N::Hearing, u64, bool)>,
    stable: StablePrefix,
    /// Input that the last finished pass covered.
    covered: u64,
    /// Tokens of the last transcript since `settled_until`.
    draft: Vec<u32>,
    /// The transcript that was prefilled last.
    prepared: String,
}

pub(super) struct Conversation<N: Networks> {
    id: SessionId,
    pub(super) config: SessionConfig,
    /// The calls that its functions allow.
    grammar: Option<Arc<Grammar>>,
    pub(super) memory: N::Memory,
    /// The memory that is not in use: that of questions whether speech is meant for the model, or while such a question
    /// is asked (`asking`) that of the conversation.
    other: N::Memory,
    asking: bool,
    pub(super) turns: VecDeque<Turn<N>>,
    pub(super) out: Vec<Event>,
    pub(super) seed: u64,
    /// When it was last served, in steps of the engine; the least recent goes first.
    pub(super) served: u64,
    /// The prompt to prefill before anything is said; empty when that is done.
    pub(super) opening: Vec<u32>,
    /// The prompt before anything is said does not fit: its length and the limit.
    pub(super) crowded: Option<(usize, usize)>,
    /// Whether it has been prefilled once.
    pub(super) opened: bool,
    /// It is to be made anew when nothing is being replied: the memory is that of the reply until then.
    pub(super) reconfigured: bool,
    history: History,
    audio: AudioBuffer,
    utterance: Option<Utterance<N>>,
    /// Start and end of the utterance that a turn was begun on last.
    recent: (u64, u64),
    /// Prompt of the unfinished utterance, while it is being prefilled.
    pub(super) preparing: Vec<u32>,
    /// The last turn that ended, for a cancellation that comes while it is still being played.
    ended: Option<Reply>,
}

impl<N: Networks> Conversation<N> {
    pub(super) fn new(networks: &N, id: SessionId, config: SessionConfig, items: Vec<Item>, seed: u64) -> Self {
        let mut history = History::default();
        history.append(items);
        Self {
            id,
            grammar: grammar(&config),
            config,
            memory: networks.memory(),
            other: networks.memory(),
            asking: false,
            turns: VecDeque::new(),
            out: Vec::new(),
            seed,
            served: 0,
            opening: Vec::new(),
            crowded: None,
            opened: false,
            reconfigured: false,
            history,
            audio: AudioBuffer::new(AUDIO_LIMIT),
            utterance: None,
            recent: (0, 0),
            preparing: Vec::new(),
            ended: None,
        }
    }

    fn speaks(&self) -> bool {
        self.config.modality == Modality::Audio
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.config.max_output_tokens.unwrap_or(DEFAULT_MAX_TOKENS) as usize
    }

    /// Takes a request other than opening and closing.
    pub(super) fn handle(&mut self, networks: &mut N, request: Request) {
        match request {
            // This engine does not see.
            Request::Open { .. } | Request::Close { .. } | Request::Frame { .. } => {}
            Request::Audio { at, pcm, .. } => {
                self.audio.push(at.0, &pcm);
                self.drop_old_audio();
            }
            Request::Listen { from, .. } => self.listen(from.0),
            Request::Ignore { .. } => self.utterance = None,
            Request::Append { items, .. } => self.history.append(items),
            Request::Propose { turn, from, until, .. } => self.begin(networks, turn, false, from.0, until.0),
            Request::Start { turn, cause: Cause::Utterance { from, until }, .. } => {
                self.begin(networks, turn, true, from.0, until.0);
            }
            Request::Start { turn, cause: Cause::History, .. } => {
                let scanner = self.scanner();
                self.push_turn(Turn::new(turn, true, None, Stage::Prefill, scanner));
            }
            Request::Commit { turn, .. } => self.commit(turn),
            Request::Discard { turn, .. } => self.turns.retain(|t| t.reply.id != turn || t.reply.committed),
            Request::Credit { turn, audio_until, .. } => {
                if let Some(t) = self.turns.iter_mut().find(|t| t.reply.id == turn) {
                    t.reply.credit = t.reply.credit.max(audio_until.0);
                }
            }
            Request::Cancel { turn, heard_until, .. } => self.cancel(turn, heard_until),
            Request::ToolResult { call, name, value, will_continue, .. } => {
                self.result(call, name, value, will_continue);
            }
            Request::Configure { system_instruction, tools, .. } => self.configure(system_instruction, tools),
            Request::Forget { before, .. } => self.forget(networks, before),
        }
    }

    /// Other words about the task. Turns that have their prompt keep it.
    fn configure(&mut self, system_instruction: String, tools: Vec<ToolDeclaration>) {
        self.config.system_instruction = system_instruction;
        self.config.tools = tools;
        self.grammar = grammar(&self.config);
        self.opening.clear();
        self.reconfigured = true;
        if let Some(u) = &mut self.utterance {
            u.prepared.clear();
        }
        self.preparing.clear();
    }

    /// Forgets what came before an entry. A prompt that did not fit is made anew, or given up.
    fn forget(&mut self, networks: &N, before: Option<Origin>) {
        let crowded = self.turns.front().and_then(|turn| turn.reply.crowded);
        match before {
            Some(before) => self.history.forget(before),
            None => {
                if let Some((tokens, limit)) = crowded {
                    self.fail_front(format!("the prompt has {tokens} tokens, the limit is {limit}"));
                } else if let Some((tokens, limit)) = self.crowded {
                    let error = format!("instruction, tools and history have {tokens} tokens, the limit is {limit}");
                    self.out.push(Event::Failed { turn: None, error, resumable: false });
                }
                return;
            }
        }
        if let Some(turn) = self.turns.front_mut() {
            turn.reply.crowded = None;
        } else if let Ok(prompt) = self.opening_prompt(networks) {
            match self.crowded {
                Some((_, limit)) => self.open(prompt, limit),
                // What is left is prefilled again before somebody waits for it.
                None => self.opening = prompt,
            }
        }
        if let Some(u) = &mut self.utterance {
            u.prepared.clear();
        }
        self.preparing.clear();
    }

    /// The prompt is to be prefilled while nothing is to be answered, if it fits.
    pub(super) fn open(&mut self, prompt: Vec<u32>, limit: usize) {
        self.crowded = (prompt.len() > limit).then_some((prompt.len(), limit));
        self.out.push(Event::prompt(None, prompt.len(), limit));
        self.opening = if self.crowded.is_some() { Vec::new() } else { prompt };
    }

    fn listen(&mut self, from: u64) {
        if self.utterance.as_ref().is_some_and(|u| u.from == from) {
            return;
        }
        self.utterance = Some(Utterance {
            from,
            settled: String::new(),
            settled_until: from,
            pass: None,
            stable: StablePrefix::default(),
            covered: from,
            draft: Vec::new(),
            prepared: String::new(),
        });
    }

    /// Begins a turn on the utterance `from..until`.
    fn begin(&mut self, networks: &mut N, id: TurnId, committed: bool, from: u64, until: u64) {
        if self.turns.iter().any(|t| t.reply.id == id) {
            return;
        }
        self.listen(from);
        self.recent = (from, until);
        let (start, draft) = self.utterance.as_ref().map_or((from, &[][..]), |u| (u.settled_until, &u.draft[..]));
        let hearing = networks.hear(self.audio.range(start, until), self.config.language.as_deref(), draft);
        let scanner = self.scanner();
        self.push_turn(Turn::new(id, committed, Some((from, until)), Stage::Hearing(hearing), scanner));
    }

    fn push_turn(&mut self, turn: Turn<N>) {
        if self.turns.len() < MAX_TURNS {
            self.turns.push_back(turn);
        } else {
            let error = format!("{MAX_TURNS} replies are waiting already");
            self.out.push(Event::Failed { turn: Some(turn.reply.id), error, resumable: true });
        }
    }

    fn commit(&mut self, id: TurnId) {
        let Some(index) = self.turns.iter().position(|t| t.reply.id == id && !t.reply.committed) else { return };
        self.turns[index].reply.commit(&mut self.out);
        self.enter_heard(index);
        self.settle_ended(index);
    }

    /// Once a committed turn knows what it heard, the history does too.
    fn enter_heard(&mut self, index: usize) {
        let turn = &self.turns[index];
        let (true, Some((from, _)), Some(heard)) = (turn.reply.committed, turn.reply.utterance, &turn.heard) else {
            return;
        };
        if !heard.text.is_empty() {
            self.history.heard(from, &heard.text);
        }
        if self.utterance.as_ref().is_some_and(|u| u.from == from) {
            self.utterance = None;
        }
    }

    fn cancel(&mut self, id: TurnId, heard_until: OutputSamples) {
        let modality = self.config.modality;
        let (text_until, usage) = if let Some(index) = self.turns.iter().position(|t| t.reply.id == id) {
            let Some(Turn { reply, .. }) = self.turns.remove(index) else { return };
            let text_until = reply.known(modality, heard_until.0);
            reply.leave(&mut self.history, text_until);
            (text_until, reply.usage)
        } else if let Some(ended) = self.ended.as_ref().filter(|ended| ended.id == id) {
            let text_until = ended.known(modality, heard_until.0);
            self.history.truncate_reply(id, &ended.text, text_until);
            (text_until, ended.usage)
        } else {
            return;
        };
        self.out.push(Event::Truncated { turn: id, text_until, usage });
    }

    fn scanner(&self) -> Scanner {
        Scanner::new(self.grammar.clone())
    }

    /// A function has answered: a turn that waits for it goes on, or else it is part of the history.
    fn result(&mut self, id: String, name: String, value: String, will_continue: bool) {
        let waits = |(index, turn): (usize, &Turn<N>)| Some((index, turn.reply.waits_for(&id)?));
        let Some((index, call)) = self.turns.iter().enumerate().find_map(waits) else {
            return self.history.result(id, name, value);
        };
        self.turns[index].reply.take_result(call, value, will_continue);
        self.go_on(index);
    }

    /// A turn that has all the results that it waits for goes on with them.
    fn go_on(&mut self, index: usize) {
        let waits = |turn: &Turn<N>| matches!(turn.stage, Stage::Waiting) && turn.reply.answered();
        let scanner = self.scanner();
        let Some(turn) = self.turns.get_mut(index).filter(|turn| waits(turn)) else { return };
        turn.reply.leave(&mut self.history, turn.reply.text.len());
        match turn.reply.go_on() {
            Ok(()) => turn.go_on(scanner),
            Err(error) => {
                self.out.push(Event::Failed { turn: Some(turn.reply.id), error, resumable: true });
                self.turns.remove(index);
            }
        }
    }

    fn drop_old_audio(&mut self) {
        let mut keep = self.audio.end().saturating_sub(AUDIO_BEFORE);
        let (from, until) = self.recent;
        if self.audio.end() < until + TAKE_BACK {
            keep = keep.min(from);
        }
        let needed = self.turns.iter().filter_map(|t| t.reply.utterance).map(|(from, _)| from).min().unwrap_or(keep);
        let listening = self.utterance.as_ref().map_or(keep, |u| u.settled_until);
        self.audio.keep_from(keep.min(needed).min(listening));
    }

    /// The most urgent thing to do, and how urgent it is.
    pub(super) fn task(&self) -> Option<(Class, Task)> {
        let mut best: Option<(Class, Task)> = None;
        let mut offer = |class: Class, task: Task| {
            if best.is_none_or(|(b, _)| class < b) {
                best = Some((class, task));
            }
        };
        for (index, turn) in self.turns.iter().enumerate() {
            let class = match (turn.reply.committed, turn.reply.audio_until, turn.reply.ahead()) {
                (false, ..) => Class::Proposed,
                (true, 0, _) => Class::First,
                (true, _, ahead) if ahead < NEARLY_DRY => Class::Dry,
                _ => Class::Ahead,
            };
            if matches!(turn.stage, Stage::Hearing(_)) {
                offer(class, Task::Hear(index));
            } else if index == 0 {
                if !turn.clauses.is_empty() && turn.reply.has_credit() {
                    offer(class, Task::Speak);
                }
                let thinks = matches!(turn.stage, Stage::Prefill | Stage::Decode(_));
                if thinks && turn.reply.crowded.is_none() && turn.clauses.len() < MAX_CLAUSES {
                    offer(class, Task::Think);
                }
            }
        }
        if !self.opening.is_empty() || (self.reconfigured && self.turns.is_empty()) {
            offer(Class::Opening, Task::Open);
        }
        if let Some(u) = &self.utterance {
            let heard = self.audio.end();
            let answered = self.turns.iter().any(|t| t.reply.utterance.is_some_and(|(from, _)| from == u.from));
            let grown = heard >= u.covered + PARTIAL_STEP && heard >= u.settled_until + PARTIAL_MIN;
            if !answered && (u.pass.is_some() || grown) {
                // Speech into a reply holds its voice until the words say whether it was meant.
                offer(if self.turns.is_empty() { Class::Partial } else { Class::First }, Task::Partial);
            }
        }
        if self.turns.is_empty() && !self.preparing.is_empty() {
            offer(Class::Prepare, Task::Prepare);
        }
        best
    }

    /// One quantum of transcription for a turn.
    pub(super) fn hear(&mut self, networks: &mut N, index: usize) {
        let Some(turn) = self.turns.get_mut(index) else { return };
        let Stage::Hearing(hearing) = &mut turn.stage else { return };
        let Some(mut heard) = networks.hear_step(hearing) else { return };
        let from = turn.reply.utterance.map_or(0, |(from, _)| from);
        if let Some(u) = self.utterance.as_ref().filter(|u| u.from == from && !u.settled.is_empty()) {
            heard.text = joined(&u.settled, &heard.text);
        }
        let event = Event::Heard { turn: turn.reply.id, text: heard.text.clone(), language: heard.language.clone() };
        turn.stage = if heard.text.is_empty() { Stage::Spoken(FinishReason::Empty) } else { Stage::Prefill };
        turn.heard = Some(heard);
        turn.reply.emit(event, &mut self.out);
        self.enter_heard(index);
        self.settle_ended(index);
    }

    /// One quantum of the transcript of unfinished speech.
    pub(super) fn partial(&mut self, networks: &mut N) {
        let end = self.audio.end();
        let Some(u) = &mut self.utterance else { return };
        let (hearing, until, settles) = match &mut u.pass {
            Some(pass) => pass,
            None => {
                let settles = end > u.settled_until + SETTLE_ABOVE;
                let until = if settles {
                    let (first, last) = SETTLE_BETWEEN;
                    self.audio.quietest(u.settled_until + first, u.settled_until + last, SETTLE_WINDOW)
                } else {
                    end
                };
                let pcm = self.audio.range(u.settled_until, until);
                let draft = if settles { &[][..] } else { &u.draft[..] };
                u.pass.insert((networks.hear(pcm, self.config.language.as_deref(), draft), until, settles))
            }
        };
        let (until, settles) = (*until, *settles);
        let Some(heard) = networks.hear_step(hearing) else { return };
        u.pass = None;
        u.covered = u.covered.max(until);
        u.draft = if settles { Vec::new() } else { heard.tokens };
        let text = joined(&u.settled, &heard.text);
        if settles {
            u.settled.clone_from(&text);
            u.settled_until = until;
        }
        let (stable, unstable) = u.stable.push(&text);
        if self.config.interim_transcripts && !text.is_empty() {
            self.out.push(Event::Partial { stable, unstable, until: InputSamples(until) });
        }
        // The unstable words are prefilled too: most of them stay, and those that do not are cut off for nothing.
        if self.turns.is_empty() && !text.is_empty() && text != u.prepared {
            let from = u.from;
            // A prompt that does not fit is dealt with when the turn is made.
            self.preparing =
                networks.prompt(&self.config, self.history.before(from), User::Open(&text), false).unwrap_or_default();
            u.prepared = text;
        }
    }

    /// Makes the first turn's prompt and brings the memory to where the two agree. Returns whether it has one: a prompt
    /// of more than `limit` tokens waits until the session forgets some of the history.
    ///
    /// # Errors
    /// A message for people if there is no prompt for it.
    pub(super) fn prepare_prompt(&mut self, networks: &N, limit: usize) -> Result<bool, String> {
        let Some(turn) = self.turns.front() else { return Ok(false) };
        if !turn.prompt.is_empty() {
            return Ok(true);
        }
        if self.ask_first(networks, limit)? {
            return Ok(true);
        }
        self.remember_conversation();
        let Some(turn) = self.turns.front() else { return Ok(false) };
        let (user, from) = match (&turn.heard, turn.reply.utterance) {
            // The history has the utterance and what was said and called since.
            _ if turn.reply.parts > 0 => (User::Nothing, u64::MAX),
            (Some(heard), Some((from, _))) => (User::Closed(&heard.text), from),
            _ => (User::Nothing, u64::MAX),
        };
        let budget = match (turn.reply.parts, user) {
            (0, User::Closed(text)) => thinking_budget(&self.config, text),
            (0, _) => thinking_budget(&self.config, last_words(self.history.items())),
            // Once a turn: a result is to be told.
            _ => 0,
        };
        let budget = budget.min(u32::try_from(limit / 2).unwrap_or(u32::MAX));
        let limit = limit - budget as usize;
        let prompt = networks.prompt(&self.config, self.history.before(from), user, budget > 0)?;
        let results = self.history.before(from).iter().flat_map(|item| &item.content);
        let tools = results
            .map(|content| if let Content::ToolResult { value, .. } = content { networks.count(value) } else { 0 })
            .sum();
        if let Some(turn) = self.turns.front_mut() {
            turn.reply.crowded = (prompt.len() > limit).then_some((prompt.len(), limit));
            turn.reply.emit(Event::prompt(Some(turn.reply.id), prompt.len(), limit), &mut self.out);
            if turn.reply.crowded.is_some() {
                return Ok(false);
            }
        }
        self.preparing.clear();
        self.opening.clear();
        // The last token is always run again: its logits are needed.
        let common = self.memory.common_prefix(&prompt).min(prompt.len().saturating_sub(1));
        self.memory.truncate(common);
        if let Some(turn) = self.turns.front_mut() {
            let add = |total: &mut u32, n: usize| *total = total.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
            add(&mut turn.reply.usage.prompt_text, prompt.len());
            add(&mut turn.reply.usage.prompt_tools, tools);
            add(&mut turn.reply.usage.cached, common);
            turn.prompt = prompt;
            turn.reply.thought = (budget > 0).then(|| Thought::new(budget));
        }
        Ok(true)
    }

    /// Makes the prompt that asks whether what was heard is meant for the model, if that is to be asked.
    fn ask_first(&mut self, networks: &N, limit: usize) -> Result<bool, String> {
        let Some(turn) = self.turns.front().filter(|turn| !turn.addressed) else { return Ok(false) };
        let (Some(heard), Some((from, _))) = (&turn.heard, turn.reply.utterance) else { return Ok(false) };
        let question = match doubtful(&self.config, self.history.before(from)) {
            true => Some(networks.addressed(&heard.text)?).filter(|(prompt, _)| prompt.len() <= limit),
            false => None,
        };
        let Some((prompt, choice)) = question else {
            if let Some(turn) = self.turns.front_mut() {
                turn.addressed = true;
            }
            return Ok(false);
        };
        if !std::mem::replace(&mut self.asking, true) {
            std::mem::swap(&mut self.memory, &mut self.other);
        }
        let common = self.memory.common_prefix(&prompt).min(prompt.len().saturating_sub(1));
        self.memory.truncate(common);
        if let Some(turn) = self.turns.front_mut() {
            turn.prompt = prompt;
            turn.choice = Some(choice);
        }
        Ok(true)
    }

    /// Puts the memory of the conversation back into its place.
    pub(super) fn remember_conversation(&mut self) {
        if std::mem::take(&mut self.asking) {
            std::mem::swap(&mut self.memory, &mut self.other);
        }
    }

    /// Takes the token drawn for the first turn.
    pub(super) fn drawn(&mut self, networks: &N, token: u32) {
        let (audio, max_tokens) = (self.speaks(), self.max_tokens());
        let Some(turn) = self.turns.front_mut() else { return };
        let caller = Caller { session: self.id, tools: &self.config.tools };
        if let Some(choice) = turn.choice.take() {
            turn.addressed = true;
            turn.prompt.clear();
            if choice.no.contains(&token) {
                turn.stage = Stage::Spoken(FinishReason::NotAddressed);
                self.settle_ended(0);
            }
            return;
        }
        if turn.reply.thought.is_some() {
            let (after, mark) = networks.after_thought();
            let thought = if networks.ends(token) {
                Some(turn.drawn.len())
            } else {
                turn.drawn.push(token);
                let delta = networks.text(&mut turn.detokenizer, token);
                turn.reply.ponder(&delta, mark, turn.drawn.len(), &mut self.out)
            };
            match thought {
                Some(tokens) => {
                    self.memory.truncate(turn.prompt.len() + tokens);
                    turn.speak_up(self.memory.tokens(), after);
                }
                None => turn.stage = Stage::Decode(token),
            }
            return;
        }
        let mut end = networks.ends(token).then_some(FinishReason::Stop);
        if end.is_none() {
            turn.drawn.push(token);
            turn.reply.usage.response_text += 1;
            let delta = networks.text(&mut turn.detokenizer, token);
            if turn.write(Written::Text(&delta), audio, caller, &mut self.out) {
                end = Some(FinishReason::ToolCalls);
            } else if turn.drawn.len() >= max_tokens {
                end = Some(FinishReason::MaxTokens);
            }
        }
        match end {
            None => turn.stage = Stage::Decode(token),
            Some(reason) => {
                if reason != FinishReason::ToolCalls {
                    turn.write(Written::End, audio, caller, &mut self.out);
                }
                let calls = !turn.reply.calls.is_empty();
                turn.end_text(audio, if calls { FinishReason::ToolCalls } else { reason });
            }
        }
        self.settle_ended(0);
    }

    /// Speaks the first turn's next clause.
    pub(super) fn speak(&mut self, networks: &mut N, pcm: &mut Vec<f32>) {
        let Some(turn) = self.turns.front_mut() else { return };
        let Some(clause) = turn.clauses.pop_front() else { return };
        pcm.clear();
        match networks.speak(&clause.text, &self.config, pcm) {
            Ok(spoken) => turn.spoke(&clause, pcm, &spoken.words, &mut self.out),
            Err(error) => return self.fail_front(error),
        }
        self.settle_ended(0);
    }

    /// Ends the first turn with an error.
    pub(super) fn fail_front(&mut self, error: String) {
        let Some(turn) = self.turns.pop_front() else { return };
        self.out.push(Event::Failed { turn: Some(turn.reply.id), error, resumable: true });
    }

    /// Ends a turn that has nothing left to do; its reply enters the history.
    fn settle_ended(&mut self, index: usize) {
        let Some(turn) = self.turns.get(index) else { return };
        let Stage::Spoken(reason) = turn.stage else { return };
        if !turn.reply.committed || !turn.clauses.is_empty() {
            return;
        }
        if reason == FinishReason::ToolCalls {
            let turn = &mut self.turns[index];
            turn.stage = Stage::Waiting;
            if !turn.reply.answered() {
                self.out.push(Event::Done { turn: turn.reply.id, reason, usage: turn.reply.bill() });
            }
            return self.go_on(index);
        }
        let Some(Turn { reply, .. }) = self.turns.remove(index) else { return };
        reply.leave(&mut self.history, reply.text.len());
        self.out.push(Event::Done { turn: reply.id, reason, usage: reply.usage });
        self.ended = Some(reply);
    }

    /// The prompt of a conversation in which nothing is being said.
    pub(super) fn opening_prompt(&self, networks: &N) -> Result<Vec<u32>, String> {
        networks.prompt(&self.config, self.history.items(), User::Open(""), false)
    }
}

pub(crate) fn grammar(config: &SessionConfig) -> Option<Arc<Grammar>> {
    let schema = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let schemas: Vec<serde_json::Value> = config.tools.iter().map(|tool| schema(&tool.parameters)).collect();
    let names = config.tools.iter().map(|tool| tool.name.as_str());
    (!schemas.is_empty()).then(|| Grammar::new(names.zip(&schemas)))
}

fn joined(settled: &str, rest: &str) -> String {
    match (settled.trim(), rest.trim()) {
        ("", rest) => rest.to_owned(),
        (settled, "") => settled.to_owned(),
        (settled, rest) => format!("{settled} {rest}"),
    }
}
