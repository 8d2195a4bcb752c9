//! The shape of a model, from its file's metadata.

use causerie_kernels::ops::rope::Pairing;

use super::LmError;
use super::gguf::Gguf;

/// Shape and constants of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `general.architecture`.
    pub architecture: String,
    /// Layers.
    pub layers: usize,
    /// Values of the residual stream.
    pub hidden: usize,
    /// Inner values of a dense feed-forward layer, or of one expert.
    pub feed_forward: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Values of a head that carry the position.
    pub rope_dims: usize,
    /// Base of the position's angles.
    pub rope_base: f32,
    /// How values of a head are paired for the position.
    pub rope_pairing: Pairing,
    /// Added to the mean square under the root.
    pub norm_eps: f32,
    /// Tokens that the model was trained for.
    pub context: usize,
}

/// Families whose layers are known here: name in the file, pairing of the position.
const FAMILIES: &[(&str, Pairing)] =
    &[("llama", Pairing::Adjacent), ("qwen2", Pairing::Halves), ("qwen3", Pairing::Halves)];

impl Config {
    /// Reads and checks the metadata.
    pub(super) fn read(file: &Gguf) -> Result<Self, LmError> {
        let architecture = file.required_text("general.architecture")?;
        let Some((name, rope_pairing)) = FAMILIES.iter().find(|(name, _)| *name == architecture) else {
            let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
            return Err(file.malformed(
                "general.architecture",
                format!("is `{architecture}`; supported are {}", known.join(", ")),
            ));
        };
        let size = |key: &str| file.required_size(&format!("{name}.{key}"));
        let heads = size("attention.head_count")?;
        let hidden = size("embedding_length")?;
        let kv_heads = file.size(&format!("{name}.attention.head_count_kv"))?.unwrap_or(heads);
        let by_heads = hidden.checked_div(heads).unwrap_or(0);
        let head_dim = file.size(&format!("{name}.attention.key_length"))?.unwrap_or(by_heads);
        let config = Self {
            architecture: architecture.to_owned(),
            layers: size("block_count")?,
            hidden,
            feed_forward: size("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            rope_dims: file.size(&format!("{name}.rope.dimension_count"))?.unwrap_or(head_dim),
            rope_base: file.float(&format!("{name}.rope.freq_base"))?.unwrap_or(10_000.0),
            rope_pairing: *rope_pairing,
            norm_eps: file.required_float(&format!("{name}.attention.layer_norm_rms_epsilon"))?,
            context: size("context_length")?,
        };
        config.check(file)?;
        if let Some(kind) = file.text(&format!("{name}.rope.scaling.type"))?
            && kind != "none"
        {
            return Err(file.malformed(format!("{name}.rope.scaling.type"), format!("is `{kind}`, which is not known")));
        }
        Ok(config)
    }

    fn check(&self, file: &Gguf) -> Result<(), LmError> {
        /// Far above every published model, and small enough that no product of two overflows.
        const LARGEST: usize = 1 << 24;
        let name = &self.architecture;
        for (key, value) in [
            ("block_count", self.layers),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("attention.key_length", self.head_dim),
            ("rope.dimension_count", self.rope_dims),
            ("context_length", self.context),
        ] {
            if value == 0 || value > LARGEST {
                return Err(file.malformed(format!("{name}.{key}"), format!("is {value}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let problem = format!("is {}, which does not divide {} heads", self.kv_heads, self.heads);
            return Err(file.malformed(format!("{name}.attention.head_count_kv"), problem));
        }
        if !self.rope_dims.is_multiple_of(2) || self.rope_dims > self.head_dim {
            let problem = format!("is {} of {} values", self.rope_dims, self.head_dim);
            return Err(file.malformed(format!("{name}.rope.dimension_count"), problem));
        }
        if self.rope_base <= 0.0 || self.norm_eps < 0.0 {
            return Err(file.malformed(name.as_str(), "has a negative constant"));
        }
        Ok(())
    }

    /// Values of all heads of queries.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Values of all heads of keys.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}
