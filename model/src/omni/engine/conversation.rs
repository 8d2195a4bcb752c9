//! One conversation inside the engine: its audio, its history, its memory, and the replies being made. It says what it
//! could do next; the engine decides who does what.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use causerie_kernels::Pool;
use causerie_kernels::ops::log_mel::{HOP, LogMel};
use causerie_model_api::{
    Cause, Event, FinishReason, Item, Modality, Origin, OutputSamples, Request, Role, SessionConfig, TurnId, Usage,
};

use super::history::{Clip, Entry, History, Piece};
use super::prompt::{Prompt, Row};
use super::schedule::{Class, Network};
use super::turn::{Hearing, Stage, Turn, text_heard};
use crate::cascade::audio::AudioBuffer;
use crate::lm::Tokenizer;
use crate::omni::audio::AudioStream;
use crate::omni::config::Config;
use crate::omni::kv::{KvStore, Sequence};

/// Input that is kept at most: 120 s. A longer utterance is heard from there.
const AUDIO_LIMIT: usize = 120 * 16_000;
/// Input that is kept from before the present: an utterance may reach back this far.
const AUDIO_BEFORE: u64 = 2 * 16_000;
/// How long after the end of an utterance its audio is kept, for a speaker who goes on after all: 4 s.
const TAKE_BACK: u64 = 4 * 16_000;
/// Turns that may wait in one conversation.
const MAX_TURNS: usize = 4;
/// A listener with less speech than this left is close to silence: 1.5 s.
const NEARLY_DRY: u64 = 36_000;

/// What the thinker remembers of a conversation.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) sequence: Sequence,
    /// What each position holds.
    pub(super) rows: Vec<Row>,
    /// Rows of the running pass, which come next.
    pub(super) pending: Vec<Row>,
    /// States that the talker hears sounds through, by clip.
    pub(super) states: BTreeMap<u64, Vec<f32>>,
}

pub(super) struct Conversation {
    pub(super) config: SessionConfig,
    pub(super) memory: Memory,
    pub(super) turns: VecDeque<Turn>,
    pub(super) out: Vec<Event>,
    pub(super) seed: u64,
    /// The pass that served it last, or the one before it became due.
    pub(super) served: u64,
    history: History,
    audio: AudioBuffer,
    listening: Option<u64>,
    /// Start and end of the utterance that a turn was begun on last.
    recent: (u64, u64),
    clips: u64,
    /// The last turn that ended, for a cancellation that comes while it is still being played.
    ended: Option<Ended>,
    /// Sequences of the talker that nobody needs any more.
    pub(super) discarded: Vec<Sequence>,
}

struct Ended {
    id: TurnId,
    text: String,
    alignment: Vec<(u64, usize)>,
    usage: Usage,
}

/// What listening needs.
pub(super) struct Ear<'a> {
    pub(super) pool: &'a Pool,
    pub(super) mel: &'a LogMel,
}

impl Conversation {
    pub(super) fn new(config: SessionConfig, items: Vec<Item>, seed: u64) -> Self {
        let mut history = History::default();
        history.append(items);
        Self {
            config,
            memory: Memory::default(),
            turns: VecDeque::new(),
            out: vec![Event::Opened],
            seed,
            served: 0,
            history,
            audio: AudioBuffer::new(AUDIO_LIMIT),
            listening: None,
            recent: (0, 0),
            clips: 0,
            ended: None,
            discarded: Vec::new(),
        }
    }

    /// Words that an answer may have, of `most`.
    pub(super) fn max_words(&self, most: usize) -> usize {
        self.config.max_output_tokens.map_or(most, |n| (n as usize).min(most))
    }

    fn speaks(&self) -> bool {
        self.config.modality == Modality::Audio
    }

    /// Takes a request other than opening and closing.
    pub(super) fn handle(&mut self, ear: &Ear<'_>, request: Request) {
        match request {
            Request::Open { .. } | Request::Close { .. } => {}
            Request::Audio { at, pcm, .. } => {
                self.audio.push(at.0, &pcm);
                self.drop_old_audio();
            }
            Request::Listen { from, .. } => self.listening = Some(from.0),
            Request::Ignore { .. } => self.listening = None,
            Request::Append { items, .. } => self.history.append(items),
            Request::Propose { turn, from, until, .. } => self.begin(ear, turn, false, from.0, until.0),
            Request::Start { turn, cause: Cause::Utterance { from, until }, .. } => {
                self.begin(ear, turn, true, from.0, until.0);
            }
            Request::Start { turn, cause: Cause::History, .. } => {
                self.push_turn(Turn::new(turn, true, None, Stage::Prefill));
            }
            Request::Commit { turn, .. } => self.commit(turn),
            Request::Discard { turn, .. } => {
                if let Some(index) = self.turns.iter().position(|t| t.id == turn && !t.committed) {
                    self.remove(index);
                }
            }
            Request::Credit { turn, audio_until, .. } => {
                if let Some(t) = self.turns.iter_mut().find(|t| t.id == turn) {
                    t.credit = t.credit.max(audio_until.0);
                }
            }
            Request::Cancel { turn, heard_until, .. } => self.cancel(turn, heard_until),
            Request::ToolResult { call, name, value, .. } => self.history.result(call, name, value),
            // It calls no functions.
            Request::Configure { system_instruction, .. } => self.config.system_instruction = system_instruction,
            Request::Forget { before, .. } => self.forget(before),
        }
    }

