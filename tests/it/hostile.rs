//! Connections that mean nothing good: many, slow, and silent. Others notice nothing.

use std::net::SocketAddr;
use std::time::Duration;

use causerie_gateway::config::Config;
use causerie_gateway::port::raise_file_limit;
use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_tests::service::{Call, OUR_PATH, PATIENCE, config, connect, first, get, setup, start};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_prost::ProstCodec;

/// More than a port keeps idle.
const MANY: usize = 1_000;

async fn in_time<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer comes in time")
}

async fn open_many(address: SocketAddr, beginning: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        let mut stream = TcpStream::connect(address).await.expect("connections are accepted");
        // Those that were closed already cannot be written to.
        let _ = stream.write_all(beginning).await;
        streams.push(stream);
    }
    streams
}

#[tokio::test]
async fn a_thousand_connections_that_do_not_go_on_disturb_nobody() {
    raise_file_limit();
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    for (port, address, beginning) in [
        ("half an upgrade", server.http_addr, &b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upg"[..]),
        ("nothing", server.http_addr, b""),
        ("half a preface", server.grpc_addr, b"PRI * HTTP/2.0\r\n\r\n"),
        ("a preface and no more", server.grpc_addr, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let mut streams = open_many(address, beginning).await;
        // The longest idle has been closed: its end can be read.
        let mut rest = Vec::new();
        let closed = streams[0].read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, closed).await.expect(port);
        let (status, _) = get(server.http_addr, "/readyz").await;
        assert!(status.contains("200"), "{port}: {status}");
        call.say(port).await;
        assert_eq!(call.turn().await.text, format!("You said: {port}"));
        let another = connect(server.grpc_addr).await;
        let (mut other, _) = Call::begin(&another, setup(Modality::Text)).await;
        other.say("hello").await;
        assert_eq!(other.turn().await.text, "You said: hello");
    }
}

/// More streams without a setup than the room for them has seats.
const IDLERS: usize = 1_000;

/// A stream that sends nothing.
async fn idler(channel: &Channel) -> (mpsc::Sender<v1::ClientMessage>, Streaming<v1::ServerMessage>) {
    let (to_server, messages) = mpsc::channel(1);
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the connection is open");
    let codec = ProstCodec::<v1::ClientMessage, v1::ServerMessage>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(OUR_PATH);
    let answer = grpc.streaming(Request::new(ReceiverStream::new(messages)), path, codec).await;
    (to_server, answer.expect("it may sit down").into_inner())
}

#[tokio::test]
async fn a_thousand_streams_without_a_setup_hold_no_place() {
    let server = start(&Config { max_conversations: 2, ..config() }).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    let mut idlers = Vec::with_capacity(IDLERS);
    for _ in 0..IDLERS {
        idlers.push(idler(&channel).await);
    }
    let status = in_time(idlers[0].1.message()).await.expect_err("it has sat longest");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.metadata().contains_key("retry-after"), "{status:?}");
    call.say("still here").await;
    assert_eq!(call.turn().await.text, "You said: still here");
    let (mut other, _) = Call::begin(&channel, setup(Modality::Text)).await;
    other.say("hello").await;
    assert_eq!(other.turn().await.text, "You said: hello");
}

#[tokio::test]
async fn questions_that_anybody_may_ask_hold_nothing() {
    let server = start(&config()).await;
    let mut watches = Vec::new();
    // Each on a connection of its own, and more than may be asked at once.
    for _ in 0..70 {
        let mut health = HealthClient::new(connect(server.grpc_addr).await);
        let mut watch = health.watch(HealthCheckRequest::default()).await.expect("it is answered").into_inner();
        let first = in_time(watch.message()).await.expect("it is served").expect("a message");
        assert_eq!(first.status, i32::from(ServingStatus::Serving));
        watches.push((health, watch));
    }
    let status = in_time(watches[0].1.message()).await.expect_err("it has watched longest");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    // A check does not wait for watchers, and its connection goes on.
    let check = watches[0].0.check(HealthCheckRequest::default());
    assert_eq!(in_time(check).await.expect("it is answered").into_inner().status, i32::from(ServingStatus::Serving));
    assert!(watches[69].1.message().now_or_never().is_none(), "the newest watches on");
}

