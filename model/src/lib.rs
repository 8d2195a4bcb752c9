//! The networks and the engines that step them.

pub mod cascade;
pub mod lm;
pub mod speech;
pub mod vad;
pub mod whisper;
