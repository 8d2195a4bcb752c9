//! Admission: who may hold a conversation now.
//!
//! In two steps. [`Admission::knock`] looks at a stream when it is opened, before anything of it is read: it turns away
//! the unknown, and everybody while the server is late or there is no place, but for whoever may come back. [`Waiting::enter`] takes the place, when the setup has been read:
//! until then a client has shown nothing but that it can open a stream, and streams that never send a setup hold no
//! place. They wait in a [`Room`], so that many of them drive out each other and nobody else.
//!
//! A client that lost its connection may come back before the server has noticed, and find its place taken by its own
//! dead stream. Whoever holds a conversation that can be resumed is therefore heard even when nothing is free: a handle in
//! the setup ends the old stream, which gives its place up at once ([`Place::leave`]).

use std::sync::Arc;
use std::time::Duration;

use causerie_session::{Problem, ProblemCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::access::{Access, Client, Pass};
use crate::lag::{self, Lag};
use crate::metrics::{ConversationGuard, Metrics};
use crate::resumption::Resumption;
use crate::room::{Room, Seat};

/// Streams that may wait for their setup beside one for each place.
const MAX_WAITING: usize = 256;
/// When to try again while all places are taken: nobody knows when one gets free.
const RETRY_PLACE: Duration = Duration::from_secs(5);
/// When to try again while the server is late: by then what was late is forgotten.
const RETRY_LAG: Duration = lag::WINDOW.saturating_mul(2);
/// When to try again after others needed the seat.
const RETRY_SEAT: Duration = Duration::from_secs(1);

/// The one door of all transports.
pub struct Admission {
    /// Who may talk.
    pub access: Access,
    places: Arc<Semaphore>,
    max_conversations: usize,
    waiting: Room,
    /// For streams that have given up their place and are not gone: as many as there are places.
    left: Arc<Semaphore>,
    resumption: Arc<Resumption>,
    lag: Lag,
    max_lag: Duration,
    metrics: Arc<Metrics>,
    drain: watch::Receiver<Option<Instant>>,
}

/// A stream that has not sent its setup yet.
pub struct Waiting {
    admission: Arc<Admission>,
    client: Client,
    seat: Seat,
}

/// A conversation's place, at the server and on the client's key; both are free again when this is dropped.
pub struct Place {
    _place: OwnedSemaphorePermit,
    _pass: Pass,
    _counted: ConversationGuard,
    left: Arc<Semaphore>,
}

/// What a stream holds that was ended in favour of another and is not gone: what its client does not read takes memory.
pub struct Left {
    _left: OwnedSemaphorePermit,
}

impl Place {
    /// Gives the place to whoever comes next. It stays taken while too many streams that have left are not gone.
    ///
    /// # Errors
    /// They are.
    pub fn leave(self) -> Result<Left, Self> {
        match self.left.clone().try_acquire_owned() {
            Ok(left) => Ok(Left { _left: left }),
            Err(_) => Err(self),
        }
    }
}

impl Admission {
    /// A door with so many places behind it, closed while the server is later than it may be, and once `drain` is set.
    pub fn new(
        access: Access,
        max_conversations: usize,
        (lag, max_lag): (Lag, Duration),
        resumption: Arc<Resumption>,
        metrics: Arc<Metrics>,
        drain: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            access,
            places: Arc::new(Semaphore::new(max_conversations)),
            left: Arc::new(Semaphore::new(max_conversations)),
            resumption,
            max_conversations,
            waiting: Room::new(MAX_WAITING + max_conversations),
            lag,
            max_lag,
            metrics,
            drain,
        }
    }

    /// Lets a stream wait for its setup.
    ///
    /// # Errors
    /// The key is unknown or at its limits, there is no place, or the server shuts down.
    pub fn knock(self: &Arc<Self>, key: Option<&str>) -> Result<Waiting, Problem> {
        let look = || {
            let client = self.access.client(key)?;
            self.check()?;
            match self.check_places().and_then(|()| client.check(Instant::now())) {
                Err(problem) if !self.resumption.is_held_by(client.id().as_deref()) => Err(problem),
                _ => Ok(client),
            }
        };
        let client = look().inspect_err(|_| self.metrics.conversation_refused())?;
        Ok(Waiting { admission: self.clone(), client, seat: self.waiting.enter() })
    }

    /// Waits until all conversations have ended.
    pub async fn emptied(&self) {
        let all = u32::try_from(self.max_conversations).unwrap_or(u32::MAX);
        // They are never closed.
        let _ = self.places.acquire_many(all).await;
        let _ = self.left.acquire_many(all).await;
    }

    fn check(&self) -> Result<(), Problem> {
        if self.drain.borrow().is_some() {
            return Err(shutting_down());
        }
        let (place, longest) = self.lag.longest(std::time::Instant::now());
        if longest > self.max_lag {
            let waited = longest.as_millis();
            let message = format!("the server is overloaded ({place}: {waited} ms late); try again later");
            return Err(Problem::new(ProblemCode::ResourceExhausted, "", message).retry_after(RETRY_LAG));
        }
        Ok(())
    }

    fn check_places(&self) -> Result<(), Problem> {
        if self.places.available_permits() == 0 { Err(self.full()) } else { Ok(()) }
    }

    fn full(&self) -> Problem {
        let message = format!("all {} conversations are taken; try again later", self.max_conversations);
        Problem::new(ProblemCode::ResourceExhausted, "", message).retry_after(RETRY_PLACE)
    }
}