    /// Forgets what came before an entry. A prompt that did not fit is made anew, or given up.
    fn forget(&mut self, before: Option<Origin>) {
        let crowded = self.turns.front_mut().and_then(|turn| turn.crowded.take());
        match (before, crowded) {
            (Some(before), _) => self.history.forget(before),
            (None, Some((tokens, limit))) => {
                self.fail_front(format!("the prompt has {tokens} tokens, the limit is {limit}"));
            }
            (None, None) => {}
        }
    }

    /// Begins a turn on the utterance `from..until`.
    fn begin(&mut self, ear: &Ear<'_>, id: TurnId, committed: bool, from: u64, until: u64) {
        if self.turns.iter().any(|t| t.id == id) {
            return;
        }
        self.recent = (from, until);
        let pcm = self.audio.range(from, until);
        let frames = pcm.len() / HOP;
        // One frame alone has nothing to reflect, and nobody says anything in 10 ms.
        let stage = if frames < 2 {
            Stage::Written(FinishReason::Empty)
        } else {
            let mut mel = vec![0.0; frames * ear.mel.mels()];
            ear.mel.compute(ear.pool, pcm, &mut mel);
            Stage::Hearing(Box::new(Hearing { mel, done: 0, stream: AudioStream::default(), rows: Vec::new() }))
        };
        self.push_turn(Turn::new(id, committed, Some((from, until)), stage));
        self.settle(self.turns.len().saturating_sub(1));
    }

    fn push_turn(&mut self, turn: Turn) {
        if self.turns.len() < MAX_TURNS {
            self.turns.push_back(turn);
        } else {
            let error = format!("{MAX_TURNS} replies are waiting already");
            self.out.push(Event::Failed { turn: Some(turn.id), error, resumable: true });
        }
    }

    fn commit(&mut self, id: TurnId) {
        let Some(index) = self.turns.iter().position(|t| t.id == id && !t.committed) else { return };
        self.turns[index].commit(&mut self.out);
        self.enter_heard(index);
        self.settle(index);
    }

    /// Once a committed turn knows what it heard, the history does too.
    fn enter_heard(&mut self, index: usize) {
        let turn = &self.turns[index];
        let (true, Some((from, _)), Some(clip)) = (turn.committed, turn.utterance, &turn.clip) else { return };
        self.history.heard(from, Arc::clone(clip));
        if self.listening == Some(from) {
            self.listening = None;
        }
    }

    fn cancel(&mut self, id: TurnId, heard_until: OutputSamples) {
        let OutputSamples(samples) = heard_until;
        let (text_until, usage) = if let Some(index) = self.turns.iter().position(|t| t.id == id) {
            let Some(turn) = self.remove(index) else { return };
            let text_until = match self.config.modality {
                Modality::Text if samples > 0 => turn.text.len(),
                _ => text_heard(&turn.alignment, samples),
            };
            self.history.reply(id, &turn.text[..text_until]);
            (text_until, turn.usage)
        } else if let Some(ended) = self.ended.as_ref().filter(|e| e.id == id) {
            let text_until = text_heard(&ended.alignment, samples);
            self.history.truncate_reply(id, &ended.text, text_until);
            (text_until, ended.usage)
        } else {
            return;
        };
        self.out.push(Event::Truncated { turn: id, text_until, usage });
    }

    /// Takes a turn out; its memory in the talker is to be given back.
    fn remove(&mut self, index: usize) -> Option<Turn> {
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
        self.audio.keep_from(keep.min(self.listening.unwrap_or(keep)));
    }

