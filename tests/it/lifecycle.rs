//! Ports, probes, limits, failures of the engine, and the end of a server.

use std::sync::Arc;

use causerie_gateway::config::Config;
use causerie_gateway::serve::Server;
use causerie_model_api::Modality;
use causerie_proto::v1::live_client::LiveClient;
use causerie_proto::{COMPATIBLE_SERVICES, SERVICE, v1};
use causerie_tests::scripted::LoudnessDetector;
use causerie_tests::service::{Call, OUR_PATH, config, connect, factory, first, get, setup, start, until_page};
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1 as reflection;

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = start(&config()).await;
    for (field, taken) in [
        ("listen", Config { listen: server.grpc_addr.to_string(), ..config() }),
        ("http", Config { http: server.http_addr.to_string(), ..config() }),
    ] {
        let error = Server::start(&taken, factory(), Arc::new(LoudnessDetector)).await.err().expect("it is taken");
        let error = error.to_string();
        let address = if field == "listen" { server.grpc_addr } else { server.http_addr };
        for word in [field, &address.to_string(), "another program"] {
            assert!(error.contains(word), "{error:?} lacks {word:?}");
        }
    }
}

#[tokio::test]
async fn an_engine_that_cannot_be_loaded_is_an_error() {
    let broken = Box::new(|| Err("no weights; fetch them with `causerie models pull`".to_owned()));
    let error = Server::start(&config(), broken, Arc::new(LoudnessDetector)).await.err().expect("it cannot start");
    assert!(error.to_string().contains("causerie models pull"), "{error}");
}

