//! Dispatch to the kernels of `norm_rope.cu`.

use half::bf16;

use super::reference;
use crate::cuda::check::{Tolerance, greatest};
use crate::cuda::{Args, Buffer, DeviceError, Gpu, Launch, Slice, SliceMut};
use crate::ops::rope::{Pairing, Rope};

/// Longest head: two pairs a lane.
pub const MAX_HEAD_DIM: usize = 128;
const THREADS: usize = 128;
/// Heads of a block, a warp each.
const HEADS: usize = 4;

/// How fast each pair turns, on a device.
pub struct Angles {
    rope: Rope,
    /// Turns for each position: the nearest f32, and what is left.
    speeds: Buffer<f32>,
    axes: Buffer<i32>,
}

impl Angles {
    /// The speeds of `rope`.
    ///
    /// # Errors
    /// As [`Gpu::allocate`].
    ///
    /// # Panics
    /// If its pairs are neighbours and not halves.
    pub fn new(gpu: &Gpu, rope: Rope) -> Result<Self, DeviceError> {
        assert_eq!(rope.pairing(), Pairing::Halves, "norm_rope");
        let speed = |speed: &f64| {
            let turns = speed / std::f64::consts::TAU;
            [turns as f32, (turns - f64::from(turns as f32)) as f32]
        };
        let speeds: Vec<f32> = rope.speeds().iter().flat_map(speed).collect();
        let axis = |pair| rope.axes().get(pair).map_or(0, |&axis| i32::from(axis));
        let axes: Vec<i32> = (0..rope.speeds().len()).map(axis).collect();
        Ok(Self { speeds: gpu.upload(&speeds)?, axes: gpu.upload(&axes)?, rope })
    }

    /// Pairs of a head.
    pub fn pairs(&self) -> usize {
        self.axes.len()
    }

    /// The turns of rows at `positions`, for all layers of a step. positions: `[3, rows]`. turns: `[rows, pairs, 2]`.
    ///
    /// # Errors
    /// As [`Gpu::synchronize`].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn turns<'a>(
        &'a self,
        gpu: &Gpu,
        positions: Slice<'a, f32>,
        turns: &mut SliceMut<'_, f32>,
    ) -> Result<(), DeviceError> {
        let (rows, pairs) = (positions.len() / 3, self.pairs());
        assert!(positions.len() == 3 * rows && turns.len() == 2 * rows * pairs, "norm_rope: {} turns", turns.len());
        if rows == 0 {
            return Ok(());
        }
        let args = Args::new().input(positions).input(self.speeds.all()).input(self.axes.all()).output(turns);
        let args = args.size(rows).size(pairs).float(self.rope.magnitude());
        let launch = Launch::new("rope_turns", [(rows * pairs).div_ceil(THREADS), 1, 1], THREADS as u32, &args);
        // SAFETY: the arguments are the kernel's, axes are below 3, and lengths were checked.
        unsafe { gpu.launch(&launch)? };
        gpu.verify("norm_rope", |checks| {
            let positions = gpu.fetch(positions)?;
            let of = |row: usize| [0, 1, 2].map(|axis| f64::from(positions[axis * rows + row]));
            let (speeds, axes, magnitude) = (self.rope.speeds(), self.rope.axes(), self.rope.magnitude());
            let expected: Vec<f32> =
                (0..rows).flat_map(|row| reference::turns(of(row), speeds, axes, magnitude)).collect();
            let tolerance = Tolerance::f32().plus(2e-6 * magnitude);
            checks.close("turns", &gpu.fetch(turns.as_slice())?, &expected, tolerance);
            Ok(())
        })
    }
}

/// The heads of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Of queries.
    pub heads: usize,
    /// Of keys, and as many of values.
    pub kv_heads: usize,
    /// Values of one.
    pub head_dim: usize,
}

