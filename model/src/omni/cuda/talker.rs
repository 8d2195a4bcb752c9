//! The talker and its code predictor on a device.

use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::embedding::cuda::{Ids, Tables, embedding_sum};
use causerie_kernels::ops::gemm::cuda::{Activation, Epilogue, Way, linear, logits};
use half::bf16;

use super::decoder::{Decoder, Form};
use super::weights::{Linear, Uploader};
use crate::omni::OmniError;
use crate::omni::config::TalkerConfig;

/// The talker's weights.
pub struct Talker {
    /// The tables of all codes: the talker's own, then those of the predictor.
    codes: Tables,
    pub(in crate::omni) decoder: Decoder,
    head: Buffer<bf16>,
    text: Projection,
    hidden: Projection,
    pub(super) predictor: Decoder,
    /// One matrix for each code but the first.
    heads: Vec<Buffer<bf16>>,
    config: TalkerConfig,
}

/// Two layers from the thinker's width to the talker's.
struct Projection {
    up: Linear,
    down: Linear,
}

/// Which of the projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the thinker's embeddings of words.
    Text,
    /// From its states at the places of media.
    Hidden,
}

impl Talker {
    pub(super) fn load(up: &Uploader<'_>, config: &TalkerConfig) -> Result<Self, OmniError> {
        let (vocabulary, hidden) = (config.text.vocabulary, config.text.hidden);
        let (codebook, inner) = (config.predictor.vocabulary, config.predictor.hidden);
        if inner != hidden {
            let problem = format!("is {inner}, but the talker's is {hidden}");
            return Err(OmniError::config("talker_config.code_predictor_config.hidden_size", problem));
        }
        let name = |part: String| format!("talker.code_predictor.{part}.weight");
        let others = config.code_groups - 1;
        let own = [("talker.model.codec_embedding.weight".to_owned(), vocabulary)];
        let tables = own.into_iter().chain((0..others).map(|g| (name(format!("model.codec_embedding.{g}")), codebook)));
        let tables: Vec<(String, usize)> = tables.collect();
        let sizes: Vec<usize> = tables.iter().map(|table| table.1).collect();
        let heads = (0..others).map(|g| up.tensor(&name(format!("lm_head.{g}")), &[codebook, hidden]));
        let predictor = &config.predictor;
        Ok(Self {
            codes: Tables::new(up.gpu, up.stacked(&tables, hidden)?, &sizes, hidden)?,
            decoder: Decoder::load(up, "talker.model", Form::of(&config.text), config.text.layers)?,
            head: up.tensor("talker.codec_head.weight", &[vocabulary, hidden])?,
            text: Projection::load(up, "talker.text_projection", config)?,
            hidden: Projection::load(up, "talker.hidden_projection", config)?,
            predictor: Decoder::load(up, "talker.code_predictor.model", Form::of(predictor), predictor.layers)?,
            heads: heads.collect::<Result<_, _>>()?,
            config: config.clone(),
        })
    }

    /// Rows from what the thinker has: `[rows, thinker's hidden]` to `[rows, hidden]`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn project(&self, gpu: &Gpu, side: Side, x: Slice<'_, bf16>) -> Result<Buffer<bf16>, OmniError> {
        let projection = match side {
            Side::Text => &self.text,
            Side::Hidden => &self.hidden,
        };
        let rows = x.len() / projection.up.k;
        let mut inner = gpu.allocate(rows * projection.up.n)?;
        let mut y = gpu.allocate(rows * projection.down.n)?;
        projection.apply(gpu, Way::ByTokens, x, &mut inner.all_mut(), &mut y.all_mut())?;
        Ok(y)
    }

    /// The shape.
    pub(super) fn config(&self) -> &TalkerConfig {
        &self.config
    }

    /// Rows for words of several answers, one each. inner: `[rows, projection]`.
    pub(in crate::omni) fn project_words(
        &self,
        gpu: &Gpu,
        x: Slice<'_, bf16>,
        inner: &mut SliceMut<'_, bf16>,
        y: &mut SliceMut<'_, bf16>,
    ) -> Result<(), OmniError> {
        self.text.apply(gpu, Way::Streamed, x, inner, y)
    }

    /// Adds the embeddings of codes of the first codebook, or of special ids, to rows; a negative one adds nothing.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn add_codes<'a>(
        &'a self,
        gpu: &Gpu,
        codes: Slice<'a, i32>,
        rows: Option<Slice<'a, bf16>>,
        out: &mut SliceMut<'_, bf16>,
    ) -> Result<(), OmniError> {
        Ok(embedding_sum(gpu, codes, self.codes.some(0, 1), 1.0, rows, out)?)
    }

    /// The rows that follow frames: the sum of their codes' embeddings, and the next words' rows.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn next_rows<'a>(
        &'a self,
        gpu: &Gpu,
        frames: Ids<'a>,
        words: Slice<'a, bf16>,
        out: &mut SliceMut<'_, bf16>,
    ) -> Result<(), OmniError> {
        Ok(embedding_sum(gpu, frames, self.codes.all(), 1.0, Some(words), out)?)
    }

    /// Logits of the first code of the frames that follow rows of the decoder's output.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn logits(&self, gpu: &Gpu, hidden: Slice<'_, bf16>, out: &mut SliceMut<'_, f32>) -> Result<(), OmniError> {
        Ok(logits(gpu, hidden, self.head.all(), Way::Streamed, self.config.text.hidden, out)?)
    }

    /// The embeddings of codes of one group, `[codes, hidden]`.
    pub(super) fn embed_codes(
        &self,
        gpu: &Gpu,
        group: usize,
        codes: Slice<'_, i32>,
        out: &mut SliceMut<'_, bf16>,
    ) -> Result<(), OmniError> {
        Ok(embedding_sum(gpu, codes, self.codes.some(group, 1), 1.0, None, out)?)
    }

    /// Logits of code `group + 1` for rows of the predictor's output.
    pub(super) fn code_logits(
        &self,
        gpu: &Gpu,
        group: usize,
        hidden: Slice<'_, bf16>,
        out: &mut SliceMut<'_, f32>,
    ) -> Result<(), OmniError> {
        Ok(logits(gpu, hidden, self.heads[group].all(), Way::Streamed, self.config.text.hidden, out)?)
    }
}

impl Projection {
    fn load(up: &Uploader<'_>, name: &str, config: &TalkerConfig) -> Result<Self, OmniError> {
        let (inner, from, to) = (config.projection, config.thinker_hidden, config.text.hidden);
        let layer = |part: &str, n, k| up.linear(&format!("{name}.{part}"), n, k);
        Ok(Self { up: layer("linear_fc1", inner, from)?, down: layer("linear_fc2", to, inner)? })
    }

    fn apply(
        &self,
        gpu: &Gpu,
        way: Way,
        x: Slice<'_, bf16>,
        inner: &mut SliceMut<'_, bf16>,
        y: &mut SliceMut<'_, bf16>,
    ) -> Result<(), OmniError> {
        let Self { up, down } = self;
        let silu = Epilogue { activation: Activation::Silu, ..Epilogue::bias(up.bias.all()) };
        linear(gpu, x, up.weights.all(), silu, way, up.k, inner)?;
        Ok(linear(gpu, inner.as_slice(), down.weights.all(), Epilogue::bias(down.bias.all()), way, down.k, y)?)
    }
}
