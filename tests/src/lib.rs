//! Testkit: the engine without weights, a server around it, and judges of what real models say.

pub mod python;
pub mod real;
pub mod scripted;
pub mod service;
pub mod wer;
