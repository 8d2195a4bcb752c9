//! What is in use of a key: conversations that run, and a token bucket for those that begin.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use causerie_session::{Problem, ProblemCode};
use tokio::time::Instant;

use super::keys::Key;

/// When to try again while all conversations of a key run: nobody knows when one ends.
const RETRY_STREAMS: Duration = Duration::from_secs(5);

/// What is in use of a key.
#[derive(Debug, Default)]
pub(super) struct Usage(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    running: u32,
    /// Begun conversations that still weigh, decreasing by `Key::per_minute` a minute, as of a moment. `None` before the
    /// first.
    weight: Option<(f64, Instant)>,
}

impl Usage {
    /// Whether the key's limits leave room for another conversation.
    pub(super) fn check(&self, key: &Key, now: Instant) -> Result<(), Problem> {
        self.lock().weight_with_another(key, now).map(drop)
    }

    /// Counts a conversation.
    ///
    /// # Errors
    /// The key's limits leave no room for it.
    pub(super) fn begin(this: &Arc<Self>, key: &Key, now: Instant) -> Result<Pass, Problem> {
        let mut state = this.lock();
        state.weight = Some((state.weight_with_another(key, now)?, now));
        state.running += 1;
        drop(state);
        Ok(Pass(Some(this.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; two numbers cannot be half written anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn weight_with_another(&self, key: &Key, now: Instant) -> Result<f64, Problem> {
        if self.running >= key.streams {
            let message = format!("the {} conversations that this API key allows at once are taken", key.streams);
            return Err(exhausted(message, RETRY_STREAMS));
        }
        let per_second = f64::from(key.per_minute) / 60.0;
        let left = |(weight, at)| weight - per_second * now.saturating_duration_since(at).as_secs_f64();
        let weight = self.weight.map_or(0.0, left).max(0.0) + 1.0;
        let excess = weight - f64::from(key.per_minute);
        // Rounding must not make the hint come a moment too early.
        if excess > 1e-6 {
            let message = format!("this API key allows {} new conversations a minute", key.per_minute);
            return Err(exhausted(message, Duration::from_secs_f64(excess / per_second)));
        }
        Ok(weight)
    }
}

/// A conversation that is counted until this is dropped.
#[derive(Debug)]
pub struct Pass(Option<Arc<Usage>>);

impl Pass {
    /// Counted nowhere.
    pub(super) fn of_nobody() -> Self {
        Self(None)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(usage) = &self.0 {
            usage.lock().running -= 1;
        }
    }
}

fn exhausted(message: String, after: Duration) -> Problem {
    Problem::new(ProblemCode::ResourceExhausted, "", message).retry_after(after)
}
