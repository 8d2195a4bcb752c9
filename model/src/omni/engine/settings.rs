//! What an operator decides, and what a checkpoint says of how it wants to be drawn from.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use causerie_kernels::ops::paged_attention::Visible;
use causerie_kernels::ops::sample::Params;
use causerie_kernels::ops::sample::cuda::{Draw, MAX_CANDIDATES};
use serde_json::Value;

use super::hearing::Loudest;
use crate::omni::config::{Config, Scaling};
use crate::omni::kv::KvType;
use crate::omni::plan::{Plan, Wishes};
use crate::omni::{OmniError, Placement};

/// What the networks are computed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub enum Device {
    /// This processor.
    #[default]
    Cpu,
    /// One of the machine's GPUs.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let index = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|index| index.parse().ok()),
        };
        index.map(Self::Cuda).ok_or_else(|| format!("{text:?} is no device: cpu, cuda or cuda:N"))
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What to load and how much room to give it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The checkpoint's folder.
    pub model: PathBuf,
    /// Threads that compute, the engine's own included.
    pub threads: usize,
    /// Conversations at once.
    pub sessions: usize,
    /// Tokens of a prompt and its reply.
    pub context: usize,
    /// What the spectrogram of speech is scaled by.
    pub loudest: Loudest,
    /// Seconds of speech that attend to each other; `None` for as many as the checkpoint says.
    pub audio_block: Option<usize>,
    /// What computes.
    pub device: Device,
    /// How weights are kept.
    pub weights: Placement,
    /// How keys and values are kept.
    pub kv: KvType,
    /// Bytes of memory that may be used; `None` leaves it to the system.
    pub memory: Option<u64>,
    /// Which keys of its context the thinker sees.
    pub visible: Visible,
    /// How many times as many positions as the checkpoint was configured for are reached by scaling them (YaRN). Nothing
    /// says that a model is any good there.
    pub yarn: Option<f64>,
}

impl Options {
    /// The defaults for a folder on this machine.
    pub fn new(model: PathBuf) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            model,
            threads,
            sessions: 8,
            context: 4_096,
            loudest: Loudest::default(),
            audio_block: None,
            device: Device::Cpu,
            weights: Placement::F32,
            kv: KvType::F32,
            memory: None,
            visible: Visible::All,
            yarn: None,
        }
    }

    /// The shape of the model as these options have it.
    ///
    /// # Errors
    /// [`OmniError`] if it cannot be read, or an option is out of its range.
    pub(super) fn shape(&self) -> Result<Config, OmniError> {
        let mut config = Config::read(&self.model)?;
        let Config { thinker, talker, .. } = &mut config;
        if let Some(seconds) = self.audio_block {
            let chunks = 1..=(thinker.audio.block / thinker.audio.chunk).max(8);
            if !chunks.contains(&seconds) {
                let problem = format!("blocks of {seconds} seconds are not within {chunks:?}");
                return Err(OmniError::Input(problem));
            }
            thinker.audio.block = seconds * thinker.audio.chunk;
        }
        if let Some(factor) = self.yarn {
            if !(1.0..=64.0).contains(&factor) {
                return Err(OmniError::Input(format!("positions cannot be scaled by {factor}, only by 1 to 64")));
            }
            for text in [&mut thinker.text, &mut talker.text] {
                text.rope.scaling = Scaling::Yarn { factor, trained: text.context };
            }
        }
        Ok(config)
    }

    /// These options on a device, where everything is bfloat16 so far.
    ///
    /// # Errors
    /// [`OmniError::Input`] for what is narrower.
    pub(super) fn on_device(&self) -> Result<Self, OmniError> {
        let narrow = match (self.weights, self.kv) {
            (Placement::Fp8 | Placement::Int4, _) => format!("weights in {}", self.weights),
            (_, KvType::Fp8) => format!("keys and values in {}", self.kv),
            _ => return Ok(Self { weights: Placement::Bf16, kv: KvType::Bf16, ..self.clone() }),
        };
        Err(OmniError::Input(format!("a device cannot hold {narrow} yet: bf16 is what it holds")))
    }

    /// What would be needed for a model of that shape, whose passes hold so many rows of prompts.
    ///
    /// # Errors
    /// [`OmniError::Window`] and [`OmniError::Fit`].
    pub(super) fn plan(&self, config: &Config, generation: &Generation, rows: usize) -> Result<Plan, OmniError> {
        let Self { weights, kv, memory: device, context: window, sessions, visible, .. } = *self;
        let frames = generation.max_frames;
        Plan::new(config, Wishes { weights, kv, device, window, sessions, frames, rows, visible })
    }
}

