//! Keys and values on a device, in blocks.

use causerie_kernels::cuda::{Buffer, Gpu};
use causerie_kernels::ops::paged_attention::cuda::BLOCK;
use half::bf16;

use crate::omni::OmniError;
use crate::omni::kv::Blocks;

/// Keys that a tile of the kernels begins at a multiple of.
const TILE: usize = 32;

/// Keys and values of a decoder's layers, for all sequences.
pub struct KvStore {
    blocks: Blocks,
    /// `[layers]` of `[blocks, BLOCK, kv_heads, head_dim]`.
    pub(super) layers: Vec<(Buffer<bf16>, Buffer<bf16>)>,
}

/// The blocks of one sequence. It must be [released](KvStore::release), or its blocks stay taken.
#[derive(Debug, Default)]
pub struct Sequence {
    table: Vec<u32>,
    len: usize,
    /// Blocks that a window has left behind. Their places in the table are kept, and hold blocks of others.
    forgotten: usize,
}

impl Sequence {
    /// Positions held, or held before a window left them behind.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was ever held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn table(&self) -> &[u32] {
        &self.table
    }

    /// Where a position lies.
    pub(super) fn place(&self, position: usize) -> i32 {
        (self.table[position / BLOCK] as usize * BLOCK + position % BLOCK) as i32
    }
}

impl KvStore {
    pub(super) fn new(gpu: &Gpu, layers: usize, width: usize, blocks: usize) -> Result<Self, OmniError> {
        let size = blocks * BLOCK * width;
        let layers = (0..layers).map(|_| Ok::<_, OmniError>((gpu.allocate(size)?, gpu.allocate(size)?)));
        Ok(Self { blocks: Blocks::new(blocks), layers: layers.collect::<Result<_, _>>()? })
    }

    /// Makes room for `more` positions.
    ///
    /// # Errors
    /// [`OmniError::NoRoom`]; nothing has changed then.
    pub fn reserve(&mut self, sequence: &mut Sequence, more: usize) -> Result<(), OmniError> {
        let wanted = (sequence.len + more).div_ceil(BLOCK).saturating_sub(sequence.table.len());
        self.blocks.take(wanted, &mut sequence.table)
    }

    /// The rows written are part of the sequence.
    pub(super) fn advance(&self, sequence: &mut Sequence, rows: usize) {
        sequence.len += rows;
    }

    /// Forgets all but the first `len` positions.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) {
        sequence.len = sequence.len.min(len);
        let keep = sequence.len.div_ceil(BLOCK);
        let held = sequence.forgotten.max(keep);
        sequence.table.drain(held..).for_each(|block| self.blocks.give_back(block));
        sequence.table.truncate(keep);
        sequence.forgotten = sequence.forgotten.min(keep);
    }

    /// Gives back the blocks that no query sees any more whose window is the last `window` positions.
    pub fn forget(&mut self, sequence: &mut Sequence, window: usize) {
        let first = (sequence.len + 1).saturating_sub(window) / TILE * TILE;
        let until = (first / BLOCK).min(sequence.table.len());
        for index in sequence.forgotten..until {
            self.blocks.give_back(sequence.table[index]);
        }
        sequence.forgotten = sequence.forgotten.max(until);
    }

    /// Gives back all blocks.
    pub fn release(&mut self, sequence: &mut Sequence) {
        self.truncate(sequence, 0);
    }

    /// Free blocks.
    pub fn free(&self) -> usize {
        self.blocks.free()
    }
}
