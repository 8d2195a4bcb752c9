//! One conversation: its task, which reads the client and runs the driver, and [`Replies`], which the transport pulls.
//!
//! Everything that waits is bounded: the driver's two queues, and [`MAX_OWN`] messages of the transport's own. A client
//! that does not read fills the driver's queue, and the driver ends the conversation.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use causerie_model_api::{Modality, TurnId};
use causerie_proto::v1::{self, client_message::MessageType as FromClient, server_message::MessageType as FromServer};
use causerie_session::{Input, Problem, ProblemCode, ServerEvent, Settings};
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::inbound::{self, Action};
use super::keeper::Keeper;
use super::outbound::{Encoder, wire_problem};
use super::parked::Parked;
use super::pictures::Eye;
use super::setup::{self, ReadSetup};
use super::{Dialect, Shared};
use crate::admission::{Left, Place, Waiting, shutting_down};
use crate::driver::{Conversation, Ended, INBOUND_CAPACITY, Inbound, Moment, OUTBOUND_CAPACITY, Outbound, converse};
use crate::logging::LogContent;
use crate::resumption::{Redeemed, taken_over};

/// Messages of the transport's own that may wait: warnings and answers to pings. At the bound the client is not read.
const MAX_OWN: usize = 16;

/// How long the last moment of a conversation may take to be kept.
const KEEPING: Duration = Duration::from_secs(2);

/// How long a conversation that goes on elsewhere may take to understand what was last said and to end: less than its
/// successor waits.
const GIVING_WAY: Duration = Duration::from_secs(4);

/// How long a conversation that is told to end may take to say what is to be kept of it.
const PARKING: Duration = Duration::from_millis(500);

/// What a transport reads of its client. The end of the stream means that the client sends nothing more and still
/// listens.
pub type FromPeer = Pin<Box<dyn Stream<Item = Result<v1::ClientMessage, Broken>> + Send>>;

/// Why nothing more can be read of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// It is gone, and nobody is left to tell.
    Gone,
    /// It sent what cannot be read.
    Unreadable(Problem),
}

/// The server's side of a conversation: messages, then at most one problem that ended it. Dropping it ends the
/// conversation.
pub struct Replies {
    running: Running,
    shared: Arc<Shared>,
    dialect: Dialect,
    stage: Stage,
    /// What ends the stream, once it is known.
    problem: Option<Problem>,
    /// Who the client is: [`Waiting::caller`].
    caller: Option<String>,
    /// Comes back when the task has ended, and is held until the stream is gone, so that replies that nobody reads count
    /// against the limit.
    standing: Arc<Mutex<Option<Standing>>>,
}

/// Where a client stands.
enum Standing {
    /// Its setup has not been read.
    Waiting(Waiting),
    /// It has a place.
    Inside { place: Place },
    /// It had one, and its conversation goes on in another stream.
    Left { _left: Left },
}

/// A client's standing while its conversation runs. Given back however that ends, so that another can begin with it.
struct Held {
    standing: Option<Standing>,
    caller: Option<String>,
    back: Arc<Mutex<Option<Standing>>>,
}

impl Held {
    /// Takes a place, unless there is one already.
    fn enter(&mut self) -> Result<(), Problem> {
        if let Some(Standing::Waiting(waiting)) = &self.standing {
            self.standing = Some(Standing::Inside { place: waiting.enter()? });
        }
        Ok(())
    }

    /// Gives the place up for the stream in which the conversation goes on.
    fn leave(&mut self) {
        self.standing = match self.standing.take() {
            Some(Standing::Inside { place }) => Some(match place.leave() {
                Ok(left) => Standing::Left { _left: left },
                Err(place) => Standing::Inside { place },
            }),
            other => other,
        };
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Nobody panics while holding it.
        if let Ok(mut back) = self.back.lock() {
            *back = self.standing.take();
        }
    }
}

/// The conversation's task, and what comes of it.
struct Running {
    task: JoinHandle<Result<Ended, Problem>>,
    /// Comes from the task once the setup is read.
    entered: Option<Entered>,
    entering: oneshot::Receiver<Entered>,
    words: mpsc::Receiver<Outbound>,
    own: mpsc::Receiver<Box<FromServer>>,
    playing: Arc<AtomicU64>,
    progress: Arc<Progress>,
}

