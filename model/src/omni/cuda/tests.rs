//! The tiny checkpoint on the emulated device: words and sound in, speech out. Words and codes are those that were recorded
//! of the reference implementation.
//!
//! Every launch is compared with its op's reference, which rounds where the kernel rounds, on the same inputs. What comes
//! out is compared with the recorded results, which were computed in f32: it may be as far from them as so many roundings to
//! bf16 make likely. And launches are counted op by op, against what the configuration says: nothing is computed elsewhere.

use std::collections::BTreeMap;

use causerie_kernels::cuda::emulator::Emulator;
use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::embedding::cuda::Ids;
use causerie_kernels::ops::gemm::cuda::Way;
use causerie_kernels::ops::log_mel::cuda::PLACE;
use causerie_kernels::ops::sample::Params;
use causerie_kernels::ops::sample::cuda::Draw;
use half::bf16;

use super::frames::Frames;
use super::talker::Side;
use super::{Extra, GpuOmni, Input, Mode, Room};
use crate::omni::config::FeedForwardConfig;
use crate::omni::decoder::Segment;
use crate::omni::kv::Sequence;
use crate::omni::parity::Case;
use crate::omni::positions::Grid;
use crate::omni::tests::tiny;
use crate::omni::vision::Seen;

/// The voice of the recorded speech.
const SPEAKER: &str = "ethan";
/// Roundings of a word on its way to the talker: its embedding, two matrices and what comes of each.
const WORD: usize = 1 + 4;
/// Frames of speech that are computed; each runs the predictor 15 times.
const FRAMES: usize = 3;

struct Bench {
    gpu: Gpu,
    omni: GpuOmni,
    cases: Vec<Case>,
}

fn open() -> Bench {
    let gpu = Gpu::verifying(Emulator::of_all_ops(3).unwrap());
    let omni = GpuOmni::load(&gpu, &tiny()).unwrap();
    Bench { gpu, omni, cases: Case::all(&tiny()).unwrap() }
}

impl Bench {
    fn case(&self, name: &str) -> &Case {
        self.cases.iter().find(|case| case.name() == name).unwrap()
    }

    fn wide(&self, slice: Slice<'_, bf16>) -> Vec<f32> {
        self.gpu.fetch(slice).unwrap().into_iter().map(bf16::to_f32).collect()
    }

    /// No launch differed from its reference, and these were all launches there were.
    fn all_verified(&self, expected: &Launches) {
        let found = self.gpu.findings();
        assert!(found.failures.is_empty(), "{}", found.failures.join("\n"));
        let mut launched = Launches::default();
        for (kernel, count) in self.gpu.launches() {
            if let Some(op) = op_of(kernel) {
                launched.add(op, count as usize);
            }
        }
        assert_eq!(launched.0, expected.0);
        for (op, count) in &expected.0 {
            // Sorting by experts is two kernels and one comparison.
            let compared = if *op == "experts" { count / 3 * 2 } else { *count };
            assert_eq!(found.comparisons.get(op), Some(&(compared as u64)), "comparisons of {op}");
        }
    }
}

