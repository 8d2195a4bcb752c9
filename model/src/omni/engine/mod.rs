//! The omni engine: all conversations over one set of networks, batched step by step.
//!
//! An utterance becomes rows of the audio tower, the thinker answers it word by word, and the talker speaks from the first
//! word on, a frame a word; each frame becomes sound at once. [`schedule`] decides which network runs next and for whom;
//! what a conversation gets does not depend on the company, bit for bit.
//!
//! Speculation needs no undo: the thinker's memory is a cache of rows, compared with the next prompt and cut where they
//! differ, and the events of a proposed turn stay with it until it is committed. Sounds stay in the history as rows, not
//! as words: this model hears without writing down what it heard, so there are no transcripts of what the user says.

mod conversation;
mod history;
mod passes;
mod prompt;
mod schedule;
mod settings;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;

use causerie_kernels::Pool;
use causerie_kernels::ops::linear;
use causerie_kernels::ops::log_mel::LogMel;
use causerie_kernels::ops::sample;
use causerie_model_api::{Busy, Capabilities, Engine, Event, Next, Request, SessionId, Voice};

use self::conversation::{Conversation, Ear};
use self::schedule::{Budget, Need, Network, plan};
use self::settings::Generation;
use super::kv::KvStore;
use super::talker::{self, Frames};
use super::{Omni, OmniError, Placement, decoder};
use crate::lm::{LmError, Tokenizer};

pub use settings::Options;

/// Prompt rows of all conversations in one pass.
const PROMPT_ROWS: usize = 32;
/// Positions in a block of memory.
const BLOCK: usize = 16;
/// The voice of the released checkpoints that the reference implementation speaks with by default.
const DEFAULT_VOICE: &str = "ethan";

/// Why the engine was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The checkpoint.
    #[error(transparent)]
    Omni(#[from] OmniError),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] LmError),
    /// The tokenizer has tokens that the model has not.
    #[error("the tokenizer has {tokens} tokens, the model {vocabulary}")]
    Vocabulary {
        /// Of the tokenizer.
        tokens: usize,
        /// Of the model.
        vocabulary: usize,
    },
}

/// Loads the checkpoint and makes room for conversations.
///
/// # Errors
/// [`LoadError`], naming the file, field or tensor.
pub fn load(options: &Options) -> Result<Box<dyn Engine>, LoadError> {
    Ok(Box::new(OmniEngine::load(options)?))
}

struct OmniEngine {
    omni: Omni,
    tokenizer: Tokenizer,
    generation: Generation,
    capabilities: Capabilities,
    pool: Pool,
    mel: LogMel,
    sessions: BTreeMap<SessionId, Conversation>,
    most_sessions: usize,
    context: usize,
    passes: u64,
    thinker: Memories,
    talker: Memories,
    frames: Frames,
    buffers: Buffers,
}

/// A decoder's memory of all conversations, and its buffers.
struct Memories {
    store: KvStore,
    scratch: decoder::Scratch,
}

#[derive(Default)]
struct Buffers {
    linear: linear::Scratch,
    talker: talker::Scratch,
    sampler: sample::Scratch,
    logits: Vec<f32>,
}

impl OmniEngine {
    fn load(options: &Options) -> Result<Self, LoadError> {
        let pool = Pool::new(options.threads);
        let omni = Omni::load(&pool, &options.model, Placement::F32)?;
        let tokenizer = Tokenizer::read_json(&options.model.join("tokenizer.json"))?;
        let vocabulary = omni.config.thinker.text.vocabulary;
        if tokenizer.len() > vocabulary {
            return Err(LoadError::Vocabulary { tokens: tokenizer.len(), vocabulary });
        }
        let mut generation = Generation::read(&options.model)?;
        let context = options.context.min(omni.config.thinker.text.context);
        // Half of the context is for the prompt, at the least.
        generation.max_words = generation.max_words.min(context / 2);
        let blocks = |positions: usize| options.sessions * positions.div_ceil(BLOCK);
        // The talker hears at most the prompt, and adds a row a frame.
        let spoken = context + generation.max_frames;
        let thinker =
            Memories { store: omni.thinker.decoder.store(BLOCK, blocks(context)), scratch: Default::default() };
        let talker = Memories { store: omni.talker.decoder.store(BLOCK, blocks(spoken)), scratch: Default::default() };
        Ok(Self {
            capabilities: capabilities(&omni, options, context),
            mel: LogMel::new(omni.config.thinker.audio.mels),
            frames: omni.talker.predictor.frames(options.sessions),
            sessions: BTreeMap::new(),
            most_sessions: options.sessions,
            context,
            passes: 0,
            thinker,
            talker,
            buffers: Buffers::default(),
            omni,
            tokenizer,
            generation,
            pool,
        })
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        let ids = &self.omni.config.ids;
        for (session, conversation) in &self.sessions {
            let waited = self.passes.saturating_sub(conversation.served);
            conversation.needs(ids.tts_eos, ids.tts_pad, &mut |network, class, rows| {
                needs.push(Need { session: *session, network, class, waited, rows });
            });
        }
        needs
    }

