//! The omni engine behind the service, on the tiny checkpoint: noise, but the real way from sound to sound.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use causerie_gateway::config::{Config, OmniConfig};
use causerie_gateway::engines;
use causerie_gateway::serve::{Running, Server};
use causerie_model::omni::Placement;
use causerie_model::omni::engine::Device;
use causerie_model::omni::kv::KvType;
use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_proto::v1::client_message::MessageType as ToServer;
use causerie_proto::v1::part::Data;
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{Call, Turn, connect, setup, utterance};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder as _};

use crate::omni_script::{ANSWER, scripted};

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

#[tokio::test]
async fn a_function_is_called_and_its_result_is_spoken() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config();
    config.omni.model = Some(scripted(dir.path()));
    let server = start(&config).await;
    let channel = connect(server.grpc_addr).await;
    let parameters = v1::Schema {
        r#type: v1::Type::Object as i32,
        properties: [("a".into(), v1::Schema { r#type: v1::Type::Integer as i32, ..Default::default() })].into(),
        required: vec!["a".into()],
        ..Default::default()
    };
    let declaration =
        v1::FunctionDeclaration { name: "add".into(), parameters: Some(parameters), ..Default::default() };
    let tools = vec![v1::Tool { function_declarations: vec![declaration], ..Default::default() }];
    let (mut call, complete) = Call::begin(&channel, v1::Setup { tools, ..seeded(Modality::Audio) }).await;
    assert!(complete.capabilities.expect("what the engine can do").tools);
    call.speak(&utterance(1_200, 1_500)).await;
    let asked = call.function_call().await;
    assert_eq!(asked.name, "add");
    let a = asked.args.as_ref().and_then(|args| args.fields.get("a")).and_then(|a| a.kind.clone());
    assert_eq!(a, Some(prost_types::value::Kind::NumberValue(2.0)));
    let result = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(3.0)) };
    let response = prost_types::Struct { fields: [("sum".into(), result)].into() };
    let response =
        v1::FunctionResponse { id: asked.id, name: asked.name, response: Some(response), ..Default::default() };
    call.send(ToServer::ToolResponse(v1::ToolResponse { function_responses: vec![response] })).await;
    let turn = call.turn().await;
    assert_eq!((turn.said.as_str(), turn.reason), (ANSWER, Some(v1::TurnEndReason::Stop)));
    assert!(turn.audio.len() >= FIRST_FRAME);
    let usage = turn.usage.expect("what it cost");
    assert!(usage.tool_use_prompt_token_count > 0, "the result was read: {usage:?}");
}

#[tokio::test]
async fn thoughts_stay_within_their_budget() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let mut counts = Vec::new();
    for budget in [0, 6] {
        let mut setup = seeded(Modality::Audio);
        if let Some(generation) = &mut setup.generation_config {
            generation.thinking_config =
                Some(v1::ThinkingConfig { include_thoughts: Some(true), thinking_budget: Some(budget) });
        }
        let (mut call, _) = Call::begin(&channel, setup).await;
        call.say("hello").await;
        let turn = call.turn().await;
        assert!(turn.audio.len() >= FIRST_FRAME);
        let thought = turn.usage.expect("what it cost").thoughts_token_count;
        assert_eq!(thought > 0, !turn.thoughts.is_empty(), "{:?}", turn.thoughts);
        counts.push(thought);
    }
    assert!(counts[0] == 0 && (1..=6).contains(&counts[1]), "{counts:?}");
}

fn png_of(width: u32, height: u32, seed: u8) -> v1::Blob {
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i / 5 % 251) as u8 ^ seed).collect();
    let mut data = Vec::new();
    PngEncoder::new(&mut data).write_image(&pixels, width, height, ExtendedColorType::Rgb8).expect("a picture");
    v1::Blob { mime_type: "image/png".into(), data: data.into() }
}

