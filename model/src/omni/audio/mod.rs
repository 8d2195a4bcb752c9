//! The audio tower: mel frames to tokens, 13 a second.
//!
//! A second of frames (a chunk) goes through three convolutions by itself. The chunks of a few seconds (a block) attend to
//! each other and to nothing else, so a block is final as soon as it is complete. [`AudioStream`] takes frames as they
//! come and gives tokens block by block.

mod stream;

use causerie_kernels::Pool;
use causerie_kernels::ops::conv1d::Window;
use causerie_kernels::ops::conv2d;
use causerie_kernels::ops::gelu::gelu;
use causerie_kernels::ops::linear::Weights;

use super::OmniError;
use super::config::AudioConfig;
use super::layers::{Linear, Norm};
use super::load::Loader;
use super::tower::{self, Form, Layer, Names};
use crate::lm::moe::add;
use crate::lm::resize;

pub use stream::AudioStream;

/// Epsilon of its layer norms: that of the framework, not in the configuration.
pub(super) const NORM_EPS: f32 = 1e-5;
/// Each of the three convolutions.
const WINDOW: Window = Window { kernel: 3, stride: 2, pad: 1 };
/// Ratio of the longest to the shortest wave of the positions.
const TIMESCALE: f64 = 10_000.0;

/// A tower that an utterance goes through, wherever its weights are.
pub(super) trait Tower {
    /// Its shape.
    fn shape(&self) -> &AudioConfig;

    /// Appends the rows of one chunk to `rows`: `mel` is `[frames, mels]`, computed as if zeros followed up to `padded`
    /// frames.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    fn convolve(&mut self, mel: &[f32], padded: usize, rows: &mut Vec<f32>) -> Result<(), OmniError>;

    /// Appends the tokens of one block of rows to `tokens`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    fn encode(&mut self, rows: &[f32], tokens: &mut Vec<f32>) -> Result<(), OmniError>;
}

/// A tower in the memory of this processor, on a pool.
pub(super) struct OnPool<'a> {
    tower: &'a AudioTower,
    pool: &'a Pool,
    scratch: Scratch,
}

impl Tower for OnPool<'_> {
    fn shape(&self) -> &AudioConfig {
        &self.tower.config
    }

    fn convolve(&mut self, mel: &[f32], padded: usize, rows: &mut Vec<f32>) -> Result<(), OmniError> {
        self.tower.convolve(self.pool, &mut self.scratch, mel, padded, rows);
        Ok(())
    }

    fn encode(&mut self, rows: &[f32], tokens: &mut Vec<f32>) -> Result<(), OmniError> {
        self.tower.encode(self.pool, &mut self.scratch, rows, tokens);
        Ok(())
    }
}

/// The tower's weights.
pub(super) struct AudioTower {
    config: AudioConfig,
    convolutions: [(Weights, Vec<f32>); 3],
    /// From the channels of all bands to the hidden width.
    projection: Linear,
    /// Positions inside a chunk, `[tokens, hidden]`.
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    out: [Linear; 2],
}

/// What the checkpoint calls the parts of its layers.
pub(super) const NAMES: Names = Names {
    attention_norm: "self_attn_layer_norm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    output: "self_attn.out_proj",
    feed_forward_norm: "final_layer_norm",
    up: "fc1",
    down: "fc2",
};

/// Buffers reused from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    rows: tower::Scratch,
    cells: Vec<f32>,
    plane: Vec<f32>,
}

