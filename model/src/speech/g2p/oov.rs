//! Words that no dictionary has: a small character network reads them.

use std::collections::HashMap;
use std::path::Path;

use rten::Value;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use serde::Deserialize;

use super::table;
use crate::onnx::{Network, OnnxError, Worker};

/// The network and its alphabets.
pub(crate) struct Oov {
    network: Network<1, 1>,
    letters: HashMap<char, i32>,
    /// Phoneme of identifier n + 1; 0 is blank.
    phonemes: Vec<String>,
    longest: usize,
}

#[derive(Deserialize)]
struct Alphabets {
    #[serde(rename = "in")]
    letters: Vec<char>,
    #[serde(rename = "out")]
    phonemes: Vec<String>,
    maxlen: usize,
}

impl Oov {
    pub(crate) fn load(dir: &Path, worker: &Worker) -> Result<Self, OnnxError> {
        let alphabets: Alphabets = table::json(&dir.join("oov.json"))?;
        let network = Network::load(&dir.join("oov.onnx"), worker, ["chars"], ["ids"])?;
        let letters = alphabets.letters.into_iter().zip(1..).collect();
        Ok(Self { network, letters, phonemes: alphabets.phonemes, longest: alphabets.maxlen })
    }

    /// The phonemes of `word`; empty if none of its letters is known. Letters past the network's longest word are
    /// not said.
    pub(crate) fn say(&self, word: &str) -> Result<String, OnnxError> {
        let ids: Vec<i32> = word.chars().filter_map(|c| self.letters.get(&c).copied()).take(self.longest).collect();
        if ids.is_empty() {
            return Ok(String::new());
        }
        let [output] = self.network.run([NdTensor::from_data([1, ids.len()], ids).into()])?;
        let Value::Int32Tensor(output) = output else {
            return Err(self.network.failed(&"its output is no identifiers"));
        };
        // Connectionist temporal classification: repeats collapse, blanks go.
        let mut said = String::new();
        let mut last = 0;
        for &id in output.iter() {
            if id != last && id > 0 {
                said.extend(self.phonemes.get(id as usize - 1).map(String::as_str));
            }
            last = id;
        }
        Ok(said)
    }
}
