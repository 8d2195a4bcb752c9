//! Whole conversations with a scripted server over loopback, as fast as they go.

use std::path::PathBuf;

use causerie_proto::v1::live_server::{Live, LiveServer};
use causerie_proto::v1::{Blob, Capabilities, ServerContent, SetupComplete, Transcription, TurnEndReason, TurnMetrics};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Response, Status};

use super::*;

/// Answers every end mark and every typed turn with what it got, and 0.1 s of sound.
struct Echo;

#[tonic::async_trait]
impl Live for Echo {
    type ConverseStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn converse(
        &self,
        request: Request<Streaming<ClientMessage>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let mut incoming = request.into_inner();
        let (replies, stream) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut samples = 0;
            while let Ok(Some(message)) = incoming.message().await {
                let said = match message.message_type {
                    Some(FromClient::Setup(setup)) if setup.model == "none" => {
                        let _ = replies.send(Err(Status::not_found("there is only default"))).await;
                        return;
                    }
                    Some(FromClient::Setup(_)) => {
                        let capabilities = Some(Capabilities { engine: "echo".to_owned(), ..Capabilities::default() });
                        let complete = SetupComplete { capabilities, ..SetupComplete::default() };
                        let _ = replies.send(Ok(from_server(FromServer::SetupComplete(complete)))).await;
                        continue;
                    }
                    Some(FromClient::ClientContent(mut content)) => match content.turns[0].parts.remove(0).data {
                        Some(Data::Text(text)) => text,
                        other => panic!("{other:?}"),
                    },
                    Some(FromClient::RealtimeInput(input)) => {
                        samples += input.audio.map_or(0, |blob| blob.data.len() / 2);
                        if input.audio_stream_end != Some(true) {
                            continue;
                        }
                        format!("{} samples", std::mem::take(&mut samples))
                    }
                    other => panic!("{other:?}"),
                };
                for message in reply(said) {
                    if replies.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn reply(said: String) -> [ServerMessage; 2] {
    let sound = (0..2_400).flat_map(|n| (((n as f32 * 0.1).sin() * 8_000.0) as i16).to_le_bytes()).collect::<Vec<u8>>();
    let blob = Blob { mime_type: "audio/pcm;rate=24000".to_owned(), data: sound.into() };
    let transcription = |text: String| Some(Transcription { text, finished: false });
    [
        ServerContent {
            output_transcription: transcription(format!("you said {said}")),
            input_transcription: transcription(said),
            model_turn: Some(Content {
                role: "model".to_owned(),
                parts: vec![Part { data: Some(Data::InlineData(blob)), ..Part::default() }],
            }),
            ..ServerContent::default()
        },
        ServerContent {
            turn_complete: true,
            turn_end_reason: TurnEndReason::Stop.into(),
            turn_metrics: Some(Box::new(TurnMetrics { endpoint_ms: Some(12.5), ..TurnMetrics::default() })),
            ..ServerContent::default()
        },
    ]
    .map(|content| from_server(FromServer::ServerContent(content)))
}

fn from_server(kind: FromServer) -> ServerMessage {
    ServerMessage { message_type: Some(kind), ..ServerMessage::default() }
}

async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder().add_service(LiveServer::new(Echo));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    address.to_string()
}

/// A WAV of so many samples, in a folder of its own.
fn wav_file(name: &str, samples: usize) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("causerie-talk-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("input.wav");
    let mut file = wav::Writer::create(&path, SampleRate::HZ_16000).unwrap();
    file.push(&(0..samples).map(|n| 0.3 * (n as f32 * 0.1).sin()).collect::<Vec<_>>()).unwrap();
    file.finish().unwrap();
    path
}

#[tokio::test]
async fn files_and_typed_words_are_turns_of_one_conversation() {
    let input = wav_file("turns", 1_000);
    let out = input.with_file_name("out.wav");
    let args = TalkArgs {
        server: serve().await,
        inputs: vec![input.clone(), input.clone()],
        text: vec!["and hello".to_owned()],
        out: Some(out.clone()),
        json: true,
        fast: true,
        timeout: 60,
        ..TalkArgs::default()
    };
    let mut printed = Vec::new();
    let turns = hold(&args, &mut printed).await.unwrap();
    let lines: Vec<Value> =
        String::from_utf8(printed).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // 1000 samples are sent as four whole pieces.
    let expected = ["1280 samples", "1280 samples", "and hello"];
    assert_eq!(lines.len(), expected.len());
    for (line, said) in lines.iter().zip(expected) {
        assert_eq!(line["input_transcript"], said);
        assert_eq!(line["output_transcript"], format!("you said {said}"));
        assert_eq!(line["audio_seconds"], 0.1);
        assert_eq!(line["engine"], "echo");
        assert_eq!(line["waterfall"]["endpoint_ms"], 12.5);
        assert!(line["first_voiced_ms"].is_number(), "{line}");
    }
    save(&out, &turns).unwrap();
    let (rate, saved) = wav::read(&out).unwrap();
    assert_eq!((rate, saved.len()), (SampleRate::HZ_24000, 3 * 2_400 + 2 * 12_000));
    std::fs::remove_dir_all(input.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn what_the_server_refuses_is_said_in_its_words() {
    let args = TalkArgs {
        server: serve().await,
        text: vec!["hello".to_owned()],
        model: "none".to_owned(),
        ..TalkArgs::default()
    };
    let error = hold(&args, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains("there is only default"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    // The port was free a moment ago, and binding to port 0 gives no one else the same one soon.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let args = TalkArgs { server: free.to_string(), text: vec!["hello".to_owned()], ..TalkArgs::default() };
    let error = hold(&args, &mut Vec::new()).await.unwrap_err().to_string();
    assert!(error.contains(&free.to_string()) && error.contains("causerie serve"), "{error}");
}

#[test]
fn a_reply_without_speech_is_not_saved() {
    let error = save(&PathBuf::from("/nowhere/out.wav"), &[Turn::default()]).unwrap_err().to_string();
    assert!(error.contains("no speech came"), "{error}");
}
