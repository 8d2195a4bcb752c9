//! Dispatch to the kernels of `gemm.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Checks, Tolerance, greatest};
use crate::cuda::{Args, DeviceError, Element, Gpu, Launch, Slice, SliceMut};

/// Outputs of a block of a streamed product, and its threads.
const STREAMED: (usize, u32) = (16, 256);
/// Tokens and outputs of a block of a tiled product, and its threads.
pub(in crate::ops) const TILED: (usize, u32) = (64, 128);
/// Bytes of one stage of one operand of a tiled product, and how many stages there are.
const STAGE: (u32, u32) = (64 * 64 * 2, 3);
/// Tokens of a group, on average, from which a product is tiled. By arithmetic: below it the weights are read once or
/// twice by a streamed product, and tiles would be mostly empty. Not measured yet.
const TILED_FROM: usize = 33;

/// Dynamic shared memory of a tiled product with so many matrices.
pub(in crate::ops) fn tiled_shared_bytes(matrices: usize) -> u32 {
    STAGE.0 * STAGE.1 * (1 + matrices as u32)
}

/// How a product is scheduled. Both ways of it sum in an order that does not depend on the number of tokens, but each in one
/// of its own: a token's result is the same bits whatever its company only where the way does not follow from the company.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// What should be faster for as many tokens.
    #[default]
    ByTokens,
    /// Weights go past the tokens: for few, of many sequences.
    Streamed,
    /// Tiles of tokens and outputs: for many, of a prompt.
    Tiled,
}

/// What the results are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Logits,
    Gated,
}

/// Tokens grouped by the matrix they take. All slices lie on the device.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// `[groups + 1]`: tokens of group g are `offsets[g]..offsets[g + 1]`, the last is the number of tokens.
    pub offsets: Slice<'a, i32>,
    /// `[tokens]`: the row of x that a token takes. None: its own.
    pub rows: Option<Slice<'a, i32>>,
}

/// What is done to each value, as in `gemm.cuh`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `x σ(x)`.
    Silu,
    /// `x Φ(x)`.
    Gelu,
    /// Its approximation by a hyperbolic tangent.
    GeluTanh,
}

/// What a product ends with: `f(x + bias) + residual`, rounded once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// `[n]`.
    pub bias: Option<Slice<'a, bf16>>,
    /// f.
    pub activation: Activation,
    /// `[tokens, n]`.
    pub residual: Option<Slice<'a, bf16>>,
}

impl<'a> Epilogue<'a> {
    /// A bias alone.
    pub fn bias(bias: Slice<'a, bf16>) -> Self {
        Self { bias: Some(bias), ..Self::default() }
    }

    pub(in crate::ops) fn check(&self, n: usize, tokens: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == n), "gemm: the bias has not {n} values");
        assert!(self.residual.is_none_or(|r| r.len() == tokens * n), "gemm: the residual is not {tokens} rows of {n}");
    }

    /// Ends `sums`, `[tokens, n]`, as the kernel does; with how far off a result may be whose sum is off by `error`.
    pub(in crate::ops) fn expected(
        &self,
        gpu: &Gpu,
        sums: &mut [f32],
        n: usize,
        tolerance: Tolerance,
    ) -> Result<Tolerance, DeviceError> {
        let (bias, residual) = (gpu.widened_if(self.bias)?, gpu.widened_if(self.residual)?);
        reference::end(sums, bias.as_deref(), self.activation, residual.as_deref(), n);
        let added = greatest(bias.as_deref().unwrap_or(&[])).max(greatest(residual.as_deref().unwrap_or(&[])));
        Ok(tolerance.summing(4, added))
    }
}

/// `y = f(x Wᵀ + b) + residual` with results in bf16.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit, or k is not a multiple of 8 or n not one of 2.
pub fn linear<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    epilogue: Epilogue<'a>,
    way: Way,
    k: usize,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    Product { kind: Kind::Plain, x, weights, epilogue, groups: None, way, k }.run(gpu, y)
}

/// `y = x Wᵀ` with results in f32.
///
/// # Errors
/// As [`linear`].
///
/// # Panics
/// As [`linear`].
pub fn logits<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    way: Way,
    k: usize,
    y: &mut SliceMut<'_, f32>,
) -> Result<(), DeviceError> {
    Product { kind: Kind::Logits, x, weights, epilogue: Epilogue::default(), groups: None, way, k }.run(gpu, y)
}

/// `y = silu(x Gᵀ) · (x Uᵀ)`. weights: `[2 n, k]`, G above U.
///
/// # Errors
/// As [`linear`].
///
/// # Panics
/// As [`linear`].
pub fn gated<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    way: Way,
    k: usize,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    Product { kind: Kind::Gated, x, weights, epilogue: Epilogue::default(), groups: None, way, k }.run(gpu, y)
}

/// As [`linear`], each token with its group's matrix.
///
/// # Errors
/// As [`linear`].
///
/// # Panics
/// As [`linear`].
pub fn grouped_linear<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    groups: Groups<'a>,
    way: Way,
    k: usize,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    Product { kind: Kind::Plain, x, weights, epilogue: Epilogue::default(), groups: Some(groups), way, k }.run(gpu, y)
}

/// As [`gated`], each token with its group's matrices.
///
/// # Errors
/// As [`linear`].
///
/// # Panics
/// As [`linear`].
pub fn grouped_gated<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    groups: Groups<'a>,
    way: Way,
    k: usize,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    Product { kind: Kind::Gated, x, weights, epilogue: Epilogue::default(), groups: Some(groups), way, k }.run(gpu, y)
}

