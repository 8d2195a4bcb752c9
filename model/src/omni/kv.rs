//! Memory of keys and values in blocks: who has which, and where they lie.
//!
//! Where rows see only the latest keys and the first ([`Visible::Recent`]), blocks that no row to come will see are given
//! back, and the table has a hole there. A sequence that is cut back into what it has forgotten is cut further, to where it
//! knows everything again.
//!
//! [`Blocks`] hands out blocks and counts who holds them; it knows no keys. [`KvStore`] holds the keys and values of all
//! layers of one decoder for all sequences. A [`Sequence`] is a conversation's table of blocks: it can be cut back, and
//! whole blocks of it can be shared with another that begins alike.

use causerie_kernels::Pool;
use causerie_kernels::cuda::{Buffer, Gpu};
use causerie_kernels::fp8::F8;
use causerie_kernels::ops::paged_attention::{Element, Sequence as Paged, Shape, Visible, paged_attention};
use half::bf16;

use super::OmniError;

/// Which blocks are free, and how many sequences hold each of the others.
#[derive(Clone, Debug)]
pub struct Blocks {
    free: Vec<u32>,
    holders: Vec<u32>,
}

impl Blocks {
    /// `count` free blocks.
    pub fn new(count: usize) -> Self {
        Self { free: (0..count as u32).rev().collect(), holders: vec![0; count] }
    }

    /// Free blocks.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// All blocks.
    pub fn count(&self) -> usize {
        self.holders.len()
    }

    /// Appends `wanted` blocks to `table`; none if there are not as many.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`].
    pub fn take(&mut self, wanted: usize, table: &mut Vec<u32>) -> Result<(), OmniError> {
        let free = self.free.len();
        let first = free.checked_sub(wanted).ok_or(OmniError::NoRoom { wanted, free })?;
        let from = table.len();
        table.extend(self.free.drain(first..).rev());
        table[from..].iter().for_each(|&block| self.holders[block as usize] = 1);
        Ok(())
    }

    /// One more sequence holds `block`.
    pub fn share(&mut self, block: u32) {
        debug_assert!(self.holders[block as usize] > 0, "block {block} is free");
        self.holders[block as usize] += 1;
    }

    /// How many sequences hold `block`.
    pub fn holders(&self, block: u32) -> u32 {
        self.holders[block as usize]
    }

    /// One sequence less holds `block`; after the last it is free.
    pub fn give_back(&mut self, block: u32) {
        let holders = &mut self.holders[block as usize];
        debug_assert!(*holders > 0, "block {block} is free already");
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            self.free.push(block);
        }
    }
}

/// Stands in a table for a block that was given back.
const HOLE: u32 = u32::MAX;
/// Whoever made the memory uses it where it is.
const HERE: &str = "keys and values are not on a device";
const ELSEWHERE: &str = "keys and values are on a device";

/// The blocks of one sequence. It must be [released](KvStore::release), or its blocks stay taken.
#[derive(Debug, Default)]
pub struct Sequence {
    table: Vec<u32>,
    len: usize,
}

impl Sequence {
    /// Positions held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its blocks.
    pub fn table(&self) -> &[u32] {
        &self.table
    }
}

/// What keys and values are stored as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16.
    Bf16,
    /// Eight-bit floats, without a scale: keys are normalised, and values of trained models are far from 448.
    Fp8,
}

impl KvType {
    /// Bytes of a value.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Fp8 => 1,
        }
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        })
    }
}

/// Where the keys and values of a decoder lie: `[layers]` of keys and of values, each `[blocks, block, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What they are stored as.
    pub kind: KvType,
    /// Layers.
    pub layers: usize,
    /// Values of a position: `kv_heads · head_dim`.
    pub width: usize,
    /// Positions in a block.
    pub block: usize,
    /// Blocks.
    pub blocks: usize,
}

impl Layout {
    /// Bytes of a position, keys and values of all layers.
    pub fn position_bytes(&self) -> u64 {
        2 * self.layers as u64 * self.width as u64 * self.kind.bytes()
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.position_bytes().saturating_mul(self.block as u64).saturating_mul(self.blocks as u64)
    }

    /// Where a position's keys (or values) begin in those of a layer, in values: far beyond 2³¹ where windows are long.
    pub fn place(&self, table: &[u32], position: usize) -> usize {
        (table[position / self.block] as usize * self.block + position % self.block) * self.width
    }
}

/// Keys and values of a decoder's layers, for all sequences.
pub struct KvStore {
    blocks: Blocks,
    layout: Layout,
    visible: Visible,
    layers: Layers,
}

/// Keys and values of a layer on a device.
pub type OnDevice = (Buffer<bf16>, Buffer<bf16>);