/// Launches of each op.
#[derive(Debug, Default)]
struct Launches(BTreeMap<&'static str, usize>);

impl Launches {
    fn add(&mut self, op: &'static str, count: usize) -> &mut Self {
        *self.0.entry(op).or_default() += count;
        self
    }

    /// `passes` passes through a decoder.
    fn decoder(&mut self, feed_forward: FeedForwardConfig, layers: usize, passes: usize) -> &mut Self {
        let times = layers * passes;
        // Queries, keys and values; the output.
        self.add("gemm", 2 * times).add("norm_rope", times + passes).add("paged_attention", times);
        self.add("rms_norm", 2 * times + passes);
        match feed_forward {
            FeedForwardConfig::Dense { .. } => self.add("gemm", 2 * times),
            FeedForwardConfig::Experts { shared, .. } => {
                // Router, gates with inputs, outputs; the same of a shared expert, which has a gate of its own.
                self.add("gemm", (3 + if shared.is_some() { 3 } else { 0 }) * times);
                self.add("router", times).add("experts", 3 * times)
            }
        }
    }
}

/// The op that a kernel is the main one of; `None` for one that only follows another.
fn op_of(kernel: &str) -> Option<&'static str> {
    const OPS: [(&str, &str); 17] = [
        ("gemm_", "gemm"),
        ("attention_64", "paged_attention"),
        ("attention_128", "paged_attention"),
        ("rope_turns", "norm_rope"),
        ("norm_rope_append", "norm_rope"),
        ("rms_norm", "rms_norm"),
        ("layer_norm", "layer_norm"),
        ("router_top_k", "router"),
        ("expert_", "experts"),
        ("embedding_sum", "embedding"),
        ("scatter", "scatter"),
        ("sample_token", "sample"),
        ("conv2d", "conv2d"),
        ("conv1d", "conv1d"),
        ("depthwise_conv1d", "depthwise_conv1d"),
        ("snake_beta", "snake_beta"),
        ("log_mel", "log_mel"),
    ];
    if kernel == "attention_merge" {
        return None;
    }
    let op = OPS.iter().find(|(name, _)| kernel.starts_with(name));
    Some(op.unwrap_or_else(|| panic!("kernel {kernel} belongs to no op that is counted")).1)
}

/// The length of the difference over the length of what is expected.
fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let length = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let difference = length(&mut got.iter().zip(want).map(|(g, w)| f64::from(g - w)));
    difference / length(&mut want.iter().map(|w| f64::from(*w)))
}

/// How far results may be from those without rounding, when `roundings` follow each other, of weights and of results.
///
/// Rounding to bf16 moves a value by up to 2⁻⁸ of its power of two: over all mantissas, by a root mean square of
/// 2⁻⁸ / √3 · √(3 / (8 ln 2)) of itself. Errors of independent roundings add up as squares, and four times their expected
/// length is allowed, as in [`Tolerance`](causerie_kernels::cuda::check::Tolerance::summing): layers make what differs
/// larger now and then.
fn allowed(roundings: usize) -> f64 {
    let one = (3.0 / (8.0 * 2.0_f64.ln())).sqrt() / 3.0_f64.sqrt() / 256.0;
    4.0 * one * (roundings as f64).sqrt()
}

/// Roundings of a decoder's layers and final norm: for each branch the norm's weights and result, the first matrix and its
/// result, what is made of that, the second matrix and its result, and the sum; queries and keys have norms of their own, and
/// experts are weighed.
fn of_decoder(layers: usize) -> usize {
    (8 + 2 + 8 + 1) * layers + 2
}

fn near(what: &str, got: &[f32], want: &[f32], roundings: usize) {
    let (distance, allowed) = (distance(got, want), allowed(roundings));
    println!("{what}: {distance:.4} of {allowed:.4} for {roundings} roundings");
    assert!(distance < allowed, "{what}: {distance} from the recorded values, {allowed} for {roundings} roundings");
}

/// The experts that the reference implementation chose: for each layer `[rows, top_k]`.
fn routes(b: &Bench, case: &Case) -> Vec<Vec<i32>> {
    let FeedForwardConfig::Experts { experts, top_k, .. } = b.omni.config.thinker.text.feed_forward else {
        panic!("the thinker has experts");
    };
    let logits = case.floats("out.router_logits").unwrap();
    let likeliest = |logits: &[f32]| {
        let mut order: Vec<i32> = (0..experts as i32).collect();
        order.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        order.truncate(top_k);
        order
    };
    let layers = logits.chunks(logits.len() / b.omni.config.thinker.text.layers);
    layers.map(|layer| layer.chunks(experts).flat_map(likeliest).collect()).collect()
}

