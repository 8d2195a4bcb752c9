//! What came back, and when: the receiving side as a plain machine that is told the time.

use std::time::{Duration, Instant};

use causerie_proto::v1::{
    ServerContent, ServerMessage, TurnEndReason, TurnMetrics, UsageMetadata, part::Data, server_message::MessageType,
};
use causerie_units::SampleRate;

/// Sample rate of the replies, as asked for in the setup.
pub(super) const RATE: SampleRate = SampleRate::HZ_24000;

/// What the listener of the measurement keeps in hand before it starts to play.
const LISTENER_BUFFER: Duration = Duration::from_millis(200);

/// A 10 ms window above this is voice. Digital silence and a vocoder's noise floor lie far below, speech far above.
const VOICED_DB: f32 = -45.0;

/// One turn, as the listener saw it.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Counts from 1.
    pub(super) number: usize,
    /// What was said: a file, or typed words.
    pub(super) input: String,
    /// The engine that answered.
    pub(super) engine: String,
    pub(super) input_transcript: String,
    pub(super) output_transcript: String,
    pub(super) metrics: TurnMetrics,
    pub(super) reason: TurnEndReason,
    /// What the turn cost, if the server said so.
    pub(super) usage: Option<UsageMetadata>,
    /// The reply's speech.
    pub(super) audio: Vec<f32>,
    /// End of the utterance to the arrival of the reply's first voiced sample.
    pub(super) first_voiced_ms: Option<f64>,
    /// How often, and for how long, a listener with a buffer of 200 ms heard nothing for want of audio.
    pub(super) dry: Dry,
    /// What the server complained of.
    pub(super) warnings: Vec<String>,
}

impl Turn {
    pub(super) fn interrupted(&self) -> bool {
        self.reason == TurnEndReason::Interrupted
    }

    pub(super) fn audio_seconds(&self) -> f64 {
        self.audio.len() as f64 / f64::from(RATE.hz())
    }
}

/// Gaps in what a listener hears.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Dry {
    pub(super) count: usize,
    pub(super) ms: f64,
}

/// What a message means for player and printer.
#[derive(Default)]
pub(super) struct Event {
    pub(super) audio: Vec<f32>,
    pub(super) interrupted: bool,
    pub(super) warning: Option<String>,
    pub(super) finished: Option<Turn>,
}

/// Collects messages into turns.
pub(super) struct Recorder {
    engine: String,
    input: String,
    finished: usize,
    turn: Turn,
    spoken: Option<Instant>,
    /// When each piece of audio came, and its length in samples.
    arrivals: Vec<(Instant, usize)>,
}

impl Recorder {
    pub(super) fn new(engine: String) -> Self {
        let (input, turn) = (String::new(), Turn::default());
        Self { engine, input, finished: 0, turn, spoken: None, arrivals: Vec::new() }
    }

    /// From here on, `input` is being spoken.
    pub(super) fn begin(&mut self, input: String) {
        self.input = input;
        self.spoken = None;
    }

    /// Its last sample of speech was spoken at this time.
    pub(super) fn spoken(&mut self, at: Instant) {
        self.spoken = Some(at);
    }

    /// Takes a message that came at `now`.
    pub(super) fn take(&mut self, now: Instant, message: ServerMessage) -> Event {
        if let Some(usage) = message.usage_metadata {
            self.turn.usage = Some(*usage);
        }
        match message.message_type {
            Some(MessageType::ServerContent(content)) => self.content(now, content),
            Some(MessageType::Warning(problem) | MessageType::Error(problem)) => {
                let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
                let warning = format!("{} ({field}{})", problem.message, problem.code);
                self.turn.warnings.push(warning.clone());
                Event { warning: Some(warning), ..Event::default() }
            }
            Some(MessageType::GoAway(_)) => {
                Event { warning: Some("it is about to close the conversation".to_owned()), ..Event::default() }
            }
            _ => Event::default(),
        }
    }

