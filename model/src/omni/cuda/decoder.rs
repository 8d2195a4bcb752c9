//! The decoder on a device: pre-norm, grouped queries, rotary positions, experts or one dense network.
//!
//! Residuals are added by the norm that follows (`x += out; normed = norm(x)` is one launch), so the layers' outputs are in
//! memory only as that sum.

use std::ops::Range;

use causerie_kernels::cuda::{Buffer, Gpu, Slice, SliceMut};
use causerie_kernels::ops::experts::cuda::{Addends, Permutation, combine};
use causerie_kernels::ops::gemm::cuda::{Epilogue, Way, gated, grouped_gated, grouped_linear, linear};
use causerie_kernels::ops::norm_rope::cuda::{Angles, Heads, Norms, norm_rope_append};
use causerie_kernels::ops::paged_attention::cuda::{BLOCK, Batch, Shape, Shares, paged_attention};
use causerie_kernels::ops::paged_attention::{self, Visible};
use causerie_kernels::ops::rms_norm::cuda::rms_norm;
use causerie_kernels::ops::rope::Position;
use causerie_kernels::ops::router::cuda::top_k;
use causerie_kernels::ops::scatter::cuda::scatter;
use half::bf16;

use super::weights::{Uploader, padded};
use crate::omni::OmniError;
use crate::omni::config::{FeedForwardConfig, RopeConfig, TextConfig};
use crate::omni::decoder::Segment;
use crate::omni::kv::{KvStore, KvType, Layout};
use crate::omni::rope::rope;

/// Keys of a share, at least, and shares of a sequence, at most: by arithmetic, two tiles, and as many blocks of the released
/// thinker's four key heads as a large device has multiprocessors. Not measured yet.
const LEAST_SHARE: usize = 64;
const MOST_SHARES: usize = 32;

/// What all layers have in common.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) hidden: usize,
    pub(super) heads: Heads,
    pub(super) eps: f32,
    pub(super) visible: Visible,
    pub(super) rope: RopeConfig,
    pub(super) feed_forward: FeedForwardConfig,
}

/// The layers and the final norm.
pub(in crate::omni) struct Decoder {
    form: Form,
    layers: Vec<Layer>,
    norm: Buffer<bf16>,
    angles: Angles,
}

struct Layer {
    input_norm: Buffer<bf16>,
    /// Queries, keys and values below each other.
    qkv: Buffer<bf16>,
    head_norms: Option<(Buffer<bf16>, Buffer<bf16>)>,
    output: Buffer<bf16>,
    feed_forward_norm: Buffer<bf16>,
    feed_forward: FeedForward,
}

/// Two layers with a gate: `[2 inner, hidden]`, gates first, and `[hidden, inner]`; or as many as there are experts.
struct Gated {
    up: Buffer<bf16>,
    down: Buffer<bf16>,
    inner: usize,
}

enum FeedForward {
    Dense(Gated),
    Experts(Box<Experts>),
}

struct Experts {
    router: Buffer<bf16>,
    experts: Gated,
    count: usize,
    top_k: usize,
    normalise: bool,
    /// The expert that all tokens share, and its gate: one row, and one of zeros.
    shared: Option<(Gated, Buffer<bf16>)>,
}

/// How the kernels of a pass are scheduled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    pub(super) way: Way,
    pub(super) shares: Shares,
}

impl Mode {
    /// Rows of prompts: of as many as there happen to be in the pass, with the same result.
    pub const PROMPT: Self = Self { way: Way::Tiled, shares: Shares::Fixed(1) };

    /// One row of each sequence, of up to so many positions: whatever the company, with the same result.
    pub fn decoding(positions: usize) -> Self {
        Self { way: Way::Streamed, shares: Shares::Fixed(shares(positions)) }
    }
}

