//! The gRPC transport: `causerie.live.v1.Live` and the foreign paths on which published clients ask for the same
//! conversation.
//!
//! A stream is one conversation. [`setup`] reads its first message and [`inbound`] the others, [`outbound`] writes the
//! answers; all three are pure. [`conversation`] joins them to the driver.
//!
//! What is wrong with one message is told by a warning, and the conversation goes on. Published clients know no
//! warnings: on their paths what they would wait for in vain ends the stream with its status.

mod compatible;
mod contents;
mod conversation;
mod inbound;
mod outbound;
mod schema;
mod setup;

use std::sync::Arc;
use std::time::Duration;

use causerie_proto::v1;
use causerie_proto::v1::live_server::{Live, LiveServer};
use causerie_session::{Problem, ProblemCode, Timing};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Request, Response, Status, Streaming};

use crate::catalog::Catalog;
use crate::engine_host::EngineHandle;
use crate::media::Media;
use crate::metrics::Metrics;
use crate::status::status;

use compatible::Compatible;
pub use conversation::Replies;

/// Largest message that is read. Half a minute of 16-bit audio at 48 kHz; media is to be sent in smaller pieces.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Who speaks at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A client of our contract.
    Causerie,
    /// A published client of the compatible contract, which knows none of our additions.
    Compatible,
}

/// What every conversation shares.
pub struct Shared {
    /// The engine.
    pub engine: EngineHandle,
    /// The media thread.
    pub media: Media,
    /// Names of models.
    pub catalog: Catalog,
    /// When things happen.
    pub timing: Timing,
    /// Whether clients may have open speakers.
    pub echo_gate: bool,
    /// How long a client may take to send its setup.
    pub setup_timeout: Duration,
    /// Counts and latencies.
    pub metrics: Arc<Metrics>,
    /// Places for conversations.
    pub places: Arc<Semaphore>,
    /// How many places there are.
    pub max_conversations: usize,
    /// Set when the server shuts down: turns may run until then.
    pub drain: watch::Receiver<Option<Instant>>,
    /// Part of the names of conversations, to tell the runs of a server apart.
    pub run: String,
}

/// The service.
#[derive(Clone)]
pub struct Conversations {
    shared: Arc<Shared>,
}

impl Conversations {
    /// A service of what is shared.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The routes of the service, on our path and on the compatible ones.
    pub fn routes(self) -> Routes {
        let server = LiveServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(Compatible::<0, _>::new(server.clone()))
            .add_service(Compatible::<1, _>::new(server.clone()))
            .add_service(server);
        routes.routes()
    }
}

#[tonic::async_trait]
impl Live for Conversations {
    type ConverseStream = Replies;

    async fn converse(
        &self,
        request: Request<Streaming<v1::ClientMessage>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let dialect = request.extensions().get().copied().unwrap_or(Dialect::Causerie);
        let refuse = |problem: Problem| {
            self.shared.metrics.conversation_refused();
            Err(status(&problem))
        };
        if self.shared.drain.borrow().is_some() {
            return refuse(Shared::shutting_down());
        }
        let Ok(place) = self.shared.places.clone().try_acquire_owned() else {
            return refuse(Problem {
                retryable: true,
                ..Problem::new(
                    ProblemCode::ResourceExhausted,
                    "",
                    format!("all {} conversations are taken; try again later", self.shared.max_conversations),
                )
            });
        };
        Ok(Response::new(Replies::start(self.shared.clone(), dialect, request.into_inner(), place)))
    }
}
