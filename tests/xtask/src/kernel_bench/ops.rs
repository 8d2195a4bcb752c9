//! Ops at the shapes of a model, each beside the bytes that it has to move.

use std::collections::BTreeSet;
use std::time::Instant;

use causerie_kernels::cuda::{Buffer, Gpu};
use causerie_kernels::ops::experts::cuda::{Addends, Permutation, combine};
use causerie_kernels::ops::gemm::cuda::{Epilogue, Way, grouped_gated, grouped_linear, linear, logits};
use causerie_kernels::ops::noise::cuda::noise;
use causerie_kernels::ops::paged_attention::cuda::{BLOCK, Batch, Shape, Shares, paged_attention};
use causerie_kernels::ops::paged_attention::{Sequence, Visible};
use causerie_kernels::ops::rms_norm::cuda::rms_norm;
use causerie_kernels::ops::router::cuda::top_k;
use half::bf16;

/// Bytes of weights that are gone through in turns, so that a cache holds none of them when they come again.
const TURNS_BYTES: usize = 256 << 20;
/// Matrices of them, at most.
const MOST_TURNS: usize = 16;

/// The shape of a thinker.
pub(crate) struct Shapes {
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    experts: usize,
    top_k: usize,
    inner: usize,
    vocabulary: usize,
    context: usize,
    batches: Vec<usize>,
    repeats: usize,
}

impl Shapes {
    /// Of the released thinker.
    pub(crate) fn released() -> Self {
        Self {
            hidden: 2048,
            heads: 32,
            kv_heads: 4,
            head_dim: 128,
            experts: 128,
            top_k: 8,
            inner: 768,
            vocabulary: 152_064,
            context: 4096,
            batches: vec![1, 8, 32, 128],
            repeats: 50,
        }
    }

    /// For the emulator.
    pub(crate) fn small() -> Self {
        Self {
            hidden: 64,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            experts: 8,
            top_k: 2,
            inner: 32,
            vocabulary: 320,
            context: 100,
            batches: vec![1, 3],
            repeats: 1,
        }
    }
}

/// What was measured.
pub(crate) struct Line {
    pub(crate) op: &'static str,
    pub(crate) batch: usize,
    pub(crate) microseconds: f64,
    /// What has to be moved.
    pub(crate) bytes: f64,
}

/// Microseconds of one of `repeats` launches, between two events.
pub(crate) fn time(
    gpu: &Gpu,
    repeats: usize,
    mut launch: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    launch(0)?;
    let began = gpu.mark()?;
    for i in 0..repeats {
        launch(i)?;
    }
    let ended = gpu.mark()?;
    Ok(gpu.between(began, ended)? * 1e3 / repeats as f64)
}

/// Values drawn on the device.
fn drawn(gpu: &Gpu, len: usize) -> anyhow::Result<Buffer<bf16>> {
    let mut buffer = gpu.allocate(len)?;
    noise(gpu, len as u64, 1.0, &mut buffer.all_mut())?;
    Ok(buffer)
}

/// As many matrices of `len` values as a cache does not hold, within reason.
fn turns(gpu: &Gpu, len: usize, repeats: usize) -> anyhow::Result<Vec<Buffer<bf16>>> {
    let count = TURNS_BYTES.div_ceil(2 * len).clamp(1, MOST_TURNS.min(repeats));
    (0..count).map(|_| drawn(gpu, len)).collect()
}

/// All ops at all batches, until the time is over.
pub(crate) fn lines(gpu: &Gpu, s: &Shapes, ends: Instant) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for &batch in &s.batches {
        if Instant::now() >= ends {
            break;
        }
        let qkv = (s.heads + 2 * s.kv_heads) * s.head_dim;
        let width = s.heads * s.head_dim;
        for (op, n, k) in [("qkv", qkv, s.hidden), ("output", s.hidden, width), ("router", s.experts, s.hidden)] {
            let (weights, x) = (turns(gpu, n * k, s.repeats)?, drawn(gpu, batch * k)?);
            let mut y = gpu.allocate(batch * n)?;
            let microseconds = time(gpu, s.repeats, |i| {
                let w = weights[i % weights.len()].all();
                Ok(linear(gpu, x.all(), w, Epilogue::default(), Way::Streamed, k, &mut y.all_mut())?)
            })?;
            lines.push(Line { op, batch, microseconds, bytes: 2.0 * (n * k + batch * (n + k)) as f64 });
        }
        head(gpu, s, batch, &mut lines)?;
        experts(gpu, s, batch, &mut lines)?;
        attention(gpu, s, batch, &mut lines)?;
        let (x, gamma) = (drawn(gpu, batch * s.hidden)?, drawn(gpu, s.hidden)?);
        let mut y = gpu.allocate(batch * s.hidden)?;
        let microseconds =
            time(gpu, s.repeats, |_| Ok(rms_norm(gpu, x.all(), None, gamma.all(), 1e-6, &mut y.all_mut())?))?;
        lines.push(Line { op: "rms_norm", batch, microseconds, bytes: 4.0 * (batch * s.hidden) as f64 });
    }
    Ok(lines)
}

