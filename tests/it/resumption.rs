//! Conversations that go on in another stream, and after another server has taken over.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use causerie_gateway::access::keys::{self, Key, digest};
use causerie_gateway::config::{Config, ResumptionConfig};
use causerie_model_api::Modality;
use causerie_proto::v1::{self, client_message::MessageType as ToServer, server_message::MessageType as FromServer};
use causerie_tests::service::{Call, OUR_PATH, config, connect, first, resumable, setup, start, utterance};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use tonic::transport::Channel;
use tonic::{Code, Status};

fn anew(handle: &str) -> v1::Setup {
    resumable(v1::Setup::default(), Some(handle))
}

/// A client that sends again what came after the handle.
fn exactly(handle: &str) -> v1::Setup {
    let asked = v1::SessionResumptionConfig { handle: Some(handle.into()), transparent: Some(true) };
    v1::Setup { session_resumption: Some(asked), ..v1::Setup::default() }
}

/// How a stream with this setup ends that is not answered.
async fn refusal(channel: &Channel, setup: v1::Setup) -> Status {
    refusal_of(channel, setup, None).await
}

async fn refusal_of(channel: &Channel, setup: v1::Setup, key: Option<&str>) -> Status {
    let header = key.map(|key| ("x-goog-api-key", key));
    let mut call = Call::open_as(channel, OUR_PATH, first(setup), header).await.expect("there is a place");
    call.next().await.expect_err("it is refused")
}

fn with_function() -> v1::Setup {
    let function = v1::FunctionDeclaration { name: "look".into(), ..Default::default() };
    let tools = vec![v1::Tool { function_declarations: vec![function], ..Default::default() }];
    resumable(v1::Setup { tools, ..setup(Modality::Text) }, None)
}

fn result(call: &v1::FunctionCall) -> ToServer {
    let response = v1::FunctionResponse {
        id: call.id.clone(),
        name: call.name.clone(),
        response: Some(prost_types::Struct::default()),
        ..Default::default()
    };
    ToServer::ToolResponse(v1::ToolResponse { function_responses: vec![response] })
}

#[tokio::test]
async fn a_conversation_goes_on_in_another_stream() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    let beginning = call.handle().await;
    call.say("hello").await;
    let turn = call.turn().await;
    let none = |update: &v1::SessionResumptionUpdate| !update.resumable && update.new_handle.is_empty();
    assert!(turn.resumption.iter().all(none), "a reply cannot be resumed: {:?}", turn.resumption);
    let handle = call.handle().await;
    drop(call);

    // The settings are as they were: it is answered in text.
    let (mut call, _) = Call::begin(&channel, anew(&handle)).await;
    call.say("recall").await;
    assert_eq!(call.turn().await.text, "hello");
    let handle_of_second = call.handle().await;
    call.half_close();
    call.end().await.0.expect("it ends well");

    for spent in [&beginning, &handle] {
        let status = refusal(&channel, anew(spent)).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("already"), "{status}");
    }
    let status = refusal(&channel, anew("c2hvcnQ")).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().starts_with("setup.session_resumption.handle"), "{status}");

    // What cannot be opened does not spend a handle.
    let wrong = v1::Setup { speaking_rate: Some(9.0), ..anew(&handle_of_second) };
    assert_eq!(refusal(&channel, wrong).await.code(), Code::InvalidArgument);
    let (mut call, _) = Call::begin(&channel, anew(&handle_of_second)).await;
    call.say("recall").await;
    assert_eq!(call.turn().await.text, "hello");
}

#[tokio::test]
async fn a_stream_that_is_still_open_gives_way() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut old, _) = Call::begin(&channel, with_function()).await;
    old.say("call look").await;
    let called = old.function_call().await;
    let handle = old.handle().await;
    // The result arrives on the old stream, and the client does not know it.
    old.send(result(&called)).await;
    let turn = old.turn().await;
    assert_eq!(turn.text, "You said: look gave {}");

    let (mut new, _) = Call::begin(&channel, exactly(&handle)).await;
    let (end, rest) = old.end().await;
    assert_eq!(end.expect_err("it is elsewhere").code(), Code::Aborted);
    assert_eq!(rest.errors[0].code, "ABORTED");
    // The handle is of before the result, which is not lost: its turn is made again.
    assert_eq!(new.turn().await.text, "You said: look gave {}");
}

