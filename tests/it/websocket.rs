//! Conversations in JSON over WebSocket: frames, refusals, and what is wrong on its own socket only.

use std::net::SocketAddr;
use std::time::Duration;

use causerie_gateway::access::keys::{self, Key, digest};
use causerie_gateway::config::Config;
use causerie_gateway::port::raise_file_limit;
use causerie_tests::service::{PATIENCE, config, start};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

const GEMINI: &str = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent";
const OURS: &str = "/ws/causerie.live.v1.Live/Converse";

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn open(server: SocketAddr, path: &str) -> Self {
        Self(connect_async(format!("ws://{server}{path}")).await.expect("it is served").0)
    }

    /// A conversation in text, set up.
    async fn begin(server: SocketAddr, path: &str) -> Self {
        let mut socket = Self::open(server, path).await;
        socket.send(setup()).await;
        assert!(socket.next().await["setupComplete"].is_object());
        socket
    }

    async fn send(&mut self, message: Value) {
        self.frame(Message::text(message.to_string())).await;
    }

    async fn frame(&mut self, frame: Message) {
        // When the server has closed, the next frame that is read says why.
        let _ = self.0.send(frame).await;
    }

    async fn next(&mut self) -> Value {
        match self.read().await {
            Ok(message) => message,
            Err(end) => panic!("the socket was closed: {end:?}"),
        }
    }

    /// The next message, or code and reason of the close frame.
    async fn read(&mut self) -> Result<Value, (u16, String)> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an answer comes in time");
            match frame {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).expect("it is JSON")),
                Some(Ok(Message::Close(Some(frame)))) => return Err((frame.code.into(), frame.reason.to_string())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("no message and no close frame: {other:?}"),
            }
        }
    }

    async fn end(&mut self) -> (u16, String) {
        loop {
            if let Err(end) = self.read().await {
                return end;
            }
        }
    }

    /// Text of the reply up to the end of the turn.
    async fn turn(&mut self) -> String {
        let mut text = String::new();
        loop {
            let message = self.next().await;
            let content = &message["serverContent"];
            text.extend(content["modelTurn"]["parts"][0]["text"].as_str());
            if content["turnComplete"] == true {
                return text;
            }
        }
    }
}

fn setup() -> Value {
    json!({"setup": {"model": "models/default", "generation_config": {"responseModalities": ["TEXT"]}}})
}

fn typed(words: &str) -> Value {
    json!({"client_content": {"turns": [{"role": "user", "parts": [{"text": words}]}], "turnComplete": true}})
}

#[tokio::test]
async fn frames_may_be_binary_and_slashes_doubled() {
    let server = start(&config()).await;
    let mut socket = Socket::open(server.http_addr, &format!("/{GEMINI}?key=any")).await;
    socket.frame(Message::binary(setup().to_string().into_bytes())).await;
    assert!(socket.next().await["setupComplete"]["sessionId"].is_string());
    socket.frame(Message::binary(typed("hello").to_string().into_bytes())).await;
    assert_eq!(socket.turn().await, "You said: hello");
}

#[tokio::test]
async fn json_is_read_as_clients_write_it() {
    let server = start(&config()).await;
    let mut socket = Socket::open(server.http_addr, GEMINI).await;
    // Both casings, whole numbers as strings and as fractions, fields that nobody knows, and one of ours.
    socket
        .send(json!({"setup": {
            "model": "models/default", "nobody": {"knows": [1]}, "interimTranscripts": true,
            "generation_config": {"responseModalities": ["TEXT"], "topK": "40", "max_output_tokens": 50.0},
            "realtimeInputConfig": {"automatic_activity_detection": {"silenceDurationMs": "700"}}}}))
        .await;
    let complete = socket.next().await;
    assert_eq!(complete["setupComplete"]["capabilities"]["engine"], "scripted", "{complete}");
    socket.send(json!({"realtime_input": {"text": "hello", "else": null}})).await;
    assert_eq!(socket.turn().await, "You said: hello");
}

