//! The media thread: decoding, voice activity and encoding for all conversations, so that tokio only moves bytes. A
//! second thread judges pauses and a third decodes pictures, which takes as long as several packets last.
//!
//! State travels: a conversation hands its decoder to the thread with a piece of input and gets both back, so a
//! stream's pieces stay in order, no lock is held, and a conversation has at most two jobs waiting (one a direction).
//! A panic of a codec ends the job's stream and nothing else.
//!
//! Samples that are bytes already (PCM, G.711) take less time to convert than the way to the thread and back. In pieces
//! of at most [`LIGHT`] the conversation's own task converts them: see [`Ear::is_light`] and [`Mouth::is_light`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use causerie_codec::{AudioInput, AudioOutput, CodecError, InputFormat, OutputFormat, Packet, Pixels, decode_picture};
use causerie_model_api::{InputSamples, OUTPUT_RATE, OutputSamples, TurnId};
use causerie_session::{Problem, ProblemCode};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tokio::sync::oneshot;

use crate::lag::Meter;

/// Jobs that may wait for the thread: two for each of 2,048 conversations. At the bound a conversation ends with
/// [`ProblemCode::ResourceExhausted`].
const MAX_JOBS: usize = 4_096;

/// Pauses that may wait to be judged. At the bound a pause is not judged: its length alone decides.
const MAX_JUDGEMENTS: usize = 256;

/// Pictures that may wait to be decoded. At the bound a picture is refused.
const MAX_PICTURES: usize = 64;

/// The longest sound that is converted in place: some 50 µs of work where it has to be resampled.
const LIGHT: Duration = Duration::from_millis(100);

/// Longest window of a detector, in samples; of a longer one only the end counts for its power.
const MAX_WINDOW: u64 = 4_096;

/// A voice-activity detector, loaded once for all conversations.
pub trait Detector: Send + Sync {
    /// The state of one conversation.
    fn stream(&self) -> Box<dyn DetectorStream>;

    /// What tells an end from a pause; `None` leaves that to the length of the silence.
    fn completion(&self) -> Option<Arc<dyn Completion>> {
        None
    }
}

/// Tells by the sound whether somebody has finished or only pauses. Loaded once for all conversations.
pub trait Completion: Send + Sync {
    /// The probability that who is heard in `pcm` (mono, 16 kHz, some silence at its end) has finished; `None` when it
    /// cannot be told.
    fn finished(&self, pcm: &[f32]) -> Option<f32>;

    /// How much of the input it hears, in samples.
    fn span(&self) -> usize;
}

/// A detector's state for one conversation.
pub trait DetectorStream: Send {
    /// Takes mono samples at 16 kHz in any chunking and reports each completed window: the probability of speech, its
    /// first sample and one past its last, counted from the first sample ever pushed.
    fn push(&mut self, pcm: &[f32], window: &mut dyn FnMut(f32, u64, u64));

    /// Called between pushes while the agent is silent: the moment to forget, for a detector that long music or noise
    /// makes deaf.
    fn refresh(&mut self) {}
}

type Job = Box<dyn FnOnce() + Send>;

/// Owns the media threads. Dropping it finishes the jobs that wait and joins the threads.
pub struct MediaPool {
    media: Media,
    threads: Vec<Worker>,
}

/// A thread and the way to it.
struct Worker {
    jobs: Sender<Option<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(name: &str, bound: usize) -> std::io::Result<Self> {
        let (jobs, waiting) = bounded(bound);
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || work(&waiting))?;
        Ok(Self { jobs, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Conversations may still hold senders, so the end is a message and not a disconnect. The thread drains
            // the queue without waiting for anything, so this send does not wait long.
            let _ = self.jobs.send(None);
            let _ = thread.join();
        }
    }
}

