//! A small pool of threads for data-parallel loops. Waiting blocks, it does not spin for longer than a few microseconds.
//!
//! One loop runs at a time. The calling thread is worker 0 and takes chunks like the others; a worker that wakes too late
//! finds the loop closed and sleeps on, so a loop never waits for a thread that has not started.
//!
//! The state is one word, `epoch << 32 | active`: the epoch is odd while a loop is open, `active` counts the workers
//! inside it. A worker enters by compare-and-swap while the loop is open; the caller closes it and waits until nobody is
//! inside. Only then does the loop's body, which lives on the caller's stack, go away.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Looks at the state word before a thread goes to sleep. About 5 µs: less than a futex wake-up costs, and enough to
/// bridge the scalar code between two loops of one layer.
const SPINS: u32 = 200;
const OPEN: u64 = 1 << 32;
const ACTIVE: u64 = OPEN - 1;

/// Threads that run one loop at a time; the caller is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Set while a loop runs. A loop started inside a loop, or by a second thread meanwhile, runs on its caller alone.
    busy: AtomicBool,
}

impl Pool {
    /// A pool of `threads` workers, the calling thread included.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            shutdown: AtomicBool::new(false),
            job: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        let workers = (1..threads.max(1))
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                // A machine that refuses threads gets a smaller pool, not an error: every loop still runs.
                std::thread::Builder::new().name(format!("kernels-{index}")).spawn(move || shared.work()).ok()
            })
            .collect();
        Self { shared, workers, busy: AtomicBool::new(false) }
    }

    /// Workers, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` on disjoint ranges of at most `grain` items that cover `0..items`, on all workers, and returns when
    /// all are done. Ranges are handed out dynamically. A panic in `body` is passed on to the caller.
    pub fn for_each(&self, items: usize, grain: usize, body: &(dyn Fn(Range<usize>) + Sync)) {
        let grain = grain.max(1);
        if items == 0 {
            return;
        }
        // Acquire pairs with the Release in `Busy::drop`: the job slot and counters are ours until then.
        let alone = self.workers.is_empty()
            || items <= grain
            || self.busy.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err();
        if alone {
            let mut at = 0;
            while at < items {
                let end = items.min(at.saturating_add(grain));
                body(at..end);
                at = end;
            }
            return;
        }
        let _busy = Busy(&self.busy);
        self.shared.run(&self.workers, Job::new(items, grain, body));
        let panic = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Splits `data` into pieces of `piece` elements (the last may be shorter) and calls `body(index, piece)` on each, on
    /// all workers: [`Pool::for_each`] for outputs whose pieces do not overlap.
    pub fn for_each_piece<T: Send>(&self, data: &mut [T], piece: usize, body: &(dyn Fn(usize, &mut [T]) + Sync)) {
        let piece = piece.max(1);
        let len = data.len();
        let base = Shareable(data.as_mut_ptr());
        self.for_each(len.div_ceil(piece), 1, &|range| {
            for index in range {
                let start = index * piece;
                let end = len.min(start + piece);
                // SAFETY: pieces of different indices are disjoint, every index is handed out once, and `data` is
                // borrowed mutably for the whole loop.
                let slice = unsafe { std::slice::from_raw_parts_mut(base.get().add(start), end - start) };
                body(index, slice);
            }
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Release pairs with the workers' Acquire; unparking orders it as well.
        self.shared.shutdown.store(true, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of bodies, so it has none of its own to report.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

/// A pointer that threads may share because they touch disjoint elements behind it.
pub(crate) struct Shareable<T>(pub(crate) *mut T);

impl<T> Shareable<T> {
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

// SAFETY: whoever dereferences the pointer promises that the accesses of different threads are disjoint.
unsafe impl<T: Send> Sync for Shareable<T> {}

struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// One loop. The body's lifetime is erased: [`Shared::run`] does not return while anybody may still call it.
#[derive(Clone)]
struct Job {
    items: usize,
    grain: usize,
    body: *const (dyn Fn(Range<usize>) + Sync + 'static),
    caller: Thread,
}

impl Job {
    fn new(items: usize, grain: usize, body: &(dyn Fn(Range<usize>) + Sync)) -> Self {
        // SAFETY: only the lifetime changes; see `Shared::run` for why the reference outlives every use.
        let body = unsafe {
            std::mem::transmute::<&(dyn Fn(Range<usize>) + Sync), &'static (dyn Fn(Range<usize>) + Sync)>(body)
        };
        Self { items, grain, body, caller: std::thread::current() }
    }
}

struct Shared {
    state: AtomicU64,
    shutdown: AtomicBool,
    /// Written by the caller while the loop is closed and nobody is inside; read by workers that are inside.
    job: UnsafeCell<Option<Job>>,
    /// First item not yet handed out.
    next: AtomicUsize,
    /// The first panic of the loop.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is the only field that is not Sync. Its accesses are ordered by `state`, as its comment says, and the
// body it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; nothing in it belongs to one thread.
unsafe impl Send for Shared {}

impl Shared {
    /// Runs a loop: called by one thread at a time (`Pool::busy`).
    fn run(&self, workers: &[JoinHandle<()>], job: Job) {
        self.next.store(0, Ordering::Relaxed);
        let helpers = (job.items.div_ceil(job.grain) - 1).min(workers.len());
        // SAFETY: the loop is closed and empty, so no worker reads the slot.
        unsafe { *self.job.get() = Some(job.clone()) };
        // Release publishes the slot and `next` to the workers' Acquire on entering.
        self.state.fetch_add(OPEN, Ordering::Release);
        for worker in &workers[..helpers] {
            worker.thread().unpark();
        }
        self.chunks(&job);
        // Acquire pairs with the Release of leaving workers: what they wrote is visible when the loop returns.
        let mut state = self.state.fetch_add(OPEN, Ordering::AcqRel) + OPEN;
        let mut spins = 0;
        while state & ACTIVE != 0 {
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::park();
            }
            state = self.state.load(Ordering::Acquire);
        }
        // From here on no worker is inside and none can enter, so the body may go.
    }

    /// Takes chunks until none is left. Panics are kept for the caller and end the loop early.
    fn chunks(&self, job: &Job) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: this thread is the caller, or has entered the open loop: the caller waits for it to leave.
            let body = unsafe { &*job.body };
            loop {
                let at = self.next.fetch_add(job.grain, Ordering::Relaxed);
                if at >= job.items {
                    break;
                }
                body(at..job.items.min(at.saturating_add(job.grain)));
            }
        }));
        if let Err(payload) = result {
            self.next.store(job.items, Ordering::Relaxed);
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }

    /// The life of a worker.
    fn work(&self) {
        let mut spins = 0;
        let mut seen = 0;
        while !self.shutdown.load(Ordering::Acquire) {
            let state = self.state.load(Ordering::Relaxed);
            let epoch = state >> 32;
            if epoch & 1 == 1 && epoch != seen {
                // Acquire pairs with the Release that opened the loop.
                if self.state.compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    seen = epoch;
                    spins = 0;
                    // SAFETY: inside an open loop the slot is only read.
                    if let Some(job) = unsafe { (*self.job.get()).clone() } {
                        self.chunks(&job);
                        // Release hands what was written to the caller.
                        let left = self.state.fetch_sub(1, Ordering::AcqRel) - 1;
                        if left & ACTIVE == 0 && (left >> 32) & 1 == 0 {
                            job.caller.unpark();
                        }
                    }
                }
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                spins = 0;
                std::thread::park();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use super::Pool;

    #[test]
    fn every_item_is_visited_once_whatever_the_shape() {
        for threads in [0, 1, 2, 3, 7] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads.max(1));
            for (items, grain) in [(0, 1), (1, 1), (5, 0), (7, 3), (64, 64), (65, 64), (1000, 1), (1000, 17), (3, 9)] {
                let visits: Vec<AtomicU32> = (0..items).map(|_| AtomicU32::new(0)).collect();
                pool.for_each(items, grain, &|range| {
                    assert!(!range.is_empty() && range.len() <= grain.max(1));
                    for item in range {
                        visits[item].fetch_add(1, Ordering::Relaxed);
                    }
                });
                let wrong = visits.iter().filter(|count| count.load(Ordering::Relaxed) != 1).count();
                assert_eq!(wrong, 0, "{threads} threads, {items} items in chunks of {grain}");
            }
        }
    }

    #[test]
    fn many_short_loops_in_a_row_lose_nothing() {
        let pool = Pool::new(3);
        let sum = AtomicUsize::new(0);
        for round in 0..20_000 {
            pool.for_each(4, 1, &|range| {
                sum.fetch_add(range.start + round, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), (0..20_000).map(|round| 6 + 4 * round).sum::<usize>());
    }

    #[test]
    fn what_workers_wrote_is_seen_by_the_caller() {
        let pool = Pool::new(4);
        let mut data = vec![0_usize; 1001];
        for round in 1..200 {
            pool.for_each_piece(&mut data, 10, &|index, piece| {
                for (offset, value) in piece.iter_mut().enumerate() {
                    *value += index * 10 + offset;
                }
            });
            assert!(data.iter().enumerate().all(|(index, &value)| value == index * round));
        }
    }

    #[test]
    fn a_loop_inside_a_loop_runs_to_its_end() {
        let pool = Pool::new(3);
        let count = AtomicUsize::new(0);
        pool.for_each(8, 1, &|_| {
            pool.for_each(9, 2, &|range| {
                count.fetch_add(range.len(), Ordering::Relaxed);
            });
        });
        assert_eq!(count.into_inner(), 72);
    }

    #[test]
    fn two_callers_share_a_pool() {
        let pool = Pool::new(2);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        pool.for_each(5, 1, &|range| {
                            count.fetch_add(range.len(), Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 10_000);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for bad in [0, 1, 50, 99] {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.for_each(100, 1, &|range| assert_ne!(range.start, bad, "item {bad} is bad"));
            }));
            let payload = result.expect_err("the panic was lost");
            let message = payload.downcast_ref::<String>().expect("a formatted message");
            assert!(message.contains(&format!("item {bad} is bad")), "{message}");
            let count = AtomicUsize::new(0);
            pool.for_each(100, 7, &|range| {
                count.fetch_add(range.len(), Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 100);
        }
    }

    #[test]
    fn dropping_a_pool_joins_its_threads() {
        let pool = Pool::new(4);
        pool.for_each(16, 1, &|_| {});
        let shared = std::sync::Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none(), "a worker still holds the pool's state");
    }
}
