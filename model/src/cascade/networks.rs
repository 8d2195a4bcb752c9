//! What the cascade needs of its networks. The real ones are in [`super::real`]; tests of the engine's logic bring
//! small deterministic ones of their own.

use causerie_model_api::{Capabilities, Item, Sampling, SessionConfig};

use super::addressed::Choice;
use crate::tools::Acceptor;

/// A recogniser, a language model and a voice.
pub(super) trait Networks: Send {
    /// A transcription in progress.
    type Hearing: Send;
    /// What the language model remembers of one conversation: a cache of tokens.
    type Memory: Memory;
    /// Turns tokens into text, holding back incomplete characters.
    type Detokenizer: Send + Default;

    /// What the cascade can do with these networks.
    fn capabilities(&self) -> &Capabilities;

    /// Begins to transcribe mono 16 kHz samples. `draft` is the tokens of an earlier transcript of the beginning of the
    /// same samples; it may save time and does not change the result.
    fn hear(&mut self, pcm: &[f32], language: Option<&str>, draft: &[u32]) -> Self::Hearing;
    /// One quantum of transcription; the transcript when it is complete.
    fn hear_step(&mut self, hearing: &mut Self::Hearing) -> Option<Heard>;

    /// An empty memory.
    fn memory(&self) -> Self::Memory;
    /// The whole prompt: instruction, tools, history and what the user says now. With `thinks` it ends where a thought
    /// begins.
    fn prompt(
        &self,
        config: &SessionConfig,
        history: &[Item],
        user: User<'_>,
        thinks: bool,
    ) -> Result<Vec<u32>, String>;
    /// How many tokens a text has.
    fn count(&self, text: &str) -> usize;
    /// The prompt that asks whether a sentence is meant for the model, and what may answer it.
    fn addressed(&self, sentence: &str) -> Result<(Vec<u32>, Choice), String>;
    /// What stands between a thought and the reply, and whether the model writes its beginning when it has done
    /// thinking (as text).
    fn after_thought(&self) -> (&[u32], Option<&str>);
    /// Runs the tokens of every chunk through the language model, in one pass, and draws a token for those that ask.
    fn think(&mut self, chunks: &mut [Chunk<'_, Self::Memory>]) -> Vec<Option<u32>>;
    /// Whether a token ends the reply.
    fn ends(&self, token: u32) -> bool;
    /// The text that `token` adds.
    fn text(&self, detokenizer: &mut Self::Detokenizer, token: u32) -> String;
    /// The bytes that the detokenizer holds back.
    fn pending<'d>(&self, detokenizer: &'d Self::Detokenizer) -> &'d [u8];

    /// Speaks one clause: appends samples at 24 kHz to `out`.
    fn speak(&mut self, clause: &str, config: &SessionConfig, out: &mut Vec<f32>) -> Result<Spoken, String>;
}

/// A cache of the tokens that a language model has seen in one conversation.
pub(super) trait Memory: Send {
    /// The tokens held.
    fn tokens(&self) -> &[u32];
    /// Forgets all but the first `len` tokens.
    fn truncate(&mut self, len: usize);
    /// Becomes a copy of the first `len` tokens of `other`.
    fn copy_prefix(&mut self, other: &Self, len: usize);

    /// How many of `tokens` are held already, from the start.
    fn common_prefix(&self, tokens: &[u32]) -> usize {
        self.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count()
    }
}

/// A finished transcription.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heard {
    /// Empty when nobody spoke.
    pub(super) text: String,
    /// BCP-47 primary tag, or empty.
    pub(super) language: String,
    /// For the next transcription of the same samples and more.
    pub(super) tokens: Vec<u32>,
}

/// Speech of one clause.
pub(super) struct Spoken {
    /// Word ends: bytes of the clause that have been said, and samples since its start. Both ascend.
    pub(super) words: Vec<(usize, usize)>,
}

/// What the user's side of a prompt is.
#[derive(Clone, Copy, Debug)]
pub(super) enum User<'a> {
    /// Nothing: the history ends with what is to be answered.
    Nothing,
    /// The beginning of what is being said: the prompt ends inside it.
    Open(&'a str),
    /// All of what was said: the prompt ends where the reply begins.
    Closed(&'a str),
}

/// Tokens for one conversation in a pass through the language model.
pub(super) struct Chunk<'a, M> {
    pub(super) memory: &'a mut M,
    pub(super) tokens: &'a [u32],
    pub(super) draw: Option<Draw<'a>>,
}

/// How the token after a chunk is drawn. Equal fields and equal logits give equal tokens.
pub(super) struct Draw<'a> {
    pub(super) sampling: &'a Sampling,
    pub(super) seed: u64,
    /// Tokens of the reply so far.
    pub(super) reply: &'a [u32],
    /// Whether functions are declared that the reply may call.
    pub(super) functions: bool,
    /// What the text may go on with, and the bytes of it that the detokenizer holds back.
    pub(super) constraint: Option<(&'a Acceptor, &'a [u8])>,
    /// The reply is one of these.
    pub(super) choice: Option<&'a Choice>,
}