impl MediaPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(detector: Arc<dyn Detector>) -> std::io::Result<Self> {
        let mut threads = vec![Worker::start("media", MAX_JOBS)?];
        let jobs = threads[0].jobs.clone();
        // A large picture takes longer than a packet of sound can wait.
        let eyes = Worker::start("pictures", MAX_PICTURES)?;
        let pictures = eyes.jobs.clone();
        threads.push(eyes);
        let judge = match detector.completion() {
            None => None,
            Some(completion) => {
                let worker = Worker::start("turns", MAX_JUDGEMENTS)?;
                let jobs = worker.jobs.clone();
                threads.push(worker);
                Some(Judge { jobs, completion })
            }
        };
        Ok(Self { media: Media { lag: Meter::default(), jobs, pictures, detector, judge }, threads })
    }

    /// What conversations use.
    pub fn media(&self) -> Media {
        self.media.clone()
    }
}

impl Drop for MediaPool {
    fn drop(&mut self) {
        self.threads.clear();
    }
}

fn work(waiting: &Receiver<Option<Job>>) {
    while let Ok(Some(job)) = waiting.recv() {
        // The job's answer channel is dropped by the unwinding, which its conversation sees as a failure.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a media job panicked");
        }
    }
}

/// A conversation's way to the media threads.
#[derive(Clone)]
pub struct Media {
    lag: Meter,
    jobs: Sender<Option<Job>>,
    pictures: Sender<Option<Job>>,
    detector: Arc<dyn Detector>,
    judge: Option<Judge>,
}

#[derive(Clone)]
struct Judge {
    jobs: Sender<Option<Job>>,
    completion: Arc<dyn Completion>,
}

impl Media {
    /// Runs `work` on the media thread. The answer never comes when `work` panics: the channel closes.
    ///
    /// # Errors
    /// [`MAX_JOBS`] wait already, or the thread has ended.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, Problem> {
        let (answer, receiver) = oneshot::channel();
        let (lag, asked) = (self.lag.clone(), Instant::now());
        let job: Job = Box::new(move || {
            lag.record(Instant::now(), asked.elapsed());
            drop(answer.send(work()));
        });
        self.jobs.try_send(Some(job)).map_err(|error| match error {
            TrySendError::Full(_) => Problem {
                retryable: true,
                ..Problem::new(ProblemCode::ResourceExhausted, "", format!("{MAX_JOBS} media jobs wait already"))
            },
            TrySendError::Disconnected(_) => {
                Problem { retryable: true, ..Problem::new(ProblemCode::Unavailable, "", "the server is shutting down") }
            }
        })?;
        Ok(receiver)
    }

    /// How long jobs wait for the media thread.
    pub(crate) fn lag(&self) -> &Meter {
        &self.lag
    }

    /// Decodes a picture on a thread of its own, and reduces it to `most` pixels. The answer never comes when that fails: the
    /// channel closes.
    ///
    /// # Errors
    /// [`MAX_PICTURES`] wait already, or the thread has ended.
    pub fn look(
        &self,
        mime: String,
        data: Bytes,
        most: u64,
    ) -> Result<oneshot::Receiver<Result<Pixels, CodecError>>, Problem> {
        let (answer, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            if !answer.is_closed() {
                let _ = answer.send(decode_picture(&mime, &data).map(|pixels| pixels.reduced(most)));
            }
        });
        self.pictures.try_send(Some(job)).map_err(|_| Problem {
            retryable: true,
            ..Problem::new(ProblemCode::ResourceExhausted, "", format!("{MAX_PICTURES} pictures wait already"))
        })?;
        Ok(receiver)
    }

    /// How much of the input has to be kept for [`Media::judge`], in samples; `None` where pauses are not judged.
    pub fn judged_span(&self) -> Option<usize> {
        self.judge.as_ref().map(|judge| judge.completion.span())
    }

    /// Asks whether who is heard in `pcm` has finished. No answer comes when it cannot be told: the channel closes.
    pub fn judge(&self, pcm: Vec<f32>) -> oneshot::Receiver<Option<f32>> {
        let (answer, receiver) = oneshot::channel();
        if let Some(Judge { jobs, completion }) = &self.judge {
            let completion = completion.clone();
            let job: Job = Box::new(move || {
                // Nobody waits any more when the pause has ended meanwhile.
                if !answer.is_closed() {
                    let _ = answer.send(completion.finished(&pcm));
                }
            });
            if jobs.try_send(Some(job)).is_err() {
                tracing::warn!("{MAX_JUDGEMENTS} pauses wait to be judged already");
            }
        }
        receiver
    }

    /// The input side of a new conversation; `detect` is false when the client marks activity itself.
    pub fn ear(&self, detect: bool) -> Ear {
        Ear { decoder: None, detector: detect.then(|| self.detector.stream()), position: 0, part: Vec::new() }
    }
}

