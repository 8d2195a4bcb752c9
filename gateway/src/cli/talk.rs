//! `causerie talk`: a conversation with a server from WAV files, a microphone pipe or typed text.
//!
//! [`microphone`] is the sending side, paced by absolute deadlines like a sound card. [`record`] keeps what comes back
//! and when. [`report`] prints it. [`player`] plays it. This file joins them.

mod microphone;
mod player;
mod record;
mod report;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use causerie_codec::wav;
use causerie_proto::v1::{
    AudioTranscriptionConfig, ClientMessage, Content, GenerationConfig, Part, PrebuiltVoiceConfig, ServerMessage,
    Setup, SpeechConfig, VoiceConfig, client_message::MessageType as FromClient, live_client::LiveClient, part::Data,
    server_message::MessageType as FromServer, voice_config::VoiceConfig as Choice,
};
use causerie_units::SampleRate;
use clap::Args;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Streaming};

use crate::access::KEY_HEADER;

use self::microphone::{Pace, Utterance};
use self::player::Player;
use self::record::{Recorder, Turn};

/// Messages that may wait for the transport: a little over a second of audio.
const OUTBOX: usize = 64;

/// Silence between two replies in the saved file.
const GAP: Duration = Duration::from_millis(500);

/// Pause of the speaker between the end of a reply and the next utterance.
const PAUSE: Duration = Duration::from_millis(300);

/// Options of `causerie talk`.
#[derive(Args, Debug, Default)]
pub struct TalkArgs {
    /// WAV files, each spoken as one turn; `-` reads raw 16 kHz 16-bit little-endian mono audio from standard input.
    #[arg(value_name = "INPUT.wav", required_unless_present = "text")]
    inputs: Vec<PathBuf>,
    /// Typed turns, after the spoken ones.
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// The server.
    #[arg(long, value_name = "URL", env = "CAUSERIE_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
    /// API key, where the server wants one.
    #[arg(long, value_name = "KEY", env = "CAUSERIE_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Certificate of the authority that the server's is from (PEM), for an address that begins with https.
    #[arg(long, value_name = "FILE", env = "CAUSERIE_CA")]
    ca: Option<PathBuf>,
    /// Certificate of the client (PEM), where the server asks for one.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Save the spoken answers here instead of playing them.
    #[arg(long, value_name = "FILE.wav")]
    out: Option<PathBuf>,
    /// Print one JSON object a turn.
    #[arg(long)]
    json: bool,
    /// Send as fast as the server takes it instead of at the pace of speech.
    #[arg(long)]
    fast: bool,
    /// Model to ask for; empty means the server's default.
    #[arg(long, value_name = "NAME", default_value = "")]
    model: String,
    /// Voice to ask for.
    #[arg(long, value_name = "NAME")]
    voice: Option<String>,
    /// System instruction.
    #[arg(long, value_name = "TEXT")]
    instruction: Option<String>,
    /// Give up when a turn is not over this many seconds after it was spoken.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

/// Runs `causerie talk`.
pub async fn run(args: TalkArgs) -> anyhow::Result<()> {
    let turns = hold(&args, &mut std::io::stdout()).await?;
    if let Some(path) = &args.out {
        save(path, &turns)?;
        if !args.json {
            println!("saved {}", path.display());
        }
    }
    Ok(())
}

/// The server's address, with what is needed for TLS.
fn endpoint(args: &TalkArgs, url: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(url.to_owned()).with_context(|| format!("{url} is no address"))?;
    if !url.starts_with("https://") {
        return Ok(endpoint);
    }
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &args.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(cert), Some(key)) = (&args.client_cert, &args.client_key) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(endpoint.tls_config(tls)?)
}