impl Waiting {
    /// Takes a place.
    ///
    /// # Errors
    /// As for [`Admission::knock`]: others were faster.
    pub fn enter(&self) -> Result<Place, Problem> {
        let Admission { places, metrics, .. } = &*self.admission;
        let take = || {
            self.admission.check()?;
            let place = places.clone().try_acquire_owned().map_err(|_| self.admission.full())?;
            Ok((place, self.client.begin(Instant::now())?))
        };
        let (place, pass) = take().inspect_err(|_| metrics.conversation_refused())?;
        let left = self.admission.left.clone();
        Ok(Place { _place: place, _pass: pass, _counted: metrics.conversation_started(), left })
    }

    /// Who it is: [`Client::id`].
    pub fn caller(&self) -> Option<String> {
        self.client.id()
    }

    /// Waits until the stream has to end because newer ones wait.
    pub async fn taken_away(&mut self) -> Problem {
        self.seat.taken_away().await;
        self.admission.metrics.conversation_refused();
        let message = "the setup did not come, and newer streams wait for theirs";
        Problem::new(ProblemCode::ResourceExhausted, "setup", message).retry_after(RETRY_SEAT)
    }
}

/// What is said to everybody once a server shuts down.
pub fn shutting_down() -> Problem {
    Problem { retryable: true, ..Problem::new(ProblemCode::Unavailable, "", "the server is shutting down") }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::config::ResumptionConfig;

    const MAX_LAG: Duration = Duration::from_millis(500);

    fn door(places: usize) -> (Arc<Admission>, watch::Sender<Option<Instant>>) {
        let (drain, draining) = watch::channel(None);
        let resumption = Resumption::open(&ResumptionConfig::default()).expect("memory");
        let lag = (Lag::default(), MAX_LAG);
        let door = Admission::new(Access::open(), places, lag, Arc::new(resumption), Arc::default(), draining);
        (Arc::new(door), drain)
    }

    #[tokio::test]
    async fn waiting_takes_no_place() {
        let (door, _drain) = door(1);
        let waiting: Vec<Waiting> = (0..5).map(|_| door.knock(None).expect("nobody has entered")).collect();
        let place = waiting[3].enter().expect("the place is free");
        assert_eq!(door.metrics.active(), 1);
        for problem in [door.knock(None).err(), waiting[0].enter().err()] {
            let problem = problem.expect("it is full");
            assert_eq!((problem.code, problem.retry_after), (ProblemCode::ResourceExhausted, Some(RETRY_PLACE)));
        }
        drop(place);
        assert_eq!(door.metrics.active(), 0);
        door.knock(None).expect("it is free again").enter().expect("it is free again");
    }

    #[tokio::test]
    async fn idlers_drive_out_idlers() {
        let (door, _drain) = door(1);
        let mut first = door.knock(None).expect("a seat");
        let idlers: Vec<Waiting> = (0..MAX_WAITING).map(|_| door.knock(None).expect("a seat")).collect();
        assert!(first.taken_away().now_or_never().is_none(), "all have a seat");
        let place = door.knock(None).expect("a seat").enter().expect("a place");
        let problem = first.taken_away().now_or_never().expect("it sat longest");
        assert_eq!((problem.code, problem.retryable), (ProblemCode::ResourceExhausted, true));
        drop((place, idlers));
    }

    #[tokio::test]
    async fn who_may_come_back_is_heard_though_nothing_is_free() {
        let (door, _drain) = door(1);
        let place = door.knock(None).expect("a seat").enter().expect("a place");
        door.knock(None).err().expect("it is full");
        let hold = door.resumption.hold(None, None);
        let waiting = door.knock(None).expect("it may be the one who holds it");
        waiting.enter().err().expect("it is full");
        let left = place.leave().ok().expect("the first that leaves");
        let place = waiting.enter().expect("a place");
        // Who leaves and does not go keeps the next from leaving.
        let place = place.leave().err().expect("one has left and is not gone");
        drop(left);
        place.leave().ok().expect("it is gone");
        drop(hold);
        let place = door.knock(None).expect("a seat").enter().expect("a place");
        door.knock(None).err().expect("it is full, and nobody can come back");
        drop(place);
    }

    #[tokio::test]
    async fn nobody_enters_while_those_inside_wait() {
        let (door, _drain) = door(2);
        let waiting = door.knock(None).expect("a seat");
        let now = std::time::Instant::now();
        door.lag.engine.record(now, MAX_LAG);
        let place = waiting.enter().expect("it is not later than it may be");
        door.lag.media.record(now, MAX_LAG + Duration::from_millis(1));
        for problem in [door.knock(None).err(), waiting.enter().err()] {
            let problem = problem.expect("it is late");
            assert_eq!((problem.code, problem.retry_after), (ProblemCode::ResourceExhausted, Some(RETRY_LAG)));
            assert!(problem.message.contains("media: 501 ms"), "{}", problem.message);
        }
        drop(place);
    }

    #[tokio::test]
    async fn nobody_enters_a_server_that_shuts_down() {
        let (door, drain) = door(2);
        let waiting = door.knock(None).expect("a seat");
        let place = waiting.enter().expect("a place");
        drain.send_replace(Some(Instant::now()));
        for problem in [door.knock(None).err(), waiting.enter().err()] {
            assert_eq!(problem.expect("it is closed").code, ProblemCode::Unavailable);
        }
        assert!(door.emptied().now_or_never().is_none(), "one is still inside");
        drop(place);
        assert!(door.emptied().now_or_never().is_some());
    }
}
