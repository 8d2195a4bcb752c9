//! The seam between a conversation and the network that thinks: the [`Engine`] trait and its words.
//!
//! A session sends [`Request`]s and receives [`Event`]s, both through bounded queues; an engine lives on one thread and
//! is stepped in short quanta. Three engines implement the trait: the cascade, omni, and the scripted engine of the
//! tests.
//!
//! Rules that hold for every engine:
//! - The session owns history. What an engine caches of it can always be rebuilt from the items it was given, and what
//!   is forgotten of it is decided by the session: the engine says how long its prompts are ([`Event::Prompt`]).
//! - A proposed turn has no effect outside the engine until it is committed: its events are withheld, its sampling
//!   does not advance anything that another turn sees, and a discarded one leaves no trace.
//! - [`Request::Commit`] and [`Request::Discard`] are idempotent; requests about unknown sessions or turns are ignored.
//! - Speech further ahead of the listener than [`Request::Credit`] allows is not generated.
//! - Input audio keeps flowing during replies; it is mono f32 in [-1, 1] at [`INPUT_RATE`], without gaps in its
//!   counter. Output audio is mono f32 at [`OUTPUT_RATE`].
#![forbid(unsafe_code)]

mod config;
mod picture;
mod words;

pub use config::{
    Capabilities, Modality, Sampling, Scheduling, SessionConfig, Thinking, ToolBehavior, ToolDeclaration, Voice,
};
pub use picture::{MediaResolution, Picture};
pub use words::{Cause, Content, Event, FinishReason, Item, Origin, Request, Role, ToolCall, Usage};

/// Sample rate of [`Request::Audio`], in hertz.
pub const INPUT_RATE: u32 = 16_000;

/// Sample rate of [`Event::Audio`], in hertz.
pub const OUTPUT_RATE: u32 = 24_000;

/// How far ahead of its listener a turn may be generated: the credit that every turn begins with, and what sessions add
/// to the listener's position when they grant more. In samples at [`OUTPUT_RATE`].
pub const CREDIT_AHEAD: OutputSamples = OutputSamples(8 * OUTPUT_RATE as u64);

/// One conversation. Never reused while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One turn of one conversation, counted from 1 by its session. Never reused within the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TurnId(pub u64);

/// A position in a session's input audio, in samples at [`INPUT_RATE`] since the session opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputSamples(pub u64);

/// A position in one turn's speech, in samples at [`OUTPUT_RATE`] since the turn's first sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputSamples(pub u64);

/// A network that can hold conversations. Lives on one thread, which owns it.
pub trait Engine: Send {
    /// What this engine can and cannot do. Does not change while it lives.
    fn capabilities(&self) -> &Capabilities;

    /// Takes a request; work is done by [`Engine::step`], so this returns at once.
    ///
    /// # Errors
    /// [`Busy`] if the request needs room that is not there (a session more than the memory plan allows). Nothing
    /// has changed then.
    fn submit(&mut self, request: Request) -> Result<(), Busy>;

    /// Does one quantum of work (20 ms or less on the machine it was planned for) and hands its events to `out`.
    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next;

    /// Why the engine can do nothing any more, once that is so: its device is gone, and what conversations had there. A new
    /// one has to be made.
    fn lost(&self) -> Option<&str> {
        None
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Whether an engine has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Call [`Engine::step`] again.
    Ready,
    /// Nothing to do until the next request.
    Idle,
}
