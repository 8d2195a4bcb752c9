//! The memory plan beside the published parameter count, beside what a load really takes, and at the largest window.

use causerie_kernels::Pool;
use causerie_kernels::ops::paged_attention::Visible;
use proptest::prelude::*;

use super::tiny;
use crate::omni::config::{Config, Scaling};
use crate::omni::kv::KvType;
use crate::omni::plan::{Plan, Wishes};
use crate::omni::{Omni, OmniError, Placement};

/// Of an H200.
const DEVICE: u64 = 141_000_000_000;
const WINDOW: usize = 1 << 20;

/// The shape of the released checkpoints.
fn released() -> Config {
    let text = include_str!("../../../../tests/golden/qwen3-omni-30b/config.json");
    Config::parse(text).unwrap()
}

/// With positions scaled to sixteen times the configured ones.
fn scaled() -> Config {
    let mut config = released();
    config.thinker.text.rope.scaling = Scaling::Yarn { factor: 16.0, trained: config.thinker.text.context };
    config
}

fn wishes(weights: Placement, kv: KvType, window: usize, sessions: usize) -> Wishes {
    let device = Some(DEVICE);
    Wishes { weights, kv, device, window, sessions, frames: 4_096, rows: 512, visible: Visible::All }
}

#[test]
fn every_parameter_of_the_released_checkpoints_is_counted() {
    let plan = Plan::new(&released(), wishes(Placement::Bf16, KvType::Bf16, 32_768, 1)).unwrap();
    let parameters: u64 = plan.weights.iter().map(|part| part.parameters).sum();
    assert_eq!(parameters, 35_259_818_545);
    // 70.5 GB in the files; the convolutions are kept in 32 bits.
    let bytes = plan.weight_bytes();
    assert!((70_500_000_000..71_300_000_000).contains(&bytes), "{bytes}");
    assert_eq!(plan.thinker.position_bytes(), 96 << 10);
    assert_eq!(plan.talker.position_bytes(), 20 << 10);
}

#[test]
fn a_million_tokens_fit_on_one_device_in_eight_bits() {
    let plan = Plan::new(&scaled(), wishes(Placement::Fp8, KvType::Fp8, WINDOW, 1)).unwrap();
    assert!(plan.bytes() < DEVICE, "{plan}");
    assert_eq!(plan.thinker.bytes(), 48 << 30);
    assert_eq!(plan.thinker.blocks, WINDOW / 16);
    let report = plan.to_string();
    assert!(report.starts_with("weights in fp8, keys and values in fp8, 1 × 1048576 tokens"), "{report}");
    assert!(report.contains("keys and values, thinker") && report.contains("48.000 GiB"), "{report}");
    // A layer's values alone need indices beyond 31 bits when two conversations share the pool.
    let two = Plan::new(&scaled(), Wishes { device: None, ..wishes(Placement::Fp8, KvType::Fp8, WINDOW, 8) }).unwrap();
    let table: Vec<u32> = (0..two.thinker.blocks as u32).rev().collect();
    assert!(two.thinker.place(&table, 0) > 1 << 31);
}

#[test]
fn what_does_not_fit_is_named_with_its_sizes() {
    let refused = Plan::new(&scaled(), wishes(Placement::Bf16, KvType::Bf16, WINDOW, 1)).unwrap_err();
    let OmniError::Fit { needed, device, report } = &refused else { panic!("{refused}") };
    assert!(*needed > DEVICE && *device == DEVICE);
    assert!(report.contains("96.000 GiB") && report.contains("audio tower"), "{report}");
    let far = Plan::new(&released(), wishes(Placement::Fp8, KvType::Fp8, WINDOW, 1)).unwrap_err();
    assert!(matches!(far, OmniError::Window { window: WINDOW, reach: 65_536 }), "{far}");
    // A window of attention makes a long conversation small.
    let visible = Visible::Recent { window: 32_768, sinks: 16 };
    let windowed = Wishes { visible, ..wishes(Placement::Bf16, KvType::Bf16, WINDOW, 1) };
    let plan = Plan::new(&scaled(), windowed).unwrap();
    assert!(plan.thinker.bytes() < 4 << 30, "{plan}");
}

#[test]
fn as_many_conversations_as_there_is_room_for_fit() {
    for (weights, kv, window) in [
        (Placement::Bf16, KvType::Bf16, 32_768),
        (Placement::Fp8, KvType::Fp8, 4_096),
        (Placement::Fp8, KvType::Fp8, 1 << 20),
    ] {
        let plan = |sessions| Plan::new(&scaled(), wishes(weights, kv, window, sessions));
        let room = plan(1).unwrap().room.unwrap();
        assert!(plan(room).unwrap().to_string().ends_with(&format!("of 131.316, room for {room} conversations")));
        assert!(matches!(plan(room + 1), Err(OmniError::Fit { .. })), "{room} of {window}");
    }
}

#[test]
fn a_load_takes_what_was_planned() {
    let config = Config::read(&tiny()).unwrap();
    let mut before = u64::MAX;
    for weights in [Placement::F32, Placement::Bf16, Placement::Fp8, Placement::Int4] {
        let plan = Plan::new(&config, wishes(weights, KvType::F32, 256, 1)).unwrap();
        let omni = Omni::load(&Pool::new(1), &tiny(), weights).unwrap();
        assert_eq!(omni.bytes(), plan.weight_bytes(), "{weights}");
        assert!(omni.bytes() < before);
        before = omni.bytes();
    }
    let kv = |kind| Plan::new(&config, wishes(Placement::F32, kind, 256, 1)).unwrap().thinker.bytes();
    assert_eq!([KvType::F32, KvType::Bf16, KvType::Fp8].map(kv), [4, 2, 1].map(|bytes| bytes * 256 * 4 * 2 * 32));
}

proptest! {
    #[test]
    fn more_is_never_less(window in 1_usize..65_000, sessions in 1_usize..400, rows in 1_usize..600) {
        let config = released();
        let bytes = |window, sessions, rows| {
            let wishes = wishes(Placement::Int4, KvType::Bf16, window, sessions);
            Plan::new(&config, Wishes { device: None, rows, ..wishes }).unwrap().bytes()
        };
        let all = bytes(window, sessions, rows);
        prop_assert!(all <= bytes(window + 500, sessions, rows));
        prop_assert!(all < bytes(window, sessions + 1, rows));
        prop_assert!(all < bytes(window, sessions, rows + 1));
    }
}
