//! The vocoder on a device, as a stream without seams.
//!
//! Channels are padded with zeros to multiples of eight: they stay zero through every layer. Every convolution reads its
//! history in front of its rows; a [`Tail`] keeps it from push to push.

use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::conv1d::cuda::{Taps, conv1d, conv1d_f32};
use causerie_kernels::ops::depthwise_conv1d::cuda::depthwise_conv1d;
use causerie_kernels::ops::embedding::cuda::{Tables, embedding_sum};
use causerie_kernels::ops::gemm::cuda::{Activation, Epilogue, Way, linear};
use causerie_kernels::ops::layer_norm::cuda::layer_norm;
use causerie_kernels::ops::norm_rope::cuda::Heads;
use causerie_kernels::ops::paged_attention::Visible;
use causerie_kernels::ops::paged_attention::cuda::BLOCK;
use causerie_kernels::ops::snake_beta::cuda::{Parameters, snake_beta};
use half::bf16;

use super::decoder::{Decoder, Extra, Form, Input, Mode, Room, Work};
use super::weights::{Linear, Norm, Uploader, padded, whole};
use crate::omni::OmniError;
use crate::omni::config::{Code2WavConfig, FeedForwardConfig};
use crate::omni::decoder::Segment;
use crate::omni::kv::{KvStore, Sequence};

/// Taps of the wide convolutions.
const KERNEL: usize = 7;
/// Dilations of a block's residual units.
const DILATIONS: [usize; 3] = [1, 3, 9];
/// Widening inside a ConvNeXt block.
const WIDENING: usize = 4;
/// Epsilon of its layer norm: that of the reference implementation, not in the configuration.
const NORM_EPS: f32 = 1e-6;
/// Frames of a reply, at most: 22 minutes.
pub const MAX_REPLY: usize = 1 << 14;
/// Frames of a push.
pub const MAX_FRAMES: usize = 32;

/// The vocoder's weights.
pub struct Code2Wav {
    config: Code2WavConfig,
    codes: Tables,
    transformer: Decoder,
    upsample: Vec<Upsample>,
    first: Convolution,
    blocks: Vec<Block>,
    snake: Parameters,
    last: Convolution,
}

struct Upsample {
    /// Every row becomes `ratio` rows: a matrix of so many times the outputs.
    rows: Linear,
    ratio: usize,
    /// `[KERNEL, hidden]`.
    depthwise: Buffer<bf16>,
    depthwise_bias: Buffer<bf16>,
    norm: Norm,
    up: Linear,
    /// Scaled channel by channel.
    down: Linear,
}

struct Block {
    snake: Parameters,
    longer: Convolution,
    rate: usize,
    units: Vec<Unit>,
}

struct Unit {
    snakes: [Parameters; 2],
    convolutions: [Convolution; 2],
}

struct Convolution {
    /// `[n, taps, c_in]`.
    weights: Buffer<bf16>,
    bias: Buffer<bf16>,
    c_in: usize,
    n: usize,
    taps: Taps,
}

/// What one stream remembers.
pub struct Voice {
    sequence: Sequence,
    store: KvStore,
    upsample: Vec<Tail>,
    first: Tail,
    blocks: Vec<BlockTails>,
    last: Tail,
}

struct BlockTails {
    longer: Tail,
    units: Vec<[Tail; 2]>,
}

/// The last rows that a convolution has seen, and room for them in front of the next.
struct Tail {
    rows: Buffer<bf16>,
    /// Rows held: a transposed convolution begins without any.
    held: usize,
    history: usize,
    width: usize,
}

impl Tail {
    /// Before the first row, `held` rows of zeros.
    fn new(gpu: &Gpu, history: usize, width: usize, held: usize) -> Result<Self, OmniError> {
        Ok(Self { rows: gpu.upload(&vec![bf16::ZERO; history * width])?, held, history, width })
    }

