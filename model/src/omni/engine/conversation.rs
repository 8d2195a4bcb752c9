//! One conversation inside the engine: its audio, its history, its memory, and the replies being made. It says what it
//! could do next; the engine decides who does what.

use std::collections::VecDeque;
use std::sync::Arc;

use causerie_kernels::ops::rope::Position;
use causerie_model_api::{
    Cause, Event, FinishReason, Modality, Origin, OutputSamples, Request, Role, SessionConfig, SessionId,
    ToolDeclaration, TurnId,
};

use super::early::{Eye, Listening};
use super::form::{End, Form};
use super::hearing::{Ear, Hearing, Loudest};
use super::history::{Entry, History, Piece};
use super::media::Clip;
use super::prefixes::Prefixes;
use super::prompt::{Prompt, Row};
use super::schedule::{Class, Network};
use super::turn::{Stage, Turn};
use crate::cascade::audio::AudioBuffer;
use crate::cascade::{grammar, thinking_budget};
use crate::omni::config::Config;
use crate::omni::kv::{KvStore, Sequence};
use crate::reply::{Book as _, Caller, Reply, Thought};
use crate::tools::{Grammar, Scanner};

/// Input that is kept at most: 120 s. A longer utterance is heard from there.
const AUDIO_LIMIT: usize = 120 * 16_000;
/// Input that is kept from before the present: an utterance may reach back this far.
const AUDIO_BEFORE: u64 = 2 * 16_000;
/// How long after the end of an utterance its audio is kept, for a speaker who goes on after all: 4 s.
const TAKE_BACK: u64 = 4 * 16_000;
/// Turns that may wait in one conversation.
const MAX_TURNS: usize = 4;

/// What the thinker remembers of a conversation.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) sequence: Sequence,
    /// What each row holds, and its position.
    pub(super) rows: Vec<(Row, Position)>,
    /// Rows of the running pass, which come next.
    pub(super) pending: Vec<(Row, Position)>,
    /// States that the talker hears sounds and sees pictures through, one for each of their rows, in order.
    pub(super) states: Vec<f32>,
}

impl Memory {
    /// How many rows of `prompt` are held.
    pub(super) fn common(&self, prompt: &Prompt) -> usize {
        let wanted = prompt.rows.iter().zip(&prompt.positions);
        self.rows
            .iter()
            .zip(wanted)
            .take_while(|(held, (row, position))| held.0 == **row && held.1 == **position)
            .count()
    }

    /// Forgets all but the first `len` rows; states are `width` wide.
    pub(super) fn truncate(&mut self, store: &mut KvStore, len: usize, width: usize) {
        // Under a window of attention less may be left than was asked for.
        let left = store.truncate(&mut self.sequence, len);
        self.rows.truncate(left);
        let media = self.rows.iter().filter(|(row, _)| row.is_media()).count();
        self.states.truncate(media * width);
    }
}

pub(super) struct Conversation {
    id: SessionId,
    pub(super) config: SessionConfig,
    /// The calls that its functions allow.
    grammar: Option<Arc<Grammar>>,
    pub(super) memory: Memory,
    pub(super) turns: VecDeque<Turn>,
    pub(super) out: Vec<Event>,
    pub(super) seed: u64,
    /// Tokens of a prompt and its reply.
    pub(super) context: usize,
    /// The pass that served it last, or the one before it became due.
    pub(super) served: u64,
    pub(super) history: History,
    pub(super) audio: AudioBuffer,
    pub(super) listening: Option<Listening>,
    pub(super) eye: Eye,
    /// The prompt as far as it is known before a turn, and whether it has to be made anew.
    pub(super) draft: Option<Prompt>,
    pub(super) stale: bool,
    /// Start and end of the utterance that a turn was begun on last.
    recent: (u64, u64),
    /// The last turn that ended, for a cancellation that comes while it is still being played.
    ended: Option<Reply>,
    /// Sequences of the talker that nobody needs any more.
    pub(super) discarded: Vec<Sequence>,
}