#[tokio::test]
async fn a_flood_of_text_is_refused_by_name() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let text = |length: usize| v1::Part { data: Some(v1::part::Data::Text("x".repeat(length))), ..Default::default() };
    let function = v1::FunctionDeclaration { name: "f".into(), description: "x".repeat(1 << 20), ..Default::default() };
    let instruction = v1::Content { role: String::new(), parts: vec![text(1 << 20)] };
    for (field, setup) in [
        ("setup.system_instruction", v1::Setup { system_instruction: Some(instruction), ..setup(Modality::Text) }),
        (
            "setup.tools.function_declarations",
            v1::Setup {
                tools: vec![v1::Tool { function_declarations: vec![function], ..Default::default() }],
                ..setup(Modality::Text)
            },
        ),
        (
            "setup.history",
            v1::Setup {
                history: vec![v1::Content { role: "user".into(), parts: vec![text(1 << 20)] }],
                ..setup(Modality::Text)
            },
        ),
    ] {
        let status = match Call::open(&channel, OUR_PATH, first(setup)).await {
            Err(status) => status,
            Ok(mut call) => call.end().await.0.expect_err("it is refused"),
        };
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status}");
        assert!(status.message().starts_with(field), "{field}: {status}");
    }
    // Later it is a warning, and the conversation goes on without it.
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    for _ in 0..8 {
        call.say(&"x".repeat(1 << 20)).await;
    }
    call.say("and now").await;
    let turn = call.turn().await;
    assert_eq!(turn.text, "You said: and now");
    assert_eq!(turn.warnings.len(), 8, "{:?}", turn.warnings);
    assert!(turn.warnings.iter().all(|warning| warning.code == "RESOURCE_EXHAUSTED"), "{:?}", turn.warnings);
}

/// A way to a server that can be cut as a cable is: nobody is told.
struct Cable {
    address: SocketAddr,
    cut: oneshot::Sender<()>,
}

impl Cable {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (cut, is_cut) = oneshot::channel();
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut server = TcpStream::connect(server).await.expect("it is served");
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                Ok(()) = is_cut => std::future::pending().await,
            }
        });
        Self { address, cut }
    }
}

async fn socket_in_text(address: SocketAddr) -> WebSocketStream<MaybeTlsStream<TcpStream>> {
    let (mut socket, _) =
        connect_async(format!("ws://{address}/ws/causerie.live.v1.Live/Converse")).await.expect("a seat");
    let setup = r#"{"setup": {"generationConfig": {"responseModalities": ["TEXT"]}}}"#;
    socket.send(Message::text(setup)).await.expect("it listens");
    // The first ping may come before the answer.
    loop {
        match in_time(socket.next()).await.expect("an answer").expect("a frame") {
            Message::Ping(_) => {}
            answer => {
                assert!(answer.to_text().is_ok_and(|text| text.contains("setupComplete")), "{answer:?}");
                return socket;
            }
        }
    }
}

/// Lets time pass, with a page asked for every second of it, so that what is on its way arrives.
async fn pass(server: SocketAddr, time: Duration) {
    tokio::time::pause();
    // The clock of a runtime with nothing to do runs on by itself.
    let busy = tokio::spawn(async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..time.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
        get(server, "/healthz").await;
    }
    busy.abort();
    tokio::time::resume();
}

#[tokio::test]
async fn whoever_is_gone_without_a_word_leaves_the_place() {
    let server = start(&Config { max_conversations: 4, ..config() }).await;
    let (cable, wire) = (Cable::to(server.grpc_addr).await, Cable::to(server.http_addr).await);
    let channel = connect(cable.address).await;
    let (_gone_call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    let _gone_socket = socket_in_text(wire.address).await;
    // Two who say nothing either, but are there.
    let near = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&near, setup(Modality::Text)).await;
    let mut socket = socket_in_text(server.http_addr).await;
    let another = async || Call::open(&near, OUR_PATH, first(setup(Modality::Text))).await;
    assert_eq!(another().await.err().expect("all places are taken").code(), Code::ResourceExhausted);
    cable.cut.send(()).expect("the cable is there");
    wire.cut.send(()).expect("the wire is there");
    let listening = async {
        while let Some(Ok(frame)) = socket.next().await {
            assert!(!frame.is_close(), "{frame:?}");
        }
        panic!("who is there was taken for gone");
    };
    tokio::select! {
        () = pass(server.http_addr, Duration::from_secs(120)) => {}
        () = listening => {}
    }
    let (mut third, _) = Call::begin(&near, setup(Modality::Text)).await;
    let (mut fourth, _) = Call::begin(&near, setup(Modality::Text)).await;
    assert_eq!(another().await.err().expect("all places are taken").code(), Code::ResourceExhausted);
    for call in [&mut call, &mut third, &mut fourth] {
        call.say("hello").await;
        assert_eq!(call.turn().await.text, "You said: hello");
    }
}
