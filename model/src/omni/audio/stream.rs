//! Mel frames in any pieces, tokens block by block.

use causerie_kernels::Pool;

use super::{AudioTower, Scratch};

/// One utterance on its way through the tower.
#[derive(Default)]
pub struct AudioStream {
    /// Frames of an unfinished chunk.
    mel: Vec<f32>,
    /// Rows of an unfinished block.
    rows: Vec<f32>,
    chunks: usize,
    scratch: Scratch,
}

impl Clone for AudioStream {
    /// Buffers hold nothing that matters.
    fn clone(&self) -> Self {
        let Self { mel, rows, chunks, scratch: _ } = self;
        Self { mel: mel.clone(), rows: rows.clone(), chunks: *chunks, scratch: Scratch::default() }
    }
}

impl AudioStream {
    /// Takes frames, `[frames, mels]`, and appends the tokens of blocks that are complete to `tokens`, `[n, output]`.
    pub(in crate::omni) fn push(&mut self, tower: &AudioTower, pool: &Pool, mut mel: &[f32], tokens: &mut Vec<f32>) {
        let chunk = tower.config.chunk * tower.config.mels;
        while !mel.is_empty() {
            let more = mel.len().min(chunk - self.mel.len());
            self.mel.extend_from_slice(&mel[..more]);
            mel = &mel[more..];
            if self.mel.len() == chunk {
                tower.convolve(pool, &mut self.scratch, &self.mel, tower.config.chunk, &mut self.rows);
                self.mel.clear();
                self.chunks += 1;
                if self.chunks.is_multiple_of(tower.config.block / tower.config.chunk) {
                    tower.encode(pool, &mut self.scratch, &self.rows, tokens);
                    self.rows.clear();
                }
            }
        }
    }

    /// The utterance is over: appends the tokens of what is left, and is ready for the next one.
    pub(in crate::omni) fn flush(&mut self, tower: &AudioTower, pool: &Pool, tokens: &mut Vec<f32>) {
        if !self.mel.is_empty() {
            // The reference implementation pads a last chunk to the length of the longest one.
            let padded = if self.chunks > 0 { tower.config.chunk } else { 0 };
            tower.convolve(pool, &mut self.scratch, &self.mel, padded, &mut self.rows);
        }
        tower.encode(pool, &mut self.scratch, &self.rows, tokens);
        self.mel.clear();
        self.rows.clear();
        self.chunks = 0;
    }
}