/// Those of all layers.
enum Layers {
    F32(Vec<Layer<f32>>),
    Bf16(Vec<Layer<bf16>>),
    Fp8(Vec<Layer<F8>>),
    Device(Gpu, Vec<OnDevice>),
}

/// `[blocks, block, kv_heads, head_dim]`.
struct Layer<T> {
    k: Vec<T>,
    v: Vec<T>,
}

/// What floats are stored as.
trait Stored: Element + Default {
    fn narrow(value: f32) -> Self;
}

impl Stored for f32 {
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Stored for bf16 {
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Stored for F8 {
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl<T: Stored> Layer<T> {
    fn all(layout: &Layout) -> Vec<Self> {
        let size = layout.blocks * layout.block * layout.width;
        let layer = |_| Self { k: vec![T::default(); size], v: vec![T::default(); size] };
        (0..layout.layers).map(layer).collect()
    }

    fn copy(&mut self, from: usize, to: usize, size: usize) {
        self.k.copy_within(from..from + size, to);
        self.v.copy_within(from..from + size, to);
    }

    fn write(&mut self, layout: &Layout, sequence: &Sequence, k: &[f32], v: &[f32]) {
        let put = |to: &mut [T], from: &[f32]| to.iter_mut().zip(from).for_each(|(to, from)| *to = T::narrow(*from));
        for (row, (k, v)) in k.chunks_exact(layout.width).zip(v.chunks_exact(layout.width)).enumerate() {
            let place = layout.place(&sequence.table, sequence.len + row);
            put(&mut self.k[place..][..layout.width], k);
            put(&mut self.v[place..][..layout.width], v);
        }
    }
}

impl KvStore {
    /// Room for the blocks of `layout`, for rows that see the keys of `visible`.
    pub fn new(layout: Layout, visible: Visible) -> Self {
        let layers = match layout.kind {
            KvType::F32 => Layers::F32(Layer::all(&layout)),
            KvType::Bf16 => Layers::Bf16(Layer::all(&layout)),
            KvType::Fp8 => Layers::Fp8(Layer::all(&layout)),
        };
        Self { blocks: Blocks::new(layout.blocks), layout, visible, layers }
    }

    /// The same on a device, which writes and reads the keys itself.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub fn on_device(gpu: &Gpu, layout: Layout, visible: Visible) -> Result<Self, OmniError> {
        let size = layout.blocks * layout.block * layout.width;
        // Numbers everywhere: what nobody sees is multiplied by nothing, and must not be infinite.
        let layers = (0..layout.layers).map(|_| Ok::<_, OmniError>((gpu.zeros(size)?, gpu.zeros(size)?)));
        let layers = Layers::Device(gpu.clone(), layers.collect::<Result<_, _>>()?);
        Ok(Self { blocks: Blocks::new(layout.blocks), layout, visible, layers })
    }

    /// Keys and values of all layers, on the device that they are on.
    ///
    /// # Panics
    /// If they are here.
    pub(super) fn of_device(&mut self) -> &mut [OnDevice] {
        match &mut self.layers {
            Layers::Device(_, layers) => layers,
            _ => panic!("{HERE}"),
        }
    }

    /// Positions in a block.
    pub fn block(&self) -> usize {
        self.layout.block
    }

    /// Which keys rows see.
    pub fn visible(&self) -> Visible {
        self.visible
    }

    /// The allocator.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Makes room for `more` positions, after giving back what they do not see. A last block that others hold too is copied, so that nobody else's keys change.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`]; nothing has changed then.
    pub fn reserve(&mut self, sequence: &mut Sequence, more: usize) -> Result<(), OmniError> {
        self.forget_unseen(sequence);
        let wanted = (sequence.len + more).div_ceil(self.layout.block).saturating_sub(sequence.table.len());
        let partial = more > 0 && !sequence.len.is_multiple_of(self.layout.block);
        let shared =
            partial.then(|| sequence.len / self.layout.block).filter(|&i| self.blocks.holders(sequence.table[i]) > 1);
        let mut fresh = Vec::with_capacity(wanted + 1);
        self.blocks.take(wanted + usize::from(shared.is_some()), &mut fresh)?;
        if let Some(index) = shared
            && let Some(copy) = fresh.pop()
        {
            let original = std::mem::replace(&mut sequence.table[index], copy);
            let size = self.layout.block * self.layout.width;
            let (from, to) = (original as usize * size, copy as usize * size);
            match &mut self.layers {
                Layers::F32(layers) => layers.iter_mut().for_each(|layer| layer.copy(from, to, size)),
                Layers::Bf16(layers) => layers.iter_mut().for_each(|layer| layer.copy(from, to, size)),
                Layers::Fp8(layers) => layers.iter_mut().for_each(|layer| layer.copy(from, to, size)),
                Layers::Device(gpu, layers) => {
                    for (k, v) in layers {
                        gpu.copy_within(k, from, to, size)?;
                        gpu.copy_within(v, from, to, size)?;
                    }
                }
            }
            self.blocks.give_back(original);
        }
        sequence.table.append(&mut fresh);
        Ok(())
    }

    /// Gives back the blocks that no row from here on sees.
    fn forget_unseen(&mut self, sequence: &mut Sequence) {
        let (sinks, from) = self.visible.of(sequence.len);
        let unseen = sinks.div_ceil(self.layout.block)..from / self.layout.block;
        for block in sequence.table.get_mut(unseen).into_iter().flatten().filter(|block| **block != HOLE) {
            self.blocks.give_back(std::mem::replace(block, HOLE));
        }
    }

    /// The most of the first `len` positions that rows can follow: all of them, unless some that the next row would see
    /// were given back.
    pub fn usable(&self, sequence: &Sequence, len: usize) -> usize {
        let len = len.min(sequence.len);
        let block = self.layout.block;
        let (sinks, from) = self.visible.of(len);
        let hole = |index: &usize| sequence.table[*index] == HOLE;
        let seen = (0..sinks.div_ceil(block)).chain(from / block..len.div_ceil(block));
        if seen.clone().any(|index| hole(&index)) {
            (0..len.div_ceil(block)).find(hole).map_or(len, |first| first * block)
        } else {
            len
        }
    }

    /// Forgets all but the first `len` positions, or fewer: what is [usable](KvStore::usable). Returns how many are left.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) -> usize {
        sequence.len = self.usable(sequence, len);
        for block in sequence.table.drain(sequence.len.div_ceil(self.layout.block)..) {
            if block != HOLE {
                self.blocks.give_back(block);
            }
        }
        sequence.len
    }

    /// Gives back all blocks.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.truncate(sequence, 0);
    }

