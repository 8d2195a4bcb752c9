//! One conversation as a pure state machine: no clock, no socket, no thread, no channel.
#![forbid(unsafe_code)]

mod words;

pub use words::{
    Detection, Input, Opened, Output, Problem, ProblemCode, Sensitivity, ServerEvent, Setup, ToolResponse, TurnEnd,
    Waterfall,
};
