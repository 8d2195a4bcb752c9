//! One conversation: its task, which reads the client and runs the driver, and [`Replies`], which the transport pulls.
//!
//! Everything that waits is bounded: the driver's two queues, and [`MAX_OWN`] messages of the transport's own. A client
//! that does not read fills the driver's queue, and the driver ends the conversation.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use causerie_model_api::{Modality, TurnId};
use causerie_proto::v1::{self, client_message::MessageType as FromClient, server_message::MessageType as FromServer};
use causerie_session::{Input, Problem, ProblemCode, Settings};
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::inbound::{self, Action};
use super::outbound::{Encoder, wire_problem};
use super::setup::{self, ReadSetup};
use super::{Dialect, Shared};
use crate::admission::{Place, Waiting, shutting_down};
use crate::driver::{Conversation, Ended, INBOUND_CAPACITY, Inbound, OUTBOUND_CAPACITY, Outbound, converse};

/// Messages of the transport's own that may wait: warnings and answers to pings. At the bound the client is not read.
const MAX_OWN: usize = 16;

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
    task: JoinHandle<Result<Ended, Problem>>,
    /// Comes from the task once the setup is read, with the place, which is held until the stream is gone, so that
    /// replies that nobody reads count against the limit.
    encoder: Option<(Encoder, Place)>,
    encoders: mpsc::Receiver<(Encoder, Place)>,
    words: mpsc::Receiver<Outbound>,
    own: mpsc::Receiver<FromServer>,
    playing: Arc<AtomicU64>,
    shared: Arc<Shared>,
    stage: Stage,
    /// What ends the stream, once it is known.
    problem: Option<Problem>,
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
        let (words_out, words) = mpsc::channel(OUTBOUND_CAPACITY);
        let (own_out, own) = mpsc::channel(MAX_OWN);
        let (encoder_out, encoders) = mpsc::channel(1);
        let playing = Arc::new(AtomicU64::new(0));
        let task = Task { shared: shared.clone(), dialect, stream, own: own_out, playing: playing.clone() };
        let task = tokio::spawn(task.run(waiting, encoder_out, words_out));
        Self { task, encoder: None, encoders, words, own, playing, shared, stage: Stage::Setup, problem: None }
    }

    /// The next message, or `None` when the words have ended.
    fn poll_word(&mut self, cx: &mut Context<'_>) -> Poll<Option<v1::ServerMessage>> {
        if self.encoder.is_none() {
            match ready!(self.encoders.poll_recv(cx)) {
                Some(encoder) => self.encoder = Some(encoder),
                // The setup was refused.
                None => return Poll::Ready(None),
            }
        }
        let Some((encoder, _)) = &mut self.encoder else { return Poll::Ready(None) };
        loop {
            // The transport's own messages wait for the answer to the setup, which is the first of all.
            if self.stage == Stage::Open
                && let Poll::Ready(Some(own)) = self.own.poll_recv(cx)
            {
                match encoder.own(own) {
                    Some(message) => return Poll::Ready(Some(message)),
                    None => continue,
                }
            }
            let Some(word) = ready!(self.words.poll_recv(cx)) else { return Poll::Ready(None) };
            match &word {
                Outbound::Audio { turn, .. } => self.playing.store(turn.0, Ordering::Relaxed),
                Outbound::Event(event) => self.shared.metrics.observe(event),
            }
            self.stage = Stage::Open;
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
            let ended = ready!(Pin::new(&mut this.task).poll(cx));
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
                this.encoder.as_ref().filter(|_| answered).and_then(|(encoder, _)| encoder.own(reason))
            {
                return Poll::Ready(Some(Ok(reason)));
            }
        }
        Poll::Ready(this.problem.take().map(Err))
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The client's side of a stream.
struct Task {
    shared: Arc<Shared>,
    dialect: Dialect,
    stream: FromPeer,
    own: mpsc::Sender<FromServer>,
    playing: Arc<AtomicU64>,
}

impl Task {
    async fn run(
        mut self,
        mut waiting: Waiting,
        encoder: mpsc::Sender<(Encoder, Place)>,
        words: mpsc::Sender<Outbound>,
    ) -> Result<Ended, Problem> {
        let mut drain = self.shared.drain.clone();
        let first = tokio::select! {
            first = self.first_message() => first?,
            problem = waiting.taken_away() => return Err(problem),
            _ = draining(&mut drain) => return Err(shutting_down()),
        };
        let Some(first) = first else { return Ok(Ended::ClientGone) };
        let capabilities = self.shared.engine.capabilities()?;
        let ReadSetup { setup, output, warnings } = setup::read(&first, &self.shared.catalog, &capabilities)?;
        let place = waiting.enter()?;
        drop(waiting);
        let id = self.shared.engine.next_session();
        let settings = Settings {
            id,
            name: format!("{}-{}", self.shared.run, id.0),
            model: setup.model.clone(),
            timing: self.shared.timing,
        };
        let mime = if setup.modality == Modality::Audio { output.mime() } else { String::new() };
        tracing::info!(session = settings.name, dialect = ?self.dialect, "conversation begins");
        // The other end cannot be full: one encoder is made.
        let _ = encoder.try_send((Encoder::new(self.dialect, capabilities, mime), place));
        drop(encoder);
        for warning in warnings {
            tell(&self.own, warning).await;
        }

        let (inbound, from_client) = mpsc::channel(INBOUND_CAPACITY);
        let shared = self.shared.clone();
        let name = settings.name.clone();
        let conversation = Conversation { setup, settings, output, echo_gate: self.shared.echo_gate };
        let ended = tokio::select! {
            ended = converse(&shared.engine, &shared.media, conversation, from_client, words) => ended,
            problem = self.read(inbound) => Err(problem),
            problem = Shared::cut_off(shared.drain.clone()) => Err(problem),
        };
        let ended = match ended {
            Ok(Ended::Finished) if shared.drain.borrow().is_some() => Err(shutting_down()),
            ended => ended,
        };
        match &ended {
            Ok(how) => tracing::info!(session = name, ?how, "conversation ends"),
            Err(problem) => {
                tracing::info!(session = name, code = ?problem.code, field = problem.field, "conversation ends");
            }
        }
        ended
    }

    /// The setup; `None` when the client went away or had nothing to say.
    async fn first_message(&mut self) -> Result<Option<v1::Setup>, Problem> {
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
    /// is left to the driver.
    async fn read(mut self, inbound: mpsc::Sender<Inbound>) -> Problem {
        let mut drain = self.shared.drain.clone();
        loop {
            let message = tokio::select! {
                message = self.stream.next() => message,
                deadline = draining(&mut drain) => {
                    // The turn that is owed is finished, if it can be in time.
                    let left = deadline.saturating_duration_since(Instant::now());
                    let _ = self.own.try_send(FromServer::GoAway(v1::GoAway { time_left: left.try_into().ok() }));
                    None
                }
            };
            let message = match message {
                Some(Ok(message)) => message,
                None => {
                    let _ = inbound.send(Inbound::Event(Input::HalfClose)).await;
                    // Open until the driver has finished: a closed queue would mean that the client is gone.
                    let _open = inbound;
                    return pending().await;
                }
                Some(Err(Broken::Unreadable(problem))) => return problem,
                Some(Err(Broken::Gone)) => {
                    drop(inbound);
                    return pending().await;
                }
            };
            let playing = Some(self.playing.load(Ordering::Relaxed)).filter(|turn| *turn > 0).map(TurnId);
            for action in inbound::read(message, playing) {
                match action {
                    // The driver has ended when nobody receives; its result is on the way.
                    Action::Pass(word) => drop(inbound.send(word).await),
                    Action::Pong(payload) => drop(self.own.send(FromServer::Pong(v1::Pong { payload })).await),
                    Action::Note(problem) => tell(&self.own, problem).await,
                    Action::Complain(problem) if self.dialect == Dialect::Causerie => tell(&self.own, problem).await,
                    Action::Complain(problem) | Action::End(problem) => return problem,
                }
            }
        }
    }
}

// Of the queue alone: what a client is read from need not be shared.
async fn tell(own: &mpsc::Sender<FromServer>, problem: Problem) {
    let _ = own.send(FromServer::Warning(wire_problem(&problem))).await;
}

impl Shared {
    /// Waits for the moment of a shutdown at which no turn is waited for any more.
    async fn cut_off(mut drain: watch::Receiver<Option<Instant>>) -> Problem {
        let deadline = draining(&mut drain).await;
        sleep_until(deadline).await;
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