impl Running {
    fn start(shared: &Arc<Shared>, dialect: Dialect, stream: FromPeer, held: Held) -> Self {
        let (words_out, words) = mpsc::channel(OUTBOUND_CAPACITY);
        // Boxed, as a queue has room for 32 at any time.
        let (own_out, own) = mpsc::channel(MAX_OWN);
        let (enter, entering) = oneshot::channel();
        let playing = Arc::new(AtomicU64::new(0));
        let progress = Arc::<Progress>::default();
        let task = Task {
            shared: shared.clone(),
            dialect,
            stream,
            own: own_out,
            playing: playing.clone(),
            progress: progress.clone(),
        };
        let task = tokio::spawn(task.run(held, enter, words_out));
        Self { task, entered: None, entering, words, own, playing, progress }
    }
}

/// What the two sides of a stream tell each other. The flags stand alone: relaxed is enough.
#[derive(Default)]
struct Progress {
    /// The setup was answered, and the answer taken.
    answered: AtomicBool,
    /// The conversation is kept when its client is gone, and ends by itself.
    keeps: AtomicBool,
}

/// What a stream has once its setup is read.
struct Entered {
    encoder: Encoder,
    /// For the log.
    session: String,
}

/// How far the stream has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The setup is not yet answered.
    Setup,
    /// Words flow.
    Open,
    /// There are no more words; the task says why.
    Closing { answered: bool },
    /// At most the problem follows.
    Closed,
}

impl Replies {
    /// Begins the conversation of a stream.
    pub fn start(shared: Arc<Shared>, dialect: Dialect, stream: FromPeer, waiting: Waiting) -> Self {
        let (standing, caller) = (Arc::default(), waiting.caller());
        let back = Arc::clone(&standing);
        let held = Held { standing: Some(Standing::Waiting(waiting)), caller: caller.clone(), back };
        let running = Running::start(&shared, dialect, stream, held);
        Self { running, shared, dialect, stage: Stage::Setup, problem: None, caller, standing }
    }

    /// Ends the conversation and begins another in its place.
    pub async fn begin_anew(&mut self, stream: FromPeer) {
        self.running.task.abort();
        if self.stage != Stage::Closed {
            // The engine has room for the other one when this one is closed there.
            let _ = (&mut self.running.task).await;
        }
        let standing = self.standing.lock().ok().and_then(|mut standing| standing.take());
        let held = Held { standing, caller: self.caller.clone(), back: self.standing.clone() };
        self.running = Running::start(&self.shared, self.dialect, stream, held);
        (self.stage, self.problem) = (Stage::Setup, None);
    }

    /// The next message, or `None` when the words have ended.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Option<v1::ServerMessage>> {
        let running = &mut self.running;
        if running.entered.is_none() {
            match ready!(Pin::new(&mut running.entering).poll(cx)) {
                Ok(entered) => running.entered = Some(entered),
                // The setup was refused.
                Err(_) => return Poll::Ready(None),
            }
        }
        let Some(Entered { encoder, session }) = &mut running.entered else { return Poll::Ready(None) };
        loop {
            // The transport's own messages wait for the answer to the setup, which is the first of all.
            if self.stage == Stage::Open
                && let Poll::Ready(Some(own)) = running.own.poll_recv(cx)
            {
                match encoder.own(*own) {
                    Some(message) => return Poll::Ready(Some(message)),
                    None => continue,
                }
            }
            let Some(word) = ready!(running.words.poll_recv(cx)) else { return Poll::Ready(None) };
            match &word {
                Outbound::Audio { turn, .. } => running.playing.store(turn.0, Ordering::Relaxed),
                Outbound::Event(event) => {
                    self.shared.metrics.observe(event);
                    log(event, session, self.shared.log_content);
                }
                Outbound::Resumption { .. } => {}
            }
            self.stage = Stage::Open;
            running.progress.answered.store(true, Ordering::Relaxed);
            if let Some(message) = encoder.encode(word) {
                return Poll::Ready(Some(message));
            }
        }
    }
}

impl Stream for Replies {
    type Item = Result<v1::ServerMessage, Problem>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if matches!(this.stage, Stage::Setup | Stage::Open) {
            if let Some(message) = ready!(this.poll_word(cx)) {
                return Poll::Ready(Some(Ok(message)));
            }
            this.stage = match this.stage {
                Stage::Open => Stage::Closing { answered: true },
                _ => Stage::Closing { answered: false },
            };
        }
        if let Stage::Closing { answered } = this.stage {
            let ended = ready!(Pin::new(&mut this.running.task).poll(cx));
            this.stage = Stage::Closed;
            let problem = match ended {
                Ok(Ok(Ended::Finished | Ended::ClientGone)) => return Poll::Ready(None),
                Ok(Err(problem)) => problem,
                Err(error) => {
                    tracing::error!(%error, "a conversation's task failed");
                    Problem::new(ProblemCode::Internal, "", "the conversation failed")
                }
            };
            this.shared.metrics.conversation_failed(problem.code);
            // Before the setup is answered nothing else may come, and the end says it all.
            let reason = FromServer::Error(wire_problem(&problem));
            this.problem = Some(problem);
            if let Some(reason) =
                this.running.entered.as_ref().filter(|_| answered).and_then(|entered| entered.encoder.own(reason))
            {
                return Poll::Ready(Some(Ok(reason)));
            }
        }
        Poll::Ready(this.problem.take().map(Err))
    }
}