/// Into how many shares the keys of a sequence of up to so many positions go when it decodes.
pub(in crate::omni) fn shares(positions: usize) -> usize {
    positions.div_ceil(LEAST_SHARE).clamp(1, MOST_SHARES)
}

/// What the rows of a pass are, on the device. Where it lies does not change from pass to pass.
pub(in crate::omni) struct Step {
    /// `[3, rows]`.
    positions: Buffer<f32>,
    slots: Buffer<i32>,
    batch: Batch,
    rows: usize,
    way: Way,
}

/// What goes through the layers.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// `[rows, hidden]`.
    pub embeddings: Slice<'a, bf16>,
    /// One a row.
    pub positions: &'a [Position],
    /// How.
    pub mode: Mode,
    /// What some passes have besides.
    pub extra: Extra<'a>,
}

/// What some passes have.
#[derive(Clone, Copy, Default)]
pub struct Extra<'a> {
    /// Rows of the pass that are placeholders of pictures, and for each of the first layers what is added to them.
    pub deepstack: Option<(Slice<'a, i32>, &'a [Buffer<bf16>])>,
    /// Keep the state after so many layers.
    pub keep: Option<usize>,
    /// For each layer the experts of each row, `[rows, top_k]`, instead of the router's choice: to follow another run.
    pub routes: Option<&'a [Buffer<i32>]>,
}

/// Room for passes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Rows of a pass.
    pub rows: usize,
    /// Sequences in it.
    pub sequences: usize,
    /// Blocks that all of them have.
    pub pages: usize,
    /// Into how many shares the keys may go.
    pub shares: usize,
}

/// Buffers for passes of up to a number of rows, and the results of the last one.
pub struct Work {
    /// What the next pass is.
    pub(super) step: Step,
    buffers: Buffers,
}

/// Those of the layers.
pub(in crate::omni) struct Buffers {
    rows: usize,
    x: Buffer<bf16>,
    normed: Buffer<bf16>,
    out: Buffer<bf16>,
    qkv: Buffer<bf16>,
    q: Buffer<bf16>,
    heads: Buffer<bf16>,
    turns: Buffer<f32>,
    shares: Buffer<f32>,
    inner: Buffer<bf16>,
    experts: Option<Routing>,
    /// `[rows, hidden]`: the state after the layers of [`Input::keep`].
    kept: Buffer<bf16>,
    hidden: usize,
}

struct Routing {
    logits: Buffer<bf16>,
    ids: Buffer<i32>,
    weights: Buffer<f32>,
    permutation: Permutation,
    results: Buffer<bf16>,
    shared_inner: Buffer<bf16>,
    shared: Buffer<bf16>,
    gates: Buffer<bf16>,
}

impl Work {
    /// The last pass's output, normalised: `[rows, hidden]`.
    pub fn hidden(&self, rows: usize) -> Slice<'_, bf16> {
        self.buffers.hidden(0..rows)
    }

    /// A row of it.
    pub fn row(&self, row: usize) -> Slice<'_, bf16> {
        self.buffers.hidden(row..row + 1)
    }

    /// The kept state of some rows.
    pub fn kept(&self, rows: Range<usize>) -> Slice<'_, bf16> {
        let hidden = self.buffers.hidden;
        self.buffers.kept.range(rows.start * hidden..rows.end * hidden)
    }

    /// Where the rows of the next pass go.
    pub(in crate::omni) fn input(&mut self, rows: usize) -> SliceMut<'_, bf16> {
        self.buffers.input(rows)
    }

    /// The step and the buffers.
    pub(in crate::omni) fn parts(&mut self) -> (&Step, &mut Buffers) {
        (&self.step, &mut self.buffers)
    }

    /// The buffers alone, for steps that are kept elsewhere.
    pub(super) fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }
}

impl Buffers {
    pub(super) fn hidden(&self, rows: Range<usize>) -> Slice<'_, bf16> {
        self.normed.range(rows.start * self.hidden..rows.end * self.hidden)
    }

    pub(super) fn input(&mut self, rows: usize) -> SliceMut<'_, bf16> {
        self.x.range_mut(..rows * self.hidden)
    }
}

