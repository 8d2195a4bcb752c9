//! A server over loopback with the scripted engine, and a client for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use causerie_gateway::config::{Config, McpConfig, TimingConfig};
use causerie_gateway::engine_host::EngineFactory;
use causerie_gateway::serve::{Running, Server};
use causerie_model_api::{INPUT_RATE, Modality};
use causerie_proto::v1::{self, client_message::MessageType as ToServer, server_message::MessageType as FromServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::scripted::{LoudnessDetector, Scripted, tone};

/// Longest that anything is waited for; nothing is expected to take as long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The path of our own method.
pub const OUR_PATH: &str = "/causerie.live.v1.Live/Converse";

/// A configuration for tests: free ports, and speech that leaves as soon as it is made.
pub fn config() -> Config {
    Config {
        listen: "127.0.0.1:0".into(),
        http: "127.0.0.1:0".into(),
        // How late a busy machine is must decide nothing.
        max_lag_ms: 60_000,
        timing: TimingConfig { lead: Some(2_000), ..TimingConfig::default() },
        ..Config::default()
    }
}

/// An MCP server of the tests; its functions are told in its first line.
pub const MCP_SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/it/mcp_server.py");

/// [`MCP_SERVER`], started beside the server and spoken with over its standard streams.
pub fn mcp_program() -> McpConfig {
    McpConfig { command: "python3".into(), args: vec![MCP_SERVER.into()], ..McpConfig::default() }
}

/// Makes scripted engines.
pub fn factory() -> EngineFactory {
    Box::new(|| Ok(Box::new(Scripted::default())))
}

/// Starts a server with the scripted engine.
pub async fn start(config: &Config) -> Running {
    Server::start(config, factory(), Arc::new(LoudnessDetector)).await.expect("the server starts")
}

/// A connection to a server, with the windows of most gRPC implementations: the HTTP library's own are megabytes.
pub async fn connect(address: SocketAddr) -> Channel {
    const WINDOW: u32 = 65_535;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    endpoint.connect().await.expect("it is served")
}

/// A page of the server's HTTP port: status line and body.
pub async fn get(address: SocketAddr, path: &str) -> (String, String) {
    get_with(address, path, "").await
}

/// As [`get`], with further headers, each ending in `\r\n`.
pub async fn get_with(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.expect("it is served");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// Waits until a page of the HTTP port is as wanted. Bounded by [`PATIENCE`].
pub async fn until_page(address: SocketAddr, path: &str, wanted: impl Fn(&str, &str) -> bool) {
    let look = async {
        loop {
            let (status, body) = get(address, path).await;
            if wanted(&status, &body) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| panic!("{path} never was as wanted"));
}

/// One conversation.
pub struct Call {
    // Dropped first: a call that is dropped is broken off, not ended in order.
    from_server: Streaming<v1::ServerMessage>,
    to_server: Option<mpsc::Sender<v1::ClientMessage>>,
}

impl Call {
    /// Opens a stream on a path, with its first message on the way.
    ///
    /// # Errors
    /// The server refuses it at once.
    pub async fn open(channel: &Channel, path: &'static str, first: v1::ClientMessage) -> Result<Self, Status> {
        Self::open_as(channel, path, first, None).await
    }

    /// As [`Call::open`], with a header that says who the client is.
    ///
    /// # Errors
    /// The server refuses it at once.
    pub async fn open_as(
        channel: &Channel,
        path: &'static str,
        first: v1::ClientMessage,
        header: Option<(&'static str, &str)>,
    ) -> Result<Self, Status> {
        let (to_server, messages) = mpsc::channel(64);
        to_server.send(first).await.expect("there is room");
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<v1::ClientMessage, v1::ServerMessage>::default();
        let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
        let mut request = Request::new(ReceiverStream::new(messages));
        if let Some((name, value)) = header {
            request.metadata_mut().insert(name, value.parse().expect("a value of a header"));
        }
        let answer = grpc.streaming(request, path, codec).await?;
        Ok(Self { to_server: Some(to_server), from_server: answer.into_inner() })
    }

    /// Opens a conversation on our path and waits until it is set up.
    pub async fn begin(channel: &Channel, setup: v1::Setup) -> (Self, v1::SetupComplete) {
        let mut call = Self::open(channel, OUR_PATH, first(setup)).await.expect("there is a place");
        match call.next().await.expect("the setup is answered").and_then(|m| m.message_type) {
            Some(FromServer::SetupComplete(complete)) => (call, complete),
            other => panic!("the first message is {other:?}"),
        }
    }

    /// Sends a message.
    pub async fn send(&self, message: ToServer) {
        let sender = self.to_server.as_ref().expect("not yet half-closed");
        // When the server has ended the stream, the next message that is read says why.
        let _ = sender.send(v1::ClientMessage { message_type: Some(message) }).await;
    }

    /// Types something and asks for an answer.
    pub async fn say(&self, words: &str) {
        self.send(typed(words)).await;
    }

    /// Sends 16 kHz samples in pieces of 20 ms.
    pub async fn speak(&self, pcm: &[f32]) {
        for piece in pcm.chunks(INPUT_RATE as usize / 50) {
            self.send(audio("audio/pcm;rate=16000", bytes_of(piece))).await;
        }
    }

    /// Sends nothing more.
    pub fn half_close(&mut self) {
        self.to_server = None;
    }

    /// The next message; `None` when the stream has ended with OK.
    ///
    /// # Errors
    /// The stream has ended with another status.
    pub async fn next(&mut self) -> Result<Option<v1::ServerMessage>, Status> {
        tokio::time::timeout(PATIENCE, self.from_server.message()).await.expect("an answer comes in time")
    }

    /// Everything up to the end of a turn.
    ///
    /// # Panics
    /// The stream ends before the turn does.
    pub async fn turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        while !turn.complete {
            let message = self.next().await.unwrap_or_else(|e| panic!("{e} in {turn:?}"));
            turn.add(message.unwrap_or_else(|| panic!("the stream ended in {turn:?}")));
        }
        turn
    }

    /// The next handle for a resumption; what comes before it is passed over.
    ///
    /// # Panics
    /// The stream ends before.
    pub async fn handle(&mut self) -> String {
        loop {
            let message = self.next().await.expect("the stream goes on").expect("the stream goes on");
            if let Some(FromServer::SessionResumptionUpdate(update)) = message.message_type
                && update.resumable
            {
                return update.new_handle;
            }
        }
    }

    /// Everything up to the first call of a function.
    ///
    /// # Panics
    /// The turn or the stream ends before.
    pub async fn function_call(&mut self) -> v1::FunctionCall {
        let mut turn = Turn::default();
        loop {
            let message = self.next().await.unwrap_or_else(|e| panic!("{e} in {turn:?}"));
            turn.add(message.unwrap_or_else(|| panic!("the stream ended in {turn:?}")));
            assert!(!turn.complete, "no function was called: {turn:?}");
            if let Some(call) = turn.calls.pop() {
                return call;
            }
        }
    }

    /// Reads to the end and returns how the stream ended, and what came before.
    pub async fn end(&mut self) -> (Result<(), Status>, Turn) {
        let mut turn = Turn::default();
        loop {
            match self.next().await {
                Ok(Some(message)) => turn.add(message),
                Ok(None) => return (Ok(()), turn),
                Err(status) => return (Err(status), turn),
            }
        }
    }
}

/// What came of a turn.
#[derive(Debug, Default)]
pub struct Turn {
    /// Text of the reply.
    pub text: String,
    /// What was thought before it.
    pub thoughts: String,
    /// Its audio.
    pub audio: Vec<u8>,
    /// Type of the audio.
    pub mime: String,
    /// Where each piece of audio belongs, and how many bytes it has.
    pub pieces: Vec<(v1::ReplyAudio, usize)>,
    /// Transcript of the user.
    pub heard: String,
    /// Transcript of the reply.
    pub said: String,
    /// One word for each mark, in order.
    pub marks: Vec<&'static str>,
    /// Calls that the client is to make.
    pub calls: Vec<v1::FunctionCall>,
    /// Warnings.
    pub warnings: Vec<v1::Problem>,
    /// The reason of the end.
    pub errors: Vec<v1::Problem>,
    /// From where the conversation can be resumed.
    pub resumption: Vec<v1::SessionResumptionUpdate>,
    /// What the reply rests on.
    pub grounding: Option<v1::GroundingMetadata>,
    /// Payloads of pongs.
    pub pongs: Vec<Vec<u8>>,
    /// Why the turn ended.
    pub reason: Option<v1::TurnEndReason>,
    /// When things happened.
    pub metrics: Option<v1::TurnMetrics>,
    /// What it cost.
    pub usage: Option<v1::UsageMetadata>,
    /// Whether it is over.
    pub complete: bool,
}

impl Turn {
    fn add(&mut self, message: v1::ServerMessage) {
        if let Some(usage) = message.usage_metadata {
            self.usage = Some(*usage);
        }
        match message.message_type {
            Some(FromServer::ServerContent(content)) => self.content(content),
            Some(FromServer::ToolCall(calls)) => self.calls.extend(calls.function_calls),
            Some(FromServer::Warning(problem)) => self.warnings.push(problem),
            Some(FromServer::Error(problem)) => self.errors.push(problem),
            Some(FromServer::SpeechStarted(_)) => self.marks.push("speech_started"),
            Some(FromServer::SpeechStopped(_)) => self.marks.push("speech_stopped"),
            Some(FromServer::Pong(pong)) => self.pongs.push(pong.payload.to_vec()),
            Some(FromServer::GoAway(_)) => self.marks.push("go_away"),
            Some(FromServer::SetupComplete(_)) => self.marks.push("setup_complete"),
            Some(FromServer::ToolCallCancellation(_)) => self.marks.push("tool_call_cancellation"),
            Some(FromServer::SessionResumptionUpdate(update)) => self.resumption.push(update),
            None => self.marks.push("unexpected"),
        }
    }

    fn content(&mut self, mut content: v1::ServerContent) {
        for part in content.model_turn.take().into_iter().flat_map(|turn| turn.parts) {
            match part.data {
                Some(v1::part::Data::Text(text)) if part.thought => self.thoughts.push_str(&text),
                Some(v1::part::Data::Text(text)) => self.text.push_str(&text),
                Some(v1::part::Data::InlineData(blob)) => {
                    self.audio.extend_from_slice(&blob.data);
                    self.mime = blob.mime_type;
                    self.pieces.extend(content.reply_audio.take().map(|place| (place, blob.data.len())));
                }
                _ => self.marks.push("unexpected"),
            }
        }
        if let Some(grounding) = content.grounding_metadata.take() {
            self.grounding = Some(*grounding);
            self.marks.push("grounding");
        }
        self.heard.extend(content.input_transcription.map(|t| t.text));
        self.said.extend(content.output_transcription.map(|t| t.text));
        for (set, mark) in [
            (content.interrupted, "interrupted"),
            (content.generation_complete, "generation_complete"),
            (content.turn_complete, "turn_complete"),
        ] {
            if set {
                self.marks.push(mark);
            }
        }
        if content.turn_complete {
            self.complete = true;
            self.reason = v1::TurnEndReason::try_from(content.turn_end_reason).ok();
            self.metrics = content.turn_metrics.map(|metrics| *metrics);
        }
    }
}

/// A first message.
pub fn first(setup: v1::Setup) -> v1::ClientMessage {
    v1::ClientMessage { message_type: Some(ToServer::Setup(Box::new(setup))) }
}

/// A setup for one modality, with both transcripts.
pub fn setup(modality: Modality) -> v1::Setup {
    let modality = match modality {
        Modality::Text => v1::generation_config::Modality::Text,
        Modality::Audio => v1::generation_config::Modality::Audio,
    };
    v1::Setup {
        model: "models/default".into(),
        generation_config: Some(v1::GenerationConfig {
            response_modalities: vec![modality as i32],
            ..Default::default()
        }),
        input_audio_transcription: Some(v1::AudioTranscriptionConfig {}),
        output_audio_transcription: Some(v1::AudioTranscriptionConfig {}),
        ..Default::default()
    }
}

/// A setup that asks for handles, or resumes a conversation by one.
pub fn resumable(setup: v1::Setup, handle: Option<&str>) -> v1::Setup {
    let handle = handle.map(str::to_owned);
    let asked = v1::SessionResumptionConfig { handle, transparent: None };
    v1::Setup { session_resumption: Some(asked), ..setup }
}

/// A typed turn.
pub fn typed(words: &str) -> ToServer {
    let part = v1::Part { data: Some(v1::part::Data::Text(words.into())), ..Default::default() };
    let content = v1::Content { role: "user".into(), parts: vec![part] };
    ToServer::ClientContent(v1::ClientContent { turns: vec![content], turn_complete: true })
}

/// A piece of audio.
pub fn audio(mime: &str, data: Vec<u8>) -> ToServer {
    let blob = v1::Blob { mime_type: mime.into(), data: data.into() };
    ToServer::RealtimeInput(v1::RealtimeInput { audio: Some(blob), ..Default::default() })
}

/// Samples as 16-bit little-endian bytes.
pub fn bytes_of(pcm: &[f32]) -> Vec<u8> {
    pcm.iter().flat_map(|x| ((x * 32_767.0).round() as i16).to_le_bytes()).collect()
}

/// What the loudness detector takes for speech, followed by silence that ends it.
pub fn utterance(loud_ms: usize, silent_ms: usize) -> Vec<f32> {
    let ms = INPUT_RATE as usize / 1000;
    [tone(INPUT_RATE, 0, loud_ms * ms), vec![0.0; silent_ms * ms]].concat()
}