/// Puts into the log what was said, or that something was.
fn log(event: &ServerEvent, session: &str, content: LogContent) {
    match event {
        ServerEvent::InputTranscription { text, .. } => {
            tracing::debug!(session, text = ?content.show(text), "the user said");
        }
        ServerEvent::Text { delta: text } | ServerEvent::OutputTranscription { text } => {
            tracing::debug!(session, text = ?content.show(text), "the agent says");
        }
        ServerEvent::Thought { delta } => tracing::debug!(session, text = ?content.show(delta), "the agent thinks"),
        ServerEvent::ToolCall(calls) => {
            for call in calls {
                let (name, arguments) = (content.show(&call.name), content.show(&call.arguments));
                tracing::debug!(session, ?name, ?arguments, "the agent calls");
            }
        }
        _ => {}
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        if !self.running.progress.keeps.load(Ordering::Relaxed) {
            self.running.task.abort();
        }
    }
}

/// The client's side of a stream.
struct Task {
    shared: Arc<Shared>,
    dialect: Dialect,
    stream: FromPeer,
    own: mpsc::Sender<Box<FromServer>>,
    playing: Arc<AtomicU64>,
    progress: Arc<Progress>,
}

impl Task {
    async fn run(
        mut self,
        mut held: Held,
        enter: oneshot::Sender<Entered>,
        words: mpsc::Sender<Outbound>,
    ) -> Result<Ended, Problem> {
        let mut drain = self.shared.drain.clone();
        let first = match &mut held.standing {
            Some(Standing::Waiting(waiting)) => tokio::select! {
                first = self.first_message() => first?,
                problem = waiting.taken_away() => return Err(problem),
                _ = draining(&mut drain) => return Err(shutting_down()),
            },
            _ => self.first_message().await?,
        };
        let Some(first) = first else { return Ok(Ended::ClientGone) };
        let resumption = self.shared.resumption.clone();
        let progress = self.progress.clone();
        progress.keeps.store(first.session_resumption.is_some(), Ordering::Relaxed);
        let asked = first.session_resumption.as_ref().and_then(|asked| asked.handle.as_deref());
        let mut redeemed = match asked.filter(|handle| !handle.is_empty()) {
            Some(handle) => Some(resumption.redeem(handle, held.caller.as_deref()).await?),
            None => None,
        };
        let (kept, ended) = self.hold(&mut held, first, redeemed.as_ref(), enter, words).await;
        // A client that could not go on from here goes on from where it was.
        let lost = !kept || !progress.answered.load(Ordering::Relaxed);
        if let Some(redeemed) = redeemed.take_if(|_| lost) {
            resumption.put_back(redeemed).await;
        }
        ended
    }

