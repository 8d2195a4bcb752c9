//! What is heard and seen, as rows that stand among the words of a prompt.
//!
//! A row is known by what it holds, not by where it came from: two prompts share their memory as far as they hold the
//! same, and an utterance that is heard again, or a second picture of the same, needs no bookkeeping.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use causerie_model_api::Picture;

use crate::omni::OmniError;
use crate::omni::config::VisionConfig;
use crate::omni::positions::Grid;
use crate::omni::vision;

/// An utterance as the audio tower heard it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Clip {
    /// `[tokens, hidden]` of the thinker.
    pub(super) rows: Vec<f32>,
    /// What each row is known by.
    pub(super) names: Vec<u64>,
}

impl Clip {
    /// `rows` are `[tokens, width]`.
    pub(super) fn new(rows: Vec<f32>, width: usize) -> Self {
        let names = rows.chunks_exact(width).map(name).collect();
        Self { rows, names }
    }
}

/// A picture in a conversation. What the tower makes of it is kept apart, because that comes later.
#[derive(Debug, PartialEq)]
pub(super) struct Sight {
    /// What it is known by.
    pub(super) name: u64,
    pub(super) grid: Grid,
    pub(super) tokens: usize,
    /// Where in the input audio a frame of live video was taken; `None` for a picture that somebody sent.
    pub(super) at: Option<u64>,
}

impl Sight {
    /// # Errors
    /// [`OmniError::Input`] for a picture that the tower cannot read.
    pub(super) fn new(config: &VisionConfig, picture: &Picture, at: Option<u64>) -> Result<Arc<Self>, OmniError> {
        let (width, height) = (picture.width(), picture.height());
        let grid = vision::grid(config, width, height, picture.resolution().tokens())?;
        let mut hasher = DefaultHasher::new();
        (width, height, grid.width, grid.height, picture.rgb()).hash(&mut hasher);
        Ok(Arc::new(Self { name: hasher.finish(), grid, tokens: grid.tokens(config.merge), at }))
    }
}

/// What a row of floats is known by.
fn name(row: &[f32]) -> u64 {
    let mut hasher = DefaultHasher::new();
    row.iter().for_each(|value| hasher.write_u32(value.to_bits()));
    hasher.finish()
}
