//! How long whole steps take on a device, with weights that are drawn there: the engine's own passes over the networks, from
//! the host's clock, which is what a listener waits for.

use std::time::Instant;

use causerie_kernels::cuda::Gpu;
use causerie_kernels::ops::sample::Params;

use super::networks::{FrameDraw, Networks, OnDevice, Rows, Sizes, Spoken, Talking, Thinking, Ways, Wish};
use crate::omni::OmniError;
use crate::omni::audio::AudioStream;
use crate::omni::config::Config;
use crate::omni::cuda::GpuOmni;
use crate::omni::kv::{KvStore, KvType, Layout, Sequence};
use crate::omni::plan::BLOCK;
use crate::omni::talker::Projections as _;

/// Words of the prompt around what was heard, for a first packet.
const PROMPT_WORDS: usize = 8;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Extent {
    /// Conversations at once.
    pub batches: Vec<usize>,
    /// Words that a conversation holds before.
    pub context: usize,
    /// Times that a step is run; the middle one counts.
    pub repeats: usize,
    /// Seed of the weights.
    pub seed: u64,
}

/// One line of a table.
#[derive(Clone, Debug)]
pub struct Measured {
    /// What was done.
    pub step: &'static str,
    /// For how many conversations.
    pub batch: usize,
    /// Milliseconds.
    pub milliseconds: f64,
}

/// Measures: a word of the thinker, a frame of the talker with the code predictor, a frame of the vocoder, and everything from
/// a second of speech to the first sound.
///
/// # Errors
/// [`OmniError::Device`].
pub fn measure(gpu: &Gpu, config: &Config, extent: &Extent) -> Result<Vec<Measured>, OmniError> {
    let most = extent.batches.iter().copied().max().unwrap_or(1);
    let positions = extent.context + 256;
    let sizes = Sizes { sessions: most, rows: 256, context: positions, spoken: positions };
    let layout = |layers: usize, width: usize| Layout {
        kind: KvType::Bf16,
        layers,
        width,
        block: BLOCK,
        blocks: most * positions.div_ceil(BLOCK),
    };
    let (text, talker) = (&config.thinker.text, &config.talker.text);
    let all = super::Visible::All;
    let mut bench = Bench {
        networks: OnDevice::new(gpu.clone(), GpuOmni::drawn(gpu, config.clone(), extent.seed)?, sizes)?,
        thinker: KvStore::on_device(gpu, layout(text.layers, text.kv_width()), all)?,
        talker: KvStore::on_device(gpu, layout(talker.layers, talker.kv_width()), all)?,
        config,
        repeats: extent.repeats,
        words: 0,
    };
    let mut measured = Vec::new();
    for &batch in &extent.batches {
        let mut line = |step, milliseconds| measured.push(Measured { step, batch, milliseconds });
        line("thinker, a word", bench.words(batch, extent.context)?);
        line("talker, a frame", bench.frames(batch, extent.context)?);
        line("vocoder, a frame", bench.sounds(batch)?);
        line("first packet", bench.first_packet(batch)?);
    }
    Ok(measured)
}

struct Bench<'a> {
    networks: OnDevice,
    thinker: KvStore,
    talker: KvStore,
    config: &'a Config,
    repeats: usize,
    /// Numbers draws.
    words: u64,
}