/// The input side of a conversation: bytes in the client's formats become 16 kHz samples and windows of the detector.
pub struct Ear {
    decoder: Option<Open>,
    detector: Option<Box<dyn DetectorStream>>,
    position: u64,
    /// The samples since the last window.
    part: Vec<f32>,
}

/// The decoder of a stream.
struct Open {
    mime: String,
    decoder: AudioInput,
    /// Bytes at once that are light; 0 for formats that are not.
    light_bytes: usize,
}

/// A window of the detector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Of speech.
    pub probability: f32,
    /// First sample.
    pub from: InputSamples,
    /// One past the last.
    pub to: InputSamples,
    /// Mean square of its samples.
    pub power: f32,
}

/// What came of a piece of input.
#[derive(Debug, Default)]
pub struct Heard {
    /// Position of the first sample.
    pub at: InputSamples,
    /// One past the last.
    pub until: InputSamples,
    /// Mono samples at 16 kHz; none when they have been taken out.
    pub pcm: Vec<f32>,
    /// Windows of the detector that the piece completes.
    pub windows: Vec<Window>,
    /// What is wrong with the piece; the samples before the fault are there all the same.
    pub error: Option<CodecError>,
}

impl Ear {
    /// Whether [`Ear::decode`] takes no longer for this piece than the way to the media thread.
    pub fn is_light(&self, mime: &str, bytes: usize) -> bool {
        self.decoder.as_ref().is_some_and(|open| bytes <= open.light_bytes && open.mime == mime)
    }

    /// Whether there is a detector.
    pub fn detects(&self) -> bool {
        self.detector.is_some()
    }

    /// Decodes a piece and looks for speech in it, as [`Ear::decode`] and [`Ear::detect`] do.
    pub fn push(&mut self, mime: &str, data: &[u8], agent_silent: bool) -> Heard {
        let mut heard = self.decode(mime, data);
        let pcm = std::mem::take(&mut heard.pcm);
        heard.windows = self.detect(&pcm, agent_silent);
        Heard { pcm, ..heard }
    }

    /// Decodes a piece. A type other than the one before ends that stream and begins another.
    pub fn decode(&mut self, mime: &str, data: &[u8]) -> Heard {
        let mut pcm = Vec::new();
        let error = self.try_decode(mime, data, &mut pcm).err();
        self.heard(pcm, error)
    }

    /// The stream ends here for now: what the decoder kept back comes out.
    pub fn flush(&mut self) -> Heard {
        let mut pcm = Vec::new();
        let error = self.decoder.take().and_then(|mut open| open.decoder.flush(&mut pcm).err());
        let heard = self.heard(pcm, error);
        Heard { windows: self.look(&heard.pcm), ..heard }
    }

    fn heard(&mut self, pcm: Vec<f32>, error: Option<CodecError>) -> Heard {
        let at = InputSamples(self.position);
        self.position += pcm.len() as u64;
        Heard { at, until: InputSamples(self.position), pcm, windows: Vec::new(), error }
    }

