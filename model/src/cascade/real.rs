//! The cascade's real networks: Whisper, a language model from a GGUF file, and the hibari voice.

use std::path::{Path, PathBuf};

use causerie_kernels::Pool;
use causerie_kernels::ops::sample;
use causerie_model_api::{Capabilities, Content, Engine, Item, Role, Sampling, SessionConfig, ToolDeclaration};
use serde_json::json;

use super::addressed::{self, Choice};
use super::networks::{Chunk, Heard, Memory, Networks, Spoken, User};
use super::{Cascade, Limits};
use crate::lm::{self, End, KvCache, Lm, LmError, Message, Segment};
use crate::speech::{Speech, SpeechError};
use crate::tools::Acceptor;
use crate::whisper::{self, Progress, Whisper, WhisperError};

/// How the language model is made to think before it speaks: with its own marks if its vocabulary has them, else with
/// words that make an instruct model reason, and others that make it come to the point.
pub(crate) struct Thoughts {
    open: Vec<u32>,
    pub(crate) close: Vec<u32>,
    pub(crate) mark: Option<&'static str>,
}

impl Thoughts {
    const MARKS: (&str, &str) = ("<think>", "</think>");

    pub(crate) fn of(tokenizer: &lm::Tokenizer) -> Self {
        let tokens = |text: &str| tokenizer.encode(text, true);
        let (open, close) = Self::MARKS;
        if tokenizer.special(open).is_some() && tokenizer.special(close).is_some() {
            let (open, end) = (tokens("<think>\n"), tokens("\n</think>\n\n"));
            return Self { open, close: end, mark: Some(close) };
        }
        // "Let me think step by step" makes the default model explain what it is going to do: 95 tokens for 23 right
        // answers of 30 where this takes 57 for 25.
        let (open, close) = (tokens("Let me calculate briefly.\n"), tokens("\n\nThe answer, briefly: "));
        Self { open, close, mark: None }
    }

    /// Begins a thought, if the template has not.
    pub(crate) fn open(&self, prompt: &mut Vec<u32>) {
        let begun =
            self.mark.is_some() && self.open.first().is_some_and(|mark| prompt.iter().rev().take(3).any(|t| t == mark));
        if !begun {
            prompt.extend(&self.open);
        }
    }
}

/// What to load and how much room to give it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder of the models, as `causerie models pull` leaves it.
    pub models: PathBuf,
    /// A GGUF file to think with; `None` for the default one in `models`.
    pub lm: Option<PathBuf>,
    /// Recogniser: a folder inside `models/whisper`.
    pub recognizer: String,
    /// Threads that compute, the engine's own included.
    pub threads: usize,
    /// Conversations at once.
    pub sessions: usize,
    /// Tokens of a prompt and its reply, at most what the model was trained for.
    pub context: usize,
    /// How much likelier than any word the beginning of a call must be for a reply to begin with it, as a difference of
    /// logits; `None` for what suits the model.
    pub call_margin: Option<f32>,
}

impl Options {
    /// The defaults for a folder of models on this machine.
    pub fn new(models: PathBuf) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { models, lm: None, recognizer: "base".into(), threads, sessions: 8, context: 8_192, call_margin: None }
    }
}

/// The default language model, inside the folder of models.
pub const DEFAULT_LM: &str = "lm/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf";

/// [`Options::call_margin`] of the default language model, which calls too readily. Tuned on one set of questions and judged
/// by another with other functions (`cargo xtask tools`, 2026-11): of 22 and 24 that need none it called in 12 and 9
/// without, and in 5 and 4 with it; of 22 and 24 that need one it called all rightly either way.
const DEFAULT_CALL_MARGIN: f32 = 3.0;

/// What the language model is told when the client gives no instruction. It is short on purpose: of a dozen wordings
/// tried on the default model, those that described the situation or forbade markup at length made it answer worse
/// (a leap year had 29 days). Markup that it writes all the same is not read aloud.
const DEFAULT_INSTRUCTION: &str = "You are a helpful assistant. Your answers are read aloud. Answer briefly.";