#[tokio::test]
async fn probes_and_metrics_are_answered() {
    let server = start(&config()).await;
    let (status, _) = get(server.http_addr, "/healthz").await;
    assert!(status.contains("200"), "{status}");
    let (status, _) = get(server.http_addr, "/readyz").await;
    assert!(status.contains("200"), "{status}");
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("hello").await;
    call.turn().await;
    let (status, page) = get(server.http_addr, "/metrics").await;
    assert!(status.contains("200"), "{status}");
    for line in [
        "causerie_conversations_active 1",
        "causerie_conversations_started_total 1",
        "causerie_turns_total{reason=\"stop\"} 1",
        "causerie_engine_ready 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    let (status, _) = get(server.http_addr, "/nothing").await;
    assert!(status.contains("404"), "{status}");
}

#[tokio::test]
async fn a_stream_that_never_sends_its_setup_is_ended() {
    let server = start(&Config { setup_timeout_seconds: 1, ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    let (mut other, _) = Call::begin(&channel, setup(Modality::Text)).await;
    let nothing = tokio_stream::pending::<v1::ClientMessage>();
    let status = match LiveClient::new(channel).converse(nothing).await {
        Err(status) => status,
        Ok(response) => response.into_inner().message().await.expect_err("nothing can be answered"),
    };
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no setup came within 1 s"), "{status}");
    // Others have been served meanwhile and are still.
    other.say("hello").await;
    other.turn().await;
}

#[tokio::test]
async fn streams_without_a_setup_hold_no_place() {
    let server = start(&Config { max_conversations: 2, ..config() }).await;
    let idlers = connect(server.grpc_addr).await;
    let mut idle = tokio::task::JoinSet::new();
    for _ in 0..600 {
        let mut client = LiveClient::new(idlers.clone());
        idle.spawn(async move {
            match client.converse(tokio_stream::pending::<v1::ClientMessage>()).await {
                Err(status) => status,
                Ok(response) => response.into_inner().message().await.expect_err("nothing can be answered"),
            }
        });
    }
    // Those that do not fit beside the others are ended, the first come first.
    for _ in 0..300 {
        let status = idle.join_next().await.expect("many are left").expect("it does not panic");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.metadata().contains_key("retry-after"), "{status:?}");
    }
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("hello").await;
    assert_eq!(call.turn().await.text, "You said: hello");
}

#[tokio::test]
async fn health_and_reflection_are_served() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", SERVICE, COMPATIBLE_SERVICES[0], COMPATIBLE_SERVICES[1]] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = health.check(request).await.expect("it is known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let mut client = reflection::server_reflection_client::ServerReflectionClient::new(channel);
    let ask = |request| reflection::ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    use reflection::server_reflection_request::MessageRequest;
    use reflection::server_reflection_response::MessageResponse;
    let requests =
        [ask(MessageRequest::ListServices(String::new())), ask(MessageRequest::FileContainingSymbol(SERVICE.into()))];
    let mut answers =
        client.server_reflection_info(tokio_stream::iter(requests)).await.expect("it is served").into_inner();
    let listed = answers.message().await.expect("an answer").and_then(|a| a.message_response);
    let Some(MessageResponse::ListServicesResponse(listed)) = listed else { panic!("{listed:?}") };
    assert!(listed.service.iter().any(|s| s.name == SERVICE), "{listed:?}");
    let file = answers.message().await.expect("an answer").and_then(|a| a.message_response);
    assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
}

#[tokio::test]
async fn places_are_counted() {
    let server = start(&Config { max_conversations: 1, ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    let refused = Call::open(&channel, OUR_PATH, first(setup(Modality::Text))).await.err().expect("it is full");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    call.say("not disturbed").await;
    assert_eq!(call.turn().await.text, "You said: not disturbed");
    call.half_close();
    assert!(call.next().await.expect("it ends with OK").is_none());
    until_page(server.http_addr, "/metrics", |_, page| page.contains("causerie_conversations_active 0\n")).await;
    Call::begin(&channel, setup(Modality::Text)).await;
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
    call.say("say 1000 words").await;
    call.next().await.expect("the answer has begun");
    drop(call);
    until_page(server.http_addr, "/metrics", |_, page| {
        page.contains("causerie_conversations_active 0\n") && page.contains("causerie_engine_conversations 0\n")
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_ended() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    until_page(server.http_addr, "/metrics", |_, page| page.contains("causerie_engine_conversations 1\n")).await;
    // More than the connection's buffers and the server's queue hold together.
    call.say("say 1000 long words").await;
    until_page(server.http_addr, "/metrics", |_, page| page.contains("causerie_engine_conversations 0\n")).await;
    let (end, before) = call.end().await;
    assert_eq!(end.expect_err("it was ended").code(), Code::ResourceExhausted);
    assert!(!before.text.is_empty(), "what was sent before is delivered");
    let (mut other, _) = Call::begin(&channel, setup(Modality::Text)).await;
    other.say("hello").await;
    assert_eq!(other.turn().await.text, "You said: hello");
}

#[tokio::test]
async fn a_turn_that_fails_leaves_the_conversation() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("fail").await;
    let turn = call.turn().await;
    assert_eq!(turn.reason, Some(v1::TurnEndReason::Failed));
    assert_eq!(turn.warnings.len(), 1, "{turn:?}");
    call.say("and on").await;
    assert_eq!(call.turn().await.text, "You said: and on");
}

#[tokio::test]
async fn an_engine_that_panics_is_built_anew() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    let (mut other, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("panic").await;
    let (end, _) = other.end().await;
    let status = end.expect_err("the engine is gone");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    until_page(server.http_addr, "/readyz", |status, _| status.contains("200")).await;
    let (mut again, _) = Call::begin(&channel, setup(Modality::Text)).await;
    again.say("hello").await;
    assert_eq!(again.turn().await.text, "You said: hello");
}

#[tokio::test]
async fn a_shutdown_lets_the_owed_turn_be_finished() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut busy, _) = Call::begin(&channel, setup(Modality::Audio)).await;
    let (mut idle, _) = Call::begin(&channel, setup(Modality::Text)).await;
    busy.say("say 5 words").await;
    // The server has taken the turn before it is told to stop.
    let begun = busy.next().await.expect("the reply").expect("the reply");
    let stopped = tokio::spawn(server.shutdown());
    let (end, rest) = busy.end().await;
    assert!(rest.complete, "{begun:?} {rest:?}");
    assert!(rest.marks.contains(&"go_away"));
    assert_eq!(end.expect_err("the server goes").code(), Code::Unavailable);
    let (end, rest) = idle.end().await;
    assert_eq!(end.expect_err("the server goes").code(), Code::Unavailable);
    assert_eq!(rest.marks, ["go_away"]);
    assert!(stopped.await.expect("it ends"), "all were done in time");
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let server = start(&Config { drain_seconds: 0, ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
    call.say("say 1000 words").await;
    call.next().await.expect("the answer has begun");
    let stopped = tokio::spawn(server.shutdown());
    let (end, rest) = call.end().await;
    assert!(!rest.complete, "a hundred seconds were not waited for");
    assert_eq!(end.expect_err("the server goes").code(), Code::Unavailable);
    stopped.await.expect("it ends");
}