    fn try_decode(&mut self, mime: &str, data: &[u8], out: &mut Vec<f32>) -> Result<(), CodecError> {
        if self.decoder.as_ref().is_none_or(|open| open.mime != mime) {
            let format = InputFormat::parse(mime)?;
            let light_bytes = (format.bytes_per_second().unwrap_or(0) as f64 * LIGHT.as_secs_f64()) as usize;
            let open = Open { mime: mime.to_owned(), decoder: AudioInput::open(&format)?, light_bytes };
            if let Some(mut before) = self.decoder.replace(open) {
                match before.decoder.flush(out) {
                    Ok(()) | Err(CodecError::Truncated(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        match &mut self.decoder {
            Some(open) => open.decoder.push(data, out),
            None => Ok(()),
        }
    }

    /// Looks for speech in samples that were decoded, each once and in their order. `agent_silent` lets the detector
    /// refresh itself first.
    pub fn detect(&mut self, pcm: &[f32], agent_silent: bool) -> Vec<Window> {
        if let Some(detector) = self.detector.as_mut().filter(|_| agent_silent) {
            detector.refresh();
        }
        self.look(pcm)
    }

    fn look(&mut self, pcm: &[f32]) -> Vec<Window> {
        let mut windows = Vec::new();
        if let Some(detector) = &mut self.detector {
            self.part.extend(pcm);
            let begin = self.position - self.part.len() as u64;
            let part = &self.part;
            detector.push(pcm, &mut |probability, from, to| {
                let at = |position: u64| (position.saturating_sub(begin) as usize).min(part.len());
                let power = mean_square(&part[at(from).min(at(to))..at(to)]);
                windows.push(Window { probability, from: InputSamples(from), to: InputSamples(to), power });
            });
            // A detector that has failed makes no windows.
            let until =
                windows.last().map_or(begin, |window| window.to.0).max(self.position.saturating_sub(MAX_WINDOW));
            self.part.drain(..(until.saturating_sub(begin) as usize).min(self.part.len()));
        }
        windows
    }
}

fn mean_square(pcm: &[f32]) -> f32 {
    pcm.iter().map(|x| x * x).sum::<f32>() / pcm.len().max(1) as f32
}

/// The output side of a conversation: speech becomes packets of the client's format.
pub struct Mouth {
    encoder: AudioOutput,
    turn: Option<TurnId>,
    /// Of the turn, in samples of the output's rate.
    emitted: u64,
}

/// An encoded piece of speech.
#[derive(Debug)]
pub struct Spoken {
    /// The turn.
    pub turn: TurnId,
    /// Position of its first sample in the turn's speech.
    pub start: OutputSamples,
    /// Encoded.
    pub data: Vec<u8>,
}

impl Mouth {
    /// An encoder with no past.
    ///
    /// # Errors
    /// The encoder cannot be made.
    pub fn open(format: OutputFormat) -> Result<Self, CodecError> {
        Ok(Self { encoder: AudioOutput::open(format)?, turn: None, emitted: 0 })
    }

    /// The MIME type of the packets.
    pub fn mime(&self) -> &str {
        self.encoder.mime()
    }

    /// Whether so many samples are encoded, flushed or dropped faster than they get to the media thread.
    pub fn is_light(&self, samples: usize) -> bool {
        let raw = self.encoder.format() != OutputFormat::Opus;
        raw && samples as f64 <= f64::from(OUTPUT_RATE) * LIGHT.as_secs_f64()
    }

    /// Encodes a piece of a turn's speech.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn push(&mut self, turn: TurnId, pcm: &[f32]) -> Result<Vec<Spoken>, CodecError> {
        if self.turn != Some(turn) {
            self.encoder.reset()?;
            self.turn = Some(turn);
            self.emitted = 0;
        }
        let mut packets = Vec::new();
        self.encoder.push(pcm, &mut packets)?;
        Ok(self.spoken(turn, packets))
    }

    /// The turn's speech is complete: the rest comes out.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn flush(&mut self) -> Result<Vec<Spoken>, CodecError> {
        let Some(turn) = self.turn.take() else { return Ok(Vec::new()) };
        let mut packets = Vec::new();
        self.encoder.flush(&mut packets)?;
        Ok(self.spoken(turn, packets))
    }

    /// The turn was interrupted: the rest is dropped.
    ///
    /// # Errors
    /// The encoder failed.
    pub fn reset(&mut self) -> Result<Vec<Spoken>, CodecError> {
        self.turn = None;
        self.encoder.reset()?;
        Ok(Vec::new())
    }

    fn spoken(&mut self, turn: TurnId, packets: Vec<Packet>) -> Vec<Spoken> {
        let rate = u64::from(self.encoder.format().sample_rate().hz());
        let mut spoken = Vec::with_capacity(packets.len());
        for packet in packets {
            let start = OutputSamples(self.emitted * u64::from(OUTPUT_RATE) / rate);
            self.emitted += packet.samples;
            spoken.push(Spoken { turn, start, data: packet.bytes });
        }
        spoken
    }
}
