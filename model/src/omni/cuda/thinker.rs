//! The thinker on a device: rows of words and media, and the logits of what follows.

use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::embedding::cuda::{Tables, embedding_sum};
use causerie_kernels::ops::gemm::cuda::logits;
use half::bf16;

use super::decoder::{Decoder, Form, Input, Segment, Work};
use super::kv::KvStore;
use super::weights::Uploader;
use crate::omni::OmniError;
use crate::omni::config::TextConfig;

/// Embedding, decoder and output matrix.
pub struct Thinker {
    embedding: Tables,
    decoder: Decoder,
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

    /// Memory for sequences.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn store(&self, gpu: &Gpu, blocks: usize) -> Result<KvStore, OmniError> {
        self.decoder.store(gpu, blocks)
    }

    /// Buffers for passes of up to `rows` rows.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn work(&self, gpu: &Gpu, rows: usize) -> Result<Work, OmniError> {
        self.decoder.work(gpu, rows)
    }

    /// Values of a row.
    pub fn hidden(&self) -> usize {
        self.embedding.width()
    }

    /// The embeddings of `tokens`: `[tokens, hidden]`.
    ///
    /// # Errors
    /// [`OmniError::Token`] for one outside of the vocabulary.
    pub fn embed(&self, gpu: &Gpu, tokens: &[u32]) -> Result<Buffer<bf16>, OmniError> {
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            return Err(OmniError::Token { token, vocabulary: self.vocabulary });
        }
        let ids = gpu.upload(&tokens.iter().map(|&token| token as i32).collect::<Vec<_>>())?;
        let mut rows = gpu.allocate(tokens.len() * self.hidden())?;
        embedding_sum(gpu, ids.all(), self.embedding.all(), 1.0, None, &mut rows.all_mut())?;
        Ok(rows)
    }

    /// Runs rows through all layers.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`] or [`OmniError::Device`].
    pub fn forward(
        &self,
        gpu: &Gpu,
        work: &mut Work,
        store: &mut KvStore,
        segments: &mut [Segment<'_>],
        input: Input<'_>,
    ) -> Result<(), OmniError> {
        self.decoder.forward(gpu, work, store, segments, input)
    }

    /// Logits of the next token for rows of the decoder's output.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn logits<'a>(
        &'a self,
        gpu: &Gpu,
        hidden: Slice<'a, bf16>,
        out: &mut SliceMut<'_, f32>,
    ) -> Result<(), OmniError> {
        Ok(logits(gpu, hidden, self.head.all(), self.hidden(), out)?)
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }
}
