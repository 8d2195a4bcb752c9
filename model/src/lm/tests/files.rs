//! Files that are not what they should be.

use std::path::Path;

use causerie_kernels::Pool;
use proptest::prelude::*;

use super::small::{Entry, Small, load};
use crate::lm::gguf::Header;
use crate::lm::{Lm, LmError};

/// The error's text, which must name the field.
fn refused(small: &Small, field: &str) -> String {
    let error = small.load().err().unwrap_or_else(|| panic!("{field}: was accepted")).to_string();
    assert!(error.contains(field), "{error}");
    assert!(error.contains(".gguf"), "{error}");
    error
}

#[test]
fn wrong_metadata_is_named() {
    let sound = Small::new("llama");
    assert!(sound.load().is_ok());
    let text = |s: &str| Some(Entry::Text(s.to_owned()));
    let cases = [
        ("general.architecture", text("mamba")),
        ("general.architecture", None),
        ("general.architecture", Some(Entry::U32(1))),
        ("llama.block_count", Some(Entry::U32(0))),
        ("llama.block_count", None),
        ("llama.embedding_length", Some(Entry::U32(u32::MAX))),
        ("llama.attention.head_count", Some(Entry::U32(0))),
        ("llama.attention.head_count_kv", Some(Entry::U32(3))),
        ("llama.attention.layer_norm_rms_epsilon", Some(Entry::F32(f32::NAN))),
        ("llama.rope.dimension_count", Some(Entry::U32(7))),
        ("llama.rope.scaling.type", text("yarn")),
        ("tokenizer.ggml.model", text("bert")),
        ("tokenizer.ggml.pre", text("klingon")),
        ("tokenizer.ggml.tokens", None),
        ("tokenizer.ggml.tokens", Some(Entry::Texts(vec!["a".into(); 300]))),
        ("tokenizer.ggml.merges", Some(Entry::Texts(vec!["nopair".into()]))),
        ("tokenizer.ggml.merges", Some(Entry::Texts(vec!["zz zz".into()]))),
        ("tokenizer.ggml.eos_token_id", Some(Entry::U32(1_000_000))),
        ("tokenizer.chat_template", text("{% for m in messages %}")),
        ("general.alignment", Some(Entry::U32(33))),
    ];
    for (key, entry) in cases {
        refused(&sound.clone().set(key, entry), key);
    }
}

#[test]
fn wrong_tensors_are_named() {
    for name in ["token_embd.weight", "blk.1.ffn_down.weight", "blk.0.attn_norm.weight"] {
        let mut absent = Small::new("llama");
        absent.tensors.retain(|(n, ..)| n != name);
        assert!(refused(&absent, name).contains("missing"));
        let mut reshaped = Small::new("llama");
        reshaped.tensors.iter_mut().find(|(n, ..)| n == name).unwrap().1[0] -= 1;
        assert!(refused(&reshaped, name).contains("shape"));
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    let missing = Lm::load(&Pool::new(1), Path::new("/nowhere/model.gguf")).err().unwrap();
    assert!(matches!(missing, LmError::Missing { .. }));
    assert!(missing.to_string().contains("/nowhere/model.gguf") && missing.to_string().contains("models pull"));
    for bytes in [&b""[..], b"GG", b"PK\x03\x04 and so on", b"GGUF", b"GGUF\x01\0\0\0", b"GGUF\x03\0\0\0\xff\xff"] {
        assert!(matches!(load(bytes), Err(LmError::Malformed { .. } | LmError::Open(_))), "{bytes:?}");
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let bytes = Small::new("qwen2").bytes();
    for len in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        let (field, problem) = Header::parse(&bytes[..len]).err().unwrap_or_else(|| panic!("{len} bytes accepted"));
        assert!(len < 4 || problem.contains("truncated"), "{len}: {field}: {problem}");
    }
    assert!(Header::parse(&bytes).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Header::parse(&bytes);
        let _ = Header::parse(&[b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", bytes.as_slice()].concat());
    }

    #[test]
    fn changed_bytes_do_not_panic(
        changes in prop::collection::vec((0_usize..6_000, any::<u8>()), 1..6),
    ) {
        let mut bytes = Small::new("qwen3").bytes();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        let _ = load(&bytes);
    }
}