/// Hidden states and logits of all rows of a prompt, with those experts, or with the router's own.
fn think(b: &Bench, rows: Slice<'_, bf16>, tokens: usize, routes: Option<&[Vec<i32>]>) -> (Vec<f32>, Vec<f32>) {
    let (gpu, thinker) = (&b.gpu, &b.omni.thinker);
    let blocks = tokens.div_ceil(16) + 1;
    let mut store = thinker.decoder.store(gpu, blocks).unwrap();
    let room = Room { rows: tokens, sequences: 1, pages: blocks, shares: 8 };
    let (mut work, mut sequence) = (thinker.decoder.work(gpu, room).unwrap(), Sequence::default());
    // A prefix first and the rest behind it.
    let cut = tokens - 3;
    let mut hidden = Vec::new();
    let mut logits = Vec::new();
    for (from, until) in [(0, cut), (cut, tokens)] {
        let count = until - from;
        let positions: Vec<_> = (from..until).map(|p| [p as f64; 3]).collect();
        let width = thinker.hidden();
        let embeddings = rows.range(from * width..until * width);
        let routes: Option<Vec<Buffer<i32>>> = routes.map(|layers| {
            let part = |layer: &Vec<i32>| {
                let top_k = layer.len() / tokens;
                gpu.upload(&layer[from * top_k..until * top_k]).unwrap()
            };
            layers.iter().map(part).collect()
        });
        let (keep, routes) = (Some(2), routes.as_deref());
        let extra = Extra { keep, routes, ..Extra::default() };
        let input = Input { embeddings, positions: &positions, mode: Mode::default(), extra };
        let mut segments = [Segment { sequence: &mut sequence, rows: count }];
        thinker.decoder.forward(gpu, &mut work, &mut store, &mut segments, input).unwrap();
        let mut out: Buffer<f32> = gpu.allocate(count * thinker.vocabulary()).unwrap();
        thinker.logits(gpu, work.hidden(count), Way::ByTokens, &mut out.all_mut()).unwrap();
        hidden.extend(b.wide(work.hidden(count)));
        logits.extend(out.read().unwrap());
    }
    store.release(&mut sequence);
    (hidden, logits)
}

#[test]
fn words_are_thought_about() {
    let b = open();
    let case = b.case("text");
    let tokens = case.tokens("in.input_ids").unwrap();
    let rows = b.omni.thinker.embed(&b.gpu, &tokens).unwrap();
    let (hidden, logits) = think(&b, rows.all(), tokens.len(), Some(&routes(&b, case)));
    let states = case.floats("out.hidden_states").unwrap();
    let text = &b.omni.config.thinker.text;
    // The embeddings; and the matrix behind the last state.
    let roundings = 1 + of_decoder(text.layers);
    near("hidden", &hidden, &states[states.len() - hidden.len()..], roundings);
    near("logits", &logits, &case.floats("out.logits").unwrap(), roundings + 1);
    // The router's own choice, which its reference makes too. Where two experts are nearly as likely it is not that of the
    // recorded run, so that there is nothing to compare the states with.
    let (own, _) = think(&b, rows.all(), tokens.len(), None);
    assert!(own.iter().all(|value| value.is_finite()));
    let mut expected = Launches::default();
    expected.add("embedding", 1).decoder(text.feed_forward, text.layers, 4).add("gemm", 4);
    b.all_verified(&expected);
}