    fn content(&mut self, now: Instant, content: ServerContent) -> Event {
        let mut event = Event { interrupted: content.interrupted, ..Event::default() };
        if let Some(transcription) = content.input_transcription {
            self.turn.input_transcript += &transcription.text;
        }
        if let Some(transcription) = content.output_transcription {
            self.turn.output_transcript += &transcription.text;
        }
        for part in content.model_turn.into_iter().flat_map(|content| content.parts) {
            if let Some(Data::InlineData(blob)) = part.data {
                event.audio.extend(decode(&blob.data));
            }
        }
        if !event.audio.is_empty() {
            self.turn.audio.extend(&event.audio);
            self.arrivals.push((now, event.audio.len()));
        }
        if content.turn_complete {
            self.turn.reason = TurnEndReason::try_from(content.turn_end_reason).unwrap_or_default();
            self.turn.metrics = content.turn_metrics.map(|metrics| *metrics).unwrap_or_default();
            event.finished = Some(self.finish());
        }
        event
    }

    fn finish(&mut self) -> Turn {
        self.finished += 1;
        let mut turn = std::mem::take(&mut self.turn);
        turn.number = self.finished;
        turn.input.clone_from(&self.input);
        turn.engine.clone_from(&self.engine);
        turn.dry = ran_dry(&self.arrivals);
        turn.first_voiced_ms = self.spoken.and_then(|spoken| {
            let at = first_voiced(&turn.audio).and_then(|sample| arrival_of(&self.arrivals, sample))?;
            // Before the end of the utterance if the server answered a pause inside it.
            Some(millis(at, spoken))
        });
        self.arrivals.clear();
        turn
    }
}

/// Milliseconds from `origin` to `at`, negative if it was before.
fn millis(at: Instant, origin: Instant) -> f64 {
    let ahead = at.saturating_duration_since(origin).as_secs_f64();
    let behind = origin.saturating_duration_since(at).as_secs_f64();
    (ahead - behind) * 1e3
}

/// Little-endian 16-bit samples as floats.
fn decode(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0)
}

/// The first sample of the first window that is loud enough to be voice.
fn first_voiced(audio: &[f32]) -> Option<usize> {
    let window = RATE.hz() as usize / 100;
    audio.chunks(window).position(|samples| causerie_codec::level::rms_db(samples) > VOICED_DB).map(|at| at * window)
}

/// When the piece came that holds `sample`.
fn arrival_of(arrivals: &[(Instant, usize)], sample: usize) -> Option<Instant> {
    let mut end = 0;
    arrivals.iter().find_map(|&(at, samples)| {
        end += samples;
        (sample < end).then_some(at)
    })
}

/// Plays the pieces to a listener that starts once it has [`LISTENER_BUFFER`] in hand (or everything) and never skips:
/// a piece that comes after the one before it was played out is a gap, and what follows is later by as much.
fn ran_dry(arrivals: &[(Instant, usize)]) -> Dry {
    let mut buffered = 0;
    let start = arrivals.iter().find_map(|&(at, samples)| {
        buffered += samples;
        (RATE.duration(buffered as u64) >= LISTENER_BUFFER).then_some(at)
    });
    let Some(mut needed) = start.or(arrivals.last().map(|&(at, _)| at)) else { return Dry::default() };
    let mut dry = Dry::default();
    for &(at, samples) in arrivals {
        if at > needed {
            dry.count += 1;
            dry.ms += millis(at, needed);
            needed = at;
        }
        needed += RATE.duration(samples as u64);
    }
    dry
}

#[cfg(test)]
mod tests {
    use causerie_proto::v1::{Blob, Content, Part, Transcription};

    use super::*;

    fn content(content: ServerContent) -> ServerMessage {
        ServerMessage { message_type: Some(MessageType::ServerContent(content)), ..ServerMessage::default() }
    }

    fn speech(samples: &[f32]) -> ServerMessage {
        let data: Vec<u8> = samples.iter().flat_map(|it| ((it * 32_768.0) as i16).to_le_bytes()).collect();
        let blob = Blob { mime_type: "audio/pcm;rate=24000".to_owned(), data: data.into() };
        let part = Part { data: Some(Data::InlineData(blob)), ..Part::default() };
        content(ServerContent {
            model_turn: Some(Content { role: "model".to_owned(), parts: vec![part] }),
            ..ServerContent::default()
        })
    }

