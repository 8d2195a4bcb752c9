//! Dispatch to the kernels of `gemm.cu`.

use half::bf16;

use crate::cuda::{Args, DeviceError, Element, Gpu, Launch, Slice, SliceMut};

/// Outputs of a block of a streamed product, and its threads.
const STREAMED: (usize, u32) = (16, 256);
/// Tokens and outputs of a block of a tiled product, and its threads.
const TILED: (usize, u32) = (64, 128);
/// Bytes of one stage of one operand of a tiled product, and how many stages there are.
const STAGE: (u32, u32) = (64 * 64 * 2, 3);
/// Tokens of a group, on average, from which a product is tiled. By arithmetic: below it the weights are read once or
/// twice by a streamed product, and tiles would be mostly empty. Not measured yet.
const TILED_FROM: usize = 33;

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

/// `y = x Wᵀ + b` with results in bf16.
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
    bias: Option<Slice<'a, bf16>>,
    k: usize,
    y: &mut SliceMut<'a, bf16>,
) -> Result<(), DeviceError> {
    product(gpu, Kind::Plain, x, weights, bias, None, k, y)
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
    k: usize,
    y: &mut SliceMut<'a, f32>,
) -> Result<(), DeviceError> {
    product(gpu, Kind::Logits, x, weights, None, None, k, y)
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
    k: usize,
    y: &mut SliceMut<'a, bf16>,
) -> Result<(), DeviceError> {
    product(gpu, Kind::Gated, x, weights, None, None, k, y)
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
    k: usize,
    y: &mut SliceMut<'a, bf16>,
) -> Result<(), DeviceError> {
    product(gpu, Kind::Plain, x, weights, None, Some(groups), k, y)
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
    k: usize,
    y: &mut SliceMut<'a, bf16>,
) -> Result<(), DeviceError> {
    product(gpu, Kind::Gated, x, weights, None, Some(groups), k, y)
}

#[allow(clippy::too_many_arguments)] // The operands of all the functions above.
fn product<'a, Y: Element>(
    gpu: &Gpu,
    kind: Kind,
    x: Slice<'a, bf16>,
    weights: Slice<'a, bf16>,
    bias: Option<Slice<'a, bf16>>,
    groups: Option<Groups<'a>>,
    k: usize,
    y: &mut SliceMut<'a, Y>,
) -> Result<(), DeviceError> {
    let matrices = groups.map_or(1, |groups| groups.offsets.len() - 1);
    let stacked = if kind == Kind::Gated { 2 } else { 1 };
    assert!(k > 0 && k.is_multiple_of(8), "gemm: k = {k} is not a multiple of 8");
    assert!(matrices > 0 && weights.len().is_multiple_of(matrices * stacked * k), "gemm: {} weights", weights.len());
    let n = weights.len() / (matrices * stacked * k);
    assert!(n > 0 && n.is_multiple_of(2), "gemm: n = {n} is not a multiple of 2");
    assert!(y.len().is_multiple_of(n), "gemm: {} results are not rows of {n}", y.len());
    let tokens = y.len() / n;
    let rows = groups.and_then(|groups| groups.rows);
    assert!(x.len().is_multiple_of(k), "gemm: {} activations are not rows of {k}", x.len());
    assert!(rows.map_or(x.len() / k, |rows| rows.len()) == tokens, "gemm: {} rows, {tokens} tokens", x.len() / k);
    assert!(bias.is_none_or(|bias| bias.len() == n), "gemm: the bias has not {n} values");
    if tokens == 0 {
        return Ok(());
    }
    let average = tokens.div_ceil(matrices);
    let args = Args::new().input(x).input(weights).optional_input(bias).output(y);
    let args = args.optional_input(groups.map(|groups| groups.offsets)).optional_input(rows);
    let launch = if average < TILED_FROM {
        let few = average <= 8;
        Launch {
            kernel: match kind {
                Kind::Plain => ["gemm_streamed_32", "gemm_streamed_8"][usize::from(few)],
                Kind::Logits => ["gemm_streamed_32_f32", "gemm_streamed_8_f32"][usize::from(few)],
                Kind::Gated => ["gemm_streamed_32_swiglu", "gemm_streamed_8_swiglu"][usize::from(few)],
            },
            grid: [n.div_ceil(STREAMED.0) as u32, matrices as u32, 1],
            block: [STREAMED.1, 1, 1],
            shared_bytes: 0,
            cooperative: false,
            args: &args.size(tokens).size(n).size(k),
        }
    } else {
        // Tiles of a group are counted up, so each group may need one more than its share.
        let tiles = if groups.is_some() { tokens / TILED.0 + matrices } else { tokens.div_ceil(TILED.0) };
        Launch {
            kernel: match kind {
                Kind::Plain => "gemm_tiled",
                Kind::Logits => "gemm_tiled_f32",
                Kind::Gated => "gemm_tiled_swiglu",
            },
            grid: [n.div_ceil(TILED.0) as u32, tiles as u32, 1],
            block: [TILED.1, 1, 1],
            shared_bytes: STAGE.0 * STAGE.1 * (1 + stacked as u32),
            cooperative: false,
            args: &args.size(matrices).size(tokens).size(n).size(k),
        }
    };
    // SAFETY: the arguments are the kernel's. It reads `matrices` matrices and rows of x, and writes `tokens` rows of y; that
    // offsets and rows stay inside is the promise of `experts`, which makes them.
    unsafe { gpu.launch(&launch) }
}