impl Conversation {
    pub(super) fn new(id: SessionId, config: SessionConfig, seed: u64, context: usize) -> Self {
        Self {
            id,
            grammar: grammar(&config),
            config,
            context,
            memory: Memory::default(),
            turns: VecDeque::new(),
            out: vec![Event::Opened],
            seed,
            served: 0,
            history: History::default(),
            audio: AudioBuffer::new(AUDIO_LIMIT),
            listening: None,
            eye: Eye::default(),
            draft: None,
            stale: true,
            recent: (0, 0),
            ended: None,
            discarded: Vec::new(),
        }
    }

    /// Words that an answer may have, of `most`.
    pub(super) fn max_words(&self, most: usize) -> usize {
        self.config.max_output_tokens.map_or(most, |n| (n as usize).min(most))
    }

    pub(super) fn speaks(&self) -> bool {
        self.config.modality == Modality::Audio
    }

    /// Takes a request other than opening and closing.
    pub(super) fn handle(&mut self, ear: &Ear<'_>, config: &Config, request: Request) {
        self.stale |= !matches!(request, Request::Audio { .. } | Request::Credit { .. });
        match request {
            Request::Open { .. } | Request::Close { .. } => {}
            Request::Audio { at, pcm, .. } => {
                self.audio.push(at.0, &pcm);
                self.drop_old_audio();
            }
            Request::Frame { at, picture, .. } => self.frame(&config.thinker.vision, at.0, picture),
            Request::Listen { from, .. } => self.listen(from.0),
            Request::Ignore { .. } => self.listening = None,
            Request::Append { items, .. } => self.append(&config.thinker.vision, items),
            Request::Propose { turn, from, until, .. } => self.begin(ear, turn, false, from.0, until.0),
            Request::Start { turn, cause: Cause::Utterance { from, until }, .. } => {
                self.begin(ear, turn, true, from.0, until.0);
            }
            Request::Start { turn, cause: Cause::History, .. } => {
                self.enter_frames();
                self.push_turn(Turn::new(turn, true, None, Stage::Prefill, self.scanner()));
            }
            Request::Commit { turn, .. } => self.commit(turn),
            Request::Discard { turn, .. } => {
                if let Some(index) = self.turns.iter().position(|t| t.reply.id == turn && !t.reply.committed) {
                    self.remove(index);
                }
            }
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
            Request::Forget { before, .. } => self.forget(before),
        }
    }

    /// Other words about the task. Turns that have their prompt keep it.
    fn configure(&mut self, system_instruction: String, tools: Vec<ToolDeclaration>) {
        self.config.system_instruction = system_instruction;
        self.config.tools = tools;
        self.grammar = grammar(&self.config);
        (self.draft, self.stale) = (None, true);
    }

    /// Forgets what came before an entry. A prompt that did not fit is made anew, or given up.
    fn forget(&mut self, before: Option<Origin>) {
        let crowded = self.turns.front_mut().and_then(|turn| turn.reply.crowded.take());
        match (before, crowded) {
            (Some(before), _) => {
                self.history.forget(before);
                self.draft = None;
                self.forget_unseen();
                self.forget_unneeded();
            }
            (None, Some((tokens, limit))) => {
                self.fail_front(format!("the prompt has {tokens} tokens, the limit is {limit}"));
            }
            (None, None) => {}
        }
    }

    /// Begins a turn on the utterance `from..until`.
    fn begin(&mut self, ear: &Ear<'_>, id: TurnId, committed: bool, from: u64, until: u64) {
        if self.turns.iter().any(|t| t.reply.id == id) {
            return;
        }
        self.recent = (from, until);
        let begun = self.listening.as_ref().filter(|listening| listening.from == from).map(|l| &l.hearing);
        let heard = begun.unwrap_or(&Hearing::new(from)).until(ear, &self.audio, until);
        let stage = heard.map_or(Stage::Written(FinishReason::Empty), |hearing| Stage::Hearing(Box::new(hearing)));
        self.push_turn(Turn::new(id, committed, Some((from, until)), stage, self.scanner()));
        self.settle(self.turns.len().saturating_sub(1));
    }

    fn push_turn(&mut self, turn: Turn) {
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
        self.settle(index);
    }

