//! Conversations with a toy engine: no network, no weights, and nothing that waits for the clock (what the toy says is
//! shorter than the lead).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use causerie_model_api::{
    Busy, Capabilities, Engine, Event, FinishReason, InputSamples, Item, Modality, Next, Role, SessionId, Usage, Voice,
};
use causerie_session::{Detection, Timing};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::engine_host::EngineHost;
use crate::media::{Completion, Detector, DetectorStream, MediaPool};

/// Answers "echo" in ten pieces of text and 100 ms of speech; some words make it misbehave.
struct Toy {
    capabilities: Capabilities,
    log: Log,
    out: Vec<(SessionId, Event)>,
    room: usize,
    words: String,
}

/// What an engine was asked for. Waiting for it takes no time from the engine's thread.
type Log = watch::Sender<Vec<Request>>;

impl Engine for Toy {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, request: Request) -> Result<(), Busy> {
        if matches!(request, Request::Open { .. }) {
            self.room = self.room.checked_sub(1).ok_or(Busy)?;
        }
        self.log.send_modify(|log| log.push(request.clone()));
        let session = request.session();
        match request {
            Request::Append { items, .. } => self.words = format!("{items:?}"),
            Request::Start { turn, .. } => {
                assert!(!self.words.contains("panic"), "told to panic");
                let mut say = |event| self.out.push((session, event));
                let pieces = if self.words.contains("flood") { 5_000 } else { 10 };
                for _ in 0..pieces {
                    say(Event::Text { turn, delta: "echo ".into() });
                }
                let pcm = vec![0.25; 2_400];
                say(Event::Audio { turn, start: OutputSamples(0), pcm, text_until: 50 });
                say(Event::Done { turn, reason: FinishReason::Stop, usage: Usage::default() });
            }
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next {
        self.out.drain(..).for_each(|(session, event)| out(session, event));
        Next::Idle
    }
}

/// Takes everything for speech, and breaks at a sample above 0.9.
struct Level;

impl Detector for Level {
    fn stream(&self) -> Box<dyn DetectorStream> {
        Box::new(Windows(0))
    }
}

struct Windows(u64);

impl DetectorStream for Windows {
    fn push(&mut self, pcm: &[f32], window: &mut dyn FnMut(f32, u64, u64)) {
        assert!(pcm.iter().all(|sample| *sample < 0.9), "told to panic");
        let end = self.0 + pcm.len() as u64;
        while self.0 + 512 <= end {
            window(0.9, self.0, self.0 + 512);
            self.0 += 512;
        }
    }
}

/// Takes what is loud for speech, and pauses for ends as it is told; told nothing, it panics.
#[derive(Clone, Default)]
struct Pauses {
    verdicts: Arc<Mutex<VecDeque<Option<f32>>>>,
    /// Samples that were to be judged.
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Detector for Pauses {
    fn stream(&self) -> Box<dyn DetectorStream> {
        Box::new(LoudWindows(0, Vec::new()))
    }

    fn completion(&self) -> Option<Arc<dyn Completion>> {
        Some(Arc::new(self.clone()))
    }
}

impl Completion for Pauses {
    fn finished(&self, pcm: &[f32]) -> Option<f32> {
        self.asked.lock().unwrap().push(pcm.len());
        let verdict = self.verdicts.lock().unwrap().pop_front();
        verdict.expect("told to panic")
    }

    fn span(&self) -> usize {
        16_000
    }
}

struct LoudWindows(u64, Vec<f32>);

impl DetectorStream for LoudWindows {
    fn push(&mut self, pcm: &[f32], window: &mut dyn FnMut(f32, u64, u64)) {
        self.1.extend(pcm);
        while self.1.len() >= 512 {
            let loud = self.1.drain(..512).any(|sample| sample > 0.1);
            window(if loud { 0.9 } else { 0.1 }, self.0, self.0 + 512);
            self.0 += 512;
        }
    }
}

struct House {
    host: EngineHost,
    pool: MediaPool,
    log: Log,
    built: Arc<AtomicUsize>,
}

impl House {
    async fn open() -> Self {
        Self::with(Arc::new(Level)).await
    }

