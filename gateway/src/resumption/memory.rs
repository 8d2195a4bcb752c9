//! Conversations kept in memory: they end with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;

use super::store::{Found, Id, Limits, Record, Store, StoreError};
use super::{lock, random};

pub(super) struct MemoryStore {
    key: [u8; 32],
    limits: Limits,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// By age.
    records: BTreeMap<u64, Record>,
    ages: HashMap<Id, u64>,
    bytes: usize,
    next: u64,
    spent: VecDeque<Id>,
}

impl MemoryStore {
    pub(super) fn new(limits: Limits) -> Self {
        Self { key: random(), limits, kept: Mutex::default() }
    }
}

impl Kept {
    fn insert(&mut self, record: Record) {
        self.bytes += record.body.len();
        self.ages.insert(record.id, self.next);
        self.records.insert(self.next, record);
        self.next += 1;
    }

    fn remove_if(&mut self, mut gone: impl FnMut(&Record) -> bool) -> Vec<Record> {
        let removed: Vec<Record> = self.records.extract_if(.., |_, record| gone(record)).map(|(_, r)| r).collect();
        for record in &removed {
            self.bytes -= record.body.len();
            self.ages.remove(&record.id);
        }
        removed
    }

    fn find(&self, id: &Id, now: u64) -> Found {
        match self.ages.get(id).and_then(|age| self.records.get(age)).filter(|record| record.expires > now) {
            Some(found) => {
                let same = self.records.values().filter(|record| record.conversation == found.conversation);
                Found::Records(same.cloned().collect())
            }
            None if self.spent.contains(id) => Found::Used,
            None => Found::Unknown,
        }
    }
}

impl Store for MemoryStore {
    fn key(&self) -> Result<[u8; 32], StoreError> {
        Ok(self.key)
    }

    fn put(&self, record: Record, now: u64) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        let (conversation, newest) = (record.conversation, record.generation);
        kept.insert(record);
        let old = newest.saturating_sub(self.limits.generations);
        kept.remove_if(|r| r.expires <= now || (r.conversation == conversation && r.generation <= old));
        while kept.records.len() > self.limits.records || kept.bytes > self.limits.bytes {
            let Some((_, oldest)) = kept.records.pop_first() else { break };
            kept.bytes -= oldest.body.len();
            kept.ages.remove(&oldest.id);
        }
        Ok(())
    }

    fn peek(&self, id: &Id, now: u64) -> Result<Found, StoreError> {
        Ok(lock(&self.kept).find(id, now))
    }

    fn take(&self, id: &Id, now: u64) -> Result<Found, StoreError> {
        let mut kept = lock(&self.kept);
        let found = kept.find(id, now);
        if let Found::Records(records) = &found {
            kept.remove_if(|record| records.iter().any(|taken| taken.id == record.id));
            kept.spent.extend(records.iter().map(|record| record.id));
            while kept.spent.len() > self.limits.spent {
                kept.spent.pop_front();
            }
        }
        Ok(found)
    }

    fn put_back(&self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut kept = lock(&self.kept);
        kept.spent.retain(|id| !records.iter().any(|record| record.id == *id));
        for record in records {
            kept.insert(record);
        }
        Ok(())
    }
}
