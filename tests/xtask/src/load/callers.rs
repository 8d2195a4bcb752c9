//! Callers that send frames by the clock, find them in the replies, and time each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use causerie_model_api::{INPUT_RATE, Modality, OUTPUT_RATE};
use causerie_proto::v1::{self, server_message::MessageType as FromServer};
use causerie_tests::service;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Values of frames, after which they begin again: as many frames cannot be under way at once.
const VALUES: u64 = 30_000;
/// Frames that may be under way before their times of sending are overwritten.
const UNDER_WAY: usize = 256;
/// How long the last frames may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A crowd of callers.
#[derive(Clone, Copy)]
pub(super) struct Crowd {
    pub(super) callers: usize,
    pub(super) frame: Duration,
    pub(super) detection: bool,
    /// What is sent first and not counted.
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

/// What became of the frames.
#[derive(Default)]
pub(super) struct Outcome {
    /// From sending to having received the whole frame, in microseconds.
    pub(super) latencies_us: Vec<f64>,
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) out_of_order: u64,
    /// Conversations that ended before their time.
    pub(super) failed: Vec<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.sent += other.sent;
        self.lost += other.lost;
        self.out_of_order += other.out_of_order;
        self.failed.extend(other.failed);
    }
}

/// Connections, each for as many streams as a proxy would put on one.
pub(super) async fn connect(url: &str, callers: usize) -> anyhow::Result<Vec<Channel>> {
    const STREAMS: usize = 100;
    let mut channels = Vec::new();
    for _ in 0..callers.div_ceil(STREAMS) {
        let endpoint = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true);
        let endpoint = endpoint.initial_connection_window_size(1 << 20).initial_stream_window_size(64 << 10);
        channels.push(endpoint.connect().await?);
    }
    Ok(channels)
}

/// Runs a crowd; its frames are spread evenly over the time of one.
pub(super) async fn run(channels: &[Channel], crowd: Crowd) -> Outcome {
    let begin = Instant::now() + Duration::from_millis(500);
    let callers: Vec<_> = (0..crowd.callers)
        .map(|i| {
            let first = begin + crowd.frame.mul_f64(i as f64 / crowd.callers as f64);
            tokio::spawn(call(channels[i % channels.len()].clone(), crowd, first))
        })
        .collect();
    let mut outcome = Outcome::default();
    for caller in callers {
        match caller.await {
            Ok(Ok(one)) => outcome.add(one),
            Ok(Err(status)) => outcome.failed.push(status.to_string()),
            Err(error) => outcome.failed.push(error.to_string()),
        }
    }
    outcome
}

/// When frames were sent, by their number: what the sending and the receiving half of a caller share.
struct Sent {
    begin: Instant,
    count: AtomicU64,
    // Written before `count`, and read by the same numbers after a reply has gone through the server.
    at_us: [AtomicU64; UNDER_WAY],
    /// The receiving half is done; until then the stream stays open.
    over: Notify,
}

impl Sent {
    fn new() -> Self {
        let at_us = [const { AtomicU64::new(0) }; UNDER_WAY];
        Self { begin: Instant::now(), count: AtomicU64::new(0), at_us, over: Notify::new() }
    }

    fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    fn send(&self, number: u64) {
        self.at_us[number as usize % UNDER_WAY].store(self.now_us(), Ordering::Relaxed);
        self.count.store(number + 1, Ordering::Release);
    }

    fn age_us(&self, number: u64) -> f64 {
        (self.now_us() - self.at_us[number as usize % UNDER_WAY].load(Ordering::Relaxed)) as f64
    }
}

async fn call(channel: Channel, crowd: Crowd, first: Instant) -> Result<Outcome, Status> {
    let frames = ((crowd.warm_up + crowd.measured).as_secs_f64() / crowd.frame.as_secs_f64()).ceil() as u64;
    let warm_up = (crowd.warm_up.as_secs_f64() / crowd.frame.as_secs_f64()).ceil() as u64;
    let sent = Arc::new(Sent::new());
    let mut replies = open(channel, script(crowd, frames, first, sent.clone())).await?;
    let mut outcome = Outcome::default();
    let samples_in_frame = crowd.frame.as_millis() as u64 * u64::from(OUTPUT_RATE) / 1000;
    let (mut number, mut samples, mut whole) = (0, 0, 0);
    while number < frames {
        let Ok(message) = timeout(PATIENCE + (crowd.warm_up.max(PATIENCE)), replies.message()).await else { break };
        let Some(message) = message? else { break };
        for value in values(&message) {
            let place = number % VALUES + 1;
            if u64::from(value) != place {
                let ahead = (u64::from(value) + VALUES - place) % VALUES;
                if ahead >= UNDER_WAY as u64 {
                    // From before.
                    outcome.out_of_order += 1;
                    continue;
                }
                // What is skipped is lost.
                number += ahead;
                samples = 0;
            }
            samples += 1;
            if samples == samples_in_frame {
                whole += 1;
                if number >= warm_up {
                    outcome.latencies_us.push(sent.age_us(number));
                }
                number += 1;
                samples = 0;
            }
        }
    }
    sent.over.notify_one();
    outcome.sent = sent.count.load(Ordering::Acquire);
    outcome.lost = outcome.sent.saturating_sub(whole);
    Ok(outcome)
}

