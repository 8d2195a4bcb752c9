//! Decoders: the thinker, the talker, the code predictor and the vocoder's transformer are of one kind.

use super::Fields;
use crate::omni::OmniError;

/// Positions that a configuration may have.
const LONGEST_CONTEXT: usize = 1 << 31;

/// A pre-norm decoder with rotary positions and grouped queries.
#[derive(Clone, Debug, PartialEq)]
pub struct TextConfig {
    /// `vocab_size`.
    pub vocabulary: usize,
    /// `hidden_size`.
    pub hidden: usize,
    /// `num_hidden_layers`.
    pub layers: usize,
    /// `num_attention_heads`.
    pub heads: usize,
    /// `num_key_value_heads`.
    pub kv_heads: usize,
    /// `head_dim`: not a field of the reference's class, but of the file.
    pub head_dim: usize,
    /// `rms_norm_eps`.
    pub norm_eps: f32,
    /// `max_position_embeddings`.
    pub context: usize,
    /// The positions' angles.
    pub rope: RopeConfig,
    /// The feed-forward layers.
    pub feed_forward: FeedForwardConfig,
}

/// A feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForwardConfig {
    /// One gated network of that inner width.
    Dense {
        /// `intermediate_size`.
        inner: usize,
    },
    /// Experts, of which a router takes a few.
    Experts {
        /// `num_experts`.
        experts: usize,
        /// `num_experts_per_tok`.
        top_k: usize,
        /// `moe_intermediate_size`.
        inner: usize,
        /// `norm_topk_prob`.
        normalise: bool,
        /// `shared_expert_intermediate_size` of the expert that all tokens share.
        shared: Option<usize>,
    },
}

/// The angles of positions.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeConfig {
    /// `rope_theta`.
    pub base: f64,
    /// `mrope_section`: pairs that follow time, height and width; the latter two are interleaved from the start.
    pub sections: Option<[usize; 3]>,
    /// How positions beyond the trained ones are reached.
    pub scaling: Scaling,
}

/// How positions beyond the trained ones are reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// YaRN (arXiv 2309.00071).
    Yarn {
        /// How much longer the context becomes.
        factor: f64,
        /// Positions of training.
        trained: usize,
    },
}

impl TextConfig {
    /// A decoder of experts.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, OmniError> {
        Self::with_experts(fields, None)
    }

    /// A decoder of experts and an expert that all tokens share.
    pub(super) fn read_shared(fields: &Fields<'_>) -> Result<Self, OmniError> {
        Self::with_experts(fields, Some(fields.size("shared_expert_intermediate_size")?))
    }

    fn with_experts(fields: &Fields<'_>, shared: Option<usize>) -> Result<Self, OmniError> {
        let experts = fields.size(fields.either("num_experts", "num_local_experts"))?;
        let top_k = fields.size("num_experts_per_tok")?;
        if top_k > experts {
            return Err(fields.error("num_experts_per_tok", format!("is {top_k} of {experts} experts")));
        }
        // A dense layer among the layers of experts is not computed here.
        if fields.optional("mlp_only_layers").is_some() && !fields.indices("mlp_only_layers")?.is_empty() {
            return Err(fields.error("mlp_only_layers", "is not empty"));
        }
        if fields.optional("decoder_sparse_step").is_some() && fields.size("decoder_sparse_step")? != 1 {
            return Err(fields.error("decoder_sparse_step", "is not 1"));
        }
        let inner = fields.size("moe_intermediate_size")?;
        let normalise = fields.flag("norm_topk_prob")?;
        Self::with(fields, FeedForwardConfig::Experts { experts, top_k, inner, normalise, shared })
    }

    /// A decoder with dense layers.
    pub(super) fn read_dense(fields: &Fields<'_>) -> Result<Self, OmniError> {
        Self::with(fields, FeedForwardConfig::Dense { inner: fields.size("intermediate_size")? })
    }

    fn with(fields: &Fields<'_>, feed_forward: FeedForwardConfig) -> Result<Self, OmniError> {
        fields.expect("hidden_act", "silu")?;
        fields.refuse("attention_bias", true)?;
        fields.refuse("use_sliding_window", true)?;
        let (heads, kv_heads) = (fields.size("num_attention_heads")?, fields.size("num_key_value_heads")?);
        if !heads.is_multiple_of(kv_heads) {
            return Err(fields.error("num_key_value_heads", format!("is {kv_heads}, which does not divide {heads}")));
        }
        let head_dim = fields.size("head_dim")?;
        if !head_dim.is_multiple_of(2) {
            return Err(fields.error("head_dim", format!("is {head_dim}, which is odd")));
        }
        Ok(Self {
            vocabulary: fields.size("vocab_size")?,
            hidden: fields.size("hidden_size")?,
            layers: fields.size("num_hidden_layers")?,
            heads,
            kv_heads,
            head_dim,
            norm_eps: fields.float("rms_norm_eps")? as f32,
            context: fields.size_to("max_position_embeddings", LONGEST_CONTEXT)?,
            rope: RopeConfig::read(fields, head_dim)?,
            feed_forward,
        })
    }

    /// Positions that rows may have: those of the configuration, or as many as scaling reaches.
    pub fn reach(&self) -> usize {
        match self.rope.scaling {
            Scaling::None => self.context,
            Scaling::Yarn { factor, trained } => self.context.max((trained as f64 * factor) as usize),
        }
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

impl RopeConfig {
    /// Newer files have all of it in `rope_parameters`, older ones `rope_theta` beside `rope_scaling`.
    pub(super) fn read(fields: &Fields<'_>, head_dim: usize) -> Result<Self, OmniError> {
        let newer = fields.optional("rope_parameters").is_some();
        let base =
            if newer { fields.object("rope_parameters")?.float("rope_theta")? } else { fields.float("rope_theta")? };
        let name = if newer { "rope_parameters" } else { "rope_scaling" };
        if fields.optional(name).is_none() {
            return Ok(Self { base, sections: None, scaling: Scaling::None });
        }
        let rope = fields.object(name)?;
        let kind = rope.either("rope_type", "type");
        let scaling = match rope.text(kind)? {
            "default" | "mrope" => Scaling::None,
            "yarn" => Scaling::Yarn {
                factor: rope.float("factor")?,
                trained: rope.size_to("original_max_position_embeddings", LONGEST_CONTEXT)?,
            },
            other => return Err(rope.error(kind, format!("is `{other}`; known are `default` and `yarn`"))),
        };
        let sections = match rope.optional("mrope_section") {
            None => None,
            Some(_) => {
                let sections: [usize; 3] = rope
                    .indices("mrope_section")?
                    .try_into()
                    .map_err(|_| rope.error("mrope_section", "has not three entries"))?;
                if sections.iter().sum::<usize>() != head_dim / 2 {
                    let problem = format!("is {sections:?}, which does not add up to {}", head_dim / 2);
                    return Err(rope.error("mrope_section", problem));
                }
                let interleaved = rope.either("interleaved", "mrope_interleaved");
                if !rope.flag(interleaved)? {
                    return Err(rope.error(interleaved, "is false; known is true"));
                }
                Some(sections)
            }
        };
        Ok(Self { base, sections, scaling })
    }
}
