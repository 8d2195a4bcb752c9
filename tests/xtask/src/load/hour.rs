//! An hour of conversation on a clock of its own: whether what it takes and how soon it answers stay what they were.
//!
//! The session is the gateway's, fed as its driver feeds it; the engine answers everything at once with as much speech, and
//! counts tokens until it is told to forget.

use std::collections::VecDeque;
use std::time::Instant;

use causerie_gateway::media::Detector as _;
use causerie_model_api::{
    Capabilities, Event, FinishReason, INPUT_RATE, InputSamples, OUTPUT_RATE, OutputSamples, Request, SessionId,
    TurnId, Usage,
};
use causerie_session::{Input, Output, ServerEvent, Session, Settings, Setup, Timing};
use causerie_tests::scripted::{self, LoudnessDetector};
use causerie_units::MediaTime;

use crate::machine;

/// What is said in a row of the table.
const SPAN_S: u64 = 600;
const SPANS: u64 = 6;
/// A question of so long comes so often.
const QUESTION_MS: u64 = 1_200;
const EVERY_MS: u64 = 10_000;
const FRAME_MS: u64 = 20;
/// Speech of a reply, in pieces of 100 ms.
const REPLY_PIECES: u64 = 20;
const WORDS: &str = "It is what it was.";
/// What a turn adds to the prompt.
const TURN_TOKENS: u32 = 40;

struct Caller {
    session: Session,
    events: VecDeque<Event>,
    limit: u32,
    tokens: u32,
    asked_ms: u64,
    answered: bool,
    delays_ms: Vec<f64>,
    forgotten: u64,
}

/// Holds the conversation and prints a row for each ten minutes of it.
pub(super) fn hour() -> anyhow::Result<()> {
    let capabilities = Capabilities { thinking: false, ..scripted::capabilities() };
    let settings =
        Settings { id: SessionId(1), name: "hour".into(), model: "scripted".into(), timing: Timing::default() };
    let session = Session::open(Setup::default(), &capabilities, settings, MediaTime::ZERO)
        .map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
    let mut caller = Caller {
        session,
        events: VecDeque::new(),
        limit: capabilities.context_tokens,
        tokens: 0,
        asked_ms: 0,
        answered: true,
        delays_ms: Vec::new(),
        forgotten: 0,
    };
    let mut detector = LoudnessDetector.stream();
    println!(
        "\n{:<28} {:>10} {:>14} {:>14} {:>12} {:>12}",
        "an hour in virtual time", "answers", "delay p50, ms", "delay max, ms", "memory, kB", "computed, ms"
    );
    let mut position = 0;
    for span in 0..SPANS {
        let begun = Instant::now();
        for frame in 0..SPAN_S * 1_000 / FRAME_MS {
            let now_ms = span * SPAN_S * 1_000 + (frame + 1) * FRAME_MS;
            let now = MediaTime::from_millis(now_ms);
            let within = (now_ms - FRAME_MS) % EVERY_MS;
            let pcm = [if within < QUESTION_MS { 0.3 } else { 0.0 }; FRAME_MS as usize * INPUT_RATE as usize / 1_000];
            if within + FRAME_MS == QUESTION_MS {
                (caller.asked_ms, caller.answered) = (now_ms, false);
            }
            position += pcm.len() as u64;
            caller.take(now, now_ms, Input::Received { until: InputSamples(position) });
            detector.push(&pcm, &mut |probability, from, to| {
                let (from, to) = (InputSamples(from), InputSamples(to));
                caller.take(now, now_ms, Input::Voice { probability, from, to });
            });
            caller.take(now, now_ms, Input::Tick);
        }
        let mut delays = std::mem::take(&mut caller.delays_ms);
        delays.sort_by(f64::total_cmp);
        println!(
            "{:<28} {:>10} {:>14.0} {:>14.0} {:>12.0} {:>12.0}",
            format!("    minutes {} to {}", span * SPAN_S / 60, (span + 1) * SPAN_S / 60),
            delays.len(),
            delays.get(delays.len() / 2).copied().unwrap_or(f64::NAN),
            delays.last().copied().unwrap_or(f64::NAN),
            machine::rss_kb(std::process::id()).unwrap_or(f64::NAN),
            begun.elapsed().as_secs_f64() * 1e3,
        );
    }
    println!("    {} times the oldest turns were forgotten", caller.forgotten);
    Ok(())
}

impl Caller {
    fn take(&mut self, now: MediaTime, now_ms: u64, input: Input) {
        self.session.handle_input(now, input);
        loop {
            match self.session.poll_output() {
                Output::Engine(request) => self.engine(&request),
                Output::Judge { until, .. } => {
                    self.session.handle_input(now, Input::Completion { until, probability: Some(1.0) });
                }
                Output::Client(ServerEvent::Audio { .. }) if !self.answered => {
                    self.answered = true;
                    self.delays_ms.push((now_ms - self.asked_ms) as f64);
                }
                Output::Wait(_) | Output::Close(_) => match self.events.pop_front() {
                    Some(event) => self.session.handle_input(now, Input::Engine(event)),
                    None => return,
                },
                _ => {}
            }
        }
    }

    fn engine(&mut self, request: &Request) {
        match request {
            Request::Open { .. } => self.events.push_back(Event::Opened),
            Request::Commit { turn, .. } | Request::Start { turn, .. } => self.answer(*turn),
            Request::Cancel { turn, .. } => {
                self.events.push_back(Event::Truncated { turn: *turn, text_until: 0, usage: Usage::default() });
            }
            Request::Forget { .. } => {
                self.forgotten += 1;
                self.tokens /= 2;
            }
            _ => {}
        }
    }

    fn answer(&mut self, turn: TurnId) {
        self.tokens += TURN_TOKENS;
        let piece = OUTPUT_RATE as usize / 10;
        let text_until = |piece: u64| WORDS.len() * (piece as usize + 1) / REPLY_PIECES as usize;
        self.events.extend([
            Event::Prompt { turn: Some(turn), tokens: self.tokens, limit: self.limit },
            Event::Heard { turn, text: "What is it?".into(), language: String::new() },
            Event::Text { turn, delta: WORDS.into() },
        ]);
        self.events.extend((0..REPLY_PIECES).map(|i| Event::Audio {
            turn,
            start: OutputSamples(i * piece as u64),
            pcm: vec![0.1; piece],
            text_until: text_until(i),
        }));
        self.events.push_back(Event::Done { turn, reason: FinishReason::Stop, usage: Usage::default() });
    }
}
