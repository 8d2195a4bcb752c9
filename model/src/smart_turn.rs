//! The end of a turn, from its sound: smart-turn v3, which hears whether a sentence is finished or only pauses.
//!
//! The network is Whisper-tiny's encoder with a classifier and sees the last [`SPAN`] samples. What is shorter is
//! preceded by zeros, then the whole is brought to zero mean and unit variance, zeros included, as it was trained.
//!
//! It is to be asked once in a pause, about 200 ms after the last sound: more silence makes it surer of an end that is
//! none (of 53 phrases cut in the middle, it takes 18 for finished at once, 29 after 200 ms and 45 after 600 ms). Its
//! probabilities differ between runtimes by 0.04 on average and by 0.4 at worst, because its weights are 8-bit
//! integers; only the decision at one half means something.

use std::path::{Path, PathBuf};

use causerie_kernels::Pool;
use causerie_kernels::ops::log_mel::{HOP, LogMel};
use causerie_model_api::INPUT_RATE;
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};

use crate::onnx::{Network, OnnxError, Worker};

/// What the network hears: the last 8 s.
pub const SPAN: usize = 8 * INPUT_RATE as usize;

const MELS: usize = 80;
const FRAMES: usize = SPAN / HOP;
/// Added to the variance before the root of it divides.
const EPSILON: f64 = 1e-7;

/// The network with its front end.
pub struct SmartTurn {
    network: Network<1, 1>,
    mel: LogMel,
    pool: Pool,
}

impl SmartTurn {
    /// The file inside the models folder.
    pub const FILE: &str = "smart-turn-v3.2-cpu.onnx";

    /// Loads the network from the folder that holds [`SmartTurn::FILE`].
    ///
    /// # Errors
    /// The file is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, OnnxError> {
        let path: PathBuf = dir.join(Self::FILE);
        // What it calls logits has been through a sigmoid.
        let network = Network::load(&path, &Worker::new(), ["input_features"], ["logits"])?;
        Ok(Self { network, mel: LogMel::new(MELS), pool: Pool::new(1) })
    }

    /// The probability that who is heard in `pcm` (mono, 16 kHz, with the silence behind the last word) has finished.
    /// Only the last [`SPAN`] samples count; samples that are no numbers count as silence.
    ///
    /// # Errors
    /// The runtime failed.
    pub fn finished(&self, pcm: &[f32]) -> Result<f32, OnnxError> {
        let features = NdTensor::from_data([1, MELS, FRAMES], self.features(pcm));
        let [output] = self.network.run([features.into()])?;
        let output: Tensor<f32> = output.try_into().map_err(|e| self.network.failed(&e))?;
        output.iter().next().copied().ok_or_else(|| self.network.failed(&"no probability came out"))
    }

    /// `[MELS, FRAMES]`, row-major.
    fn features(&self, pcm: &[f32]) -> Vec<f32> {
        let mut by_time = vec![0.0; FRAMES * MELS];
        self.mel.compute(&self.pool, &normalised(pcm), &mut by_time);
        let mut by_mel = vec![0.0; MELS * FRAMES];
        for (time, frame) in by_time.chunks_exact(MELS).enumerate() {
            for (mel, value) in frame.iter().enumerate() {
                by_mel[mel * FRAMES + time] = *value;
            }
        }
        by_mel
    }
}

/// [`SPAN`] samples that end with `pcm`, with zero mean and unit variance.
fn normalised(pcm: &[f32]) -> Vec<f32> {
    let pcm = &pcm[pcm.len().saturating_sub(SPAN)..];
    let mut span = vec![0.0; SPAN - pcm.len()];
    span.extend(pcm.iter().map(|x| if x.is_finite() { x.clamp(-1.0, 1.0) } else { 0.0 }));
    let mean = span.iter().map(|x| f64::from(*x)).sum::<f64>() / SPAN as f64;
    let variance = span.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / SPAN as f64;
    let scale = (variance + EPSILON).sqrt().recip();
    span.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
    span
}

#[cfg(test)]
mod tests;