    async fn with(detector: Arc<dyn Detector>) -> Self {
        let log = Log::default();
        let built = Arc::new(AtomicUsize::new(0));
        let (shared, count) = (log.clone(), built.clone());
        let host = EngineHost::start(Box::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            let voices = vec![Voice { name: "v".into(), language: "en-US".into(), gender: "female".into() }];
            let capabilities = Capabilities { audio_in: true, audio_out: true, voices, ..Capabilities::default() };
            Ok(Box::new(Toy { capabilities, log: shared.clone(), out: Vec::new(), room: 2, words: String::new() }))
        }))
        .unwrap();
        host.handle().ready().await.unwrap();
        Self { host, pool: MediaPool::start(detector).unwrap(), log, built }
    }

    fn talk(&self, setup: Setup, output: OutputFormat, room: usize) -> Talk {
        let engine = self.host.handle();
        let media = self.pool.media();
        // A busy machine may take its time to judge.
        let timing = Timing { judge_wait: Duration::from_secs(60), ..Timing::default() };
        let settings = Settings { id: engine.next_session(), name: "s".into(), model: "toy".into(), timing };
        let (to, inbound) = mpsc::channel(INBOUND_CAPACITY);
        let (outbound, from) = mpsc::channel(room);
        let conversation = Conversation { setup, settings, output, echo_gate: true, moments: None };
        let task = tokio::spawn(async move { converse(&engine, &media, conversation, inbound, outbound).await });
        Talk { to, from, task }
    }

    /// Waits for the engine to have seen a request that suits.
    async fn saw(&self, suits: impl Fn(&Request) -> bool) {
        self.saw_times(1, suits).await;
    }

    /// Waits for the engine to have seen so many.
    async fn saw_times(&self, times: usize, suits: impl Fn(&Request) -> bool) {
        let mut log = self.log.subscribe();
        let enough = log.wait_for(|log| log.iter().filter(|request| suits(request)).count() >= times);
        enough.await.expect("the log is not gone");
    }
}

struct Talk {
    to: mpsc::Sender<Inbound>,
    from: mpsc::Receiver<Outbound>,
    task: JoinHandle<Result<Ended, Problem>>,
}

impl Talk {
    async fn say(&self, input: Input) {
        self.to.send(Inbound::Event(input)).await.unwrap();
    }

    async fn write(&self, text: &str) {
        let items = vec![Item::text(Role::User, text)];
        self.say(Input::ClientContent { items, turn_complete: true }).await;
    }

    async fn sound(&self, mime: &str, data: Vec<u8>) {
        self.to.send(Inbound::Audio { mime: mime.into(), data: data.into() }).await.unwrap();
    }

    /// Everything until the end.
    async fn rest(mut self) -> (Vec<Outbound>, Result<Ended, Problem>) {
        let mut all = Vec::new();
        while let Some(message) = self.from.recv().await {
            all.push(message);
        }
        (all, self.task.await.unwrap())
    }

    async fn problem(self) -> ProblemCode {
        self.rest().await.1.unwrap_err().code
    }
}

fn text() -> Setup {
    Setup { modality: Modality::Text, ..Setup::default() }
}

fn marked() -> Setup {
    Setup { detection: Detection { disabled: true, ..Detection::default() }, ..Setup::default() }
}

fn pcm24() -> OutputFormat {
    OutputFormat::parse("audio/pcm;rate=24000").unwrap()
}

fn name(message: &Outbound) -> &'static str {
    match message {
        Outbound::Audio { .. } => "audio",
        Outbound::Event(ServerEvent::SetupComplete(_)) => "setup_complete",
        Outbound::Event(ServerEvent::Text { .. }) => "text",
        Outbound::Event(ServerEvent::GenerationComplete) => "generation_complete",
        Outbound::Event(ServerEvent::TurnComplete { .. }) => "turn_complete",
        Outbound::Event(ServerEvent::Warning(_)) => "warning",
        Outbound::Event(ServerEvent::SpeechStarted { .. }) => "speech_started",
        Outbound::Event(ServerEvent::SpeechStopped { .. }) => "speech_stopped",
        Outbound::Event(_) => "other",
        Outbound::Resumption { .. } => "resumption",
    }
}

