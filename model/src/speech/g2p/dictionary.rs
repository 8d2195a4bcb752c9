//! Pronunciations of words as they are written.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::table::{self, Table};
use crate::onnx::OnnxError;

/// A dictionary of readings. A lower-case key also answers to its capitalised form and the other way round, unless
/// that form has an entry of its own.
pub(crate) struct Dictionary {
    words: Table<Reading<(u32, u32)>>,
    /// All readings one after another.
    text: String,
}

/// How a word is said.
pub(crate) enum Reading<T> {
    /// Always so.
    One(T),
    /// By tag, with `DEFAULT` for the others; `None` means that the letters are spelled.
    ByTag(Vec<(String, Option<T>)>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    One(String),
    ByTag(BTreeMap<String, Option<String>>),
}

impl Dictionary {
    pub(crate) fn load(path: &Path) -> Result<Self, OnnxError> {
        let mut text = String::new();
        let mut keep = |reading: String| {
            let from = text.len() as u32;
            text.push_str(&reading);
            (from, text.len() as u32)
        };
        let words = table::table(path, |row: Row| match row {
            Row::One(reading) => Reading::One(keep(reading)),
            Row::ByTag(map) => Reading::ByTag(map.into_iter().map(|(tag, r)| (tag, r.map(&mut keep))).collect()),
        })?;
        Ok(Self { words, text })
    }

    pub(crate) fn contains(&self, word: &str) -> bool {
        self.find(word).is_some()
    }

    /// The reading of `word` for the first of `tags` that it distinguishes, else its default one. The outer `None` is
    /// an unknown word.
    pub(crate) fn get(&self, word: &str, tags: &[&str]) -> Option<Option<&str>> {
        let text = |&(from, to): &(u32, u32)| &self.text[from as usize..to as usize];
        match self.find(word)? {
            Reading::One(reading) => Some(Some(text(reading))),
            Reading::ByTag(readings) => {
                let of = |tag: &str| readings.iter().find(|(t, _)| t == tag).map(|(_, r)| r.as_ref().map(text));
                Some(tags.iter().find_map(|tag| of(tag)).or_else(|| of("DEFAULT")).flatten())
            }
        }
    }

    fn find(&self, word: &str) -> Option<&Reading<(u32, u32)>> {
        if let Some(found) = self.words.get(word) {
            return Some(found);
        }
        let mut chars = word.chars();
        let first = chars.next()?;
        let rest = chars.as_str();
        if rest.is_empty() || rest.chars().any(char::is_uppercase) {
            return None;
        }
        let other: String = if first.is_uppercase() {
            first.to_lowercase().chain(rest.chars()).collect()
        } else {
            first.to_uppercase().chain(rest.chars()).collect()
        };
        if other == word { None } else { self.words.get(&other) }
    }
}
