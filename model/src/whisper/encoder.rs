//! The encoder: mel frames in, one row for every two of them out.

use causerie_kernels::Pool;
use causerie_kernels::ops::attention::attention;
use causerie_kernels::ops::conv1d::{Window, conv1d};
use causerie_kernels::ops::gelu::gelu;
use causerie_kernels::ops::linear::Weights;
use causerie_kernels::ops::log_mel::LogMel;

use super::layers::{Buffers, FeedForward, Norm, SelfAttention, add, part, shape};

const FIRST: Window = Window { kernel: 3, stride: 1, pad: 1 };
const SECOND: Window = Window { kernel: 3, stride: 2, pad: 1 };

/// Weights of the encoder.
pub(super) struct Encoder {
    pub(super) mel: LogMel,
    pub(super) conv1: Conv,
    pub(super) conv2: Conv,
    /// `[positions, width]`.
    pub(super) positions: Vec<f32>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    pub(super) heads: usize,
    pub(super) width: usize,
}

pub(super) struct Conv {
    pub(super) weights: Weights,
    pub(super) bias: Vec<f32>,
}

pub(super) struct Layer {
    pub(super) attention: SelfAttention,
    pub(super) feed_forward: FeedForward,
}

impl Encoder {
    /// Rows that it has positions for.
    pub(super) fn max_rows(&self) -> usize {
        self.positions.len() / self.width
    }

    /// Log-mel of `2 rows` frames.
    pub(super) fn log_mel(&self, pool: &Pool, pcm: &[f32], rows: usize) -> Vec<f32> {
        let mut mel = vec![0.0; 2 * rows * self.mel.mels()];
        self.mel.compute(pool, pcm, &mut mel);
        mel
    }

    /// Two convolutions and the positions: `[frames, mels]` to `[frames / 2, width]`.
    pub(super) fn embed(&self, pool: &Pool, buffers: &mut Buffers, mel: &[f32]) -> Vec<f32> {
        let Buffers { scratch, wide, mixed, .. } = buffers;
        let frames = mel.len() / self.mel.mels();
        let (c1, c2) = (&self.conv1, &self.conv2);
        mixed.resize(frames * self.width, 0.0);
        conv1d(pool, scratch, wide, mel, self.mel.mels(), &c1.weights, Some(&c1.bias), FIRST, mixed);
        gelu(pool, mixed);
        let mut x = vec![0.0; SECOND.outputs(frames) * self.width];
        conv1d(pool, scratch, wide, mixed, self.width, &c2.weights, Some(&c2.bias), SECOND, &mut x);
        gelu(pool, &mut x);
        add(&mut x, &self.positions);
        x
    }

    /// The first half of a layer.
    pub(super) fn attention(&self, pool: &Pool, buffers: &mut Buffers, layer: usize, x: &mut [f32]) {
        let Buffers { scratch, normed, wide, mixed, out } = buffers;
        let block = &self.layers[layer].attention;
        block.norm.forward(pool, x, normed);
        block.qkv.forward(pool, scratch, normed, wide);
        mixed.resize(x.len(), 0.0);
        let (width, heads, rows) = (self.width, self.heads, x.len() / self.width);
        let part = |i| part(wide, i, 3, width, heads);
        attention(pool, &shape(width, heads, rows, rows, false), part(0), part(1), part(2), mixed);
        block.out.forward(pool, scratch, mixed, out);
        add(x, out);
    }

    /// The second half of a layer.
    pub(super) fn feed_forward(&self, pool: &Pool, buffers: &mut Buffers, layer: usize, x: &mut [f32]) {
        self.layers[layer].feed_forward.forward(pool, buffers, x);
    }

    /// The last normalisation.
    pub(super) fn finish(&self, pool: &Pool, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        self.norm.forward(pool, x, &mut y);
        y
    }
}
