//! The networks on a device.
//!
//! A pass has two parts: conversations that decode, a row each, and prompts. The launches of the first are the same from
//! step to step, so they are recorded once for each number of conversations and run again as one; what differs lies in
//! buffers. Either part gives a row the same bits whatever the company: its kernels do not follow from how many rows there
//! are.

use std::collections::BTreeMap;

use causerie_kernels::cuda::{Buffer, Gpu, Recording};
use causerie_kernels::ops::embedding::cuda::Ids;
use causerie_kernels::ops::gemm::cuda::Way;
use causerie_kernels::ops::log_mel::cuda::PLACE;
use causerie_kernels::ops::paged_attention::cuda::BLOCK;
use causerie_kernels::ops::sample::Params;
use causerie_kernels::ops::sample::cuda::{Draw, Draws, sample_tokens, words};
use causerie_kernels::ops::scatter::cuda::scatter;
use half::bf16;

use super::{Ahead, FrameDraw, Networks, Outcome, Rows, Spoken, Talking, Thinking, Voice, Ways, Wish, stranger};
use crate::omni::OmniError;
use crate::omni::audio::Tower;
use crate::omni::config::AudioConfig;
use crate::omni::cuda::frames::Frames;
use crate::omni::cuda::talker::Side;
use crate::omni::cuda::{Extra, GpuOmni, Mode, Room, Work, advance, shares};
use crate::omni::decoder::Segment;
use crate::omni::kv::KvStore;
use crate::omni::talker::Projections;
use crate::omni::vision::{Patches, Seen};

/// Weights and buffers on a device.
pub(in crate::omni::engine) struct OnDevice {
    gpu: Gpu,
    omni: GpuOmni,
    thinker: ThinkerBuffers,
    talker: TalkerBuffers,
    frames: Frames,
    vocoder: Work,
    /// Logits that somebody asked for.
    here: Vec<f32>,
}

struct ThinkerBuffers {
    decode: Work,
    prompt: Work,
    mode: Mode,
    /// One a row of the pass.
    ids: Buffer<i32>,
    /// Last rows of prompts.
    finals: Buffer<bf16>,
    /// Those of conversations that decode, then those of prompts.
    logits: Buffer<f32>,
    draws: Draws,
    /// A bit for each word that an answer holds.
    seen: Buffer<u32>,
    words: Buffer<i32>,
    /// By how many there are.
    steps: BTreeMap<usize, Option<Recording>>,
}

struct TalkerBuffers {
    decode: Work,
    opening: Work,
    mode: Mode,
    ids: Buffer<i32>,
    /// `[answers, groups]`.
    codes: Buffer<i32>,
    embedded: Buffer<bf16>,
    inner: Buffer<bf16>,
    projected: Buffer<bf16>,
    /// By how many there are.
    steps: BTreeMap<usize, Option<Recording>>,
}

/// What there is to be room for.
#[derive(Clone, Copy, Debug)]
pub(in crate::omni::engine) struct Sizes {
    /// Conversations.
    pub(in crate::omni::engine) sessions: usize,
    /// Rows of prompts in a pass.
    pub(in crate::omni::engine) rows: usize,
    /// Positions that the thinker holds of a conversation.
    pub(in crate::omni::engine) context: usize,
    /// Positions that the talker holds of an answer.
    pub(in crate::omni::engine) spoken: usize,
}

