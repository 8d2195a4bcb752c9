//! Containers and framed streams, decoded by symphonia behind a push face.
//!
//! A demuxer of symphonia pulls: it can only block when bytes are missing. So each stream gets one thread, and the two
//! sides hand over in turns ([`worker`]): a push gives the demuxer its bytes and waits until it asks for more, so that
//! the thread works only while the caller waits, and what a push yields depends on nothing but the bytes so far. Before
//! the thread exists, the first bytes must show what was declared ([`magic`]): content that is something else is named,
//! never probed for. A panic of a demuxer or decoder ends the stream, not the process. One container is one stream: what
//! follows its end is ignored as padding, so flush before the next.
//!
//! Bounds: bytes and sound of one push ([`crate::MAX_PUSH_BYTES`], [`crate::MAX_PUSH_SAMPLES`]); bytes that a demuxer
//! may take without yielding any sound ([`MAX_BARREN_BYTES`]); broken packets in a row ([`MAX_BROKEN_PACKETS`]).

mod demux;
mod magic;
mod worker;

use crate::input::Decode;
use crate::{CodecError, Container};
use magic::Verdict;
use worker::Worker;

/// Bytes that a demuxer may consume between two packets of sound: room for cover art, a bound for everything that it
/// collects in memory.
pub const MAX_BARREN_BYTES: u64 = 16 << 20;
/// Packets that may fail to decode in a row; a stream that was cut loses a few.
pub const MAX_BROKEN_PACKETS: u32 = 16;

/// Bytes of one container in any chunking to mono 16 kHz.
pub(crate) struct ContainerDecoder {
    container: Container,
    /// Bytes until they show what they are; fewer than [`magic::LENGTH`] between two pushes.
    head: Vec<u8>,
    /// Bytes of a tag in front of the stream that are still to come.
    skip: u64,
    worker: Option<Worker>,
    lookahead: u64,
}

impl ContainerDecoder {
    pub(crate) fn open(container: Container) -> Result<Self, CodecError> {
        Ok(Self { container, head: Vec::new(), skip: 0, worker: None, lookahead: 0 })
    }

    /// The bytes so far, without tags in front, once they show what was declared.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        self.head.extend_from_slice(bytes);
        loop {
            let skip = self.skip.min(self.head.len() as u64);
            self.head.drain(..skip as usize);
            self.skip -= skip;
            match magic::check(self.container, &self.head)? {
                Verdict::NeedMore => return Ok(None),
                Verdict::Skip(length) => self.skip = length,
                Verdict::Start => return Ok(Some(std::mem::take(&mut self.head))),
            }
        }
    }

    fn spawn(&self) -> Result<Worker, CodecError> {
        let container = self.container;
        Worker::spawn(container.name(), move |shared| demux::run(container, shared))
    }
}

impl Decode for ContainerDecoder {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        let result = match &mut self.worker {
            Some(worker) => worker.push(bytes, out),
            None => {
                let Some(head) = self.head(bytes)? else { return Ok(()) };
                let worker = self.spawn()?;
                self.worker.insert(worker).push(&head, out)
            }
        };
        self.lookahead = self.worker.as_ref().map_or(0, Worker::lookahead);
        result
    }

    fn flush(&mut self, out: &mut Vec<f32>) -> Result<(), CodecError> {
        let unstarted = self.skip > 0 || !self.head.is_empty();
        let result = match self.worker.take() {
            Some(worker) => worker.finish(out),
            None if unstarted => {
                let name = self.container.name();
                Err(CodecError::Truncated(format!("the {name} stream ended within its header")))
            }
            None => Ok(()),
        };
        self.reset();
        result
    }

    fn reset(&mut self) {
        self.worker = None;
        self.head.clear();
        self.skip = 0;
        self.lookahead = 0;
    }

    fn lookahead(&self) -> u64 {
        self.lookahead
    }
}
