use proptest::prelude::*;
use serde::Deserialize;

use super::Tokenizer;
use super::pattern::Pattern;
use crate::lm::gguf::Gguf;
use crate::lm::tests::real::{QWEN, SMOLLM2, model};
use crate::lm::tests::small::Small;

#[derive(Deserialize)]
struct Case {
    text: String,
    tokens: Vec<u32>,
}

/// Token by token against another implementation; the values come from tests/golden/lm/make.py.
fn check(name: &str, golden: &str) {
    let Some(path) = model(name) else { return };
    let tokenizer = Tokenizer::read(&Gguf::open(&path).unwrap()).unwrap();
    let cases: Vec<Case> = serde_json::from_str(golden).unwrap();
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let tokens = tokenizer.encode(&case.text, true);
            let differ = tokens != case.tokens;
            differ.then_some((&case.text, tokens, &case.tokens))
        })
        .collect();
    assert!(wrong.is_empty(), "text, tokens, expected tokens: {wrong:#?}");
}

#[test]
fn tokens_of_the_smollm_pattern_agree_with_the_reference() {
    check(SMOLLM2, include_str!("../../../../tests/golden/lm/tokens-smollm2-135m.json"));
}

#[test]
fn tokens_of_the_qwen2_pattern_agree_with_the_reference() {
    check(QWEN, include_str!("../../../../tests/golden/lm/tokens-qwen2.5-coder-1.5b.json"));
}

#[test]
fn pieces_are_those_of_the_published_patterns() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("qwen2", "I'LL see 123\n\n x", &["I", "'LL", " see", " ", "1", "2", "3", "\n\n", " x"]),
        ("llama-bpe", "is 12345!\n", &["is", " ", "123", "45", "!\n"]),
        ("smollm", "in 42 I'll", &["in", " ", "4", "2", " I", "'ll"]),
        ("gpt-2", "in 42  days", &["in", " 42", " ", " days"]),
        ("default", "a++b 1234", &["a", "++", "b", " ", "123", "4"]),
    ];
    for (name, text, expected) in cases {
        let mut pieces = Vec::new();
        Pattern::named(name).unwrap().split(text, &mut |piece| pieces.push(piece.to_owned()));
        assert_eq!(&pieces, expected, "{name}");
    }
    assert!(Pattern::named("klingon").is_none());
}

#[test]
fn a_megabyte_of_anything_is_tokenized() {
    let lm = Small::new("llama").load().unwrap();
    for text in [" ".repeat(1 << 20), "\n ".repeat(1 << 19), "the".repeat(1 << 18), "<|im_".repeat(1 << 17)] {
        let tokens = lm.tokenizer().encode(&text, true);
        assert_eq!(lm.tokenizer().decode(&tokens).len(), text.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn text_comes_back(text in "(\\PC|[\\s<|>_imstarednof']){0,60}") {
        let lm = Small::new("llama").load().unwrap();
        let t = lm.tokenizer();
        prop_assert_eq!(t.decode(&t.encode(&text, false)), text.clone());
        // A guarded text is the same text, and holds no special token even where these are looked for.
        prop_assert_eq!(t.encode(&t.guard(&text), true), t.encode(&text, false));
    }
}
