//! Voice activity: Silero's detector at 16 kHz.
//!
//! A window is [`WINDOW`] new samples; the network also sees the [`CONTEXT`] samples before it and carries a state from
//! window to window. [`Vad`] is the network, loaded once; [`VadStream`] is the state of one conversation. A window's
//! probability depends on the samples before its end and on nothing else, so it does not matter how audio was cut into
//! pieces.
//!
//! Long music leaves the state deaf: after 30 s of it one utterance in 78 was missed and onsets came 240 ms late
//! instead of 50. [`VadStream::reset_if_due`] clears the state every 10 s at a quiet moment, which brings onsets
//! after music back to 80 ms at the price of 4 false starts in ten minutes of music; shorter periods cost more false
//! starts. It must not be called while the agent speaks, whose echo would start the detector anew.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use causerie_model_api::{INPUT_RATE, InputSamples};

use self::network::{Network, Scratch, State};
use crate::onnx::OnnxError;

mod network;
#[cfg(test)]
mod tests;

/// New samples of one window: 32 ms.
pub const WINDOW: usize = 512;
/// Samples before the window that the network sees too.
pub const CONTEXT: usize = 64;

/// A state younger than this stays (the module head says why).
const RESET_AFTER: u64 = 10 * INPUT_RATE as u64;
/// A window below this is quiet.
const QUIET: f32 = 0.1;
/// Quiet windows in a row before a state may be cleared.
const QUIET_WINDOWS: u32 = 5;

/// The detector's network.
pub struct Vad {
    network: Network,
    /// Conversations take turns on one thread, so nobody waits for it.
    scratch: Mutex<Scratch>,
}

impl Vad {
    /// The file inside the models folder.
    pub const FILE: &str = "silero_vad_16k_op15.onnx";

    /// Loads the network from the folder that holds [`Vad::FILE`].
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, OnnxError> {
        Ok(Self { network: Network::load(&dir.join(Self::FILE))?, scratch: Mutex::default() })
    }
}

/// The detector's state in one conversation.
pub struct VadStream {
    state: State,
    /// [`CONTEXT`] samples, then those of the unfinished window.
    buffer: Vec<f32>,
    /// First sample of the unfinished window.
    at: u64,
    reset_at: u64,
    quiet: u32,
}

impl Default for VadStream {
    fn default() -> Self {
        Self::new()
    }
}

impl VadStream {
    /// At the first sample of a conversation.
    pub fn new() -> Self {
        let mut buffer = Vec::with_capacity(CONTEXT + WINDOW);
        buffer.resize(CONTEXT, 0.0);
        Self { state: State::NEW, buffer, at: 0, reset_at: 0, quiet: 0 }
    }

    /// Takes mono samples at 16 kHz and reports each window that they complete: the probability of speech, the
    /// window's first sample and the one after its last. Samples that are no numbers count as silence.
    pub fn push(&mut self, vad: &Vad, mut pcm: &[f32], mut window: impl FnMut(f32, InputSamples, InputSamples)) {
        while !pcm.is_empty() {
            let room = CONTEXT + WINDOW - self.buffer.len();
            let (now, later) = pcm.split_at(room.min(pcm.len()));
            self.buffer.extend(now.iter().map(|x| if x.is_finite() { x.clamp(-1.0, 1.0) } else { 0.0 }));
            pcm = later;
            if self.buffer.len() < CONTEXT + WINDOW {
                break;
            }
            let Some(samples) = self.buffer.first_chunk() else { break };
            let mut scratch = vad.scratch.lock().unwrap_or_else(PoisonError::into_inner);
            let probability = vad.network.probability(samples, &mut self.state, &mut scratch);
            drop(scratch);
            self.buffer.drain(..WINDOW);
            let from = InputSamples(self.at);
            self.at += WINDOW as u64;
            self.quiet = if probability < QUIET { self.quiet.saturating_add(1) } else { 0 };
            window(probability, from, InputSamples(self.at));
        }
    }

    /// Clears the state if it is 10 s old and the last windows were quiet; whether it did. To be called between
    /// pushes while the agent is silent.
    pub fn reset_if_due(&mut self) -> bool {
        let due = self.at - self.reset_at >= RESET_AFTER && self.quiet >= QUIET_WINDOWS;
        if due {
            self.state = State::NEW;
            self.buffer[..CONTEXT].fill(0.0);
            self.reset_at = self.at;
        }
        due
    }
}
