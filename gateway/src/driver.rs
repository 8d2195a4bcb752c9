//! One conversation's task: it owns the clock and the queues, runs the media thread's jobs and drains the session.
//!
//! A transport maps its wire onto [`Inbound`] and [`Outbound`] and awaits [`converse`]. The loop is always the same:
//! one thing comes in (a message, a finished job, an engine event, a deadline), the session takes it, and its outputs
//! are drained until it says how long to wait.
//!
//! While a pause is judged, what was heard after it waits (within [`causerie_session::Timing::judge_wait`]), so that a
//! burst of audio has the same turns as the same audio at the pace of speech.
//!
//! Bounds: input is read one message at a time and no further ahead of real time than [`MAX_AHEAD`], so a client that
//! sends faster is slowed by its own transport; output that finds the transport's queue full ends the conversation.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use causerie_codec::{CodecError, OutputFormat};
use causerie_model_api::{InputSamples, OutputSamples, Picture, Request, TurnId};
use causerie_session::{Input, Output, Problem, ProblemCode, ServerEvent, Session, Settings, Setup, Snapshot};
use causerie_units::{MediaTime, SampleRate};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::echo::EchoGate;
use crate::engine_host::{Connection, Delivery, EngineHandle, unavailable};
use crate::media::{Ear, Heard, Media, Mouth, Spoken, Window};
use crate::recent::Recent;
use crate::tools::{Answer, Toolbox};

/// Messages that may wait on the way in. Transports make their channel with it.
pub const INBOUND_CAPACITY: usize = 64;

/// Messages that may wait on the way out: 10 s of 40 ms pieces. At the bound the reader is too slow and the
/// conversation ends. Transports make their channel with it.
pub const OUTBOUND_CAPACITY: usize = 256;

/// Session outputs that may wait for the encoder: as many as the transport's queue holds.
const MAX_UNSENT: usize = OUTBOUND_CAPACITY;

/// Windows from this probability on are somebody's voice, perhaps ours: what keeps speech going at the lower threshold.
const VOICED: f32 = 0.35;

/// How far input audio may run ahead of real time before reading pauses.
const MAX_AHEAD: Duration = Duration::from_secs(60);

/// From a transport. Closing the channel without [`Input::HalfClose`] means that the client is gone.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A piece of the microphone stream.
    Audio {
        /// Its type as the client wrote it.
        mime: String,
        /// Its bytes.
        data: Bytes,
    },
    /// A decoded frame of the client's video, taken where the audio so far ends. For engines that see.
    Frame(Picture),
    /// A frame for an engine that does not see.
    Video {
        /// Its type as the client wrote it.
        mime: String,
        /// Its bytes.
        data: Bytes,
    },
    /// The next word is the last of the client's message with this number.
    Mark(u64),
    /// Everything else. Not [`Input::Voice`], [`Input::Received`], [`Input::Completion`], [`Input::ToolDone`], [`Input::Engine`] or
    /// [`Input::Tick`]: those are the driver's, and are ignored here.
    Event(Input),
}

/// To a transport.
#[derive(Clone, Debug, PartialEq)]
pub enum Outbound {
    /// Anything but [`ServerEvent::Audio`].
    Event(ServerEvent),
    /// Encoded speech, due now.
    Audio {
        /// The turn.
        turn: TurnId,
        /// Position of its first sample in the turn's speech.
        start: OutputSamples,
        /// Type of `data`.
        mime: String,
        /// Encoded in the conversation's format.
        data: Bytes,
    },
    /// From where the conversation can be resumed. Comes from who keeps it.
    Resumption {
        /// `None` while it cannot be.
        handle: Option<String>,
        /// The last of the client's messages that are part of it.
        consumed: u64,
    },
}

/// What a conversation can be resumed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// `None` while it cannot be.
    pub snapshot: Option<Box<Snapshot>>,
    /// The last of the client's messages that are part of it; the setup is number 0.
    pub consumed: u64,
}

