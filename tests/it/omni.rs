//! The omni engine behind the service, on the tiny checkpoint: noise, but the real way from sound to sound.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use causerie_gateway::config::Config;
use causerie_gateway::engines;
use causerie_gateway::serve::{Running, Server};
use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_proto::v1::client_message::MessageType as ToServer;
use causerie_proto::v1::part::Data;
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{Call, Turn, connect, setup, utterance};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

/// Samples of the first frame and of every later one, in bytes.
const FIRST_FRAME: usize = 2 * 1_365;
const FRAME: usize = 2 * 1_920;

pub(crate) fn config() -> Config {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/qwen3-omni-tiny");
    let mut config = Config { engine: "omni".into(), ..causerie_tests::service::config() };
    config.omni.model = Some(model);
    config.omni.threads = Some(1);
    // Speech comes here at once, in the second of a first reply in which the gate still learns the room.
    config.echo_gate = false;
    config
}

pub(crate) async fn start(config: &Config) -> Running {
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

/// A PNG of 64 by 64 pixels: four tokens of the tiny checkpoint.
fn png(seed: u8) -> v1::Blob {
    let pixels: Vec<u8> = (0..64 * 64 * 3).map(|i| (i / 5 % 251) as u8 ^ seed).collect();
    let mut data = Vec::new();
    PngEncoder::new(&mut data).write_image(&pixels, 64, 64, ExtendedColorType::Rgb8).expect("a picture");
    v1::Blob { mime_type: "image/png".into(), data: data.into() }
}

fn shown(blob: v1::Blob) -> ToServer {
    let part = |data| v1::Part { data: Some(data), ..Default::default() };
    let parts = vec![part(Data::InlineData(blob)), part(Data::Text("what is this?".into()))];
    let turns = vec![v1::Content { role: "user".into(), parts }];
    ToServer::ClientContent(v1::ClientContent { turns, turn_complete: true })
}

fn video(blob: v1::Blob) -> ToServer {
    ToServer::RealtimeInput(v1::RealtimeInput { video: Some(blob), ..Default::default() })
}

fn video_tokens(turn: &Turn) -> i32 {
    let usage = turn.usage.as_ref().expect("what it cost");
    let details = usage.prompt_tokens_details.iter().filter(|d| d.modality == v1::Modality::Video as i32);
    details.map(|d| d.token_count).sum()
}

#[tokio::test]
async fn pictures_and_frames_are_seen() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let mut answers = Vec::new();
    for seed in [0, 90] {
        let (mut call, complete) = Call::begin(&channel, seeded(Modality::Audio)).await;
        assert!(complete.capabilities.expect("what the engine can do").video_in);
        call.send(shown(png(seed))).await;
        let first = call.turn().await;
        assert_eq!(video_tokens(&first), 4);

        // A frame of the camera belongs to what is said after it.
        call.send(video(png(seed ^ 7))).await;
        call.speak(&utterance(1_200, 1_500)).await;
        let second = call.turn().await;
        assert_eq!(video_tokens(&second), 8, "the picture and the frame");
        answers.push((first.audio, second.audio));
    }
    assert_ne!(answers[0].0, answers[1].0, "another picture, another answer");
    assert_ne!(answers[0].1, answers[1].1);
}

#[tokio::test]
async fn pictures_that_cannot_be_seen_are_named_and_nothing_else_ends() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, seeded(Modality::Audio)).await;
    let blob = |mime: &str, data: &[u8]| v1::Blob { mime_type: mime.into(), data: data.to_vec().into() };
    let mut large = png(1).data.to_vec();
    // The width and height of the header: 16,384 pixels each.
    large[16..24].copy_from_slice(&[0, 0, 64, 0, 0, 0, 64, 0]);
    for (bad, field, words) in [
        (shown(blob("image/png", b"no picture")), "client_content.turns[0].parts[0].inline_data", "cannot be read"),
        (shown(blob("image/png", &large)), "client_content.turns[0].parts[0].inline_data", ""),
        (
            shown(blob("image/gif", b"GIF89a")),
            "client_content.turns[0].parts[0].inline_data",
            "image/jpeg or image/png",
        ),
        (video(blob("video/mp4", b"x")), "realtime_input.video", "image/jpeg or image/png"),
        (video(blob("image/png", b"")), "realtime_input.video.data", "empty"),
    ] {
        call.send(bad).await;
        let warning = loop {
            let message = call.next().await.expect("the stream lives").expect("the stream lives");
            if let Some(v1::server_message::MessageType::Warning(warning)) = message.message_type {
                break warning;
            }
        };
        assert_eq!(warning.field, field, "{warning:?}");
        assert!(warning.message.contains(words), "{warning:?}");
    }
    call.say("hello").await;
    assert!(!call.turn().await.audio.is_empty());
}

#[tokio::test]
async fn a_checkpoint_that_is_not_there_is_named() {
    let mut config = config();
    config.omni.model = Some(PathBuf::from("/no/such/checkpoint"));
    let started = Server::start(&config, engines::engine(&config), Arc::new(LoudnessDetector)).await;
    let error = started.err().expect("it does not start").to_string();
    assert!(error.contains("omni") && error.contains("/no/such/checkpoint/config.json"), "{error}");
}