/// How words and codes are drawn when a conversation does not say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Generation {
    /// Words.
    pub(super) thinker: Params,
    /// First codes of frames. The repetition penalty is about those of the same answer.
    pub(super) talker: Params,
    /// The other codes.
    pub(super) predictor: Params,
    /// Most words of an answer.
    pub(super) max_words: usize,
    /// Most frames of an answer.
    pub(super) max_frames: usize,
}

impl Default for Generation {
    /// The defaults of the reference implementation's `generate`.
    fn default() -> Self {
        let params = |temperature, top_k, top_p, repetition| Params {
            temperature,
            top_k,
            top_p,
            repetition,
            ..Params::default()
        };
        Self {
            thinker: params(0.7, 20, 0.8, 1.0),
            talker: params(0.9, 50, 1.0, 1.05),
            predictor: params(1.0, 50, 0.8, 1.0),
            max_words: 1_024,
            max_frames: 4_096,
        }
    }
}

impl Generation {
    /// Whether a device can draw frames like this.
    ///
    /// # Errors
    /// [`OmniError::Input`].
    pub(super) fn check_for_device(&self) -> Result<(), OmniError> {
        for (what, params) in [("the talker", &self.talker), ("the code predictor", &self.predictor)] {
            if !Draw::is_known(params) {
                let problem = format!(
                    "{what} draws from the {} likeliest codes, a device from 1 to {MAX_CANDIDATES}",
                    params.top_k
                );
                return Err(OmniError::Input(problem));
            }
        }
        Ok(())
    }

    /// Reads `generation_config.json` of the folder `dir`, if there is one. All fields are optional in it.
    ///
    /// # Errors
    /// [`OmniError::Malformed`] if it is not what it should be.
    pub(super) fn read(dir: &Path) -> Result<Self, OmniError> {
        let path = dir.join("generation_config.json");
        let wrong = |problem: String| OmniError::malformed(&path, problem);
        let mut generation = Self::default();
        if !path.exists() {
            return Ok(generation);
        }
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
        let file: Value = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let float = |name: &str, target: &mut f32| match file.get(name).filter(|v| !v.is_null()) {
            None => Ok(()),
            Some(value) => match value.as_f64().filter(|v| v.is_finite() && *v >= 0.0) {
                Some(value) => {
                    *target = value as f32;
                    Ok(())
                }
                None => Err(wrong(format!("{name} is {value}"))),
            },
        };
        let count = |name: &str, target: &mut usize| match file.get(name).filter(|v| !v.is_null()) {
            None => Ok(()),
            Some(value) => match value.as_u64().filter(|v| *v < 1 << 31) {
                Some(value) => {
                    *target = value as usize;
                    Ok(())
                }
                None => Err(wrong(format!("{name} is {value}"))),
            },
        };
        for (prefix, params) in [("", &mut generation.thinker), ("talker_", &mut generation.talker)] {
            float(&format!("{prefix}temperature"), &mut params.temperature)?;
            float(&format!("{prefix}top_p"), &mut params.top_p)?;
            float(&format!("{prefix}repetition_penalty"), &mut params.repetition)?;
            count(&format!("{prefix}top_k"), &mut params.top_k)?;
        }
        count("thinker_max_new_tokens", &mut generation.max_words)?;
        count("talker_max_new_tokens", &mut generation.max_frames)?;
        if generation.thinker.repetition == 0.0 || generation.talker.repetition == 0.0 {
            return Err(wrong("a repetition penalty is 0".into()));
        }
        Ok(generation)
    }
}
