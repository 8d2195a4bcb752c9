//! Dispatch to the kernels of `experts.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};
use crate::ops::gemm::cuda::Groups;

const THREADS: u32 = 256;
/// Experts of a block, a warp each.
const EXPERTS: usize = 8;

/// Room for the order of up to `slots` slots, made once and used in every layer.
pub struct Permutation {
    counts: Buffer<i32>,
    offsets: Buffer<i32>,
    rows: Buffer<i32>,
    places: Buffer<i32>,
    slots: usize,
}

impl Permutation {
    /// Room for `tokens · top_k` slots.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    pub fn new(gpu: &Gpu, slots: usize, experts: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            counts: gpu.allocate(experts)?,
            offsets: gpu.allocate(experts + 1)?,
            rows: gpu.allocate(slots)?,
            places: gpu.allocate(slots)?,
            slots: 0,
        })
    }

    /// Sorts the slots by expert. ids: `[tokens, top_k]`.
    ///
    /// # Errors
    /// As [`Gpu::synchronize`].
    ///
    /// # Panics
    /// If there are more slots than room, or not whole tokens.
    pub fn sort(&mut self, gpu: &Gpu, ids: Slice<'_, i32>, top_k: usize) -> Result<(), DeviceError> {
        let (slots, experts) = (ids.len(), self.counts.len());
        assert!(slots <= self.rows.len() && slots.is_multiple_of(top_k), "experts: {slots} slots of {top_k} a token");
        self.slots = slots;
        let blocks = [experts.div_ceil(EXPERTS), 1, 1];
        let mut counts = self.counts.all_mut();
        let args = Args::new().input(ids).output(&mut counts).size(slots).size(experts);
        // SAFETY: the arguments are the kernel's; it reads the slots and writes a count for each expert.
        unsafe { gpu.launch(&Launch::new("expert_counts", blocks, THREADS, &args))? };
        let args = Args::new().input(ids).input(counts.as_slice()).output(&mut self.offsets.all_mut());
        let args = args.output(&mut self.rows.all_mut()).output(&mut self.places.all_mut());
        let args = args.size(slots).size(experts).size(top_k);
        // SAFETY: as above; every slot has one position below `slots`, for which there is room.
        unsafe { gpu.launch(&Launch::new("expert_places", blocks, THREADS, &args))? };
        gpu.verify("experts", |checks| {
            let (offsets, rows, places) = reference::permutation(&gpu.fetch(ids)?, experts, top_k);
            checks.equal("offsets", &self.offsets.read()?, &offsets);
            checks.equal("rows", &self.rows.read()?[..slots], &rows);
            checks.equal("places", &gpu.fetch(self.places())?, &places);
            Ok(())
        })
    }

    /// The tokens of each expert, for a product that takes its rows from the tokens.
    pub fn gathered(&self) -> Groups<'_> {
        Groups { offsets: self.offsets.all(), rows: Some(self.rows.all().range(..self.slots)) }
    }

    /// The tokens of each expert, for a product whose rows are sorted already.
    pub fn sorted(&self) -> Groups<'_> {
        Groups { offsets: self.offsets.all(), rows: None }
    }

    /// Where each slot went: `[tokens, top_k]`.
    pub fn places(&self) -> Slice<'_, i32> {
        self.places.all().range(..self.slots)
    }
}

/// What is added to the experts' results.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addends<'a> {
    /// A shared expert's results `[tokens, h]`, and the logits of its gate `[tokens, any]`, of which the first counts.
    pub shared: Option<(Slice<'a, bf16>, Slice<'a, bf16>)>,
    /// `[tokens, h]`.
    pub residual: Option<Slice<'a, bf16>>,
}

/// `y[t] = Σ_j weights[t, j] x[places[t, j]] + σ(gate[t]) shared[t] + residual[t]`. x: `[tokens · top_k, h]`, sorted.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
pub fn combine<'a>(
    gpu: &Gpu,
    x: Slice<'a, bf16>,
    permutation: &'a Permutation,
    weights: Slice<'a, f32>,
    addends: Addends<'a>,
    h: usize,
    y: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let slots = permutation.slots;
    assert!(h > 0 && h.is_multiple_of(8) && x.len() == slots * h, "experts: {} results of {slots} slots", x.len());
    assert!(weights.len() == slots && y.len().is_multiple_of(h), "experts: {} weights", weights.len());
    let tokens = y.len() / h;
    if tokens == 0 {
        return Ok(());
    }
    assert!(slots.is_multiple_of(tokens), "experts: {slots} slots of {tokens} tokens");
    let (shared, gates) = addends.shared.unzip();
    assert!(
        shared.into_iter().chain(addends.residual).all(|a| a.len() == y.len()),
        "experts: addends of another shape"
    );
    let gate_stride = gates.map_or(1, |gates| gates.len() / tokens);
    assert!(gates.is_none_or(|gates| gates.len() >= tokens), "experts: a gate for each token");
    let args = Args::new().input(x).input(permutation.places()).input(weights).optional_input(shared);
    let args = args.optional_input(gates).optional_input(addends.residual).output(y);
    let args = args.size(slots / tokens).size(gate_stride).size(h);
    let launch = Launch::new("expert_combine", [tokens, 1, 1], THREADS, &args);
    // SAFETY: the arguments are the kernel's; places are below `slots`, as `Permutation::sort` made them.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("experts", |checks| {
        let (x, places, weights) = (gpu.widened(x)?, gpu.fetch(permutation.places())?, gpu.fetch(weights)?);
        let (shared, gates) = (gpu.widened_if(shared)?, gpu.widened_if(gates)?);
        let residual = gpu.widened_if(addends.residual)?;
        let gates: Option<Vec<f32>> = gates.map(|gates| gates.into_iter().step_by(gate_stride).collect());
        let addends =
            reference::Addends { shared: shared.as_deref().zip(gates.as_deref()), residual: residual.as_deref() };
        let expected = reference::combine(&x, &places, &weights, addends, slots / tokens, h);
        let terms =
            [greatest(&x) * greatest(&weights), greatest(shared.as_deref().unwrap_or(&[])), greatest(&expected)];
        let tolerance = Tolerance::bf16().summing(slots / tokens + 2, greatest(&terms));
        checks.close("y", &gpu.fetch(y.as_slice())?, &expected, tolerance);
        Ok(())
    })
}