/// The operands of all the functions above.
#[derive(Clone, Copy)]
struct Product<'a> {
    kind: Kind,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    epilogue: Epilogue<'a>,
    groups: Option<Groups<'a>>,
    way: Way,
    k: usize,
}

impl Product<'_> {
    /// Launches it, and compares the results where that is asked for.
    fn run<Y: Element + Into<f32>>(self, gpu: &Gpu, y: &mut SliceMut<'_, Y>) -> Result<(), DeviceError> {
        self.launch(gpu, y)?;
        gpu.verify("gemm", |checks| self.compare(gpu, &gpu.fetch(y.as_slice())?, checks))
    }

    fn launch<Y: Element>(self, gpu: &Gpu, y: &mut SliceMut<'_, Y>) -> Result<(), DeviceError> {
        let Self { kind, x, weights, epilogue, groups, way, k } = self;
        let matrices = groups.map_or(1, |groups| groups.offsets.len() - 1);
        let stacked = if kind == Kind::Gated { 2 } else { 1 };
        assert!(k > 0 && k.is_multiple_of(8), "gemm: k = {k} is not a multiple of 8");
        assert!(
            matrices > 0 && weights.len().is_multiple_of(matrices * stacked * k),
            "gemm: {} weights",
            weights.len()
        );
        let n = weights.len() / (matrices * stacked * k);
        assert!(n > 0 && n.is_multiple_of(2), "gemm: n = {n} is not a multiple of 2");
        assert!(y.len().is_multiple_of(n), "gemm: {} results are not rows of {n}", y.len());
        let tokens = y.len() / n;
        let rows = groups.and_then(|groups| groups.rows);
        assert!(x.len().is_multiple_of(k), "gemm: {} activations are not rows of {k}", x.len());
        assert!(rows.map_or(x.len() / k, |rows| rows.len()) == tokens, "gemm: {} rows, {tokens} tokens", x.len() / k);
        epilogue.check(n, tokens);
        if tokens == 0 {
            return Ok(());
        }
        let average = tokens.div_ceil(matrices);
        let args = Args::new().input(x).input(weights).optional_input(epilogue.bias).optional_input(epilogue.residual);
        let args = args.output(y).optional_input(groups.map(|groups| groups.offsets)).optional_input(rows);
        let tiled = match way {
            Way::ByTokens => average >= TILED_FROM,
            Way::Streamed => false,
            Way::Tiled => true,
        };
        let args = if tiled { args.size(matrices) } else { args };
        let args = args.size(epilogue.activation as usize).size(tokens).size(n).size(k);
        let launch = if tiled {
            let kernel = match kind {
                Kind::Plain => "gemm_tiled",
                Kind::Logits => "gemm_tiled_f32",
                Kind::Gated => "gemm_tiled_swiglu",
            };
            // Tiles of a group are counted up, so each group may need one more than its share.
            let tiles = if groups.is_some() { tokens / TILED.0 + matrices } else { tokens.div_ceil(TILED.0) };
            let blocks = [n.div_ceil(TILED.0), tiles, 1];
            Launch { shared_bytes: tiled_shared_bytes(stacked), ..Launch::new(kernel, blocks, TILED.1, &args) }
        } else {
            let few = usize::from(average <= 8);
            let kernel = match kind {
                Kind::Plain => ["gemm_streamed_32", "gemm_streamed_8"][few],
                Kind::Logits => ["gemm_streamed_32_f32", "gemm_streamed_8_f32"][few],
                Kind::Gated => ["gemm_streamed_32_swiglu", "gemm_streamed_8_swiglu"][few],
            };
            Launch::new(kernel, [n.div_ceil(STREAMED.0), matrices, 1], STREAMED.1, &args)
        };
        // SAFETY: the arguments are the kernel's. It reads `matrices` matrices and rows of x, and writes `tokens` rows of y;
        // that offsets and rows stay inside is the promise of `experts`, which makes them.
        unsafe { gpu.launch(&launch) }
    }

    /// Compares the results with the reference's on the same inputs.
    fn compare<Y: Copy + Into<f32>>(self, gpu: &Gpu, y: &[Y], checks: &mut Checks) -> Result<(), DeviceError> {
        let Self { kind, x, weights, epilogue, groups, k, .. } = self;
        let sizes = |slice: Slice<'_, i32>| Ok(gpu.fetch(slice)?.into_iter().map(|v| v as usize).collect::<Vec<_>>());
        let tokens = groups.and_then(|groups| groups.rows).map_or(x.len() / k, |rows| rows.len());
        let offsets = groups.map_or(Ok(vec![0, tokens]), |groups| sizes(groups.offsets))?;
        let rows = groups.and_then(|groups| groups.rows).map_or(Ok((0..tokens).collect()), sizes)?;
        let (x, weights) = (gpu.widened(x)?, gpu.widened(weights)?);
        let n = weights.len() / ((offsets.len() - 1) * k);
        let mut expected = reference::gemm(&x, &weights, reference::Groups { offsets: &offsets, rows: &rows }, n, k);
        let term = greatest(&x) * greatest(&weights);
        let tolerance = match kind {
            Kind::Plain => epilogue.expected(gpu, &mut expected, n, Tolerance::bf16().summing(k, term))?,
            Kind::Logits => Tolerance::f32().summing(k, term),
            Kind::Gated => {
                // An error of one factor is multiplied by the other.
                let factor = greatest(&expected).max(1.0);
                expected = reference::gated(&expected, n / 2);
                Tolerance::bf16().summing(k, 2.0 * term * factor)
            }
        };
        checks.close("y", y, &expected, tolerance);
        Ok(())
    }
}
