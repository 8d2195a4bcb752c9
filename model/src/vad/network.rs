//! Silero's network: magnitudes of a short Fourier transform, four convolutions, a recurrent cell, one probability.
//!
//! The published ONNX graph computes the same through a hundred nodes, whose overhead is several times the arithmetic of a
//! window (0.7 million products); a server that listens to a hundred callers needs the difference. The weights are taken
//! out of that graph: those that are published as safetensors belong to another training of the same network.

use std::path::Path;

use causerie_kernels::ops::conv1d::{self, Window, conv1d};
use causerie_kernels::ops::linear::{self, WeightType, Weights, linear};
use causerie_kernels::{KernelError, Pool};

use super::{CONTEXT, WINDOW};
use crate::onnx::{Constants, OnnxError};

/// Samples of a frame of the Fourier transform.
const FRAME: usize = 256;
const HOP: usize = 128;
/// Samples that are mirrored at the end of a window.
const MIRRORED: usize = 64;
const FRAMES: usize = (CONTEXT + WINDOW + MIRRORED - FRAME) / HOP + 1;
const BINS: usize = FRAME / 2 + 1;
/// Width of the recurrent cell.
const CELL: usize = 128;
/// Inputs, outputs and stride of the convolutions, each of three taps.
const CONVOLUTIONS: [(usize, usize, usize); 4] = [(BINS, 128, 1), (128, 64, 2), (64, 64, 2), (64, CELL, 1)];

/// The weights.
pub(super) struct Network {
    pool: Pool,
    transform: Weights,
    convolutions: Vec<Convolution>,
    /// Of the input and of the state, side by side: `[4 × CELL, 2 × CELL]`, gates in the order input, forget, cell, output.
    gates: Weights,
    gate_bias: Vec<f32>,
    last: Vec<f32>,
    last_bias: f32,
}

struct Convolution {
    weights: Weights,
    bias: Vec<f32>,
    window: Window,
    c_in: usize,
    c_out: usize,
}

/// What a conversation carries from window to window.
#[derive(Clone)]
pub(super) struct State {
    hidden: [f32; CELL],
    cell: [f32; CELL],
}

impl State {
    /// Of a conversation in which nothing was heard.
    pub(super) const NEW: Self = Self { hidden: [0.0; CELL], cell: [0.0; CELL] };
}

/// Buffers reused from window to window.
#[derive(Default)]
pub(super) struct Scratch {
    linear: linear::Scratch,
    columns: Vec<f32>,
    x: Vec<f32>,
    y: Vec<f32>,
}

impl Network {
    /// Takes the weights out of the published graph.
    pub(super) fn load(path: &Path) -> Result<Self, OnnxError> {
        let constants = Constants::load(path)?;
        let floats = |name: &str, shape: &[usize]| constants.floats(&format!("model.{name}"), shape);
        let malformed = |error: KernelError| OnnxError::Malformed { path: path.into(), reason: error.to_string() };
        let pool = Pool::new(1);
        let pack = |w: &[f32], c_out, c_in, taps| conv1d::pack(&pool, w, c_out, c_in, taps).map_err(malformed);
        let transform = pack(&floats("stft.forward_basis_buffer", &[2 * BINS, 1, FRAME])?, 2 * BINS, 1, FRAME)?;
        let convolutions = CONVOLUTIONS.into_iter().enumerate().map(|(i, (c_in, c_out, stride))| {
            let name = format!("encoder.{i}.reparam_conv");
            let weights = pack(&floats(&format!("{name}.weight"), &[c_out, c_in, 3])?, c_out, c_in, 3)?;
            let bias = floats(&format!("{name}.bias"), &[c_out])?;
            Ok(Convolution { weights, bias, window: Window { kernel: 3, stride, pad: 1 }, c_in, c_out })
        });
        let convolutions = convolutions.collect::<Result<_, OnnxError>>()?;
        let of_input = floats("decoder.rnn.weight_ih", &[4 * CELL, CELL])?;
        let of_state = floats("decoder.rnn.weight_hh", &[4 * CELL, CELL])?;
        let rows = of_input.chunks_exact(CELL).zip(of_state.chunks_exact(CELL)).flat_map(|(x, h)| x.iter().chain(h));
        let rows: Vec<u8> = rows.flat_map(|w| w.to_le_bytes()).collect();
        let gates = Weights::pack(&pool, WeightType::F32, 4 * CELL, 2 * CELL, &rows).map_err(malformed)?;
        let mut gate_bias = floats("decoder.rnn.bias_ih", &[4 * CELL])?;
        for (bias, more) in gate_bias.iter_mut().zip(floats("decoder.rnn.bias_hh", &[4 * CELL])?) {
            *bias += more;
        }
        let last = floats("decoder.decoder.2.weight", &[1, CELL, 1])?;
        let last_bias = floats("decoder.decoder.2.bias", &[1])?[0];
        Ok(Self { pool, transform, convolutions, gates, gate_bias, last, last_bias })
    }

    /// The probability of speech in a window and its context.
    pub(super) fn probability(
        &self,
        samples: &[f32; CONTEXT + WINDOW],
        state: &mut State,
        scratch: &mut Scratch,
    ) -> f32 {
        let Scratch { linear: s, columns, x, y } = scratch;
        x.clear();
        x.extend(samples);
        x.extend(samples.iter().rev().skip(1).take(MIRRORED));
        resize(y, FRAMES * 2 * BINS);
        let frames = Window { kernel: FRAME, stride: HOP, pad: 0 };
        conv1d(&self.pool, s, columns, x, 1, &self.transform, None, frames, y);
        x.clear();
        for frame in y.chunks_exact(2 * BINS) {
            let (real, imaginary) = frame.split_at(BINS);
            x.extend(real.iter().zip(imaginary).map(|(re, im)| (re * re + im * im).sqrt()));
        }
        for layer in &self.convolutions {
            resize(y, layer.window.outputs(x.len() / layer.c_in) * layer.c_out);
            let bias = Some(&layer.bias[..]);
            conv1d(&self.pool, s, columns, x, layer.c_in, &layer.weights, bias, layer.window, y);
            y.iter_mut().for_each(|y| *y = y.max(0.0));
            std::mem::swap(x, y);
        }
        x.extend(state.hidden);
        resize(y, 4 * CELL);
        linear(&self.pool, s, x, 1, &self.gates, Some(&self.gate_bias), y);
        let mut logit = self.last_bias;
        for i in 0..CELL {
            let [input, forget, cell, output] = [0, 1, 2, 3].map(|gate| y[gate * CELL + i]);
            state.cell[i] = sigmoid(forget) * state.cell[i] + sigmoid(input) * cell.tanh();
            state.hidden[i] = sigmoid(output) * state.cell[i].tanh();
            logit += self.last[i] * state.hidden[i].max(0.0);
        }
        sigmoid(logit)
    }
}

fn resize(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
