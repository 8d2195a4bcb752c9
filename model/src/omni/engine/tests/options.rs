use std::path::PathBuf;

use causerie_kernels::ops::paged_attention::Visible;

use super::*;
use crate::omni::engine::history::Piece;
use crate::omni::engine::{LoadError, plan};
use crate::omni::kv::KvType;
use crate::omni::{OmniError, Placement};

/// A copy of the tiny checkpoint with another configuration, removed at the end.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str, from: &str, to: &str) -> Self {
        let path = std::env::temp_dir().join(format!("causerie-omni-options-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        for file in ["model.safetensors", "tokenizer.json", "generation_config.json"] {
            std::fs::copy(tiny().join(file), path.join(file)).unwrap();
        }
        let config = std::fs::read_to_string(tiny().join("config.json")).unwrap();
        assert!(config.contains(from), "{from}");
        std::fs::write(path.join("config.json"), config.replace(from, to)).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two turns, the second with a long prompt behind it, beside `company` other conversations.
fn talk(options: &Options, company: u64) -> Vec<Reply> {
    let mut e = OmniEngine::load(options).unwrap();
    open(&mut e, S, config(11));
    for other in 0..company {
        open(&mut e, SessionId(20 + other), config(other));
        say(&mut e, SessionId(20 + other), 1, &"la ".repeat(5 + other as usize * 9));
    }
    say(&mut e, S, 1, &"word ".repeat(24));
    let first = reply(&settle(&mut e), 1);
    tone(&mut e, S, 0, 40_000);
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(40_000) };
    e.submit(Request::Start { session: S, turn: TurnId(2), cause }).unwrap();
    let second = reply(&settle(&mut e), 2);
    [first, second].into_iter().map(|reply| Reply { done: reply.done.map(|_| Event::Opened), ..reply }).collect()
}

#[test]
fn every_way_of_keeping_weights_and_keys_holds_conversations_alike_in_company() {
    let exact = talk(&options(1), 0);
    for weights in [Placement::F32, Placement::Bf16, Placement::Fp8, Placement::Int4] {
        for kv in [KvType::F32, KvType::Bf16, KvType::Fp8] {
            let alone = talk(&Options { weights, kv, ..options(1) }, 0);
            assert!(alone.iter().all(|reply| reply.done.is_some() && !reply.pcm.is_empty()), "{weights} {kv}");
            assert_eq!(alone == exact, (weights, kv) == (Placement::F32, KvType::F32), "{weights} {kv}");
            assert!(talk(&Options { weights, kv, ..options(4) }, 3) == alone, "{weights} {kv} in company");
        }
    }
}

#[test]
fn a_window_of_attention_forgets_the_middle() {
    let windowed = |sessions| Options { visible: Visible::Recent { window: 48, sinks: 4 }, ..options(sessions) };
    let alone = talk(&windowed(1), 0);
    assert!(alone.iter().all(|reply| reply.done.is_some()));
    assert!(alone != talk(&options(1), 0), "the beginning was seen");
    assert!(talk(&windowed(4), 3) == alone);
    let mut e = OmniEngine::load(&windowed(1)).unwrap();
    let all = e.thinker.store.blocks().count();
    assert!(all * 16 < 256, "{all} blocks for a context of 256 positions");
    open(&mut e, S, config(3));
    for turn in 1..4 {
        say(&mut e, S, turn, &"round and round ".repeat(3));
        assert!(reply(&settle(&mut e), turn).done.is_some(), "turn {turn}");
    }
    e.submit(Request::Close { session: S }).unwrap();
    assert_eq!(e.thinker.store.blocks().free(), all, "all memory came back");
}

#[test]
fn positions_beyond_the_configured_ones_are_reached_by_scaling() {
    let folder = Folder::new("yarn", "\"max_position_embeddings\": 4096", "\"max_position_embeddings\": 96");
    let with = |yarn| Options { model: folder.0.clone(), yarn, ..options(1) };
    let refused = OmniEngine::load(&with(None)).err().unwrap();
    assert!(matches!(refused, LoadError::Omni(OmniError::Window { window: 256, reach: 96 })), "{refused}");
    let (plain, scaled) = (talk(&options(1), 0), talk(&with(Some(4.0)), 0));
    // The prompts are longer than 96 tokens, and all of it is read; at other angles it reads otherwise.
    assert!(scaled.iter().all(|reply| reply.done.is_some() && !reply.pcm.is_empty()));
    assert!(scaled != plain);
    // A factor of one changes nothing.
    assert!(talk(&Options { yarn: Some(1.0), ..options(1) }, 0) == plain);
    let absurd = OmniEngine::load(&with(Some(1_000.0))).err().unwrap().to_string();
    assert!(absurd.contains("only by 1 to 64"), "{absurd}");
}