impl Heads {
    /// Values of a row of the projection.
    pub fn width(self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Weights of the norms over a head.
#[derive(Clone, Copy, Debug)]
pub struct Norms<'a> {
    /// Of queries, `[head_dim]`.
    pub q: Slice<'a, bf16>,
    /// Of keys.
    pub k: Slice<'a, bf16>,
    /// Added to the mean square.
    pub eps: f32,
}

/// Normalises and turns queries and keys, and puts keys and values into the cache.
///
/// # Errors
/// As [`Gpu::synchronize`].
///
/// # Panics
/// If the lengths do not fit.
#[allow(clippy::too_many_arguments)] // The op's operands.
pub fn norm_rope_append<'a>(
    gpu: &Gpu,
    qkv: Slice<'a, bf16>,
    norms: Option<Norms<'a>>,
    turns: Slice<'a, f32>,
    slots: Slice<'a, i32>,
    heads: Heads,
    q: &mut SliceMut<'_, bf16>,
    k: &mut SliceMut<'_, bf16>,
    v: &mut SliceMut<'_, bf16>,
) -> Result<(), DeviceError> {
    let Heads { heads: q_heads, kv_heads, head_dim } = heads;
    let rows = slots.len();
    assert!(head_dim.is_multiple_of(2) && (2..=MAX_HEAD_DIM).contains(&head_dim), "norm_rope: heads of {head_dim}");
    assert!(qkv.len() == rows * heads.width() && q.len() == rows * q_heads * head_dim, "norm_rope: {}", qkv.len());
    assert!(turns.len() == rows * head_dim, "norm_rope: {} turns", turns.len());
    assert!(k.len() == v.len() && k.len().is_multiple_of(kv_heads * head_dim), "norm_rope: a cache of {}", k.len());
    assert!(norms.is_none_or(|n| n.q.len() == head_dim && n.k.len() == head_dim), "norm_rope: the norms' weights");
    if rows == 0 {
        return Ok(());
    }
    let eps = norms.map_or(0.0, |norms| norms.eps);
    let args = Args::new().input(qkv).optional_input(norms.map(|n| n.q)).optional_input(norms.map(|n| n.k));
    let args = args.input(turns).input(slots).output(q).output(k).output(v);
    let args = args.size(q_heads).size(kv_heads).size(head_dim).float(eps);
    let blocks = [rows, (q_heads + 2 * kv_heads).div_ceil(HEADS), 1];
    let launch = Launch::new("norm_rope_append", blocks, THREADS as u32, &args);
    // SAFETY: the arguments are the kernel's and lengths were checked; that slots are inside of the cache is the promise of
    // whoever hands out its pages.
    unsafe { gpu.launch(&launch)? };
    gpu.verify("norm_rope", |checks| {
        let (qkv, turns, slots) = (gpu.widened(qkv)?, gpu.fetch(turns)?, gpu.fetch(slots)?);
        let gammas = norms.map(|n| Ok((gpu.widened(n.q)?, gpu.widened(n.k)?))).transpose()?;
        let (k, v) = (gpu.widened(k.as_slice())?, gpu.widened(v.as_slice())?);
        let (mut expected, mut cached, mut got_cached) = (Vec::new(), Vec::new(), Vec::new());
        let round = |v: f32| bf16::from_f32(v).to_f32();
        for (row, (heads, turns)) in qkv.chunks(heads.width()).zip(turns.chunks(head_dim)).enumerate() {
            for (h, x) in heads.chunks(head_dim).enumerate() {
                let is_query = h < q_heads;
                let gamma = gammas.as_ref().map(|(q, k)| if is_query { &q[..] } else { &k[..] });
                let is_value = h >= q_heads + kv_heads;
                let head = if is_value { x.to_vec() } else { reference::head(x, gamma, Some(turns), eps, round) };
                if is_query {
                    expected.extend(head);
                } else if let Ok(slot) = usize::try_from(slots[row]) {
                    cached.extend(head);
                    let place = (slot * kv_heads + (h - q_heads) % kv_heads) * head_dim;
                    got_cached.extend_from_slice(&(if is_value { &v } else { &k })[place..place + head_dim]);
                }
            }
        }
        // A normalised value may be off by one unit, and so may the other one of its pair.
        let most = greatest(&expected).max(greatest(&cached));
        let tolerance = Tolerance::bf16().plus(most / 64.0);
        let tolerance = if norms.is_some() { tolerance } else { Tolerance::bf16().summing(4, most) };
        checks.close("q", &gpu.fetch(q.as_slice())?, &expected, tolerance);
        checks.close("cache", &got_cached, &cached, tolerance);
        Ok(())
    })
}
