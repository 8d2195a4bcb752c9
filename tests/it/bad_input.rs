//! What is wrong is told on its own stream, and the server and the other streams go on.

use causerie_model_api::Modality;
use causerie_proto::v1::{self, client_message::MessageType as ToServer};
use causerie_tests::service::{Call, OUR_PATH, audio, config, connect, first, setup, start, typed};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

const COMPATIBLE_PATH: &str = "/google.ai.generativelanguage.v1beta.GenerativeService/BidiGenerateContent";

async fn is_still_served(channel: &Channel) {
    let (mut call, _) = Call::begin(channel, setup(Modality::Text)).await;
    call.say("still there").await;
    assert_eq!(call.turn().await.text, "You said: still there");
}

/// How a stream with this first message ends.
async fn refusal(channel: &Channel, message: v1::ClientMessage) -> Status {
    match Call::open(channel, OUR_PATH, message).await {
        Err(status) => status,
        Ok(mut call) => call.end().await.0.expect_err("it is refused"),
    }
}

#[tokio::test]
async fn setups_are_refused_by_name() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let generation = |change: fn(&mut v1::GenerationConfig)| {
        let mut setup = setup(Modality::Audio);
        change(setup.generation_config.get_or_insert_default());
        first(setup)
    };
    let voice = |name: &str| v1::SpeechConfig {
        voice_config: Some(v1::VoiceConfig {
            voice_config: Some(v1::voice_config::VoiceConfig::PrebuiltVoiceConfig(v1::PrebuiltVoiceConfig {
                voice_name: Some(name.into()),
            })),
        }),
        ..Default::default()
    };
    let mut unknown_voice = setup(Modality::Audio);
    unknown_voice.generation_config.get_or_insert_default().speech_config = Some(voice("nobody"));
    let said = |n: usize| v1::Content {
        parts: vec![v1::Part { data: Some(v1::part::Data::Text(n.to_string())), ..Default::default() }],
        ..Default::default()
    };
    let search = v1::Tool { google_search: Some(v1::tool::GoogleSearch::default()), ..Default::default() };
    let message = |kind| v1::ClientMessage { message_type: Some(kind) };
    let cases = [
        ("content before setup", message(typed("hi")), Code::FailedPrecondition, "setup"),
        ("audio before setup", message(audio("audio/pcm", vec![0; 4])), Code::FailedPrecondition, "setup"),
        ("nothing", v1::ClientMessage { message_type: None }, Code::FailedPrecondition, "setup"),
        (
            "unknown model",
            first(v1::Setup { model: "models/none".into(), ..Default::default() }),
            Code::NotFound,
            "default, scripted",
        ),
        ("unknown voice", first(unknown_voice), Code::InvalidArgument, "tone"),
        ("stop", generation(|g| g.stop_sequences.push("x".into())), Code::InvalidArgument, "stop_sequences"),
        ("NaN", generation(|g| g.temperature = Some(f32::NAN)), Code::InvalidArgument, "temperature"),
        ("two replies", generation(|g| g.candidate_count = Some(2)), Code::InvalidArgument, "candidate_count"),
        ("picture", generation(|g| g.response_modalities = vec![2]), Code::InvalidArgument, "IMAGE"),
        (
            "search",
            first(v1::Setup { tools: vec![search], ..setup(Modality::Text) }),
            Code::Unimplemented,
            "tools.google_search",
        ),
        (
            "ten thousand turns",
            first(v1::Setup { history: (0..10_000).map(said).collect(), ..setup(Modality::Text) }),
            Code::InvalidArgument,
            "setup.history: 10000 entries are more than 4096",
        ),
        (
            "output",
            first(v1::Setup { output_audio_format: "audio/pcm;rate=7350".into(), ..setup(Modality::Audio) }),
            Code::InvalidArgument,
            "output_audio_format",
        ),
    ];
    for (name, message, code, words) in cases {
        let status = refusal(&channel, message).await;
        assert_eq!(status.code(), code, "{name}: {status}");
        assert!(status.message().contains(words), "{name}: {status}");
    }
    is_still_served(&channel).await;
}

#[tokio::test]
async fn broken_audio_ends_its_stream() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let cases = [
        ("unknown type", "audio/x-nonsense", vec![0; 320], "audio/x-nonsense"),
        ("rate 0", "audio/pcm;rate=0", vec![0; 320], "0 Hz"),
        ("rate 7350", "audio/pcm;rate=7350", vec![0; 320], "7350 Hz"),
        ("not the content", "audio/wav", b"this is no RIFF file, it is text, and long enough to tell".to_vec(), "RIFF"),
    ];
    for (name, mime, data, words) in cases {
        let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
        call.send(audio(mime, data)).await;
        let (end, before) = call.end().await;
        let status = end.expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status}");
        assert!(status.message().contains(words), "{name}: {status}");
        let [error] = &before.errors[..] else { panic!("{name}: the reason comes before the status: {before:?}") };
        assert_eq!((error.code.as_str(), error.field.as_str()), ("INVALID_ARGUMENT", "realtime_input.audio"));
    }
    is_still_served(&channel).await;
}

