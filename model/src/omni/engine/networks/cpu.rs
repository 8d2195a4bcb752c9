//! The networks on this processor.

use std::sync::Arc;

use causerie_kernels::Pool;
use causerie_kernels::ops::linear;
use causerie_kernels::ops::sample::{self, Context};

use super::{Ahead, Networks, Outcome, Spoken, Talking, Thinking, Voice, Ways, Wish, stranger};
use crate::omni::audio::Tower;
use crate::omni::config::AudioConfig;
use crate::omni::decoder::{self, Deepstack, Input, Segment};
use crate::omni::kv::KvStore;
use crate::omni::talker::{self, Frames, Projections};
use crate::omni::trace::Trace;
use crate::omni::vision::{self, Patches, Seen};
use crate::omni::{Omni, OmniError};

/// Weights and buffers.
pub(in crate::omni::engine) struct OnCpu {
    omni: Omni,
    pool: Arc<Pool>,
    thinker: decoder::Scratch,
    talker: decoder::Scratch,
    frames: Frames,
    linear: linear::Scratch,
    talk: talker::Scratch,
    vision: vision::Scratch,
    sampler: sample::Scratch,
    logits: Vec<f32>,
}

impl OnCpu {
    /// Room for `sessions` conversations.
    pub(in crate::omni::engine) fn new(omni: Omni, pool: Arc<Pool>, sessions: usize) -> Self {
        Self {
            frames: omni.talker.predictor.frames(sessions),
            omni,
            pool,
            thinker: decoder::Scratch::default(),
            talker: decoder::Scratch::default(),
            linear: linear::Scratch::default(),
            talk: talker::Scratch::default(),
            vision: vision::Scratch::default(),
            sampler: sample::Scratch::default(),
            logits: Vec::new(),
        }
    }
}

impl Tower for OnCpu {
    fn shape(&self) -> &AudioConfig {
        &self.omni.config.thinker.audio
    }

    fn convolve(&mut self, mel: &[f32], padded: usize, rows: &mut Vec<f32>) -> Result<(), OmniError> {
        self.omni.audio.on(&self.pool).convolve(mel, padded, rows)
    }

    fn encode(&mut self, rows: &[f32], tokens: &mut Vec<f32>) -> Result<(), OmniError> {
        self.omni.audio.on(&self.pool).encode(rows, tokens)
    }
}

impl Projections for OnCpu {
    fn words(&mut self, words: &[u32]) -> Result<Vec<f32>, OmniError> {
        self.omni.projections(&self.pool).words(words)
    }

    fn states(&mut self, states: &[f32]) -> Result<Vec<f32>, OmniError> {
        self.omni.projections(&self.pool).states(states)
    }

    fn codes(&mut self, codes: &[u32]) -> Result<Vec<f32>, OmniError> {
        self.omni.projections(&self.pool).codes(codes)
    }
}

