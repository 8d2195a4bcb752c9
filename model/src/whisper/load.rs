//! From the files of a model to weights packed for this machine.

use std::path::{Path, PathBuf};

use causerie_kernels::mmap::Mapped;
use causerie_kernels::ops::conv1d;
use causerie_kernels::ops::linear::{WeightType, Weights, quantise_q8_0};
use causerie_kernels::ops::log_mel::LogMel;
use causerie_kernels::{KernelError, Pool};
use half::f16;
use half::vec::HalfFloatVecExt;
use serde::Deserialize;

use super::ct2::Tensors;
use super::decoder::{CrossAttention, Decoder};
use super::encoder::{Conv, Encoder};
use super::greedy::Rules;
use super::layers::{FeedForward, Linear, Norm, SelfAttention};
use super::tokenizer::Vocabulary;
use super::window::Plan;
use super::{Whisper, WhisperError, decoder, encoder};

/// How weights are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Precision {
    pub(super) encoder: WeightType,
    pub(super) decoder: WeightType,
    pub(super) embeddings: WeightType,
}

impl Default for Precision {
    fn default() -> Self {
        Self { encoder: WeightType::F32, decoder: WeightType::Q8_0, embeddings: WeightType::Q8_0 }
    }
}

/// Tokens of English-only models; the others have at least one more (openai/whisper, model.py).
const ENGLISH_TOKENS: usize = 51_864;
/// The activation of Whisper in CTranslate2's numbering.
const GELU: i64 = 3;
/// Positions for the instructions, a draft and some text.
const MIN_POSITIONS: usize = 64;
/// More than any Whisper has, so that sums of sizes cannot overflow.
const MAX_WIDTH: usize = 1 << 13;

/// What of `config.json` matters here.
#[derive(Deserialize)]
struct Config {
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
}

pub(super) fn load(pool: &Pool, dir: &Path, precision: Precision) -> Result<Whisper, WhisperError> {
    let (vocabulary, config) = (read_vocabulary(dir)?, read_config(&dir.join("config.json"))?);
    let path = dir.join("model.bin");
    let file = Mapped::open(&path)?;
    let weights = Loader { pool, path: &path, tensors: Tensors::parse(file.bytes()).map_err(|e| malformed(&path, e))? };
    if weights.tensors.specification != "WhisperSpec" {
        let reason = format!("it is a {}, not a WhisperSpec", weights.tensors.specification);
        return Err(WhisperError::Unsupported { path: path.display().to_string(), reason });
    }
    let encoder = weights.encoder(precision)?;
    let decoder = weights.decoder(precision, encoder.width)?;
    if decoder.embeddings.n() != vocabulary.len() {
        let reason = format!("it has {} tokens, the vocabulary {}", decoder.embeddings.n(), vocabulary.len());
        return Err(malformed(&path, reason));
    }
    if decoder.max_tokens() < MIN_POSITIONS || encoder.max_rows() == 0 {
        return Err(malformed(&path, format!("it has positions for {} tokens", decoder.max_tokens())));
    }
    let rules = Rules::new(&vocabulary, &config.suppress_ids, &config.suppress_ids_begin);
    Ok(Whisper { encoder, decoder, vocabulary, rules, plan: Plan::default() })
}

fn malformed(path: &Path, reason: impl ToString) -> WhisperError {
    WhisperError::Malformed { path: path.display().to_string(), reason: reason.to_string() }
}

fn read(path: &Path) -> Result<String, WhisperError> {
    std::fs::read_to_string(path).map_err(|source| WhisperError::Io { path: path.display().to_string(), source })
}

fn read_config(path: &Path) -> Result<Config, WhisperError> {
    serde_json::from_str(&read(path)?).map_err(|e| malformed(path, e))
}

fn read_vocabulary(dir: &Path) -> Result<Vocabulary, WhisperError> {
    let json: PathBuf = dir.join("vocabulary.json");
    let (path, tokens): (_, Vec<String>) = if json.exists() {
        let tokens = serde_json::from_str(&read(&json)?).map_err(|e| malformed(&json, e))?;
        (json, tokens)
    } else {
        let text = dir.join("vocabulary.txt");
        let tokens = read(&text)?.lines().map(str::to_owned).collect();
        (text, tokens)
    };
    Vocabulary::new(&tokens, tokens.len() > ENGLISH_TOKENS).map_err(|e| malformed(&path, e))
}