/// What a transport opens a conversation with.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// What the client asks for.
    pub setup: Setup,
    /// What the operator decides. `settings.id` comes from [`EngineHandle::next_session`].
    pub settings: Settings,
    /// How speech is encoded for the client.
    pub output: OutputFormat,
    /// Whether the client may hear the agent through open speakers (the head of `echo.rs`).
    pub echo_gate: bool,
    /// Where moments go, when `setup.resumption` asks for them. Closed when the conversation is over.
    pub moments: Option<watch::Sender<Moment>>,
}

/// How a conversation ended without a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client was done and has been served.
    Finished,
    /// The client went away.
    ClientGone,
}

/// Holds a conversation to its end. The first message out is [`ServerEvent::SetupComplete`].
///
/// Dropping the future closes the conversation at the engine.
///
/// # Errors
/// What ended the conversation before its time, for the transport to put into its own words. Messages that were sent
/// before stay in the queue and are to be delivered first.
pub async fn converse(
    engine: &EngineHandle,
    media: &Media,
    conversation: Conversation,
    mut inbound: mpsc::Receiver<Inbound>,
    outbound: mpsc::Sender<Outbound>,
) -> Result<Ended, Problem> {
    let capabilities = engine.capabilities()?;
    let Conversation { setup, mut settings, output, echo_gate, moments } = conversation;
    if setup.search {
        can_search(engine.tools().search(), &setup)?;
    }
    let setup = Setup { server_tools: engine.tools().declarations(setup.search), ..setup };
    let detect = !setup.detection.disabled;
    let recent = media.judged_span().filter(|_| detect && settings.timing.judge_after.is_some()).map(Recent::new);
    if recent.is_none() {
        settings.timing.judge_after = None;
    }
    let judge_wait = settings.timing.judge_wait;
    let opened = Instant::now();
    let mut session = Session::open(setup, &capabilities, settings, MediaTime::ZERO)?;
    let Output::Engine(open @ Request::Open { .. }) = session.poll_output() else {
        return Err(Problem::new(ProblemCode::Internal, "", "the session did not begin by opening"));
    };
    let (connection, mut deliveries) = engine.open(open)?;

    let mouth = Mouth::open(output).map_err(codec_problem)?;
    let mut task = Task {
        session,
        opened,
        connection,
        media: media.clone(),
        outbound,
        mime: mouth.mime().to_owned(),
        unsent: VecDeque::new(),
        mouth: Some(Box::new(mouth)),
        encoding: None,
        ear: Some(Box::new(media.ear(detect))),
        decoding: None,
        after_decoding: None,
        found: VecDeque::new(),
        recent,
        judging: None,
        judge_wait,
        echo: (detect && echo_gate).then(EchoGate::new),
        toolbox: engine.tools().clone(),
        calls: JoinSet::new(),
        stops: HashMap::new(),
        moments,
        marked: None,
        consumed: 0,
        received: Duration::ZERO,
        speaking: false,
        video_refused: false,
    };
    let (mut half_closed, mut input_over) = (false, false);
    loop {
        let deadline = match task.drain()? {
            Drained::Wait(deadline) => deadline,
            Drained::Closed(result) => return task.finish().await.and(result).map(|()| Ended::Finished),
        };
        if task.judging.as_ref().is_none_or(|judging| !judging.holds)
            && let Some(input) = task.found.pop_front()
        {
            task.tell(input);
            continue;
        }
        let reading = !input_over && task.decoding.is_none() && task.found.is_empty();
        let resume_reading = opened + task.received.saturating_sub(MAX_AHEAD);
        let ahead = resume_reading > Instant::now();
        tokio::select! {
            delivery = deliveries.recv() => task.deliver(delivery)?,
            encoded = answer(&mut task.encoding) => task.encoded(encoded)?,
            decoded = answer(&mut task.decoding) => task.decoded(decoded)?,
            judged = verdict(&mut task.judging) => task.judged(judged),
            // One that panicked is late in the end.
            Some(Ok((id, Answer { value, grounding }))) = task.calls.join_next() => {
                task.stops.remove(&id);
                task.input(Input::ToolDone { id, value, grounding });
            }
            message = inbound.recv(), if reading && !ahead => match message {
                Some(message) => {
                    half_closed |= matches!(message, Inbound::Event(Input::HalfClose));
                    task.receive(message)?;
                }
                None if half_closed => input_over = true,
                None => return Ok(task.client_gone(&mut inbound, &mut deliveries).await),
            },
            () = task.outbound.closed() => return Ok(task.client_gone(&mut inbound, &mut deliveries).await),
            () = sleep_until(resume_reading), if reading && ahead => {}
            () = due(opened, deadline) => task.input(Input::Tick),
        }
    }
}