impl AudioTower {
    pub(super) fn load(loader: &Loader<'_>, config: &AudioConfig) -> Result<Self, OmniError> {
        let name = |part: &str| format!("thinker.audio_tower.{part}");
        let (hidden, channels) = (config.hidden, config.channels);
        let convolution = |i: usize, c_in: usize| {
            let values = loader.values(&name(&format!("conv2d{i}.weight")), &[channels, c_in, 3, 3])?;
            // Planes have time first here; the checkpoint has the bands first.
            let weights = conv2d::pack(loader.pool(), &values, (channels, c_in, 3), true)?;
            Ok::<_, OmniError>((weights, loader.vector(&name(&format!("conv2d{i}.bias")), channels)?))
        };
        let bands = (0..3).fold(config.mels, |n, _| WINDOW.outputs(n));
        Ok(Self {
            convolutions: [convolution(1, 1)?, convolution(2, channels)?, convolution(3, channels)?],
            projection: projection(loader, &name("conv_out.weight"), hidden, channels, bands)?,
            positions: sinusoids(config.tokens(config.chunk), hidden),
            layers: (0..config.layers)
                .map(|i| Layer::load(loader, &name(&format!("layers.{i}")), &NAMES, (hidden, config.inner), NORM_EPS))
                .collect::<Result<_, _>>()?,
            norm: Norm::load(loader, &name("ln_post"), hidden, NORM_EPS)?,
            out: [
                Linear::load(loader, &name("proj1"), hidden, hidden)?,
                Linear::load(loader, &name("proj2"), config.output, hidden)?,
            ],
            config: config.clone(),
        })
    }

    /// The tower on a pool.
    pub(super) fn on<'a>(&'a self, pool: &'a Pool) -> OnPool<'a> {
        OnPool { tower: self, pool, scratch: Scratch::default() }
    }

    fn convolve(&self, pool: &Pool, s: &mut Scratch, mel: &[f32], padded: usize, rows: &mut Vec<f32>) {
        let frames = mel.len() / self.config.mels;
        let Scratch { rows: tower::Scratch { linear, next, out, .. }, cells, plane } = s;
        plane.clear();
        plane.extend_from_slice(mel);
        let mut times = padded.max(frames);
        plane.resize(times * self.config.mels, 0.0);
        let mut bands = self.config.mels;
        for (weights, bias) in &self.convolutions {
            let (times_out, bands_out) = (WINDOW.outputs(times), WINDOW.outputs(bands));
            resize(next, times_out * bands_out * weights.n());
            conv2d::conv2d(pool, linear, cells, plane, times, weights, Some(bias.as_slice()), WINDOW, next);
            gelu(pool, next);
            std::mem::swap(plane, next);
            (times, bands) = (times_out, bands_out);
        }
        self.projection.apply(pool, linear, plane, out);
        add(out, &self.positions);
        rows.extend_from_slice(&out[..self.config.tokens(frames) * self.config.hidden]);
    }

    fn encode(&self, pool: &Pool, s: &mut Scratch, rows: &[f32], tokens: &mut Vec<f32>) {
        if rows.is_empty() {
            return;
        }
        let s = &mut s.rows;
        s.x.clear();
        s.x.extend_from_slice(rows);
        let form = Form { heads: self.config.heads, rope: None, activation: gelu };
        self.layers.iter().for_each(|layer| layer.forward(pool, s, &form));
        self.norm.apply(pool, &s.x, &mut s.normed);
        self.out[0].apply(pool, &mut s.linear, &s.normed, &mut s.next);
        gelu(pool, &mut s.next);
        self.out[1].apply(pool, &mut s.linear, &s.next, &mut s.out);
        tokens.extend_from_slice(&s.out);
    }
}

/// The checkpoint's columns are `[channels, bands]`, those of a plane here `[bands, channels]`.
fn projection(
    loader: &Loader<'_>,
    name: &str,
    hidden: usize,
    channels: usize,
    bands: usize,
) -> Result<Linear, OmniError> {
    let width = channels * bands;
    let values = loader.read(name, &[hidden, width])?;
    let place = |column: usize| column % channels * bands + column / channels;
    let turned: Vec<f32> =
        values.chunks_exact(width).flat_map(|row| (0..width).map(|column| row[place(column)])).collect();
    Ok(Linear::of(loader.pack(hidden, width, &turned)?, None))
}

/// Sines in the first half of a row, cosines in the second; the waves' lengths grow geometrically.
pub(super) fn sinusoids(rows: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let speed = |i: usize| TIMESCALE.powf(-(i as f64) / (half as f64 - 1.0).max(1.0));
    let value = |row: usize, i: usize| match i.checked_sub(half) {
        None => (row as f64 * speed(i)).sin() as f32,
        Some(i) => (row as f64 * speed(i)).cos() as f32,
    };
    (0..rows).flat_map(|row| (0..width).map(move |i| value(row, i))).collect()
}
