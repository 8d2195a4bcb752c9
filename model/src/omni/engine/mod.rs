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
mod early;
mod form;
mod hearing;
mod history;
pub mod measure;
mod media;
mod networks;
mod passes;
mod prefixes;
mod prompt;
mod schedule;
mod settings;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use causerie_kernels::Pool;
use causerie_kernels::cuda::Gpu;
use causerie_kernels::cuda::driver::{self, Driver};
use causerie_kernels::ops::log_mel::LogMel;
use causerie_kernels::ops::sample;
use causerie_model_api::{Busy, Capabilities, Engine, Event, Next, Request, SessionId, Voice};

use self::conversation::Conversation;
use self::form::Form;
use self::hearing::Ear;
use self::networks::{Networks, OnCpu, OnDevice, Sizes};
use self::prefixes::Prefixes;
use self::schedule::{Budget, Need, Network};
use self::settings::Generation;
use super::config::Config;
use super::cuda::GpuOmni;
use super::kv::KvStore;
use super::plan::Plan;
use super::{Omni, OmniError};
use crate::lm::LmError;

pub use causerie_kernels::ops::paged_attention::Visible;
pub use hearing::Loudest;
pub use settings::{Device, Options};

/// Prompt rows of all conversations in one pass.
const PROMPT_ROWS: usize = 32;
/// The same on a device, where the weights of all experts are read for a few rows as for many.
const DEVICE_PROMPT_ROWS: usize = 256;

/// Prompt rows of all conversations in one pass.
fn prompt_rows(on_device: bool) -> usize {
    if on_device { DEVICE_PROMPT_ROWS } else { PROMPT_ROWS }
}

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
    /// The chat template.
    #[error("{}: {problem}", path.display())]
    Template {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer has tokens that the model has not.
    #[error("the tokenizer has {tokens} tokens, the model {vocabulary}")]
    Vocabulary {
        /// Of the tokenizer.
        tokens: usize,
        /// Of the model.
        vocabulary: usize,
    },
    /// A token that the configuration gives a meaning is not in the tokenizer.
    #[error("config.json: {field}: is {token}, the tokenizer has {tokens} tokens")]
    Unwritten {
        /// The field of the configuration.
        field: &'static str,
        /// The token.
        token: u32,
        /// Tokens of the tokenizer.
        tokens: usize,
    },
}

/// What the engine would need, before anything is loaded.
///
/// # Errors
/// [`LoadError`], naming the file or field, or what does not fit.
pub fn plan(options: &Options) -> Result<Plan, LoadError> {
    let options = if options.device == Device::Cpu { options.clone() } else { options.on_device()? };
    Ok(options.plan(
        &options.shape()?,
        &Generation::read(&options.model)?,
        prompt_rows(options.device != Device::Cpu),
    )?)
}

/// Loads the checkpoint and makes room for conversations.
///
/// # Errors
/// [`LoadError`], naming the file, field or tensor, or what the device lacks.
pub fn load(options: &Options) -> Result<Box<dyn Engine>, LoadError> {
    let gpu = match options.device {
        Device::Cpu => None,
        Device::Cuda(index) => {
            let bytes = plan(options)?.bytes();
            let driver = Driver::open(driver::Plan { index, bytes }).map_err(OmniError::Device)?;
            Some(Gpu::new(driver))
        }
    };
    Ok(Box::new(OmniEngine::load_on(options, gpu)?))
}

/// As [`load`], on a device that the caller has.
///
/// # Errors
/// As [`load`], or what the device lacks.
pub fn load_on(options: &Options, gpu: Gpu) -> Result<Box<dyn Engine>, LoadError> {
    Ok(Box::new(OmniEngine::load_on(options, Some(gpu))?))
}

struct OmniEngine {
    config: Config,
    networks: Box<dyn Networks>,
    form: Form,
    generation: Generation,
    capabilities: Capabilities,
    pool: Arc<Pool>,
    mel: LogMel,
    loudest: Loudest,
    sessions: BTreeMap<SessionId, Conversation>,
    most_sessions: usize,
    context: usize,
    passes: u64,
    thinker: Memory,
    prefixes: Prefixes,
    talker: Memory,
    /// Rows of prompts in a pass.
    prompt_rows: usize,
    sampler: sample::Scratch,
    /// Why the device cannot go on.
    lost: Option<String>,
    /// Words that are drawn instead of the likely ones: random networks call no functions.
    #[cfg(test)]
    script: std::collections::VecDeque<u32>,
}

/// A decoder's memory of all conversations.
struct Memory {
    store: KvStore,
}

impl OmniEngine {
    #[cfg(test)]
    fn load(options: &Options) -> Result<Self, LoadError> {
        Self::load_on(options, None)
    }