/// Whether the function that searches, if there is one, can be the model's.
fn can_search(search: Option<&str>, setup: &Setup) -> Result<(), Problem> {
    const FIELD: &str = "setup.tools.google_search";
    let Some(name) = search else {
        let message = "no search is configured on this server (tools.google_search)";
        return Err(Problem::new(ProblemCode::Unimplemented, FIELD, message));
    };
    if setup.tools.iter().any(|tool| tool.name == name) {
        let message = format!("the server's search is a function {name:?}, and so is one of the client's");
        return Err(Problem::new(ProblemCode::InvalidArgument, FIELD, message));
    }
    Ok(())
}

type Decoded = (Box<Ear>, Heard);
type Encoded = (Box<Mouth>, Result<Vec<Spoken>, CodecError>);

/// What the loop of [`converse`] works on.
struct Task {
    session: Session,
    opened: Instant,
    connection: Connection,
    media: Media,
    outbound: mpsc::Sender<Outbound>,
    mime: String,
    /// What the session said and the transport has not heard: speech is encoded on the way, everything in its order.
    unsent: VecDeque<Unsent>,
    /// Away while `encoding`.
    mouth: Option<Box<Mouth>>,
    encoding: Option<oneshot::Receiver<Encoded>>,
    /// Away while `decoding`.
    ear: Option<Box<Ear>>,
    decoding: Option<oneshot::Receiver<Decoded>>,
    /// What the decoder was flushed for.
    after_decoding: Option<Input>,
    /// What the decoder and the detector found and the session has not been told: of one piece of input.
    found: VecDeque<Input>,
    /// What pauses are judged by.
    recent: Option<Recent>,
    judging: Option<Judging>,
    /// [`causerie_session::Timing::judge_wait`].
    judge_wait: Duration,
    /// Keeps the agent's own voice from interrupting it.
    echo: Option<EchoGate>,
    /// Functions of the server, and those that run, each with a way to stop it.
    toolbox: Arc<Toolbox>,
    calls: JoinSet<(String, Answer)>,
    stops: HashMap<String, AbortHandle>,
    moments: Option<watch::Sender<Moment>>,
    /// The client's message that ends with the next word, or with the one being decoded.
    marked: Option<u64>,
    /// The last of the client's messages that was taken in full.
    consumed: u64,
    /// Input audio so far, as time.
    received: Duration,
    /// The agent's voice is on its way.
    speaking: bool,
    video_refused: bool,
}

/// A pause about which a question is out.
struct Judging {
    until: InputSamples,
    answer: oneshot::Receiver<Option<f32>>,
    /// What was heard after it waits, until then.
    holds: bool,
    hold_ends: Instant,
}

enum Unsent {
    Event(ServerEvent),
    Moment(Moment),
    Speech(TurnId, Vec<f32>),
    /// The turn's speech is complete.
    Flush,
    /// The rest of the turn's speech is not wanted.
    Reset,
}

enum Drained {
    Wait(MediaTime),
    Closed(Result<(), Problem>),
}

impl Task {
    fn input(&mut self, input: Input) {
        let now = MediaTime::ZERO + self.opened.elapsed();
        self.session.handle_input(now, input);
    }

    /// Tells the session what was found in the client's sound.
    fn tell(&mut self, found: Input) {
        if let (Some(recent), Input::Voice { to, .. }) = (&mut self.recent, &found) {
            recent.advance(to.0);
        }
        self.input(found);
    }