    /// A buffer that begins with the rows held and has room for `count` behind them. `fill` writes those.
    fn prepend(
        &self,
        gpu: &Gpu,
        count: usize,
        fill: impl FnOnce(&mut SliceMut<'_, bf16>) -> Result<(), OmniError>,
    ) -> Result<Buffer<bf16>, OmniError> {
        let front = self.held * self.width;
        let mut all = gpu.allocate(front + count * self.width)?;
        gpu.copy(self.rows.range(..front), &mut all.range_mut(..front))?;
        fill(&mut all.range_mut(front..))?;
        Ok(all)
    }

    /// Keeps the last rows of what [`Tail::prepend`] gave.
    fn keep(&mut self, gpu: &Gpu, all: Slice<'_, bf16>) -> Result<(), OmniError> {
        self.held = (all.len() / self.width).min(self.history);
        let kept = self.held * self.width;
        Ok(gpu.copy(all.range(all.len() - kept..), &mut self.rows.range_mut(..kept))?)
    }
}

impl Code2Wav {
    pub(super) fn load(up: &Uploader<'_>, config: &Code2WavConfig) -> Result<Self, OmniError> {
        let Code2WavConfig { hidden, channels, .. } = *config;
        let rows = up.tensor("code2wav.code_embedding.weight", &[config.quantizers * config.codebook, hidden])?;
        let form = Form {
            hidden,
            heads: Heads { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim },
            eps: config.norm_eps,
            visible: Visible::Recent { window: config.window, sinks: 0 },
            rope: config.rope.clone(),
            feed_forward: FeedForwardConfig::Dense { inner: config.inner },
        };
        let name = |i: usize| format!("code2wav.decoder.{i}");
        let wide = Taps::dense(KERNEL);
        let (count, narrow) = (config.rates.len(), channels >> config.rates.len());
        let blocks = config.rates.iter().enumerate();
        let upsample = config.ratios.iter().enumerate();
        Ok(Self {
            codes: Tables::new(up.gpu, rows, &vec![config.codebook; config.quantizers], hidden)?,
            transformer: Decoder::load(up, "code2wav.pre_transformer", form, config.layers)?,
            upsample: upsample
                .map(|(i, ratio)| Upsample::load(up, &format!("code2wav.upsample.{i}"), hidden, *ratio))
                .collect::<Result<_, _>>()?,
            first: Convolution::load(up, &name(0), channels, hidden, wide)?,
            blocks: blocks
                .map(|(i, rate)| Block::load(up, &format!("{}.block", name(i + 1)), channels >> i, *rate))
                .collect::<Result<_, _>>()?,
            snake: snake(up, &name(count + 1), narrow)?,
            last: Convolution::load(up, &name(count + 2), 1, narrow, wide)?,
            config: config.clone(),
        })
    }

    /// A stream that has heard nothing yet.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn voice(&self, gpu: &Gpu) -> Result<Voice, OmniError> {
        let blocks = self.blocks.iter().map(|block| {
            let units = block.units.iter().map(|unit| {
                let [a, b] = &unit.convolutions;
                Ok([a.tail(gpu)?, b.tail(gpu)?])
            });
            let longer = &block.longer;
            Ok(BlockTails {
                longer: Tail::new(gpu, longer.taps.history(), longer.c_in, 0)?,
                units: units.collect::<Result<_, OmniError>>()?,
            })
        });
        let (hidden, window) = (self.config.hidden, self.config.window);
        let upsample = self.upsample.iter().map(|_| Tail::new(gpu, KERNEL - 1, hidden, KERNEL - 1));
        // A window, a push, and what alignment to tiles and blocks may add.
        let places = window + MAX_FRAMES + 4 * BLOCK;
        Ok(Voice {
            sequence: Sequence::default(),
            store: self.transformer.store(gpu, places.div_ceil(BLOCK))?,
            upsample: upsample.collect::<Result<_, _>>()?,
            first: self.first.tail(gpu)?,
            blocks: blocks.collect::<Result<_, OmniError>>()?,
            last: self.last.tail(gpu)?,
        })
    }