    /// Holds the conversation, from its beginning or from where it was left. Whether it can be resumed, and how it
    /// ended.
    async fn hold(
        self,
        held: &mut Held,
        first: Box<v1::Setup>,
        redeemed: Option<&Redeemed>,
        enter: oneshot::Sender<Entered>,
        words: mpsc::Sender<Outbound>,
    ) -> (bool, Result<Ended, Problem>) {
        let opened = self.open(first, redeemed).and_then(|(wire, read)| {
            let capabilities = self.shared.engine.capabilities()?;
            held.enter()?;
            Ok((wire, read, capabilities))
        });
        let (wire, ReadSetup { setup, output, resolution, warnings }, capabilities) = match opened {
            Ok(opened) => opened,
            Err(problem) => return (false, Err(problem)),
        };
        let id = self.shared.engine.next_session();
        let settings = Settings {
            id,
            name: format!("{}-{}", self.shared.run, id.0),
            model: setup.model.clone(),
            timing: self.shared.timing,
        };
        let mime = if setup.modality == Modality::Audio { output.mime() } else { String::new() };
        let resumed = redeemed.is_some();
        tracing::info!(session = settings.name, dialect = ?self.dialect, resumed, "conversation begins");
        let eye = Eye::new(self.shared.media.clone(), &capabilities.engine, capabilities.video_in, resolution);
        let encoder = Encoder::new(self.dialect, capabilities, mime);
        let _ = enter.send(Entered { encoder, session: settings.name.clone() });
        for warning in warnings {
            tell(&self.own, warning).await;
        }

        let (mut moments, mut keeping, mut ending) = (None, None, None);
        if setup.resumption {
            let hold = self.shared.resumption.hold(redeemed, held.caller.clone());
            let (sender, receiver) = watch::channel(Moment::default());
            ending = Some(hold.ending());
            let keeper = Keeper { hold, setup: wire, moments: receiver, words: words.clone() };
            keeping = Some(tokio::spawn(keeper.run()));
            moments = Some(sender);
        }
        let (inbound, from_client) = mpsc::channel(INBOUND_CAPACITY);
        let shared = self.shared.clone();
        let name = settings.name.clone();
        let conversation = Conversation { setup, settings, output, echo_gate: self.shared.echo_gate, moments };
        let ended = tokio::select! {
            ended = converse(&shared.engine, &shared.media, conversation, from_client, words) => ended,
            problem = self.read(eye, inbound, ending, held) => Err(problem),
            problem = Shared::cut_off(shared.drain.clone()) => Err(problem),
        };
        match &ended {
            Ok(how) => tracing::info!(session = name, ?how, "conversation ends"),
            Err(problem) => {
                tracing::info!(session = name, code = ?problem.code, field = problem.field, "conversation ends");
            }
        }
        let kept = match keeping {
            Some(keeping) => timeout(KEEPING, keeping).await.is_ok_and(|kept| kept.unwrap_or(false)),
            None => false,
        };
        (kept, ended)
    }

    /// What the client asks for, on the wire and in the session's words; what it does not say of a conversation that
    /// it resumes is as it was.
    fn open(&self, first: Box<v1::Setup>, redeemed: Option<&Redeemed>) -> Result<(Box<v1::Setup>, ReadSetup), Problem> {
        let capabilities = self.shared.engine.capabilities()?;
        let transparent = first.session_resumption.as_ref().is_some_and(|asked| asked.transparent == Some(true));
        let moments = redeemed.map(|Redeemed { body, latest, .. }| match latest {
            Some(latest) if !transparent => (latest, None),
            latest => (body, latest.as_ref()),
        });
        let parked = moments.map(|(moment, _)| Parked::read(moment)).transpose()?;
        let latest = moments.and_then(|(_, latest)| latest).map(|latest| Parked::read(latest)).transpose()?;
        let wire = parked.as_ref().map_or_else(|| first.clone(), |parked| Box::new(parked.setup(&first)));
        let mut read = setup::read(&wire, &self.shared.catalog, &capabilities)?;
        if let Some(parked) = parked {
            read.setup = parked.restore(latest, &first, read.setup);
        }
        Ok((wire, read))
    }

    /// The setup; `None` when the client went away or had nothing to say.
    async fn first_message(&mut self) -> Result<Option<Box<v1::Setup>>, Problem> {
        let first = timeout(self.shared.setup_timeout, self.stream.next()).await.map_err(|_| {
            Problem::new(
                ProblemCode::DeadlineExceeded,
                "setup",
                format!("no setup came within {} s", self.shared.setup_timeout.as_secs()),
            )
        })?;
        match first {
            Some(Ok(v1::ClientMessage { message_type: Some(FromClient::Setup(setup)) })) => Ok(Some(setup)),
            Some(Ok(_)) => Err(Problem::new(
                ProblemCode::FailedPrecondition,
                "setup",
                "the first message of a stream is its setup",
            )),
            None | Some(Err(Broken::Gone)) => Ok(None),
            Some(Err(Broken::Unreadable(problem))) => Err(problem),
        }
    }

