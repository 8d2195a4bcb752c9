//! The thinker on a device: rows of words and media, and the logits of what follows.

use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::embedding::cuda::{Tables, embedding_sum};
use causerie_kernels::ops::gemm::cuda::{Way, logits};
use half::bf16;

use super::decoder::{Decoder, Form};
use super::weights::Uploader;
use crate::omni::OmniError;
use crate::omni::config::TextConfig;

/// Embedding, decoder and output matrix.
pub struct Thinker {
    embedding: Tables,
    pub(in crate::omni) decoder: Decoder,
    head: Buffer<bf16>,
    vocabulary: usize,
}

impl Thinker {
    pub(super) fn load(up: &Uploader<'_>, config: &TextConfig) -> Result<Self, OmniError> {
        let TextConfig { vocabulary, hidden, .. } = *config;
        let rows = up.tensor("thinker.model.embed_tokens.weight", &[vocabulary, hidden])?;
        Ok(Self {
            embedding: Tables::new(up.gpu, rows, &[vocabulary], hidden)?,
            decoder: Decoder::load(up, "thinker.model", Form::of(config), config.layers)?,
            head: up.tensor("thinker.lm_head.weight", &[vocabulary, hidden])?,
            vocabulary,
        })
    }

    /// Values of a row.
    pub fn hidden(&self) -> usize {
        self.embedding.width()
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The embeddings of `tokens`: `[tokens, hidden]`.
    ///
    /// # Errors
    /// [`OmniError::Token`] for one outside of the vocabulary.
    pub fn embed(&self, gpu: &Gpu, tokens: &[u32]) -> Result<Buffer<bf16>, OmniError> {
        let ids = tokens.iter().map(|&token| self.id(token)).collect::<Result<Vec<_>, _>>()?;
        let ids = gpu.upload(&ids)?;
        let mut rows = gpu.allocate(tokens.len() * self.hidden())?;
        self.look_up(gpu, ids.all(), &mut rows.all_mut())?;
        Ok(rows)
    }

    /// A token as the kernels take it.
    ///
    /// # Errors
    /// [`OmniError::Token`] for one outside of the vocabulary.
    pub fn id(&self, token: u32) -> Result<i32, OmniError> {
        let outside = token as usize >= self.vocabulary;
        if outside { Err(OmniError::Token { token, vocabulary: self.vocabulary }) } else { Ok(token as i32) }
    }

    /// The embeddings of tokens that are on the device; rows of zeros where one is negative.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn look_up(&self, gpu: &Gpu, ids: Slice<'_, i32>, rows: &mut SliceMut<'_, bf16>) -> Result<(), OmniError> {
        Ok(embedding_sum(gpu, ids, self.embedding.all(), 1.0, None, rows)?)
    }

    /// Logits of the next token for rows of the decoder's output.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn logits(
        &self,
        gpu: &Gpu,
        hidden: Slice<'_, bf16>,
        way: Way,
        out: &mut SliceMut<'_, f32>,
    ) -> Result<(), OmniError> {
        Ok(logits(gpu, hidden, self.head.all(), way, self.hidden(), out)?)
    }
}