    /// Buffers for a push.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn work(&self, gpu: &Gpu) -> Result<Work, OmniError> {
        // A table keeps the places of what the window has left behind, which is bounded by what a reply may have.
        let room = Room { rows: MAX_FRAMES, sequences: 1, pages: MAX_REPLY.div_ceil(BLOCK), shares: 1 };
        self.transformer.work(gpu, room)
    }

    /// Takes whole frames, `[frames, quantizers]`, at most [`MAX_FRAMES`], and appends their samples to `pcm`.
    ///
    /// # Errors
    /// [`OmniError::Input`] for a code outside of its codebook, a frame that is not whole or too many of them, or
    /// [`OmniError::Device`].
    pub fn push(
        &self,
        gpu: &Gpu,
        work: &mut Work,
        voice: &mut Voice,
        frames: &[u32],
        pcm: &mut Vec<f32>,
    ) -> Result<(), OmniError> {
        let Code2WavConfig { codebook, quantizers, hidden, .. } = self.config;
        if let Some(code) = frames.iter().find(|code| **code as usize >= codebook) {
            return Err(OmniError::Input(format!("code {code} is outside of a codebook of {codebook}")));
        }
        let count = frames.len() / quantizers;
        if count * quantizers != frames.len() || count > MAX_FRAMES {
            let problem = format!("{} codes are not up to {MAX_FRAMES} frames of {quantizers}", frames.len());
            return Err(OmniError::Input(problem));
        }
        if count == 0 {
            return Ok(());
        }
        let ids = gpu.upload(&frames.iter().map(|&code| code as i32).collect::<Vec<_>>())?;
        let mut x = gpu.allocate(count * hidden)?;
        let mean = 1.0 / quantizers as f32;
        embedding_sum(gpu, ids.all(), self.codes.all(), mean, None, &mut x.all_mut())?;

        let from = voice.sequence.len();
        if from + count > MAX_REPLY {
            return Err(OmniError::Input(format!("a reply of more than {MAX_REPLY} frames")));
        }
        let positions: Vec<_> = (from..from + count).map(|position| [position as f64; 3]).collect();
        let mut segments = [Segment { sequence: &mut voice.sequence, rows: count }];
        let input =
            Input { embeddings: x.all(), positions: &positions, mode: Mode::default(), extra: Extra::default() };
        self.transformer.forward(gpu, work, &mut voice.store, &mut segments, input)?;
        gpu.copy(work.hidden(count), &mut x.all_mut())?;

        for (stage, tail) in self.upsample.iter().zip(&mut voice.upsample) {
            x = stage.forward(gpu, tail, x.all())?;
        }
        let front = voice.first.prepend(gpu, x.len() / hidden, |to| Ok(gpu.copy(x.all(), to)?))?;
        x = self.first.apply(gpu, front.all(), None)?;
        voice.first.keep(gpu, front.all())?;
        for (block, tails) in self.blocks.iter().zip(&mut voice.blocks) {
            x = block.forward(gpu, tails, x.all())?;
            if x.is_empty() {
                return Ok(());
            }
        }
        let rows = x.len() / self.last.c_in;
        let front = voice.last.prepend(gpu, rows, |to| Ok(snake_beta(gpu, x.all(), &self.snake, to)?))?;
        let mut samples = gpu.allocate(rows * self.last.n)?;
        let Convolution { weights, bias, c_in, n, taps } = &self.last;
        let end = Epilogue::bias(bias.all());
        conv1d_f32(gpu, front.all(), *c_in, weights.all(), *taps, end, &mut samples.all_mut())?;
        voice.last.keep(gpu, front.all())?;
        pcm.extend(samples.read()?.chunks_exact(*n).map(|row| row[0].clamp(-1.0, 1.0)));
        Ok(())
    }
}

impl Upsample {
    fn load(up: &Uploader<'_>, name: &str, hidden: usize, ratio: usize) -> Result<Self, OmniError> {
        let (weights, bias) = transposed(up, &format!("{name}.0.conv"), (hidden, hidden), (ratio, 1))?;
        let block = |part: &str| format!("{name}.1.{part}");
        let depthwise = up.values(&block("dwconv.conv.weight"), &[hidden, 1, KERNEL])?;
        let turned: Vec<f32> = (0..depthwise.len()).map(|i| depthwise[i % hidden * KERNEL + i / hidden]).collect();
        let inner = WIDENING * hidden;
        let scale = up.values(&block("gamma"), &[hidden])?;
        let down = up.values(&block("pwconv2.weight"), &[hidden, inner])?;
        let down: Vec<f32> =
            down.chunks_exact(inner).zip(&scale).flat_map(|(row, s)| row.iter().map(move |v| v * s)).collect();
        let bias_down = up.values(&block("pwconv2.bias"), &[hidden])?;
        let bias_down: Vec<f32> = bias_down.iter().zip(&scale).map(|(b, s)| b * s).collect();
        Ok(Self {
            rows: Linear { weights, bias, n: ratio * hidden, k: hidden },
            ratio,
            depthwise: up.upload(&turned)?,
            depthwise_bias: up.tensor(&block("dwconv.conv.bias"), &[hidden])?,
            norm: up.norm(&block("norm"), hidden)?,
            up: up.linear(&block("pwconv1"), inner, hidden)?,
            down: Linear { weights: up.upload(&down)?, bias: up.upload(&bias_down)?, n: hidden, k: inner },
        })
    }

