//! Published models against an independent network; the values come from tests/golden/lm/make.py.

use std::path::PathBuf;

use causerie_kernels::Pool;
use serde::Deserialize;

use super::{check_company_and_chunks, run};
use crate::lm::{End, Lm, Message};
use crate::testing;

pub(in crate::lm) const SMOLLM2: &str = "smollm2-135m-instruct-q4_1";
pub(in crate::lm) const QWEN: &str = "qwen2.5-coder-1.5b-instruct-q4_k_m";

/// The file of a model.
pub(in crate::lm) fn model(name: &str) -> Option<PathBuf> {
    testing::model(format!("lm/{name}.gguf"))
}

#[derive(Deserialize)]
struct Case {
    tokens: Vec<u32>,
    /// The likeliest tokens and their logits, falling.
    top: Vec<usize>,
    logits: Vec<f32>,
    /// Of all logits.
    mean: f32,
    deviation: f32,
}

/// Activations in eight bits move logits by some hundredths of their spread; a wrong layer moves them by whole ones.
fn check_logits(name: &str, golden: &str, tolerance: f32) {
    let Some(path) = model(name) else { return };
    let pool = Pool::new(2);
    let lm = Lm::load(&pool, &path).unwrap();
    let cases: Vec<Case> = serde_json::from_str(golden).unwrap();
    for (index, case) in cases.iter().enumerate() {
        let logits = run(&lm, &pool, &mut lm.new_cache(), &[&case.tokens]).remove(0);
        let n = logits.len() as f32;
        let mean = logits.iter().sum::<f32>() / n;
        let deviation = (logits.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
        let worst = case.top.iter().zip(&case.logits).map(|(&id, &v)| (logits[id] - v).abs()).fold(0.0, f32::max);
        println!(
            "{name} {index}: worst {:.4}, mean {:.4}, deviation {:.4}",
            worst / case.deviation,
            (mean - case.mean) / case.deviation,
            deviation / case.deviation - 1.0
        );
        assert!(worst <= tolerance * case.deviation, "case {index}: off by {worst} of {}", case.deviation);
        assert!((mean - case.mean).abs() <= tolerance * case.deviation, "case {index}: {mean} is not {}", case.mean);
        assert!((deviation / case.deviation - 1.0).abs() <= tolerance, "case {index}: {deviation}");
    }
}

#[test]
fn logits_of_a_llama_agree_with_the_reference() {
    check_logits(SMOLLM2, include_str!("../../../../tests/golden/lm/logits-smollm2-135m.json"), 0.15);
}

#[test]
fn logits_of_a_qwen2_agree_with_the_reference() {
    check_logits(QWEN, include_str!("../../../../tests/golden/lm/logits-qwen2.5-coder-1.5b.json"), 0.1);
}

#[test]
fn company_and_chunks_leave_no_trace_in_a_real_model() {
    let Some(path) = model(SMOLLM2) else { return };
    let lm = Lm::load(&Pool::new(2), &path).unwrap();
    let messages = [Message::text("user", "Tell me about the sea, the moon and the tides, in a few words.")];
    let tokens = lm.prompt(&messages, &[], End::Reply).unwrap();
    let other = lm.tokenizer().encode("Somebody else talks about cheese.", false);
    check_company_and_chunks(&lm, &tokens, &other, 13);
}
