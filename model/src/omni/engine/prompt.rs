//! A conversation as rows of the thinker: words, and sounds and pictures among them.

use std::sync::Arc;

use causerie_kernels::ops::rope::Position;
use causerie_model_api::INPUT_RATE;

use super::media::{Clip, Sight};
use crate::omni::OmniError;
use crate::omni::config::Config;
use crate::omni::positions::{Grid, Video, VideoWithSound, positions};

/// The longest time between two frames of a video that shows in their positions, in seconds.
const LONGEST_PAUSE: f64 = 30.0;

/// One row of a prompt. Two prompts share their memory as far as their rows and their positions are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Token(u32),
    /// A row of a sound, by its name.
    Sound(u64),
    /// A row of a picture, by the picture's name and its place in it. A frame of live video is another row than the same
    /// picture sent as one.
    Sight {
        name: u64,
        row: u32,
        live: bool,
    },
}

impl Row {
    /// Whether the talker hears of it through the thinker's state.
    pub(super) fn is_media(self) -> bool {
        !matches!(self, Self::Token(_))
    }
}

/// Something that is not words, and the row where it begins.
#[derive(Clone, Debug)]
pub(super) enum Medium {
    Sound(Arc<Clip>),
    Sight(Arc<Sight>),
}

/// A conversation's rows, and the media among them.
#[derive(Clone, Default)]
pub(super) struct Prompt {
    pub(super) rows: Vec<Row>,
    /// One a row.
    pub(super) positions: Vec<Position>,
    /// The position of whatever follows.
    pub(super) next: f64,
    /// In order, each with its first row.
    media: Vec<(usize, Medium)>,
}

impl Prompt {
    /// Appends words. [`Prompt::place`] follows.
    pub(super) fn tokens(&mut self, tokens: &[u32]) {
        self.rows.extend(tokens.iter().map(|token| Row::Token(*token)));
    }

    /// Appends the rows of a medium, which stand between their delimiters. [`Prompt::place`] follows.
    pub(super) fn medium_rows(&mut self, medium: Medium) {
        let start = self.rows.len();
        match &medium {
            Medium::Sound(clip) => self.rows.extend(clip.names.iter().map(|name| Row::Sound(*name))),
            Medium::Sight(sight) => {
                let (name, live) = (sight.name, sight.at.is_some());
                self.rows.extend((0..sight.tokens as u32).map(|row| Row::Sight { name, row, live }));
            }
        }
        self.media.push((start, medium));
    }

    /// Finds the positions of all rows.
    ///
    /// # Errors
    /// [`OmniError::Input`] if media and placeholders do not fit each other: words of a template are among them.
    pub(super) fn place(&mut self, config: &Config) -> Result<(), OmniError> {
        let (images, videos) = self.pictures();
        let places = positions(&config.thinker, &self.token_ids(config), &images, &videos, VideoWithSound::Merged)?;
        (self.positions, self.next) = (places.of, places.next);
        Ok(())
    }

    /// Appends words behind the last position.
    pub(super) fn go_on(&mut self, tokens: impl IntoIterator<Item = u32>) {
        for token in tokens {
            self.rows.push(Row::Token(token));
            self.positions.push([self.next; 3]);
            self.next += 1.0;
        }
    }

    /// The tokens, with placeholders for media.
    pub(super) fn token_ids(&self, config: &Config) -> Vec<u32> {
        let media = &config.thinker.media;
        let token = |row: &Row| match row {
            Row::Token(token) => *token,
            Row::Sound(_) => media.audio,
            Row::Sight { live: true, .. } => media.video,
            Row::Sight { live: false, .. } => media.image,
        };
        self.rows.iter().map(token).collect()
    }

    /// Pictures that were sent, and frames of live video: each is a video of one grid, on the clock of the input.
    pub(super) fn pictures(&self) -> (Vec<Grid>, Vec<Video>) {
        let (mut images, mut videos) = (Vec::new(), Vec::new());
        // Frames follow each other as long as nothing but their delimiters is between them.
        let mut before: Option<(u64, usize)> = None;
        for (start, medium) in &self.media {
            let Medium::Sight(sight) = medium else { continue };
            let Some(at) = sight.at else {
                images.push(sight.grid);
                continue;
            };
            let since = before.filter(|(_, end)| end + 2 == *start).map(|(earlier, _)| {
                let seconds = at.saturating_sub(earlier) as f64 / f64::from(INPUT_RATE);
                seconds.min(LONGEST_PAUSE)
            });
            videos.push(Video { grid: sight.grid, seconds_per_grid: 1.0, since });
            before = Some((at, start + sight.tokens));
        }
        (images, videos)
    }

    /// What a row that is no token is part of, and its place in it.
    pub(super) fn medium(&self, row: usize) -> Option<(&Medium, usize)> {
        let index = self.media.partition_point(|(start, _)| *start <= row).checked_sub(1)?;
        let (start, medium) = &self.media[index];
        Some((medium, row - start))
    }

    /// Its pictures.
    pub(super) fn sights(&self) -> impl Iterator<Item = &Arc<Sight>> {
        self.media.iter().filter_map(|(_, medium)| if let Medium::Sight(sight) = medium { Some(sight) } else { None })
    }

    /// Rows that are sounds, and rows that are pictures.
    pub(super) fn media_rows(&self) -> (usize, usize) {
        let sounds = self.rows.iter().filter(|row| matches!(row, Row::Sound(_))).count();
        (sounds, self.sights().map(|sight| sight.tokens).sum())
    }
}
