//! The engine with its networks on the emulated device: the same words, frames and sounds whoever else is there, launch by
//! launch as recorded, with memory asked for once.

use causerie_kernels::cuda::Gpu;
use causerie_kernels::cuda::emulator::Emulator;

use super::*;

fn gpu() -> Gpu {
    Gpu::new(Emulator::of_all_ops(5).unwrap())
}

fn engine_on(gpu: &Gpu, sessions: usize) -> OmniEngine {
    short(OmniEngine::load_on(&options(sessions), Some(gpu.clone())).unwrap())
}

/// Speech of a few frames: the emulator is slow.
fn short(mut e: OmniEngine) -> OmniEngine {
    e.generation.max_frames = 2;
    e
}

/// Answers of a few words.
fn brief(seed: u64) -> SessionConfig {
    SessionConfig { max_output_tokens: Some(2), ..config(seed) }
}

/// What `S` is answered: a typed turn and a spoken one, while `company` others talk and end before and after.
fn answers(e: &mut OmniEngine, company: u64) -> [Reply; 2] {
    open(e, S, brief(7));
    for other in 0..company {
        open(e, SessionId(10 + other), brief(100 + other));
        say(e, SessionId(10 + other), 1, &"so ".repeat(1 + other as usize * 30));
    }
    say(e, S, 1, "first");
    let first = reply(&settle(e), 1);
    tone(e, S, 0, 17_000);
    for other in 0..company {
        say(e, SessionId(10 + other), 2, "and now");
    }
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(17_000) };
    e.submit(Request::Start { session: S, turn: TurnId(2), cause }).unwrap();
    [first, reply(&settle(e), 2)]
}

#[test]
fn a_conversation_on_a_device_is_the_same_alone_and_in_company() {
    let gpu = gpu();
    let alone = answers(&mut engine_on(&gpu, 1), 0);
    for reply in &alone {
        assert!(reply.done.is_some() && reply.pcm.len() >= FIRST_FRAME, "{} samples", reply.pcm.len());
    }
    let company = answers(&mut engine_on(&gpu, 3), 2);
    assert!(company == alone);
    // Everything was computed on the device: each network has launched what only it launches.
    let launched = gpu.launches();
    for kernel in ["conv2d", "attention_64_rows16", "router_top_k", "sample_token", "conv1d_bf16", "snake_beta"] {
        assert!(launched.keys().any(|name| name.starts_with(kernel)), "{kernel}: {launched:?}");
    }
}

#[test]
fn what_is_recorded_computes_what_is_launched_one_by_one_and_asks_for_no_memory() {
    let singly = gpu();
    singly.launch_singly();
    let expected = answers(&mut engine_on(&singly, 1), 0);
    let gpu = gpu();
    let mut e = engine_on(&gpu, 1);
    let recorded = answers(&mut e, 0);
    assert!(recorded == expected, "over steps at other positions");
    assert_eq!(gpu.launches(), singly.launches(), "nothing is left out");
    // The same again: all that it needs is there.
    e.submit(Request::Close { session: S }).unwrap();
    let asked = gpu.allocations();
    assert!(answers(&mut e, 0) == expected);
    assert_eq!(gpu.allocations(), asked, "memory is asked for once");
}

#[test]
fn a_device_that_is_lost_in_mid_step_ends_the_engine_and_nothing_is_made_up() {
    let gpu = gpu();
    let whole = answers(&mut engine_on(&gpu, 1), 0);
    let launches: u64 = gpu.launches().values().sum();
    for share in [2, 4] {
        let device = Emulator::of_all_ops(5).unwrap().lost_after(launches * share / 5);
        let mut e = engine_on(&Gpu::new(device), 1);
        open(&mut e, S, brief(7));
        say(&mut e, S, 1, "first");
        let mut events = settle(&mut e);
        tone(&mut e, S, 0, 17_000);
        let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(17_000) };
        e.submit(Request::Start { session: S, turn: TurnId(2), cause }).unwrap();
        events.extend(settle(&mut e));
        let why = causerie_model_api::Engine::lost(&e).expect("it is lost");
        assert!(why.contains("the emulator is lost"), "{why}");
        for turn in [1, 2] {
            let (told, whole) = (reply(&events, turn), &whole[turn as usize - 1]);
            assert!(whole.text.starts_with(&told.text) && whole.pcm.starts_with(&told.pcm), "turn {turn}");
        }
        assert!(reply(&events, 2).done.is_none());
    }
}

#[test]
fn what_a_device_cannot_hold_is_named() {
    use crate::omni::{Placement, kv::KvType};
    for (options, said) in [
        (Options { weights: Placement::Int4, ..options(1) }, "weights in int4"),
        (Options { kv: KvType::Fp8, ..options(1) }, "keys and values in fp8"),
    ] {
        let error = OmniEngine::load_on(&options, Some(gpu())).err().expect("it is refused").to_string();
        assert!(error.contains(said), "{error}");
    }
    // The drivers' errors come through as they are.
    let device = Emulator::of_all_ops(0).unwrap().with_memory(1 << 16);
    let error = OmniEngine::load_on(&options(1), Some(Gpu::new(device))).err().expect("it is refused").to_string();
    assert!(error.contains("do not fit into the memory of the emulator"), "{error}");
}
