//! The vocabulary of a checkpoint as Hugging Face publishes it: byte-level pairs with the pattern of Qwen, in one
//! `tokenizer.json` or in the files that came before it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::bpe::{self, Bpe};
use super::pattern::Pattern;
use super::{Scheme, Special, Tokenizer, kind};
use crate::lm::LmError;

/// Ids that a file may have at most.
const MOST_TOKENS: u64 = 1 << 24;

impl Tokenizer {
    /// Reads the vocabulary of a folder: `tokenizer.json`; or `vocab.json` and `merges.txt`, with the tokens that
    /// `tokenizer_config.json` adds. Ids that are left out are control tokens without text.
    ///
    /// # Errors
    /// [`LmError::Malformed`], naming file and field.
    pub fn read_folder(dir: &Path) -> Result<Self, LmError> {
        let (whole, words) = (dir.join("tokenizer.json"), dir.join("vocab.json"));
        if whole.exists() || !words.exists() {
            let file = read(&whole)?;
            let model = &file["model"];
            if model["type"].as_str() != Some("BPE") {
                let problem = format!("is {}; supported is BPE", model["type"]);
                return Err(LmError::malformed(&whole, "model.type", problem));
            }
            let mut tokens = Tokens::new(whole);
            tokens.words("model.vocab", &model["vocab"])?;
            for added in file["added_tokens"].as_array().into_iter().flatten() {
                tokens.added("added_tokens", added["id"].as_u64(), added)?;
            }
            let merges = tokens.pairs("model.merges", &model["merges"])?;
            return tokens.tokenizer(&merges);
        }
        let mut tokens = Tokens::new(words);
        tokens.words("", &read(&tokens.path)?)?;
        tokens.path = dir.join("tokenizer_config.json");
        let config = read(&tokens.path)?;
        for (id, added) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
            tokens.added("added_tokens_decoder", id.parse().ok(), added)?;
        }
        tokens.path = dir.join("merges.txt");
        let merges = text(&tokens.path)?;
        let merge = |(number, line): (usize, &str)| {
            let version = number == 0 && line.starts_with("#version");
            (!version && !line.is_empty()).then(|| line.to_owned())
        };
        let merges: Vec<String> = merges.lines().enumerate().filter_map(merge).collect();
        tokens.tokenizer(&merges)
    }

    fn add(&mut self, id: u32, text: &[u8], kind: i32) {
        let control = kind == kind::CONTROL;
        let special = control || kind == kind::USER_DEFINED;
        if special && let Some(first) = text.first() {
            self.bytes.extend_from_slice(text);
            self.special.entry(*first).or_default().push(Special { text: text.to_vec(), id, control });
        } else {
            bpe::to_bytes(text, &mut self.bytes);
        }
        self.ends.push(self.bytes.len() as u32);
        self.control.push(control);
    }
}

fn text(path: &Path) -> Result<String, LmError> {
    std::fs::read_to_string(path).map_err(|e| LmError::malformed(path, "", e.to_string()))
}

fn read(path: &Path) -> Result<Value, LmError> {
    serde_json::from_str(&text(path)?).map_err(|e| LmError::malformed(path, "", e.to_string()))
}

/// Tokens by their ids, each with its text and kind.
struct Tokens {
    /// The file that is being read.
    path: PathBuf,
    all: Vec<(String, i32)>,
}

impl Tokens {
    fn new(path: PathBuf) -> Self {
        Self { path, all: Vec::new() }
    }

    fn wrong(&self, field: &str, problem: impl Into<String>) -> LmError {
        LmError::malformed(&self.path, field, problem)
    }

    fn put(&mut self, field: &str, id: Option<u64>, text: &str, kind: i32) -> Result<(), LmError> {
        let id = id.filter(|id| *id < MOST_TOKENS).ok_or_else(|| self.wrong(field, format!("{text:?} has no id")))?;
        let id = id as usize;
        if self.all.len() <= id {
            self.all.resize(id + 1, (String::new(), kind::CONTROL));
        }
        self.all[id] = (text.to_owned(), kind);
        Ok(())
    }

    /// Ids by texts.
    fn words(&mut self, field: &str, words: &Value) -> Result<(), LmError> {
        let words = words.as_object().ok_or_else(|| self.wrong(field, "is not an object"))?;
        words.iter().try_for_each(|(text, id)| self.put(field, id.as_u64(), text, 1))
    }

    fn added(&mut self, field: &str, id: Option<u64>, added: &Value) -> Result<(), LmError> {
        let special = added["special"].as_bool().unwrap_or(false);
        let kind = if special { kind::CONTROL } else { kind::USER_DEFINED };
        self.put(field, id, added["content"].as_str().unwrap_or_default(), kind)
    }

    /// Pairs that are text with a blank between, or lists of two.
    fn pairs(&self, field: &str, merges: &Value) -> Result<Vec<String>, LmError> {
        let merge = |merge: &Value| match merge {
            Value::String(pair) => Some(pair.clone()),
            pair => Some(format!("{} {}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
        };
        let merges = merges.as_array().ok_or_else(|| self.wrong(field, "is missing"))?;
        let merges: Option<Vec<String>> = merges.iter().map(merge).collect();
        merges.ok_or_else(|| self.wrong(field, "has an entry that is not a pair"))
    }

    /// With `merges`, the likeliest first.
    fn tokenizer(self, merges: &[String]) -> Result<Tokenizer, LmError> {
        let merges: Vec<&[u8]> = merges.iter().map(String::as_bytes).collect();
        let texts: Vec<&[u8]> = self.all.iter().map(|(text, _)| text.as_bytes()).collect();
        let pattern = Pattern::named("qwen2").ok_or_else(|| self.wrong("pre_tokenizer", Pattern::supported()))?;
        let bpe = Bpe::new(&texts, &merges, false).map_err(|(field, problem)| self.wrong(field, problem))?;
        let mut tokenizer = Tokenizer {
            bytes: Vec::new(),
            ends: Vec::new(),
            control: Vec::new(),
            special: HashMap::new(),
            scheme: Scheme::ByteLevel { pattern, bpe },
            bos: None,
            eos: None,
        };
        for (id, (text, kind)) in self.all.iter().enumerate() {
            tokenizer.add(id as u32, text.as_bytes(), *kind);
        }
        for special in tokenizer.special.values_mut() {
            special.sort_by_key(|s| std::cmp::Reverse(s.text.len()));
        }
        Ok(tokenizer)
    }
}
