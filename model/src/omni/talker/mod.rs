//! The talker: turns what was said to the thinker, and the words that it answers, into codec frames, 12.5 a second.
//!
//! Its context is the user's turns (words by their embeddings, media by the thinker's states) and nine rows that open the
//! answer; the ninth carries the first word. From then on each frame takes one more word: the row of a frame is the sum of
//! its codes' embeddings and the next word's. So it can speak as soon as the first word is there, and needs only words
//! from then on.

mod predictor;
mod prompt;

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{self, Weights, linear};

use super::OmniError;
use super::config::TalkerConfig;
use super::decoder::Decoder;
use super::layers::Linear;
use super::load::Loader;
use crate::lm::moe::add;
use crate::lm::resize;

pub(super) use predictor::{Frames, Predictor};
pub(super) use prompt::{Opening, Projections, Prompt, ROLE_TOKENS};

/// Ids at the end of the vocabulary that are never codes; the end of speech is among them, and allowed.
const SPECIAL_IDS: usize = 1024;

/// The talker's weights.
pub(super) struct Talker {
    config: TalkerConfig,
    codes: Weights,
    pub(super) decoder: Decoder,
    head: Weights,
    text: Projection,
    hidden: Projection,
    pub(super) predictor: Predictor,
}

/// Two layers from the thinker's width to the talker's.
struct Projection {
    up: Linear,
    down: Linear,
}

/// Buffers reused from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    linear: linear::Scratch,
    inner: Vec<f32>,
    row: Vec<f32>,
}

impl Talker {
    pub(super) fn load(loader: &Loader<'_>, config: &TalkerConfig) -> Result<Self, OmniError> {
        let (vocabulary, hidden) = (config.text.vocabulary, config.text.hidden);
        Ok(Self {
            codes: loader.matrix("talker.model.codec_embedding.weight", vocabulary, hidden)?,
            decoder: Decoder::load(loader, "talker.model", &config.text)?,
            head: loader.matrix("talker.codec_head.weight", vocabulary, hidden)?,
            text: Projection::load(loader, "talker.text_projection", config)?,
            hidden: Projection::load(loader, "talker.hidden_projection", config)?,
            predictor: Predictor::load(loader, config)?,
            config: config.clone(),
        })
    }

    pub(super) fn config(&self) -> &TalkerConfig {
        &self.config
    }

    /// Rows for words, from the thinker's embeddings of them.
    pub(super) fn project_text(&self, pool: &Pool, s: &mut Scratch, embeddings: &[f32], rows: &mut Vec<f32>) {
        self.text.apply(pool, s, embeddings, rows);
    }

    /// Rows for media, from the thinker's states at their places.
    pub(super) fn project_hidden(&self, pool: &Pool, s: &mut Scratch, states: &[f32], rows: &mut Vec<f32>) {
        self.hidden.apply(pool, s, states, rows);
    }

    /// Adds the embedding of a code of the first codebook, or of a special id.
    pub(super) fn add_code(&self, s: &mut Scratch, code: u32, row: &mut [f32]) {
        resize(&mut s.row, row.len());
        self.codes.row(code as usize, &mut s.row);
        add(row, &s.row);
    }

    /// Logits of the first code of the frames that follow rows of the decoder's output.
    pub(super) fn logits(&self, pool: &Pool, s: &mut Scratch, hidden: &[f32], out: &mut Vec<f32>) {
        let m = hidden.len() / self.head.k();
        resize(out, m * self.head.n());
        linear(pool, &mut s.linear, hidden, m, &self.head, None, out);
    }

    /// Rules out what is neither a code nor the end of speech.
    pub(super) fn suppress(&self, logits: &mut [f32]) {
        let first = logits.len().saturating_sub(SPECIAL_IDS);
        let eos = self.config.ids.eos as usize;
        let special = logits.iter_mut().enumerate().skip(first).filter(|(id, _)| *id != eos);
        special.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
    }

    /// Writes the row that follows a frame: the sum of its codes' embeddings, and the next word's row.
    pub(super) fn next_row(&self, s: &mut Scratch, frame: &[u32], word: &[f32], row: &mut [f32]) {
        row.copy_from_slice(word);
        for (group, code) in frame.iter().enumerate() {
            match group.checked_sub(1) {
                None => self.add_code(s, *code, row),
                Some(group) => self.predictor.add_code(group, *code, &mut s.row, row),
            }
        }
    }
}

impl Projection {
    fn load(loader: &Loader<'_>, name: &str, config: &TalkerConfig) -> Result<Self, OmniError> {
        let (inner, from, to) = (config.projection, config.thinker_hidden, config.text.hidden);
        Ok(Self {
            up: Linear::load(loader, &format!("{name}.linear_fc1"), inner, from)?,
            down: Linear::load(loader, &format!("{name}.linear_fc2"), to, inner)?,
        })
    }

    fn apply(&self, pool: &Pool, s: &mut Scratch, x: &[f32], rows: &mut Vec<f32>) {
        self.up.apply(pool, &mut s.linear, x, &mut s.inner);
        s.inner.iter_mut().for_each(|v| *v /= 1.0 + (-*v).exp());
        self.down.apply(pool, &mut s.linear, &s.inner, rows);
    }
}
