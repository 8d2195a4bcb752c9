use proptest::prelude::*;
use serde::Deserialize;

use super::Tokenizer;
use super::pattern::Pattern;
use crate::lm::gguf::Gguf;
use crate::lm::tests::real::{QWEN, SMOLLM2, model};
use crate::lm::tests::small::{Entry, Small, with_file};

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

/// The values come from tests/golden/lm/make_spm.py.
#[derive(Deserialize)]
struct SentencePiece {
    pieces: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
    cases: Vec<Case>,
}

impl SentencePiece {
    fn read() -> Self {
        serde_json::from_str(include_str!("../../../../tests/golden/lm/spm.json")).unwrap()
    }

    fn file(&self) -> Small {
        Small { entries: Vec::new(), tensors: Vec::new() }
            .set("tokenizer.ggml.model", Some(Entry::Text("llama".into())))
            .set("tokenizer.ggml.tokens", Some(Entry::Texts(self.pieces.clone())))
            .set("tokenizer.ggml.scores", Some(Entry::F32s(self.scores.clone())))
            .set("tokenizer.ggml.token_type", Some(Entry::I32s(self.kinds.clone())))
            .set("tokenizer.ggml.bos_token_id", Some(Entry::U32(1)))
            .set("tokenizer.ggml.eos_token_id", Some(Entry::U32(2)))
    }
}

fn read(small: &Small) -> Result<Tokenizer, String> {
    let read = |path: &std::path::Path| Tokenizer::read(&Gguf::open(path)?);
    with_file(&small.bytes(), read).map_err(|error| error.to_string())
}

#[test]
fn tokens_of_a_sentencepiece_vocabulary_agree_with_the_reference() {
    let golden = SentencePiece::read();
    let tokenizer = read(&golden.file()).unwrap();
    assert_eq!((tokenizer.len(), tokenizer.bos(), tokenizer.eos()), (700, Some(1), Some(2)));
    assert!(golden.cases.len() > 20);
    for Case { text, tokens } in &golden.cases {
        assert_eq!(&tokenizer.encode(text, true), tokens, "{text:?}");
        let blank = if text.is_empty() { "" } else { " " };
        assert_eq!(tokenizer.decode(tokens), format!("{blank}{text}"));
    }
    assert_eq!(tokenizer.encode("</s>a", true)[0], 2);
    assert_ne!(tokenizer.encode(&tokenizer.guard("</s>a"), true)[0], 2);
    let bare = read(&golden.file().set("tokenizer.ggml.add_space_prefix", Some(Entry::Bool(false)))).unwrap();
    let Case { text, tokens } = &golden.cases[2];
    assert_eq!(bare.encode(&format!(" {text}"), true), *tokens);
}

#[test]
fn a_sentencepiece_vocabulary_that_cannot_work_is_named() {
    let golden = SentencePiece::read();
    let error = |small: Small| read(&small).err().unwrap();
    let fewer = golden.file().set("tokenizer.ggml.scores", Some(Entry::F32s(vec![0.0; 3])));
    assert!(error(fewer).contains("has not one score for each of 700 tokens"));
    let plain = golden.file().set("tokenizer.ggml.token_type", None);
    assert!(error(plain).contains("tokens for only 0 of 256 bytes"));
}

#[test]
fn a_megabyte_of_anything_is_tokenized_by_scores() {
    let tokenizer = read(&SentencePiece::read().file()).unwrap();
    for text in [" ".repeat(1 << 20), "the ".repeat(1 << 18), "\u{2581}é".repeat(1 << 17)] {
        let tokens = tokenizer.encode(&text, false);
        assert_eq!(tokenizer.decode(&tokens)[1..], text.replace('\u{2581}', " "));
    }
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
