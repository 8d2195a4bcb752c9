//! One upsampling stage: every row becomes several, then a ConvNeXt block (arXiv 2201.03545) smooths them.

use causerie_kernels::Pool;
use causerie_kernels::ops::depthwise_conv1d::depthwise_conv1d;
use causerie_kernels::ops::gelu::gelu;
use causerie_kernels::ops::transposed_conv1d::{TransposedConv1d, transposed_conv1d};

use super::Scratch;
use super::transformer::add_scaled;
use crate::lm::resize;
use crate::omni::OmniError;
use crate::omni::layers::{Linear, Norm};
use crate::omni::load::Loader;

/// Taps of the depthwise convolution.
const KERNEL: usize = 7;
/// Widening inside the block.
const WIDENING: usize = 4;
/// Epsilon of its layer norm: that of the reference implementation, not in the configuration.
const NORM_EPS: f32 = 1e-6;

pub(super) struct Upsample {
    rows: TransposedConv1d,
    /// `[hidden, KERNEL]`.
    depthwise: Vec<f32>,
    depthwise_bias: Vec<f32>,
    norm: Norm,
    up: Linear,
    down: Linear,
    scale: Vec<f32>,
}

/// Rows that the convolutions still need.
pub(super) struct State {
    rows: Vec<f32>,
    depthwise: Vec<f32>,
}

impl Upsample {
    pub(super) fn load(loader: &Loader<'_>, name: &str, hidden: usize, ratio: usize) -> Result<Self, OmniError> {
        let weights = loader.values(&format!("{name}.0.conv.weight"), &[hidden, hidden, ratio])?;
        let bias = loader.vector(&format!("{name}.0.conv.bias"), hidden)?;
        let block = |part: &str| format!("{name}.1.{part}");
        Ok(Self {
            rows: TransposedConv1d::pack(loader.pool(), &weights, &bias, hidden, ratio)?,
            depthwise: loader.values(&block("dwconv.conv.weight"), &[hidden, 1, KERNEL])?,
            depthwise_bias: loader.vector(&block("dwconv.conv.bias"), hidden)?,
            norm: Norm::load(loader, &block("norm"), hidden, NORM_EPS)?,
            up: Linear::load(loader, &block("pwconv1"), WIDENING * hidden, hidden)?,
            down: Linear::load(loader, &block("pwconv2"), hidden, WIDENING * hidden)?,
            scale: loader.vector(&block("gamma"), hidden)?,
        })
    }

    pub(super) fn state(&self) -> State {
        State { rows: Vec::new(), depthwise: vec![0.0; (KERNEL - 1) * self.scale.len()] }
    }

    /// From rows in `s.x` to more rows there.
    pub(super) fn forward(&self, pool: &Pool, state: &mut State, s: &mut Scratch) {
        resize(&mut s.next, self.rows.outputs(state.rows.len(), s.x.len()));
        transposed_conv1d(pool, &mut s.linear, &mut s.columns, &mut state.rows, &s.x, &self.rows, &mut s.next);
        std::mem::swap(&mut s.x, &mut s.next);
        resize(&mut s.next, s.x.len());
        depthwise_conv1d(pool, &mut state.depthwise, &s.x, &self.depthwise, &self.depthwise_bias, &mut s.next);
        self.norm.apply(pool, &s.next, &mut s.normed);
        self.up.apply(pool, &mut s.linear, &s.normed, &mut s.inner);
        gelu(pool, &mut s.inner);
        self.down.apply(pool, &mut s.linear, &s.inner, &mut s.next);
        add_scaled(&mut s.x, &s.next, &self.scale);
    }
}