fn names(messages: &[Outbound]) -> Vec<&'static str> {
    let mut names: Vec<&str> = messages.iter().map(name).collect();
    names.dedup();
    names
}

#[tokio::test]
async fn a_turn_of_text_and_a_clean_end() {
    let house = House::open().await;
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    talk.write("Hello.").await;
    talk.say(Input::HalfClose).await;
    let (messages, end) = talk.rest().await;
    assert_eq!(end, Ok(Ended::Finished));
    assert_eq!(names(&messages), ["setup_complete", "text", "generation_complete", "turn_complete"]);
    house.saw(|request| matches!(request, Request::Close { .. })).await;
}

#[tokio::test]
async fn speech_goes_in_and_comes_out_in_the_clients_formats() {
    for (mime, bytes) in [("audio/pcmu", 800), ("audio/pcm;rate=24000", 4_800), ("audio/pcm;rate=48000", 9_600)] {
        let house = House::open().await;
        let talk = house.talk(marked(), OutputFormat::parse(mime).unwrap(), OUTBOUND_CAPACITY);
        talk.say(Input::ActivityStart).await;
        for _ in 0..10 {
            talk.sound("audio/pcm;rate=16000", vec![0; 640]).await;
        }
        talk.say(Input::ActivityEnd).await;
        talk.say(Input::HalfClose).await;
        let (messages, end) = talk.rest().await;
        assert_eq!(end, Ok(Ended::Finished), "{mime}");
        let order =
            ["setup_complete", "speech_started", "speech_stopped", "audio", "generation_complete", "turn_complete"];
        assert_eq!(names(&messages), order, "{mime}");
        let mut sent = 0;
        for message in &messages {
            if let Outbound::Audio { start, data, mime: of, .. } = message {
                assert_eq!(start.0, sent * 2_400 / bytes, "{mime}");
                assert!(of.starts_with(mime.split(';').next().unwrap()), "{of}");
                sent += data.len() as u64;
            }
        }
        assert_eq!(sent, bytes, "{mime}");
        // The engine had all of the utterance when it was told to answer it.
        let log = house.log.borrow();
        let start = log.iter().position(|request| matches!(request, Request::Start { .. })).unwrap();
        let heard = log[..start].iter().map(|request| match request {
            Request::Audio { pcm, .. } => pcm.len(),
            _ => 0,
        });
        assert_eq!(heard.sum::<usize>(), 3_200);
    }
}

#[tokio::test]
async fn windows_of_the_detector_reach_the_session() {
    let house = House::open().await;
    let mut talk = house.talk(Setup::default(), pcm24(), OUTBOUND_CAPACITY);
    talk.sound("audio/pcm;rate=16000", vec![0; 16_000]).await;
    talk.say(Input::AudioStreamEnd).await;
    talk.say(Input::HalfClose).await;
    assert_eq!(name(&talk.from.recv().await.unwrap()), "setup_complete");
    assert_eq!(talk.from.recv().await.unwrap(), Outbound::Event(ServerEvent::SpeechStarted { at: InputSamples(0) }));
    assert_eq!(talk.rest().await.1, Ok(Ended::Finished));
}

#[tokio::test]
async fn light_pieces_reach_the_engine_before_the_detector() {
    let house = House::open().await;
    let talk = house.talk(Setup::default(), pcm24(), OUTBOUND_CAPACITY);
    // The first opens the decoder. The second is light, and breaks the detector.
    let loud = i16::MAX.to_le_bytes().repeat(320);
    talk.sound("audio/pcm;rate=16000", vec![0; 640]).await;
    talk.sound("audio/pcm;rate=16000", loud).await;
    assert_eq!(talk.problem().await, ProblemCode::Internal);
    let pieces: Vec<_> = house.log.borrow().iter().filter_map(piece).collect();
    assert_eq!(pieces, [(0, 320), (320, 320)]);
}

fn piece(request: &Request) -> Option<(u64, usize)> {
    match request {
        Request::Audio { at, pcm, .. } => Some((at.0, pcm.len())),
        _ => None,
    }
}