/// Holds the conversation, printing each turn to `print` when it is over.
async fn hold(args: &TalkArgs, print: &mut (impl Write + Send)) -> anyhow::Result<Vec<Turn>> {
    let from_pipe = args.inputs.iter().any(|path| path.as_os_str() == "-");
    if from_pipe && args.inputs.len() + args.text.len() > 1 {
        bail!("`-` (standard input) cannot be mixed with other inputs");
    }
    let mut script = if from_pipe { Vec::new() } else { script(args)? };
    let url = if args.server.contains("://") { args.server.clone() } else { format!("http://{}", args.server) };
    let endpoint = endpoint(args, &url)?;
    let channel = endpoint
        .connect()
        .await
        .with_context(|| format!("cannot reach a server at {url}; is `causerie serve` running there?"))?;
    let mut client = LiveClient::new(channel);

    let (outbox, messages) = mpsc::channel(OUTBOX);
    outbox.send(message(FromClient::Setup(Box::new(setup(args))))).await?;
    let mut request = Request::new(ReceiverStream::new(messages));
    if let Some(key) = &args.key {
        let key = key.parse().context("the key has characters that no key has")?;
        request.metadata_mut().insert(KEY_HEADER, key);
    }
    let mut incoming = client.converse(request).await.map_err(ended)?.into_inner();
    let mut conversation = Listening {
        recorder: Recorder::new(await_setup(&mut incoming).await?),
        player: (args.out.is_none() && !args.json && std::io::stdout().is_terminal()).then(Player::new),
        turns: Vec::new(),
        args,
        print,
    };
    if from_pipe {
        let sending = tokio::spawn(microphone::pipe(std::io::stdin(), outbox));
        conversation.until_the_end(&mut incoming).await?;
        sending.abort();
        return Ok(conversation.finish().await);
    }

    let pace = if args.fast { Pace::Fast } else { Pace::Speech };
    let (speak, utterances) = mpsc::channel(1);
    let sending = tokio::spawn(microphone::speak(pace, utterances, outbox));
    let count = script.len();
    for (index, (name, mut utterance)) in script.drain(..).enumerate() {
        if index > 0 && !args.fast {
            tokio::time::sleep(PAUSE).await;
        }
        let (spoken, heard) = oneshot::channel();
        utterance.spoken = Some(spoken);
        // A stopped sender means that the server ended the stream; its status says why.
        let _ = speak.send(utterance).await;
        let turn = conversation.turn(&mut incoming, name.clone(), heard);
        if let Some(problem) = turn.await.with_context(|| format!("turn {} of {count}, {name}", index + 1))? {
            bail!(problem);
        }
    }
    drop(speak);
    conversation.until_the_end(&mut incoming).await?;
    sending.await?;
    Ok(conversation.finish().await)
}

/// The utterances to speak and what they are called.
fn script(args: &TalkArgs) -> anyhow::Result<Vec<(String, Utterance)>> {
    let mut script = Vec::new();
    for path in &args.inputs {
        let audio =
            wav::read_at(path, SampleRate::HZ_16000).with_context(|| format!("cannot read {}", path.display()))?;
        if audio.is_empty() {
            bail!("{} holds no audio", path.display());
        }
        script.push((path.display().to_string(), Utterance::audio(audio)));
    }
    script.extend(args.text.iter().map(|text| (format!("{text:?}"), Utterance::text(text.clone()))));
    Ok(script)
}

fn setup(args: &TalkArgs) -> Setup {
    let voice = args.voice.clone().map(|name| VoiceConfig {
        voice_config: Some(Choice::PrebuiltVoiceConfig(PrebuiltVoiceConfig { voice_name: Some(name) })),
    });
    Setup {
        model: args.model.clone(),
        generation_config: Some(GenerationConfig {
            speech_config: voice.map(|voice| SpeechConfig { voice_config: Some(voice), ..SpeechConfig::default() }),
            ..GenerationConfig::default()
        }),
        system_instruction: args.instruction.clone().map(text_content),
        input_audio_transcription: Some(AudioTranscriptionConfig {}),
        output_audio_transcription: Some(AudioTranscriptionConfig {}),
        output_audio_format: format!("audio/pcm;rate={}", record::RATE.hz()),
        ..Setup::default()
    }
}

fn message(kind: FromClient) -> ClientMessage {
    ClientMessage { message_type: Some(kind) }
}

