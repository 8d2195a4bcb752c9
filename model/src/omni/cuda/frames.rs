//! Frames of several answers at once: from the talker's states to all codes, sampled on the device.
//!
//! A frame is one draw of the talker and a pass of the code predictor for each of its other codes. Nothing of it needs the
//! host, so all of its launches are recorded once for each number of answers and run again as one.

use std::collections::BTreeMap;

use causerie_kernels::cuda::{Buffer, Gpu, Recording, Slice, SliceMut};
use causerie_kernels::ops::paged_attention;
use causerie_kernels::ops::paged_attention::cuda::BLOCK;
use causerie_kernels::ops::sample::cuda::{Draw, Draws, sample_tokens, words};
use causerie_kernels::ops::scatter::cuda::scatter;
use half::bf16;

use super::decoder::{Extra, Mode, Room, Step, Work};
use super::talker::Talker;
use crate::omni::OmniError;
use crate::omni::kv::KvStore;

/// Ids at the end of the talker's vocabulary that are never codes; the end of speech is among them, and allowed.
const SPECIAL_IDS: usize = 1024;

/// Looks at a code's logits, and may put other codes in the place of those that were drawn: its group and both.
pub type Watch<'a> = dyn FnMut(usize, Slice<'_, f32>, &mut SliceMut<'_, i32>) -> Result<(), OmniError> + 'a;

/// Memory and buffers for frames of several answers at once.
pub struct Frames {
    store: KvStore,
    /// One block or a few for each answer.
    tables: Vec<Vec<u32>>,
    work: Work,
    /// `[answers, hidden]`: the talker's states.
    states: Buffer<bf16>,
    embedded: Buffer<bf16>,
    last: Buffer<bf16>,
    talker_logits: Buffer<f32>,
    predictor_logits: Buffer<f32>,
    /// `[groups, answers]`.
    codes: Buffer<i32>,
    draws: Draws,
    /// A bit for each code of an answer so far.
    seen: Buffer<u32>,
    /// A bit for each id that is no code.
    banned: Buffer<u32>,
    programs: BTreeMap<usize, Program>,
    hidden: usize,
    groups: usize,
}

/// What depends on nothing but the number of answers.
struct Program {
    /// The predictor's passes.
    steps: Vec<Step>,
    /// Where the talker's states and the first codes go among the rows of the first pass.
    places: [Buffer<i32>; 2],
    recording: Option<Recording>,
}