    /// One pass.
    fn run(&mut self, pass: &schedule::Pass) {
        match pass.network {
            Network::Audio => self.hear(pass),
            Network::Thinker => self.think(pass),
            Network::Talker => self.talk(pass),
        }
        for (session, _) in &pass.shares {
            if let Some(conversation) = self.sessions.get_mut(session) {
                conversation.served = self.passes;
            }
        }
    }

    /// Gives back what turns that are gone have left.
    fn sweep(&mut self) {
        for conversation in self.sessions.values_mut() {
            for mut sequence in conversation.discarded.drain(..) {
                self.talker.store.release(&mut sequence);
            }
        }
    }

    fn close(&mut self, session: SessionId) {
        let Some(mut conversation) = self.sessions.remove(&session) else { return };
        self.thinker.store.release(&mut conversation.memory.sequence);
        let speaking = conversation.turns.iter_mut().filter_map(|turn| turn.speech.take());
        for mut sequence in speaking.map(|speech| speech.sequence).chain(conversation.discarded.drain(..)) {
            self.talker.store.release(&mut sequence);
        }
    }
}

fn capabilities(omni: &Omni, options: &Options, context: usize) -> Capabilities {
    let name =
        options.model.file_name().map_or_else(|| "qwen3-omni".into(), |name| name.to_string_lossy().into_owned());
    let mut voices: Vec<Voice> = omni
        .config
        .talker
        .speakers
        .iter()
        .map(|(name, _)| Voice { name: name.clone(), language: "en".into(), gender: "neutral".into() })
        .collect();
    voices.sort_by(|a, b| (a.name != DEFAULT_VOICE, &a.name).cmp(&(b.name != DEFAULT_VOICE, &b.name)));
    Capabilities {
        engine: "omni".into(),
        models: vec![name],
        audio_in: true,
        video_in: false,
        audio_out: true,
        thinking: false,
        tools: false,
        proactive: false,
        languages_in: Vec::new(),
        languages_out: Vec::new(),
        voices,
        context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
    }
}

impl Engine for OmniEngine {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, request: Request) -> Result<(), Busy> {
        let session = request.session();
        match request {
            Request::Open { config, history, .. } => {
                if self.sessions.len() >= self.most_sessions {
                    return Err(Busy);
                }
                let seed = config.sampling.seed.unwrap_or(session.0);
                let mut conversation = Conversation::new(*config, history, seed);
                conversation.served = self.passes;
                self.sessions.insert(session, conversation);
            }
            Request::Close { .. } => self.close(session),
            request => {
                if let Some(conversation) = self.sessions.get_mut(&session) {
                    let mut idle = true;
                    let ids = &self.omni.config.ids;
                    conversation.needs(ids.tts_eos, ids.tts_pad, &mut |_, _, _| idle = false);
                    if idle {
                        // It has not been waiting before it had something to do.
                        conversation.served = self.passes;
                    }
                    conversation.handle(&Ear { pool: &self.pool, mel: &self.mel }, request);
                }
            }
        }
        self.sweep();
        Ok(())
    }

    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next {
        let budget = Budget { prompt_rows: PROMPT_ROWS, conversations: self.most_sessions };
        if let Some(pass) = plan(&self.needs(), budget) {
            self.passes += 1;
            self.run(&pass);
        }
        self.sweep();
        for (id, conversation) in &mut self.sessions {
            for event in conversation.out.drain(..) {
                out(*id, event);
            }
        }
        if self.needs().is_empty() { Next::Idle } else { Next::Ready }
    }
}
