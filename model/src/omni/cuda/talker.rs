//! The talker and its code predictor on a device.

use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::embedding::cuda::{Tables, embedding_sum};
use causerie_kernels::ops::gemm::cuda::{Activation, Epilogue, linear, logits};
use half::bf16;

use super::decoder::{Decoder, Form, Input, Segment, Work};
use super::kv::{KvStore, Sequence};
use super::weights::{Linear, Uploader};
use crate::omni::OmniError;
use crate::omni::config::TalkerConfig;

/// The talker's weights.
pub struct Talker {
    /// The tables of all codes: the talker's own, then those of the predictor.
    codes: Tables,
    decoder: Decoder,
    head: Buffer<bf16>,
    text: Projection,
    hidden: Projection,
    predictor: Decoder,
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

/// Draws a code of all conversations: its group less one, the logits.
pub type Choose<'a> = dyn FnMut(usize, Slice<'_, f32>) -> Result<Buffer<i32>, OmniError> + 'a;

/// Memory and buffers for frames of several conversations at once.
pub struct Frames {
    store: KvStore,
    sequences: Vec<Sequence>,
    work: Work,
    logits: Buffer<f32>,
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

    /// Rows from what the thinker has: `[rows, thinker's hidden]` to `[rows, hidden]`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn project(&self, gpu: &Gpu, side: Side, x: Slice<'_, bf16>) -> Result<Buffer<bf16>, OmniError> {
        let Projection { up, down } = match side {
            Side::Text => &self.text,
            Side::Hidden => &self.hidden,
        };
        let rows = x.len() / up.k;
        let (mut inner, mut y) = (gpu.allocate(rows * up.n)?, gpu.allocate(rows * down.n)?);
        let silu = Epilogue { activation: Activation::Silu, ..Epilogue::bias(up.bias.all()) };
        linear(gpu, x, up.weights.all(), silu, up.k, &mut inner.all_mut())?;
        linear(gpu, inner.all(), down.weights.all(), Epilogue::bias(down.bias.all()), down.k, &mut y.all_mut())?;
        Ok(y)
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

    /// The rows that follow frames: the sum of their codes' embeddings, and the next words' rows. frames: `[rows, groups]`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn next_rows<'a>(
        &'a self,
        gpu: &Gpu,
        frames: Slice<'a, i32>,
        words: Slice<'a, bf16>,
        out: &mut SliceMut<'_, bf16>,
    ) -> Result<(), OmniError> {
        Ok(embedding_sum(gpu, frames, self.codes.all(), 1.0, Some(words), out)?)
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

    /// Logits of the first code of the frames that follow rows of the decoder's output.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn logits<'a>(
        &'a self,
        gpu: &Gpu,
        hidden: Slice<'a, bf16>,
        out: &mut SliceMut<'_, f32>,
    ) -> Result<(), OmniError> {
        Ok(logits(gpu, hidden, self.head.all(), self.config.text.hidden, out)?)
    }

    /// Room for frames of `most` conversations at once.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn frames(&self, gpu: &Gpu, most: usize) -> Result<Frames, OmniError> {
        use causerie_kernels::ops::paged_attention::cuda::BLOCK;
        // A frame is the talker's state and all codes but the last.
        let blocks = most * (self.heads.len() + 1).div_ceil(BLOCK);
        Ok(Frames {
            store: self.predictor.store(gpu, blocks)?,
            sequences: (0..most).map(|_| Sequence::default()).collect(),
            work: self.predictor.work(gpu, 2 * most)?,
            logits: gpu.allocate(most * self.config.predictor.vocabulary)?,
        })
    }

    /// Completes the frames of several conversations: `states` is `[conversations, hidden]`, the talker's states, `codes`
    /// the first codes. `choose(group, logits)` draws code `group + 1` of all conversations.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`] for more conversations than there is room for, or [`OmniError::Device`].
    pub fn complete(
        &self,
        gpu: &Gpu,
        frames: &mut Frames,
        states: Slice<'_, bf16>,
        codes: &[i32],
        choose: &mut Choose<'_>,
    ) -> Result<(), OmniError> {
        let (count, hidden) = (codes.len(), self.config.text.hidden);
        let Frames { store, sequences, work, logits: scores } = frames;
        if count > sequences.len() {
            return Err(OmniError::NoRoom { wanted: count, free: sequences.len() });
        }
        let mut rows: Buffer<bf16> = gpu.allocate(2 * count * hidden)?;
        let first = gpu.upload(codes)?;
        let mut embedded: Buffer<bf16> = gpu.allocate(count * hidden)?;
        embedding_sum(gpu, first.all(), self.codes.some(0, 1), 1.0, None, &mut embedded.all_mut())?;
        for i in 0..count {
            let row = i * hidden..(i + 1) * hidden;
            gpu.copy(states.range(row.clone()), &mut rows.range_mut(2 * i * hidden..(2 * i + 1) * hidden))?;
            gpu.copy(embedded.range(row), &mut rows.range_mut((2 * i + 1) * hidden..(2 * i + 2) * hidden))?;
        }
        let mut last: Buffer<bf16> = gpu.allocate(count * hidden)?;
        for (group, head) in self.heads.iter().enumerate() {
            let (each, from) = if group == 0 { (2, 0) } else { (1, group + 1) };
            let positions: Vec<_> = (0..count).flat_map(|_| (from..from + each).map(|p| [p as f64; 3])).collect();
            let mut segments: Vec<_> =
                sequences[..count].iter_mut().map(|sequence| Segment { sequence, rows: each }).collect();
            let embeddings = rows.range(..count * each * hidden);
            let input = Input { embeddings, positions: &positions, deepstack: None, keep: None, routes: None };
            self.predictor.forward(gpu, work, store, &mut segments, input)?;
            for i in 0..count {
                let row = ((i + 1) * each - 1) * hidden;
                let state = work.hidden(count * each).range(row..row + hidden);
                gpu.copy(state, &mut last.range_mut(i * hidden..(i + 1) * hidden))?;
            }
            let mut scores = scores.range_mut(..count * self.config.predictor.vocabulary);
            logits(gpu, last.all(), head.all(), hidden, &mut scores)?;
            let chosen = choose(group, scores.as_slice())?;
            let table = self.codes.some(group + 1, 1);
            embedding_sum(gpu, chosen.all(), table, 1.0, None, &mut rows.range_mut(..count * hidden))?;
        }
        for sequence in &mut sequences[..count] {
            store.release(sequence);
        }
        Ok(())
    }
}

impl Projection {
    fn load(up: &Uploader<'_>, name: &str, config: &TalkerConfig) -> Result<Self, OmniError> {
        let (inner, from, to) = (config.projection, config.thinker_hidden, config.text.hidden);
        let layer = |part: &str, n, k| up.linear(&format!("{name}.{part}"), n, k);
        Ok(Self { up: layer("linear_fc1", inner, from)?, down: layer("linear_fc2", to, inner)? })
    }
}
