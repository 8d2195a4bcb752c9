//! Beginnings that conversations have in common: an instruction and its functions are read once and shared, block by block.

use causerie_kernels::ops::rope::Position;

use super::conversation::Memory;
use super::prompt::{Prompt, Row};
use crate::omni::kv::{KvStore, Sequence};

/// Beginnings that are kept. Of more the one that served longest ago goes.
const MAX_PREFIXES: usize = 8;
/// Rows that are worth sharing.
const LEAST: usize = 16;

/// Beginnings in memory, most of which belong to nobody.
#[derive(Default)]
pub(super) struct Prefixes {
    all: Vec<Prefix>,
    /// Counts uses.
    clock: u64,
}

struct Prefix {
    rows: Vec<(Row, Position)>,
    sequence: Sequence,
    used: u64,
}

impl Prefixes {
    /// Gives an empty memory what is known of the beginning of `prompt`.
    pub(super) fn lend(&mut self, store: &mut KvStore, memory: &mut Memory, prompt: &Prompt) {
        if !memory.rows.is_empty() {
            return;
        }
        let wanted = || prompt.rows.iter().copied().zip(prompt.positions.iter().copied());
        let common = |prefix: &Prefix| prefix.rows.iter().copied().zip(wanted()).take_while(|(a, b)| a == b).count();
        let Some((longest, prefix)) =
            self.all.iter_mut().map(|prefix| (common(prefix), prefix)).max_by_key(|(common, _)| *common)
        else {
            return;
        };
        if longest >= LEAST {
            self.clock += 1;
            prefix.used = self.clock;
            memory.sequence = store.fork(&prefix.sequence, longest);
            memory.rows.extend_from_slice(&prefix.rows[..memory.sequence.len()]);
        }
    }

    /// Keeps a memory that holds nothing but the words of a beginning.
    pub(super) fn keep(&mut self, store: &mut KvStore, memory: &Memory) {
        let words = memory.rows.iter().all(|(row, _)| !row.is_media());
        if memory.rows.len() < LEAST || !words || self.all.iter().any(|prefix| prefix.rows == memory.rows) {
            return;
        }
        if self.all.len() == MAX_PREFIXES
            && let Some(oldest) = (0..self.all.len()).min_by_key(|i| self.all[*i].used)
        {
            store.release(&mut self.all.swap_remove(oldest).sequence);
        }
        self.clock += 1;
        let sequence = store.fork(&memory.sequence, memory.rows.len());
        self.all.push(Prefix { rows: memory.rows[..sequence.len()].to_vec(), sequence, used: self.clock });
    }

    /// Gives all back, where room is needed. Conversations that share them keep theirs.
    pub(super) fn forget(&mut self, store: &mut KvStore) {
        for mut prefix in self.all.drain(..) {
            store.release(&mut prefix.sequence);
        }
    }
}
