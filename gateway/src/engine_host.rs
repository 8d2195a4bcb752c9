//! The engine thread: one owner of the engine, bounded queues to and from conversations.
//!
//! - Requests go through one bounded queue, drained wholly between two quanta; a conversation that finds it full ends.
//!   Closings go through a queue of their own, so that a full queue never keeps a dead conversation alive.
//! - Events go to each conversation through its own bounded queue. Credit keeps it short; one that is full all the same
//!   ends that conversation and no other.
//! - The thread beats a pulse between quanta and while idle, which readiness follows.
//! - When the engine panics or loses its device, every conversation is told that it is lost and the engine is built anew.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use causerie_model_api::{Capabilities, Engine, Event, Next, Request, SessionId};
use causerie_session::{Problem, ProblemCode};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select, unbounded};
use tokio::sync::{mpsc, watch};

use crate::lag::Meter;
use crate::tools::Toolbox;

/// Requests that may wait for the engine, over all conversations: 80 s of 20 ms packets.
const MAX_REQUESTS: usize = 4_096;

/// Events that may wait for one conversation. Credit allows 8 s of speech, a few dozen pieces; text beside it.
const MAX_EVENTS: usize = 1_024;

/// The pulse while nothing is to be done.
const IDLE_BEAT: Duration = Duration::from_millis(250);

/// Wait before another attempt to build an engine that panicked and could not be built, doubled up to the second.
const REBUILD_WAIT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Makes an engine; called on the engine thread, again after a panic.
pub type EngineFactory = Box<dyn Fn() -> Result<Box<dyn Engine>, String> + Send>;

/// Owns the engine thread.
pub struct EngineHost {
    handle: EngineHandle,
    thread: Option<JoinHandle<()>>,
}

/// How the engine is.
#[derive(Clone, Debug)]
pub enum EngineStatus {
    /// It is being loaded, or built anew.
    Loading,
    /// It serves.
    Ready(Arc<Capabilities>),
    /// It could not be loaded.
    Failed(String),
    /// The host has shut down.
    Stopped,
}

/// What reaches a conversation from the engine.
#[derive(Debug)]
pub enum Delivery {
    /// An event.
    Event(Event),
    /// The engine has no room for the conversation.
    Refused,
    /// The engine is gone, and the conversation's state with it.
    Lost,
}

impl EngineHost {
    /// Starts the thread, which begins to load at once. [`EngineHandle::ready`] waits for it.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(factory: EngineFactory) -> std::io::Result<Self> {
        Self::start_with(factory, Arc::default())
    }

    /// As [`EngineHost::start`], with functions that the server runs for the engine's calls.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start_with(factory: EngineFactory, tools: Arc<Toolbox>) -> std::io::Result<Self> {
        let (commands, waiting) = bounded(MAX_REQUESTS);
        // At most one entry a conversation, and conversations are counted by admission.
        let (closing, closed) = unbounded();
        let shared = Arc::new(Shared {
            status: watch::Sender::new(EngineStatus::Loading),
            origin: Instant::now(),
            beat_ms: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            conversations: AtomicU64::new(0),
            next_session: AtomicU64::new(1),
            lag: Meter::default(),
        });
        let handle = EngineHandle { commands, closing, shared: shared.clone(), tools };
        let host = Host { waiting, closed, shared, routes: HashMap::new() };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || host.run(&factory))?;
        Ok(Self { handle, thread: Some(thread) })
    }

    /// What conversations and probes use.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Ends the thread after the quantum it is in, telling the conversations that are left, and joins it. Blocks: call
    /// it off tokio's workers.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A thread that has ended already has dropped the queue; then there is nothing to tell it.
            let _ = self.handle.commands.send((Instant::now(), Command::Stop));
            let _ = thread.join();
        }
    }
}

impl Drop for EngineHost {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A way to the engine thread.
#[derive(Clone)]
pub struct EngineHandle {
    commands: Sender<(Instant, Command)>,
    closing: Sender<SessionId>,
    shared: Arc<Shared>,
    tools: Arc<Toolbox>,
}

struct Shared {
    status: watch::Sender<EngineStatus>,
    origin: Instant,
    // Figures for probes and metrics. They stand alone, nothing is published through them: relaxed is enough.
    beat_ms: AtomicU64,
    busy_us: AtomicU64,
    conversations: AtomicU64,
    next_session: AtomicU64,
    lag: Meter,
}

impl EngineHandle {
    /// What the server runs for the engine's calls.
    pub fn tools(&self) -> &Arc<Toolbox> {
        &self.tools
    }

    /// How the engine is.
    pub fn status(&self) -> EngineStatus {
        self.shared.status.borrow().clone()
    }

    /// Waits until the engine is loaded.
    ///
    /// # Errors
    /// It cannot be loaded, with the reason, or the host has shut down.
    pub async fn ready(&self) -> Result<Arc<Capabilities>, String> {
        let mut status = self.shared.status.subscribe();
        loop {
            match &*status.borrow_and_update() {
                EngineStatus::Ready(capabilities) => return Ok(capabilities.clone()),
                EngineStatus::Failed(error) => return Err(error.clone()),
                EngineStatus::Stopped => return Err("the engine has been shut down".into()),
                EngineStatus::Loading => {}
            }
            if status.changed().await.is_err() {
                return Err("the engine has been shut down".into());
            }
        }
    }