#[test]
fn sound_is_heard_and_thought_about() {
    let b = open();
    let case = b.case("audio");
    let mel = case.floats("in.input_features").unwrap();
    let mels = b.omni.config.thinker.audio.mels;
    let frames = mel.len() / mels;
    let mut planes = vec![bf16::ZERO; b.omni.audio.padded(frames) * mels * PLACE];
    for (i, value) in mel.iter().enumerate() {
        planes[(i % frames * mels + i / frames) * PLACE] = bf16::from_f32(*value);
    }
    let planes = b.gpu.upload(&planes).unwrap();
    let heard = b.omni.audio.hear(&b.gpu, planes.all(), frames).unwrap();
    let audio = &b.omni.config.thinker.audio;
    // The frames; of each convolution the weights and the result; the projection and its sum with the positions; in each
    // layer two norms of three, and two branches of two matrices and what is between them; a norm and two matrices.
    let roundings = 1 + 3 * 2 + 3 + (2 * 3 + 5 + 4) * audio.layers + 3 + 4;
    near("heard", &b.wide(heard.all()), &case.floats("out.audio_embeds").unwrap(), roundings);

    let tokens = case.tokens("in.input_ids").unwrap();
    let places = tokens.iter().enumerate().filter(|(_, t)| **t == b.omni.config.thinker.media.audio);
    let places = b.gpu.upload(&places.map(|(place, _)| place as i32).collect::<Vec<_>>()).unwrap();
    let mut rows = b.omni.thinker.embed(&b.gpu, &tokens).unwrap();
    let width = b.omni.thinker.hidden();
    let scatter = causerie_kernels::ops::scatter::cuda::scatter;
    scatter(&b.gpu, heard.all(), places.all(), width, false, &mut rows.all_mut()).unwrap();
    let (_, logits) = think(&b, rows.all(), tokens.len(), Some(&routes(&b, case)));
    let text = &b.omni.config.thinker.text;
    let roundings = roundings + of_decoder(text.layers) + 1;
    near("logits", &logits, &case.floats("out.logits").unwrap(), roundings);
    let chunks = frames.div_ceil(audio.chunk);
    let mut expected = Launches::default();
    expected.add("conv2d", 3).add("gemm", chunks + 4 * audio.layers + 2).add("layer_norm", 2 * audio.layers + 1);
    expected.add("paged_attention", audio.layers).add("embedding", 1).add("scatter", 1);
    expected.decoder(text.feed_forward, text.layers, 2).add("gemm", 2);
    b.all_verified(&expected);
}

#[test]
fn pictures_are_seen() {
    let b = open();
    let case = b.case("image");
    let (sides, patches) = (case.tokens("in.image_grid_thw").unwrap(), case.floats("in.pixel_values").unwrap());
    let vision = &b.omni.config.thinker.vision;
    let (mut seen, mut rest, mut grids) = (Seen::default(), patches.as_slice(), 0);
    for sides in sides.chunks_exact(3) {
        let grid = Grid { frames: sides[0] as usize, height: sides[1] as usize, width: sides[2] as usize };
        let (these, others) = rest.split_at(grid.patches() * vision.patch_values());
        b.omni.vision.see(&b.gpu, these, grid, &mut seen).unwrap();
        (rest, grids) = (others, grids + grid.frames);
    }
    // Patches, the matrix and its sum with the positions; layers as those of the audio tower, with queries and keys that
    // turn; a norm and two matrices.
    let roundings = 1 + 3 + (2 * 3 + 5 + 1 + 4) * vision.layers + 3 + 4;
    near("seen", &seen.tokens, &case.floats("out.vision_embeds").unwrap(), roundings);
    near("features", &seen.deepstack.concat(), &case.floats("out.vision_deepstack").unwrap(), roundings);
    let mergers = 1 + vision.deepstack.len();
    let mut expected = Launches::default();
    expected.add("gemm", grids * (1 + 4 * vision.layers + 2 * mergers));
    expected.add("layer_norm", grids * (2 * vision.layers + mergers)).add("norm_rope", grids * (1 + vision.layers));
    expected.add("paged_attention", grids * vision.layers);
    b.all_verified(&expected);
    let wrong = Grid { frames: 1, height: 3, width: 2 };
    assert!(b.omni.vision.see(&b.gpu, &patches, wrong, &mut seen).is_err());
}

