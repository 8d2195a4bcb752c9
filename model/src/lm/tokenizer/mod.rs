//! Text to tokens and back, from the vocabulary inside a GGUF file.
//!
//! Two schemes, behind special tokens, which are cut out before: byte-level byte-pair encoding (that of GPT-2), where text is
//! cut into pieces by a pattern and the bytes of a piece are joined pair by pair in the order of the merges; and that of
//! SentencePiece, where characters are joined by the scores of the tokens they become ([`spm`]).

mod bpe;
mod decode;
mod json;
mod pattern;
mod spm;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use decode::Decoder;

use self::bpe::{Bpe, Scratch};
use self::pattern::Pattern;
use self::spm::Spm;
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
    scheme: Scheme,
    /// Put in front of every prompt.
    bos: Option<u32>,
    eos: Option<u32>,
}

enum Scheme {
    ByteLevel { pattern: Pattern, bpe: Bpe },
    SentencePiece(Spm),
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
    pub(super) const BYTE: i32 = 6;
}

impl Tokenizer {
    /// Reads the vocabulary of a model.
    pub(super) fn read(file: &Gguf) -> Result<Self, LmError> {
        let texts = file.texts("tokenizer.ggml.tokens")?;
        let texts = texts.ok_or_else(|| file.malformed("tokenizer.ggml.tokens", "is missing"))?;
        if texts.is_empty() || texts.len() > 1 << 24 {
            return Err(file.malformed("tokenizer.ggml.tokens", format!("has {} entries", texts.len())));
        }
        let kinds = file.integers("tokenizer.ggml.token_type")?.unwrap_or_default();
        let kind = |id: usize| kinds.get(id).copied().unwrap_or(1);
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(texts.len());
        let mut control = Vec::with_capacity(texts.len());
        let mut special: HashMap<u8, Vec<Special>> = HashMap::new();
        let (scheme, adds_bos) = Self::scheme(file, &texts, &kind, |id, meaning| {
            let is_control = matches!(kind(id), kind::UNKNOWN | kind::CONTROL);
            if (is_control || kind(id) == kind::USER_DEFINED)
                && let Some(first) = texts[id].first()
            {
                bytes.extend_from_slice(texts[id]);
                let text = texts[id].to_vec();
                special.entry(*first).or_default().push(Special { text, id: id as u32, control: is_control });
            } else {
                bytes.extend_from_slice(meaning);
            }
            ends.push(bytes.len() as u32);
            control.push(is_control);
        })?;
        for special in special.values_mut() {
            special.sort_by_key(|s| std::cmp::Reverse(s.text.len()));
        }
        let token = |key: &str| match file.size(key)? {
            Some(id) if id >= texts.len() => Err(file.malformed(key, format!("is {id} of {} tokens", texts.len()))),
            id => Ok(id.map(|id| id as u32)),
        };
        let bos = token("tokenizer.ggml.bos_token_id")?;
        let add_bos = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
        let eos = token("tokenizer.ggml.eos_token_id")?;
        Ok(Self { bytes, ends, control, special, scheme, bos: bos.filter(|_| add_bos), eos })
    }

    /// Reads the scheme, and whether its prompts begin with a token of their own by default. `add` takes every token in
    /// turn: its number, and the bytes it stands for if it is not special.
    fn scheme(
        file: &Gguf,
        texts: &[&[u8]],
        kind: &dyn Fn(usize) -> i32,
        mut add: impl FnMut(usize, &[u8]),
    ) -> Result<(Scheme, bool), LmError> {
        match file.required_text("tokenizer.ggml.model")? {
            "gpt2" => {
                let merges = file.texts("tokenizer.ggml.merges")?;
                let merges = merges.ok_or_else(|| file.malformed("tokenizer.ggml.merges", "is missing"))?;
                let pre = file.text("tokenizer.ggml.pre")?.unwrap_or("default");
                let pattern = Pattern::named(pre).ok_or_else(|| {
                    file.malformed("tokenizer.ggml.pre", format!("is `{pre}`; {}", Pattern::supported()))
                })?;
                let bpe = Bpe::new(texts, &merges, pattern.whole_pieces_first())
                    .map_err(|(field, problem)| file.malformed(field, problem))?;
                let mut meaning = Vec::new();
                for (id, text) in texts.iter().enumerate() {
                    meaning.clear();
                    bpe::to_bytes(text, &mut meaning);
                    add(id, &meaning);
                }
                let adds_bos = pattern.adds_bos();
                Ok((Scheme::ByteLevel { pattern, bpe }, adds_bos))
            }
            "llama" => {
                let scores = file.floats("tokenizer.ggml.scores")?;
                let scores = scores.filter(|scores| scores.len() == texts.len()).ok_or_else(|| {
                    file.malformed(
                        "tokenizer.ggml.scores",
                        format!("has not one score for each of {} tokens", texts.len()),
                    )
                })?;
                let mut spm = Spm::new(file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true));
                for (id, (text, score)) in texts.iter().zip(scores).enumerate() {
                    let meaning = spm.add(text, score, kind(id) == kind::BYTE);
                    add(id, &meaning);
                }
                match spm.known_bytes() {
                    256 => Ok((Scheme::SentencePiece(spm), true)),
                    known => {
                        let problem = format!("has tokens for only {known} of 256 bytes");
                        Err(file.malformed("tokenizer.ggml.tokens", problem))
                    }
                }
            }
            other => {
                let problem = format!("is `{other}`; supported are gpt2 and llama");
                Err(file.malformed("tokenizer.ggml.model", problem))
            }
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
    pub(crate) fn text_of(&self, token: u32) -> String {
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
        let bare;
        let text = if text.contains(GUARD) {
            bare = text.replace(GUARD, "");
            &bare
        } else {
            text
        };
        match &self.scheme {
            Scheme::ByteLevel { pattern, bpe } => {
                pattern.split(text, &mut |piece| bpe.encode(piece.as_bytes(), scratch, tokens));
            }
            Scheme::SentencePiece(spm) => spm.encode(text, tokens),
        }
    }
}