/// Opens a stream; the server's refusal is its status.
pub(super) async fn open(
    channel: Channel,
    messages: impl Stream<Item = v1::ClientMessage> + Send + 'static,
) -> Result<tonic::Streaming<v1::ServerMessage>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<v1::ClientMessage, v1::ServerMessage>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(service::OUR_PATH);
    Ok(grpc.streaming(Request::new(messages), path, codec).await?.into_inner())
}

/// The first message of a caller.
pub(super) fn setup(detection: bool) -> v1::ClientMessage {
    let detect =
        v1::realtime_input_config::AutomaticActivityDetection { disabled: Some(!detection), ..Default::default() };
    let realtime =
        v1::RealtimeInputConfig { automatic_activity_detection: Some(detect), ..v1::RealtimeInputConfig::default() };
    service::first(v1::Setup {
        realtime_input_config: Some(realtime),
        input_audio_transcription: None,
        output_audio_transcription: None,
        ..service::setup(Modality::Audio)
    })
}

/// Setup, a written turn, and frames by the clock.
fn script(crowd: Crowd, frames: u64, first: Instant, sent: Arc<Sent>) -> impl Stream<Item = v1::ClientMessage> {
    let samples = crowd.frame.as_millis() as usize * INPUT_RATE as usize / 1000;
    let message = |message| v1::ClientMessage { message_type: Some(message) };
    let opening = [setup(crowd.detection), message(service::typed("echo"))];
    let frames = futures::stream::unfold((0, sent), move |(number, sent)| async move {
        if number == frames {
            sent.over.notified().await;
            return None;
        }
        let value = (number % VALUES + 1) as i16;
        let data = value.to_le_bytes().repeat(samples);
        sleep_until(first + crowd.frame.mul_f64(number as f64)).await;
        sent.send(number);
        Some((message(service::audio("audio/pcm;rate=16000", data)), (number + 1, sent)))
    });
    futures::StreamExt::chain(futures::stream::iter(opening), frames)
}

/// The samples of a reply's audio.
fn values(message: &v1::ServerMessage) -> impl Iterator<Item = u16> {
    let content = match &message.message_type {
        Some(FromServer::ServerContent(content)) => content.model_turn.as_ref(),
        _ => None,
    };
    content
        .into_iter()
        .flat_map(|turn| &turn.parts)
        .flat_map(|part| match &part.data {
            Some(v1::part::Data::InlineData(blob)) => blob.data.as_chunks::<2>().0,
            _ => &[],
        })
        .map(|bytes| u16::from_le_bytes(*bytes))
}

/// A caller who is refused, again and again until the end, a second after each refusal. How long each took, in
/// microseconds, and what was not a refusal.
pub(super) async fn knock(channel: Channel, first: Instant, until: Instant) -> (Vec<f64>, Vec<String>) {
    let (mut refusals, mut others) = (Vec::new(), Vec::new());
    let mut next = first;
    while next < until {
        sleep_until(next).await;
        let asked = Instant::now();
        let messages = futures::StreamExt::chain(
            futures::stream::iter([setup(false)]),
            futures::stream::pending::<v1::ClientMessage>(),
        );
        match open(channel.clone(), messages).await {
            Err(status) if status.code() == tonic::Code::ResourceExhausted => {
                refusals.push(asked.elapsed().as_secs_f64() * 1e6);
            }
            Err(status) => others.push(status.to_string()),
            Ok(_) => others.push("it was admitted".to_owned()),
        }
        next = Instant::now() + Duration::from_secs(1);
    }
    (refusals, others)
}

/// A caller who talks, or waits, until the server ends the stream. Whether it said so.
pub(super) async fn until_ended(channel: Channel, crowd: Crowd, talks: bool) -> bool {
    let frames = if talks { (crowd.measured.as_millis() / crowd.frame.as_millis()) as u64 } else { 0 };
    let messages = script(crowd, frames, Instant::now(), Arc::new(Sent::new()));
    let Ok(mut replies) = open(channel, messages).await else { return false };
    let mut told = false;
    loop {
        match replies.message().await {
            Ok(Some(message)) => told |= matches!(message.message_type, Some(FromServer::GoAway(_))),
            Ok(None) => return true,
            Err(_) => return told,
        }
    }
}