    /// Takes everything that the session has to say and passes on what can be passed on now.
    fn drain(&mut self) -> Result<Drained, Problem> {
        let drained = loop {
            match self.session.poll_output() {
                // The connection says it when it is dropped, whatever the reason.
                Output::Engine(Request::Close { .. }) => {}
                Output::Engine(request) => self.connection.send(request)?,
                Output::Judge { from, until } => {
                    let pcm = self.recent.as_ref().map(|recent| recent.range(from.0, until.0)).unwrap_or_default();
                    let hold_ends = Instant::now() + self.judge_wait;
                    self.judging = Some(Judging { until, answer: self.media.judge(pcm), holds: true, hold_ends });
                }
                Output::Snapshot(snapshot) => {
                    self.unsent.push_back(Unsent::Moment(Moment { snapshot, consumed: self.consumed }));
                }
                Output::RunTool(call) => {
                    let toolbox = self.toolbox.clone();
                    let id = call.id.clone();
                    let stop = self.calls.spawn(async move {
                        let answer = toolbox.call(&call.name, &call.arguments).await;
                        (call.id, answer)
                    });
                    self.stops.insert(id, stop);
                }
                Output::StopTool(id) => {
                    if let Some(stop) = self.stops.remove(&id) {
                        stop.abort();
                    }
                }
                Output::Client(event) => {
                    if self.unsent.len() >= MAX_UNSENT {
                        return Err(too_slow());
                    }
                    match event {
                        ServerEvent::Audio { turn, pcm, .. } => {
                            self.speaking = true;
                            if let Some(echo) = &mut self.echo {
                                echo.sent(self.opened.elapsed(), &pcm);
                            }
                            self.unsent.push_back(Unsent::Speech(turn, pcm));
                        }
                        ServerEvent::Interrupted => {
                            if let Some(echo) = &mut self.echo {
                                echo.dropped(self.opened.elapsed());
                            }
                            self.unsent.extend([Unsent::Event(event), Unsent::Reset]);
                        }
                        // The last of the speech belongs before the word that there is no more.
                        ServerEvent::GenerationComplete | ServerEvent::TurnComplete { .. } => {
                            // What was sent is still being played until the turn is over.
                            self.speaking &= event == ServerEvent::GenerationComplete;
                            self.unsent.extend([Unsent::Flush, Unsent::Event(event)]);
                        }
                        event => self.unsent.push_back(Unsent::Event(event)),
                    }
                }
                Output::Wait(deadline) => break Drained::Wait(deadline),
                Output::Close(result) => break Drained::Closed(result),
            }
        };
        self.pass_on()?;
        Ok(drained)
    }

    /// Sends from the front of `unsent` until something has to be encoded.
    fn pass_on(&mut self) -> Result<(), Problem> {
        while self.encoding.is_none() {
            match self.unsent.pop_front() {
                Some(Unsent::Event(event)) => self.send(Outbound::Event(event))?,
                Some(Unsent::Moment(moment)) => self.publish(moment),
                Some(Unsent::Speech(turn, pcm)) => self.encode(pcm.len(), move |mouth| mouth.push(turn, &pcm))?,
                Some(Unsent::Flush) => self.encode(0, Mouth::flush)?,
                Some(Unsent::Reset) => self.encode(0, Mouth::reset)?,
                None => break,
            }
        }
        Ok(())
    }

    fn publish(&self, moment: Moment) {
        if let Some(moments) = &self.moments {
            moments.send_replace(moment);
        }
    }

