//! Mel frames in any pieces, tokens block by block.

use super::Tower;
use crate::omni::OmniError;

/// One utterance on its way through the tower.
#[derive(Clone, Default)]
pub struct AudioStream {
    /// Frames of an unfinished chunk.
    mel: Vec<f32>,
    /// Rows of an unfinished block.
    rows: Vec<f32>,
    chunks: usize,
}

impl AudioStream {
    /// Takes frames, `[frames, mels]`, and appends the tokens of blocks that are complete to `tokens`, `[n, output]`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub(in crate::omni) fn push(
        &mut self,
        tower: &mut dyn Tower,
        mut mel: &[f32],
        tokens: &mut Vec<f32>,
    ) -> Result<(), OmniError> {
        let (frames, block) = (tower.shape().chunk, tower.shape().block / tower.shape().chunk);
        let chunk = frames * tower.shape().mels;
        while !mel.is_empty() {
            let more = mel.len().min(chunk - self.mel.len());
            self.mel.extend_from_slice(&mel[..more]);
            mel = &mel[more..];
            if self.mel.len() == chunk {
                tower.convolve(&self.mel, frames, &mut self.rows)?;
                self.mel.clear();
                self.chunks += 1;
                if self.chunks.is_multiple_of(block) {
                    tower.encode(&self.rows, tokens)?;
                    self.rows.clear();
                }
            }
        }
        Ok(())
    }

    /// The utterance is over: appends the tokens of what is left, and is ready for the next one.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub(in crate::omni) fn flush(&mut self, tower: &mut dyn Tower, tokens: &mut Vec<f32>) -> Result<(), OmniError> {
        if !self.mel.is_empty() {
            // The reference implementation pads a last chunk to the length of the longest one.
            let padded = if self.chunks > 0 { tower.shape().chunk } else { 0 };
            tower.convolve(&self.mel, padded, &mut self.rows)?;
        }
        tower.encode(&self.rows, tokens)?;
        *self = Self::default();
        Ok(())
    }
}
