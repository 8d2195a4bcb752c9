//! The networks on a GPU: weights and activations in bf16, sums in f32, every step a kernel of `causerie_kernels`.
//!
//! The same wiring as beside this module on a CPU. What differs is rounding, and with it now and then an expert: a test
//! runs all of it on the emulated device and compares every launch with its op's reference on the very same inputs, and the
//! results with those of the reference implementation in f32.
//!
//! - `weights`: from a checkpoint's tensors to buffers.
//! - `decoder`: what thinker, talker, code predictor and the vocoder's transformer have in common.
//! - `tower`: what both towers have in common.
//! - `thinker`, `talker`, `frames`, `code2wav`, `audio`, `vision`: the networks.

pub mod audio;
pub mod code2wav;
mod decoder;
pub mod frames;
pub mod talker;
#[cfg(test)]
mod tests;
pub mod thinker;
mod tower;
pub mod vision;
mod weights;

use std::path::Path;

use causerie_kernels::Pool;
use causerie_kernels::cuda::Gpu;

use self::audio::AudioTower;
use self::code2wav::Code2Wav;
use self::talker::Talker;
use self::thinker::Thinker;
use self::vision::VisionTower;
use self::weights::Uploader;
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::load::Loader;
use super::{OmniError, Placement};

pub use decoder::{Extra, Input, Mode, Room, Work};
pub(in crate::omni) use decoder::{advance, shares};

/// The networks on a device.
pub struct GpuOmni {
    /// Its shape.
    pub config: Config,
    /// Hears.
    pub audio: AudioTower,
    /// Sees.
    pub vision: VisionTower,
    /// Thinks.
    pub thinker: Thinker,
    /// Speaks.
    pub talker: Talker,
    /// Makes sound.
    pub code2wav: Code2Wav,
}

impl GpuOmni {
    /// Loads the checkpoint in the folder `dir` onto a device.
    ///
    /// # Errors
    /// [`OmniError`], naming the file, field or tensor, or what the device lacks.
    pub fn load(gpu: &Gpu, dir: &Path) -> Result<Self, OmniError> {
        Self::load_as(gpu, dir, Config::read(dir)?)
    }

    /// As [`GpuOmni::load`], with a shape of the caller's: that of the folder, but for what tensors do not tell.
    pub(crate) fn load_as(gpu: &Gpu, dir: &Path, config: Config) -> Result<Self, OmniError> {
        let checkpoint = Checkpoint::open(dir)?;
        let pool = Pool::new(1);
        let loader = Loader::new(&pool, &checkpoint, Placement::F32);
        let up = Uploader::new(gpu, &loader);
        let omni = Self::load_from(&up, config)?;
        loader.finish()?;
        Ok(omni)
    }

    /// Networks of that shape whose weights follow from a seed: what they say is noise, and takes as long as anything else.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn drawn(gpu: &Gpu, config: Config, seed: u64) -> Result<Self, OmniError> {
        Self::load_from(&Uploader::drawing(gpu, seed), config)
    }

    fn load_from(up: &Uploader<'_>, config: Config) -> Result<Self, OmniError> {
        let audio = AudioTower::load(up, &config.thinker.audio)?;
        let vision = VisionTower::load(up, &config.thinker.vision)?;
        let thinker = Thinker::load(up, &config.thinker.text)?;
        let talker = Talker::load(up, &config.talker)?;
        let code2wav = Code2Wav::load(up, &config.code2wav)?;
        Ok(Self { config, audio, vision, thinker, talker, code2wav })
    }
}