#[tokio::test]
async fn what_concerns_one_message_is_a_warning() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    let input = |input| ToServer::RealtimeInput(input);
    let blob = |mime: &str, data: &[u8]| v1::Blob { mime_type: mime.into(), data: data.to_vec().into() };
    let bad = [
        audio("audio/pcm", Vec::new()),
        input(v1::RealtimeInput { video: Some(blob("image/jpeg", b"xx")), ..Default::default() }),
        input(v1::RealtimeInput::default()),
        ToServer::ClientContent(v1::ClientContent {
            turns: vec![v1::Content { role: "robot".into(), parts: Vec::new() }],
            turn_complete: true,
        }),
        ToServer::ToolResponse(v1::ToolResponse { function_responses: vec![v1::FunctionResponse::default()] }),
        input(v1::RealtimeInput { activity_start: Some(v1::realtime_input::ActivityStart {}), ..Default::default() }),
    ];
    for message in bad {
        call.send(message).await;
    }
    call.say("and now").await;
    let mut turn = call.turn().await;
    assert_eq!(turn.text, "You said: and now");
    // Warnings of the driver and of the transport come in no promised order.
    let mut fields: Vec<String> = turn.warnings.drain(..).map(|w| w.field).collect();
    fields.sort();
    assert_eq!(
        fields,
        [
            "client_content.turns[0].role",
            "realtime_input",
            "realtime_input.activity_start",
            "realtime_input.audio.data",
            "realtime_input.video",
            "tool_response.function_responses[0].id",
        ]
    );
}

#[tokio::test]
async fn published_clients_get_a_status_instead_of_waiting() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let mut call = Call::open(&channel, COMPATIBLE_PATH, first(setup(Modality::Text))).await.expect("a place");
    // Harmless for a client that knows no warnings.
    call.send(audio("audio/pcm", Vec::new())).await;
    call.say("hello").await;
    assert_eq!(call.turn().await.text, "You said: hello");
    let bad = v1::Content { role: "robot".into(), parts: Vec::new() };
    call.send(ToServer::ClientContent(v1::ClientContent { turns: vec![bad], turn_complete: true })).await;
    let (end, before) = call.end().await;
    assert_eq!(end.expect_err("it ends").code(), Code::InvalidArgument);
    assert!(before.errors.is_empty() && before.marks.is_empty(), "{before:?}");
}

#[tokio::test]
async fn a_second_setup_ends_the_stream() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.send(ToServer::Setup(Box::new(setup(Modality::Text)))).await;
    let (end, before) = call.end().await;
    assert_eq!(end.expect_err("it ends").code(), Code::FailedPrecondition);
    assert_eq!(before.errors.len(), 1);
    is_still_served(&channel).await;
}

#[tokio::test]
async fn a_large_message_is_refused() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
    call.send(audio("audio/pcm;rate=16000", vec![0; 10 << 20])).await;
    let status = call.end().await.0.expect_err("it ends");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("4194304"), "{status}");
    is_still_served(&channel).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    // As a client message this is a setup whose bytes have an impossible wire type.
    let nonsense = v1::Blob { mime_type: "\u{f}\u{f}\u{f}".into(), data: Default::default() };
    let (sender, messages) = tokio::sync::mpsc::channel(1);
    sender.send(nonsense).await.expect("there is room");
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the connection is open");
    let codec = ProstCodec::<v1::Blob, v1::ServerMessage>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(OUR_PATH);
    let status = match grpc.streaming(Request::new(ReceiverStream::new(messages)), path, codec).await {
        Err(status) => status,
        Ok(answer) => answer.into_inner().message().await.expect_err("it is refused"),
    };
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    is_still_served(&channel).await;
}

fn functions(count: usize) -> v1::Setup {
    let declaration = |n| v1::FunctionDeclaration { name: format!("function_{n}"), ..Default::default() };
    let tools = vec![v1::Tool { function_declarations: (0..count).map(declaration).collect(), ..Default::default() }];
    v1::Setup { tools, ..setup(Modality::Text) }
}

#[tokio::test]
async fn results_that_nobody_can_use_are_told_and_the_call_still_waits() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let status = refusal(&channel, first(functions(129))).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().contains("129 functions are more than 128"), "{status}");
    // A hundred are not too many.
    let (mut call, _) = Call::begin(&channel, functions(100)).await;
    call.say("call function_99").await;
    let asked = call.function_call().await;
    let answer = |id: &str, text: String| {
        let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text)) };
        let response = Some(prost_types::Struct { fields: [("output".to_owned(), value)].into() });
        let response = v1::FunctionResponse { id: id.into(), name: asked.name.clone(), response, ..Default::default() };
        ToServer::ToolResponse(v1::ToolResponse { function_responses: vec![response] })
    };
    call.send(answer("of-another", "noon".into())).await;
    call.send(answer(&asked.id, "x".repeat(1 << 20))).await;
    call.send(answer(&asked.id, "noon".into())).await;
    call.send(answer(&asked.id, "midnight".into())).await;
    let mut turn = call.turn().await;
    call.say("and now").await;
    let after = call.turn().await;
    assert_eq!(turn.text, r#"You said: function_99 gave {"output":"noon"}"#);
    assert_eq!(after.text, "You said: and now");
    turn.warnings.extend(after.warnings);
    let codes: Vec<&str> = turn.warnings.iter().map(|warning| warning.code.as_str()).collect();
    assert_eq!(codes, ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"], "{:?}", turn.warnings);
    assert!(
        turn.warnings.iter().all(|w| w.field.starts_with("tool_response.function_responses")),
        "{:?}",
        turn.warnings
    );
    // A result that is larger than any message may be ends its own stream.
    call.send(answer(&asked.id, "x".repeat(5_000_000))).await;
    let status = call.end().await.0.expect_err("it ends");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    is_still_served(&channel).await;
}
