//! The networks that speak.

use super::{Fields, RopeConfig, TextConfig};
use crate::omni::OmniError;

/// Samples that a frame may have: two seconds.
const LONGEST_FRAME: usize = 48_000;

/// The talker and its code predictor.
#[derive(Clone, Debug, PartialEq)]
pub struct TalkerConfig {
    /// The decoder over codec frames.
    pub text: TextConfig,
    /// The decoder inside a frame.
    pub predictor: TextConfig,
    /// `num_code_groups`: codes of a frame.
    pub code_groups: usize,
    /// `thinker_hidden_size`.
    pub thinker_hidden: usize,
    /// Inner width of the projections from the thinker: the talker's `intermediate_size`.
    pub projection: usize,
    /// `accept_hidden_layer`: layers of the thinker whose output the talker hears media through.
    pub accept_hidden_layer: usize,
    /// Tokens of the codec's form.
    pub ids: CodecIds,
    /// `speaker_id`: voices and their tokens.
    pub speakers: Vec<(String, u32)>,
}

/// Tokens that give a codec sequence its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They are what they are called.
pub struct CodecIds {
    pub pad: u32,
    pub bos: u32,
    pub eos: u32,
    pub nothink: u32,
    pub think_bos: u32,
    pub think_eos: u32,
}

impl TalkerConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, OmniError> {
        let text = fields.object("text_config")?;
        let config = Self {
            projection: text.size("intermediate_size")?,
            text: TextConfig::read_shared(&text)?,
            predictor: TextConfig::read_dense(&fields.object("code_predictor_config")?)?,
            code_groups: fields.size("num_code_groups")?,
            thinker_hidden: fields.size("thinker_hidden_size")?,
            accept_hidden_layer: fields.size("accept_hidden_layer")?,
            ids: CodecIds {
                pad: fields.token("codec_pad_id")?,
                bos: fields.token("codec_bos_id")?,
                eos: fields.token("codec_eos_token_id")?,
                nothink: fields.token("codec_nothink_id")?,
                think_bos: fields.token("codec_think_bos_id")?,
                think_eos: fields.token("codec_think_eos_id")?,
            },
            speakers: fields.tokens("speaker_id")?,
        };
        let CodecIds { pad, bos, eos, nothink, think_bos, think_eos } = config.ids;
        let voices = config.speakers.iter().map(|(name, id)| (name.as_str(), *id));
        let named = [
            ("codec_pad_id", pad),
            ("codec_bos_id", bos),
            ("codec_eos_token_id", eos),
            ("codec_nothink_id", nothink),
            ("codec_think_bos_id", think_bos),
            ("codec_think_eos_id", think_eos),
        ];
        if let Some((name, id)) = named.into_iter().chain(voices).find(|(_, id)| *id as usize >= config.text.vocabulary)
        {
            let problem = format!("is {id}, outside of the vocabulary of {}", config.text.vocabulary);
            return Err(fields.error(name, problem));
        }
        if config.code_groups < 2 {
            return Err(fields.error("num_code_groups", "is 1; known are two and more"));
        }
        if config.predictor.vocabulary > config.text.vocabulary {
            return Err(fields.error("code_predictor_config.vocab_size", "is larger than the talker's"));
        }
        if config.speakers.is_empty() {
            return Err(fields.error("speaker_id", "names no voice"));
        }
        Ok(config)
    }
}

/// The vocoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Code2WavConfig {
    /// `codebook_size`.
    pub codebook: usize,
    /// `num_quantizers`.
    pub quantizers: usize,
    /// `hidden_size`.
    pub hidden: usize,
    /// `intermediate_size`.
    pub inner: usize,
    /// `num_hidden_layers`.
    pub layers: usize,
    /// `num_attention_heads`.
    pub heads: usize,
    /// `num_key_value_heads`.
    pub kv_heads: usize,
    /// `head_dim`, or the hidden size over the heads.
    pub head_dim: usize,
    /// `sliding_window`.
    pub window: usize,
    /// `decoder_dim`.
    pub channels: usize,
    /// `rms_norm_eps`.
    pub norm_eps: f32,
    /// `upsample_rates` of the decoder's blocks.
    pub rates: Vec<usize>,
    /// `upsampling_ratios` before the decoder.
    pub ratios: Vec<usize>,
    /// The positions' angles.
    pub rope: RopeConfig,
}

impl Code2WavConfig {
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, OmniError> {
        fields.expect("hidden_act", "silu")?;
        fields.refuse("attention_bias", true)?;
        let (hidden, heads) = (fields.size("hidden_size")?, fields.size("num_attention_heads")?);
        let head_dim = match fields.optional("head_dim") {
            Some(_) => fields.size("head_dim")?,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => return Err(fields.error("num_attention_heads", format!("is {heads}, hidden_size {hidden}"))),
        };
        let config = Self {
            codebook: fields.size("codebook_size")?,
            quantizers: fields.size("num_quantizers")?,
            hidden,
            inner: fields.size("intermediate_size")?,
            layers: fields.size("num_hidden_layers")?,
            heads,
            kv_heads: fields.size("num_key_value_heads")?,
            head_dim,
            window: fields.size("sliding_window")?,
            channels: fields.size("decoder_dim")?,
            norm_eps: fields.float("rms_norm_eps")? as f32,
            rates: fields.indices("upsample_rates")?,
            ratios: fields.indices("upsampling_ratios")?,
            rope: RopeConfig::read(fields, head_dim)?,
        };
        if !config.heads.is_multiple_of(config.kv_heads) || !head_dim.is_multiple_of(2) {
            return Err(fields.error("num_key_value_heads", format!("is {} of {heads} heads", config.kv_heads)));
        }
        // The channels are halved by every block.
        if config.rates.contains(&0) || config.channels.checked_shr(config.rates.len() as u32).unwrap_or(0) == 0 {
            return Err(
                fields.error("upsample_rates", format!("is {:?} for decoder_dim {}", config.rates, config.channels))
            );
        }
        let samples = config.rates.iter().chain(&config.ratios).try_fold(1_usize, |all, rate| all.checked_mul(*rate));
        if config.ratios.contains(&0) || samples.is_none_or(|samples| samples > LONGEST_FRAME) {
            return Err(fields.error("upsampling_ratios", format!("is {:?} after {:?}", config.ratios, config.rates)));
        }
        Ok(config)
    }

    /// Samples of a frame.
    pub fn samples_per_frame(&self) -> usize {
        self.rates.iter().chain(&self.ratios).product()
    }
}