#[tokio::test]
async fn what_is_wrong_closes_its_own_socket() {
    let server = start(&config()).await;
    let mut other = Socket::begin(server.http_addr, GEMINI).await;
    let long = "x".repeat((1 << 20) + 1);
    let first = [
        ("not JSON", "{\"setup\"".to_owned(), 1007, "not JSON"),
        ("an array", "[]".to_owned(), 1007, "does not fit"),
        ("before the setup", typed("hi").to_string(), 1008, "setup"),
        ("unknown fields only", json!({"hello": 1}).to_string(), 1008, "setup"),
        ("no number", json!({"setup": {"generationConfig": {"topK": "many"}}}).to_string(), 1007, "does not fit"),
        (
            "unknown enum",
            json!({"setup": {"generationConfig": {"responseModalities": ["SMELL"]}}}).to_string(),
            1007,
            "setup.generation_config.response_modalities",
        ),
        ("unknown model", json!({"setup": {"model": "models/none"}}).to_string(), 1008, "default, scripted"),
        (
            "long instruction",
            json!({"setup": {"systemInstruction": {"parts": [{"text": long}]}}}).to_string(),
            1007,
            "system_instruction",
        ),
    ];
    for (name, frame, code, words) in first {
        let mut socket = Socket::open(server.http_addr, GEMINI).await;
        socket.frame(Message::text(frame)).await;
        let end = socket.end().await;
        assert!(end.0 == code && end.1.contains(words), "{name}: {end:?}");
    }
    let audio = |data: &str| json!({"realtimeInput": {"audio": {"data": data, "mimeType": "audio/pcm"}}}).to_string();
    let later = [
        ("second setup", Message::text(setup().to_string()), 1008, "set up already"),
        ("broken base64", Message::text(audio("A*==")), 1007, "base64"),
        ("broken base64 of the other alphabet", Message::text(audio("-_*=")), 1007, "base64"),
        ("two alphabets", Message::text(audio("+_+_")), 1007, "base64"),
        ("role", Message::text(r#"{"clientContent":{"turns":[{"role":"robot"}]}}"#), 1007, "role"),
        ("binary nonsense", Message::binary(vec![0xff; 100]), 1007, "not JSON"),
    ];
    for (name, frame, code, words) in later {
        let mut socket = Socket::begin(server.http_addr, GEMINI).await;
        socket.frame(frame).await;
        let end = socket.end().await;
        assert!(end.0 == code && end.1.contains(words), "{name}: {end:?}");
    }
    // The beginning of a text frame of 10 MiB: refused by its length, before there is more of it.
    let mut socket = Socket::begin(server.http_addr, GEMINI).await;
    let MaybeTlsStream::Plain(stream) = socket.0.get_mut() else { panic!("there is no TLS") };
    let head = [&[0x81, 0x80 | 127], &(10_u64 << 20).to_be_bytes()[..], &[0; 4]].concat();
    stream.write_all(&head).await.expect("it listens");
    let end = socket.end().await;
    assert!(end.0 == 1009 && end.1.contains("larger than"), "a large frame: {end:?}");
    other.send(typed("still there")).await;
    assert_eq!(other.turn().await, "You said: still there");
}

#[tokio::test]
async fn our_own_clients_are_warned() {
    let server = start(&config()).await;
    let mut socket = Socket::begin(server.http_addr, OURS).await;
    socket.send(json!({"clientContent": {"turns": [{"role": "robot"}], "turnComplete": true}})).await;
    let warning = socket.next().await;
    assert_eq!(warning["warning"]["field"], "client_content.turns[0].role", "{warning}");
    socket.send(json!({"ping": {"payload": "aGk="}})).await;
    assert_eq!(socket.next().await["pong"]["payload"], "aGk=");
}

#[tokio::test]
async fn requests_are_refused_before_the_upgrade() {
    let server = start(&Config { max_conversations: 1, ..config() }).await;
    let refused = async |path: &str, origin: Option<&str>| {
        let mut request = format!("ws://{}{path}", server.http_addr).into_client_request().expect("a request");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a value"));
        }
        match connect_async(request).await {
            Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
            other => panic!("{path} from {origin:?}: {other:?}"),
        }
    };
    let unknown = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateMusic";
    assert_eq!(refused(unknown, None).await, 404);
    for page in ["https://example.com", "http://localhost:1", "null"] {
        assert_eq!(refused(GEMINI, Some(page)).await, 403, "{page}");
    }
    let _only = Socket::begin(server.http_addr, GEMINI).await;
    assert_eq!(refused(GEMINI, None).await, 429);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_its_place() {
    let server = start(&Config { max_conversations: 1, ..config() }).await;
    for _ in 0..20 {
        let again = async {
            loop {
                if let Ok((socket, _)) = connect_async(format!("ws://{}{GEMINI}", server.http_addr)).await {
                    let mut socket = Socket(socket);
                    socket.send(setup()).await;
                    if socket.read().await.is_ok_and(|message| message["setupComplete"].is_object()) {
                        return socket;
                    }
                }
                tokio::task::yield_now().await;
            }
        };
        drop(tokio::time::timeout(PATIENCE, again).await.expect("the place gets free"));
    }
}

#[tokio::test]
async fn a_goodbye_is_answered() {
    let server = start(&config()).await;
    for path in [GEMINI, OURS, "/v1/realtime"] {
        let mut socket = Socket::open(server.http_addr, path).await;
        let bye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        socket.frame(Message::Close(Some(bye))).await;
        assert_eq!(socket.end().await.0, 1000, "{path}");
    }
}

#[tokio::test]
async fn a_shutdown_is_said() {
    let server = start(&config()).await;
    let mut socket = Socket::begin(server.http_addr, GEMINI).await;
    let stopping = tokio::spawn(server.shutdown());
    let away = socket.next().await;
    assert!(away["goAway"].is_object(), "{away}");
    let end = socket.end().await;
    assert!(end.0 == 1001 && end.1.contains("shutting down"), "{end:?}");
    let stopped = tokio::time::timeout(PATIENCE + Duration::from_secs(1), stopping).await;
    assert!(stopped.expect("in time").expect("it stops"), "every conversation ended in time");
}

/// A socket that is opened with these headers, or the status of its refusal.
async fn open_with(server: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, u16> {
    let mut request = format!("ws://{server}{path}").into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a value"));
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(Socket(socket)),
        Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
        Err(other) => panic!("{path} with {headers:?}: {other}"),
    }
}

#[tokio::test]
async fn pages_may_connect_where_the_operator_lets_them() {
    let server = start(&Config { origins: vec!["https://app.example".into()], ..config() }).await;
    let (port, http) = (server.http_addr.port(), server.http_addr);
    let own = format!("http://127.0.0.1:{port}");
    let rebound = format!("evil.example:{port}");
    for (origin, host, status) in [
        ("https://app.example", None, None),
        (&own, None, None),
        ("https://other.example", None, Some(403)),
        // A page whose name was made to point here.
        (&format!("http://{rebound}"), Some(&rebound), Some(403)),
    ] {
        let mut headers = vec![("origin", origin)];
        headers.extend(host.map(|host| ("host", host.as_str())));
        let opened = open_with(http, GEMINI, &headers).await;
        assert_eq!(opened.as_ref().err().copied(), status, "{origin} {host:?}");
        if let Ok(mut socket) = opened {
            socket.send(setup()).await;
            assert!(socket.next().await["setupComplete"].is_object());
        }
    }
}

#[tokio::test]
async fn keys_are_taken_from_where_clients_put_them() {
    const KEY: &str = "causerie_ada";
    const NARROW: &str = "causerie_bob";
    let folder = tempfile::tempdir().expect("a folder");
    let key = |name: &str, key, streams| Key { name: name.into(), sha256: digest(key), streams, per_minute: 60 };
    let both = vec![key("ada", KEY, 4), key("bob", NARROW, 1)];
    keys::write(&folder.path().join("keys.toml"), both).expect("the file is written");
    let server = start(&Config { keys: Some(folder.path().join("keys.toml")), ..config() }).await;
    let (in_query, wrong) = (format!("{GEMINI}?alt=x&key={KEY}"), format!("{GEMINI}?key=causerie_eve"));
    let bearer = format!("Bearer {KEY}");
    for (path, header, status) in [
        (GEMINI, None, Some(401)),
        (&wrong, None, Some(401)),
        (GEMINI, Some(("authorization", "Bearer causerie_eve")), Some(401)),
        (&in_query, None, None),
        (GEMINI, Some(("x-goog-api-key", KEY)), None),
        (GEMINI, Some(("authorization", &bearer[..])), None),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        let opened = open_with(server.http_addr, path, &headers).await;
        assert_eq!(opened.as_ref().err().copied(), status, "{path} {header:?}");
        if let Ok(mut socket) = opened {
            socket.send(setup()).await;
            assert!(socket.next().await["setupComplete"].is_object());
        }
    }
    // A key over its limits is told when to try again.
    let _only = Socket::begin(server.http_addr, &format!("{GEMINI}?key={NARROW}")).await;
    match connect_async(format!("ws://{}{GEMINI}?key={NARROW}", server.http_addr)).await {
        Err(tungstenite::Error::Http(refused)) => {
            assert_eq!(refused.status(), 429);
            assert!(refused.headers().contains_key("retry-after"), "{refused:?}");
        }
        other => panic!("a second conversation: {other:?}"),
    }
}

#[tokio::test]
async fn sockets_without_a_setup_hold_no_place() {
    raise_file_limit();
    let server = start(&Config { max_conversations: 1, ..config() }).await;
    let mut idlers = Vec::new();
    for _ in 0..1_000 {
        idlers.push(Socket::open(server.http_addr, GEMINI).await);
    }
    // Newer ones have taken its seat.
    let (code, reason) = idlers[0].end().await;
    assert_eq!(code, 1013, "{reason}");
    Socket::begin(server.http_addr, GEMINI).await;
}
