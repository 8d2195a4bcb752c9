//! The thinker: words, sounds and pictures in one sequence of rows, and the word that follows.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{self, Weights, linear};

use super::OmniError;
use super::config::{TextConfig, ThinkerConfig};
use super::decoder::Decoder;
use super::load::Loader;

/// Embedding, decoder and output matrix.
pub(super) struct Thinker {
    embedding: Weights,
    pub(super) decoder: Decoder,
    head: Weights,
    vocabulary: usize,
}

impl Thinker {
    pub(super) fn load(loader: &Loader<'_>, config: &ThinkerConfig) -> Result<Self, OmniError> {
        let TextConfig { vocabulary, hidden, .. } = config.text;
        Ok(Self {
            embedding: loader.matrix("thinker.model.embed_tokens.weight", vocabulary, hidden)?,
            decoder: Decoder::load(loader, "thinker.model", &config.text)?,
            head: loader.matrix("thinker.lm_head.weight", vocabulary, hidden)?,
            vocabulary,
        })
    }

    /// Appends the embeddings of `tokens` to `rows`.
    ///
    /// # Errors
    /// [`OmniError::Token`] for one outside of the vocabulary.
    pub(super) fn embed(&self, tokens: &[u32], rows: &mut Vec<f32>) -> Result<(), OmniError> {
        let width = self.embedding.k();
        for &token in tokens {
            if token as usize >= self.vocabulary {
                return Err(OmniError::Token { token, vocabulary: self.vocabulary });
            }
            let at = rows.len();
            rows.resize(at + width, 0.0);
            self.embedding.row(token as usize, &mut rows[at..]);
        }
        Ok(())
    }

    /// Logits of the next token for rows of the decoder's output.
    pub(super) fn logits(&self, pool: &Pool, scratch: &mut linear::Scratch, hidden: &[f32], out: &mut Vec<f32>) {
        let m = hidden.len() / self.head.k();
        crate::lm::resize(out, m * self.head.n());
        linear(pool, scratch, hidden, m, &self.head, None, out);
    }
}