    fn forward(&self, gpu: &Gpu, tail: &mut Tail, x: Slice<'_, bf16>) -> Result<Buffer<bf16>, OmniError> {
        let hidden = self.down.n;
        let rows = x.len() / hidden * self.ratio;
        let longer = tail.prepend(gpu, rows, |to| {
            let Linear { weights, bias, k, .. } = &self.rows;
            Ok(linear(gpu, x, weights.all(), Epilogue::bias(bias.all()), Way::ByTokens, *k, &mut to.reborrow())?)
        })?;
        let (mut mixed, mut normed) = (gpu.allocate(rows * hidden)?, gpu.allocate(rows * hidden)?);
        depthwise_conv1d(gpu, longer.all(), self.depthwise.all(), self.depthwise_bias.all(), &mut mixed.all_mut())?;
        let Norm { gamma, beta } = &self.norm;
        layer_norm(gpu, mixed.all(), gamma.all(), beta.all(), NORM_EPS, &mut normed.all_mut())?;
        let (mut inner, mut y) = (gpu.allocate(rows * self.up.n)?, gpu.allocate(rows * hidden)?);
        let gelu = Epilogue { activation: Activation::Gelu, ..Epilogue::bias(self.up.bias.all()) };
        linear(gpu, normed.all(), self.up.weights.all(), gelu, Way::ByTokens, hidden, &mut inner.all_mut())?;
        let residual = Some(longer.range(longer.len() - rows * hidden..));
        let end = Epilogue { residual, ..Epilogue::bias(self.down.bias.all()) };
        linear(gpu, inner.all(), self.down.weights.all(), end, Way::ByTokens, self.down.k, &mut y.all_mut())?;
        tail.keep(gpu, longer.all())?;
        Ok(y)
    }
}

impl Block {
    fn load(up: &Uploader<'_>, name: &str, channels: usize, rate: usize) -> Result<Self, OmniError> {
        let half = channels / 2;
        let (weights, bias) = transposed(up, &format!("{name}.1.conv"), (channels, half), (rate, 2))?;
        let units = DILATIONS.iter().enumerate();
        let longer = Convolution { weights, bias, c_in: whole(channels), n: rate * whole(half), taps: Taps::dense(2) };
        Ok(Self {
            snake: snake(up, &format!("{name}.0"), channels)?,
            longer,
            rate,
            units: units
                .map(|(i, dilation)| Unit::load(up, &format!("{name}.{}", i + 2), half, *dilation))
                .collect::<Result<_, _>>()?,
        })
    }

    fn forward(&self, gpu: &Gpu, tails: &mut BlockTails, x: Slice<'_, bf16>) -> Result<Buffer<bf16>, OmniError> {
        let rows = x.len() / self.longer.c_in;
        let front = tails.longer.prepend(gpu, rows, |to| Ok(snake_beta(gpu, x, &self.snake, to)?))?;
        // Rows of `rate` times the channels are `rate` rows.
        let mut x = self.longer.apply(gpu, front.all(), None)?;
        tails.longer.keep(gpu, front.all())?;
        debug_assert!(x.len().is_multiple_of(self.rate));
        if x.is_empty() {
            return Ok(x);
        }
        for (unit, tails) in self.units.iter().zip(&mut tails.units) {
            let [wide, mixing] = &unit.convolutions;
            let rows = x.len() / wide.c_in;
            let front = tails[0].prepend(gpu, rows, |to| Ok(snake_beta(gpu, x.all(), &unit.snakes[0], to)?))?;
            let inner = wide.apply(gpu, front.all(), None)?;
            tails[0].keep(gpu, front.all())?;
            let mut active = gpu.allocate(inner.len())?;
            snake_beta(gpu, inner.all(), &unit.snakes[1], &mut active.all_mut())?;
            x = mixing.apply(gpu, active.all(), Some(x.all()))?;
        }
        Ok(x)
    }
}

