//! The language model: a decoder-only transformer from a GGUF file, with its tokenizer and its chat template.
//!
//! [`Lm`] is immutable and shared; a conversation is a [`KvCache`], which may always be rebuilt from its tokens.
//! [`Lm::forward`] runs tokens of several conversations in one pass and never looks at a clock: how much work a pass is
//! decided by how many tokens it is given.

pub(crate) mod chat;
mod config;
mod decoder;
mod gguf;
mod kv_cache;
pub(crate) mod moe;
#[cfg(test)]
mod tests;
mod tokenizer;
mod weights;

use std::path::{Path, PathBuf};

use causerie_kernels::{KernelError, Pool};

pub use chat::{ChatTemplate, End, Function, Message, ToolCall};
pub use config::Config;
pub(crate) use decoder::resize;
pub use decoder::{Scratch, Segment};
pub use gguf::{Gguf, Tensor};
pub use kv_cache::KvCache;
pub use tokenizer::{Decoder, Tokenizer};

/// Tokens that end a turn in one family or another, besides the one that the file names.
const END_OF_TURN: [&str; 6] =
    ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>"];

/// Why a model was not loaded, or a prompt not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LmError {
    /// The file is not there.
    #[error("{}: no such file; `causerie models pull` fetches the default models, or name a GGUF file with --lm", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Open(KernelError),
    /// The file is not what it should be, or not of a kind that is known here.
    #[error("{}: {field}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The metadata key or tensor.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The chat template refused a conversation. The message is the template's own.
    #[error("the model's chat template: {0}")]
    Template(String),
}

impl LmError {
    fn open(path: &Path, error: KernelError) -> Self {
        match error {
            KernelError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::Missing { path: path.to_owned() }
            }
            other => Self::Open(other),
        }
    }

    fn malformed(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), field: field.into(), problem: problem.into() }
    }
}

/// A language model.
pub struct Lm {
    name: String,
    config: Config,
    tokenizer: Tokenizer,
    chat: ChatTemplate,
    end_of_turn: Vec<u32>,
    decoder: decoder::Decoder,
}

impl Lm {
    /// Loads a GGUF file and repacks its weights for this machine.
    ///
    /// # Errors
    /// [`LmError`], naming the file, the field and the problem.
    pub fn load(pool: &Pool, path: &Path) -> Result<Self, LmError> {
        let file = Gguf::open(path)?;
        let config = Config::read(&file)?;
        let tokenizer = Tokenizer::read(&file)?;
        let special = |id: Option<u32>| id.map_or(String::new(), |id| tokenizer.text_of(id));
        let bos = file.size("tokenizer.ggml.bos_token_id")?.map(|id| id as u32);
        let chat = ChatTemplate::new(file.text("tokenizer.chat_template")?, special(bos), special(tokenizer.eos()))
            .map_err(|error| file.malformed("tokenizer.chat_template", describe(&error)))?;
        let mut end_of_turn: Vec<u32> = tokenizer.eos().into_iter().collect();
        end_of_turn.extend(END_OF_TURN.iter().filter_map(|text| tokenizer.special(text)));
        end_of_turn.sort_unstable();
        end_of_turn.dedup();
        if end_of_turn.is_empty() {
            return Err(file.malformed("tokenizer.ggml.eos_token_id", "is missing: no reply would ever end"));
        }
        let decoder = weights::load(pool, &file, &config, tokenizer.len())?;
        file.release_all();
        let name = match file.text("general.name")? {
            Some(name) => name.to_owned(),
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(Self { name, config, tokenizer, chat, end_of_turn, decoder })
    }

    /// Its name, from the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its vocabulary.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Its chat template. [`Lm::prompt`] is the way from a conversation to tokens.
    pub fn chat(&self) -> &ChatTemplate {
        &self.chat
    }

    /// Tokens that end a reply.
    pub fn end_of_turn(&self) -> &[u32] {
        &self.end_of_turn
    }

    /// A memory without tokens.
    pub fn new_cache(&self) -> KvCache {
        KvCache::new(&self.config)
    }

    /// Tokens of a conversation up to `end`. Special tokens come from the template alone: such words in a message are
    /// text. Prompts of a growing conversation share their beginnings, and so does one that ends inside an open turn with
    /// the one in which the turn has gone on, except perhaps for its last token.
    ///
    /// # Errors
    /// [`LmError::Template`] if the template refuses the conversation.
    pub fn prompt(&self, messages: &[Message], tools: &[serde_json::Value], end: End) -> Result<Vec<u32>, LmError> {
        let guard = |text: &str| self.tokenizer.guard(text);
        let mut guarded = messages.to_vec();
        for message in &mut guarded {
            message.content = guard(&message.content);
            message.name = message.name.as_deref().map(guard);
            for call in &mut message.tool_calls {
                call.function.name = guard(&call.function.name);
                chat::map_strings(&mut call.function.arguments, &guard);
            }
        }
        let mut tools = tools.to_vec();
        tools.iter_mut().for_each(|tool| chat::map_strings(tool, &guard));
        let text = self.chat.render(&guarded, &tools, end).map_err(|error| LmError::Template(describe(&error)))?;
        let tokens = self.tokenizer.encode(&text, true);
        match self.tokenizer.bos() {
            Some(bos) if tokens.first() != Some(&bos) => Ok([&[bos], tokens.as_slice()].concat()),
            _ => Ok(tokens),
        }
    }

    /// One pass over several conversations at once, prefill chunks and single tokens mixed. Tokens are appended to each
    /// segment's cache; the logits that follow the last token of each segment that wants them are in
    /// [`Scratch::logits`]. What a conversation gets does not depend on the company or on how it was cut, bit for bit.
    ///
    /// # Panics
    /// If a token is not in the vocabulary or a cache belongs to another model.
    pub fn forward(&self, pool: &Pool, scratch: &mut Scratch, segments: &mut [Segment<'_>]) {
        self.decoder.forward(&self.config, pool, scratch, segments);
    }
}

/// The error and its cause, on one line.
fn describe(error: &minijinja::Error) -> String {
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    format!("{line}{detail}")
}