    /// The client is gone: what it can resume from is kept, whatever it has not been told, and with what it said last.
    async fn client_gone(
        mut self,
        inbound: &mut mpsc::Receiver<Inbound>,
        deliveries: &mut mpsc::Receiver<Delivery>,
    ) -> Ended {
        if self.moments.is_some() {
            let gone = || Problem::new(ProblemCode::Aborted, "", "the client is gone");
            let left = match self.take_rest(inbound).await {
                Ok(true) => self.leave(gone(), deliveries).await,
                Ok(false) => Ok(()),
                Err(problem) => Err(problem),
            };
            if left.is_err() {
                self.input(Input::Park(gone()));
                // What cannot be sent any more is not missed by anybody.
                let _ = self.drain();
            }
            let unsent = std::mem::take(&mut self.unsent).into_iter().rev();
            let mut moments =
                unsent.filter_map(|word| if let Unsent::Moment(moment) = word { Some(moment) } else { None });
            if let Some(moment) = moments.find(|moment| moment.snapshot.is_some()) {
                self.publish(moment);
            }
        }
        Ended::ClientGone
    }

    /// Takes what the client sent before it was gone: what waits in the queue. That it sends nothing more is no news.
    /// Whether the conversation goes on.
    async fn take_rest(&mut self, inbound: &mut mpsc::Receiver<Inbound>) -> Result<bool, Problem> {
        for _ in 0..=INBOUND_CAPACITY {
            if self.decoding.is_some() {
                let decoded = answer(&mut self.decoding).await;
                self.decoded(decoded)?;
            }
            while let Some(input) = self.found.pop_front() {
                // It may have been on its way through the decoder.
                if input == Input::HalfClose {
                    continue;
                }
                self.tell(input);
                if let Drained::Closed(_) = self.drain()? {
                    return Ok(false);
                }
            }
            // What was sent ahead of its time is not made up for.
            if self.received > self.opened.elapsed() + MAX_AHEAD {
                break;
            }
            match inbound.try_recv() {
                Ok(Inbound::Event(Input::HalfClose)) | Err(_) => break,
                Ok(message) => self.receive(message)?,
            }
            if let Drained::Closed(_) = self.drain()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the conversation with what was last said, for which the session waits a moment.
    async fn leave(&mut self, problem: Problem, deliveries: &mut mpsc::Receiver<Delivery>) -> Result<(), Problem> {
        self.input(Input::Leave(problem));
        while let Drained::Wait(deadline) = self.drain()? {
            tokio::select! {
                delivery = deliveries.recv() => self.deliver(delivery)?,
                encoded = answer(&mut self.encoding) => self.encoded(encoded)?,
                () = due(self.opened, deadline) => self.input(Input::Tick),
            }
        }
        Ok(())
    }

    /// Encodes so many samples, here or on the media thread.
    fn encode(
        &mut self,
        samples: usize,
        work: impl FnOnce(&mut Mouth) -> Result<Vec<Spoken>, CodecError> + Send + 'static,
    ) -> Result<(), Problem> {
        if let Some(mouth) = self.mouth.as_deref_mut().filter(|mouth| mouth.is_light(samples)) {
            let spoken = work(mouth);
            return self.spoken(spoken);
        }
        if let Some(mut mouth) = self.mouth.take() {
            self.encoding = Some(self.media.run(move || {
                let spoken = work(&mut mouth);
                (mouth, spoken)
            })?);
        }
        Ok(())
    }

    fn encoded(&mut self, answer: Option<Encoded>) -> Result<(), Problem> {
        self.encoding = None;
        let (mouth, spoken) = answer.ok_or_else(|| Problem::new(ProblemCode::Internal, "", "the encoder failed"))?;
        self.mouth = Some(mouth);
        self.spoken(spoken)?;
        self.pass_on()
    }

    fn spoken(&mut self, spoken: Result<Vec<Spoken>, CodecError>) -> Result<(), Problem> {
        for Spoken { turn, start, data } in spoken.map_err(codec_problem)? {
            self.send(Outbound::Audio { turn, start, mime: self.mime.clone(), data: data.into() })?;
        }
        Ok(())
    }

    fn send(&self, message: Outbound) -> Result<(), Problem> {
        match self.outbound.try_send(message) {
            // A client that is gone is noticed by the loop.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(too_slow()),
        }
    }

    /// The conversation is over: what it said last goes out.
    async fn finish(&mut self) -> Result<(), Problem> {
        while self.encoding.is_some() {
            let encoded = answer(&mut self.encoding).await;
            self.encoded(encoded)?;
        }
        Ok(())
    }

    fn receive(&mut self, message: Inbound) -> Result<(), Problem> {
        // What has to be decoded is consumed when it is.
        let decodes = match &message {
            Inbound::Mark(_) | Inbound::Audio { .. } => true,
            Inbound::Event(input) => ends_stream(input),
            Inbound::Frame(_) | Inbound::Video { .. } => false,
        };
        if !decodes && let Some(marked) = self.marked.take() {
            self.consumed = marked;
        }
        match message {
            Inbound::Mark(number) => self.marked = Some(number),
            Inbound::Audio { mime, data } => self.listen(mime, data)?,
            Inbound::Frame(picture) => {
                let session = self.connection.session();
                let at = InputSamples(SampleRate::HZ_16000.samples(self.received));
                self.connection.send(Request::Frame { session, at, picture })?;
            }
            // Said once: a camera sends a frame a second.
            Inbound::Video { .. } if self.video_refused => {}
            Inbound::Video { .. } => {
                self.video_refused = true;
                let message = "this engine does not see: pictures are ignored";
                self.unsent.push_back(Unsent::Event(ServerEvent::Warning(Problem::new(
                    ProblemCode::Unimplemented,
                    "realtime_input.video",
                    message,
                ))));
            }
            Inbound::Event(
                Input::Voice { .. }
                | Input::ToolDone { .. }
                | Input::Received { .. }
                | Input::Completion { .. }
                | Input::Engine(_)
                | Input::Tick,
            ) => {}
            // The decoder keeps some milliseconds back, and a container more.
            Inbound::Event(end) if ends_stream(&end) => self.decode(Ear::flush, Some(end))?,
            Inbound::Event(input) => self.input(input),
        }
        Ok(())
    }

    /// Takes a piece of the microphone stream. Where it is decoded in place, the engine has it before the detector.
    fn listen(&mut self, mime: String, data: Bytes) -> Result<(), Problem> {
        let silent = !self.speaking;
        let Some(ear) = self.ear.as_deref_mut().filter(|ear| ear.is_light(&mime, data.len())) else {
            return self.decode(move |ear| ear.push(&mime, &data, silent), None);
        };
        let mut heard = ear.decode(&mime, &data);
        if !ear.detects() {
            return self.heard(heard);
        }
        let pcm = heard.pcm.clone();
        self.pass_audio(heard.at, std::mem::take(&mut heard.pcm))?;
        self.decode(move |ear| Heard { windows: ear.detect(&pcm, silent), ..heard }, None)
    }

    /// The engine has audio before the session can propose an utterance that ends in it.
    fn pass_audio(&mut self, at: InputSamples, pcm: Vec<f32>) -> Result<(), Problem> {
        if pcm.is_empty() {
            return Ok(());
        }
        if let Some(recent) = &mut self.recent {
            recent.push(&pcm);
        }
        self.connection.send(Request::Audio { session: self.connection.session(), at, pcm })
    }

    fn decode(
        &mut self,
        work: impl FnOnce(&mut Ear) -> Heard + Send + 'static,
        then: Option<Input>,
    ) -> Result<(), Problem> {
        if let Some(mut ear) = self.ear.take() {
            self.after_decoding = then;
            self.decoding = Some(self.media.run(move || {
                let heard = work(&mut ear);
                (ear, heard)
            })?);
        }
        Ok(())
    }

    fn decoded(&mut self, answer: Option<Decoded>) -> Result<(), Problem> {
        self.decoding = None;
        let (ear, heard) = answer.ok_or_else(|| Problem::new(ProblemCode::Internal, "", "the decoder failed"))?;
        self.ear = Some(ear);
        self.heard(heard)
    }

    fn heard(&mut self, heard: Heard) -> Result<(), Problem> {
        self.consumed = self.marked.take().unwrap_or(self.consumed);
        let Heard { at, until, pcm, windows, error } = heard;
        self.pass_audio(at, pcm)?;
        if until > at {
            self.received = SampleRate::HZ_16000.duration(until.0);
            self.found.push_back(Input::Received { until });
            let now = self.opened.elapsed();
            for Window { probability, from, to, power } in windows {
                // The piece ends now; its windows ended while it was recorded.
                let at = now.saturating_sub(SampleRate::HZ_16000.duration(until.0.saturating_sub(to.0)));
                let (voiced, playing) = (probability >= VOICED, self.speaking);
                let own = self.echo.as_mut().is_some_and(|echo| echo.is_echo(at, power, voiced, playing));
                self.found.push_back(Input::Voice { probability: if own { 0.0 } else { probability }, from, to });
            }
        }
        match error {
            None => {}
            Some(error @ CodecError::Truncated(_)) => {
                self.unsent.push_back(Unsent::Event(ServerEvent::Warning(codec_problem(error))));
            }
            Some(error) => return Err(codec_problem(error)),
        }
        self.found.extend(self.after_decoding.take());
        Ok(())
    }

    fn judged(&mut self, verdict: Option<Option<f32>>) {
        match verdict {
            Some(probability) => {
                if let Some(Judging { until, .. }) = self.judging.take() {
                    self.input(Input::Completion { until, probability });
                }
            }
            // It takes long; the conversation goes on without it.
            None => {
                if let Some(judging) = &mut self.judging {
                    judging.holds = false;
                }
            }
        }
    }

    fn deliver(&mut self, delivery: Option<Delivery>) -> Result<(), Problem> {
        match delivery {
            Some(Delivery::Event(event)) => {
                self.input(Input::Engine(event));
                Ok(())
            }
            Some(Delivery::Refused) => Err(Problem {
                retryable: true,
                ..Problem::new(ProblemCode::ResourceExhausted, "", "the engine has no room for another conversation")
            }),
            Some(Delivery::Lost) => {
                self.input(Input::Park(unavailable("the engine failed and is being restarted")));
                Ok(())
            }
            None => Err(Problem::new(ProblemCode::Internal, "", "the engine's events were not taken in time")),
        }
    }
}

/// Whether the decoder is flushed for it.
fn ends_stream(input: &Input) -> bool {
    matches!(input, Input::AudioStreamEnd | Input::ActivityEnd | Input::HalfClose | Input::Drain(_))
}

/// The answer of a job under way, `None` if it panicked; never comes when there is no job.
async fn answer<T>(job: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match job {
        Some(receiver) => receiver.await.ok(),
        None => pending().await,
    }
}

/// The verdict about a pause: what is known of it, or `None` when it takes too long to wait for. Never comes when there
/// is no question.
async fn verdict(judging: &mut Option<Judging>) -> Option<Option<f32>> {
    match judging {
        Some(Judging { answer, holds: true, hold_ends, .. }) => {
            timeout_at(*hold_ends, answer).await.ok().map(|verdict| verdict.ok().flatten())
        }
        Some(Judging { answer, .. }) => Some(answer.await.ok().flatten()),
        None => pending().await,
    }
}

async fn due(opened: Instant, deadline: MediaTime) {
    // `Instant` cannot hold every deadline; a session that waits for nothing says `MediaTime::MAX`.
    match opened.checked_add(deadline.as_duration()).filter(|_| deadline != MediaTime::MAX) {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

fn too_slow() -> Problem {
    let message = format!("the client reads too slowly: {OUTBOUND_CAPACITY} messages wait for it");
    Problem { retryable: true, ..Problem::new(ProblemCode::ResourceExhausted, "", message) }
}

fn codec_problem(error: CodecError) -> Problem {
    let code = match &error {
        CodecError::Limit(_) => ProblemCode::ResourceExhausted,
        CodecError::Failed(_) => ProblemCode::Internal,
        _ => ProblemCode::InvalidArgument,
    };
    Problem::new(code, "realtime_input.audio", error.to_string())
}

#[cfg(test)]
mod tests;