fn head(gpu: &Gpu, s: &Shapes, batch: usize, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let (weights, x) = (drawn(gpu, s.vocabulary * s.hidden)?, drawn(gpu, batch * s.hidden)?);
    let mut y = gpu.allocate(batch * s.vocabulary)?;
    let microseconds =
        time(gpu, s.repeats, |_| Ok(logits(gpu, x.all(), weights.all(), Way::Streamed, s.hidden, &mut y.all_mut())?))?;
    let bytes = (2 * s.vocabulary * s.hidden + batch * (4 * s.vocabulary + 2 * s.hidden)) as f64;
    lines.push(Line { op: "lm_head", batch, microseconds, bytes });
    Ok(())
}

/// The choice of experts, their products and their sum.
fn experts(gpu: &Gpu, s: &Shapes, batch: usize, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let slots = batch * s.top_k;
    let scores = drawn(gpu, batch * s.experts)?;
    let (mut ids, mut weights) = (gpu.allocate(slots)?, gpu.allocate(slots)?);
    let microseconds = time(gpu, s.repeats, |_| {
        Ok(top_k(gpu, scores.all(), s.experts, true, None, &mut ids.all_mut(), &mut weights.all_mut())?)
    })?;
    lines.push(Line { op: "router top-k", batch, microseconds, bytes: (2 * batch * s.experts + 8 * slots) as f64 });
    let mut order = Permutation::new(gpu, slots, s.experts)?;
    let microseconds = time(gpu, s.repeats, |_| Ok(order.sort(gpu, ids.all(), s.top_k)?))?;
    lines.push(Line { op: "expert permutation", batch, microseconds, bytes: 16.0 * slots as f64 });
    let hit = ids.read()?.into_iter().collect::<BTreeSet<i32>>().len();

    let up = turns(gpu, s.experts * 2 * s.inner * s.hidden, s.repeats)?;
    let (x, mut inner) = (drawn(gpu, batch * s.hidden)?, gpu.allocate(slots * s.inner)?);
    let microseconds = time(gpu, s.repeats, |i| {
        let (w, groups) = (up[i % up.len()].all(), order.gathered());
        Ok(grouped_gated(gpu, x.all(), w, groups, Way::Streamed, s.hidden, &mut inner.all_mut())?)
    })?;
    let bytes = 2.0 * (hit * 2 * s.inner * s.hidden + batch * s.hidden + slots * s.inner) as f64;
    lines.push(Line { op: "experts, gate and up", batch, microseconds, bytes });
    drop(up);
    let down = turns(gpu, s.experts * s.inner * s.hidden, s.repeats)?;
    let mut results = gpu.allocate(slots * s.hidden)?;
    let microseconds = time(gpu, s.repeats, |i| {
        let (w, groups) = (down[i % down.len()].all(), order.sorted());
        Ok(grouped_linear(gpu, inner.all(), w, groups, Way::Streamed, s.inner, &mut results.all_mut())?)
    })?;
    let bytes = 2.0 * (hit * s.inner * s.hidden + slots * (s.inner + s.hidden)) as f64;
    lines.push(Line { op: "experts, down", batch, microseconds, bytes });
    let mut y = gpu.allocate(batch * s.hidden)?;
    let microseconds = time(gpu, s.repeats, |_| {
        let addends = Addends::default();
        Ok(combine(gpu, results.all(), &order, weights.all(), addends, s.hidden, &mut y.all_mut())?)
    })?;
    lines.push(Line { op: "expert combine", batch, microseconds, bytes: 2.0 * ((slots + batch) * s.hidden) as f64 });
    Ok(())
}

/// One query of each sequence over its context.
fn attention(gpu: &Gpu, s: &Shapes, batch: usize, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let Shapes { heads, kv_heads, head_dim, context, .. } = *s;
    let pages = context.div_ceil(BLOCK);
    let cache = batch * pages * BLOCK * kv_heads * head_dim;
    let (k, v, q) = (drawn(gpu, cache)?, drawn(gpu, cache)?, drawn(gpu, batch * heads * head_dim)?);
    let tables: Vec<Vec<u32>> = (0..batch).map(|b| (0..pages).map(|p| (p * batch + b) as u32).collect()).collect();
    let sequences: Vec<Sequence<'_>> =
        tables.iter().map(|table| Sequence { table, keys: context, queries: 1 }).collect();
    let splits = context.div_ceil(64).clamp(1, 32);
    let mut rows = Batch::with_room(gpu, batch, batch * pages)?;
    rows.set(gpu, &sequences, Shares::Fixed(splits))?;
    let mut shares = gpu.allocate(splits * batch * heads * (head_dim + 2))?;
    let mut out = gpu.allocate(batch * heads * head_dim)?;
    let scale = 1.0 / (head_dim as f32).sqrt();
    let shape = Shape { heads, kv_heads, head_dim, scale, visible: Visible::All };
    let microseconds = time(gpu, s.repeats, |_| {
        let (mut shares, mut out) = (shares.all_mut(), out.all_mut());
        Ok(paged_attention(gpu, &shape, q.all(), k.all(), v.all(), &rows, &mut shares, &mut out)?)
    })?;
    let bytes = 2.0 * (2 * batch * context * kv_heads * head_dim + 2 * batch * heads * head_dim) as f64;
    lines.push(Line { op: "attention", batch, microseconds, bytes });
    Ok(())
}
