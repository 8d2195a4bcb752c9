//! The shape of a model, from its `config.json`. Names are the checkpoint's.

mod fields;
mod media;
mod speech;
mod text;

use std::path::Path;

use serde_json::Value;

use self::fields::Fields;
use super::OmniError;

pub use media::{AudioConfig, VisionConfig};
pub use speech::{Code2WavConfig, CodecIds, TalkerConfig};
pub use text::{FeedForwardConfig, RopeConfig, Scaling, TextConfig};

/// Everything about a checkpoint but its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Understands and writes.
    pub thinker: ThinkerConfig,
    /// Speaks what is written.
    pub talker: TalkerConfig,
    /// Makes sound of what is spoken.
    pub code2wav: Code2WavConfig,
    /// Tokens of the dialogue's form.
    pub ids: DialogueIds,
}

/// The thinker and its senses.
#[derive(Clone, Debug, PartialEq)]
pub struct ThinkerConfig {
    /// The decoder.
    pub text: TextConfig,
    /// The audio tower.
    pub audio: AudioConfig,
    /// The vision tower.
    pub vision: VisionConfig,
    /// Placeholders and their delimiters.
    pub media: MediaIds,
    /// Positions on the time axis to a second.
    pub positions_per_second: f64,
}

/// Tokens that stand for media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They are what they are called.
pub struct MediaIds {
    pub audio: u32,
    pub image: u32,
    pub video: u32,
    pub audio_start: u32,
    pub audio_end: u32,
    pub vision_start: u32,
    pub vision_end: u32,
}

impl MediaIds {
    /// Whether a token stands for a row of a tower's output.
    pub fn is_placeholder(&self, token: u32) -> bool {
        [self.audio, self.image, self.video].contains(&token)
    }
}

/// Tokens that give a dialogue its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // They are what they are called.
pub struct DialogueIds {
    pub im_start: u32,
    pub im_end: u32,
    pub system: u32,
    pub user: u32,
    pub assistant: u32,
    pub tts_pad: u32,
    pub tts_bos: u32,
    pub tts_eos: u32,
}

impl Config {
    /// Reads `config.json` of the folder `dir`.
    ///
    /// # Errors
    /// [`OmniError::Config`] naming the field that is missing or wrong.
    pub fn read(dir: &Path) -> Result<Self, OmniError> {
        let path = dir.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(|e| OmniError::malformed(&path, e.to_string()))?;
        Self::parse(&text).map_err(|error| match error {
            OmniError::Malformed { problem, .. } => OmniError::malformed(&path, problem),
            other => other,
        })
    }

    /// As [`Config::read`], from the file's text.
    ///
    /// # Errors
    /// The same.
    pub fn parse(text: &str) -> Result<Self, OmniError> {
        let value: Value =
            serde_json::from_str(text).map_err(|e| OmniError::malformed("config.json", e.to_string()))?;
        let root = Fields::root(&value);
        let config = Self {
            thinker: ThinkerConfig::read(&root.object("thinker_config")?)?,
            talker: TalkerConfig::read(&root.object("talker_config")?)?,
            code2wav: Code2WavConfig::read(&root.object("code2wav_config")?)?,
            ids: DialogueIds {
                im_start: root.token("im_start_token_id")?,
                im_end: root.token("im_end_token_id")?,
                system: root.token("system_token_id")?,
                user: root.token("user_token_id")?,
                assistant: root.token("assistant_token_id")?,
                tts_pad: root.token("tts_pad_token_id")?,
                tts_bos: root.token("tts_bos_token_id")?,
                tts_eos: root.token("tts_eos_token_id")?,
            },
        };
        config.check()?;
        Ok(config)
    }

    /// What one part says of another must be true.
    fn check(&self) -> Result<(), OmniError> {
        let agree = |field: &str, found: usize, other: &str, expected: usize| {
            let problem = || OmniError::config(field, format!("is {found}, but {other} is {expected}"));
            if found == expected { Ok(()) } else { Err(problem()) }
        };
        let (text, talker) = (&self.thinker.text, &self.talker);
        let hidden = "thinker_config.text_config.hidden_size";
        agree("thinker_config.audio_config.output_dim", self.thinker.audio.output, hidden, text.hidden)?;
        agree("thinker_config.vision_config.out_hidden_size", self.thinker.vision.output, hidden, text.hidden)?;
        agree("talker_config.thinker_hidden_size", talker.thinker_hidden, hidden, text.hidden)?;
        let groups = "talker_config.num_code_groups";
        agree("code2wav_config.num_quantizers", self.code2wav.quantizers, groups, talker.code_groups)?;
        let codes = "talker_config.code_predictor_config.vocab_size";
        agree("code2wav_config.codebook_size", self.code2wav.codebook, codes, talker.predictor.vocabulary)?;
        let width = "talker_config.text_config.hidden_size";
        let field = "talker_config.code_predictor_config.hidden_size";
        agree(field, talker.predictor.hidden, width, talker.text.hidden)?;
        if talker.accept_hidden_layer > text.layers {
            let problem = format!("is {} of {} layers", talker.accept_hidden_layer, text.layers);
            return Err(OmniError::config("talker_config.accept_hidden_layer", problem));
        }
        if self.thinker.vision.deepstack.len() > text.layers {
            let problem = format!("has more entries than the thinker's {} layers", text.layers);
            return Err(OmniError::config("thinker_config.vision_config.deepstack_visual_indexes", problem));
        }
        let outside = self.named_ids().into_iter().find(|(_, token)| *token as usize >= text.vocabulary);
        outside.map_or(Ok(()), |(field, token)| {
            let problem = format!("is {token}, outside of the vocabulary of {}", text.vocabulary);
            Err(OmniError::config(field, problem))
        })
    }

    /// The tokens that mean something, by their fields.
    pub(super) fn named_ids(&self) -> [(&'static str, u32); 15] {
        let (ids, media) = (&self.ids, &self.thinker.media);
        [
            ("im_start_token_id", ids.im_start),
            ("im_end_token_id", ids.im_end),
            ("system_token_id", ids.system),
            ("user_token_id", ids.user),
            ("assistant_token_id", ids.assistant),
            ("tts_pad_token_id", ids.tts_pad),
            ("tts_bos_token_id", ids.tts_bos),
            ("tts_eos_token_id", ids.tts_eos),
            ("thinker_config.audio_token_id", media.audio),
            ("thinker_config.image_token_id", media.image),
            ("thinker_config.video_token_id", media.video),
            ("thinker_config.audio_start_token_id", media.audio_start),
            ("thinker_config.audio_end_token_id", media.audio_end),
            ("thinker_config.vision_start_token_id", media.vision_start),
            ("thinker_config.vision_end_token_id", media.vision_end),
        ]
    }
}

impl ThinkerConfig {
    fn read(fields: &Fields<'_>) -> Result<Self, OmniError> {
        Ok(Self {
            text: TextConfig::read(&fields.object("text_config")?)?,
            audio: AudioConfig::read(&fields.object("audio_config")?)?,
            vision: VisionConfig::read(&fields.object("vision_config")?)?,
            media: MediaIds {
                audio: fields.token("audio_token_id")?,
                image: fields.token("image_token_id")?,
                video: fields.token("video_token_id")?,
                audio_start: fields.token("audio_start_token_id")?,
                audio_end: fields.token("audio_end_token_id")?,
                vision_start: fields.token("vision_start_token_id")?,
                vision_end: fields.token("vision_end_token_id")?,
            },
            positions_per_second: fields.float("position_id_per_seconds")?,
        })
    }
}