#[test]
fn what_is_written_is_spoken() {
    let b = open();
    let (gpu, omni, case) = (&b.gpu, &b.omni, b.case("speech_text"));
    let prompt = b.case("text").tokens("in.input_ids").unwrap();
    let sequence = case.tokens("out.sequences").unwrap();
    let (ids, talker) = (&omni.config.ids, &omni.config.talker);
    let width = talker.text.hidden;

    // The rows before the first frame: the user's turns and the opening, of one projection.
    let words = &sequence[prompt.len()..sequence.len() - 1];
    let starts: Vec<usize> = (0..prompt.len()).filter(|&i| prompt[i] == ids.im_start).collect();
    let users = starts.windows(2).filter(|turn| prompt[turn[0] + 1] == ids.user);
    let mut text: Vec<u32> = users.flat_map(|turn| prompt[turn[0]..turn[1]].to_vec()).collect();
    let mut codes = vec![-1; text.len() + 3];
    text.extend_from_slice(&prompt[starts[starts.len() - 1]..]);
    text.extend([ids.tts_pad; 4]);
    text.extend([ids.tts_bos, words[0]]);
    let speaker = talker.speakers.iter().find(|(name, _)| name == SPEAKER).unwrap().1;
    let special = talker.ids;
    codes.extend(
        [special.nothink, special.think_bos, special.think_eos, speaker, special.pad, special.bos].map(|c| c as i32),
    );
    let embedded = omni.thinker.embed(gpu, &text).unwrap();
    let projected = omni.talker.project(gpu, Side::Text, embedded.all()).unwrap();
    let on_codes = gpu.upload(&codes).unwrap();
    let mut rows: Buffer<bf16> = gpu.allocate(codes.len() * width).unwrap();
    omni.talker.add_codes(gpu, on_codes.all(), Some(projected.all()), &mut rows.all_mut()).unwrap();
    // With a code's embedding and the sum.
    near("opening", &b.wide(rows.all()), &case.floats("out.talker_prefill_embeds").unwrap(), WORD + 2);

    // What follows the first word, one a frame.
    let trailing = [&words[1..], &[ids.tts_eos, ids.tts_pad]].concat();
    let trailing_rows = omni.thinker.embed(gpu, &trailing).unwrap();
    let trailing_rows = omni.talker.project(gpu, Side::Text, trailing_rows.all()).unwrap();

    // `[groups, frames]` in the file.
    let recorded = case.tokens("out.codes").unwrap();
    let groups = talker.code_groups;
    let count = recorded.len() / groups;
    let frame = |f: usize| (0..groups).map(|g| recorded[g * count + f] as i32).collect::<Vec<_>>();

    let opening = codes.len();
    let blocks = (opening + FRAMES).div_ceil(16);
    let mut store = omni.talker.decoder.store(gpu, blocks).unwrap();
    let room = Room { rows: opening, sequences: 1, pages: blocks, shares: 8 };
    let (mut work, mut sequence) = (omni.talker.decoder.work(gpu, room).unwrap(), Sequence::default());
    let mut frames = Frames::new(gpu, &omni.talker, 1).unwrap();
    let mut positions: Vec<_> = (0..opening).map(|p| [p as f64; 3]).collect();
    let (mut talker_logits, mut predictor_logits, mut steps) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..FRAMES {
        let count = positions.len();
        let (mode, extra) = (Mode::default(), Extra::default());
        let input = Input { embeddings: rows.all(), positions: &positions, mode, extra };
        let mut segments = [Segment { sequence: &mut sequence, rows: count }];
        omni.talker.decoder.forward(gpu, &mut work, &mut store, &mut segments, input).unwrap();
        if step == 0 {
            let want = case.floats("out.talker_prefill_hidden").unwrap();
            let roundings = WORD + 2 + of_decoder(talker.text.layers);
            near("opening's states", &b.wide(work.hidden(count)), &want, roundings);
        }
        gpu.copy(work.row(count - 1), &mut frames.states(1)).unwrap();
        let codes = frame(step);
        // Draws are made, and compared; the recorded codes go on.
        let params = Params { temperature: 1.0, top_k: 50, top_p: 0.8, ..Params::default() };
        let draw = |group: usize| Draw { params, seed: 1, position: group as u64 };
        let draws: Vec<Draw> = (0..groups).map(draw).collect();
        let mut watch = |group: usize, logits: Slice<'_, f32>, chosen: &mut SliceMut<'_, i32>| {
            let all = if group == 0 { &mut talker_logits } else { &mut predictor_logits };
            all.extend(gpu.fetch(logits)?);
            Ok(gpu.write(chosen, &codes[group..group + 1])?)
        };
        assert_eq!(frames.watched(gpu, &omni.talker, 1, &draws, &mut watch).unwrap(), codes);
        let on_frame = gpu.upload(&codes).unwrap();
        let word = step.min(trailing.len() - 1) * width;
        let mut next: Buffer<bf16> = gpu.allocate(width).unwrap();
        let word = trailing_rows.range(word..word + width);
        omni.talker.next_rows(gpu, Ids::ByTable(on_frame.all()), word, &mut next.all_mut()).unwrap();
        steps.extend(b.wide(next.all()));
        (rows, positions) = (next, vec![[(opening + step) as f64; 3]]);
    }
    let first = |name: &str, n: usize| case.floats(name).unwrap()[..n].to_vec();
    near("steps", &steps, &first("out.talker_step_embeds", steps.len()), WORD + 2);
    let talked = WORD + 2 + of_decoder(talker.text.layers);
    near("talker's logits", &talker_logits, &first("out.talker_logits", talker_logits.len()), talked + 1);
    let predicted = talked + of_decoder(talker.predictor.layers) + 1;
    near("predictor's logits", &predictor_logits, &first("out.predictor_logits", predictor_logits.len()), predicted);

    // A frame is a pass of the talker, and one of the predictor for each of its other codes.
    let others = FRAMES * (groups - 1);
    let mut expected = Launches::default();
    expected.add("embedding", 3).add("gemm", 2 * 2);
    expected.decoder(talker.text.feed_forward, talker.text.layers, FRAMES).add("gemm", FRAMES);
    expected.decoder(talker.predictor.feed_forward, talker.predictor.layers, others).add("gemm", others);
    // The first code and the next row of each frame, and the row of every other code but the last.
    expected.add("embedding", 2 * FRAMES + others - FRAMES).add("sample", FRAMES + others).add("scatter", 2 * FRAMES);
    b.all_verified(&expected);
}

