//! Part-of-speech tags (Penn Treebank) by an averaged perceptron.
//!
//! They choose between readings of "read", "live" or "record" and steer the function words. A word with one dominant
//! tag is answered from a dictionary; for the others the weights of the features that are present are summed.

use std::path::Path;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};

use super::table::{Table, json_text, rows};
use crate::onnx::OnnxError;

/// A tag's place in [`Tagger::tags`].
type Tag = u8;

/// The tagger's tables.
#[derive(Default)]
pub(crate) struct Tagger {
    /// Sorted, so that of two equal scores the later tag wins as in training.
    tags: Vec<String>,
    certain: Table<Tag>,
    vocabulary: Table<()>,
    /// Feature to its part of `weights`.
    features: Table<(u32, u32)>,
    /// Tenths, which all released weights are whole numbers of.
    weights: Vec<(Tag, i32)>,
}

impl Tagger {
    pub(crate) fn load(path: &Path) -> Result<Self, OnnxError> {
        let text = json_text(path)?;
        let mut json = serde_json::Deserializer::from_str(&text);
        let malformed = |reason: String| OnnxError::Malformed { path: path.into(), reason };
        let tagger = json.deserialize_map(Parts).map_err(|e| malformed(e.to_string()))?;
        if tagger.tags.is_empty() || tagger.features.len() == 0 {
            return Err(malformed("it has no tags or no weights".into()));
        }
        Ok(tagger)
    }

    /// One tag for each word of a sentence.
    pub(crate) fn tag(&self, words: &[&str]) -> Vec<&str> {
        const START: [&str; 2] = ["-START2-", "-START-"];
        const END: [&str; 2] = ["-END-", "-END2-"];
        let mut context: Vec<String> = START.map(String::from).into();
        context.extend(words.iter().map(|w| self.known_form(w)));
        context.extend(END.map(String::from));
        let mut tags: Vec<&str> = Vec::with_capacity(words.len());
        for (i, word) in words.iter().enumerate() {
            let before = |n: usize| if i >= n { tags[i - n] } else { START[2 - n] };
            let tag = match self.certain.get(word) {
                Some(&tag) => &self.tags[usize::from(tag)],
                None => self.predict(i, word, &context[i..i + 5], before(1), before(2)),
            };
            tags.push(tag);
        }
        tags
    }

    /// `around` is the normalised words from two before to two after.
    fn predict(&self, i: usize, word: &str, around: &[String], before: &str, before_that: &str) -> &str {
        let mut scores = vec![0i32; self.tags.len()];
        let mut any = false;
        let mut feature = |key: &str| {
            let Some(&(from, to)) = self.features.get(key) else { return };
            for &(tag, weight) in &self.weights[from as usize..to as usize] {
                scores[usize::from(tag)] += weight;
                any = true;
            }
        };
        feature("b");
        feature(&format!("s3={}", suffix(word)));
        feature(&format!("p1={}", word.chars().next().unwrap_or(' ')));
        feature(&format!("w={}", around[2]));
        feature(&format!("sh={}", shape(word)));
        feature(if i == 0 { "i0" } else { "i+" });
        feature(&format!("t-1={before}"));
        feature(&format!("t-2={before_that}"));
        feature(&format!("t-12={before},{before_that}"));
        feature(&format!("w-1={}", around[1]));
        feature(&format!("s3-1={}", suffix(&around[1])));
        feature(&format!("w-2={}", around[0]));
        feature(&format!("w+1={}", around[3]));
        feature(&format!("s3+1={}", suffix(&around[3])));
        feature(&format!("w+2={}", around[4]));
        if !any {
            return "NN";
        }
        let best = (0..scores.len()).max_by_key(|&t| (scores[t], t)).unwrap_or(0);
        &self.tags[best]
    }

    /// The word as the features know it: lower case, or its shape if it is rare.
    fn known_form(&self, word: &str) -> String {
        let form = if word.contains('-') && !word.starts_with('-') {
            "!HYPHEN".into()
        } else if word.starts_with(|c: char| c.is_numeric()) {
            if word.len() == 4 && word.bytes().all(|b| b.is_ascii_digit()) { "!YEAR".into() } else { "!DIGITS".into() }
        } else {
            word.to_lowercase()
        };
        if self.vocabulary.get(&form).is_some() { form } else { format!("<{}>", shape(word)) }
    }
}

fn suffix(word: &str) -> &str {
    let start = word.char_indices().rev().nth(2).map_or(0, |(i, _)| i);
    &word[start..]
}

fn shape(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next();
    if word.chars().all(char::is_alphabetic) {
        let lower = |c: char| !c.is_uppercase();
        if word.chars().all(lower) {
            "x"
        } else if word.chars().all(char::is_uppercase) {
            if word.chars().nth(1).is_some() { "XX" } else { "X1" }
        } else if first.is_some_and(char::is_uppercase) && chars.all(lower) {
            "Xx"
        } else {
            "xX"
        }
        .into()
    } else if word.chars().all(char::is_numeric) {
        "d".into()
    } else {
        let class = |c: char| {
            if c.is_numeric() {
                'd'
            } else if c.is_alphabetic() {
                'x'
            } else {
                c
            }
        };
        word.chars().take(4).map(class).collect()
    }
}

/// Reads the tagger's file: its tags come first, the other parts refer to them.
struct Parts;

impl<'de> Visitor<'de> for Parts {
    type Value = Tagger;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with tags, tagdict, vocab and weights")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut tagger = Tagger::default();
        let place = |tags: &[String], tag: &str| tags.binary_search_by(|t| t.as_str().cmp(tag)).ok().map(|i| i as Tag);
        while let Some(part) = map.next_key::<String>()? {
            match part.as_str() {
                "tags" => {
                    tagger.tags = map.next_value()?;
                    tagger.tags.truncate(usize::from(Tag::MAX));
                    tagger.tags.sort();
                }
                "tagdict" => {
                    let tags = &tagger.tags;
                    tagger.certain = map.next_value_seed(rows(|t: String| place(tags, &t).unwrap_or(0)))?;
                }
                "vocab" => {
                    let words: Vec<String> = map.next_value()?;
                    tagger.vocabulary = words.into_iter().map(|w| (w, ())).collect();
                }
                "weights" => {
                    let (tags, weights) = (&tagger.tags, &mut tagger.weights);
                    tagger.features = map.next_value_seed(rows(|row: std::collections::HashMap<String, f64>| {
                        let from = weights.len() as u32;
                        let known = row.iter().filter_map(|(t, w)| Some((place(tags, t)?, (w * 10.0).round() as i32)));
                        weights.extend(known);
                        (from, weights.len() as u32)
                    }))?;
                }
                _ => {
                    map.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(tagger)
    }
}
