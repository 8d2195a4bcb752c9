//! From rows to samples: blocks that lengthen the stream and halve its channels, each followed by dilated residual units.

use causerie_kernels::Pool;
use causerie_kernels::ops::causal_conv1d::{Taps, causal_conv1d};
use causerie_kernels::ops::conv1d;
use causerie_kernels::ops::linear::Weights;
use causerie_kernels::ops::snake_beta::{SnakeBeta, snake_beta};
use causerie_kernels::ops::transposed_conv1d::{TransposedConv1d, transposed_conv1d};

use super::Scratch;
use crate::lm::moe::add;
use crate::lm::resize;
use crate::omni::OmniError;
use crate::omni::config::Code2WavConfig;
use crate::omni::load::Loader;

/// Taps of the wide convolutions.
const KERNEL: usize = 7;
/// Dilations of a block's residual units.
const DILATIONS: [usize; 3] = [1, 3, 9];

pub(super) struct Decoder {
    first: Convolution,
    blocks: Vec<Block>,
    snake: SnakeBeta,
    last: Convolution,
}

struct Block {
    snake: SnakeBeta,
    longer: TransposedConv1d,
    units: Vec<Unit>,
}

struct Unit {
    snakes: [SnakeBeta; 2],
    /// The dilated one and the one that mixes channels.
    convolutions: [Convolution; 2],
}

struct Convolution {
    weights: Weights,
    bias: Vec<f32>,
    taps: Taps,
}

/// Rows that the convolutions still need.
pub(super) struct State {
    first: Vec<f32>,
    blocks: Vec<BlockState>,
    last: Vec<f32>,
}

struct BlockState {
    longer: Vec<f32>,
    units: Vec<[Vec<f32>; 2]>,
}

impl Decoder {
    pub(super) fn load(loader: &Loader<'_>, config: &Code2WavConfig) -> Result<Self, OmniError> {
        let name = |i: usize| format!("code2wav.decoder.{i}");
        let wide = Taps { kernel: KERNEL, dilation: 1 };
        let blocks = config
            .rates
            .iter()
            .enumerate()
            .map(|(i, rate)| Block::load(loader, &format!("{}.block", name(i + 1)), config.channels >> i, *rate));
        let (count, channels) = (config.rates.len(), config.channels >> config.rates.len());
        Ok(Self {
            first: Convolution::load(loader, &name(0), config.channels, config.hidden, wide)?,
            blocks: blocks.collect::<Result<_, _>>()?,
            snake: snake(loader, &name(count + 1), channels)?,
            last: Convolution::load(loader, &name(count + 2), 1, channels, wide)?,
        })
    }

    pub(super) fn state(&self) -> State {
        State {
            first: self.first.history(),
            blocks: self.blocks.iter().map(Block::state).collect(),
            last: self.last.history(),
        }
    }

    /// From rows in `s.x` to samples there.
    pub(super) fn forward(&self, pool: &Pool, state: &mut State, s: &mut Scratch) {
        self.first.forward(pool, &mut state.first, s);
        std::mem::swap(&mut s.x, &mut s.next);
        for (block, state) in self.blocks.iter().zip(&mut state.blocks) {
            block.forward(pool, state, s);
        }
        snake_beta(pool, &self.snake, &mut s.x);
        self.last.forward(pool, &mut state.last, s);
        std::mem::swap(&mut s.x, &mut s.next);
    }
}

impl Block {
    fn load(loader: &Loader<'_>, name: &str, channels: usize, rate: usize) -> Result<Self, OmniError> {
        let half = channels / 2;
        let weights = loader.values(&format!("{name}.1.conv.weight"), &[channels, half, 2 * rate])?;
        let bias = loader.vector(&format!("{name}.1.conv.bias"), half)?;
        let units = DILATIONS.iter().enumerate();
        Ok(Self {
            snake: snake(loader, &format!("{name}.0"), channels)?,
            longer: TransposedConv1d::pack(loader.pool(), &weights, &bias, channels, rate)?,
            units: units
                .map(|(i, dilation)| Unit::load(loader, &format!("{name}.{}", i + 2), half, *dilation))
                .collect::<Result<_, _>>()?,
        })
    }

    fn state(&self) -> BlockState {
        let unit = |unit: &Unit| unit.convolutions.each_ref().map(Convolution::history);
        BlockState { longer: Vec::new(), units: self.units.iter().map(unit).collect() }
    }

    fn forward(&self, pool: &Pool, state: &mut BlockState, s: &mut Scratch) {
        snake_beta(pool, &self.snake, &mut s.x);
        resize(&mut s.next, self.longer.outputs(state.longer.len(), s.x.len()));
        transposed_conv1d(pool, &mut s.linear, &mut s.columns, &mut state.longer, &s.x, &self.longer, &mut s.next);
        std::mem::swap(&mut s.x, &mut s.next);
        for (unit, state) in self.units.iter().zip(&mut state.units) {
            // The residual stream waits in `inner`.
            s.inner.clone_from(&s.x);
            for ((snake, convolution), history) in unit.snakes.iter().zip(&unit.convolutions).zip(state) {
                snake_beta(pool, snake, &mut s.x);
                convolution.forward(pool, history, s);
                std::mem::swap(&mut s.x, &mut s.next);
            }
            add(&mut s.x, &s.inner);
        }
    }
}

impl Unit {
    fn load(loader: &Loader<'_>, name: &str, channels: usize, dilation: usize) -> Result<Self, OmniError> {
        let convolution = |part: &str, kernel: usize, dilation: usize| {
            Convolution::load(loader, &format!("{name}.{part}"), channels, channels, Taps { kernel, dilation })
        };
        Ok(Self {
            snakes: [
                snake(loader, &format!("{name}.act1"), channels)?,
                snake(loader, &format!("{name}.act2"), channels)?,
            ],
            convolutions: [convolution("conv1", KERNEL, dilation)?, convolution("conv2", 1, 1)?],
        })
    }
}

impl Convolution {
    fn load(loader: &Loader<'_>, name: &str, c_out: usize, c_in: usize, taps: Taps) -> Result<Self, OmniError> {
        let values = loader.values(&format!("{name}.conv.weight"), &[c_out, c_in, taps.kernel])?;
        let weights = conv1d::pack(loader.pool(), &values, c_out, c_in, taps.kernel)?;
        Ok(Self { weights, bias: loader.vector(&format!("{name}.conv.bias"), c_out)?, taps })
    }

    fn history(&self) -> Vec<f32> {
        vec![0.0; self.taps.history() * self.weights.k() / self.taps.kernel]
    }

    /// From `s.x` to `s.next`.
    fn forward(&self, pool: &Pool, history: &mut [f32], s: &mut Scratch) {
        let rows = s.x.len() * self.taps.kernel / self.weights.k();
        resize(&mut s.next, rows * self.weights.n());
        let bias = Some(self.bias.as_slice());
        causal_conv1d(pool, &mut s.linear, &mut s.columns, history, &s.x, &self.weights, bias, self.taps, &mut s.next);
    }
}

fn snake(loader: &Loader<'_>, name: &str, channels: usize) -> Result<SnakeBeta, OmniError> {
    let (alpha, beta) = (format!("{name}.alpha"), format!("{name}.beta"));
    Ok(SnakeBeta::new(&loader.vector(&alpha, channels)?, &loader.vector(&beta, channels)?)?)
}
