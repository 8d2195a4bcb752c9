//! One conversation as a pure state machine: no clock, no socket, no thread, no channel.
//!
//! A driver feeds a [`Session`] with [`Input`]s (what the client sent, what the detector and the engine said, the time)
//! and drains its [`Output`]s: requests for the engine, events for the client, and until when there is nothing to do.
//! Equal inputs at equal times give equal outputs, so whole conversations are tested in virtual time.
//!
//! - `session`: the state of the conversation, and how it changes; its head has the rules for pauses and interruptions.
//! - `ear`: windows of the detector; `playout`: what may be sent when, and what was heard; `reply`: a turn on its way.
//! - `setup`, `voices`: what a client may ask for. `history`, `tools`, `transcript`: what has been said and asked.
//! - `words`, `settings`: what clients, transports and operators say.
//!
//! Three positions never mix: input samples (what the detector and the engine count), a turn's output samples, and
//! time since the session opened.
#![forbid(unsafe_code)]

mod ear;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod history;
mod playout;
mod reply;
mod session;
mod settings;
mod setup;
mod tools;
mod transcript;
mod voices;
mod words;

pub use session::Session;
pub use settings::{Settings, Timing};
pub use words::{
    Compression, Detection, Grounding, Input, Opened, Output, PendingCall, Problem, ProblemCode, Sensitivity,
    ServerEvent, Setup, Snapshot, Source, ToolResponse, TurnEnd, Update, Waterfall,
};