impl Step {
    /// Room for a step; it is [set](Step::set) before the pass.
    pub(super) fn with_room(gpu: &Gpu, room: Room) -> Result<Self, OmniError> {
        Ok(Self {
            positions: gpu.allocate(3 * room.rows)?,
            slots: gpu.allocate(room.rows)?,
            batch: Batch::with_room(gpu, room.sequences, room.pages)?,
            rows: 0,
            way: Way::default(),
        })
    }

    /// Sequences with so many keys each, of which the last `queries` are rows of the pass.
    pub(super) fn set(
        &mut self,
        gpu: &Gpu,
        sequences: &[paged_attention::Sequence<'_>],
        positions: &[Position],
        mode: Mode,
    ) -> Result<(), OmniError> {
        let rows = positions.len();
        let axes: Vec<f32> = (0..3).flat_map(|axis| positions.iter().map(move |p| p[axis] as f32)).collect();
        gpu.write(&mut self.positions.range_mut(..axes.len()), &axes)?;
        let mut slots = Vec::with_capacity(rows);
        for paged_attention::Sequence { table, keys, queries } in sequences {
            let slot = |position: usize| (table[position / BLOCK] as usize * BLOCK + position % BLOCK) as i32;
            slots.extend((keys - queries..*keys).map(slot));
        }
        assert_eq!(slots.len(), rows, "a position a row");
        gpu.write(&mut self.slots.range_mut(..rows), &slots)?;
        self.batch.set(gpu, sequences, mode.shares)?;
        (self.rows, self.way) = (rows, mode.way);
        Ok(())
    }
}

impl Form {
    pub(super) fn of(config: &TextConfig) -> Self {
        Self {
            hidden: config.hidden,
            heads: Heads { heads: config.heads, kv_heads: config.kv_heads, head_dim: config.head_dim },
            eps: config.norm_eps,
            visible: Visible::All,
            rope: config.rope.clone(),
            feed_forward: config.feed_forward,
        }
    }
}

impl Decoder {
    /// Loads `{name}.layers` and `{name}.norm`.
    pub(super) fn load(up: &Uploader<'_>, name: &str, form: Form, layers: usize) -> Result<Self, OmniError> {
        let all = (0..layers).map(|i| Layer::load(up, &format!("{name}.layers.{i}"), &form));
        Ok(Self {
            layers: all.collect::<Result<_, _>>()?,
            norm: up.tensor(&format!("{name}.norm.weight"), &[form.hidden])?,
            angles: Angles::new(up.gpu, rope(&form.rope, form.heads.head_dim))?,
            form,
        })
    }

    /// Memory for sequences of this decoder.
    pub(super) fn store(&self, gpu: &Gpu, blocks: usize) -> Result<KvStore, OmniError> {
        let Heads { kv_heads, head_dim, .. } = self.form.heads;
        let (layers, width) = (self.layers.len(), kv_heads * head_dim);
        let layout = Layout { kind: KvType::Bf16, layers, width, block: BLOCK, blocks };
        KvStore::on_device(gpu, layout, self.form.visible)
    }

    /// Buffers for passes.
    pub(in crate::omni) fn work(&self, gpu: &Gpu, room: Room) -> Result<Work, OmniError> {
        Ok(Work { step: Step::with_room(gpu, room)?, buffers: self.buffers(gpu, room)? })
    }