#[tokio::test]
async fn only_short_pieces_of_an_open_stream_of_samples_are_light() {
    let house = House::open().await;
    let mut ear = house.pool.media().ear(true);
    let mime = "audio/pcm;rate=16000";
    assert!(!ear.is_light(mime, 2), "nothing is open");
    ear.push(mime, &[0; 2], true);
    // 100 ms.
    assert!(ear.is_light(mime, 3_200) && !ear.is_light(mime, 3_202));
    assert!(!ear.is_light("audio/pcmu", 2), "another type begins another stream");
    ear.push("audio/pcmu", &[0; 2], true);
    assert!(ear.is_light("audio/pcmu", 800) && !ear.is_light("audio/pcmu", 801));
    ear.push("audio/opus", &[0xfc, 0xff, 0xfe], true);
    assert!(!ear.is_light("audio/opus", 1));
    ear.flush();
    assert!(!ear.is_light(mime, 2), "nothing is open any more");
    let light = |format| Mouth::open(format).unwrap().is_light(2_400);
    assert!(light(pcm24()) && light(OutputFormat::Mulaw) && !light(OutputFormat::Opus));
    assert!(!Mouth::open(pcm24()).unwrap().is_light(2_401));
}

#[tokio::test]
async fn what_cannot_be_decoded_ends_the_stream_with_a_reason() {
    for (mime, data, code) in [
        ("audio/pcm;rate=7350", vec![0; 64], ProblemCode::InvalidArgument),
        ("application/pdf", vec![0; 64], ProblemCode::InvalidArgument),
        ("audio/flac", vec![7; 64], ProblemCode::InvalidArgument),
    ] {
        let house = House::open().await;
        let talk = house.talk(Setup::default(), pcm24(), OUTBOUND_CAPACITY);
        talk.sound(mime, data).await;
        // Some containers say so only at their end.
        let _ = talk.to.send(Inbound::Event(Input::HalfClose)).await;
        assert_eq!(talk.problem().await, code, "{mime}");
    }
}