struct Loader<'a> {
    pool: &'a Pool,
    path: &'a Path,
    tensors: Tensors<'a>,
}

impl Loader<'_> {
    fn encoder(&self, precision: Precision) -> Result<Encoder, WhisperError> {
        let kind = precision.encoder;
        let &[width, mels, kernel] = &*self.shape("encoder/conv1/weight")? else {
            return Err(malformed(self.path, "variable encoder/conv1/weight is not a convolution"));
        };
        if width == 0 || width > MAX_WIDTH || mels == 0 || mels > MAX_WIDTH || kernel != 3 {
            return Err(malformed(self.path, format!("a convolution of {mels} bands to {width} by {kernel}")));
        }
        let layer = |prefix: &str| {
            Ok(encoder::Layer {
                attention: self.self_attention(prefix, width, kind)?,
                feed_forward: self.feed_forward(prefix, width, kind)?,
            })
        };
        Ok(Encoder {
            mel: LogMel::new(mels),
            conv1: self.conv("encoder/conv1", mels, width)?,
            conv2: self.conv("encoder/conv2", width, width)?,
            positions: self.positions("encoder", width)?,
            layers: self.layers("encoder", layer)?,
            norm: self.norm("encoder/layer_norm", width)?,
            heads: self.heads("encoder", width)?,
            width,
        })
    }

    fn decoder(&self, precision: Precision, width: usize) -> Result<Decoder, WhisperError> {
        let kind = precision.decoder;
        for flag in ["decoder/scale_embeddings", "decoder/start_from_zero_embedding", "decoder/alibi"] {
            self.expect(flag, 0)?;
        }
        self.expect("decoder/pre_norm", 1)?;
        self.expect("decoder/activation", GELU)?;
        let layer = |prefix: &str| {
            Ok(decoder::Layer {
                self_attention: self.self_attention(prefix, width, kind)?,
                cross_attention: CrossAttention {
                    norm: self.norm(&format!("{prefix}/attention/layer_norm"), width)?,
                    query: self.linear(&format!("{prefix}/attention/linear_0"), width, width, kind)?,
                    // The encoder's rows go through it, like through the encoder's own layers.
                    key_value: self.linear(
                        &format!("{prefix}/attention/linear_1"),
                        2 * width,
                        width,
                        precision.encoder,
                    )?,
                    out: self.linear(&format!("{prefix}/attention/linear_2"), width, width, kind)?,
                },
                feed_forward: self.feed_forward(prefix, width, kind)?,
            })
        };
        let name = "decoder/embeddings/weight";
        let tokens = self.shape(name)?.first().copied().unwrap_or(0);
        Ok(Decoder {
            embeddings: self.matrix(name, tokens, width, precision.embeddings)?,
            positions: self.positions("decoder", width)?,
            layers: self.layers("decoder", layer)?,
            norm: self.norm("decoder/layer_norm", width)?,
            heads: self.heads("decoder", width)?,
            width,
        })
    }

    fn layers<L>(&self, side: &str, layer: impl Fn(&str) -> Result<L, WhisperError>) -> Result<Vec<L>, WhisperError> {
        let prefix = |i: usize| format!("{side}/layer_{i}");
        let there = |i: usize| self.tensors.get(&format!("{}/ffn/linear_0/weight", prefix(i))).is_ok();
        let layers = (0..).take_while(|&i| there(i)).map(|i| layer(&prefix(i))).collect::<Result<Vec<_>, _>>()?;
        if layers.is_empty() { Err(malformed(self.path, format!("its {side} has no layers"))) } else { Ok(layers) }
    }

    fn self_attention(&self, prefix: &str, width: usize, kind: WeightType) -> Result<SelfAttention, WhisperError> {
        let prefix = format!("{prefix}/self_attention");
        Ok(SelfAttention {
            norm: self.norm(&format!("{prefix}/layer_norm"), width)?,
            qkv: self.linear(&format!("{prefix}/linear_0"), 3 * width, width, kind)?,
            out: self.linear(&format!("{prefix}/linear_1"), width, width, kind)?,
        })
    }

    fn feed_forward(&self, prefix: &str, width: usize, kind: WeightType) -> Result<FeedForward, WhisperError> {
        let prefix = format!("{prefix}/ffn");
        let wide = self.shape(&format!("{prefix}/linear_0/weight"))?.first().copied().unwrap_or(0);
        Ok(FeedForward {
            norm: self.norm(&format!("{prefix}/layer_norm"), width)?,
            up: self.linear(&format!("{prefix}/linear_0"), wide, width, kind)?,
            down: self.linear(&format!("{prefix}/linear_1"), width, wide, kind)?,
        })
    }

    fn linear(&self, name: &str, n: usize, k: usize, kind: WeightType) -> Result<Linear, WhisperError> {
        Ok(Linear {
            weights: self.matrix(&format!("{name}/weight"), n, k, kind)?,
            bias: self.floats(&format!("{name}/bias"), &[n])?,
        })
    }

    fn matrix(&self, name: &str, n: usize, k: usize, kind: WeightType) -> Result<Weights, WhisperError> {
        let bytes = encode(kind, &self.floats(name, &[n, k])?)?;
        Ok(Weights::pack(self.pool, kind, n, k, &bytes)?)
    }

    fn conv(&self, name: &str, c_in: usize, c_out: usize) -> Result<Conv, WhisperError> {
        let weights = self.floats(&format!("{name}/weight"), &[c_out, c_in, 3])?;
        Ok(Conv {
            weights: conv1d::pack(self.pool, &weights, c_out, c_in, 3)?,
            bias: self.floats(&format!("{name}/bias"), &[c_out])?,
        })
    }

    fn norm(&self, name: &str, width: usize) -> Result<Norm, WhisperError> {
        Ok(Norm {
            gamma: self.floats(&format!("{name}/gamma"), &[width])?,
            beta: self.floats(&format!("{name}/beta"), &[width])?,
        })
    }

    fn positions(&self, side: &str, width: usize) -> Result<Vec<f32>, WhisperError> {
        let name = format!("{side}/position_encodings/encodings");
        let positions = self.shape(&name)?.first().copied().unwrap_or(0);
        self.floats(&name, &[positions, width])
    }

    fn heads(&self, side: &str, width: usize) -> Result<usize, WhisperError> {
        let name = format!("{side}/num_heads");
        let heads = self.tensors.integer(&name).map_err(|e| malformed(self.path, e))?;
        match usize::try_from(heads) {
            Ok(heads) if heads > 0 && width.is_multiple_of(heads * 8) => Ok(heads),
            _ => Err(malformed(self.path, format!("{heads} heads do not divide a width of {width}"))),
        }
    }

    fn expect(&self, name: &str, value: i64) -> Result<(), WhisperError> {
        match self.tensors.integer(name) {
            Ok(found) if found != value => Err(WhisperError::Unsupported {
                path: self.path.display().to_string(),
                reason: format!("{name} is {found}, not {value}"),
            }),
            // Files without the flag are older than it.
            _ => Ok(()),
        }
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>, WhisperError> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone()).map_err(|e| malformed(self.path, e))
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, WhisperError> {
        self.tensors.floats(name, shape).map_err(|e| malformed(self.path, e))
    }
}

/// Rows of weights in the bytes of a type.
fn encode(kind: WeightType, values: &[f32]) -> Result<Vec<u8>, KernelError> {
    match kind {
        WeightType::F32 => Ok(values.iter().copied().flat_map(f32::to_le_bytes).collect()),
        WeightType::F16 => Ok(Vec::from_f32_slice(values).into_iter().flat_map(f16::to_le_bytes).collect()),
        WeightType::Q8_0 => {
            let mut bytes = Vec::with_capacity(values.len() / 32 * 34);
            quantise_q8_0(values, &mut bytes);
            Ok(bytes)
        }
        other => Err(KernelError::Unsupported(format!("whisper weights are not kept as {other:?}"))),
    }
}
