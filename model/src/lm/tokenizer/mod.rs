//! Text to tokens and back, from the vocabulary inside a GGUF file.
//!
//! Byte-level byte-pair encoding (the scheme of GPT-2): text is cut into pieces by a pattern, the bytes of a piece are
//! joined pair by pair in the order of the merges. Special tokens are cut out before.

mod bpe;
mod decode;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use decode::Decoder;

use self::bpe::{Bpe, Scratch};
use self::pattern::Pattern;
use super::LmError;
use super::gguf::Gguf;

/// Stands inside a special token's text where it must not be read as that token; see [`Tokenizer::guard`]. A noncharacter,
/// which Unicode sets aside for use inside a program.
const GUARD: char = '\u{FDD0}';

/// A vocabulary and the rules to use it.
pub struct Tokenizer {
    /// Bytes of all tokens, one after another, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Control tokens are no text.
    control: Vec<bool>,
    /// Special tokens with their text and whether they are control tokens, longest first, by their first byte.
    special: HashMap<u8, Vec<Special>>,
    pattern: Pattern,
    bpe: Bpe,
    /// Put in front of every prompt.
    bos: Option<u32>,
    eos: Option<u32>,
}

struct Special {
    text: Vec<u8>,
    id: u32,
    control: bool,
}

/// Token types of GGUF files.
mod kind {
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
}

impl Tokenizer {
    /// Reads the vocabulary of a model.
    pub(super) fn read(file: &Gguf) -> Result<Self, LmError> {
        let model = file.required_text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return Err(file.malformed("tokenizer.ggml.model", format!("is `{model}`; supported is gpt2")));
        }
        let list = |key: &str| file.texts(key)?.ok_or_else(|| file.malformed(key, "is missing"));
        let texts = list("tokenizer.ggml.tokens")?;
        let merges = list("tokenizer.ggml.merges")?;
        let kinds = file.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        let pre = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
        let pattern = Pattern::named(pre)
            .ok_or_else(|| file.malformed("tokenizer.ggml.pre", format!("is `{pre}`; {}", Pattern::supported())))?;
        if texts.is_empty() || texts.len() > 1 << 24 {
            return Err(file.malformed("tokenizer.ggml.tokens", format!("has {} entries", texts.len())));
        }
        let token = |key: &str| match file.size(key)? {
            Some(id) if id >= texts.len() => Err(file.malformed(key, format!("is {id} of {} tokens", texts.len()))),
            id => Ok(id.map(|id| id as u32)),
        };
        let bos = token("tokenizer.ggml.bos_token_id")?;
        let add_bos = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pattern.adds_bos());
        let eos = token("tokenizer.ggml.eos_token_id")?;
        let bpe = Bpe::new(&texts, &merges, pattern.whole_pieces_first())
            .map_err(|(field, problem)| file.malformed(field, problem))?;
        let mut tokenizer = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(texts.len()),
            control: Vec::with_capacity(texts.len()),
            special: HashMap::new(),
            pattern,
            bpe,
            bos: bos.filter(|_| add_bos),
            eos,
        };
        for (id, text) in texts.iter().enumerate() {
            tokenizer.add(id as u32, text, kinds.get(id).copied().unwrap_or(1));
        }
        for special in tokenizer.special.values_mut() {
            special.sort_by_key(|s| std::cmp::Reverse(s.text.len()));
        }
        Ok(tokenizer)
    }

    fn add(&mut self, id: u32, text: &[u8], kind: i32) {
        let special = matches!(kind, kind::UNKNOWN | kind::CONTROL | kind::USER_DEFINED);
        let control = matches!(kind, kind::UNKNOWN | kind::CONTROL);
        if special {
            self.bytes.extend_from_slice(text);
        } else {
            bpe::to_bytes(text, &mut self.bytes);
        }
        self.ends.push(self.bytes.len() as u32);
        self.control.push(control);
        if special && let Some(first) = text.first() {
            self.special.entry(*first).or_default().push(Special { text: text.to_vec(), id, control });
        }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The token that stands in front of every prompt, if the model wants one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a reply, as the file names it.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The special token with this text.
    pub fn special(&self, text: &str) -> Option<u32> {
        let candidates = self.special.get(text.as_bytes().first()?)?;
        candidates.iter().find(|s| s.text == text.as_bytes()).map(|s| s.id)
    }

    /// The bytes that a token stands for; none for a control token or one that does not exist.
    pub fn bytes(&self, token: u32) -> &[u8] {
        let i = token as usize;
        if self.control.get(i).copied().unwrap_or(true) { &[] } else { self.raw(i) }
    }

    /// A token's text, control tokens included.
    pub(super) fn text_of(&self, token: u32) -> String {
        String::from_utf8_lossy(self.raw(token as usize)).into_owned()
    }

    fn raw(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }

    /// The text of tokens, incomplete characters replaced.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let mut decoder = Decoder::default();
        let mut text: String = tokens.iter().map(|&token| decoder.push(self, token)).collect();
        text.push_str(&decoder.flush());
        text
    }

    /// Tokens of a text, without one in front. Control tokens are recognised in it only if `parse_special`, which is for
    /// templates: what people say is never more than text.
    pub fn encode(&self, text: &str, parse_special: bool) -> Vec<u32> {
        let mut tokens = Vec::with_capacity(text.len() / 4 + 1);
        let mut scratch = Scratch::default();
        let bytes = text.as_bytes();
        let (mut start, mut at) = (0, 0);
        while at < bytes.len() {
            match self.special_at(&bytes[at..], parse_special) {
                Some(special) => {
                    self.encode_text(&text[start..at], &mut scratch, &mut tokens);
                    tokens.push(special.id);
                    at += special.text.len();
                    start = at;
                }
                None => at += 1,
            }
        }
        self.encode_text(&text[start..], &mut scratch, &mut tokens);
        tokens
    }

    /// Changes a text so that no special token is recognised in it, even among a template's words. [`Tokenizer::encode`]
    /// removes what was added.
    pub fn guard(&self, text: &str) -> String {
        let mut guarded = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            if c == GUARD {
                continue;
            }
            guarded.push(c);
            if self.special_at(&text.as_bytes()[at..], true).is_some() {
                guarded.push(GUARD);
            }
        }
        guarded
    }

    /// The longest special token that a text begins with. Its text is valid UTF-8 if it matches.
    fn special_at(&self, text: &[u8], control: bool) -> Option<&Special> {
        let candidates = self.special.get(text.first()?)?;
        candidates.iter().find(|s| (control || !s.control) && text.starts_with(&s.text))
    }

    fn encode_text(&self, text: &str, scratch: &mut Scratch, tokens: &mut Vec<u32>) {
        if text.contains(GUARD) {
            let bare = text.replace(GUARD, "");
            self.pattern.split(&bare, &mut |piece| self.bpe.encode(piece.as_bytes(), scratch, tokens));
        } else {
            self.pattern.split(text, &mut |piece| self.bpe.encode(piece.as_bytes(), scratch, tokens));
        }
    }
}
