//! The audio tower on a device: mel frames to tokens.

use causerie_kernels::cuda::{Buffer, Gpu, Slice};
use causerie_kernels::ops::conv1d::Window;
use causerie_kernels::ops::conv2d::cuda::{Planes, conv2d};
use causerie_kernels::ops::gemm::cuda::{Activation, Epilogue, Way, linear};
use causerie_kernels::ops::log_mel::cuda::PLACE;
use causerie_kernels::ops::paged_attention::Visible;
use causerie_kernels::ops::paged_attention::cuda::{Batch, Shape, block_attention};
use half::bf16;

use super::tower::{Layer, apply, norm};
use super::weights::{Linear, Norm, Uploader, whole};
use crate::omni::OmniError;
use crate::omni::audio::{NAMES, NORM_EPS, sinusoids};
use crate::omni::config::AudioConfig;

/// Each of the three convolutions.
const WINDOW: Window = Window { kernel: 3, stride: 2, pad: 1 };

/// The tower's weights.
pub struct AudioTower {
    config: AudioConfig,
    /// `[channels, 3, 3, c_in]` and a bias.
    convolutions: Vec<(Buffer<bf16>, Buffer<bf16>)>,
    channels: usize,
    /// From the channels of all bands to the hidden width.
    projection: Buffer<bf16>,
    /// Positions inside a chunk, `[tokens, hidden]`.
    positions: Buffer<bf16>,
    layers: Vec<Layer>,
    norm: Norm,
    out: [Linear; 2],
}

impl AudioTower {
    pub(super) fn load(up: &Uploader<'_>, config: &AudioConfig) -> Result<Self, OmniError> {
        let name = |part: &str| format!("thinker.audio_tower.{part}");
        let (hidden, channels) = (config.hidden, config.channels);
        let bands = (0..3).fold(config.mels, |n, _| WINDOW.outputs(n));
        let convolutions = (0..3).map(|i| convolution(up, &name(&format!("conv2d{}", i + 1)), channels, i == 0));
        // The checkpoint's columns are `[channels, bands]`, those of a plane here `[bands, channels]`.
        let values = up.values(&name("conv_out.weight"), &[hidden, channels * bands])?;
        let width = whole(channels);
        let mut projection = vec![0.0; hidden * bands * width];
        for (i, value) in values.iter().enumerate() {
            let (row, c, band) = (i / (channels * bands), i / bands % channels, i % bands);
            projection[(row * bands + band) * width + c] = *value;
        }
        let layers =
            (0..config.layers).map(|i| Layer::load(up, &name(&format!("layers.{i}")), &NAMES, (hidden, config.inner)));
        Ok(Self {
            convolutions: convolutions.collect::<Result<_, _>>()?,
            channels: width,
            projection: up.upload(&projection)?,
            positions: up.upload(&sinusoids(config.tokens(config.chunk), hidden))?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: up.norm(&name("ln_post"), hidden)?,
            out: [up.linear(&name("proj1"), hidden, hidden)?, up.linear(&name("proj2"), config.output, hidden)?],
            config: config.clone(),
        })
    }

    /// Frames of the planes that [`AudioTower::hear`] takes for `frames` frames.
    pub fn padded(&self, frames: usize) -> usize {
        if frames < self.config.chunk { frames } else { frames.next_multiple_of(self.config.chunk) }
    }

    /// The tokens of a clip of `frames` frames, `[tokens, output]`. planes: `[padded(frames), mels, PLACE]`, the value first
    /// at each place, frames behind the last zero.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    ///
    /// # Panics
    /// If the length does not fit.
    pub fn hear(&self, gpu: &Gpu, planes: Slice<'_, bf16>, frames: usize) -> Result<Buffer<bf16>, OmniError> {
        let (padded, config) = (self.padded(frames), &self.config);
        assert!(frames > 0 && planes.len() == padded * config.mels * PLACE, "{} values for {frames}", planes.len());
        let rows = self.convolve(gpu, planes, padded)?;
        let tokens = config.tokens(frames);
        self.encode(gpu, rows.range(..tokens * config.hidden), tokens)
    }

