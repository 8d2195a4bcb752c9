//! From a GGUF file's tensors to the network.

use causerie_kernels::Pool;
use causerie_kernels::ops::linear::{StoredType, WeightType, Weights};
use causerie_kernels::ops::rope::Rope;

use super::decoder::{Decoder, Layer, Projection};
use super::gguf::{Gguf, Tensor};
use super::moe::{Expert, FeedForward};
use super::{Config, LmError};

/// Packs every tensor and releases its pages at once, so that the process never holds the file twice.
pub(super) fn load(pool: &Pool, file: &Gguf, config: &Config, vocabulary: usize) -> Result<Decoder, LmError> {
    let loader = Loader { pool, file };
    let (hidden, inner) = (config.hidden, config.feed_forward);
    let factors = loader.optional_vector("rope_freqs.weight", config.rope_dims / 2)?;
    let layers = (0..config.layers).map(|i| {
        let name = |tensor: &str| format!("blk.{i}.{tensor}");
        let projection = |tensor: &str, n: usize| {
            Ok::<_, LmError>(Projection {
                weights: loader.matrix(&name(&format!("{tensor}.weight")), n, hidden)?,
                bias: loader.optional_vector(&name(&format!("{tensor}.bias")), n)?,
            })
        };
        Ok(Layer {
            attention_norm: loader.vector(&name("attn_norm.weight"), hidden)?,
            q: projection("attn_q", config.q_width())?,
            k: projection("attn_k", config.kv_width())?,
            v: projection("attn_v", config.kv_width())?,
            q_norm: loader.optional_vector(&name("attn_q_norm.weight"), config.head_dim)?,
            k_norm: loader.optional_vector(&name("attn_k_norm.weight"), config.head_dim)?,
            output: loader.matrix(&name("attn_output.weight"), hidden, config.q_width())?,
            feed_forward_norm: loader.vector(&name("ffn_norm.weight"), hidden)?,
            feed_forward: FeedForward::dense(Expert {
                gate: loader.matrix(&name("ffn_gate.weight"), inner, hidden)?,
                up: loader.matrix(&name("ffn_up.weight"), inner, hidden)?,
                down: loader.matrix(&name("ffn_down.weight"), hidden, inner)?,
            }),
        })
    });
    let layers = layers.collect::<Result<_, LmError>>()?;
    let tied = file.tensor("output.weight").is_none();
    Ok(Decoder {
        embedding: loader.matrix("token_embd.weight", vocabulary, hidden)?,
        layers,
        norm: loader.vector("output_norm.weight", hidden)?,
        head: if tied { None } else { Some(loader.matrix("output.weight", vocabulary, hidden)?) },
        rope: Rope::new(config.rope_dims, config.rope_base, factors.as_deref(), config.rope_pairing),
    })
}

struct Loader<'a> {
    pool: &'a Pool,
    file: &'a Gguf,
}

impl Loader<'_> {
    fn find(&self, name: &str, shape: &[usize]) -> Result<&Tensor, LmError> {
        let tensor = self.file.tensor(name).ok_or_else(|| self.file.malformed(name, "is missing"))?;
        if tensor.shape != shape {
            return Err(self.file.malformed(name, format!("has the shape {:?}; expected {shape:?}", tensor.shape)));
        }
        Ok(tensor)
    }

    /// A matrix `[n, k]`.
    fn matrix(&self, name: &str, n: usize, k: usize) -> Result<Weights, LmError> {
        let tensor = self.find(name, &[k, n])?;
        let bytes = self.file.bytes(tensor);
        let packed = match tensor.kind {
            StoredType::Kernel(kind) => Weights::pack(self.pool, kind, n, k, bytes),
            stored => {
                stored.convert(k, bytes).and_then(|bytes| Weights::pack(self.pool, stored.kernel_type(), n, k, &bytes))
            }
        };
        self.file.release(tensor);
        packed.map_err(|error| self.file.malformed(name, error.to_string()))
    }

    /// A vector of `n` floats.
    fn vector(&self, name: &str, n: usize) -> Result<Vec<f32>, LmError> {
        let tensor = self.find(name, &[n])?;
        let float = [WeightType::F32, WeightType::F16].map(StoredType::Kernel);
        if !float.contains(&tensor.kind) && tensor.kind != StoredType::Bf16 {
            return Err(self.file.malformed(name, format!("is stored as {:?}; expected F32", tensor.kind)));
        }
        let mut values = vec![0.0; n];
        tensor.kind.dequantise_row(self.file.bytes(tensor), &mut values);
        Ok(values)
    }

    fn optional_vector(&self, name: &str, n: usize) -> Result<Option<Vec<f32>>, LmError> {
        self.file.tensor(name).map(|_| self.vector(name, n)).transpose()
    }
}
