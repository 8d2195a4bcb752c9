//! The omni engine behind the service with its networks on the emulated device: the same kernels, launches and checks that a
//! GPU gets, from a socket to a socket.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use causerie_gateway::engine_host::EngineFactory;
use causerie_gateway::serve::{Running, Server};
use causerie_kernels::cuda::Gpu;
use causerie_kernels::cuda::emulator::Emulator;
use causerie_model::omni::engine::load_on;
use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{Call, Turn, connect, resumable, setup, until_page, utterance};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

use crate::omni::config;

/// Words and frames of an answer: the emulator is slow.
const WORDS: i32 = 2;
const FRAMES: i32 = 2;

/// The tiny checkpoint, as one whose answers are short.
fn brief_model(from: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "chat_template.json"] {
        std::fs::copy(from.join(file), folder.path().join(file)).expect("the checkpoint has it");
    }
    let generation = format!(r#"{{"thinker_max_new_tokens": {WORDS}, "talker_max_new_tokens": {FRAMES}}}"#);
    std::fs::write(folder.path().join("generation_config.json"), generation).expect("the file can be written");
    folder
}

/// Engines on emulated devices, the first of which is lost when `lasts` has been counted down; and the devices.
fn engines_on(devices: &Arc<Mutex<Vec<Gpu>>>, lasts: &Arc<AtomicU64>) -> EngineFactory {
    let config = config();
    let model = brief_model(config.omni.model.as_deref().expect("the tiny checkpoint"));
    let options = config.omni.options(model.path().to_owned(), 3);
    let (devices, lasts) = (Arc::clone(devices), Mutex::new(Some(Arc::clone(lasts))));
    Box::new(move || {
        let _there = &model;
        let emulator = Emulator::of_all_ops(2).map_err(|e| e.to_string())?;
        let lasts = lasts.lock().expect("nobody panics").take().unwrap_or_else(forever);
        let gpu = Gpu::new(emulator.counting_down(lasts));
        devices.lock().expect("nobody panics").push(gpu.clone());
        load_on(&options, gpu).map_err(|e| e.to_string())
    })
}

fn forever() -> Arc<AtomicU64> {
    Arc::new(AtomicU64::new(u64::MAX))
}

async fn start(factory: EngineFactory) -> Running {
    Server::start(&config(), factory, Arc::new(LoudnessDetector)).await.expect("the server starts")
}

fn brief() -> v1::Setup {
    let mut setup = setup(Modality::Audio);
    if let Some(generation) = &mut setup.generation_config {
        generation.seed = Some(1);
    }
    setup
}

/// A typed turn and a spoken one.
async fn converse(channel: &Channel) -> [Turn; 2] {
    let (mut call, _) = Call::begin(channel, brief()).await;
    call.say("hello").await;
    let typed = call.turn().await;
    call.speak(&utterance(1_000, 1_500)).await;
    [typed, call.turn().await]
}

#[tokio::test]
async fn conversations_on_the_emulated_device_are_the_same_alone_and_in_company() {
    let devices = Arc::default();
    let server = start(engines_on(&devices, &forever())).await;
    let channel = connect(server.grpc_addr).await;
    let alone = converse(&channel).await;
    for turn in &alone {
        assert!(!turn.audio.is_empty() && turn.marks.last() == Some(&"turn_complete"), "{turn:?}");
    }
    let (one, other) = tokio::join!(converse(&channel), converse(&channel));
    for company in [one, other] {
        for (alone, company) in alone.iter().zip(&company) {
            assert_eq!((&alone.said, &alone.audio), (&company.said, &company.audio));
        }
    }
    // A word is a draw of the thinker, a frame is 16: all of them were made on the device.
    let launches = devices.lock().expect("nobody panics")[0].launches();
    let drawn = launches["sample_token"];
    assert!(drawn >= 3 * 2 * 2 * 16 && launches["snake_beta"] > 0 && launches["conv2d"] > 0, "{launches:?}");
}

#[tokio::test]
async fn a_device_that_is_lost_ends_streams_that_go_on_with_the_next_engine() {
    let (devices, lasts) = (Arc::<Mutex<Vec<Gpu>>>::default(), forever());
    let server = start(engines_on(&devices, &lasts)).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, resumable(brief(), None)).await;
    call.say("hello").await;
    let first = call.turn().await;
    assert!(!first.audio.is_empty());
    let handle = call.handle().await;
    // In the middle of the next answer, which needs many more.
    lasts.store(200, Ordering::Relaxed);
    call.say("and again").await;
    let (end, cut) = call.end().await;
    let status = end.expect_err("the device is lost");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("the engine failed and is being restarted"), "{status}");
    assert!(!cut.complete);

    until_page(server.http_addr, "/readyz", |status, _| status.contains("200")).await;
    let (mut call, _) = Call::begin(&channel, resumable(v1::Setup::default(), Some(&handle))).await;
    // What was asked before it was lost may still be wanted, and gives way.
    call.say("and again").await;
    let mut turn = call.turn().await;
    while turn.reason == Some(v1::TurnEndReason::Interrupted) {
        turn = call.turn().await;
    }
    // A random network has nothing to say now and then, but it has read all that was said.
    let read = |turn: &Turn| turn.usage.as_ref().map_or(0, |usage| usage.prompt_token_count);
    assert_ne!(turn.reason, Some(v1::TurnEndReason::Failed), "{:?}", turn.errors);
    assert!(read(&turn) > read(&first) && read(&first) > 10, "{} after {}", read(&turn), read(&first));
    assert_eq!(devices.lock().expect("nobody panics").len(), 2, "another engine");
}