impl Unit {
    fn load(up: &Uploader<'_>, name: &str, channels: usize, dilation: usize) -> Result<Self, OmniError> {
        let wide = Taps { dilation, ..Taps::dense(KERNEL) };
        let convolution = |part: &str, taps| Convolution::load(up, &format!("{name}.{part}"), channels, channels, taps);
        Ok(Self {
            snakes: [snake(up, &format!("{name}.act1"), channels)?, snake(up, &format!("{name}.act2"), channels)?],
            convolutions: [convolution("conv1", wide)?, convolution("conv2", Taps::dense(1))?],
        })
    }
}

impl Convolution {
    fn load(up: &Uploader<'_>, name: &str, c_out: usize, c_in: usize, taps: Taps) -> Result<Self, OmniError> {
        let values = up.values(&format!("{name}.conv.weight"), &[c_out, c_in, taps.count])?;
        let bias = up.values(&format!("{name}.conv.bias"), &[c_out])?;
        let (n, width) = (whole(c_out), whole(c_in));
        let mut weights = vec![0.0; n * taps.count * width];
        for (i, value) in values.iter().enumerate() {
            let (o, c, tap) = (i / (c_in * taps.count), i / taps.count % c_in, i % taps.count);
            weights[(o * taps.count + tap) * width + c] = *value;
        }
        let bias = up.upload(&padded(&bias, c_out, n, 1))?;
        Ok(Self { weights: up.upload(&weights)?, bias, c_in: width, n, taps })
    }

    fn tail(&self, gpu: &Gpu) -> Result<Tail, OmniError> {
        Tail::new(gpu, self.taps.history(), self.c_in, self.taps.history())
    }

    /// From rows with their history in front.
    fn apply(
        &self,
        gpu: &Gpu,
        x: Slice<'_, bf16>,
        residual: Option<Slice<'_, bf16>>,
    ) -> Result<Buffer<bf16>, OmniError> {
        let mut y = gpu.allocate(self.taps.outputs(x.len() / self.c_in) * self.n)?;
        let end = Epilogue { residual, ..Epilogue::bias(self.bias.all()) };
        conv1d(gpu, x, self.c_in, self.weights.all(), self.taps, end, &mut y.all_mut())?;
        Ok(y)
    }
}

/// A transposed convolution as a convolution: `[stride, c_out, taps, c_in]` from `[c_in, c_out, taps · stride]`, and the bias
/// for each of the `stride` outputs.
fn transposed(
    up: &Uploader<'_>,
    name: &str,
    (c_in, c_out): (usize, usize),
    (stride, taps): (usize, usize),
) -> Result<(Buffer<bf16>, Buffer<bf16>), OmniError> {
    let kernel = taps * stride;
    let values = up.values(&format!("{name}.weight"), &[c_in, c_out, kernel])?;
    let bias = up.values(&format!("{name}.bias"), &[c_out])?;
    let (n, width) = (whole(c_out), whole(c_in));
    let mut weights = vec![0.0; stride * n * taps * width];
    for (i, value) in values.iter().enumerate() {
        let (c, o, k) = (i / (c_out * kernel), i / kernel % c_out, i % kernel);
        let (tap, s) = (taps - 1 - k / stride, k % stride);
        weights[((s * n + o) * taps + tap) * width + c] = *value;
    }
    let bias = padded(&bias, c_out, n, 1).repeat(stride);
    Ok((up.upload(&weights)?, up.upload(&bias)?))
}

fn snake(up: &Uploader<'_>, name: &str, channels: usize) -> Result<Parameters, OmniError> {
    let part = |part: &str| {
        let values = up.values(&format!("{name}.{part}"), &[channels])?;
        Ok::<_, OmniError>(padded(&values, channels, whole(channels), 1))
    };
    Ok(Parameters::new(up.gpu, &part("alpha")?, &part("beta")?)?)
}