    /// What the engine can do, when it serves.
    ///
    /// # Errors
    /// [`ProblemCode::Unavailable`] when it does not serve now.
    pub fn capabilities(&self) -> Result<Arc<Capabilities>, Problem> {
        match self.status() {
            EngineStatus::Ready(capabilities) => Ok(capabilities),
            EngineStatus::Loading => Err(unavailable("the engine is being loaded")),
            EngineStatus::Failed(_) => Err(unavailable("the engine could not be loaded")),
            EngineStatus::Stopped => Err(unavailable("the server is shutting down")),
        }
    }

    /// Time since the engine thread last showed a sign of life; a quantum takes 20 ms or a little more.
    pub fn last_beat(&self) -> Duration {
        let beat = Duration::from_millis(self.shared.beat_ms.load(Ordering::Relaxed));
        self.shared.origin.elapsed().saturating_sub(beat)
    }

    /// How long requests wait for the engine thread.
    pub(crate) fn lag(&self) -> &Meter {
        &self.shared.lag
    }

    /// Time that the engine has computed since it was started.
    pub fn busy(&self) -> Duration {
        Duration::from_micros(self.shared.busy_us.load(Ordering::Relaxed))
    }

    /// Conversations that the engine holds.
    pub fn conversations(&self) -> u64 {
        self.shared.conversations.load(Ordering::Relaxed)
    }

