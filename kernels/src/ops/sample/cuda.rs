//! Dispatch to the kernel of `sample.cu`.

use std::ops::Range;

use super::{Context, Params, Scratch, sample};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};

/// Most candidates of a draw.
pub const MAX_CANDIDATES: usize = 1024;
/// Words of a draw, as the kernel's `Draw`.
const WORDS: usize = 10;

/// How one row's token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Cuts and penalties. Presence and frequency are not known here.
    pub params: Params,
    /// Of the random numbers.
    pub seed: u64,
    /// Which of them.
    pub position: u64,
}

impl Draw {
    /// Whether the kernel can draw like this: without penalties for what the reply holds, and from no more than
    /// [`MAX_CANDIDATES`] tokens.
    pub fn is_known(params: &Params) -> bool {
        let bounded = params.temperature <= 0.0 || (1..=MAX_CANDIDATES).contains(&params.top_k);
        bounded && params.presence == 0.0 && params.frequency == 0.0
    }
}

/// The draws of a step, on a device. Where they lie does not change from step to step.
pub struct Draws {
    words: Buffer<u32>,
    known: Vec<Draw>,
}

/// Some of them.
#[derive(Clone, Copy)]
pub struct DrawRows<'a> {
    words: Slice<'a, u32>,
    known: &'a [Draw],
}

impl Draws {
    /// Draws for as many rows.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// As [`Draws::set`].
    pub fn new(gpu: &Gpu, draws: &[Draw]) -> Result<Self, DeviceError> {
        let mut all = Self::with_room(gpu, draws.len())?;
        all.set(gpu, draws)?;
        Ok(all)
    }

    /// Room for so many; [`Draws::set`] follows.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn with_room(gpu: &Gpu, rows: usize) -> Result<Self, DeviceError> {
        Ok(Self { words: gpu.allocate(rows * WORDS)?, known: Vec::new() })
    }

    /// All of them that were set.
    pub fn all(&self) -> DrawRows<'_> {
        self.rows(0..self.known.len())
    }

    /// Some of the rows that there is room for.
    pub fn rows(&self, rows: Range<usize>) -> DrawRows<'_> {
        let words = self.words.range(rows.start * WORDS..rows.end * WORDS);
        DrawRows { words, known: self.known.get(rows).unwrap_or(&[]) }
    }

    /// Other draws, for the first rows.
    ///
    /// # Errors
    /// As [`Gpu::write`].
    ///
    /// # Panics
    /// If the kernel cannot draw like one of them ([`Draw::is_known`]), or there is no room for all.
    pub fn set(&mut self, gpu: &Gpu, draws: &[Draw]) -> Result<(), DeviceError> {
        let words = |draw: &Draw| -> [u32; WORDS] {
            let p = &draw.params;
            assert!(Draw::is_known(p), "sample: {p:?}");
            let float = f32::to_bits;
            let halves = |v: u64| [v as u32, (v >> 32) as u32];
            let ([s0, s1], [p0, p1]) = (halves(draw.seed), halves(draw.position));
            let cuts = [float(p.temperature), float(p.top_p), float(p.min_p), float(p.repetition)];
            [cuts[0], cuts[1], cuts[2], cuts[3], p.top_k as u32, 0, s0, s1, p0, p1]
        };
        let words: Vec<u32> = draws.iter().flat_map(words).collect();
        gpu.write(&mut self.words.range_mut(..words.len()), &words)?;
        self.known.clear();
        self.known.extend_from_slice(draws);
        Ok(())
    }
}

/// Words that hold a bit for each token.
pub fn words(vocabulary: usize) -> usize {
    vocabulary.div_ceil(32)
}

/// Draws a token for each row. logits: `[rows, vocabulary]`. seen: `[rows, words]`, a bit for each token that the repetition
/// penalty is about. banned: `[words]`, a bit for each token that is never drawn. tokens: `[rows]`.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn sample_tokens<'a>(
    gpu: &Gpu,
    logits: Slice<'a, f32>,
    draws: DrawRows<'a>,
    seen: Option<Slice<'a, u32>>,
    banned: Option<Slice<'a, u32>>,
    tokens: &mut SliceMut<'_, i32>,
) -> Result<(), DeviceError> {
    let rows = draws.words.len() / WORDS;
    assert!(rows > 0 && tokens.len() == rows && logits.len().is_multiple_of(rows), "sample: {rows} rows");
    let vocabulary = logits.len() / rows;
    let words = words(vocabulary);
    assert!(vocabulary > 0 && seen.is_none_or(|s| s.len() == rows * words), "sample: {vocabulary} tokens, seen");
    assert!(banned.is_none_or(|banned| banned.len() == words), "sample: {vocabulary} tokens, banned");
    let args = Args::new().input(logits).input(draws.words).optional_input(seen).optional_input(banned);
    let args = args.output(tokens).size(vocabulary);
    // SAFETY: the arguments are the kernel's, and lengths were checked.
    unsafe { gpu.launch(&Launch::new("sample_token", [rows, 1, 1], 512, &args))? };
    gpu.verify("sample", |checks| {
        let bits = |slice: Option<Slice<'_, u32>>| slice.map(|slice| gpu.fetch(slice)).transpose();
        let (seen, banned) = (bits(seen)?, bits(banned)?);
        let has = |words: &[u32], token: usize| words[token / 32] >> (token % 32) & 1 == 1;
        let (mut expected, mut scratch) = (Vec::new(), Scratch::default());
        for (row, (logits, draw)) in gpu.fetch(logits)?.chunks(vocabulary).zip(draws.known).enumerate() {
            let mut logits = logits.to_vec();
            if let Some(banned) = &banned {
                let all = logits.iter_mut().enumerate().filter(|(token, _)| has(banned, *token));
                all.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
            }
            let seen = seen.as_ref().map(|seen| &seen[row * words..(row + 1) * words]);
            let seen: Vec<u32> =
                (0..vocabulary as u32).filter(|&t| seen.is_some_and(|seen| has(seen, t as usize))).collect();
            let context = Context { seen: &seen, reply: &[] };
            let token = sample(&mut scratch, &mut logits, &draw.params, context, draw.seed, draw.position);
            expected.push(token as i32);
        }
        checks.equal("tokens", &gpu.fetch(tokens.as_slice())?, &expected);
        Ok(())
    })
}