    fn buffers(&self, gpu: &Gpu, Room { rows, shares, .. }: Room) -> Result<Buffers, OmniError> {
        let Form { hidden, heads: Heads { heads, head_dim, .. }, .. } = self.form;
        let (width, row) = (heads * head_dim, |n: usize| gpu.allocate(rows * n));
        let (inner, experts) = match self.form.feed_forward {
            FeedForwardConfig::Dense { inner } => (inner, None),
            FeedForwardConfig::Experts { experts, top_k, inner, shared, .. } => {
                let routing = Routing {
                    logits: row(experts)?,
                    ids: gpu.allocate(rows * top_k)?,
                    weights: gpu.allocate(rows * top_k)?,
                    permutation: Permutation::new(gpu, rows * top_k, experts)?,
                    results: row(top_k * hidden)?,
                    shared_inner: row(shared.unwrap_or(0))?,
                    shared: row(if shared.is_some() { hidden } else { 0 })?,
                    gates: row(2)?,
                };
                (top_k * inner, Some(routing))
            }
        };
        Ok(Buffers {
            rows,
            x: gpu.zeros(rows * hidden)?,
            normed: row(hidden)?,
            out: row(hidden)?,
            qkv: row(self.form.heads.width())?,
            q: row(width)?,
            heads: row(width)?,
            turns: gpu.allocate(rows * head_dim)?,
            shares: gpu.allocate(if shares > 1 { shares * rows * heads * (head_dim + 2) } else { 0 })?,
            inner: row(inner)?,
            experts,
            kept: row(hidden)?,
            hidden,
        })
    }

    /// Runs rows through all layers; results are in [`Work::hidden`] and [`Work::kept`].
    ///
    /// # Errors
    /// [`OmniError::NoRoom`] if the store has not enough blocks, or [`OmniError::Device`].
    pub(super) fn forward(
        &self,
        gpu: &Gpu,
        work: &mut Work,
        store: &mut KvStore,
        segments: &mut [Segment<'_>],
        input: Input<'_>,
    ) -> Result<(), OmniError> {
        self.stage(gpu, work, store, segments, input.positions, input.mode)?;
        gpu.copy(input.embeddings, &mut work.input(input.positions.len()))?;
        let (step, buffers) = work.parts();
        self.run(gpu, step, buffers, store, input.extra)?;
        advance(store, segments);
        Ok(())
    }

    /// Makes room for the rows of a pass and says on the device what they are.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub(in crate::omni) fn stage(
        &self,
        gpu: &Gpu,
        work: &mut Work,
        store: &mut KvStore,
        segments: &mut [Segment<'_>],
        positions: &[Position],
        mode: Mode,
    ) -> Result<(), OmniError> {
        let rows = positions.len();
        if rows > work.buffers.rows {
            let room = work.buffers.rows;
            return Err(OmniError::Input(format!("a pass of {rows} rows where there is room for {room}")));
        }
        for segment in segments.iter_mut() {
            store.reserve(segment.sequence, segment.rows)?;
        }
        let sequences: Vec<paged_attention::Sequence<'_>> = segments
            .iter()
            .map(|Segment { sequence, rows }| paged_attention::Sequence {
                table: sequence.table(),
                keys: sequence.len() + rows,
                queries: *rows,
            })
            .collect();
        work.step.set(gpu, &sequences, positions, mode)
    }

    /// The launches of a pass whose rows lie in [`Work::input`]. What differs from pass to pass with as many rows lies in
    /// buffers, so that they can be recorded.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub(in crate::omni) fn run(
        &self,
        gpu: &Gpu,
        step: &Step,
        work: &mut Buffers,
        store: &mut KvStore,
        input: Extra<'_>,
    ) -> Result<(), OmniError> {
        let (rows, hidden, eps) = (step.rows, self.form.hidden, self.form.eps);
        let all = ..rows * hidden;
        let turns = ..rows * 2 * self.angles.pairs();
        self.angles.turns(gpu, step.positions.range(..3 * rows), &mut work.turns.range_mut(turns))?;
        for (index, layer) in self.layers.iter().enumerate() {
            // The output of the layer before joins the stream.
            let Buffers { x, normed, out, .. } = &mut *work;
            let mut stream = x.range_mut(all);
            let gamma = layer.input_norm.all();
            if index == 0 {
                rms_norm(gpu, stream.as_slice(), None, gamma, eps, &mut normed.range_mut(all))?;
            } else {
                let out = out.range(all);
                rms_norm(gpu, out, Some(&mut stream), gamma, eps, &mut normed.range_mut(all))?;
            }
            if input.keep == Some(index) {
                gpu.copy(work.x.range(all), &mut work.kept.range_mut(all))?;
            }
            let before = index.checked_sub(1);
            if let Some((places, features)) = input.deepstack
                && let Some(features) = before.and_then(|before| features.get(before))
            {
                scatter(gpu, features.all(), places, hidden, true, &mut work.x.range_mut(all))?;
                let normed = &mut work.normed;
                rms_norm(gpu, work.x.range(all), None, gamma, eps, &mut normed.range_mut(all))?;
            }
            self.attend(gpu, work, store, step, index)?;
            let Buffers { x, normed, out, .. } = &mut *work;
            let (mut stream, gamma) = (x.range_mut(all), layer.feed_forward_norm.all());
            rms_norm(gpu, out.range(all), Some(&mut stream), gamma, eps, &mut normed.range_mut(all))?;
            let routes = input.routes.map(|routes| routes[index].all());
            layer.feed_forward.forward(gpu, work, rows, step.way, routes)?;
        }
        let Buffers { x, normed, out, kept, .. } = &mut *work;
        let mut stream = x.range_mut(all);
        rms_norm(gpu, out.range(all), Some(&mut stream), self.norm.all(), eps, &mut normed.range_mut(all))?;
        let last = self.layers.len() - 1;
        if let Some((places, features)) = input.deepstack
            && let Some(features) = features.get(last)
        {
            scatter(gpu, features.all(), places, hidden, true, &mut stream)?;
            rms_norm(gpu, stream.as_slice(), None, self.norm.all(), eps, &mut normed.range_mut(all))?;
        }
        // The reference implementation replaces the last state by the normalised one.
        if input.keep == Some(self.layers.len()) {
            gpu.copy(normed.range(all), &mut kept.range_mut(all))?;
        }
        Ok(())
    }