impl Frames {
    /// Room for frames of `most` answers at once.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn new(gpu: &Gpu, talker: &Talker, most: usize) -> Result<Self, OmniError> {
        let config = talker.config();
        let (hidden, groups, vocabulary) = (config.text.hidden, config.code_groups, config.text.vocabulary);
        // A frame is the talker's state and all codes but the last.
        let blocks = groups.div_ceil(BLOCK);
        let table = |answer: usize| (answer * blocks..(answer + 1) * blocks).map(|block| block as u32).collect();
        let room = Room { rows: 2 * most, sequences: most, pages: most * blocks, shares: 1 };
        let mut banned = vec![0_u32; words(vocabulary)];
        let special = (vocabulary.saturating_sub(SPECIAL_IDS)..vocabulary).filter(|id| *id != config.ids.eos as usize);
        special.for_each(|id| banned[id / 32] |= 1 << (id % 32));
        Ok(Self {
            store: talker.predictor.store(gpu, most * blocks)?,
            tables: (0..most).map(table).collect(),
            work: talker.predictor.work(gpu, room)?,
            states: gpu.allocate(most * hidden)?,
            embedded: gpu.allocate(most * hidden)?,
            last: gpu.allocate(most * hidden)?,
            talker_logits: gpu.allocate(most * vocabulary)?,
            predictor_logits: gpu.allocate(most * config.predictor.vocabulary)?,
            codes: gpu.allocate(groups * most)?,
            draws: Draws::with_room(gpu, groups * most)?,
            seen: gpu.zeros(most * words(vocabulary))?,
            banned: gpu.upload(&banned)?,
            programs: BTreeMap::new(),
            hidden,
            groups,
        })
    }

    /// Where the talker's states of `count` answers go.
    pub fn states(&mut self, count: usize) -> SliceMut<'_, bf16> {
        self.states.range_mut(..count * self.hidden)
    }

    /// Codes of `count` answers so far, a bit each: of the answer at `index`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn see(&mut self, gpu: &Gpu, index: usize, codes: &[u32]) -> Result<(), OmniError> {
        let each = self.banned.len();
        let mut bits = vec![0_u32; each];
        codes.iter().for_each(|code| bits[*code as usize / 32] |= 1 << (code % 32));
        Ok(gpu.write(&mut self.seen.range_mut(index * each..(index + 1) * each), &bits)?)
    }

    /// Draws the frames that follow the states of `count` answers: `[groups, count]`. `draws` is in the same order.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`] for more answers than there is room for, or [`OmniError::Device`].
    pub fn draw(&mut self, gpu: &Gpu, talker: &Talker, count: usize, draws: &[Draw]) -> Result<Vec<i32>, OmniError> {
        self.draws.set(gpu, draws)?;
        let mut program = self.program(gpu, count)?;
        let mut recording = program.recording.take();
        gpu.step(&mut recording, || self.launch(gpu, talker, &program, count, None))?;
        program.recording = recording;
        self.programs.insert(count, program);
        Ok(gpu.fetch(self.codes.range(..self.groups * count))?)
    }

    /// As [`Frames::draw`], one launch after another, with somebody who looks on.
    ///
    /// # Errors
    /// As [`Frames::draw`].
    pub fn watched(
        &mut self,
        gpu: &Gpu,
        talker: &Talker,
        count: usize,
        draws: &[Draw],
        watch: &mut Watch<'_>,
    ) -> Result<Vec<i32>, OmniError> {
        self.draws.set(gpu, draws)?;
        let program = self.program(gpu, count)?;
        self.launch(gpu, talker, &program, count, Some(watch))?;
        self.programs.insert(count, program);
        Ok(gpu.fetch(self.codes.range(..self.groups * count))?)
    }

    /// Takes the program for `count` answers out, or makes it.
    fn program(&mut self, gpu: &Gpu, count: usize) -> Result<Program, OmniError> {
        if count > self.tables.len() {
            return Err(OmniError::NoRoom { wanted: count, free: self.tables.len() });
        }
        if let Some(program) = self.programs.remove(&count) {
            return Ok(program);
        }
        let blocks = self.tables.first().map_or(0, Vec::len);
        let step = |group: usize| {
            let (each, from) = if group == 0 { (2, 0) } else { (1, group + 1) };
            let room = Room { rows: each * count, sequences: count, pages: count * blocks, shares: 1 };
            let mut step = Step::with_room(gpu, room)?;
            let positions: Vec<_> = (0..count).flat_map(|_| (from..from + each).map(|p| [p as f64; 3])).collect();
            let sequence = |table| paged_attention::Sequence { table, keys: from + each, queries: each };
            let sequences: Vec<_> = self.tables[..count].iter().map(|table| sequence(table)).collect();
            step.set(gpu, &sequences, &positions, Mode::decoding(1))?;
            Ok::<_, OmniError>(step)
        };
        let place = |second: i32| gpu.upload(&(0..count as i32).map(|i| 2 * i + second).collect::<Vec<_>>());
        Ok(Program {
            steps: (0..self.groups - 1).map(step).collect::<Result<_, _>>()?,
            places: [place(0)?, place(1)?],
            recording: None,
        })
    }

    fn launch(
        &mut self,
        gpu: &Gpu,
        talker: &Talker,
        program: &Program,
        count: usize,
        mut watch: Option<&mut Watch<'_>>,
    ) -> Result<(), OmniError> {
        let Self { store, work, states, embedded, last, codes, draws, seen, banned, hidden, .. } = self;
        let hidden = *hidden;
        let (vocabulary, codebook) = (talker.config().text.vocabulary, talker.config().predictor.vocabulary);
        let states = states.range(..count * hidden);
        let mut logits = self.talker_logits.range_mut(..count * vocabulary);
        talker.logits(gpu, states, &mut logits)?;
        let seen = seen.range(..count * words(vocabulary));
        let mut first = codes.range_mut(..count);
        sample_tokens(gpu, logits.as_slice(), draws.rows(0..count), Some(seen), Some(banned.all()), &mut first)?;
        if let Some(watch) = watch.as_deref_mut() {
            watch(0, logits.as_slice(), &mut first)?;
        }
        let mut embedded = embedded.range_mut(..count * hidden);
        talker.embed_codes(gpu, 0, first.as_slice(), &mut embedded)?;
        let [of_states, of_codes] = &program.places;
        scatter(gpu, states, of_states.all(), hidden, false, &mut work.input(2 * count))?;
        scatter(gpu, embedded.as_slice(), of_codes.all(), hidden, false, &mut work.input(2 * count))?;
        for (group, step) in program.steps.iter().enumerate() {
            let buffers = work.buffers();
            talker.predictor.run(gpu, step, buffers, store, Extra::default())?;
            let state = if group == 0 {
                for i in 0..count {
                    let to = &mut last.range_mut(i * hidden..(i + 1) * hidden);
                    gpu.copy(buffers.hidden(2 * i + 1..2 * i + 2), to)?;
                }
                last.range(..count * hidden)
            } else {
                buffers.hidden(0..count)
            };
            let mut logits = self.predictor_logits.range_mut(..count * codebook);
            talker.code_logits(gpu, group, state, &mut logits)?;
            let range = (group + 1) * count..(group + 2) * count;
            let mut chosen = codes.range_mut(range.clone());
            sample_tokens(gpu, logits.as_slice(), draws.rows(range), None, None, &mut chosen)?;
            if let Some(watch) = watch.as_deref_mut() {
                watch(group + 1, logits.as_slice(), &mut chosen)?;
            }
            // The last code is no row of the predictor.
            if group + 1 < program.steps.len() {
                talker.embed_codes(gpu, group + 1, chosen.as_slice(), &mut buffers.input(count))?;
            }
        }
        Ok(())
    }
}
