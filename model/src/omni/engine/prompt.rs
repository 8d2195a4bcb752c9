//! A conversation as rows of the thinker: ChatML with sounds in the place of words.

use std::sync::Arc;

use causerie_model_api::Role;

use super::history::{Clip, Entry, Piece};
use crate::lm::Tokenizer;
use crate::omni::config::Config;

/// One row of a prompt. Two prompts share their memory as far as their rows are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Token(u32),
    /// A row of a clip.
    Sound {
        clip: u64,
        row: u32,
    },
}

/// A conversation's rows, and the sounds among them.
#[derive(Clone, Default)]
pub(super) struct Prompt {
    pub(super) rows: Vec<Row>,
    pub(super) clips: Vec<Arc<Clip>>,
}

impl Prompt {
    /// Up to and including the opening of an answer.
    pub(super) fn new<'e>(
        config: &Config,
        tokenizer: &Tokenizer,
        instruction: &str,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> Self {
        let ids = &config.ids;
        let mut prompt = Self::default();
        let newline = tokenizer.encode("\n", false);
        if !instruction.is_empty() {
            prompt.tokens(&[ids.im_start, ids.system]);
            prompt.tokens(&newline);
            prompt.tokens(&tokenizer.encode(instruction, false));
            prompt.tokens(&[ids.im_end]);
            prompt.tokens(&newline);
        }
        for entry in entries {
            let role = if entry.role == Role::Model { ids.assistant } else { ids.user };
            prompt.tokens(&[ids.im_start, role]);
            prompt.tokens(&newline);
            for piece in &entry.pieces {
                match piece {
                    Piece::Text(text) => prompt.tokens(&tokenizer.encode(text, false)),
                    Piece::Sound(clip) => prompt.sound(config, clip),
                }
            }
            prompt.tokens(&[ids.im_end]);
            prompt.tokens(&newline);
        }
        prompt.tokens(&[ids.im_start, ids.assistant]);
        prompt.tokens(&newline);
        prompt
    }

    fn tokens(&mut self, tokens: &[u32]) {
        self.rows.extend(tokens.iter().map(|token| Row::Token(*token)));
    }

    fn sound(&mut self, config: &Config, clip: &Arc<Clip>) {
        self.tokens(&[config.thinker.media.audio_start]);
        self.rows.extend((0..clip.tokens as u32).map(|row| Row::Sound { clip: clip.id, row }));
        self.tokens(&[config.thinker.media.audio_end]);
        self.clips.push(Arc::clone(clip));
    }

    /// The tokens, with placeholders for sounds.
    pub(super) fn token_ids(&self, config: &Config) -> Vec<u32> {
        let token = |row: &Row| match row {
            Row::Token(token) => *token,
            Row::Sound { .. } => config.thinker.media.audio,
        };
        self.rows.iter().map(token).collect()
    }

    /// The clip with this id.
    pub(super) fn clip(&self, id: u64) -> Option<&Clip> {
        self.clips.iter().find(|clip| clip.id == id).map(Arc::as_ref)
    }

    /// Rows that are sounds.
    pub(super) fn sounds(&self) -> usize {
        self.clips.iter().map(|clip| clip.tokens).sum()
    }
}