    /// Attention from `work.normed` to `work.out`.
    fn attend(
        &self,
        gpu: &Gpu,
        work: &mut Buffers,
        store: &mut KvStore,
        step: &Step,
        index: usize,
    ) -> Result<(), OmniError> {
        let (Form { hidden, eps, .. }, heads) = (&self.form, self.form.heads);
        let visible = store.visible();
        let (layer, rows, way) = (&self.layers[index], step.rows, step.way);
        let (width, head_dim) = (heads.heads * heads.head_dim, heads.head_dim);
        let Buffers { normed, out, qkv, q, heads: attended, turns, shares, .. } = work;
        let mut projected = qkv.range_mut(..rows * heads.width());
        let none = Epilogue::default();
        linear(gpu, normed.range(..rows * hidden), layer.qkv.all(), none, way, *hidden, &mut projected)?;
        let norms = layer.head_norms.as_ref().map(|(q, k)| Norms { q: q.all(), k: k.all(), eps: *eps });
        let (k, v) = &mut store.of_device()[index];
        let turns = turns.range(..rows * head_dim);
        let mut queries = q.range_mut(..rows * width);
        let (mut k, mut v) = (k.all_mut(), v.all_mut());
        let projected = projected.as_slice();
        norm_rope_append(gpu, projected, norms, turns, step.slots.range(..rows), heads, &mut queries, &mut k, &mut v)?;
        let Heads { heads, kv_heads, .. } = heads;
        let shape = Shape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), visible };
        let (k, v) = (k.as_slice(), v.as_slice());
        let (mut attended, mut shares) = (attended.range_mut(..rows * width), shares.all_mut());
        paged_attention(gpu, &shape, queries.as_slice(), k, v, &step.batch, &mut shares, &mut attended)?;
        let mut out = out.range_mut(..rows * hidden);
        Ok(linear(gpu, attended.as_slice(), layer.output.all(), none, way, width, &mut out)?)
    }
}