#[test]
fn speech_sounds_and_has_no_seams() {
    let b = open();
    let (gpu, omni, case) = (&b.gpu, &b.omni, b.case("code2wav"));
    let codes = case.tokens("codes").unwrap();
    let groups = omni.config.code2wav.quantizers;
    let all = codes.len() / groups;
    let frames: Vec<u32> =
        (0..FRAMES).flat_map(|f| (0..groups).map(move |g| (f, g))).map(|(f, g)| codes[g * all + f]).collect();
    let mut work = omni.code2wav.work(gpu).unwrap();
    let mut speak = |pieces: &[usize]| {
        let (mut voice, mut pcm, mut at) = (omni.code2wav.voice(gpu).unwrap(), Vec::new(), 0);
        for piece in pieces {
            let until = at + piece * groups;
            omni.code2wav.push(gpu, &mut work, &mut voice, &frames[at..until], &mut pcm).unwrap();
            at = until;
        }
        pcm
    };
    let (whole, pieces) = (speak(&[FRAMES]), speak(&[1, FRAMES - 1]));
    assert_eq!(whole.len(), 1920 * FRAMES - 555);
    assert_eq!(pieces, whole, "where it is cut makes no difference");
    let shape = &omni.config.code2wav;
    let (layers, stages, blocks) = (shape.layers, shape.ratios.len(), shape.rates.len());
    // Codes and their mean; a stage's two matrices, its taps, its norm of three and its two matrices with what is between
    // them; convolutions; in each block a snake, the longer convolution and three units of two snakes and two convolutions.
    let roundings = 2 + of_decoder(layers) + (2 + 2 + 3 + 4) * stages + 2 + (3 + 3 * 6) * blocks + 2;
    near("samples", &whole, &case.floats("wav").unwrap()[..whole.len()], roundings);

    // Three pushes in all.
    let mut expected = Launches::default();
    expected.add("embedding", 3).decoder(FeedForwardConfig::Dense { inner: shape.inner }, layers, 3);
    expected.add("gemm", 3 * 3 * stages).add("depthwise_conv1d", 3 * stages).add("layer_norm", 3 * stages);
    expected.add("snake_beta", 3 * ((1 + 2 * 3) * blocks + 1)).add("conv1d", 3 * (1 + (1 + 2 * 3) * blocks + 1));
    b.all_verified(&expected);
}