    /// Calls `offer` with everything that could be done next: network, class, rows.
    pub(super) fn needs(&self, eos: u32, pad: u32, offer: &mut dyn FnMut(Network, Class, usize)) {
        for (index, turn) in self.turns.iter().enumerate() {
            let class = match (turn.committed, turn.audio_until, turn.ahead()) {
                (false, ..) => Class::Proposed,
                (true, 0, _) => Class::First,
                (true, _, ahead) if ahead < NEARLY_DRY => Class::Dry,
                _ => Class::Ahead,
            };
            match &turn.stage {
                // Only the first of several: the others wait for its answer all the same.
                Stage::Hearing(_) => return offer(Network::Audio, class, 1),
                _ if index > 0 || turn.crowded.is_some() => continue,
                Stage::Prefill => {
                    let left = turn.prompt.as_ref().map_or(usize::MAX, |p| p.rows.len() - self.memory.rows.len());
                    offer(Network::Thinker, class, left);
                }
                Stage::Decode(_) => offer(Network::Thinker, class, 1),
                Stage::Written(_) => {}
            }
            if self.speaks() && !turn.reply.is_empty() && turn.audio_until <= turn.credit {
                match &turn.speech {
                    None => offer(Network::Talker, class, usize::MAX),
                    Some(speech) if speech.ended => {}
                    Some(speech) if !speech.positions.is_empty() => {
                        offer(Network::Talker, class, speech.positions.len());
                    }
                    Some(speech) => {
                        if turn.word_after(speech.codes.len() - 1, eos, pad).is_some() {
                            offer(Network::Talker, class, 1);
                        }
                    }
                }
            }
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
        self.clips += 1;
        let tokens = hearing.rows.len() / width;
        turn.clip = Some(Arc::new(Clip { id: self.clips, rows: hearing.rows, tokens }));
        self.enter_heard(index);
    }

    /// Makes the first turn's prompt and brings the memory to where the two agree. Returns whether it has one: a prompt
    /// of more than `limit` rows waits until the session forgets some of the history.
    pub(super) fn prepare_prompt(
        &mut self,
        config: &Config,
        tokenizer: &Tokenizer,
        store: &mut KvStore,
        limit: usize,
    ) -> bool {
        let Some(turn) = self.turns.front_mut() else { return false };
        if turn.prompt.is_some() {
            return true;
        }
        let from = turn.utterance.map_or(u64::MAX, |(from, _)| from);
        let heard =
            turn.clip.as_ref().map(|clip| Entry { role: Role::User, pieces: vec![Piece::Sound(Arc::clone(clip))] });
        let entries = self.history.entries().take(self.history.before(from)).chain(&heard);
        let prompt = Prompt::new(config, tokenizer, &self.config.system_instruction, entries);
        let tokens = prompt.rows.len();
        turn.crowded = (tokens > limit).then_some((tokens, limit));
        turn.emit(Event::prompt(Some(turn.id), tokens, limit), &mut self.out);
        if turn.crowded.is_some() {
            return false;
        }
        let memory = &mut self.memory;
        let common = memory.rows.iter().zip(&prompt.rows).take_while(|(a, b)| a == b).count();
        // The last row is always run again: its logits are needed.
        let common = common.min(prompt.rows.len() - 1);
        memory.rows.truncate(common);
        store.truncate(&mut memory.sequence, common);
        memory.states.retain(|id, _| prompt.clip(*id).is_some());
        if let Some(turn) = self.turns.front_mut() {
            turn.usage.prompt_text = u32::try_from(prompt.rows.len() - prompt.sounds()).unwrap_or(u32::MAX);
            turn.usage.cached = u32::try_from(common).unwrap_or(u32::MAX);
            turn.prompt = Some(prompt);
        }
        true
    }

    /// Ends the first turn with an error.
    pub(super) fn fail_front(&mut self, error: String) {
        if let Some(turn) = self.remove(0) {
            self.out.push(Event::Failed { turn: Some(turn.id), error, resumable: true });
        }
    }

    /// Ends a turn that has nothing left to do; its reply enters the history.
    pub(super) fn settle(&mut self, index: usize) {
        let speaks = self.speaks();
        let Some(turn) = self.turns.get(index) else { return };
        let Stage::Written(reason) = turn.stage else { return };
        let silent = !speaks || turn.reply.is_empty() || turn.speech.as_ref().is_some_and(|speech| speech.ended);
        if !turn.committed || !silent {
            return;
        }
        let Some(turn) = self.remove(index) else { return };
        self.history.reply(turn.id, &turn.text);
        self.out.push(Event::Done { turn: turn.id, reason, usage: turn.usage });
        self.ended = Some(Ended { id: turn.id, text: turn.text, alignment: turn.alignment, usage: turn.usage });
    }
}
