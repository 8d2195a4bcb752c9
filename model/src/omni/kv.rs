//! Memory of keys and values in blocks: who has which, and where they lie.
//!
//! [`Blocks`] hands out blocks and counts who holds them; it knows no keys. [`KvStore`] holds the keys and values of all
//! layers of one decoder for all sequences. A [`Sequence`] is a conversation's table of blocks: it can be cut back, and
//! whole blocks of it can be shared with another that begins alike.

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

/// Keys and values of a decoder's layers, for all sequences.
pub struct KvStore {
    blocks: Blocks,
    block: usize,
    width: usize,
    /// `[layers]` of `[blocks, block, kv_heads, head_dim]`.
    layers: Vec<Layer>,
}

struct Layer {
    k: Vec<f32>,
    v: Vec<f32>,
}

impl KvStore {
    /// Room for `blocks` blocks of `block` positions of `width` values in each of `layers` layers.
    pub fn new(layers: usize, width: usize, block: usize, blocks: usize) -> Self {
        let size = blocks * block * width;
        let layer = |_| Layer { k: vec![0.0; size], v: vec![0.0; size] };
        Self { blocks: Blocks::new(blocks), block, width, layers: (0..layers).map(layer).collect() }
    }

    /// Positions in a block.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The allocator.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Makes room for `more` positions. A last block that others hold too is copied, so that nobody else's keys change.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`]; nothing has changed then.
    pub fn reserve(&mut self, sequence: &mut Sequence, more: usize) -> Result<(), OmniError> {
        let wanted = (sequence.len + more).div_ceil(self.block).saturating_sub(sequence.table.len());
        let partial = more > 0 && !sequence.len.is_multiple_of(self.block);
        let shared = partial.then(|| sequence.len / self.block).filter(|&i| self.blocks.holders(sequence.table[i]) > 1);
        let mut fresh = Vec::with_capacity(wanted + 1);
        self.blocks.take(wanted + usize::from(shared.is_some()), &mut fresh)?;
        if let Some(index) = shared
            && let Some(copy) = fresh.pop()
        {
            let original = std::mem::replace(&mut sequence.table[index], copy);
            let size = self.block * self.width;
            let (from, to) = (original as usize * size, copy as usize * size);
            for layer in &mut self.layers {
                layer.k.copy_within(from..from + size, to);
                layer.v.copy_within(from..from + size, to);
            }
            self.blocks.give_back(original);
        }
        sequence.table.append(&mut fresh);
        Ok(())
    }

    /// Forgets all but the first `len` positions.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        sequence.len = sequence.len.min(len);
        for block in sequence.table.drain(sequence.len.div_ceil(self.block)..) {
            self.blocks.give_back(block);
        }
    }

    /// Gives back all blocks.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.truncate(sequence, 0);
    }

    /// A sequence that begins with the first `len` positions of another, without copying them.
    pub fn fork(&mut self, sequence: &Sequence, len: usize) -> Sequence {
        let len = len.min(sequence.len);
        let table = sequence.table[..len.div_ceil(self.block)].to_vec();
        table.iter().for_each(|&block| self.blocks.share(block));
        Sequence { table, len }
    }

    /// Writes rows of keys and values behind those that a sequence holds, in one layer. [`KvStore::advance`] follows when
    /// all layers have theirs.
    pub(super) fn write(&mut self, layer: usize, sequence: &Sequence, k: &[f32], v: &[f32]) {
        let layer = &mut self.layers[layer];
        for (row, (k, v)) in k.chunks_exact(self.width).zip(v.chunks_exact(self.width)).enumerate() {
            let position = sequence.len + row;
            let place = sequence.table[position / self.block] as usize * self.block + position % self.block;
            layer.k[place * self.width..][..self.width].copy_from_slice(k);
            layer.v[place * self.width..][..self.width].copy_from_slice(v);
        }
    }

    /// Keys and values of a layer.
    pub(super) fn layer(&self, layer: usize) -> (&[f32], &[f32]) {
        (&self.layers[layer].k, &self.layers[layer].v)
    }

    /// The rows written are part of the sequence.
    pub(super) fn advance(&self, sequence: &mut Sequence, rows: usize) {
        sequence.len += rows;
        debug_assert!(sequence.len <= sequence.table.len() * self.block);
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|l| (l.k.len() + l.v.len()) * size_of::<f32>()).sum()
    }
}
