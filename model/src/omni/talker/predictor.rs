//! The code predictor: from the talker's state and the first code of a frame to the other codes, one after another. Its
//! context is one frame and is forgotten after it.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{Weights, linear};

use crate::lm::moe::add;
use crate::lm::resize;
use crate::omni::OmniError;
use crate::omni::config::TalkerConfig;
use crate::omni::decoder::{Decoder, Deepstack, Input, Scratch, Segment};
use crate::omni::kv::{KvStore, Sequence};
use crate::omni::load::Loader;
use crate::omni::trace::Trace;

/// The predictor's weights.
pub(in crate::omni) struct Predictor {
    decoder: Decoder,
    /// One table for each code but the first; the last is used only for the talker's next row.
    codes: Vec<Weights>,
    heads: Vec<Weights>,
    hidden: usize,
}

/// Memory and buffers for frames of several conversations at once.
pub(in crate::omni) struct Frames {
    store: KvStore,
    sequences: Vec<Sequence>,
    scratch: Scratch,
    rows: Vec<f32>,
    last: Vec<f32>,
    logits: Vec<f32>,
}

impl Predictor {
    pub(super) fn load(loader: &Loader<'_>, config: &TalkerConfig) -> Result<Self, OmniError> {
        let (vocabulary, hidden) = (config.predictor.vocabulary, config.predictor.hidden);
        let name = |part: &str| format!("talker.code_predictor.{part}");
        let tables = |part: &str| {
            let table = |g| loader.matrix(&name(&format!("{part}.{g}.weight")), vocabulary, hidden);
            (0..config.code_groups - 1).map(table).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            decoder: Decoder::load(loader, &name("model"), &config.predictor)?,
            codes: tables("model.codec_embedding")?,
            heads: tables("lm_head")?,
            hidden,
        })
    }

    /// Room for frames of `most` conversations at once.
    pub(in crate::omni) fn frames(&self, most: usize) -> Frames {
        // A frame is the talker's state and all codes but the last: one block.
        let positions = self.heads.len() + 1;
        Frames {
            store: self.decoder.store(positions, most),
            sequences: (0..most).map(|_| Sequence::default()).collect(),
            scratch: Scratch::default(),
            rows: Vec::new(),
            last: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Adds the embedding of code `group + 1` of a frame to a row.
    pub(super) fn add_code(&self, group: usize, code: u32, buffer: &mut Vec<f32>, row: &mut [f32]) {
        resize(buffer, row.len());
        self.codes[group].row(code as usize, buffer);
        add(row, buffer);
    }

    /// Completes the frames of several conversations: `starts` is `[conversations, 2, hidden]`, the talker's state and the
    /// embedding of the first code. `choose(conversation, group, logits)` picks code `group + 1` of a conversation.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`] for more conversations than there is room for.
    pub(in crate::omni) fn complete(
        &self,
        pool: &Pool,
        frames: &mut Frames,
        starts: &[f32],
        choose: &mut dyn FnMut(usize, usize, &mut [f32]) -> u32,
    ) -> Result<(), OmniError> {
        let hidden = self.hidden;
        let count = starts.len() / (2 * hidden);
        let Frames { store, sequences, scratch, rows, last, logits } = frames;
        if count > sequences.len() {
            return Err(OmniError::NoRoom { wanted: count, free: sequences.len() });
        }
        rows.clear();
        rows.extend_from_slice(starts);
        for (group, head) in self.heads.iter().enumerate() {
            let each = if group == 0 { 2 } else { 1 };
            let first = if group == 0 { 0 } else { group + 1 };
            let positions: Vec<_> = (0..count).flat_map(|_| (first..first + each).map(|p| [p as f64; 3])).collect();
            let mut segments: Vec<_> =
                sequences[..count].iter_mut().map(|sequence| Segment { sequence, rows: each }).collect();
            let input = Input { embeddings: rows, positions: &positions, deepstack: Deepstack::default(), keep: None };
            self.decoder.forward(pool, scratch, store, &mut segments, &input, Trace::off())?;
            last.clear();
            last.extend(scratch.hidden.chunks_exact(each * hidden).flat_map(|rows| &rows[(each - 1) * hidden..]));
            resize(logits, count * head.n());
            linear(pool, scratch.linear(), last, count, head, None, logits);
            resize(rows, count * hidden);
            let chosen = logits.chunks_exact_mut(head.n()).zip(rows.chunks_exact_mut(hidden));
            for (conversation, (logits, row)) in chosen.enumerate() {
                let code = choose(conversation, group, logits);
                self.codes[group].row(code as usize, row);
            }
        }
        for sequence in &mut sequences[..count] {
            store.release(sequence);
        }
        Ok(())
    }
}
