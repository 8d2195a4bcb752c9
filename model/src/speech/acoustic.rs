//! The acoustic network: phonemes in, spectra out.
//!
//! The alphabet is that of misaki, one character a phoneme, with stress marks before the stressed vowel and
//! punctuation as prosody. Identifiers are those of the released network; 0 stands at both ends.

use std::path::Path;

use rten::Value;
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;

use super::dsp::{BINS, HOP, Noise, Renderer, Spectrum};
use crate::onnx::{Network, OnnxError, Worker};

/// Most phonemes that the network is given at once; it was trained on sentences.
pub(crate) const MAX_PHONEMES: usize = 400;

/// Noise differs between clauses only by what is said, so that speech is a function of the text.
const NOISE_SEED: u64 = 0x68_69_62_61_72_69;

/// (identifier of the first character, characters with consecutive identifiers).
const ALPHABET: &[(i32, &str)] = &[
    (1, ";:,.!?"),
    (9, "—…\"()“” \u{303}ʣʥʦʨᵝ\u{ab67}AI"),
    (31, "O"),
    (33, "Q"),
    (35, "ST"),
    (39, "W"),
    (41, "Yᵊabcdef"),
    (50, "hijklmnopqrstuvwxyzɑɐɒæ"),
    (75, "βɔɕç"),
    (80, "ɖðʤə"),
    (85, "ɚɛɜ"),
    (90, "ɟ"),
    (92, "ɡ"),
    (99, "ɥ"),
    (101, "ɨɪʝ"),
    (110, "ɯɰŋɳɲɴø"),
    (118, "ɸθœ"),
    (123, "ɹ"),
    (125, "ɾɻ"),
    (128, "ʁɽʂʃʈʧ"),
    (135, "ʊʋ"),
    (138, "ʌɣɤ"),
    (142, "χʎ"),
    (147, "ʒʔ"),
    (156, "ˈˌː"),
    (162, "ʰ"),
    (164, "ʲ"),
    (169, "↓"),
    (171, "→↗↘"),
    (177, "ᵻ"),
];

/// Identifier of a phoneme character.
pub(crate) fn id(phoneme: char) -> Option<i32> {
    ALPHABET.iter().find_map(|(first, run)| Some(first + run.chars().position(|c| c == phoneme)? as i32))
}

/// A voice: the network and the renderer.
pub(crate) struct Acoustic {
    network: Network<2, 7>,
    renderer: Renderer,
}

impl Acoustic {
    pub(crate) fn load(path: &Path, worker: &Worker) -> Result<Self, OnnxError> {
        // The sum of durations is inside the graph; it says where each phoneme ends.
        let outputs = ["lh", "theta", "ln", "lr", "phi", "f0", "/CumSum_output_0"];
        let network = Network::load(path, worker, ["ids", "speed"], outputs)?;
        Ok(Self { network, renderer: Renderer::new() })
    }

    /// Speaks `phonemes` at `speed` times the voice's own, appends the samples to `out`, and returns for each phoneme
    /// the sample after its last one, counted from where `out` ended. Characters outside the alphabet are passed over
    /// and end where the one before them ends.
    pub(crate) fn speak(
        &self,
        phonemes: &[char],
        speed: f32,
        with_noise: bool,
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, OnnxError> {
        let mut ids = vec![0];
        // For each phoneme, how many identifiers are needed to have said it.
        let said: Vec<usize> = phonemes
            .iter()
            .map(|&c| {
                ids.extend(id(c));
                ids.len()
            })
            .collect();
        if ids.len() == 1 {
            return Ok(vec![0; phonemes.len()]);
        }
        ids.push(0);
        let count = ids.len();
        let outputs = self
            .network
            .run([NdTensor::from_data([1, count], ids).into(), NdTensor::from_data([1], vec![speed]).into()])?;
        let [lh, theta, ln, lr, phi, f0, ends] = outputs;
        let ends = self.ends(ends)?;
        let f0 = self.part(f0, 2)?;
        let frames = f0.len();
        let parts = [lh, theta, ln, lr, phi].map(|part| self.part(part, 3));
        let [lh, theta, ln, lr, phi] = parts;
        let (lh, theta, ln, lr, phi) = (lh?, theta?, ln?, lr?, phi?);
        if ends.len() != count || [&lh, &theta, &ln, &lr, &phi].iter().any(|p| p.len() != BINS * frames) {
            return Err(self.network.failed(&"its outputs have shapes that do not fit each other"));
        }
        let spectrum = Spectrum { lh: &lh, theta: &theta, ln: &ln, lr: &lr, phi: &phi, f0: &f0 };
        self.renderer.render(&spectrum, with_noise.then(|| Noise::new(NOISE_SEED)), out);
        // The durations inside are in a unit of their own, two frames in the released network.
        let total = ends[count - 1].max(1);
        Ok(said.into_iter().map(|n| ends[n - 1].min(total) * frames / total * HOP).collect())
    }

    fn part(&self, value: Value, rank: usize) -> Result<Vec<f32>, OnnxError> {
        let tensor: rten_tensor::Tensor<f32> = value.try_into().map_err(|e| self.network.failed(&e))?;
        if tensor.ndim() != rank {
            return Err(self.network.failed(&format!("an output has {} dimensions, not {rank}", tensor.ndim())));
        }
        Ok(tensor.into_data())
    }

    fn ends(&self, value: Value) -> Result<Vec<usize>, OnnxError> {
        let positive = |x: f32| x.max(0.0) as usize;
        match value {
            Value::FloatTensor(t) => Ok(t.iter().map(|&x| positive(x)).collect()),
            Value::Int32Tensor(t) => Ok(t.iter().map(|&x| positive(x as f32)).collect()),
            _ => Err(self.network.failed(&"its durations are no numbers")),
        }
    }
}

#[cfg(test)]
mod tests;
