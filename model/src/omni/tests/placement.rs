//! Weights of fewer bits: how far the results move, and that what must not depend on company does not.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear;

use super::tiny;
use crate::omni::decoder::{Deepstack, Input, Scratch, Segment};
use crate::omni::kv::Sequence;
use crate::omni::trace::Trace;
use crate::omni::{Omni, Placement};

/// Logits of the last of a few tokens, run in pieces of `piece`.
fn logits(placement: Placement, piece: usize) -> Vec<f32> {
    let pool = Pool::new(1);
    let omni = Omni::load(&pool, &tiny(), placement).unwrap();
    let tokens: Vec<u32> = (0..24).map(|i| i * 11 % 250).collect();
    let mut store = omni.thinker.decoder.store(16, 4);
    let (mut scratch, mut sequence) = (Scratch::default(), Sequence::default());
    for (index, tokens) in tokens.chunks(piece).enumerate() {
        let mut embeddings = Vec::new();
        omni.thinker.embed(tokens, &mut embeddings).unwrap();
        let first = index * piece;
        let positions: Vec<_> = (first..first + tokens.len()).map(|p| [p as f64; 3]).collect();
        let input =
            Input { embeddings: &embeddings, positions: &positions, deepstack: Deepstack::default(), keep: None };
        let mut segments = [Segment { sequence: &mut sequence, rows: tokens.len() }];
        let decoder = &omni.thinker.decoder;
        decoder.forward(&pool, &mut scratch, &mut store, &mut segments, &input, Trace::off()).unwrap();
    }
    let width = omni.config.thinker.text.hidden;
    let mut logits = Vec::new();
    let last = &scratch.hidden[scratch.hidden.len() - width..];
    omni.thinker.logits(&pool, &mut linear::Scratch::default(), last, &mut logits);
    logits
}

/// The root of the mean square of the difference, over that of `a`.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>();
    (square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut a.iter().copied())).sqrt()
}

#[test]
fn fewer_bits_move_the_results_a_little() {
    let exact = logits(Placement::F32, 24);
    let mut before = 0.0;
    // Four layers of random weights, whose router may choose another expert: real ones are more forgiving.
    for (placement, bound) in [(Placement::Bf16, 0.02), (Placement::Fp8, 0.12), (Placement::Int4, 0.9)] {
        let near = logits(placement, 24);
        let off = distance(&exact, &near);
        assert!(off > before && off < bound, "{placement}: {off}");
        before = off;
        assert!(logits(placement, 5) == near, "{placement} in chunks");
    }
}
