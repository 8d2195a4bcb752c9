//! Qwen3-Omni (arXiv 2509.17765): audio and vision towers, a thinker of experts that reads and writes, a talker that
//! speaks what the thinker writes, and a vocoder. Checkpoints are read as they are published.
//!
//! Everything is f32 and equal to the reference implementation within 1e-4, which the files under
//! `tests/golden/qwen3-omni-tiny` and [`parity`] prove for a small random checkpoint that keeps every mechanism.
//!
//! - [`config`], [`checkpoint`], `load`: from a folder to weights.
//! - `decoder`, `rope`, [`kv`]: what thinker, talker and code predictor have in common; `layers`: what the others have;
//!   `tower`: what the towers have.
//! - [`audio`], [`vision`], [`positions`], `thinker`: the understanding part.
//! - `talker`, [`code2wav`]: the speaking part.
//! - [`plan`]: what it needs, before it is loaded.
//! - [`engine`]: conversations over all of it.
//! - [`cuda`]: the networks on a GPU.

pub mod audio;
pub mod checkpoint;
pub mod code2wav;
pub mod config;
pub mod cuda;
mod decoder;
pub mod engine;
mod error;
pub mod kv;
mod layers;
mod load;
pub mod parity;
pub mod plan;
pub mod positions;
mod rope;
mod talker;
#[cfg(test)]
mod tests;
mod thinker;
mod tower;
mod trace;
pub mod vision;

use std::path::Path;

use causerie_kernels::Pool;

pub use error::OmniError;
pub use load::Placement;

use audio::AudioTower;
use checkpoint::Checkpoint;
use code2wav::Code2Wav;
use config::Config;
use load::Loader;
use talker::Talker;
use thinker::Thinker;
use vision::VisionTower;

/// A model in memory. Immutable and shared; a conversation's state lies outside.
pub struct Omni {
    config: Config,
    audio: AudioTower,
    vision: VisionTower,
    thinker: Thinker,
    talker: Talker,
    code2wav: Code2Wav,
    bytes: u64,
}

impl Omni {
    /// Loads the checkpoint in the folder `dir`.
    ///
    /// # Errors
    /// [`OmniError`], naming the file, field or tensor.
    pub fn load(pool: &Pool, dir: &Path, placement: Placement) -> Result<Self, OmniError> {
        Self::load_as(pool, dir, Config::read(dir)?, placement)
    }

    /// As [`Omni::load`], with a shape of the caller's: that of the folder, but for what tensors do not tell.
    pub(crate) fn load_as(pool: &Pool, dir: &Path, config: Config, placement: Placement) -> Result<Self, OmniError> {
        let checkpoint = Checkpoint::open(dir)?;
        let loader = Loader::new(pool, &checkpoint, placement);
        let audio = AudioTower::load(&loader, &config.thinker.audio)?;
        let vision = VisionTower::load(&loader, &config.thinker.vision)?;
        let thinker = Thinker::load(&loader, &config.thinker)?;
        let talker = Talker::load(&loader, &config.talker)?;
        let code2wav = Code2Wav::load(&loader, &config.code2wav)?;
        let bytes = loader.finish()?;
        Ok(Self { config, audio, vision, thinker, talker, code2wav, bytes })
    }

    /// Bytes of its weights.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }
}