/// A PNG of 64 by 64 pixels: four tokens of the tiny checkpoint.
fn png(seed: u8) -> v1::Blob {
    png_of(64, 64, seed)
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

/// However small or large a picture is, it has the tokens that the resolution allows.
#[tokio::test]
async fn pictures_of_any_size_have_the_tokens_of_their_resolution() {
    use v1::generation_config::MediaResolution;
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let large = png_of(1_024, 1_024, 3);
    for (resolution, blob, tokens) in [
        (MediaResolution::Low, png_of(1, 1, 3), 4),
        (MediaResolution::Low, large.clone(), 64),
        (MediaResolution::Medium, large, 256),
    ] {
        let mut setup = seeded(Modality::Text);
        if let Some(generation) = &mut setup.generation_config {
            generation.media_resolution = Some(resolution as i32);
        }
        let (mut call, _) = Call::begin(&channel, setup).await;
        call.send(shown(blob)).await;
        let turn = call.turn().await;
        assert_eq!((video_tokens(&turn), turn.reason.is_some()), (tokens, true), "{resolution:?}");
    }
}

#[tokio::test]
async fn pictures_that_cannot_be_seen_are_named_and_nothing_else_ends() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, seeded(Modality::Audio)).await;
    let blob = |mime: &str, data: &[u8]| v1::Blob { mime_type: mime.into(), data: data.to_vec().into() };
    for (bad, field, words) in [
        (shown(blob("image/png", b"no picture")), "client_content.turns[0].parts[0].inline_data", "cannot be read"),
        (
            shown(png_of(16_384, 100, 1)),
            "client_content.turns[0].parts[0].inline_data",
            "a picture of 16384 × 100 pixels is larger than",
        ),
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
async fn a_gpu_that_is_not_there_is_named() {
    let mut config = config();
    // No machine has as many.
    config.omni.device = Device::Cuda(1_000);
    let started = Server::start(&config, engines::engine(&config), Arc::new(LoudnessDetector)).await;
    let error = started.err().expect("it does not start").to_string();
    assert!(error.contains("NVIDIA driver") || error.contains("no GPU 1000"), "{error}");
}

#[tokio::test]
async fn a_checkpoint_that_is_not_there_is_named() {
    let mut config = config();
    config.omni.model = Some(PathBuf::from("/no/such/checkpoint"));
    let started = Server::start(&config, engines::engine(&config), Arc::new(LoudnessDetector)).await;
    let error = started.err().expect("it does not start").to_string();
    assert!(error.contains("omni") && error.contains("/no/such/checkpoint/config.json"), "{error}");
}

#[tokio::test]
async fn what_does_not_fit_is_told_before_it_is_loaded() {
    let mut config = config();
    config.omni.memory_gb = Some(1);
    let plan = engines::omni_plan(&config).expect("a plan");
    for words in ["weights in f32", "audio tower", "keys and values, thinker", "in all", "of 0.931"] {
        assert!(plan.contains(words), "{words} is not in\n{plan}");
    }
    // The released shape in eight bits, with a window of a million tokens, on one device of 141 GB.
    let released = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/qwen3-omni-30b");
    let mut large = Config { max_conversations: 1, ..config.clone() };
    large.omni = OmniConfig {
        model: Some(released),
        weights: Placement::Fp8,
        kv: KvType::Fp8,
        yarn: Some(16.0),
        context: 1 << 20,
        memory_gb: Some(141),
        ..large.omni
    };
    let plan = engines::omni_plan(&large).expect("it fits");
    assert!(plan.contains("1 × 1048576 tokens") && plan.ends_with("room for 1 conversations"), "{plan}");
    config.max_conversations = 2_000;
    let refused = engines::omni_plan(&config).expect_err("it does not fit");
    let started = Server::start(&config, engines::engine(&config), Arc::new(LoudnessDetector)).await;
    let error = started.err().expect("it does not start").to_string();
    assert!(error.contains(&refused) && refused.contains("bytes are needed, the device has 1000000000"), "{error}");
}
