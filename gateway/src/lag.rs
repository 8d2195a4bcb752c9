//! How late the server is, where running conversations wait: for the engine to take what they ask, for the media
//! thread, and for their turn on tokio's workers.
//!
//! Of each place the longest wait of the last second or two counts. It is looked at when somebody new knocks: a server
//! that is late already would serve one more at the cost of those whom it serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Waits are kept for this long at least, and for twice as long at most.
pub const WINDOW: Duration = Duration::from_secs(1);
/// How often tokio's workers are asked how late they are.
const TICK: Duration = Duration::from_millis(50);

/// The places where is waited.
#[derive(Clone, Debug, Default)]
pub struct Lag {
    /// A request for the engine thread.
    pub engine: Meter,
    /// Audio for the media thread.
    pub media: Meter,
    /// A timer of tokio's.
    pub workers: Meter,
}

/// The longest wait of late at one place.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Mutex<Windows>>);

#[derive(Debug)]
struct Windows {
    since: Instant,
    current: Duration,
    before: Duration,
    /// Nothing can be taken since then, until further notice.
    busy_since: Option<Instant>,
}

impl Default for Meter {
    fn default() -> Self {
        let windows =
            Windows { since: Instant::now(), current: Duration::ZERO, before: Duration::ZERO, busy_since: None };
        Self(Arc::new(Mutex::new(windows)))
    }
}

impl Meter {
    /// Something waited for so long.
    pub fn record(&self, now: Instant, waited: Duration) {
        self.with(now, |windows| windows.current = windows.current.max(waited));
    }

    /// Whoever comes waits from now on, until [`Meter::idle`].
    pub fn busy(&self, now: Instant) {
        self.with(now, |windows| windows.busy_since = Some(now));
    }

    /// Nobody has to wait.
    pub fn idle(&self, now: Instant) {
        self.with(now, |windows| windows.busy_since = None);
    }

    /// The longest wait of late, or that of somebody who still waits.
    pub fn longest(&self, now: Instant) -> Duration {
        self.with(now, |windows| {
            let waiting = windows.busy_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            windows.current.max(windows.before).max(waiting)
        })
    }

    fn with<T>(&self, now: Instant, look: impl FnOnce(&mut Windows) -> T) -> T {
        // Nothing panics while it is held.
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(windows.since);
        if age >= WINDOW {
            windows.before = if age < 2 * WINDOW { windows.current } else { Duration::ZERO };
            windows.current = Duration::ZERO;
            windows.since = now;
        }
        look(&mut windows)
    }
}

impl Lag {
    /// The longest wait of late at each place.
    pub fn places(&self, now: Instant) -> [(&'static str, Duration); 3] {
        let places = [("engine", &self.engine), ("media", &self.media), ("workers", &self.workers)];
        places.map(|(place, meter)| (place, meter.longest(now)))
    }

    /// The place that is latest, and how late it is.
    pub fn longest(&self, now: Instant) -> (&'static str, Duration) {
        self.places(now).into_iter().max_by_key(|(_, longest)| *longest).unwrap_or_default()
    }

    /// Asks tokio's workers how late they are, for as long as it is polled.
    pub async fn watch_workers(self) {
        loop {
            let asked = Instant::now();
            tokio::time::sleep(TICK).await;
            let now = Instant::now();
            self.workers.record(now, now.saturating_duration_since(asked).saturating_sub(TICK));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_of_late_counts() {
        const MS: Duration = Duration::from_millis(1);
        let meter = Meter::default();
        let start = Instant::now();
        meter.record(start, 30 * MS);
        meter.record(start + 100 * MS, 10 * MS);
        for (after, expected) in [(200, 30), (900, 30), (1_100, 30), (2_200, 0)] {
            assert_eq!(meter.longest(start + after * MS), expected * MS, "after {after} ms");
        }
        // One that comes rarely is kept for a window too.
        meter.record(start + 5_000 * MS, 20 * MS);
        assert_eq!(meter.longest(start + 5_900 * MS), 20 * MS);
        assert_eq!(meter.longest(start + 6_100 * MS), 20 * MS);
        assert_eq!(meter.longest(start + 8_100 * MS), Duration::ZERO);
    }

    #[test]
    fn who_is_stuck_is_late_before_anybody_was_served() {
        const MS: Duration = Duration::from_millis(1);
        let meter = Meter::default();
        let start = Instant::now();
        meter.busy(start);
        assert_eq!(meter.longest(start + 4_000 * MS), 4_000 * MS);
        meter.idle(start + 4_000 * MS);
        assert_eq!(meter.longest(start + 4_000 * MS), Duration::ZERO);
    }

    #[test]
    fn the_latest_place_is_named() {
        let lag = Lag::default();
        let now = Instant::now();
        lag.media.record(now, Duration::from_millis(3));
        lag.engine.record(now, Duration::from_millis(7));
        assert_eq!(lag.longest(now), ("engine", Duration::from_millis(7)));
    }
}