impl OnDevice {
    /// Room for conversations.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub(in crate::omni::engine) fn new(gpu: Gpu, omni: GpuOmni, sizes: Sizes) -> Result<Self, OmniError> {
        let Sizes { sessions, rows, context, spoken } = sizes;
        // A prompt whose last row is left is not counted among the rows of prompts.
        let rows = rows + sessions;
        let room = |rows, positions: usize, shares| Room {
            rows,
            sequences: sessions,
            pages: sessions * (positions.div_ceil(BLOCK) + 1),
            shares,
        };
        let (text, talker) = (&omni.config.thinker.text, &omni.config.talker);
        let thinker = ThinkerBuffers {
            decode: omni.thinker.decoder.work(&gpu, room(sessions, context, shares(context)))?,
            prompt: omni.thinker.decoder.work(&gpu, room(rows, context, 1))?,
            mode: Mode::decoding(context),
            ids: gpu.allocate(rows)?,
            finals: gpu.allocate(sessions * text.hidden)?,
            logits: gpu.allocate(sessions * text.vocabulary)?,
            draws: Draws::with_room(&gpu, sessions)?,
            seen: gpu.zeros(sessions * words(text.vocabulary))?,
            words: gpu.allocate(sessions)?,
            steps: BTreeMap::new(),
        };
        let talker = TalkerBuffers {
            decode: omni.talker.decoder.work(&gpu, room(sessions, spoken, shares(spoken)))?,
            opening: omni.talker.decoder.work(&gpu, room(rows, spoken, 1))?,
            mode: Mode::decoding(spoken),
            ids: gpu.allocate(sessions)?,
            codes: gpu.allocate(sessions * talker.code_groups)?,
            embedded: gpu.allocate(sessions * text.hidden)?,
            inner: gpu.allocate(sessions * talker.projection)?,
            projected: gpu.allocate(sessions * talker.text.hidden)?,
            steps: BTreeMap::new(),
        };
        let frames = Frames::new(&gpu, &omni.talker, sessions)?;
        let vocoder = omni.code2wav.work(&gpu)?;
        // What is loaded stays; what a pass asks for comes back in the next.
        gpu.keep_memory();
        Ok(Self { gpu, omni, thinker, talker, frames, vocoder, here: Vec::new() })
    }

    /// A row of each of several conversations.
    fn decode_words(&mut self, store: &mut KvStore, shares: &mut [Thinking<'_>]) -> Result<(), OmniError> {
        let Self { gpu, omni, thinker: b, .. } = self;
        let ids = shares.iter().map(|share| id(omni, share.rows.tokens.first().copied().flatten()));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let positions: Vec<_> = shares.iter().flat_map(|share| share.rows.positions.iter().copied()).collect();
        let mut segments: Vec<_> =
            shares.iter_mut().map(|share| Segment { rows: 1, sequence: &mut *share.sequence }).collect();
        let decoder = &omni.thinker.decoder;
        decoder.stage(gpu, &mut b.decode, store, &mut segments, &positions, b.mode)?;
        let count = ids.len();
        gpu.write(&mut b.ids.range_mut(..count), &ids)?;
        let vocabulary = omni.thinker.vocabulary();
        let launch = || -> Result<(), OmniError> {
            omni.thinker.look_up(gpu, b.ids.range(..count), &mut b.decode.input(count))?;
            let (step, buffers) = b.decode.parts();
            decoder.run(gpu, step, buffers, store, Extra::default())?;
            let mut logits = b.logits.range_mut(..count * vocabulary);
            omni.thinker.logits(gpu, b.decode.hidden(count), Way::Streamed, &mut logits)?;
            let seen = Some(b.seen.range(..count * words(vocabulary)));
            let draws = b.draws.rows(0..count);
            Ok(sample_tokens(gpu, logits.as_slice(), draws, seen, None, &mut b.words.range_mut(..count))?)
        };
        gpu.step(b.steps.entry(count).or_default(), launch)?;
        advance(store, &mut segments);
        Ok(())
    }

    /// Rows of prompts; the words of those that want one come behind those of the `before` conversations that decode. The
    /// states of the rows of media, conversation by conversation.
    fn read(
        &mut self,
        store: &mut KvStore,
        shares: &mut [Thinking<'_>],
        before: usize,
    ) -> Result<Vec<Vec<f32>>, OmniError> {
        let Self { gpu, omni, thinker: b, .. } = self;
        let width = omni.thinker.hidden();
        let mut pass = Pass::default();
        for share in shares.iter() {
            pass.append(omni, &share.rows)?;
        }
        let count = pass.ids.len();
        let lengths: Vec<usize> = shares.iter().map(|share| share.rows.tokens.len()).collect();
        let mut segments: Vec<_> = shares
            .iter_mut()
            .zip(&lengths)
            .map(|(share, rows)| Segment { rows: *rows, sequence: &mut *share.sequence })
            .collect();
        let decoder = &omni.thinker.decoder;
        decoder.stage(gpu, &mut b.prompt, store, &mut segments, &pass.positions, Mode::PROMPT)?;
        gpu.write(&mut b.ids.range_mut(..count), &pass.ids)?;
        omni.thinker.look_up(gpu, b.ids.range(..count), &mut b.prompt.input(count))?;
        if !pass.places.is_empty() {
            let (media, places) = (upload(gpu, &pass.media)?, gpu.upload(&pass.places)?);
            scatter(gpu, media.all(), places.all(), width, false, &mut b.prompt.input(count))?;
        }
        let pictures = gpu.upload(&pass.pictures)?;
        let layers: Vec<Buffer<bf16>> = pass.deepstack.iter().map(|l| upload(gpu, l)).collect::<Result<_, _>>()?;
        let keep = (!pass.places.is_empty()).then_some(omni.config.talker.accept_hidden_layer);
        let deepstack = (!pass.pictures.is_empty()).then(|| (pictures.all(), layers.as_slice()));
        let (step, buffers) = b.prompt.parts();
        decoder.run(gpu, step, buffers, store, Extra { deepstack, keep, routes: None })?;
        advance(store, &mut segments);

        let mut finals = 0;
        let mut at = 0;
        for (share, rows) in shares.iter().zip(&lengths) {
            at += rows;
            if share.wish.is_some() {
                gpu.copy(b.prompt.row(at - 1), &mut b.finals.range_mut(finals * width..(finals + 1) * width))?;
                finals += 1;
            }
        }
        if finals > 0 {
            let vocabulary = omni.thinker.vocabulary();
            let all = before..before + finals;
            let mut logits = b.logits.range_mut(all.start * vocabulary..all.end * vocabulary);
            omni.thinker.logits(gpu, b.finals.range(..finals * width), Way::Streamed, &mut logits)?;
            let each = words(vocabulary);
            let seen = Some(b.seen.range(all.start * each..all.end * each));
            let draws = b.draws.rows(all.clone());
            sample_tokens(gpu, logits.as_slice(), draws, seen, None, &mut b.words.range_mut(all))?;
        }
        let mut states = Vec::new();
        let mut at = 0;
        for (share, rows) in shares.iter().zip(&lengths) {
            let mut own = Vec::new();
            if share.rows.tokens.iter().any(Option::is_none) {
                let kept = gpu.fetch(b.prompt.kept(at..at + rows))?;
                for (row, token) in kept.chunks_exact(width).zip(&share.rows.tokens) {
                    if token.is_none() {
                        own.extend(row.iter().map(|v| v.to_f32()));
                    }
                }
            }
            states.push(own);
            at += rows;
        }
        Ok(states)
    }

    /// A row of each of several answers; the states go to the frames.
    fn decode_frames(&mut self, store: &mut KvStore, shares: &mut [Talking<'_>]) -> Result<(), OmniError> {
        let Self { gpu, omni, talker: b, frames, .. } = self;
        let (mut ids, mut all, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for share in shares.iter() {
            let Spoken::Frame { codes, word, position } = &share.rows else { continue };
            ids.push(omni.thinker.id(*word)?);
            all.extend(codes.iter().map(|&code| code as i32));
            positions.push(*position);
        }
        let mut segments: Vec<_> =
            shares.iter_mut().map(|share| Segment { rows: 1, sequence: &mut *share.sequence }).collect();
        let decoder = &omni.talker.decoder;
        decoder.stage(gpu, &mut b.decode, store, &mut segments, &positions, b.mode)?;
        let count = ids.len();
        gpu.write(&mut b.ids.range_mut(..count), &ids)?;
        gpu.write(&mut b.codes.range_mut(..all.len()), &all)?;
        let (text, talker) = (&omni.config.thinker.text, &omni.config.talker);
        let launch = || -> Result<(), OmniError> {
            let mut embedded = b.embedded.range_mut(..count * text.hidden);
            omni.thinker.look_up(gpu, b.ids.range(..count), &mut embedded)?;
            let mut inner = b.inner.range_mut(..count * talker.projection);
            let mut projected = b.projected.range_mut(..count * talker.text.hidden);
            omni.talker.project_words(gpu, embedded.as_slice(), &mut inner, &mut projected)?;
            let codes = Ids::ByToken(b.codes.range(..count * talker.code_groups));
            omni.talker.next_rows(gpu, codes, projected.as_slice(), &mut b.decode.input(count))?;
            let (step, buffers) = b.decode.parts();
            decoder.run(gpu, step, buffers, store, Extra::default())?;
            Ok(gpu.copy(b.decode.hidden(count), &mut frames.states(count))?)
        };
        gpu.step(b.steps.entry(count).or_default(), launch)?;
        advance(store, &mut segments);
        Ok(())
    }

    /// Rows before the first frame; the states of the last of those that draw follow those of the `before` others.
    fn open_answers(
        &mut self,
        store: &mut KvStore,
        shares: &mut [Talking<'_>],
        before: usize,
    ) -> Result<(), OmniError> {
        let Self { gpu, omni, talker: b, frames, .. } = self;
        let (mut all, mut positions, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for share in shares.iter() {
            if let Spoken::Opening { rows, positions: places } = &share.rows {
                all.extend_from_slice(rows);
                positions.extend_from_slice(places);
            }
            lengths.push(share.rows.rows());
        }
        let mut segments: Vec<_> = shares
            .iter_mut()
            .zip(&lengths)
            .map(|(share, rows)| Segment { rows: *rows, sequence: &mut *share.sequence })
            .collect();
        let decoder = &omni.talker.decoder;
        decoder.stage(gpu, &mut b.opening, store, &mut segments, &positions, Mode::PROMPT)?;
        gpu.write(&mut b.opening.input(positions.len()), &narrowed(&all))?;
        let (step, buffers) = b.opening.parts();
        decoder.run(gpu, step, buffers, store, Extra::default())?;
        advance(store, &mut segments);
        let width = omni.config.talker.text.hidden;
        let (mut at, mut count) = (0, before);
        for (share, rows) in shares.iter().zip(&lengths) {
            at += rows;
            if share.draw.is_some() {
                count += 1;
                let mut states = frames.states(count);
                gpu.copy(b.opening.row(at - 1), &mut states.range((count - 1) * width..))?;
            }
        }
        Ok(())
    }
}

fn narrowed(values: &[f32]) -> Vec<bf16> {
    values.iter().map(|&value| bf16::from_f32(value)).collect()
}

fn upload(gpu: &Gpu, values: &[f32]) -> Result<Buffer<bf16>, OmniError> {
    Ok(gpu.upload(&narrowed(values))?)
}

fn fetch(gpu: &Gpu, buffer: &Buffer<bf16>) -> Result<Vec<f32>, OmniError> {
    Ok(gpu.fetch(buffer.all())?.into_iter().map(bf16::to_f32).collect())
}

/// A token as the kernels take it; what is none has no embedding.
fn id(omni: &GpuOmni, token: Option<u32>) -> Result<i32, OmniError> {
    token.map_or(Ok(-1), |token| omni.thinker.id(token))
}

/// Rows of all prompts of a pass.
#[derive(Default)]
struct Pass {
    ids: Vec<i32>,
    positions: Vec<[f64; 3]>,
    media: Vec<f32>,
    /// Where the rows of media go.
    places: Vec<i32>,
    pictures: Vec<i32>,
    deepstack: Vec<Vec<f32>>,
}

impl Pass {
    fn append(&mut self, omni: &GpuOmni, rows: &Rows) -> Result<(), OmniError> {
        let first = self.ids.len();
        for (row, token) in rows.tokens.iter().enumerate() {
            if token.is_none() {
                self.places.push((first + row) as i32);
            }
            self.ids.push(id(omni, *token)?);
        }
        self.positions.extend_from_slice(&rows.positions);
        self.media.extend_from_slice(&rows.media);
        self.pictures.extend(rows.pictures.iter().map(|row| (first + row) as i32));
        self.deepstack.resize(self.deepstack.len().max(rows.deepstack.len()), Vec::new());
        self.deepstack.iter_mut().zip(&rows.deepstack).for_each(|(all, layer)| all.extend(layer));
        Ok(())
    }
}

impl Tower for OnDevice {
    fn shape(&self) -> &AudioConfig {
        &self.omni.config.thinker.audio
    }

    fn convolve(&mut self, mel: &[f32], padded: usize, rows: &mut Vec<f32>) -> Result<(), OmniError> {
        let AudioConfig { mels, hidden, .. } = self.omni.config.thinker.audio;
        let frames = mel.len() / mels;
        let padded = padded.max(frames);
        let mut planes = vec![bf16::ZERO; padded * mels * PLACE];
        planes.iter_mut().step_by(PLACE).zip(mel).for_each(|(place, value)| *place = bf16::from_f32(*value));
        let planes = self.gpu.upload(&planes)?;
        let all = fetch(&self.gpu, &self.omni.audio.convolve(&self.gpu, planes.all(), padded)?)?;
        rows.extend_from_slice(&all[..self.shape().tokens(frames) * hidden]);
        Ok(())
    }

    fn encode(&mut self, rows: &[f32], tokens: &mut Vec<f32>) -> Result<(), OmniError> {
        let count = rows.len() / self.shape().hidden;
        if count > 0 {
            let rows = upload(&self.gpu, rows)?;
            tokens.extend(fetch(&self.gpu, &self.omni.audio.encode(&self.gpu, rows.all(), count)?)?);
        }
        Ok(())
    }
}

impl Projections for OnDevice {
    fn words(&mut self, words: &[u32]) -> Result<Vec<f32>, OmniError> {
        let embedded = self.omni.thinker.embed(&self.gpu, words)?;
        fetch(&self.gpu, &self.omni.talker.project(&self.gpu, Side::Text, embedded.all())?)
    }

    fn states(&mut self, states: &[f32]) -> Result<Vec<f32>, OmniError> {
        let states = upload(&self.gpu, states)?;
        fetch(&self.gpu, &self.omni.talker.project(&self.gpu, Side::Hidden, states.all())?)
    }

    fn codes(&mut self, codes: &[u32]) -> Result<Vec<f32>, OmniError> {
        let ids = self.gpu.upload(&codes.iter().map(|&code| code as i32).collect::<Vec<_>>())?;
        let mut rows = self.gpu.allocate(codes.len() * self.omni.config.talker.text.hidden)?;
        self.omni.talker.add_codes(&self.gpu, ids.all(), None, &mut rows.all_mut())?;
        fetch(&self.gpu, &rows)
    }
}

impl Networks for OnDevice {
    fn think(&mut self, store: &mut KvStore, shares: &mut [Thinking<'_>]) -> Result<Vec<Outcome>, OmniError> {
        let before = shares.iter().take_while(|share| share.decodes).count();
        debug_assert!(shares[before..].iter().all(|share| !share.decodes), "those that decode come first");
        let vocabulary = self.omni.thinker.vocabulary();
        // Every conversation that decodes has a place; of prompts those that want a word.
        let wanted = || shares.iter().enumerate().filter(|(i, share)| *i < before || share.wish.is_some());
        let mut draws = Vec::new();
        for (place, (_, share)) in wanted().enumerate() {
            let greedy = Draw { params: Params::default(), seed: 0, position: 0 };
            draws.push(match &share.wish {
                Some(Wish::Draw { params, seed, place: position, drawn }) if Draw::is_known(params) => {
                    if params.repetition != 1.0 {
                        let each = words(vocabulary);
                        let mut bits = vec![0_u32; each];
                        drawn.iter().for_each(|word| bits[*word as usize / 32] |= 1 << (word % 32));
                        let mut seen = self.thinker.seen.range_mut(place * each..(place + 1) * each);
                        self.gpu.write(&mut seen, &bits)?;
                    }
                    Draw { params: *params, seed: *seed, position: *position }
                }
                _ => greedy,
            });
        }
        let places: Vec<usize> = wanted().map(|(index, _)| index).collect();
        if !draws.is_empty() {
            self.thinker.draws.set(&self.gpu, &draws)?;
        }
        let (decoding, reading) = shares.split_at_mut(before);
        if !decoding.is_empty() {
            self.decode_words(store, decoding)?;
        }
        let states = if reading.is_empty() { Vec::new() } else { self.read(store, reading, before)? };
        let mut outcomes: Vec<Outcome> = (0..before).map(|_| Outcome::default()).collect();
        outcomes.extend(states.into_iter().map(|states| Outcome { states, ahead: Ahead::Unknown }));
        let drawn = self.gpu.fetch(self.thinker.words.range(..places.len()))?;
        for (place, index) in places.into_iter().enumerate() {
            outcomes[index].ahead = match &shares[index].wish {
                None => Ahead::Unknown,
                Some(Wish::Draw { params, .. }) if Draw::is_known(params) => Ahead::Word(drawn[place] as u32),
                Some(_) => Ahead::Logits(place),
            };
        }
        Ok(outcomes)
    }

    fn logits(&mut self, index: usize) -> Result<&mut [f32], OmniError> {
        let vocabulary = self.omni.thinker.vocabulary();
        self.here = self.gpu.fetch(self.thinker.logits.range(index * vocabulary..(index + 1) * vocabulary))?;
        Ok(&mut self.here)
    }

    fn see(&mut self, patches: &Patches, seen: &mut Seen) -> Result<(), OmniError> {
        self.omni.vision.see(&self.gpu, &patches.values, patches.grid, seen)
    }

    fn talk(
        &mut self,
        store: &mut KvStore,
        ways: &Ways,
        shares: &mut [Talking<'_>],
    ) -> Result<Vec<Option<Vec<u32>>>, OmniError> {
        let before = shares.iter().take_while(|share| matches!(share.rows, Spoken::Frame { .. })).count();
        let groups = self.omni.config.talker.code_groups;
        let (speaking, opening) = shares.split_at_mut(before);
        if !speaking.is_empty() {
            self.decode_frames(store, speaking)?;
        }
        if !opening.is_empty() {
            self.open_answers(store, opening, before)?;
        }
        // Whoever speaks draws.
        let drawing: Vec<usize> = (0..shares.len()).filter(|i| *i < before || shares[*i].draw.is_some()).collect();
        let mut frames: Vec<Option<Vec<u32>>> = shares.iter().map(|_| None).collect();
        if drawing.is_empty() {
            return Ok(frames);
        }
        let mut draws = Vec::with_capacity(groups * drawing.len());
        for group in 0..groups {
            let params = if group == 0 { ways.first } else { ways.others };
            for index in &drawing {
                let (seed, place) = shares[*index].draw.as_ref().map_or((0, 0), |draw| (draw.seed, draw.place));
                draws.push(Draw { params, seed, position: place + group as u64 });
            }
        }
        for (place, index) in drawing.iter().enumerate() {
            if let Some(FrameDraw { codes, .. }) = &shares[*index].draw {
                self.frames.see(&self.gpu, place, codes)?;
            }
        }
        let count = drawing.len();
        let codes = self.frames.draw(&self.gpu, &self.omni.talker, count, &draws)?;
        for (place, index) in drawing.into_iter().enumerate() {
            if shares[index].draw.is_some() {
                frames[index] = Some((0..groups).map(|group| codes[group * count + place] as u32).collect());
            }
        }
        Ok(frames)
    }

    fn voice(&mut self) -> Result<Voice, OmniError> {
        Ok(Voice::Device(Box::new(self.omni.code2wav.voice(&self.gpu)?)))
    }

    fn speak(&mut self, voice: &mut Voice, frame: &[u32], pcm: &mut Vec<f32>) -> Result<(), OmniError> {
        let Voice::Device(voice) = voice else { return Err(stranger()) };
        self.omni.code2wav.push(&self.gpu, &mut self.vocoder, voice, frame, pcm)
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        0
    }
}