    const MS: Duration = Duration::from_millis(1);

    /// Samples of so many milliseconds.
    const fn of(ms: usize) -> usize {
        24 * ms
    }

    #[test]
    fn a_turn_is_collected_and_its_first_voice_is_timed() {
        let start = Instant::now();
        let mut recorder = Recorder::new("scripted".to_owned());
        recorder.begin("a.wav".to_owned());
        recorder.spoken(start + 1000 * MS);
        let said = |text: &str| Some(Transcription { text: text.to_owned(), finished: false });
        recorder.take(start, content(ServerContent { input_transcription: said("what"), ..ServerContent::default() }));
        recorder.take(start, content(ServerContent { input_transcription: said(" now"), ..ServerContent::default() }));
        // 100 ms of silence, then voice in the second piece.
        recorder.take(start + 1300 * MS, speech(&vec![0.0; of(100)]));
        recorder.take(start + 1340 * MS, speech(&vec![0.25; of(300)]));
        recorder
            .take(start, content(ServerContent { output_transcription: said("This."), ..ServerContent::default() }));
        let last = content(ServerContent {
            turn_complete: true,
            turn_end_reason: TurnEndReason::Stop.into(),
            turn_metrics: Some(Box::new(TurnMetrics { endpoint_ms: Some(200.0), ..TurnMetrics::default() })),
            ..ServerContent::default()
        });
        let turn = recorder.take(start + 1400 * MS, last).finished.unwrap();
        assert_eq!((turn.number, turn.input.as_str(), turn.engine.as_str()), (1, "a.wav", "scripted"));
        assert_eq!((turn.input_transcript.as_str(), turn.output_transcript.as_str()), ("what now", "This."));
        assert_eq!(turn.first_voiced_ms.map(f64::round), Some(340.0));
        assert_eq!(turn.audio.len(), of(400));
        assert_eq!(turn.metrics.endpoint_ms, Some(200.0));
        assert!(!turn.interrupted());
        // The next turn starts from nothing.
        let again = content(ServerContent { turn_complete: true, ..ServerContent::default() });
        let turn = recorder.take(start, again).finished.unwrap();
        assert_eq!((turn.number, turn.audio.len(), turn.first_voiced_ms), (2, 0, None));
        assert_eq!(turn.input_transcript, "");
    }

    #[test]
    fn a_listener_runs_dry_when_pieces_come_too_late() {
        let start = Instant::now();
        let case = |pieces: &[(u32, usize)]| {
            let arrivals: Vec<_> = pieces.iter().map(|&(at, ms)| (start + at * MS, of(ms))).collect();
            let dry = ran_dry(&arrivals);
            (dry.count, dry.ms.round())
        };
        assert_eq!(case(&[]), (0, 0.0));
        assert_eq!(case(&[(0, 100)]), (0, 0.0), "a short reply is played when it is whole");
        assert_eq!(case(&[(0, 200), (200, 100), (300, 100)]), (0, 0.0), "just in time");
        assert_eq!(case(&[(0, 40), (40, 40), (400, 120), (500, 100)]), (0, 0.0), "playing starts with 200 ms in hand");
        assert_eq!(case(&[(0, 200), (250, 100), (350, 100)]), (1, 50.0), "one gap moves all that follows");
        assert_eq!(case(&[(0, 200), (250, 100), (380, 100)]), (2, 80.0));
    }

    #[test]
    fn an_interruption_is_passed_on_at_once() {
        let mut recorder = Recorder::new(String::new());
        let event = recorder.take(Instant::now(), content(ServerContent { interrupted: true, ..Default::default() }));
        assert!(event.interrupted && event.finished.is_none());
        let last = ServerContent {
            turn_complete: true,
            turn_end_reason: TurnEndReason::Interrupted.into(),
            ..ServerContent::default()
        };
        assert!(recorder.take(Instant::now(), content(last)).finished.unwrap().interrupted());
    }
}