#[test]
fn blocks_of_a_second_are_heard_sooner_and_otherwise() {
    let short = Options { audio_block: Some(1), ..options(1) };
    let heard = |options: &Options| {
        let mut e = OmniEngine::load(options).unwrap();
        open(&mut e, S, config(1));
        tone(&mut e, S, 0, 40_000);
        let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(40_000) };
        e.submit(Request::Start { session: S, turn: TurnId(1), cause }).unwrap();
        settle(&mut e);
        let entry = e.sessions[&S].history.entries().next().unwrap().clone();
        let [Piece::Sound(clip)] = &entry.pieces[..] else { panic!("{entry:?}") };
        clip.rows.clone()
    };
    let (a, b) = (heard(&short), heard(&options(1)));
    assert!(a.len() == b.len() && a != b);
    let refused = OmniEngine::load(&Options { audio_block: Some(9), ..options(1) }).err().unwrap().to_string();
    assert!(refused.contains("blocks of 9 seconds are not within 1..=8"), "{refused}");
    let mut e = OmniEngine::load(&short).unwrap();
    open(&mut e, S, config(1));
    e.submit(Request::Listen { session: S, from: InputSamples(0) }).unwrap();
    tone(&mut e, S, 0, 17_000);
    settle(&mut e);
    assert_eq!(e.sessions[&S].listening.as_ref().unwrap().hearing.rows.len(), 13 * 64, "a second is a block");
}

#[test]
fn a_vocabulary_that_does_not_fit_the_model_is_named() {
    let with = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let folder = Folder::new(name, "\"model_type\"", "\"model_type\"");
        let path = folder.0.join("tokenizer.json");
        let mut tokenizer = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut tokenizer);
        std::fs::write(path, tokenizer.to_string()).unwrap();
        OmniEngine::load(&Options { model: folder.0.clone(), ..options(1) }).err().unwrap()
    };
    let more = with("vocabulary-more", &|t| t["added_tokens"][3]["id"] = 320.into());
    assert!(matches!(more, LoadError::Vocabulary { tokens: 321, vocabulary: 320 }), "{more}");
    let fewer = with("vocabulary-fewer", &|t| _ = t["added_tokens"].as_array_mut().unwrap().drain(46..));
    let named = matches!(fewer, LoadError::Unwritten { field: "system_token_id", token: 302, tokens: 302 });
    assert!(named, "{fewer}");
}

/// The published checkpoints have the older files.
#[test]
fn a_vocabulary_in_several_files_is_the_same() {
    let folder = Folder::new("vocabulary-files", "\"model_type\"", "\"model_type\"");
    let file = std::fs::read_to_string(tiny().join("tokenizer.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&file).unwrap();
    let mut words = file["model"]["vocab"].clone();
    // A pair, so that there is something to merge; and what the tiny vocabulary adds.
    words["he"] = 256.into();
    let added = file["added_tokens"].as_array().unwrap().iter().skip(1);
    let added: serde_json::Map<String, serde_json::Value> =
        added.map(|token| (token["id"].to_string(), token.clone())).collect();
    let config = serde_json::json!({ "added_tokens_decoder": added, "chat_template": null });
    std::fs::remove_file(folder.0.join("tokenizer.json")).unwrap();
    let error = OmniEngine::load(&Options { model: folder.0.clone(), ..options(1) }).err().unwrap().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    std::fs::write(folder.0.join("vocab.json"), words.to_string()).unwrap();
    std::fs::write(folder.0.join("tokenizer_config.json"), config.to_string()).unwrap();
    let error = OmniEngine::load(&Options { model: folder.0.clone(), ..options(1) }).err().unwrap().to_string();
    assert!(error.contains("merges.txt"), "{error}");
    std::fs::write(folder.0.join("merges.txt"), "#version: 0.2\nh e\n").unwrap();
    let e = OmniEngine::load(&Options { model: folder.0.clone(), ..options(1) }).unwrap();
    assert_eq!(e.form.tokenizer.encode("he<|im_end|>\u{e9}", true), [256, 301, 0xc3, 0xa9]);
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_loaded() {
    let plan = plan(&options(4)).unwrap();
    let least = plan.bytes();
    assert!(OmniEngine::load(&Options { memory: Some(least), ..options(4) }).is_ok());
    let refused = OmniEngine::load(&Options { memory: Some(least - 1), ..options(4) }).err().unwrap();
    assert!(matches!(refused, LoadError::Omni(OmniError::Fit { .. })), "{refused}");
    assert!(refused.to_string().contains("keys and values, thinker"), "{refused}");
    let engine = OmniEngine::load(&options(4)).unwrap();
    assert_eq!(engine.networks.bytes(), plan.weight_bytes());
    assert_eq!(engine.thinker.store.bytes(), plan.thinker.bytes());
    assert_eq!(engine.talker.store.bytes(), plan.talker.bytes());
}