    /// A sequence that begins with the first `len` positions of another, or fewer: what is [usable](KvStore::usable). Nothing
    /// is copied.
    pub fn fork(&mut self, sequence: &Sequence, len: usize) -> Sequence {
        let len = self.usable(sequence, len);
        let table = sequence.table[..len.div_ceil(self.layout.block)].to_vec();
        table.iter().filter(|block| **block != HOLE).for_each(|&block| self.blocks.share(block));
        Sequence { table, len }
    }

    /// Writes rows of keys and values behind those that a sequence holds, in one layer. [`KvStore::advance`] follows when
    /// all layers have theirs.
    pub(super) fn write(&mut self, layer: usize, sequence: &Sequence, k: &[f32], v: &[f32]) {
        match &mut self.layers {
            Layers::F32(layers) => layers[layer].write(&self.layout, sequence, k, v),
            Layers::Bf16(layers) => layers[layer].write(&self.layout, sequence, k, v),
            Layers::Fp8(layers) => layers[layer].write(&self.layout, sequence, k, v),
            Layers::Device(..) => panic!("{ELSEWHERE}"),
        }
    }

    /// Attention over a layer's keys and values.
    pub(super) fn attend(
        &self,
        pool: &Pool,
        layer: usize,
        shape: &Shape,
        q: &[f32],
        sequences: &[Paged<'_>],
        out: &mut [f32],
    ) {
        match &self.layers {
            Layers::F32(all) => paged_attention(pool, shape, q, &all[layer].k, &all[layer].v, sequences, out),
            Layers::Bf16(all) => paged_attention(pool, shape, q, &all[layer].k, &all[layer].v, sequences, out),
            Layers::Fp8(all) => paged_attention(pool, shape, q, &all[layer].k, &all[layer].v, sequences, out),
            Layers::Device(..) => panic!("{ELSEWHERE}"),
        }
    }

    /// A value of a layer's keys.
    #[cfg(test)]
    pub(super) fn key(&self, layer: usize, place: usize) -> f32 {
        match &self.layers {
            Layers::F32(layers) => layers[layer].k[place],
            Layers::Bf16(layers) => layers[layer].k[place].to_f32(),
            Layers::Fp8(layers) => layers[layer].k[place].to_f32(),
            Layers::Device(..) => panic!("{ELSEWHERE}"),
        }
    }

    /// The rows written are part of the sequence.
    pub(super) fn advance(&self, sequence: &mut Sequence, rows: usize) {
        sequence.len += rows;
        debug_assert!(sequence.len <= sequence.table.len() * self.layout.block);
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> u64 {
        self.layout.bytes()
    }
}