impl Networks for OnCpu {
    fn think(&mut self, store: &mut KvStore, shares: &mut [Thinking<'_>]) -> Result<Vec<Outcome>, OmniError> {
        let text = &self.omni.config.thinker.text;
        let (width, keep) = (text.hidden, Some(self.omni.config.talker.accept_hidden_layer));
        let (mut embeddings, mut positions) = (Vec::new(), Vec::new());
        let (mut pictures, mut deepstack) = (Vec::new(), Vec::<Vec<f32>>::new());
        for Thinking { rows, .. } in shares.iter() {
            let first = positions.len();
            let mut media = rows.media.chunks_exact(width);
            for token in &rows.tokens {
                match token {
                    Some(token) => self.omni.thinker.embed(&[*token], &mut embeddings)?,
                    None => embeddings.extend_from_slice(media.next().unwrap_or(&[])),
                }
            }
            positions.extend_from_slice(&rows.positions);
            pictures.extend(rows.pictures.iter().map(|row| first + row));
            deepstack.resize(deepstack.len().max(rows.deepstack.len()), Vec::new());
            deepstack.iter_mut().zip(&rows.deepstack).for_each(|(all, layer)| all.extend(layer));
        }
        let deepstack = Deepstack { rows: &pictures, layers: &deepstack };
        let input = Input { embeddings: &embeddings, positions: &positions, deepstack, keep };
        let mut segments: Vec<Segment<'_>> = shares
            .iter_mut()
            .map(|share| Segment { rows: share.rows.tokens.len(), sequence: &mut *share.sequence })
            .collect();
        let scratch = &mut self.thinker;
        self.omni.thinker.decoder.forward(&self.pool, scratch, store, &mut segments, &input, Trace::off())?;

        let (mut outcomes, mut finals, mut at) = (Vec::new(), Vec::new(), 0);
        for Thinking { rows, wish, .. } in shares.iter() {
            let mut outcome = Outcome::default();
            for (row, token) in rows.tokens.iter().enumerate() {
                if token.is_none() {
                    outcome.states.extend_from_slice(&scratch.kept[(at + row) * width..][..width]);
                }
            }
            at += rows.tokens.len();
            if wish.is_some() {
                outcome.ahead = Ahead::Logits(finals.len() / width);
                finals.extend_from_slice(&scratch.hidden[(at - 1) * width..at * width]);
            }
            outcomes.push(outcome);
        }
        if !finals.is_empty() {
            self.omni.thinker.logits(&self.pool, &mut self.linear, &finals, &mut self.logits);
        }
        for (outcome, share) in outcomes.iter_mut().zip(shares) {
            let (Ahead::Logits(index), Some(Wish::Draw { params, seed, place, drawn })) = (&outcome.ahead, &share.wish)
            else {
                continue;
            };
            let logits = &mut self.logits[index * text.vocabulary..][..text.vocabulary];
            let context = Context { seen: drawn, reply: drawn };
            outcome.ahead = Ahead::Word(sample::sample(&mut self.sampler, logits, params, context, *seed, *place));
        }
        Ok(outcomes)
    }

    fn logits(&mut self, index: usize) -> Result<&mut [f32], OmniError> {
        let vocabulary = self.omni.config.thinker.text.vocabulary;
        Ok(&mut self.logits[index * vocabulary..][..vocabulary])
    }

    fn see(&mut self, patches: &Patches, seen: &mut Seen) -> Result<(), OmniError> {
        self.omni.vision.see(&self.pool, &mut self.vision, &patches.values, patches.grid, seen)
    }

    fn talk(
        &mut self,
        store: &mut KvStore,
        ways: &Ways,
        shares: &mut [Talking<'_>],
    ) -> Result<Vec<Option<Vec<u32>>>, OmniError> {
        let talker = &self.omni.talker;
        let (width, vocabulary) = (talker.config().text.hidden, talker.config().text.vocabulary);
        let (mut embeddings, mut positions) = (Vec::new(), Vec::new());
        for Talking { rows, .. } in shares.iter() {
            match rows {
                Spoken::Opening { rows, positions: places } => {
                    embeddings.extend_from_slice(rows);
                    positions.extend_from_slice(places);
                }
                Spoken::Frame { codes, word, position } => {
                    let (mut embedding, mut projected) = (Vec::new(), Vec::new());
                    self.omni.thinker.embed(&[*word], &mut embedding)?;
                    talker.project_text(&self.pool, &mut self.talk, &embedding, &mut projected);
                    let at = embeddings.len();
                    embeddings.resize(at + width, 0.0);
                    talker.next_row(&mut self.talk, codes, &projected, &mut embeddings[at..]);
                    positions.push(*position);
                }
            }
        }
        let input =
            Input { embeddings: &embeddings, positions: &positions, deepstack: Deepstack::default(), keep: None };
        let mut segments: Vec<Segment<'_>> = shares
            .iter_mut()
            .map(|share| Segment { rows: share.rows.rows(), sequence: &mut *share.sequence })
            .collect();
        let scratch = &mut self.talker;
        talker.decoder.forward(&self.pool, scratch, store, &mut segments, &input, Trace::off())?;
        let (mut states, mut at) = (Vec::new(), 0);
        for share in shares.iter() {
            at += share.rows.rows();
            if share.draw.is_some() {
                states.extend_from_slice(&scratch.hidden[(at - 1) * width..at * width]);
            }
        }
        if states.is_empty() {
            return Ok(shares.iter().map(|_| None).collect());
        }

        talker.logits(&self.pool, &mut self.talk, &states, &mut self.logits);
        let sampler = &mut self.sampler;
        let mut rows = states.chunks_exact(width).zip(self.logits.chunks_exact_mut(vocabulary));
        let (mut starts, mut frames, mut going) = (Vec::new(), Vec::new(), Vec::new());
        for (index, share) in shares.iter().enumerate() {
            frames.push(None);
            let Some((draw, (state, logits))) = share.draw.as_ref().and_then(|draw| Some((draw, rows.next()?))) else {
                continue;
            };
            talker.suppress(logits);
            let context = Context { seen: &draw.codes, reply: &[] };
            let code = sample::sample(sampler, logits, &ways.first, context, draw.seed, draw.place);
            frames[index] = Some(vec![code]);
            if code != talker.config().ids.eos {
                let at = starts.len();
                starts.resize(at + 2 * width, 0.0);
                starts[at..at + width].copy_from_slice(state);
                talker.add_code(&mut self.talk, code, &mut starts[at + width..]);
                going.push((index, draw.seed, draw.place));
            }
        }
        talker.predictor.complete(&self.pool, &mut self.frames, &starts, &mut |i, group, logits| {
            let (index, seed, place) = going[i];
            let place = place + 1 + group as u64;
            let code = sample::sample(sampler, logits, &ways.others, Context::default(), seed, place);
            frames[index].get_or_insert_default().push(code);
            code
        })?;
        Ok(frames)
    }

    fn voice(&mut self) -> Result<Voice, OmniError> {
        Ok(Voice::Cpu(Box::new(self.omni.code2wav.voice())))
    }

    fn speak(&mut self, voice: &mut Voice, frame: &[u32], pcm: &mut Vec<f32>) -> Result<(), OmniError> {
        let Voice::Cpu(voice) = voice else { return Err(stranger()) };
        self.omni.code2wav.push(&self.pool, voice, frame, pcm)
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.omni.bytes()
    }
}
