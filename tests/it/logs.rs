//! What people say, and their keys, are not in the log, at whatever level.

use std::io;
use std::sync::{Arc, Mutex};

use causerie_gateway::access::keys::{self, Key, digest};
use causerie_gateway::config::Config;
use causerie_gateway::logging::{LogContent, subscriber};
use causerie_model_api::Modality;
use causerie_proto::v1;
use causerie_tests::service::{Call, OUR_PATH, config, connect, first, get, setup, start};
use futures::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

const KEY: &str = "causerie_openthedoor";
/// What is said, what is called, and what the system instruction has.
const WORDS: [&str; 3] = ["xylophone", "marmalade", "kumquat"];

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A conversation with all of [`WORDS`] in it, on [`KEY`], some of it refused.
async fn talk(content: LogContent) {
    let folder = tempfile::tempdir().unwrap();
    let key = Key { name: "ada".into(), sha256: digest(KEY), streams: 4, per_minute: 60 };
    keys::write(&folder.path().join("keys.toml"), vec![key]).unwrap();
    let keyed = Config { keys: Some(folder.path().join("keys.toml")), log_content: content.0, ..config() };
    let server = start(&keyed).await;
    let channel = connect(server.grpc_addr).await;
    let instruction = v1::Part { data: Some(v1::part::Data::Text(WORDS[2].into())), ..Default::default() };
    let function = v1::FunctionDeclaration { name: WORDS[1].into(), ..Default::default() };
    let setup = |model: &str| v1::Setup {
        model: model.into(),
        system_instruction: Some(v1::Content { role: String::new(), parts: vec![instruction.clone()] }),
        tools: vec![v1::Tool { function_declarations: vec![function.clone()], ..Default::default() }],
        ..setup(Modality::Text)
    };
    let header = Some(("x-goog-api-key", KEY));
    let mut call = Call::open_as(&channel, OUR_PATH, first(setup("models/default")), header).await.unwrap();
    call.next().await.unwrap();
    call.say(WORDS[0]).await;
    assert_eq!(call.turn().await.text, format!("You said: {}", WORDS[0]));
    call.say(&format!("call {}", WORDS[1])).await;
    assert_eq!(call.function_call().await.name, WORDS[1]);
    drop(call);
    // Refusals have content too.
    for (setup, key) in [(setup(WORDS[0]), KEY), (setup("models/default"), &format!("{KEY}{}", WORDS[0])[..])] {
        let refused = match Call::open_as(&channel, OUR_PATH, first(setup), Some(("x-goog-api-key", key))).await {
            Ok(mut call) => call.end().await.0,
            Err(status) => Err(status),
        };
        refused.expect_err("it is refused");
    }
    get(server.http_addr, &format!("/metrics?key={KEY}")).await;
    // In JSON, with the key in the address.
    let path = format!("ws://{}/ws/causerie.live.v1.Live/Converse?key={KEY}", server.http_addr);
    let (mut socket, _) = tokio_tungstenite::connect_async(path).await.unwrap();
    for frame in [
        json!({"setup": {"generationConfig": {"responseModalities": ["TEXT"]}}}),
        json!({"clientContent": {"turns": [{"parts": [{"text": WORDS[0]}]}], "turnComplete": true}}),
        json!({"clientContent": {"turns": WORDS[0]}}),
    ] {
        socket.send(Message::text(frame.to_string())).await.unwrap();
    }
    let mut answer = String::new();
    while let Some(Ok(frame)) = socket.next().await {
        answer.push_str(frame.to_text().unwrap_or_default());
    }
    assert!(answer.contains("setupComplete"), "{answer}");
    server.shutdown().await;
}

#[tokio::test]
async fn nothing_that_is_said_is_logged() {
    let log = Log::default();
    // Of the whole process: the server's threads log too.
    subscriber(EnvFilter::new("trace"), LogContent(false), false, log.clone()).try_init().unwrap();
    talk(LogContent(false)).await;
    let text = log.text();
    assert!(text.contains("conversation begins") && text.contains("text=<"), "the log has what it should:\n{text}");
    for secret in WORDS.into_iter().chain([KEY]) {
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(secret)).collect();
        assert!(lines.is_empty(), "{secret} is in\n{}", lines.join("\n"));
    }
}

#[tokio::test]
async fn who_asks_for_content_gets_it() {
    let log = Log::default();
    let _guard = subscriber(EnvFilter::new("trace"), LogContent(true), false, log.clone()).set_default();
    talk(LogContent(true)).await;
    let text = log.text();
    assert!(text.contains(WORDS[0]), "{text}");
    // The server logs no key even then. The socket's client, which is in this process too, logs what it asks for.
    let keys: Vec<&str> =
        text.lines().filter(|line| line.contains(KEY) && !line.contains("tungstenite::handshake::client")).collect();
    assert!(keys.is_empty(), "{}", keys.join("\n"));
}
