//! The towers that hear and see.

use super::Fields;
use crate::omni::OmniError;

/// The longest chunk of speech, half of it in mel frames: no tensor tells of it.
const LONGEST_WINDOW: usize = 1_500;
/// The largest side of a patch, in pixels, and of what becomes one token, in patches.
const LARGEST_PATCH: usize = 256;
const LARGEST_MERGE: usize = 16;

/// The audio tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioConfig {
    /// `num_mel_bins`.
    pub mels: usize,
    /// `encoder_layers`.
    pub layers: usize,
    /// `encoder_attention_heads`.
    pub heads: usize,
    /// `encoder_ffn_dim`.
    pub inner: usize,
    /// `d_model`.
    pub hidden: usize,
    /// `downsample_hidden_size`: channels of the convolutions.
    pub channels: usize,
    /// `output_dim`.
    pub output: usize,
    /// Twice `n_window`: mel frames that are convolved together.
    pub chunk: usize,
    /// `n_window_infer`: mel frames that attend to each other.
    pub block: usize,
}

impl AudioConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, OmniError> {
        fields.expect("activation_function", "gelu")?;
        fields.refuse("scale_embedding", true)?;
        let config = Self {
            mels: fields.size("num_mel_bins")?,
            layers: fields.size("encoder_layers")?,
            heads: fields.size("encoder_attention_heads")?,
            inner: fields.size("encoder_ffn_dim")?,
            hidden: fields.size("d_model")?,
            channels: fields.size("downsample_hidden_size")?,
            output: fields.size("output_dim")?,
            chunk: 2 * fields.size_to("n_window", LONGEST_WINDOW)?,
            block: fields.size("n_window_infer")?,
        };
        if !config.hidden.is_multiple_of(2 * config.heads) || config.hidden < 4 {
            return Err(fields.error("d_model", format!("is {} for {} heads", config.hidden, config.heads)));
        }
        if !config.block.is_multiple_of(config.chunk) {
            let problem = format!("is {}, not a multiple of {} (twice n_window)", config.block, config.chunk);
            return Err(fields.error("n_window_infer", problem));
        }
        Ok(config)
    }

    /// Tokens of `frames` mel frames.
    pub fn tokens(&self, frames: usize) -> usize {
        let halved = |n: usize| n.div_ceil(2);
        let of = |n: usize| halved(halved(halved(n)));
        frames / self.chunk * of(self.chunk) + of(frames % self.chunk)
    }
}

/// The vision tower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VisionConfig {
    /// `depth`.
    pub layers: usize,
    /// `hidden_size`.
    pub hidden: usize,
    /// `intermediate_size`.
    pub inner: usize,
    /// `num_heads`.
    pub heads: usize,
    /// `in_channels`.
    pub channels: usize,
    /// `patch_size`.
    pub patch: usize,
    /// `temporal_patch_size`: frames of a patch.
    pub frames: usize,
    /// `spatial_merge_size`: patches that become one token, in each direction.
    pub merge: usize,
    /// `out_hidden_size`.
    pub output: usize,
    /// The side of the square table of positions: `num_position_embeddings` counts its entries. The published checkpoints
    /// do not have that field; theirs has an entry for every patch of a picture of `image_size`.
    pub side: usize,
    /// `deepstack_visual_indexes`: layers whose output goes to the thinker's first layers.
    pub deepstack: Vec<usize>,
}

impl VisionConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, OmniError> {
        fields.expect("hidden_act", "gelu_pytorch_tanh")?;
        fields.refuse("apply_vit_abs_pos_embed", false)?;
        let side = side(fields)?;
        let config = Self {
            layers: fields.size("depth")?,
            hidden: fields.size("hidden_size")?,
            inner: fields.size("intermediate_size")?,
            heads: fields.size("num_heads")?,
            channels: fields.size("in_channels")?,
            patch: fields.size_to("patch_size", LARGEST_PATCH)?,
            frames: fields.size("temporal_patch_size")?,
            merge: fields.size_to("spatial_merge_size", LARGEST_MERGE)?,
            output: fields.size("out_hidden_size")?,
            side,
            deepstack: fields.indices("deepstack_visual_indexes")?,
        };
        if !config.hidden.is_multiple_of(4 * config.heads) {
            return Err(fields.error("hidden_size", format!("is {} for {} heads", config.hidden, config.heads)));
        }
        let increasing = config.deepstack.is_sorted_by(|a, b| a < b);
        if !increasing || config.deepstack.last().is_some_and(|&last| last >= config.layers) {
            return Err(fields.error("deepstack_visual_indexes", format!("is {:?}", config.deepstack)));
        }
        Ok(config)
    }

    /// Values of a patch: channels, frames, rows, columns.
    pub fn patch_values(&self) -> usize {
        self.channels * self.frames * self.patch * self.patch
    }
}

fn side(fields: &Fields<'_>) -> Result<usize, OmniError> {
    let field = fields.either("num_position_embeddings", "image_size");
    let value = fields.size(field)?;
    let (side, whole) = if field == "image_size" {
        let patch = fields.size("patch_size")?;
        (value / patch, value.is_multiple_of(patch))
    } else {
        (value.isqrt(), value.isqrt().pow(2) == value)
    };
    if !whole || side < 2 {
        return Err(fields.error(field, format!("is {value}, which is no square of patches")));
    }
    Ok(side)
}
