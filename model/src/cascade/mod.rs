//! The cascade engine: a recogniser, a language model and a voice, stepped as one.
//!
//! [`Cascade`] holds all live conversations and does one quantum of work a step: an encoder layer, a chunk of prefill
//! and decode tokens of every conversation that is as urgent, or one clause of speech. The order of work is
//! [`conversation::Class`]: speech about to run dry, replies not begun, replies ahead, speculation, openings, prefill of
//! unfinished speech, its transcripts. Equally urgent conversations take turns.
//!
//! Speculation needs no undo: the language model's memory is a cache of tokens, compared with the next prompt and cut
//! where they differ, and the events of a proposed turn stay with it until it is committed.

mod addressed;
pub(crate) mod audio;
mod conversation;
mod history;
mod networks;
mod real;
#[cfg(test)]
mod tests;
mod thinking;
mod turn;

use std::collections::BTreeMap;

use causerie_model_api::{Busy, Capabilities, Engine, Event, Next, Request, SessionId};

use self::conversation::{Class, Conversation, Task};
use self::networks::{Chunk, Draw, Memory, Networks};
use self::turn::Stage;

pub(crate) use self::conversation::grammar;
pub use self::real::{DEFAULT_LM, LoadError, Options, load};
pub(crate) use self::real::{Thoughts, constrained, declaration, fits};
pub(crate) use self::thinking::thinking_budget;

/// Prompt tokens in one pass.
const PREFILL_CHUNK: usize = 32;
/// Prompt tokens in one pass while somebody else's speech depends on the pass.
const PREFILL_CHUNK_SHARED: usize = 8;
/// Prompt tokens of unfinished speech in one pass; the end of the utterance waits for no more than these.
const PREPARE_CHUNK: usize = 4;
/// Prefixes of prompts that are kept for the next conversation.
const MAX_PREFIXES: usize = 4;

/// Limits of an engine.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Conversations at once.
    sessions: usize,
    /// Tokens of a prompt and its reply.
    context: usize,
    /// Tokens of a prompt before anything was said: instruction, tools and history.
    opening: usize,
}

/// The engine over its networks.
struct Cascade<N: Networks> {
    networks: N,
    limits: Limits,
    sessions: BTreeMap<SessionId, Conversation<N>>,
    steps: u64,
    prefixes: Vec<N::Memory>,
    pcm: Vec<f32>,
}

impl<N: Networks> Cascade<N> {
    fn new(networks: N, limits: Limits) -> Self {
        Self { networks, limits, sessions: BTreeMap::new(), steps: 0, prefixes: Vec::new(), pcm: Vec::new() }
    }

    fn open(&mut self, session: SessionId, mut conversation: Conversation<N>) {
        match conversation.opening_prompt(&self.networks) {
            Ok(prompt) => {
                let best = self.prefixes.iter().max_by_key(|p| p.common_prefix(&prompt));
                if let Some(prefix) = best {
                    conversation.memory.copy_prefix(prefix, prefix.common_prefix(&prompt));
                }
                conversation.open(prompt, self.limits.opening);
            }
            Err(error) => conversation.out.push(Event::Failed { turn: None, error, resumable: false }),
        }
        conversation.served = self.steps;
        self.sessions.insert(session, conversation);
    }

    /// The most urgent conversation; among equals the one that waited longest.
    fn next(&self) -> Option<(SessionId, Class, Task)> {
        self.sessions
            .iter()
            .filter_map(|(id, c)| c.task().map(|(class, task)| (*id, class, task, c.served)))
            .min_by_key(|(_, class, _, served)| (*class, *served))
            .map(|(id, class, task, _)| (id, class, task))
    }

    fn run(&mut self, id: SessionId, class: Class, task: Task) {
        let Some(conversation) = self.sessions.get_mut(&id) else { return };
        conversation.served = self.steps;
        match task {
            Task::Hear(index) => conversation.hear(&mut self.networks, index),
            Task::Partial => conversation.partial(&mut self.networks),
            Task::Speak => conversation.speak(&mut self.networks, &mut self.pcm),
            Task::Open => self.prefill_opening(id),
            Task::Prepare => {
                conversation.remember_conversation();
                let prompt = std::mem::take(&mut conversation.preparing);
                let fits = prompt.len() <= self.limits.context;
                if fits && prefill(&mut self.networks, &mut conversation.memory, &prompt, PREPARE_CHUNK) {
                    conversation.preparing = prompt;
                }
            }
            Task::Think => self.think(id, class),
        }
    }