    /// Reads the client until something ends the stream. Returns nothing but problems: a client that is done or gone
    /// is left to the driver, and so is a conversation that goes on elsewhere.
    async fn read(
        mut self,
        mut eye: Eye,
        inbound: mpsc::Sender<Inbound>,
        mut ending: Option<watch::Receiver<bool>>,
        held: &mut Held,
    ) -> Problem {
        let mut drain = self.shared.drain.clone();
        // The setup is message 0.
        for number in 1_u64.. {
            let message = tokio::select! {
                message = self.stream.next() => message,
                () = told_to_end(&mut ending) => return give_way(held, inbound).await,
                deadline = draining(&mut drain) => {
                    // The turn that is owed is finished, if it can be in time.
                    let left = deadline.saturating_duration_since(Instant::now());
                    let _ = self.own.try_send(Box::new(FromServer::GoAway(v1::GoAway { time_left: left.try_into().ok() })));
                    let _ = inbound.send(Inbound::Event(Input::Drain(shutting_down()))).await;
                    tokio::select! {
                        () = sleep_until(deadline) => {}
                        () = told_to_end(&mut ending) => return give_way(held, inbound).await,
                    };
                    let _ = inbound.send(Inbound::Event(Input::Park(shutting_down()))).await;
                    return never(inbound).await;
                }
            };
            let message = match message {
                Some(Ok(message)) => message,
                None => {
                    let _ = inbound.send(Inbound::Event(Input::HalfClose)).await;
                    told_to_end(&mut ending).await;
                    return give_way(held, inbound).await;
                }
                Some(Err(Broken::Unreadable(problem))) => return problem,
                Some(Err(Broken::Gone)) => {
                    drop(inbound);
                    return pending().await;
                }
            };
            let playing = Some(self.playing.load(Ordering::Relaxed)).filter(|turn| *turn > 0).map(TurnId);
            let actions = inbound::read(message, playing);
            let passing = pass(number, actions, &mut eye, &inbound, (&self.own, self.dialect));
            tokio::select! {
                problem = passing => if let Some(problem) = problem {
                    return problem;
                },
                // A client that is gone without a word leaves queues full.
                () = told_to_end(&mut ending) => return give_way(held, inbound).await,
            }
        }
        pending().await
    }
}

/// Passes on what a message of the client says. What is wrong with it, if that ends the conversation.
async fn pass(
    number: u64,
    actions: Vec<Action>,
    eye: &mut Eye,
    inbound: &mpsc::Sender<Inbound>,
    (own, dialect): (&mpsc::Sender<Box<FromServer>>, Dialect),
) -> Option<Problem> {
    let last = actions.iter().rposition(|action| matches!(action, Action::Pass(_) | Action::Look { .. }));
    for (at, action) in actions.into_iter().enumerate() {
        let action = eye.open(action).await;
        if Some(at) == last {
            drop(inbound.send(Inbound::Mark(number)).await);
        }
        let Some(action) = action else { continue };
        match action {
            Action::Look { .. } => unreachable!("the eye has opened it"),
            // The driver has ended when nobody receives; its result is on the way.
            Action::Pass(word) => drop(inbound.send(word).await),
            Action::Pong(payload) => drop(own.send(Box::new(FromServer::Pong(v1::Pong { payload }))).await),
            Action::Note(problem) => tell(own, problem).await,
            Action::Complain(problem) if dialect == Dialect::Causerie => tell(own, problem).await,
            Action::Complain(problem) | Action::End(problem) => return Some(problem),
        }
    }
    None
}

/// The conversation goes on in another stream: what it is there for is parked.
async fn give_way(held: &mut Held, inbound: mpsc::Sender<Inbound>) -> Problem {
    held.leave();
    let leaving = async {
        let _ = inbound.send(Inbound::Event(Input::Leave(taken_over()))).await;
        pending::<()>().await;
    };
    // Whoever gave the place up does not go on without one, whatever still waits to be read.
    let _ = timeout(GIVING_WAY, leaving).await;
    taken_over()
}

/// Holds the queue open, as a closed one would mean that the client is gone.
async fn never(_inbound: mpsc::Sender<Inbound>) -> Problem {
    pending().await
}

/// Waits until the conversation goes on in another stream.
async fn told_to_end(ending: &mut Option<watch::Receiver<bool>>) {
    if let Some(ending) = ending
        && ending.wait_for(|end| *end).await.is_ok()
    {
        return;
    }
    pending().await
}

// Of the queue alone: what a client is read from need not be shared.
async fn tell(own: &mpsc::Sender<Box<FromServer>>, problem: Problem) {
    let _ = own.send(Box::new(FromServer::Warning(wire_problem(&problem)))).await;
}

impl Shared {
    /// Waits for the moment of a shutdown at which no turn is waited for any more.
    async fn cut_off(mut drain: watch::Receiver<Option<Instant>>) -> Problem {
        let deadline = draining(&mut drain).await;
        // Conversations that can be resumed say what is to be kept of them first.
        sleep_until(deadline + PARKING).await;
        shutting_down()
    }
}

/// Waits until the server shuts down, and says by when.
async fn draining(drain: &mut watch::Receiver<Option<Instant>>) -> Instant {
    loop {
        if let Some(deadline) = *drain.borrow_and_update() {
            return deadline;
        }
        if drain.changed().await.is_err() {
            return pending().await;
        }
    }
}
