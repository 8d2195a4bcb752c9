//! The omni engine behind the service, on the tiny checkpoint: noise, but the real way from sound to sound.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use causerie_gateway::config::Config;
use causerie_gateway::engines;
use causerie_gateway::serve::{Running, Server};
use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{Call, connect, setup, utterance};

/// Samples of the first frame and of every later one, in bytes.
const FIRST_FRAME: usize = 2 * 1_365;
const FRAME: usize = 2 * 1_920;

fn config() -> Config {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/qwen3-omni-tiny");
    let mut config = Config { engine: "omni".into(), ..causerie_tests::service::config() };
    config.omni.model = Some(model);
    config.omni.threads = Some(1);
    // Speech comes here at once, in the second of a first reply in which the gate still learns the room.
    config.echo_gate = false;
    config
}

async fn start(config: &Config) -> Running {
    Server::start(config, engines::engine(config), Arc::new(LoudnessDetector)).await.expect("the server starts")
}

/// Draws that give an answer of a second or more.
fn seeded(modality: Modality) -> v1::Setup {
    let mut setup = setup(modality);
    if let Some(generation) = &mut setup.generation_config {
        generation.seed = Some(1);
    }
    setup
}

#[tokio::test]
async fn typed_and_spoken_turns_are_answered_in_speech() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, complete) = Call::begin(&channel, seeded(Modality::Audio)).await;
    assert_eq!((complete.model.as_str(), complete.voice.as_str()), ("omni", "ethan"));
    call.say("hello").await;
    let typed = call.turn().await;
    assert!(typed.audio.len() >= FIRST_FRAME && (typed.audio.len() - FIRST_FRAME).is_multiple_of(FRAME));
    assert!(!typed.said.is_empty());
    let usage = typed.usage.expect("what it cost");
    assert!(usage.prompt_token_count > 10 && usage.response_token_count > 0, "{usage:?}");

    call.speak(&utterance(1_200, 1_500)).await;
    let spoken = call.turn().await;
    assert_eq!(spoken.heard, "", "this model does not write down what it hears");
    assert!(spoken.audio.len() >= FIRST_FRAME, "{} bytes", spoken.audio.len());
    assert_ne!(spoken.audio, typed.audio);
    assert_eq!(spoken.marks[..2], ["speech_started", "speech_stopped"]);
    assert_eq!(spoken.marks.last(), Some(&"turn_complete"));
}

#[tokio::test]
async fn speech_into_an_answer_interrupts_it_and_is_answered() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, seeded(Modality::Audio)).await;
    call.say("hello").await;
    loop {
        let message = call.next().await.expect("the reply").expect("the reply");
        if let Some(v1::server_message::MessageType::ServerContent(content)) = message.message_type
            && content.reply_audio.is_some()
        {
            break;
        }
    }
    call.speak(&utterance(1_200, 1_500)).await;
    let first = call.turn().await;
    assert!(first.marks.contains(&"interrupted"), "{:?}", first.marks);
    assert_eq!(first.reason, Some(v1::TurnEndReason::Interrupted));
    let second = call.turn().await;
    assert!(!second.audio.is_empty() && second.reason != Some(v1::TurnEndReason::Interrupted), "{:?}", second.marks);
}

#[tokio::test]
async fn a_checkpoint_that_is_not_there_is_named() {
    let mut config = config();
    config.omni.model = Some(PathBuf::from("/no/such/checkpoint"));
    let started = Server::start(&config, engines::engine(&config), Arc::new(LoudnessDetector)).await;
    let error = started.err().expect("it does not start").to_string();
    assert!(error.contains("omni") && error.contains("/no/such/checkpoint/config.json"), "{error}");
}