    fn prefill_opening(&mut self, id: SessionId) {
        let Some(conversation) = self.sessions.get_mut(&id) else { return };
        conversation.remember_conversation();
        if std::mem::take(&mut conversation.reconfigured) {
            match conversation.opening_prompt(&self.networks) {
                Ok(prompt) => conversation.open(prompt, self.limits.opening),
                Err(error) => conversation.out.push(Event::Failed { turn: None, error, resumable: false }),
            }
            return;
        }
        let prompt = std::mem::take(&mut conversation.opening);
        if prefill(&mut self.networks, &mut conversation.memory, &prompt, PREFILL_CHUNK) {
            conversation.opening = prompt;
            return;
        }
        if std::mem::replace(&mut conversation.opened, true) {
            return;
        }
        conversation.out.push(Event::Opened);
        if !self.prefixes.iter().any(|p| p.common_prefix(&prompt) == prompt.len()) {
            if self.prefixes.len() == MAX_PREFIXES {
                self.prefixes.remove(0);
            }
            let mut prefix = self.networks.memory();
            prefix.copy_prefix(&conversation.memory, prompt.len());
            self.prefixes.push(prefix);
        }
    }

    /// One pass of the language model: the chunk of `id`, and the next token of every other conversation that is
    /// committed to speak and has one due.
    fn think(&mut self, id: SessionId, class: Class) {
        let joins = |other: Class| other <= class.max(Class::First);
        let mut batch: Vec<SessionId> = vec![id];
        for (other, conversation) in &self.sessions {
            let due = conversation.task().is_some_and(|(c, task)| task == Task::Think && joins(c));
            let decodes = conversation.turns.front().is_some_and(|t| matches!(t.stage, Stage::Decode(_)));
            if *other != id && due && decodes {
                batch.push(*other);
            }
        }
        let chunk = if batch.len() > 1 { PREFILL_CHUNK_SHARED } else { PREFILL_CHUNK };

        // Memories and tokens are moved out for the pass, so that all conversations can be borrowed at once.
        let mut work = Vec::with_capacity(batch.len());
        for id in batch {
            let Some(conversation) = self.sessions.get_mut(&id) else { continue };
            let limit = self.limits.context.saturating_sub(conversation.max_tokens());
            match conversation.prepare_prompt(&self.networks, limit) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    conversation.fail_front(error);
                    continue;
                }
            }
            let Some(turn) = conversation.turns.front() else { continue };
            let held = conversation.memory.tokens().len();
            let (tokens, complete) = match turn.stage {
                Stage::Decode(token) => (vec![token], true),
                _ => {
                    let end = (held + chunk).min(turn.prompt.len());
                    (turn.prompt[held..end].to_vec(), end == turn.prompt.len())
                }
            };
            let memory = std::mem::replace(&mut conversation.memory, self.networks.memory());
            work.push((id, memory, tokens, complete));
        }
        if work.is_empty() {
            return;
        }
        let mut chunks: Vec<Chunk<'_, N::Memory>> = work
            .iter_mut()
            .filter_map(|(id, memory, tokens, complete)| {
                let conversation = self.sessions.get(id)?;
                let turn = conversation.turns.front()?;
                let draw = complete.then(|| Draw {
                    sampling: &conversation.config.sampling,
                    seed: conversation.seed ^ turn.reply.id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    reply: &turn.drawn,
                    choice: turn.choice.as_ref(),
                    functions: !conversation.config.tools.is_empty(),
                    constraint: turn.scanner.constraint().map(|a| (a, self.networks.pending(&turn.detokenizer))),
                });
                Some(Chunk { memory, tokens, draw })
            })
            .collect();
        let drawn = self.networks.think(&mut chunks);
        for ((id, memory, ..), token) in work.into_iter().zip(drawn) {
            let Some(conversation) = self.sessions.get_mut(&id) else { continue };
            conversation.memory = memory;
            if let Some(token) = token {
                conversation.drawn(&self.networks, token);
            }
            conversation.served = self.steps;
        }
    }
}

/// Brings `memory` one chunk closer to `prompt`; whether more is to be done.
fn prefill<N: Networks>(networks: &mut N, memory: &mut N::Memory, prompt: &[u32], chunk: usize) -> bool {
    let common = memory.common_prefix(prompt);
    if common == prompt.len() {
        return false;
    }
    memory.truncate(common);
    let end = (common + chunk).min(prompt.len());
    networks.think(&mut [Chunk { memory, tokens: &prompt[common..end], draw: None }]);
    end < prompt.len()
}

impl<N: Networks> Engine for Cascade<N> {
    fn capabilities(&self) -> &Capabilities {
        self.networks.capabilities()
    }

    fn submit(&mut self, request: Request) -> Result<(), Busy> {
        let session = request.session();
        match request {
            Request::Open { config, history, .. } => {
                if self.sessions.len() >= self.limits.sessions {
                    return Err(Busy);
                }
                let seed = config.sampling.seed.unwrap_or(session.0);
                let conversation = Conversation::new(&self.networks, session, *config, history, seed);
                self.open(session, conversation);
            }
            Request::Close { .. } => {
                self.sessions.remove(&session);
            }
            request => {
                if let Some(conversation) = self.sessions.get_mut(&session) {
                    conversation.handle(&mut self.networks, request);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next {
        if let Some((id, class, task)) = self.next() {
            self.steps += 1;
            self.run(id, class, task);
        }
        for (id, conversation) in &mut self.sessions {
            for event in conversation.out.drain(..) {
                out(*id, event);
            }
        }
        if self.next().is_some() { Next::Ready } else { Next::Idle }
    }
}