    /// Rows of all chunks, `[chunks, tokens, hidden]`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn convolve(&self, gpu: &Gpu, planes: Slice<'_, bf16>, padded: usize) -> Result<Buffer<bf16>, OmniError> {
        let hidden = self.config.hidden;
        let count = padded.div_ceil(self.config.chunk);
        let mut shape = Planes { count, rows: padded / count, columns: self.config.mels, c_in: PLACE };
        let mut x: Option<Buffer<bf16>> = None;
        for (weights, bias) in &self.convolutions {
            let (rows, columns) = (WINDOW.outputs(shape.rows), WINDOW.outputs(shape.columns));
            let mut y = gpu.allocate(count * rows * columns * self.channels)?;
            let input = x.as_ref().map_or(planes, Buffer::all);
            conv2d(gpu, input, shape, weights.all(), WINDOW, bias.all(), Activation::Gelu, &mut y.all_mut())?;
            (shape, x) = (Planes { count, rows, columns, c_in: self.channels }, Some(y));
        }
        let (x, k) = (x.expect("there are three convolutions"), shape.columns * shape.c_in);
        let mut rows = gpu.allocate(count * shape.rows * hidden)?;
        let residual = Some(self.positions.range(..shape.rows * hidden));
        for chunk in 0..count {
            let input = x.range(chunk * shape.rows * k..(chunk + 1) * shape.rows * k);
            let mut all = rows.all_mut();
            let mut to = all.range(chunk * shape.rows * hidden..(chunk + 1) * shape.rows * hidden);
            linear(
                gpu,
                input,
                self.projection.all(),
                Epilogue { residual, ..Epilogue::default() },
                Way::ByTokens,
                k,
                &mut to,
            )?;
        }
        Ok(rows)
    }

    /// Tokens of rows of whole blocks, but for the last: `[tokens, output]`.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn encode(&self, gpu: &Gpu, rows: Slice<'_, bf16>, tokens: usize) -> Result<Buffer<bf16>, OmniError> {
        let AudioConfig { hidden, heads, chunk, block, .. } = self.config;
        let head_dim = hidden / heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = Shape { heads, kv_heads: heads, head_dim, scale, visible: Visible::All };
        let most = block / chunk * self.config.tokens(chunk);
        let lengths: Vec<usize> = (0..tokens).step_by(most).map(|from| most.min(tokens - from)).collect();
        let batch = Batch::blocks(gpu, &lengths)?;

        // Blocks are short: their keys need not be shared out.
        let mut shares = gpu.allocate(0)?;
        let mut x: Option<Buffer<bf16>> = None;
        for layer in &self.layers {
            let input = x.as_ref().map_or(rows, Buffer::all);
            x = Some(layer.forward(gpu, input, (NORM_EPS, Activation::Gelu), |qkv, attended| {
                let attended = &mut attended.all_mut();
                Ok(block_attention(gpu, &shape, qkv, &batch, &mut shares.all_mut(), attended)?)
            })?);
        }
        let normed = norm(gpu, &self.norm, x.as_ref().map_or(rows, Buffer::all), NORM_EPS)?;
        let inner = apply(gpu, &self.out[0], normed.all(), Activation::Gelu, None)?;
        apply(gpu, &self.out[1], inner.all(), Activation::None, None)
    }
}

/// `{name}.weight`, `[channels, c_in, bands, time]`, as `[channels, time, bands, c_in]`.
fn convolution(
    up: &Uploader<'_>,
    name: &str,
    channels: usize,
    first: bool,
) -> Result<(Buffer<bf16>, Buffer<bf16>), OmniError> {
    let c_in = if first { 1 } else { channels };
    let (n, width) = (whole(channels), whole(c_in));
    let values = up.values(&format!("{name}.weight"), &[channels, c_in, 3, 3])?;
    let mut weights = vec![0.0; n * 9 * width];
    for (i, value) in values.iter().enumerate() {
        let (o, c, band, time) = (i / (9 * c_in), i / 9 % c_in, i / 3 % 3, i % 3);
        weights[(o * 9 + time * 3 + band) * width + c] = *value;
    }
    let mut bias = up.values(&format!("{name}.bias"), &[channels])?;
    bias.resize(n, 0.0);
    Ok((up.upload(&weights)?, up.upload(&bias)?))
}