/// The middle of some durations of `step`, in milliseconds; the first, which makes what the others use, does not count.
fn median(repeats: usize, mut step: impl FnMut() -> Result<(), OmniError>) -> Result<f64, OmniError> {
    step()?;
    let mut times = Vec::new();
    for _ in 0..repeats.max(1) {
        let began = Instant::now();
        step()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

impl Bench<'_> {
    fn sequences(store: &mut KvStore, batch: usize, len: usize) -> Result<Vec<Sequence>, OmniError> {
        (0..batch)
            .map(|_| {
                let mut sequence = Sequence::default();
                store.reserve(&mut sequence, len)?;
                store.advance(&mut sequence, len);
                Ok(sequence)
            })
            .collect()
    }

    fn wish(&mut self) -> Wish {
        self.words += 1;
        let params = Params { temperature: 0.7, top_k: 20, top_p: 0.8, ..Params::default() };
        Wish::Draw { params, seed: 1, place: self.words, drawn: Vec::new() }
    }

    /// A word of each conversation, which holds `context` others.
    fn words(&mut self, batch: usize, context: usize) -> Result<f64, OmniError> {
        let mut sequences = Self::sequences(&mut self.thinker, batch, context)?;
        let time = median(self.repeats, || {
            let wishes: Vec<Wish> = (0..batch).map(|_| self.wish()).collect();
            let mut shares: Vec<Thinking<'_>> = sequences
                .iter_mut()
                .zip(wishes)
                .map(|(sequence, wish)| {
                    let positions = vec![[sequence.len() as f64; 3]];
                    let rows = Rows { tokens: vec![Some(7)], positions, ..Rows::default() };
                    Thinking { sequence, rows, decodes: true, wish: Some(wish) }
                })
                .collect();
            self.networks.think(&mut self.thinker, &mut shares).map(drop)
        });
        sequences.iter_mut().for_each(|sequence| self.thinker.release(sequence));
        time
    }

    fn ways() -> Ways {
        let params = |top_p, repetition| Params { temperature: 0.9, top_k: 50, top_p, repetition, ..Params::default() };
        Ways { first: params(1.0, 1.05), others: params(0.8, 1.0) }
    }

    /// A frame of each answer, which holds `context` others.
    fn frames(&mut self, batch: usize, context: usize) -> Result<f64, OmniError> {
        let mut sequences = Self::sequences(&mut self.talker, batch, context)?;
        let groups = self.config.talker.code_groups;
        let time = median(self.repeats, || {
            self.words += 64;
            let place = self.words;
            let mut shares: Vec<Talking<'_>> = sequences
                .iter_mut()
                .map(|sequence| {
                    let position = [sequence.len() as f64; 3];
                    let rows = Spoken::Frame { codes: vec![1; groups], word: 7, position };
                    Talking { sequence, rows, draw: Some(FrameDraw { seed: 2, place, codes: vec![1] }) }
                })
                .collect();
            self.networks.talk(&mut self.talker, &Self::ways(), &mut shares).map(drop)
        });
        sequences.iter_mut().for_each(|sequence| self.talker.release(sequence));
        time
    }

    /// A frame of sound of each answer.
    fn sounds(&mut self, batch: usize) -> Result<f64, OmniError> {
        let mut voices = (0..batch).map(|_| self.networks.voice()).collect::<Result<Vec<_>, _>>()?;
        let frame = vec![1; self.config.talker.code_groups];
        let mut pcm = Vec::new();
        median(self.repeats, || {
            pcm.clear();
            voices.iter_mut().try_for_each(|voice| self.networks.speak(voice, &frame, &mut pcm))
        })
    }

    /// From a second of speech of each conversation to the first sound of the last answer: the tower, the prompt, a word, the
    /// opening, a frame, its sound.
    fn first_packet(&mut self, batch: usize) -> Result<f64, OmniError> {
        median(self.repeats.min(5), || {
            let audio = &self.config.thinker.audio;
            let mel = vec![0.1; audio.chunk * audio.mels];
            let width = self.config.thinker.text.hidden;
            let mut thought = Self::sequences(&mut self.thinker, batch, 0)?;
            let mut spoken = Self::sequences(&mut self.talker, batch, 0)?;
            let mut heard = Vec::new();
            for _ in 0..batch {
                let (mut stream, mut tokens) = (AudioStream::default(), Vec::new());
                stream.push(&mut self.networks, &mel, &mut tokens)?;
                stream.flush(&mut self.networks, &mut tokens)?;
                heard.push(tokens);
            }
            // As many prompts a pass as there is room for.
            let rows = heard.first().map_or(0, Vec::len) / width + PROMPT_WORDS;
            let together = (256 / rows).max(1);
            for (thought, heard) in thought.chunks_mut(together).zip(heard.chunks(together)) {
                let wishes: Vec<Wish> = thought.iter().map(|_| self.wish()).collect();
                let mut shares: Vec<Thinking<'_>> = thought
                    .iter_mut()
                    .zip(heard)
                    .zip(wishes)
                    .map(|((sequence, media), wish)| {
                        let mut tokens = vec![None; rows - PROMPT_WORDS];
                        tokens.extend([Some(7); PROMPT_WORDS]);
                        let positions = (0..rows).map(|position| [position as f64; 3]).collect();
                        let rows = Rows { tokens, positions, media: media.clone(), ..Rows::default() };
                        Thinking { sequence, rows, decodes: false, wish: Some(wish) }
                    })
                    .collect();
                self.networks.think(&mut self.thinker, &mut shares)?;
            }
            let opening = self.networks.words(&[7; PROMPT_WORDS + 9])?;
            let mut frames = Vec::new();
            for spoken in spoken.chunks_mut((256 / (PROMPT_WORDS + 9)).max(1)) {
                self.words += 64;
                let place = self.words;
                let mut shares: Vec<Talking<'_>> = spoken
                    .iter_mut()
                    .map(|sequence| {
                        let positions = (0..PROMPT_WORDS + 9).map(|position| [position as f64; 3]).collect();
                        let rows = Spoken::Opening { rows: opening.clone(), positions };
                        Talking { sequence, rows, draw: Some(FrameDraw { seed: 2, place, codes: Vec::new() }) }
                    })
                    .collect();
                frames.extend(self.networks.talk(&mut self.talker, &Self::ways(), &mut shares)?);
            }
            let codebook = self.config.code2wav.codebook as u32;
            let mut pcm = Vec::new();
            for frame in frames.into_iter().flatten() {
                let mut voice = self.networks.voice()?;
                // A drawn network may draw the end of speech, which is no code.
                let frame: Vec<u32> = frame.into_iter().map(|code| code % codebook).collect();
                self.networks.speak(&mut voice, &frame, &mut pcm)?;
            }
            thought.iter_mut().for_each(|sequence| self.thinker.release(sequence));
            spoken.iter_mut().for_each(|sequence| self.talker.release(sequence));
            Ok(())
        })
    }
}