#[tokio::test]
async fn a_panic_in_a_media_job_ends_its_stream_alone() {
    let house = House::open().await;
    let talk = house.talk(Setup::default(), pcm24(), OUTBOUND_CAPACITY);
    talk.sound("audio/pcm;rate=16000", vec![0x7f; 64]).await;
    assert_eq!(talk.problem().await, ProblemCode::Internal);
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    talk.write("Hello.").await;
    talk.say(Input::HalfClose).await;
    assert_eq!(talk.rest().await.1, Ok(Ended::Finished));
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_ended() {
    let house = House::open().await;
    let talk = house.talk(text(), pcm24(), 4);
    talk.write("Hello.").await;
    house.saw(|request| matches!(request, Request::Close { .. })).await;
    let (messages, end) = talk.rest().await;
    assert_eq!(end.unwrap_err().code, ProblemCode::ResourceExhausted);
    assert_eq!(messages.len(), 4, "what was sent before is still delivered");
}

#[tokio::test]
async fn events_that_are_not_taken_end_one_conversation() {
    let house = House::open().await;
    let other = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    talk.write("flood").await;
    let code = talk.problem().await;
    assert!(matches!(code, ProblemCode::Internal | ProblemCode::ResourceExhausted), "{code:?}");
    other.write("Hello.").await;
    other.say(Input::HalfClose).await;
    assert_eq!(other.rest().await.1, Ok(Ended::Finished));
}

#[tokio::test]
async fn a_client_that_vanishes_is_closed_at_the_engine() {
    let house = House::open().await;
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    drop(talk.from);
    assert_eq!(talk.task.await.unwrap(), Ok(Ended::ClientGone));
    house.saw(|request| matches!(request, Request::Close { .. })).await;
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    drop(talk.to);
    assert_eq!(talk.task.await.unwrap(), Ok(Ended::ClientGone));
}

#[tokio::test]
async fn a_full_engine_refuses() {
    let house = House::open().await;
    let mut talks = Vec::new();
    for _ in 0..2 {
        let mut talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
        assert_eq!(name(&talk.from.recv().await.unwrap()), "setup_complete");
        talks.push(talk);
    }
    let third = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    assert_eq!(third.problem().await, ProblemCode::ResourceExhausted);
}

#[tokio::test]
async fn a_setup_that_cannot_be_served_never_reaches_the_engine() {
    let house = House::open().await;
    let setup = Setup { voice: Some("Hal".into()), ..Setup::default() };
    assert_eq!(house.talk(setup, pcm24(), OUTBOUND_CAPACITY).problem().await, ProblemCode::InvalidArgument);
    assert!(house.log.borrow().is_empty());
}

#[tokio::test]
async fn an_engine_that_panics_is_built_anew() {
    let house = House::open().await;
    let other = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    house.saw(|request| matches!(request, Request::Open { .. })).await;
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    talk.write("panic").await;
    assert_eq!(talk.problem().await, ProblemCode::Unavailable);
    assert_eq!(other.problem().await, ProblemCode::Unavailable);
    house.host.handle().ready().await.unwrap();
    assert_eq!(house.built.load(Ordering::SeqCst), 2);
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    talk.write("Hello.").await;
    talk.say(Input::HalfClose).await;
    assert_eq!(talk.rest().await.1, Ok(Ended::Finished));
}

#[tokio::test]
async fn an_engine_that_cannot_be_loaded_says_why() {
    let host = EngineHost::start(Box::new(|| Err("no such file".into()))).unwrap();
    assert_eq!(host.handle().ready().await.unwrap_err(), "no such file");
    assert_eq!(host.handle().capabilities().unwrap_err().code, ProblemCode::Unavailable);
    host.shutdown();
    let host = EngineHost::start(Box::new(|| panic!("told to panic"))).unwrap();
    assert_eq!(host.handle().ready().await.unwrap_err(), "loading panicked");
}

/// An engine for one conversation, whose steps last until it is told to go on.
struct Stuck {
    capabilities: Capabilities,
    taken: bool,
    entered: std::sync::mpsc::Sender<()>,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl Stuck {
    /// Its host, what is told when a step begins, and what ends it.
    fn host() -> (EngineHost, std::sync::mpsc::Receiver<()>, std::sync::mpsc::Sender<()>) {
        let (entered, has_entered) = std::sync::mpsc::channel();
        let (go_on, told) = std::sync::mpsc::channel();
        let engine = Self { capabilities: Capabilities::default(), taken: false, entered, go_on: told };
        let engine = Mutex::new(Some(engine));
        let host = EngineHost::start(Box::new(move || match engine.lock().unwrap().take() {
            Some(engine) => Ok(Box::new(engine)),
            None => Err("it is built once".into()),
        }));
        (host.unwrap(), has_entered, go_on)
    }
}

impl Engine for Stuck {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, request: Request) -> Result<(), Busy> {
        match request {
            Request::Open { .. } if std::mem::replace(&mut self.taken, true) => Err(Busy),
            Request::Close { .. } => {
                self.taken = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, _: &mut dyn FnMut(SessionId, Event)) -> Next {
        let _ = self.entered.send(());
        let _ = self.go_on.recv();
        Next::Idle
    }
}

#[test]
fn an_engine_that_is_stuck_in_a_step_is_late() {
    let (host, has_entered, go_on) = Stuck::host();
    has_entered.recv().unwrap();
    let later = || std::time::Instant::now() + Duration::from_secs(5);
    assert!(host.handle().lag().longest(later()) >= Duration::from_secs(5));
    drop(go_on);
    while host.handle().lag().longest(later()) >= Duration::from_secs(5) {
        std::thread::yield_now();
    }
    host.shutdown();
}

#[test]
fn whoever_opens_when_another_has_closed_finds_room() {
    let (host, has_entered, go_on) = Stuck::host();
    let handle = host.handle();
    let open = |session| Request::Open { session: SessionId(session), config: Box::default(), history: Vec::new() };
    has_entered.recv().unwrap();
    let (first, _events) = handle.open(open(1)).unwrap();
    go_on.send(()).unwrap();
    has_entered.recv().unwrap();
    // Both wait while a step runs.
    drop(first);
    let (_second, mut events) = handle.open(open(2)).unwrap();
    go_on.send(()).unwrap();
    has_entered.recv().unwrap();
    assert!(events.try_recv().is_err(), "it was refused");
    drop(go_on);
    host.shutdown();
}

#[tokio::test]
async fn a_shutdown_tells_the_conversations_and_joins() {
    let House { host, pool, log, .. } = House::open().await;
    let handle = host.handle();
    let house = House { host, pool, log, built: Arc::default() };
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    house.saw(|request| matches!(request, Request::Open { .. })).await;
    house.host.shutdown();
    assert_eq!(talk.problem().await, ProblemCode::Unavailable);
    assert_eq!(handle.capabilities().unwrap_err().code, ProblemCode::Unavailable);
}

#[tokio::test]
async fn pictures_are_refused_once() {
    let house = House::open().await;
    let talk = house.talk(text(), pcm24(), OUTBOUND_CAPACITY);
    for _ in 0..3 {
        talk.to.send(Inbound::Video { mime: "image/jpeg".into(), data: Bytes::new() }).await.unwrap();
    }
    talk.say(Input::HalfClose).await;
    let (messages, end) = talk.rest().await;
    assert_eq!(names(&messages), ["setup_complete", "warning"]);
    assert_eq!(messages.len(), 2);
    assert_eq!(end, Ok(Ended::Finished));
}

#[tokio::test]
async fn a_burst_of_audio_has_the_turns_of_speech() {
    let cases: [(&str, Vec<Option<f32>>, usize); 4] = [
        ("finished", vec![Some(0.9), Some(0.9)], 2),
        ("unfinished", vec![Some(0.1), Some(0.9)], 1),
        ("it cannot be told", vec![None, None], 2),
        ("judging panics", vec![], 2),
    ];
    for (what, verdicts, turns) in cases {
        let pauses = Pauses { verdicts: Arc::new(Mutex::new(verdicts.into())), ..Pauses::default() };
        let house = House::with(Arc::new(pauses.clone())).await;
        let talk = house.talk(Setup::default(), pcm24(), OUTBOUND_CAPACITY);
        let piece = |loud: bool, ms: usize| if loud { [0, 0x40].repeat(ms * 16) } else { vec![0; ms * 32] };
        // Two pieces of speech with 700 ms between them, all in one packet: at the pace of speech the first is over
        // before the second, if it sounds so.
        let sound = [piece(true, 640), piece(false, 700), piece(true, 640), piece(false, 1_500)].concat();
        talk.sound("audio/pcm;rate=16000", sound).await;
        let is_commit = |request: &Request| matches!(request, Request::Commit { .. });
        house.saw_times(turns, is_commit).await;
        talk.say(Input::CancelReply).await;
        talk.say(Input::HalfClose).await;
        assert_eq!(talk.rest().await.1, Ok(Ended::Finished), "{what}");
        assert_eq!(house.log.borrow().iter().filter(|request| is_commit(request)).count(), turns, "{what}");
        // Each pause was asked about once, with what the judge hears of it.
        assert_eq!(*pauses.asked.lock().unwrap(), [13_440, 16_000], "{what}");
    }
}

#[tokio::test]
async fn windows_carry_their_power_however_the_audio_was_cut() {
    let house = House::with(Arc::new(Pauses::default())).await;
    let sound: Vec<u8> = (0..4_000i16).flat_map(|n| (n * 4).to_le_bytes()).collect();
    let listen = |piece: usize| {
        let mut ear = house.pool.media().ear(true);
        let heard = sound.chunks(piece).map(|piece| ear.push("audio/pcm;rate=16000", piece, true));
        heard.flat_map(|heard| heard.windows).collect::<Vec<_>>()
    };
    let whole = listen(sound.len());
    assert_eq!(whole.len(), 7);
    for (i, window) in whole.iter().enumerate() {
        let middle = (i as f32 * 512.0 + 256.0) * 4.0 / 32_768.0;
        assert!((window.power / middle.powi(2) - 1.0).abs() < 0.4, "{window:?}, about {middle}");
    }
    for piece in [2, 250, 1_024, 2_050] {
        assert_eq!(listen(piece), whole, "pieces of {piece} bytes");
    }
}
