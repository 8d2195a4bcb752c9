//! The networks and the engines that step them.

pub mod cascade;
pub mod lm;
pub mod omni;
pub mod onnx;
mod reply;
pub mod smart_turn;
pub mod speech;
#[cfg(test)]
mod testing;
pub mod tools;
pub mod vad;
pub mod whisper;