/// The rows of a pass are part of their sequences.
pub(in crate::omni) fn advance(store: &KvStore, segments: &mut [Segment<'_>]) {
    for segment in segments.iter_mut() {
        store.advance(segment.sequence, segment.rows);
    }
}

impl Layer {
    fn load(up: &Uploader<'_>, name: &str, form: &Form) -> Result<Self, OmniError> {
        let Heads { heads, kv_heads, head_dim } = form.heads;
        let (hidden, q, kv) = (form.hidden, heads * head_dim, kv_heads * head_dim);
        let attention = |part: &str| format!("{name}.self_attn.{part}.weight");
        let parts = [(attention("q_proj"), q), (attention("k_proj"), kv), (attention("v_proj"), kv)];
        // The vocoder's transformer scales its branches, channel by channel: the last matrix of a branch takes that in.
        let scaled = form.visible != Visible::All;
        let scale = |part: &str, matrix: Vec<f32>, k: usize| -> Result<Vec<f32>, OmniError> {
            let scales = up.values(&format!("{name}.{part}.scale"), &[hidden])?;
            Ok(matrix.chunks_exact(k).zip(scales).flat_map(|(row, s)| row.iter().map(move |v| v * s)).collect())
        };
        // Large ones of others are never here as floats.
        let last = |name: &str, part: &str, k: usize| {
            if !scaled {
                return up.tensor(name, &[hidden, k]);
            }
            up.upload(&scale(part, up.values(name, &[hidden, k])?, k)?)
        };
        let head_norm = |part: &str| up.tensor(&attention(part), &[head_dim]);
        let mlp = format!("{name}.mlp");
        let feed_forward = match form.feed_forward {
            FeedForwardConfig::Dense { inner } => {
                let down = last(&format!("{mlp}.down_proj.weight"), "mlp_layer_scale", inner)?;
                FeedForward::Dense(Gated { up: gate_and_up(up, &mlp, inner, hidden)?, down, inner })
            }
            config @ FeedForwardConfig::Experts { .. } => {
                FeedForward::Experts(Box::new(Experts::load(up, &mlp, config, hidden)?))
            }
        };
        Ok(Self {
            input_norm: up.tensor(&format!("{name}.input_layernorm.weight"), &[hidden])?,
            qkv: up.stacked(&parts, hidden)?,
            head_norms: if scaled { None } else { Some((head_norm("q_norm")?, head_norm("k_norm")?)) },
            output: last(&attention("o_proj"), "self_attn_layer_scale", q)?,
            feed_forward_norm: up.tensor(&format!("{name}.post_attention_layernorm.weight"), &[hidden])?,
            feed_forward,
        })
    }
}

/// `[2 inner, hidden]`, gates first.
fn gate_and_up(up: &Uploader<'_>, name: &str, inner: usize, hidden: usize) -> Result<Buffer<bf16>, OmniError> {
    let part = |part: &str| (format!("{name}.{part}.weight"), inner);
    up.stacked(&[part("gate_proj"), part("up_proj")], hidden)
}

impl Experts {
    fn load(up: &Uploader<'_>, name: &str, config: FeedForwardConfig, hidden: usize) -> Result<Self, OmniError> {
        let FeedForwardConfig::Experts { experts, top_k, inner, normalise, shared } = config else {
            unreachable!("the caller has matched it");
        };
        let weight = |e: usize, part: &str| format!("{name}.experts.{e}.{part}.weight");
        let both = |e: usize| [(weight(e, "gate_proj"), inner), (weight(e, "up_proj"), inner)];
        let downs: Vec<(String, usize)> = (0..experts).map(|e| (weight(e, "down_proj"), hidden)).collect();
        let shared = shared.map(|inner| {
            let name = format!("{name}.shared_expert");
            let down = up.tensor(&format!("{name}.down_proj.weight"), &[hidden, inner])?;
            let gate = up.values(&format!("{name}_gate.weight"), &[1, hidden])?;
            let shared = Gated { up: gate_and_up(up, &name, inner, hidden)?, down, inner };
            Ok::<_, OmniError>((shared, up.upload(&padded(&gate, hidden, hidden, 2))?))
        });
        Ok(Self {
            router: up.tensor(&format!("{name}.gate.weight"), &[experts, hidden])?,
            experts: Gated {
                up: up.stacked(&(0..experts).flat_map(both).collect::<Vec<_>>(), hidden)?,
                down: up.stacked(&downs, inner)?,
                inner,
            },
            count: experts,
            top_k,
            normalise,
            shared: shared.transpose()?,
        })
    }
}

impl FeedForward {
    /// From `work.normed` to `work.out`.
    fn forward(
        &self,
        gpu: &Gpu,
        work: &mut Buffers,
        rows: usize,
        way: Way,
        routes: Option<Slice<'_, i32>>,
    ) -> Result<(), OmniError> {
        let Buffers { normed, out, inner, experts: routing, hidden, .. } = work;
        let hidden = *hidden;
        let (x, mut y, none) = (normed.range(..rows * hidden), out.range_mut(..rows * hidden), Epilogue::default());
        let (layer, routing) = match (self, routing) {
            (Self::Dense(dense), _) => {
                let mut inner = inner.range_mut(..rows * dense.inner);
                gated(gpu, x, dense.up.all(), way, hidden, &mut inner)?;
                return Ok(linear(gpu, inner.as_slice(), dense.down.all(), none, way, dense.inner, &mut y)?);
            }
            (Self::Experts(layer), Some(routing)) => (layer, routing),
            (Self::Experts(_), None) => unreachable!("the decoder that made the buffers has experts"),
        };
        let slots = rows * layer.top_k;
        let Routing { logits, ids, weights, permutation, results, shared_inner, shared, gates } = routing;
        let mut logits = logits.range_mut(..rows * layer.count);
        linear(gpu, x, layer.router.all(), none, way, hidden, &mut logits)?;
        let (mut ids, mut weights) = (ids.range_mut(..slots), weights.range_mut(..slots));
        top_k(gpu, logits.as_slice(), layer.count, layer.normalise, routes, &mut ids, &mut weights)?;
        permutation.sort(gpu, ids.as_slice(), layer.top_k)?;
        let mut inner = inner.range_mut(..slots * layer.experts.inner);
        grouped_gated(gpu, x, layer.experts.up.all(), permutation.gathered(), way, hidden, &mut inner)?;
        let mut results = results.range_mut(..slots * hidden);
        let (inner, k) = (inner.as_slice(), layer.experts.inner);
        grouped_linear(gpu, inner, layer.experts.down.all(), permutation.sorted(), way, k, &mut results)?;

        let mut addends = Addends::default();
        if let Some((expert, gate)) = &layer.shared {
            let mut inner = shared_inner.range_mut(..rows * expert.inner);
            gated(gpu, x, expert.up.all(), way, hidden, &mut inner)?;
            let mut result = shared.range_mut(..rows * hidden);
            linear(gpu, inner.as_slice(), expert.down.all(), none, way, expert.inner, &mut result)?;
            let mut gates = gates.range_mut(..rows * 2);
            linear(gpu, x, gate.all(), none, way, hidden, &mut gates)?;
            addends.shared = Some((shared.range(..rows * hidden), gates.as_slice()));
            return Ok(combine(gpu, results.as_slice(), permutation, weights.as_slice(), addends, hidden, &mut y)?);
        }
        Ok(combine(gpu, results.as_slice(), permutation, weights.as_slice(), addends, hidden, &mut y)?)
    }
}
