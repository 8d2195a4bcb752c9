//! Streaming equals whole: whatever a stream is cut into, the results are the same.

use causerie_kernels::Pool;
use proptest::prelude::*;
use proptest::test_runner::{Config as Runs, RngAlgorithm, TestRng, TestRunner};

use super::tiny;
use crate::omni::audio::AudioStream;
use crate::omni::decoder::{Deepstack, Input, Scratch, Segment};
use crate::omni::kv::Sequence;
use crate::omni::trace::Trace;
use crate::omni::{Omni, Placement};

fn load() -> (Pool, Omni) {
    let pool = Pool::new(1);
    let omni = Omni::load(&pool, &tiny(), Placement::F32).unwrap();
    (pool, omni)
}

fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `check` on seeded random ways to cut.
fn for_cuts(check: impl Fn(Vec<usize>) -> Result<(), TestCaseError>) {
    let cuts = prop::collection::vec(1_usize..9, 1..12);
    TestRunner::new_with_rng(Runs::with_cases(24), TestRng::deterministic_rng(RngAlgorithm::ChaCha))
        .run(&cuts, check)
        .unwrap();
}

/// Pieces of `total` whose lengths repeat `cuts`.
fn pieces(total: usize, cuts: &[usize]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut at = 0;
    cuts.iter().cycle().map_while(move |cut| {
        let range = at..(at + cut).min(total);
        at = range.end;
        (!range.is_empty()).then_some(range)
    })
}

#[test]
fn a_voice_gives_the_same_samples_however_frames_come() {
    let (pool, omni) = load();
    let groups = omni.config.code2wav.quantizers;
    let frames = 20;
    let codes: Vec<u32> = noise(1, frames * groups).iter().map(|x| ((x + 1.0) * 31.9) as u32).collect();
    let mut whole = Vec::new();
    omni.code2wav.push(&pool, &mut omni.code2wav.voice(), &codes, &mut whole).unwrap();
    assert_eq!(whole.len(), 1_365 + (frames - 1) * 1_920);
    for_cuts(|cuts| {
        let (mut voice, mut pcm, mut last) = (omni.code2wav.voice(), Vec::new(), 0);
        for piece in pieces(frames, &cuts) {
            let codes = &codes[piece.start * groups..piece.end * groups];
            omni.code2wav.push(&pool, &mut voice, codes, &mut pcm).unwrap();
            // The first frame gives 1365 samples, every other one 1920: nothing is held back.
            prop_assert_eq!(pcm.len() - last, piece.len() * 1_920 - if last == 0 { 555 } else { 0 });
            last = pcm.len();
        }
        prop_assert!(pcm == whole, "{:?}", cuts);
        Ok(())
    });
}

#[test]
fn a_code_outside_of_its_codebook_is_refused() {
    let (pool, omni) = load();
    let Omni { code2wav, config, .. } = &omni;
    let mut codes = vec![0; config.code2wav.quantizers];
    codes[3] = config.code2wav.codebook as u32;
    let error = code2wav.push(&pool, &mut code2wav.voice(), &codes, &mut Vec::new()).unwrap_err().to_string();
    assert_eq!(error, "code 64 is outside of a codebook of 64");
    assert!(code2wav.push(&pool, &mut code2wav.voice(), &codes[..3], &mut Vec::new()).is_err());
}

#[test]
fn an_utterance_gives_the_same_tokens_however_frames_come() {
    let (pool, omni) = load();
    let mels = omni.config.thinker.audio.mels;
    for frames in [1, 57, 100, 430] {
        let mel = noise(frames as u64, frames * mels);
        let (mut stream, mut whole) = (AudioStream::default(), Vec::new());
        stream.push(&mut omni.audio.on(&pool), &mel, &mut whole).unwrap();
        stream.flush(&mut omni.audio.on(&pool), &mut whole).unwrap();
        assert_eq!(whole.len(), omni.config.thinker.audio.tokens(frames) * omni.config.thinker.audio.output);
        // One stream for all, to see that flushing leaves nothing behind.
        let stream = std::cell::RefCell::new(stream);
        for_cuts(|cuts| {
            let (mut stream, mut tokens) = (stream.borrow_mut(), Vec::new());
            for piece in pieces(frames, &cuts) {
                stream
                    .push(&mut omni.audio.on(&pool), &mel[piece.start * mels..piece.end * mels], &mut tokens)
                    .unwrap();
            }
            stream.flush(&mut omni.audio.on(&pool), &mut tokens).unwrap();
            prop_assert!(tokens == whole, "{} frames by {:?}", frames, cuts);
            Ok(())
        });
    }
}

/// A block is final when it is complete: what follows changes nothing.
#[test]
fn later_sound_does_not_change_earlier_blocks() {
    let (pool, omni) = load();
    let (mels, block) = (omni.config.thinker.audio.mels, omni.config.thinker.audio.block);
    let one = noise(1, 2 * block * mels);
    let mut other = one.clone();
    other[block * mels..].iter_mut().for_each(|x| *x = -*x);
    let tokens = |mel: &[f32]| {
        let (mut stream, mut tokens) = (AudioStream::default(), Vec::new());
        stream.push(&mut omni.audio.on(&pool), mel, &mut tokens).unwrap();
        tokens
    };
    let (one, other) = (tokens(&one), tokens(&other));
    let half = one.len() / 2;
    assert!(one[..half] == other[..half] && one[half..] != other[half..]);
}

#[test]
fn decoding_equals_prefill_however_rows_come() {
    let (pool, omni) = load();
    let decoder = &omni.thinker.decoder;
    let (hidden, rows) = (omni.config.thinker.text.hidden, 37);
    let embeddings = noise(3, rows * hidden);
    // Pictures make positions that go back and are fractions.
    let positions: Vec<_> = (0..rows).map(|i| [i as f64, (i % 5) as f64 * 1.5, (i % 7) as f64]).collect();
    let run = |cuts: &[usize], block: usize| {
        let mut store = decoder.store(block, rows.div_ceil(block));
        let (mut scratch, mut sequence, mut out) = (Scratch::default(), Sequence::default(), Vec::new());
        for piece in pieces(rows, cuts) {
            let input = Input {
                embeddings: &embeddings[piece.start * hidden..piece.end * hidden],
                positions: &positions[piece.clone()],
                deepstack: Deepstack::default(),
                keep: None,
            };
            let mut segments = [Segment { sequence: &mut sequence, rows: piece.len() }];
            decoder.forward(&pool, &mut scratch, &mut store, &mut segments, &input, Trace::off()).unwrap();
            out.extend_from_slice(&scratch.hidden);
        }
        out
    };
    let whole = run(&[rows], 64);
    for_cuts(|cuts| {
        prop_assert!(run(&cuts, 4) == whole, "{:?}", cuts);
        Ok(())
    });
}
