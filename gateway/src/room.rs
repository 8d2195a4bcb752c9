//! A waiting room: so many seats, and whoever comes when all are taken gets the seat of whoever has sat longest.
//!
//! It bounds what has not yet shown that it is worth anything: connections without a request, streams without a setup.
//! Those who mean it sit for milliseconds. Whoever fills the room with idlers drives out idlers, and nobody else.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A room.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    seats: usize,
    seated: Arc<Mutex<Seated>>,
}

/// Who sits, in the order of their coming. Dropping a sender sends its owner away.
#[derive(Debug, Default)]
struct Seated {
    next: u64,
    by_number: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A seat, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    number: u64,
    room: Room,
    taken_away: Option<oneshot::Receiver<()>>,
}

impl Room {
    /// An empty room; it has at least one seat.
    pub(crate) fn new(seats: usize) -> Self {
        Self { seats: seats.max(1), seated: Arc::default() }
    }

    /// Takes a seat, if need be that of whoever has sat longest.
    pub(crate) fn enter(&self) -> Seat {
        let (sender, taken_away) = oneshot::channel();
        let mut seated = self.lock();
        while seated.by_number.len() >= self.seats {
            seated.by_number.pop_first();
        }
        let number = seated.next;
        seated.next += 1;
        seated.by_number.insert(number, sender);
        drop(seated);
        Seat { number, room: self.clone(), taken_away: Some(taken_away) }
    }

    #[cfg(test)]
    pub(crate) fn seated(&self) -> usize {
        self.lock().by_number.len()
    }

    fn lock(&self) -> MutexGuard<'_, Seated> {
        // Nothing panics while it is held.
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until somebody else was given this seat. May be dropped and called again.
    pub(crate) async fn taken_away(&mut self) {
        match &mut self.taken_away {
            // The sender is only ever dropped.
            Some(receiver) => drop(receiver.await),
            None => return pending().await,
        }
        self.taken_away = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_has_sat_longest_goes_first() {
        let room = Room::new(2);
        let mut first = room.enter();
        let mut second = room.enter();
        assert_eq!(room.lock().by_number.len(), 2);
        assert!(first.taken_away().now_or_never().is_none());
        let mut third = room.enter();
        assert!(first.taken_away().now_or_never().is_some());
        assert!(second.taken_away().now_or_never().is_none());
        assert_eq!(room.lock().by_number.len(), 2);
        // Being gone twice frees nobody else's seat.
        drop(first);
        assert_eq!(room.lock().by_number.len(), 2);
        drop(third);
        assert_eq!(room.lock().by_number.len(), 1);
        third = room.enter();
        assert!(second.taken_away().now_or_never().is_none(), "there was a free seat");
        drop((second, third));
        assert!(room.lock().by_number.is_empty());
    }
}