fn text_content(text: String) -> Content {
    Content { role: "user".to_owned(), parts: vec![Part { data: Some(Data::Text(text)), ..Part::default() }] }
}

/// Waits for the server's agreement; what it says of itself is in the first message.
async fn await_setup(incoming: &mut Streaming<ServerMessage>) -> anyhow::Result<String> {
    loop {
        let Some(message) = incoming.message().await.map_err(ended)? else {
            bail!("the server ended the conversation before it began");
        };
        if let Some(FromServer::SetupComplete(complete)) = message.message_type {
            return Ok(complete.capabilities.map(|it| it.engine).unwrap_or_default());
        }
    }
}

/// The receiving side.
struct Listening<'a, W: Write> {
    recorder: Recorder,
    player: Option<Player>,
    turns: Vec<Turn>,
    args: &'a TalkArgs,
    print: &'a mut W,
}

impl<W: Write> Listening<'_, W> {
    /// Receives until the turn is over that answers the utterance `name`, whose last speech sample `spoken` will tell.
    async fn turn(
        &mut self,
        incoming: &mut Streaming<ServerMessage>,
        name: String,
        mut spoken: oneshot::Receiver<Instant>,
    ) -> anyhow::Result<Option<String>> {
        self.recorder.begin(name);
        let limit = Duration::from_secs(self.args.timeout);
        let mut deadline = None;
        loop {
            tokio::select! {
                at = &mut spoken, if deadline.is_none() => {
                    let at = at.unwrap_or_else(|_| Instant::now());
                    self.recorder.spoken(at);
                    deadline = Some(tokio::time::Instant::from_std(at) + limit);
                }
                () = sleep_until(deadline) => {
                    return Ok(Some(format!("the turn was not over {} s after it was spoken", limit.as_secs())));
                }
                message = incoming.message() => {
                    let Some(message) = message.map_err(ended)? else {
                        return Ok(Some("the server ended the conversation before the turn was over".to_owned()));
                    };
                    let Some(turn) = self.take(message).await? else { continue };
                    // A reply to a pause inside the utterance, or one that the utterance's rest interrupted, is a turn,
                    // but not the answer.
                    if deadline.is_some() && !turn.interrupted() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Receives until the server ends the stream or the user presses Ctrl-C.
    async fn until_the_end(&mut self, incoming: &mut Streaming<ServerMessage>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                message = incoming.message() => match message.map_err(ended)? {
                    Some(message) => { self.take(message).await?; }
                    None => return Ok(()),
                },
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    async fn take(&mut self, message: ServerMessage) -> anyhow::Result<Option<&Turn>> {
        let event = self.recorder.take(Instant::now(), message);
        if let Some(player) = &mut self.player {
            player.play(&event.audio, event.interrupted).await;
        }
        if let Some(warning) = event.warning {
            eprintln!("the server warns: {warning}");
        }
        let Some(turn) = event.finished else { return Ok(None) };
        if self.args.json {
            writeln!(self.print, "{}", report::json(&turn))?;
        } else {
            write!(self.print, "{}", report::text(&turn))?;
        }
        self.print.flush()?;
        self.turns.push(turn);
        Ok(self.turns.last())
    }

    /// Lets the last reply be heard, and hands over the turns.
    async fn finish(self) -> Vec<Turn> {
        if let Some(player) = self.player {
            player.finish().await;
        }
        self.turns
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn ended(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("the server ended the conversation: {:?}: {}", status.code(), status.message())
}

/// Writes the replies, one after the other.
fn save(path: &Path, turns: &[Turn]) -> anyhow::Result<()> {
    if turns.iter().all(|turn| turn.audio.is_empty()) {
        bail!("no speech came, so {} was not written", path.display());
    }
    let write = || -> std::io::Result<()> {
        let mut file = wav::Writer::create(path, record::RATE)?;
        for (index, turn) in turns.iter().enumerate() {
            if index > 0 {
                file.push(&vec![0.0; record::RATE.samples(GAP) as usize])?;
            }
            file.push(&turn.audio)?;
        }
        file.finish().map(|_| ())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
