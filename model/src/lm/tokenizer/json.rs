//! The vocabulary of a `tokenizer.json`, as Hugging Face publishes it: byte-level pairs with the pattern of Qwen.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::bpe::{self, Bpe};
use super::pattern::Pattern;
use super::{Scheme, Special, Tokenizer, kind};
use crate::lm::LmError;

/// Ids that a file may have at most.
const MOST_TOKENS: u64 = 1 << 24;

impl Tokenizer {
    /// Reads a `tokenizer.json`. Ids that it leaves out are control tokens without text.
    ///
    /// # Errors
    /// [`LmError::Malformed`], naming the field.
    pub fn read_json(path: &Path) -> Result<Self, LmError> {
        let wrong = |field: &str, problem: String| LmError::malformed(path, field, problem);
        let text = std::fs::read_to_string(path).map_err(|e| wrong("", e.to_string()))?;
        let file: Value = serde_json::from_str(&text).map_err(|e| wrong("", e.to_string()))?;
        let model = &file["model"];
        if model["type"].as_str() != Some("BPE") {
            return Err(wrong("model.type", format!("is {}; supported is BPE", model["type"])));
        }
        let vocabulary = model["vocab"].as_object().ok_or_else(|| wrong("model.vocab", "is missing".into()))?;
        let mut tokens: Vec<(String, i32)> = Vec::new();
        let mut put = |field: &str, id: &Value, text: &str, kind: i32| {
            let id = id.as_u64().filter(|id| *id < MOST_TOKENS);
            let id = id.ok_or_else(|| wrong(field, format!("{text:?} has no id")))? as usize;
            if tokens.len() <= id {
                tokens.resize(id + 1, (String::new(), kind::CONTROL));
            }
            tokens[id] = (text.to_owned(), kind);
            Ok(())
        };
        for (text, id) in vocabulary {
            put("model.vocab", id, text, 1)?;
        }
        for added in file["added_tokens"].as_array().into_iter().flatten() {
            let text = added["content"].as_str().unwrap_or_default();
            let special = added["special"].as_bool().unwrap_or(false);
            put("added_tokens", &added["id"], text, if special { kind::CONTROL } else { kind::USER_DEFINED })?;
        }
        let merge = |merge: &Value| match merge {
            Value::String(pair) => Some(pair.clone()),
            pair => Some(format!("{} {}", pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)),
        };
        let merges = model["merges"].as_array().ok_or_else(|| wrong("model.merges", "is missing".into()))?;
        let merges: Option<Vec<String>> = merges.iter().map(merge).collect();
        let merges = merges.ok_or_else(|| wrong("model.merges", "has an entry that is not a pair".into()))?;
        let merges: Vec<&[u8]> = merges.iter().map(String::as_bytes).collect();
        let texts: Vec<&[u8]> = tokens.iter().map(|(text, _)| text.as_bytes()).collect();
        let pattern = Pattern::named("qwen2").ok_or_else(|| wrong("pre_tokenizer", Pattern::supported()))?;
        let bpe = Bpe::new(&texts, &merges, false).map_err(|(field, problem)| wrong(field, problem))?;
        let mut tokenizer = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            control: Vec::new(),
            special: HashMap::new(),
            scheme: Scheme::ByteLevel { pattern, bpe },
            bos: None,
            eos: None,
        };
        for (id, (text, kind)) in tokens.iter().enumerate() {
            tokenizer.add(id as u32, text.as_bytes(), *kind);
        }
        for special in tokenizer.special.values_mut() {
            special.sort_by_key(|s| std::cmp::Reverse(s.text.len()));
        }
        Ok(tokenizer)
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