    /// A session's identity, never given before.
    pub fn next_session(&self) -> SessionId {
        SessionId(self.shared.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins a conversation with its [`Request::Open`]; its events come out of the receiver, which is closed without
    /// a word when it was too full. Dropping the [`Connection`] closes the conversation.
    ///
    /// # Errors
    /// The queue is full or the engine is gone.
    pub fn open(&self, open: Request) -> Result<(Connection, mpsc::Receiver<Delivery>), Problem> {
        let (events, receiver) = mpsc::channel(MAX_EVENTS);
        let session = open.session();
        self.command(Command::Open { open, events })?;
        Ok((Connection { session, handle: self.clone() }, receiver))
    }

    fn command(&self, command: Command) -> Result<(), Problem> {
        self.commands.try_send((Instant::now(), command)).map_err(|error| match error {
            TrySendError::Full(_) => Problem {
                retryable: true,
                ..Problem::new(
                    ProblemCode::ResourceExhausted,
                    "",
                    format!("the server is overloaded: {MAX_REQUESTS} requests wait for the engine"),
                )
            },
            TrySendError::Disconnected(_) => unavailable("the engine is gone"),
        })
    }
}

/// A conversation at the engine; closed when dropped.
pub struct Connection {
    session: SessionId,
    handle: EngineHandle,
}

impl Connection {
    /// The conversation.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Hands a request to the engine. Never blocks.
    ///
    /// # Errors
    /// The queue is full or the engine is gone: the conversation cannot go on.
    pub fn send(&self, request: Request) -> Result<(), Problem> {
        self.handle.command(Command::Request(request))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let _ = self.handle.closing.send(self.session);
    }
}

pub(crate) fn unavailable(message: impl Into<String>) -> Problem {
    Problem { retryable: true, ..Problem::new(ProblemCode::Unavailable, "", message) }
}

enum Command {
    Open { open: Request, events: mpsc::Sender<Delivery> },
    Request(Request),
    Stop,
}

/// The engine thread's own state.
struct Host {
    waiting: Receiver<(Instant, Command)>,
    closed: Receiver<SessionId>,
    shared: Arc<Shared>,
    routes: HashMap<SessionId, mpsc::Sender<Delivery>>,
}

/// Why serving stopped.
enum Ended {
    /// The host was asked to.
    Stopped,
    /// The engine can do nothing any more.
    Lost(String),
}

impl Host {
    fn run(mut self, factory: &EngineFactory) {
        let mut built_before = false;
        let mut wait = REBUILD_WAIT.0;
        loop {
            self.beat();
            match catch_unwind(AssertUnwindSafe(factory)).unwrap_or_else(|_| Err("loading panicked".into())) {
                Ok(engine) => {
                    built_before = true;
                    wait = REBUILD_WAIT.0;
                    self.shared.status.send_replace(EngineStatus::Ready(Arc::new(engine.capabilities().clone())));
                    // The engine is inside the boundary, so a panic drops it there as well.
                    let served = catch_unwind(AssertUnwindSafe(|| self.serve(engine)));
                    // Readiness ends before anybody hears of the loss: who tries again at once waits for the new engine.
                    let stopped = matches!(served, Ok(Ended::Stopped));
                    self.shared.lag.idle(Instant::now());
                    let status = if stopped { EngineStatus::Stopped } else { EngineStatus::Loading };
                    self.shared.status.send_replace(status);
                    if self.lose_all() || stopped {
                        self.shared.status.send_replace(EngineStatus::Stopped);
                        return;
                    }
                    let why = if let Ok(Ended::Lost(why)) = served { why } else { "it panicked".to_owned() };
                    tracing::error!(why, "the engine is built anew");
                }
                Err(error) => {
                    tracing::error!(error, "the engine could not be loaded");
                    self.shared.status.send_replace(EngineStatus::Failed(error));
                    // What fails at the first attempt is a configuration to be mended, not weather to be waited out.
                    if !built_before || self.stopped_within(wait) {
                        return;
                    }
                    wait = (wait * 2).min(REBUILD_WAIT.1);
                }
            }
        }
    }

    fn serve(&mut self, mut engine: Box<dyn Engine>) -> Ended {
        let mut next = Next::Idle;
        loop {
            self.beat();
            let mut first = None;
            let mut closing = Vec::new();
            if next == Next::Idle {
                select! {
                    recv(self.waiting) -> command => {
                        first = Some(command.unwrap_or_else(|_| (Instant::now(), Command::Stop)));
                    }
                    recv(self.closed) -> session => closing.extend(session),
                    default(IDLE_BEAT) => {}
                }
            }
            // Closings are looked at before the requests are drained. Those of conversations that the engine holds come
            // first, as whoever opens next may have waited for their room; the others after the requests, so that what a
            // conversation asked for before it closed is not left behind for the engine to open.
            closing.extend(self.closed.try_iter());
            closing.retain(|session| {
                let held = self.routes.contains_key(session);
                if held {
                    self.close(&mut *engine, *session);
                }
                !held
            });
            let drained: Vec<_> = first.into_iter().chain(self.waiting.try_iter().take(MAX_REQUESTS)).collect();
            // The first has waited the longest.
            if let Some((sent, _)) = drained.first() {
                self.shared.lag.record(Instant::now(), sent.elapsed());
            }
            for (_, command) in drained {
                match command {
                    Command::Open { open, events } => self.open(&mut *engine, open, events),
                    Command::Request(request) => self.submit(&mut *engine, request),
                    Command::Stop => return Ended::Stopped,
                }
            }
            for session in closing {
                self.close(&mut *engine, session);
            }
            let began = Instant::now();
            self.shared.lag.busy(began);
            let mut dead = Vec::new();
            let routes = &mut self.routes;
            next = engine.step(&mut |session, event| {
                if routes.get(&session).is_some_and(|route| route.try_send(Delivery::Event(event)).is_err()) {
                    routes.remove(&session);
                    dead.push(session);
                }
            });
            let ended = Instant::now();
            self.shared.lag.idle(ended);
            self.shared.busy_us.fetch_add((ended - began).as_micros() as u64, Ordering::Relaxed);
            if let Some(why) = engine.lost() {
                return Ended::Lost(why.to_owned());
            }
            for session in dead {
                tracing::warn!(session = session.0, "a conversation did not take its events and was dropped");
                let _ = engine.submit(Request::Close { session });
            }
            self.shared.conversations.store(self.routes.len() as u64, Ordering::Relaxed);
        }
    }

    fn open(&mut self, engine: &mut dyn Engine, open: Request, events: mpsc::Sender<Delivery>) {
        let session = open.session();
        match engine.submit(open) {
            Ok(()) => drop(self.routes.insert(session, events)),
            Err(_) => drop(events.try_send(Delivery::Refused)),
        }
    }

    fn submit(&mut self, engine: &mut dyn Engine, request: Request) {
        let session = request.session();
        // A conversation without a route was refused, lost or dropped; its requests in flight mean nothing any more.
        if let Some(route) = self.routes.get(&session)
            && engine.submit(request).is_err()
        {
            let _ = route.try_send(Delivery::Refused);
            self.close(engine, session);
        }
    }

    fn close(&mut self, engine: &mut dyn Engine, session: SessionId) {
        if self.routes.remove(&session).is_some() {
            let _ = engine.submit(Request::Close { session });
        }
    }

    /// Tells every conversation, also those whose opening still waits, that its engine is gone. Whether the host was
    /// asked to stop in what waited.
    fn lose_all(&mut self) -> bool {
        let mut asked = false;
        for (_, route) in self.routes.drain() {
            let _ = route.try_send(Delivery::Lost);
        }
        for (_, command) in self.waiting.try_iter() {
            match command {
                Command::Open { events, .. } => drop(events.try_send(Delivery::Lost)),
                Command::Request(_) => {}
                Command::Stop => asked = true,
            }
        }
        asked
    }

    /// Waits before another attempt; whether the host was stopped meanwhile.
    fn stopped_within(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            self.beat();
            match self.waiting.recv_deadline(until) {
                Ok((_, Command::Open { events, .. })) => drop(events.try_send(Delivery::Lost)),
                Ok((_, Command::Request(_))) => {}
                Ok((_, Command::Stop)) => return true,
                Err(error) => return error.is_disconnected(),
            }
        }
    }

    fn beat(&self) {
        let elapsed = self.shared.origin.elapsed().as_millis() as u64;
        self.shared.beat_ms.store(elapsed, Ordering::Relaxed);
    }
}