    /// On a device, or else on this processor.
    fn load_on(options: &Options, gpu: Option<Gpu>) -> Result<Self, LoadError> {
        let options = &if gpu.is_some() { options.on_device()? } else { options.clone() };
        let pool = Arc::new(Pool::new(options.threads));
        let (config, mut generation) = (options.shape()?, Generation::read(&options.model)?);
        // What does not fit is known before the files are read.
        let plan = options.plan(&config, &generation, prompt_rows(gpu.is_some()))?;
        let form = Form::read(&options.model, &config)?;
        let context = options.context;
        // Half of the context is for the prompt, at the least.
        generation.max_words = generation.max_words.min(context / 2);
        let (thinker, talker, networks): (_, _, Box<dyn Networks>) = match &gpu {
            None => {
                let omni = Omni::load_as(&pool, &options.model, config.clone(), options.weights)?;
                let store = |layout, visible| KvStore::new(layout, visible);
                let networks = OnCpu::new(omni, Arc::clone(&pool), options.sessions);
                (store(plan.thinker, options.visible), store(plan.talker, Visible::All), Box::new(networks))
            }
            Some(gpu) => {
                generation.check_for_device()?;
                let omni = GpuOmni::load_as(gpu, &options.model, config.clone())?;
                let store = |layout, visible| KvStore::on_device(gpu, layout, visible);
                let stores = (store(plan.thinker, options.visible)?, store(plan.talker, Visible::All)?);
                let sizes = Sizes {
                    sessions: options.sessions,
                    rows: prompt_rows(true),
                    context,
                    spoken: context + generation.max_frames,
                };
                (stores.0, stores.1, Box::new(OnDevice::new(gpu.clone(), omni, sizes)?))
            }
        };
        Ok(Self {
            capabilities: capabilities(&config, options, context),
            mel: LogMel::new(config.thinker.audio.mels),
            loudest: options.loudest,
            sessions: BTreeMap::new(),
            most_sessions: options.sessions,
            context,
            passes: 0,
            thinker: Memory { store: thinker },
            prefixes: Prefixes::default(),
            talker: Memory { store: talker },
            prompt_rows: prompt_rows(gpu.is_some()),
            sampler: sample::Scratch::default(),
            lost: None,
            #[cfg(test)]
            script: Default::default(),
            config,
            networks,
            form,
            generation,
            pool,
        })
    }

    fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        for (session, conversation) in &self.sessions {
            let waited = self.passes.saturating_sub(conversation.served);
            conversation.needs(&self.config, self.loudest, &mut |network, (class, ahead), rows| {
                needs.push(Need { session: *session, network, class, ahead, waited, rows });
            });
        }
        needs
    }

    /// One pass.
    fn run(&mut self, pass: &schedule::Pass) {
        match pass.network {
            Network::Audio => self.hear(pass),
            Network::Vision => self.look(pass),
            Network::Thinker => self.think(pass),
            Network::Talker => self.talk(pass),
        }
        for (session, _) in &pass.shares {
            if let Some(conversation) = self.sessions.get_mut(session) {
                conversation.served = self.passes;
            }
        }
    }

    fn refresh_drafts(&mut self) {
        for conversation in self.sessions.values_mut() {
            let limit = self.context - conversation.max_words(self.generation.max_words);
            conversation.refresh_draft(&self.config, &self.form, (&mut self.thinker.store, &mut self.prefixes), limit);
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

fn capabilities(config: &Config, options: &Options, context: usize) -> Capabilities {
    let name =
        options.model.file_name().map_or_else(|| "qwen3-omni".into(), |name| name.to_string_lossy().into_owned());
    let mut voices: Vec<Voice> = config
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
        // Pictures have three channels.
        video_in: config.thinker.vision.channels == 3,
        audio_out: true,
        thinking: true,
        tools: true,
        proactive: false,
        languages_in: Vec::new(),
        languages_out: Vec::new(),
        voices,
        context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
    }
}

impl Engine for OmniEngine {
    fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

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
                let mut conversation = Conversation::new(session, *config, seed, self.context);
                conversation.append(&self.config.thinker.vision, history);
                conversation.served = self.passes;
                self.sessions.insert(session, conversation);
            }
            Request::Close { .. } => self.close(session),
            request => {
                if let Some(conversation) = self.sessions.get_mut(&session) {
                    let mut idle = true;
                    conversation.needs(&self.config, self.loudest, &mut |_, _, _| idle = false);
                    if idle {
                        // It has not been waiting before it had something to do.
                        conversation.served = self.passes;
                    }
                    let ear = Ear { pool: &self.pool, mel: &self.mel, loudest: self.loudest };
                    conversation.handle(&ear, &self.config, request);
                }
            }
        }
        self.sweep();
        Ok(())
    }

    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next {
        self.refresh_drafts();
        let budget = Budget { prompt_rows: self.prompt_rows, conversations: self.most_sessions };
        if let Some(pass) = schedule::plan(&self.needs(), budget) {
            self.passes += 1;
            self.run(&pass);
        }
        if self.lost.is_some() {
            return Next::Idle;
        }
        self.sweep();
        for (id, conversation) in &mut self.sessions {
            for event in conversation.out.drain(..) {
                out(*id, event);
            }
        }
        self.refresh_drafts();
        if self.needs().is_empty() { Next::Idle } else { Next::Ready }
    }
}