#[tokio::test]
async fn a_handle_that_counts_for_nothing_is_refused_by_name() {
    const ADA: &str = "causerie_ada";
    const BOB: &str = "causerie_bob";
    let folder = tempfile::tempdir().expect("a folder");
    let (keys_file, secret_file) = (folder.path().join("keys.toml"), folder.path().join("handles.key"));
    let key = |name: &str, key| Key { name: name.into(), sha256: digest(key), streams: 4, per_minute: 60 };
    keys::write(&keys_file, vec![key("ada", ADA), key("bob", BOB)]).expect("the file can be written");
    let secret = [b'k'; 32];
    std::fs::write(&secret_file, secret).expect("the file can be written");
    let resumption = ResumptionConfig { key_file: Some(secret_file), ..ResumptionConfig::default() };
    let server = start(&Config { keys: Some(keys_file), resumption, ..config() }).await;
    let channel = connect(server.grpc_addr).await;

    let header = Some(("x-goog-api-key", ADA));
    let asked = first(resumable(setup(Modality::Text), None));
    let mut call = Call::open_as(&channel, OUR_PATH, asked, header).await.expect("a known key");
    let handle = call.handle().await;

    // Handles as this server signs them, of a conversation that it does not have.
    let signed = |by: &[u8], expires: u64| {
        let mut bytes = [[7; 16].as_slice(), &expires.to_be_bytes()].concat();
        let mac = Hmac::<Sha256>::new_from_slice(by).expect("a key of any length will do").chain_update(&bytes);
        bytes.extend_from_slice(&mac.finalize().into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let cases = [
        ("no handle at all", "nonsense".to_owned(), Code::InvalidArgument, "has not given out"),
        ("forged", signed(b"another secret", u64::MAX), Code::InvalidArgument, "has not given out"),
        ("expired", signed(&secret, 1_000), Code::FailedPrecondition, "expired"),
        ("forgotten", signed(&secret, u64::MAX), Code::NotFound, "not kept any more"),
        ("somebody else's", handle.clone(), Code::PermissionDenied, "another API key"),
    ];
    for (name, handle, code, words) in cases {
        let status = refusal_of(&channel, anew(&handle), Some(BOB)).await;
        assert_eq!(status.code(), code, "{name}: {status}");
        let message = status.message();
        assert!(message.starts_with("setup.session_resumption.handle") && message.contains(words), "{name}: {status}");
    }
    // Whoever it was given to is not disturbed by any of this.
    call.say("hello").await;
    assert_eq!(call.turn().await.text, "You said: hello");
    let handle = call.handle().await;
    let mut call = Call::open_as(&channel, OUR_PATH, first(anew(&handle)), header).await.expect("a known key");
    call.next().await.expect("it is theirs");
    let status = refusal_of(&channel, anew(&handle), Some(ADA)).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("already"), "{status}");
}

#[tokio::test]
async fn a_reply_that_was_cut_off_is_part_of_the_conversation() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    for (resume, recalled) in [(anew as fn(&str) -> v1::Setup, "hello say 90 words"), (exactly, "hello")] {
        let (mut call, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
        call.say("hello").await;
        call.turn().await;
        let handle = call.handle().await;
        call.say("say 90 words").await;
        while !matches!(
            call.next().await.expect("the reply").and_then(|message| message.message_type),
            Some(FromServer::ServerContent(_))
        ) {}
        drop(call);
        let (mut call, _) = Call::begin(&channel, resume(&handle)).await;
        call.say("recall").await;
        assert_eq!(call.turn().await.text, recalled);
    }
}

#[tokio::test]
async fn results_are_taken_after_a_reconnect() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, with_function()).await;
    call.say("call look").await;
    let called = call.function_call().await;
    let handle = call.handle().await;
    drop(call);
    let (mut call, _) = Call::begin(&channel, anew(&handle)).await;
    call.send(result(&called)).await;
    assert_eq!(call.turn().await.text, "You said: look gave {}");
    call.send(result(&called)).await;
    match call.next().await.expect("the stream goes on").and_then(|message| message.message_type) {
        Some(FromServer::Warning(problem)) => assert_eq!(problem.code, "FAILED_PRECONDITION"),
        Some(FromServer::SessionResumptionUpdate(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_are_counted_for_who_sends_them_again() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    let mut consumed = Vec::new();
    for _ in 0..2 {
        call.send(ToServer::Ping(v1::Ping::default())).await;
        call.say("hello").await;
        let turn = call.turn().await;
        let updates = turn.resumption.into_iter().filter(|update| update.resumable);
        consumed.extend(updates.filter_map(|update| update.last_consumed_client_message_index));
        loop {
            let message = call.next().await.expect("the stream goes on").expect("the stream goes on");
            if let Some(FromServer::SessionResumptionUpdate(update)) = message.message_type
                && update.resumable
            {
                consumed.extend(update.last_consumed_client_message_index);
                break;
            }
        }
    }
    assert!(consumed.is_sorted() && consumed.ends_with(&[4]) && consumed.contains(&2), "{consumed:?}");
}

#[tokio::test]
async fn a_shutdown_leaves_every_client_a_handle() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = Some(folder.path().join("conversations.db"));
    let config = Config { resumption: ResumptionConfig { file, ..ResumptionConfig::default() }, ..config() };
    let server = start(&config).await;
    let channel = connect(server.grpc_addr).await;
    let (mut busy, _) = Call::begin(&channel, resumable(setup(Modality::Audio), None)).await;
    let (mut idle, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    let (mut waiting, _) = Call::begin(&channel, with_function()).await;
    idle.say("before").await;
    idle.turn().await;
    waiting.say("call look").await;
    let called = waiting.function_call().await;
    busy.say("say 5 words").await;
    // The server has taken the turn before it is told to stop.
    while !matches!(
        busy.next().await.expect("the reply").and_then(|message| message.message_type),
        Some(FromServer::ServerContent(_))
    ) {}
    let stopped = tokio::spawn(server.shutdown());
    let mut handles = Vec::new();
    for call in [&mut busy, &mut idle, &mut waiting] {
        let (end, rest) = call.end().await;
        assert_eq!(end.expect_err("the server goes").code(), Code::Unavailable);
        assert!(rest.marks.contains(&"go_away"), "{rest:?}");
        let last = rest.resumption.last().expect("a handle");
        assert!(last.resumable, "{rest:?}");
        handles.push(last.new_handle.clone());
    }
    assert!(stopped.await.expect("it ends"), "all were done in time");

    let server = start(&config).await;
    let channel = connect(server.grpc_addr).await;
    let (mut busy, _) = Call::begin(&channel, anew(&handles[0])).await;
    busy.say("recall").await;
    assert_eq!(busy.turn().await.said, "say 5 words");
    let (mut idle, _) = Call::begin(&channel, anew(&handles[1])).await;
    idle.say("recall").await;
    assert_eq!(idle.turn().await.text, "before");
    let (mut waiting, _) = Call::begin(&channel, anew(&handles[2])).await;
    waiting.send(result(&called)).await;
    assert_eq!(waiting.turn().await.text, "You said: look gave {}");
}

#[tokio::test]
async fn a_lost_engine_loses_no_conversation() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    let (other, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("hello").await;
    call.turn().await;
    other.say("panic").await;
    let (end, rest) = call.end().await;
    assert_eq!(end.expect_err("the engine is lost").code(), Code::Unavailable);
    let handle = rest.resumption.last().filter(|update| update.resumable).expect("a handle").new_handle.clone();
    causerie_tests::service::until_page(server.http_addr, "/readyz", |status, _| status.contains("200")).await;
    let (mut call, _) = Call::begin(&channel, anew(&handle)).await;
    call.say("recall").await;
    assert_eq!(call.turn().await.text, "hello");
}

/// A client that has sent this and had it read.
async fn spoken(channel: &Channel, pcm: &[f32]) -> (Call, String) {
    let (mut call, _) = Call::begin(channel, resumable(setup(Modality::Text), None)).await;
    let handle = call.handle().await;
    call.speak(pcm).await;
    call.send(ToServer::Ping(v1::Ping::default())).await;
    while !matches!(
        call.next().await.expect("the stream goes on").and_then(|message| message.message_type),
        Some(FromServer::Pong(_))
    ) {}
    (call, handle)
}

#[tokio::test]
async fn what_is_said_when_the_connection_breaks_is_understood() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;

    // Who had paused is answered in the next stream.
    let (call, handle) = spoken(&channel, &utterance(480, 200)).await;
    drop(call);
    let (mut call, _) = Call::begin(&channel, anew(&handle)).await;
    assert_eq!(call.turn().await.text, "You said: loud for 480 ms");

    // So it is when the server has not noticed that the old stream is dead.
    let (mut old, handle) = spoken(&channel, &utterance(400, 200)).await;
    let (mut call, _) = Call::begin(&channel, anew(&handle)).await;
    assert_eq!(call.turn().await.text, "You said: loud for 400 ms");
    assert_eq!(old.end().await.0.expect_err("it is elsewhere").code(), Code::Aborted);

    // Who was in the middle of a sentence goes on with it, and nobody answers the half.
    let (call, handle) = spoken(&channel, &utterance(320, 0)).await;
    drop(call);
    let (mut call, _) = Call::begin(&channel, anew(&handle)).await;
    call.say("recall").await;
    assert_eq!(call.turn().await.text, "loud for 320 ms");

    // Who says it again is not taken to have said it twice.
    let (call, handle) = spoken(&channel, &utterance(480, 200)).await;
    drop(call);
    let (mut call, _) = Call::begin(&channel, exactly(&handle)).await;
    call.say("recall").await;
    assert_eq!(call.turn().await.text, "");
}

#[tokio::test]
async fn a_place_is_taken_over_from_a_stream_that_is_dead() {
    let server = start(&Config { max_conversations: 1, ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    let (mut dead, _) = Call::begin(&channel, resumable(setup(Modality::Text), None)).await;
    dead.say("hello").await;
    dead.turn().await;
    let handle = dead.handle().await;
    // What fills the windows of its connection, as nobody reads it any more.
    dead.say("say 60 long words").await;
    for _ in 0..32 {
        dead.send(ToServer::Ping(v1::Ping::default())).await;
    }
    // Another connection: the windows of this one are full.
    let channel = connect(server.grpc_addr).await;
    let refused = refusal(&channel, setup(Modality::Text)).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let (mut call, _) = Call::begin(&channel, exactly(&handle)).await;
    call.say("recall").await;
    assert_eq!(call.turn().await.text, "hello");
    let refused = refusal(&channel, setup(Modality::Text)).await;
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    drop(dead);
}

#[tokio::test]
async fn a_long_instruction_goes_on_too() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let instruction: Vec<String> = (0..1_000).map(|n| format!("rule{n}")).collect();
    let part = v1::Part { data: Some(v1::part::Data::Text(instruction.join(" "))), ..Default::default() };
    let told = v1::Content { parts: vec![part], ..Default::default() };
    let asked = v1::Setup { system_instruction: Some(told), ..setup(Modality::Text) };
    let (mut call, _) = Call::begin(&channel, resumable(asked, None)).await;
    let mut handle = call.handle().await;
    for _ in 0..3 {
        drop(call);
        (call, _) = Call::begin(&channel, anew(&handle)).await;
        handle = call.handle().await;
    }
    call.say("task").await;
    assert_eq!(call.turn().await.text, instruction.join(" "));
}