/// Why the cascade was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The language model.
    #[error(transparent)]
    Lm(#[from] LmError),
    /// The recogniser.
    #[error(transparent)]
    Whisper(#[from] WhisperError),
    /// The voice.
    #[error(transparent)]
    Speech(#[from] SpeechError),
}

/// Loads the networks; seconds, and most of the process's memory.
///
/// # Errors
/// [`LoadError`], naming the file and, when it is missing, the command that fetches it.
pub fn load(options: &Options) -> Result<Box<dyn Engine>, LoadError> {
    let networks = Real::load(options)?;
    let context = options.context.min(networks.lm.config().context);
    let limits = Limits { sessions: options.sessions, context, opening: context / 8 * 7 };
    Ok(Box::new(Cascade::new(networks, limits)))
}

struct Real {
    pool: Pool,
    whisper: Whisper,
    lm: Lm,
    scratch: lm::Scratch,
    speech: Speech,
    thoughts: Thoughts,
    capabilities: Capabilities,
    sampler: sample::Scratch,
    call_margin: f32,
    /// Tokens that begin a call where a reply begins.
    call_openers: Vec<u32>,
}

impl Real {
    fn load(options: &Options) -> Result<Self, LoadError> {
        let pool = Pool::new(options.threads);
        let folder = |name: &str| options.models.join(name);
        let whisper = Whisper::load(&pool, &folder("whisper").join(&options.recognizer))?;
        let speech = Speech::load(&folder("hibari"))?;
        let lm_path = options.lm.clone().unwrap_or_else(|| folder(DEFAULT_LM));
        let lm = Lm::load(&pool, &lm_path)?;
        let capabilities = capabilities(options, &lm_path, &whisper, &lm, &speech);
        Ok(Self {
            pool,
            whisper,
            thoughts: Thoughts::of(lm.tokenizer()),
            call_margin: options.call_margin.unwrap_or(if options.lm.is_none() { DEFAULT_CALL_MARGIN } else { 0.0 }),
            call_openers: call_openers(lm.tokenizer()),
            lm,
            scratch: lm::Scratch::default(),
            speech,
            capabilities,
            sampler: sample::Scratch::default(),
        })
    }
}

fn capabilities(options: &Options, lm_path: &Path, whisper: &Whisper, lm: &Lm, speech: &Speech) -> Capabilities {
    let lm_name = lm_path.file_stem().map_or_else(|| lm.name().to_owned(), |s| s.to_string_lossy().into_owned());
    let voices = speech.voices().to_vec();
    let mut languages_out: Vec<String> = voices.iter().map(|v| v.language.clone()).collect();
    languages_out.dedup();
    Capabilities {
        engine: "cascade".into(),
        models: vec![format!("whisper-{}", options.recognizer), lm_name, "hibari".into()],
        audio_in: true,
        video_in: false,
        audio_out: true,
        thinking: true,
        tools: true,
        proactive: true,
        languages_in: whisper.languages().iter().map(|l| (*l).to_owned()).collect(),
        languages_out,
        voices,
        context_tokens: u32::try_from(options.context.min(lm.config().context)).unwrap_or(u32::MAX),
    }
}

impl Memory for KvCache {
    fn tokens(&self) -> &[u32] {
        self.tokens()
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }

    fn copy_prefix(&mut self, other: &Self, len: usize) {
        self.copy_prefix_from(other, len);
    }
}

impl Networks for Real {
    type Hearing = whisper::Pass;
    type Memory = KvCache;
    type Detokenizer = lm::Decoder;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn hear(&mut self, pcm: &[f32], language: Option<&str>, draft: &[u32]) -> whisper::Pass {
        let options = whisper::Options { language: language.map(str::to_owned), draft: draft.to_vec() };
        self.whisper.begin(pcm.to_vec(), options)
    }

    fn hear_step(&mut self, hearing: &mut whisper::Pass) -> Option<Heard> {
        match hearing.step(&self.whisper, &self.pool) {
            Progress::More => None,
            Progress::Done(t) => Some(Heard { text: t.text, language: t.language, tokens: t.tokens }),
        }
    }

    fn memory(&self) -> KvCache {
        self.lm.new_cache()
    }

    fn prompt(
        &self,
        config: &SessionConfig,
        history: &[Item],
        user: User<'_>,
        thinks: bool,
    ) -> Result<Vec<u32>, String> {
        let reply = if thinks { End::Thought } else { End::Reply };
        let instruction = match config.system_instruction.as_str() {
            "" => DEFAULT_INSTRUCTION,
            own => own,
        };
        let mut messages = vec![Message::text("system", instruction)];
        messages.extend(history.iter().map(message));
        let end = match user {
            User::Nothing => reply,
            User::Open(text) => {
                messages.push(Message::text("user", text));
                End::Open
            }
            User::Closed(text) => {
                messages.push(Message::text("user", text));
                reply
            }
        };
        let tools: Vec<_> = config.tools.iter().map(declaration).collect();
        let mut prompt = self.lm.prompt(&messages, &tools, end).map_err(|error| error.to_string())?;
        if thinks {
            self.thoughts.open(&mut prompt);
        }
        Ok(prompt)
    }

    fn count(&self, text: &str) -> usize {
        self.lm.tokenizer().encode(text, false).len()
    }

    fn addressed(&self, sentence: &str) -> Result<(Vec<u32>, Choice), String> {
        let messages =
            [Message::text("system", addressed::INSTRUCTION), Message::text("user", addressed::question(sentence))];
        let prompt = self.lm.prompt(&messages, &[], End::Reply).map_err(|error| error.to_string())?;
        let first = |words: &[&str]| {
            let tokens = words.iter().filter_map(|word| self.lm.tokenizer().encode(word, false).first().copied());
            tokens.collect::<Vec<u32>>()
        };
        Ok((prompt, Choice { yes: first(&["Yes", "yes"]), no: first(&["No", "no"]) }))
    }

    fn after_thought(&self) -> (&[u32], Option<&str>) {
        (&self.thoughts.close, self.thoughts.mark)
    }

    fn think(&mut self, chunks: &mut [Chunk<'_, KvCache>]) -> Vec<Option<u32>> {
        let mut segments: Vec<Segment<'_>> = chunks
            .iter_mut()
            .map(|c| Segment { cache: c.memory, tokens: c.tokens, want_logits: c.draw.is_some() })
            .collect();
        self.lm.forward(&self.pool, &mut self.scratch, &mut segments);
        let mut drawn = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks.iter().enumerate() {
            drawn.push(chunk.draw.as_ref().map(|draw| {
                let params = params(draw.sampling);
                let context = sample::Context { seen: draw.reply, reply: draw.reply };
                let logits = self.scratch.logits(index);
                if let Some(choice) = draw.choice {
                    return choice.of(logits);
                }
                let position = draw.reply.len() as u64;
                if draw.functions && draw.reply.is_empty() {
                    for token in &self.call_openers {
                        logits[*token as usize] -= self.call_margin;
                    }
                }
                match draw.constraint {
                    None => sample::sample(&mut self.sampler, logits, &params, context, draw.seed, position),
                    Some((acceptor, pending)) => {
                        let fits = |token| fits(self.lm.tokenizer(), acceptor, pending, token);
                        constrained(&mut self.sampler, logits, &params, (draw.seed, position), fits)
                    }
                }
            }));
        }
        drawn
    }

    fn ends(&self, token: u32) -> bool {
        self.lm.end_of_turn().contains(&token)
    }

    fn text(&self, detokenizer: &mut lm::Decoder, token: u32) -> String {
        detokenizer.push(self.lm.tokenizer(), token)
    }

    fn pending<'d>(&self, detokenizer: &'d lm::Decoder) -> &'d [u8] {
        detokenizer.pending()
    }

    fn speak(&mut self, clause: &str, config: &SessionConfig, out: &mut Vec<f32>) -> Result<Spoken, String> {
        self.speech
            .synthesize(clause, &config.voice, config.speaking_rate, out)
            .map(|spoken| Spoken { words: spoken.words })
            .map_err(|error| error.to_string())
    }
}

/// Tokens with which a call can begin: bare, in a fence or in a tag.
fn call_openers(tokenizer: &lm::Tokenizer) -> Vec<u32> {
    let opens = |token: &u32| {
        let bytes = tokenizer.bytes(*token).trim_ascii_start();
        [&b"{"[..], b"```", b"<tool"].iter().any(|opener| bytes.starts_with(opener)) || bytes == b"<"
    };
    (0..tokenizer.len() as u32).filter(opens).collect()
}

/// Whether `token` goes on with what `acceptor` has read and `pending`.
pub(crate) fn fits(tokenizer: &lm::Tokenizer, acceptor: &Acceptor, pending: &[u8], token: u32) -> bool {
    match (tokenizer.bytes(token), pending) {
        ([], _) => false,
        (bytes, []) => acceptor.accepts(bytes),
        (bytes, pending) => acceptor.accepts(&[pending, bytes].concat()),
    }
}

/// Draws among the tokens that fit: what is drawn and does not is struck out and drawn again, which gives the same odds as
/// a mask over the vocabulary without looking at all of it. JSON repeats itself by nature, so nothing is penalised.
pub(crate) fn constrained(
    scratch: &mut sample::Scratch,
    logits: &mut [f32],
    params: &sample::Params,
    (seed, position): (u64, u64),
    fits: impl Fn(u32) -> bool,
) -> u32 {
    /// Draws before the whole vocabulary is looked at.
    const MAX_DRAWS: u64 = 24;
    let params = sample::Params { repetition: 1.0, presence: 0.0, frequency: 0.0, ..*params };
    let mut draw = |logits: &mut [f32], again: u64| {
        let seed = seed ^ again.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        sample::sample(scratch, logits, &params, sample::Context::default(), seed, position)
    };
    for again in 0..MAX_DRAWS {
        let token = draw(logits, again);
        if fits(token) {
            return token;
        }
        logits[token as usize] = f32::NEG_INFINITY;
    }
    for (token, logit) in (0..).zip(logits.iter_mut()) {
        if *logit > f32::NEG_INFINITY && !fits(token) {
            *logit = f32::NEG_INFINITY;
        }
    }
    draw(logits, MAX_DRAWS)
}

/// A little against loops: greedy decoding of a small model repeats itself now and then.
const DEFAULT_REPETITION_PENALTY: f32 = 1.05;

/// What is not asked for is greedy: the likeliest answer is the one most often right.
fn params(sampling: &Sampling) -> sample::Params {
    let default = sample::Params::default();
    sample::Params {
        temperature: sampling.temperature.unwrap_or(default.temperature),
        top_k: sampling.top_k.map_or(default.top_k, |k| k as usize),
        top_p: sampling.top_p.unwrap_or(default.top_p),
        min_p: sampling.min_p.unwrap_or(default.min_p),
        repetition: sampling.repetition_penalty.unwrap_or(DEFAULT_REPETITION_PENALTY),
        presence: sampling.presence_penalty.unwrap_or(default.presence),
        frequency: sampling.frequency_penalty.unwrap_or(default.frequency),
    }
}

/// Follows every result. Without it the default model writes its call once more instead of an answer.
const AFTER_RESULT: &str = "\nAnswer the question in words.";

/// An item as chat templates know it.
fn message(item: &Item) -> Message {
    let role = match item.role {
        Role::User => "user",
        Role::Model => "assistant",
        Role::Tool => "tool",
    };
    let mut message = Message::text(role, "");
    for content in &item.content {
        match content {
            Content::Text(text) => message.content.push_str(text),
            // This engine does not see.
            Content::Picture(_) => {}
            Content::ToolCall(call) => {
                let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!(call.arguments));
                message.tool_calls.push(lm::ToolCall::new(&call.id, &call.name, arguments));
            }
            Content::ToolResult { call, name, value } => {
                message.content.push_str(value);
                message.content.push_str(AFTER_RESULT);
                message.name = Some(name.clone());
                message.tool_call_id = Some(call.clone());
            }
        }
    }
    message
}

/// A function declaration as chat templates know it.
pub(crate) fn declaration(tool: &ToolDeclaration) -> serde_json::Value {
    let parameters = serde_json::from_str(&tool.parameters).unwrap_or_else(|_| json!({"type": "object"}));
    json!({
        "type": "function",
        "function": { "name": tool.name, "description": tool.description, "parameters": parameters },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::model;

    #[test]
    fn calls_begin_with_braces_fences_and_tags_and_words_do_not() {
        let Some(path) = model(DEFAULT_LM) else { return };
        let lm = Lm::load(&Pool::new(1), &path).unwrap();
        let tokenizer = lm.tokenizer();
        let openers = call_openers(tokenizer);
        let first = |text: &str| tokenizer.encode(text, true)[0];
        for call in ["{\"name\": \"f\"}", "```json\n{}", "<tool_call>\n{}"] {
            assert!(openers.contains(&first(call)), "{call}");
        }
        for words in ["It is noon.", "\"Romeo\" was written", "3 + 4 = 7", "- one"] {
            assert!(!openers.contains(&first(words)), "{words}");
        }
    }
}