    /// Once a committed turn knows what it heard, the history does too.
    fn enter_heard(&mut self, index: usize) {
        let turn = &self.turns[index];
        let (true, Some((from, until)), Some(heard)) = (turn.reply.committed, turn.reply.utterance, &turn.heard) else {
            return;
        };
        self.history.heard(from, heard.clone());
        self.eye.forget_before(until);
        if self.listening.as_ref().is_some_and(|listening| listening.from == from) {
            self.listening = None;
        }
    }

    fn cancel(&mut self, id: TurnId, heard_until: OutputSamples) {
        let modality = self.config.modality;
        let (text_until, usage) = if let Some(index) = self.turns.iter().position(|t| t.reply.id == id) {
            let Some(Turn { reply, .. }) = self.remove(index) else { return };
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
        let waits = |(index, turn): (usize, &Turn)| Some((index, turn.reply.waits_for(&id)?));
        let Some((index, call)) = self.turns.iter().enumerate().find_map(waits) else {
            return self.history.result(id, name, value);
        };
        self.turns[index].reply.take_result(call, value, will_continue);
        self.go_on(index);
    }

    /// A turn that has all the results that it waits for goes on with them.
    fn go_on(&mut self, index: usize) {
        let waits = |turn: &Turn| matches!(turn.stage, Stage::Waiting) && turn.reply.answered();
        let scanner = self.scanner();
        let Some(turn) = self.turns.get_mut(index).filter(|turn| waits(turn)) else { return };
        turn.reply.leave(&mut self.history, turn.reply.text.len());
        match turn.reply.go_on() {
            Ok(()) => self.discarded.extend(turn.go_on(scanner)),
            Err(error) => {
                self.out.push(Event::Failed { turn: Some(turn.reply.id), error, resumable: true });
                self.remove(index);
            }
        }
    }

    /// Takes the word drawn for the first turn. Of the memory in `store`, whose states are `width` wide, a thought that is
    /// over leaves what the answer follows from.
    pub(super) fn drawn(
        &mut self,
        form: &Form,
        (store, width): (&mut KvStore, usize),
        im_end: u32,
        word: u32,
        most: usize,
    ) {
        let caller = Caller { session: self.id, tools: &self.config.tools };
        let Some(turn) = self.turns.front_mut() else { return };
        turn.drawn.push(word);
        if turn.reply.thought.is_some() {
            let over = if word == im_end {
                Some(turn.drawn.len())
            } else {
                let delta = turn.detokenizer.push(&form.tokenizer, word);
                turn.reply.ponder(&delta, form.thoughts.mark, turn.drawn.len(), &mut self.out)
            };
            let Some(words) = over else {
                turn.stage = Stage::Decode(word);
                return;
            };
            turn.reply.thought = None;
            turn.detokenizer = Default::default();
            turn.stage = Stage::Prefill;
            if let Some(prompt) = &mut turn.prompt {
                let begun = prompt.rows.len();
                let thought: Vec<u32> = self.memory.rows[begun..]
                    .iter()
                    .take(words)
                    .filter_map(|(row, _)| if let Row::Token(token) = row { Some(*token) } else { None })
                    .collect();
                self.memory.truncate(store, begun + thought.len(), width);
                prompt.go_on(thought.into_iter().chain(form.thoughts.close.iter().copied()));
            }
            return;
        }
        let mut end = (word == im_end).then_some(FinishReason::Stop);
        if end.is_none() {
            turn.written += 1;
            turn.reply.usage.response_text += 1;
            let delta = turn.detokenizer.push(&form.tokenizer, word);
            if turn.write(Some((word, &delta)), caller, &mut self.out) {
                end = Some(FinishReason::ToolCalls);
            } else if turn.written >= most {
                end = Some(FinishReason::MaxTokens);
            }
        }
        match end {
            None => turn.stage = Stage::Decode(word),
            Some(reason) => {
                if reason != FinishReason::ToolCalls {
                    turn.write(None, caller, &mut self.out);
                }
                turn.stage = Stage::Written(if turn.reply.calls.is_empty() { reason } else { FinishReason::ToolCalls });
            }
        }
        self.settle(0);
    }

    /// Takes a turn out; its memory in the talker is to be given back.
    fn remove(&mut self, index: usize) -> Option<Turn> {
        self.stale = true;
        let mut turn = self.turns.remove(index)?;
        self.discarded.extend(turn.speech.take().map(|speech| speech.sequence));
        Some(turn)
    }

    fn drop_old_audio(&mut self) {
        let mut keep = self.audio.end().saturating_sub(AUDIO_BEFORE);
        let (from, until) = self.recent;
        if self.audio.end() < until + TAKE_BACK {
            keep = keep.min(from);
        }
        self.audio.keep_from(keep.min(self.listening.as_ref().map_or(keep, |listening| listening.from)));
    }

    /// Calls `offer` with everything that could be done next: network, class with the speech that the listener has left,
    /// rows.
    pub(super) fn needs(&self, config: &Config, loudest: Loudest, offer: &mut dyn FnMut(Network, (Class, u64), usize)) {
        let (eos, pad) = (config.ids.tts_eos, config.ids.tts_pad);
        let mut looks = (Class::Early, 0);
        let mut hears = false;
        for (index, turn) in self.turns.iter().enumerate() {
            let class = turn.class(0);
            match &turn.stage {
                // Only the first of several: the others wait for its answer all the same.
                Stage::Hearing(_) if hears => continue,
                Stage::Hearing(_) => {
                    hears = true;
                    offer(Network::Audio, class, 1);
                }
                _ if index > 0 || turn.reply.crowded.is_some() => continue,
                // What is not seen yet may be part of the prompt.
                Stage::Prefill if turn.prompt.is_none() && !self.eye.unseen.is_empty() => looks = class,
                Stage::Prefill => {
                    let left = turn.prompt.as_ref().map_or(usize::MAX, |p| p.rows.len() - self.memory.rows.len());
                    offer(Network::Thinker, class, left);
                }
                // A word is wanted when the talker has said those that are there.
                Stage::Decode(_) => {
                    offer(
                        Network::Thinker,
                        turn.class(turn.words_ahead() * config.code2wav.samples_per_frame() as u64),
                        1,
                    );
                }
                Stage::Written(_) | Stage::Waiting => {}
            }
            if self.speaks() && !turn.words.is_empty() && turn.reply.has_credit() {
                match &turn.speech {
                    None => offer(Network::Talker, class, usize::MAX),
                    Some(speech) if speech.ended => {}
                    Some(speech) if !speech.positions.is_empty() => {
                        offer(Network::Talker, class, speech.positions.len());
                    }
                    Some(speech) => {
                        // Before the first frame there is none, and a device that was lost may have left it so.
                        let last = speech.codes.len().checked_sub(1);
                        if last.is_some_and(|last| turn.word_after(last, eos, pad).is_some()) {
                            offer(Network::Talker, class, 1);
                        }
                    }
                }
            }
        }
        if !self.eye.unseen.is_empty() {
            offer(Network::Vision, looks, 1);
        }
        if let Some(Listening { hearing, .. }) = &self.listening
            && !hears
            && hearing.can_go_on(&config.thinker.audio, loudest, &self.audio)
        {
            offer(Network::Audio, (Class::Early, 0), 1);
        }
        let left = self.draft.as_ref().map_or(0, |draft| draft.rows.len().saturating_sub(self.memory.rows.len()));
        if self.turns.is_empty() && left > 0 {
            offer(Network::Thinker, (Class::Early, 0), left);
        }
    }

    /// The first turn whose utterance is not heard yet.
    pub(super) fn hearing(&mut self) -> Option<&mut Hearing> {
        self.turns.iter_mut().find_map(|turn| match &mut turn.stage {
            Stage::Hearing(hearing) => Some(hearing.as_mut()),
            _ => None,
        })
    }

    /// The utterance of the first unheard turn has gone through the tower.
    pub(super) fn heard(&mut self, width: usize) {
        let Some(index) = self.turns.iter().position(|t| matches!(t.stage, Stage::Hearing(_))) else { return };
        let turn = &mut self.turns[index];
        let Stage::Hearing(hearing) = std::mem::replace(&mut turn.stage, Stage::Prefill) else { return };
        let (from, until) = turn.reply.utterance.unwrap_or_default();
        let mut pieces: Vec<Piece> = self.frames(from, until).into_iter().map(Piece::Sight).collect();
        pieces.push(Piece::Sound(Clip::new(hearing.rows, width).into()));
        self.turns[index].heard = Some(Entry { role: Role::User, pieces });
        self.enter_heard(index);
    }

    /// Makes the first turn's prompt and brings the memory to where the two agree. Returns whether it has one: a prompt of
    /// more than `limit` rows waits until the session forgets some of the history.
    ///
    /// # Errors
    /// A message for people if there is no prompt for it.
    pub(super) fn prepare_prompt(
        &mut self,
        config: &Config,
        form: &Form,
        (store, prefixes): (&mut KvStore, &mut Prefixes),
        limit: usize,
    ) -> Result<bool, String> {
        let Some(turn) = self.turns.front_mut().filter(|turn| turn.prompt.is_none()) else { return Ok(true) };
        let (from, heard) = match turn.reply.utterance {
            // The history has the utterance and what was said and called since.
            Some((from, _)) if turn.reply.parts == 0 => (from, turn.heard.as_ref()),
            _ => (u64::MAX, None),
        };
        let budget = match turn.reply.parts {
            0 => thinking_budget(&self.config, if heard.is_some() { "" } else { self.history.last_words() }),
            // Once a turn: a result is to be told.
            _ => 0,
        };
        let budget = budget.min(u32::try_from(limit / 2).unwrap_or(u32::MAX));
        let limit = limit - budget as usize;
        let end = if budget > 0 { End::Thought } else { End::Answer };
        let entries = || self.history.entries().take(self.history.before(from));
        let mut prompt = form.prompt(config, &self.config, entries().chain(heard), end)?;
        let result = |piece: &Piece| match piece {
            Piece::Result { value, .. } => form.tokenizer.encode(value, false).len(),
            _ => 0,
        };
        let results = entries().flat_map(|entry| &entry.pieces).map(result).sum();
        if budget > 0 {
            let mut tokens = prompt.token_ids(config);
            form.thoughts.open(&mut tokens);
            prompt.go_on(tokens.split_off(prompt.rows.len()));
        }
        let tokens = prompt.rows.len();
        turn.reply.crowded = (tokens > limit).then_some((tokens, limit));
        turn.reply.emit(Event::prompt(Some(turn.reply.id), tokens, limit), &mut self.out);
        if turn.reply.crowded.is_some() {
            return Ok(false);
        }
        prefixes.lend(store, &mut self.memory, &prompt);
        // The last row is always run again: its logits are needed.
        let common = self.memory.common(&prompt).min(tokens - 1);
        self.memory.truncate(store, common, config.thinker.text.hidden);
        let (sounds, sights) = prompt.media_rows();
        let add = |total: &mut u32, n: usize| *total = total.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        add(&mut turn.reply.usage.prompt_text, tokens - sounds - sights);
        add(&mut turn.reply.usage.prompt_video, sights);
        add(&mut turn.reply.usage.prompt_tools, results);
        add(&mut turn.reply.usage.cached, self.memory.rows.len());
        turn.prompt = Some(prompt);
        turn.reply.thought = (budget > 0).then(|| Thought::new(budget));
        self.draft = None;
        self.forget_unneeded();
        Ok(true)
    }

    /// Ends the first turn with an error.
    pub(super) fn fail_front(&mut self, error: String) {
        match self.remove(0) {
            Some(turn) => self.out.push(Event::Failed { turn: Some(turn.reply.id), error, resumable: true }),
            // Nobody waits for a draft: a turn will meet the same error and tell.
            None => (self.draft, self.stale) = (None, false),
        }
    }

    /// Ends a turn that has nothing left to do; its reply enters the history.
    pub(super) fn settle(&mut self, index: usize) {
        let speaks = self.speaks();
        let Some(turn) = self.turns.get(index) else { return };
        let Stage::Written(reason) = turn.stage else { return };
        let silent = !speaks || turn.words.is_empty() || turn.speech.as_ref().is_some_and(|speech| speech.ended);
        if !turn.reply.committed || !silent {
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
        let Some(Turn { reply, .. }) = self.remove(index) else { return };
        reply.leave(&mut self.history, reply.text.len());
        self.out.push(Event::Done { turn: reply.id, reason, usage: reply.usage });
        self.ended = Some(reply);
    }
}
