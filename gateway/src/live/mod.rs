//! What the transports share: one conversation in the messages of the contract.
//!
//! A transport hands [`Replies`] the messages that it reads and carries the answers away; how they look on its wire is
//! its own affair. [`setup`] reads the first message and [`inbound`] the others, [`outbound`] writes the answers; all
//! three are pure. [`conversation`] joins them to the driver; [`keeper`] keeps the conversation as it goes, for its
//! resumption.
//!
//! What is wrong with one message is told by a warning, and the conversation goes on. Published clients know no
//! warnings: in their dialect what they would wait for in vain ends the stream with its problem.

mod contents;
mod conversation;
mod inbound;
mod keeper;
mod outbound;
mod parked;
mod pictures;
mod schema;
mod setup;

use std::sync::Arc;
use std::time::Duration;

use causerie_model_api::SessionId;
use causerie_proto::v1;
use causerie_session::{Opened, Output, Problem, ProblemCode, ServerEvent, Session, Settings, Setup, Timing};
use causerie_units::MediaTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::Origins;
use crate::admission::Admission;
use crate::catalog::Catalog;
use crate::engine_host::EngineHandle;
use crate::logging::LogContent;
use crate::media::Media;
use crate::metrics::Metrics;
use crate::resumption::Resumption;

pub use conversation::{Broken, FromPeer, Replies};
pub(crate) use schema::json_of_struct;

/// Largest message that is read. Half a minute of 16-bit audio at 48 kHz; media is to be sent in smaller pieces.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Who speaks at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A client of our contract.
    Causerie,
    /// A published client of the compatible contract, which knows none of our additions.
    Compatible,
    /// A published client of its JSON form, which has words for some of them.
    CompatibleJson,
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
    /// Conversations that can be resumed.
    pub resumption: Arc<Resumption>,
    /// Whether what is said may be logged.
    pub log_content: LogContent,
    /// Counts and latencies.
    pub metrics: Arc<Metrics>,
    /// Which pages may open a WebSocket.
    pub origins: Origins,
    /// Who may begin a conversation.
    pub admission: Arc<Admission>,
    /// Set when the server shuts down: turns may run until then.
    pub drain: watch::Receiver<Option<Instant>>,
    /// Part of the names of conversations, to tell the runs of a server apart.
    pub run: String,
}

impl Shared {
    /// What the answer to a setup would be. Nothing is begun by it.
    ///
    /// # Errors
    /// The setup cannot be served; the problem names the field.
    pub fn check(&self, asked: &v1::Setup) -> Result<Opened, Problem> {
        let capabilities = self.engine.capabilities()?;
        let read = setup::read(asked, &self.catalog, &capabilities)?;
        let settings =
            Settings { id: SessionId(0), name: String::new(), model: read.setup.model.clone(), timing: self.timing };
        let setup = Setup { server_tools: self.engine.tools().declarations(read.setup.search), ..read.setup };
        let mut session = Session::open(setup, &capabilities, settings, MediaTime::ZERO)?;
        loop {
            match session.poll_output() {
                Output::Client(ServerEvent::SetupComplete(opened)) => return Ok(opened),
                Output::Engine(_) => {}
                _ => return Err(Problem::new(ProblemCode::Internal, "", "a session opens without an answer")),
            }
        }
    }
}
