//! The thread of one demuxer, and the hand-over between it and its caller.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::MAX_BARREN_BYTES;
use crate::CodecError;
use crate::input::check_samples;

/// The caller's end. Dropping it ends the thread and waits for it.
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the two sides share. Each waits for the other only while holding nothing else.
pub(super) struct Shared {
    state: Mutex<State>,
    /// The demuxer waits here for bytes, the end, or its cancellation.
    to_demuxer: Condvar,
    /// The caller waits here until the demuxer wants more, or is done.
    to_caller: Condvar,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    /// No byte comes after `bytes`.
    end: bool,
    cancelled: bool,
    /// The demuxer has taken everything and waits.
    hungry: bool,
    pcm: Vec<f32>,
    lookahead: u64,
    /// Bytes taken since the last sound.
    barren: u64,
    done: Option<Result<(), CodecError>>,
}

impl Worker {
    /// Runs `demuxer` of the format `name` on a thread of its own.
    pub(super) fn spawn(
        name: &'static str,
        demuxer: impl FnOnce(&Arc<Shared>) -> Result<(), CodecError> + Send + 'static,
    ) -> Result<Self, CodecError> {
        let shared =
            Arc::new(Shared { state: Mutex::default(), to_demuxer: Condvar::new(), to_caller: Condvar::new() });
        let theirs = shared.clone();
        let thread = Builder::new()
            .name("demuxer".into())
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| demuxer(&theirs))).unwrap_or_else(|_| {
                    Err(CodecError::Failed(format!("the decoder of {name} panicked on this stream")))
                });
                let mut state = theirs.lock();
                state.bytes = VecDeque::new();
                state.done = Some(result);
                theirs.to_caller.notify_one();
            })
            .map_err(|error| CodecError::Failed(format!("cannot start a demuxer: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Hands over `bytes`, waits until they are used up, appends the sound that they yield.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        let mut state = self.shared.lock();
        if state.done.is_none() {
            state.bytes.extend(bytes);
            state.hungry = false;
            self.shared.to_demuxer.notify_one();
        }
        self.deliver(state, out)
    }

    /// Tells the demuxer that the stream ends here; appends the rest.
    pub(super) fn finish(mut self, out: &mut Vec<f32>) -> Result<(), CodecError> {
        let mut state = self.shared.lock();
        state.end = true;
        state.hungry = false;
        self.shared.to_demuxer.notify_one();
        let result = self.deliver(state, out);
        self.join();
        result
    }

    pub(super) fn lookahead(&self) -> u64 {
        self.shared.lock().lookahead
    }

    fn deliver(&self, mut state: MutexGuard<'_, State>, out: &mut Vec<f32>) -> Result<(), CodecError> {
        while !state.hungry && state.done.is_none() {
            state = self.shared.to_caller.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        out.append(&mut state.pcm);
        // Bytes after a clean end of the stream are tags and padding, and are ignored.
        state.done.clone().unwrap_or(Ok(()))
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The thread has caught its panics and reported them.
            let _ = thread.join();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.lock().cancelled = true;
        self.shared.to_demuxer.notify_one();
        self.join();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The demuxer has sound. False when nobody wants it any more.
    pub(super) fn put(&self, pcm: &mut Vec<f32>, lookahead: u64) -> Result<bool, CodecError> {
        let mut state = self.lock();
        state.pcm.append(pcm);
        state.lookahead = lookahead;
        state.barren = 0;
        check_samples(state.pcm.len())?;
        Ok(!state.cancelled)
    }

    /// Whether the demuxer was stopped for taking too much and giving nothing.
    pub(super) fn is_barren(&self) -> bool {
        self.lock().barren > MAX_BARREN_BYTES
    }
}

/// The demuxer's end, as symphonia wants it: a reader that blocks.
pub(super) struct Source(pub(super) Arc<Shared>);

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        while state.bytes.is_empty() && !state.end && !state.cancelled {
            state.hungry = true;
            self.0.to_caller.notify_one();
            state = self.0.to_demuxer.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.cancelled || state.barren > MAX_BARREN_BYTES {
            return Err(io::Error::other("the stream was given up"));
        }
        let read = state.bytes.read(buffer)?;
        state.barren += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_stream_and_nothing_else() {
        let mut worker = Worker::spawn("test", |shared| {
            let mut byte = [0];
            let _ = Source(shared.clone()).read(&mut byte);
            shared.put(&mut vec![0.5], 0)?;
            panic!("a decoder met byte {}", byte[0]);
        })
        .unwrap();
        let mut out = Vec::new();
        let error = worker.push(&[7], &mut out).unwrap_err();
        assert_eq!(error, CodecError::Failed("the decoder of test panicked on this stream".into()));
        assert_eq!(out, [0.5], "what came before is delivered");
        assert_eq!(worker.push(&[8], &mut out), Err(error.clone()));
        assert_eq!(worker.finish(&mut out), Err(error));
    }

    #[test]
    fn a_push_returns_when_its_bytes_are_used_up() {
        let mut worker = Worker::spawn("test", |shared| {
            let mut buffer = [0; 3];
            let mut source = Source(shared.clone());
            while let Ok(read @ 1..) = source.read(&mut buffer) {
                shared.put(&mut buffer[..read].iter().map(|&byte| f32::from(byte)).collect(), 0)?;
            }
            shared.put(&mut vec![-1.0], 0)?;
            Ok(())
        })
        .unwrap();
        let mut out = Vec::new();
        for n in 1..100u8 {
            worker.push(&[n, n], &mut out).unwrap();
            assert_eq!(out.len(), 2 * usize::from(n));
        }
        worker.finish(&mut out).unwrap();
        assert_eq!(out.len(), 199);
    }

    #[test]
    fn dropping_ends_a_demuxer_that_waits() {
        let (ended, end) = std::sync::mpsc::channel();
        let mut worker = Worker::spawn("test", move |shared| {
            let error = Source(shared.clone()).read_to_end(&mut Vec::new());
            let _ = ended.send(error.is_err());
            Ok(())
        })
        .unwrap();
        worker.push(&[0; 100], &mut Vec::new()).unwrap();
        drop(worker);
        assert_eq!(end.try_recv(), Ok(true), "the thread has ended, by an error of its reader");
    }
}
