//! Keeps a conversation for its resumption as it goes, and tells the client how to resume it.

use causerie_proto::v1;
use causerie_session::Snapshot;
use prost::Message as _;
use tokio::sync::{mpsc, watch};

use super::parked::Parked;
use crate::driver::{Moment, Outbound};
use crate::resumption::Hold;

pub(super) struct Keeper {
    pub(super) hold: Hold,
    /// As the client sent it.
    pub(super) setup: Box<v1::Setup>,
    pub(super) moments: watch::Receiver<Moment>,
    pub(super) words: mpsc::Sender<Outbound>,
}

impl Keeper {
    /// Keeps what there is to be kept until the conversation is over; of moments that come faster than they are kept,
    /// the last. Whether there was anything.
    pub(super) async fn run(mut self) -> bool {
        let mut kept = false;
        // The last moment is seen even when the conversation is over.
        while self.moments.changed().await.is_ok() {
            let Moment { snapshot, consumed } = self.moments.borrow_and_update().clone();
            let handle = match snapshot {
                None => None,
                Some(snapshot) => self.keep(*snapshot).await,
            };
            kept |= handle.is_some();
            // Meanwhile the reply may have begun during which nothing can be resumed.
            if handle.is_none() || !self.moments.has_changed().unwrap_or(false) {
                // A client that does not read is ended by the driver, and is not waited for here.
                let _ = self.words.try_send(Outbound::Resumption { handle, consumed });
            }
        }
        kept
    }

    /// The handle; none if it cannot be kept, which the client is told and survives.
    async fn keep(&mut self, snapshot: Snapshot) -> Option<String> {
        let body = Parked::new(&self.setup, snapshot).encode_to_vec();
        self.hold.keep(body).await.ok().flatten()
    }
}
