//! The stage: a session between a user and an engine that do what they are told, with a log of all that leaves it.
//!
//! A line of the log is `milliseconds | request` for the engine and `milliseconds > event` for the client. Pieces of
//! speech that follow each other are one line, with the time of the first and the range in milliseconds.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

use causerie_model_api::*;
use causerie_units::MediaTime;

use crate::{Input, Output, ServerEvent, Session, Settings, Setup, Snapshot, Timing};

pub(super) const ID: SessionId = SessionId(7);

pub(super) fn capabilities() -> Capabilities {
    Capabilities {
        engine: "scripted".into(),
        audio_in: true,
        audio_out: true,
        tools: true,
        thinking: true,
        voices: vec![Voice { name: "heart".into(), language: "en-US".into(), gender: "female".into() }],
        ..Capabilities::default()
    }
}

/// The defaults, but for a pause before proposals that is a round number of windows and easy to follow, and without
/// questions about unfinished sentences, which some tests turn on.
fn timing() -> Timing {
    Timing { propose_after: Duration::from_millis(200), judge_after: None, ..Timing::default() }
}

pub(super) fn settings() -> Settings {
    Settings { id: ID, name: "s-7".into(), model: "scripted".into(), timing: timing() }
}

pub(super) fn setup() -> Setup {
    Setup { input_transcription: true, output_transcription: true, ..Setup::default() }
}

/// How the engine answers.
#[derive(Clone)]
pub(super) struct Script {
    /// What each utterance is understood as.
    pub(super) heard: VecDeque<&'static str>,
    /// What is replied: text and the milliseconds that it takes to say.
    pub(super) reply: Vec<(&'static str, u64)>,
    /// From the commit to the transcript, and from the transcript to each piece of the reply.
    pub(super) think_ms: u64,
    /// How the reply ends.
    pub(super) reason: FinishReason,
    /// A function called before the end.
    pub(super) call: Option<&'static str>,
    /// What pauses sound like, that they are the end, and how long it takes to say so; asked when there is one.
    pub(super) finished: VecDeque<(Option<f32>, u64)>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            heard: VecDeque::new(),
            reply: vec![("One two three.", 600), (" Four five six.", 600)],
            think_ms: 50,
            reason: FinishReason::Stop,
            call: None,
            finished: VecDeque::new(),
        }
    }
}

pub(super) struct Stage {
    pub(super) session: Session,
    pub(super) script: Script,
    pub(super) log: String,
    pub(super) closed: bool,
    pub(super) snapshots: Vec<Option<Snapshot>>,
    /// Time in milliseconds.
    now: u64,
    /// Input so far, in samples.
    input: u64,
    coming: VecDeque<(u64, Input)>,
    speech: Option<(u64, TurnId, u64, u64)>,
}

impl Stage {
    pub(super) fn new(setup: Setup, script: Script) -> Self {
        let mut settings = settings();
        settings.timing.judge_after = (!script.finished.is_empty()).then_some(Duration::from_millis(200));
        let session = Session::open(setup, &capabilities(), settings, MediaTime::ZERO).unwrap();
        let mut stage = Self {
            session,
            script,
            log: String::new(),
            closed: false,
            snapshots: Vec::new(),
            now: 0,
            input: 0,
            coming: VecDeque::new(),
            speech: None,
        };
        stage.drain();
        stage.log.clear();
        stage
    }

    /// The user speaks (or the detector takes something for speech) for about as long.
    pub(super) fn speak(&mut self, ms: u64) -> &mut Self {
        self.windows(ms, 0.9)
    }

    /// The microphone hears nothing.
    pub(super) fn quiet(&mut self, ms: u64) -> &mut Self {
        self.windows(ms, 0.02)
    }

    fn windows(&mut self, ms: u64, probability: f32) -> &mut Self {
        for _ in 0..ms / 32 {
            self.pass(32);
            let (from, to) = (InputSamples(self.input), InputSamples(self.input + 512));
            self.input += 512;
            self.take(Input::Received { until: to });
            self.take(Input::Voice { probability, from, to });
        }
        self
    }

    /// Nothing arrives.
    pub(super) fn pass(&mut self, ms: u64) -> &mut Self {
        let until = self.now + ms;
        loop {
            let due = match self.session.poll_output() {
                Output::Wait(due) => due.as_nanos().div_ceil(1_000_000),
                other => panic!("not drained: {other:?}"),
            };
            let event = self.coming.front().map_or(u64::MAX, |(at, _)| *at);
            let next = due.min(event).max(self.now);
            if next > until {
                break;
            }
            self.now = next;
            if event <= next {
                let (_, input) = self.coming.pop_front().unwrap();
                self.take(input);
            } else {
                self.take(Input::Tick);
                if let Output::Wait(again) = self.session.poll_output() {
                    assert!(again > MediaTime::from_millis(self.now), "a deadline that has passed is asked for again");
                }
            }
        }
        self.now = until;
        self
    }

    pub(super) fn take(&mut self, input: Input) -> &mut Self {
        self.session.handle_input(MediaTime::from_millis(self.now), input);
        self.drain();
        self
    }

    pub(super) fn event(&mut self, event: Event) -> &mut Self {
        self.take(Input::Engine(event))
    }

    /// What was logged since the last call.
    pub(super) fn lines(&mut self) -> String {
        self.flush_speech();
        std::mem::take(&mut self.log)
    }

    pub(super) fn expect(&mut self, want: &str) -> &mut Self {
        let got = self.lines();
        let want: String = want
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .fold(String::new(), |all, line| all + line + "\n");
        assert!(got == want, "got\n{got}\nnot\n{want}");
        self
    }

    /// The history, an entry a line.
    pub(super) fn history(&self) -> String {
        self.session.history().fold(String::new(), |mut all, item| {
            let content: Vec<String> = item
                .content
                .iter()
                .map(|content| match content {
                    Content::Text(text) => text.clone(),
                    Content::Picture(picture) => format!("{picture:?}"),
                    Content::ToolCall(call) => format!("{}({})", call.name, call.arguments),
                    Content::ToolResult { value, .. } => value.clone(),
                })
                .collect();
            writeln!(all, "{:?}: {}", item.role, content.join(" ")).unwrap();
            all
        })
    }

    fn drain(&mut self) {
        loop {
            match self.session.poll_output() {
                Output::Wait(_) => return,
                Output::Engine(request) => {
                    let line = describe(&request);
                    self.line('|', &line);
                    self.perform(request);
                }
                Output::Judge { from, until } => {
                    self.line('|', &format!("judge {}..{}", from.0 / 16, until.0 / 16));
                    if let Some((probability, after)) = self.script.finished.pop_front() {
                        self.later(after, Input::Completion { until, probability });
                    }
                }
                Output::Client(ServerEvent::Audio { turn, start, pcm }) => self.hear(turn, start.0, pcm.len() as u64),
                Output::Snapshot(snapshot) => self.snapshots.push(snapshot.map(|snapshot| *snapshot)),
                Output::RunTool(call) => self.line('|', &format!("run {}", call.id)),
                Output::StopTool(id) => self.line('|', &format!("stop {id}")),
                Output::Client(event) => {
                    let line = tell(&event);
                    self.line('>', &line);
                }
                Output::Close(result) => {
                    self.closed = true;
                    self.line('>', &format!("close {:?}", result.map_err(|problem| problem.message)));
                    return;
                }
            }
        }
    }

    fn line(&mut self, to: char, line: &str) {
        self.flush_speech();
        writeln!(self.log, "{} {to} {line}", self.now).unwrap();
    }

    fn hear(&mut self, turn: TurnId, start: u64, samples: u64) {
        match &mut self.speech {
            Some((_, same, _, until)) if *same == turn && *until == start => *until += samples,
            _ => {
                self.flush_speech();
                self.speech = Some((self.now, turn, start, start + samples));
            }
        }
    }

    fn flush_speech(&mut self) {
        if let Some((at, turn, from, until)) = self.speech.take() {
            writeln!(self.log, "{at} > speech {} {}..{}", turn.0, from / 24, until / 24).unwrap();
        }
    }

    /// The engine's part.
    fn perform(&mut self, request: Request) {
        match request {
            Request::Commit { turn, .. } | Request::Start { turn, cause: Cause::Utterance { .. }, .. } => {
                self.reply(turn, true);
            }
            Request::Start { turn, cause: Cause::History, .. } => self.reply(turn, false),
            Request::Cancel { turn, heard_until, .. } => {
                let spoken = self.script.reply.iter().scan(0, |ms, (text, length)| {
                    *ms += length;
                    Some((*ms, text.len()))
                });
                let text_until = spoken.filter(|(ms, _)| ms * 24 <= heard_until.0).map(|(_, bytes)| bytes).sum();
                self.coming.retain(|(_, input)| !matches!(input, Input::Engine(event) if of(event) == Some(turn)));
                let usage = Usage { response_text: 1, ..Usage::default() };
                self.schedule(1, Event::Truncated { turn, text_until, usage });
            }
            _ => {}
        }
    }

    fn reply(&mut self, turn: TurnId, spoken: bool) {
        let think = self.script.think_ms;
        let mut at = 0;
        if spoken {
            at += think;
            let text = self.script.heard.pop_front().unwrap_or("What is it?");
            self.schedule(at, Event::Heard { turn, text: text.into(), language: "en".into() });
        }
        let (mut start, mut text_until) = (0, 0);
        for (text, ms) in self.script.reply.clone() {
            at += think;
            text_until += text.len();
            self.schedule(at, Event::Text { turn, delta: text.into() });
            let pcm = vec![0.1; (ms * 24) as usize];
            self.schedule(at, Event::Audio { turn, start: OutputSamples(start), pcm, text_until });
            start += ms * 24;
        }
        if let Some(name) = self.script.call.take() {
            let call = ToolCall { id: format!("call-{}", turn.0), name: name.into(), arguments: "{}".into() };
            self.schedule(at, Event::ToolCall { turn, call });
            self.schedule(at, Event::Done { turn, reason: FinishReason::ToolCalls, usage: Usage::default() });
        } else {
            let usage = Usage { response_text: 9, ..Usage::default() };
            self.schedule(at, Event::Done { turn, reason: self.script.reason, usage });
        }
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.later(after, Input::Engine(event));
    }

    fn later(&mut self, after: u64, input: Input) {
        let at = self.now + after;
        let place = self.coming.partition_point(|(before, _)| *before <= at);
        self.coming.insert(place, (at, input));
    }
}

fn of(event: &Event) -> Option<TurnId> {
    match event {
        Event::Heard { turn, .. }
        | Event::Text { turn, .. }
        | Event::Audio { turn, .. }
        | Event::ToolCall { turn, .. }
        | Event::Done { turn, .. } => Some(*turn),
        _ => None,
    }
}

fn describe(request: &Request) -> String {
    let ms = |at: &InputSamples| at.0 / 16;
    match request {
        Request::Open { .. } => "open".into(),
        Request::Close { .. } => "close".into(),
        Request::Audio { .. } => "audio".into(),
        Request::Frame { at, .. } => format!("frame {}", ms(at)),
        Request::Listen { from, .. } => format!("listen {}", ms(from)),
        Request::Ignore { .. } => "ignore".into(),
        Request::Append { items, .. } => format!("append {}", items.len()),
        Request::Propose { turn, from, until, .. } => format!("propose {} {}..{}", turn.0, ms(from), ms(until)),
        Request::Commit { turn, .. } => format!("commit {}", turn.0),
        Request::Discard { turn, .. } => format!("discard {}", turn.0),
        Request::Start { turn, cause: Cause::Utterance { from, until }, .. } => {
            format!("start {} {}..{}", turn.0, ms(from), ms(until))
        }
        Request::Start { turn, cause: Cause::History, .. } => format!("start {}", turn.0),
        Request::Credit { turn, audio_until, .. } => format!("credit {} {}", turn.0, audio_until.0 / 24),
        Request::Cancel { turn, heard_until, .. } => format!("cancel {} {}", turn.0, heard_until.0 / 24),
        Request::ToolResult { call, value, .. } => format!("result {call} {value}"),
        Request::Configure { system_instruction, tools, .. } => {
            let names = tools.iter().fold(String::new(), |all, tool| all + " " + &tool.name);
            format!("configure {system_instruction:?}{names}")
        }
        Request::Forget { before: Some(Origin::Given(index)), .. } => format!("forget before item {index}"),
        Request::Forget { before: Some(Origin::Utterance(from)), .. } => format!("forget before {}", ms(from)),
        Request::Forget { before: None, .. } => "forget nothing".into(),
    }
}

fn tell(event: &ServerEvent) -> String {
    match event {
        ServerEvent::SetupComplete(opened) => format!("setup_complete {}", opened.voice),
        ServerEvent::Audio { .. } => "audio".into(),
        ServerEvent::Text { delta } => format!("text {delta:?}"),
        ServerEvent::Thought { delta } => format!("thought {delta:?}"),
        ServerEvent::InputTranscription { text, finished } => {
            format!("heard {text:?}{}", if *finished { " finished" } else { "" })
        }
        ServerEvent::InterimTranscription { text } => format!("interim {text:?}"),
        ServerEvent::OutputTranscription { text } => format!("said {text:?}"),
        ServerEvent::SpeechStarted { at } => format!("speech_started {}", at.0 / 16),
        ServerEvent::SpeechStopped { at } => format!("speech_stopped {}", at.0 / 16),
        ServerEvent::ToolCall(calls) => format!("tool_call {}", calls[0].id),
        ServerEvent::ToolCallCancellation(ids) => format!("tool_call_cancellation {}", ids.join(" ")),
        ServerEvent::WaitingForTools => "waiting_for_tools".into(),
        ServerEvent::Grounding(grounding) => {
            let sources: Vec<&str> = grounding.sources.iter().map(|source| source.uri.as_str()).collect();
            format!("grounding {} {}", grounding.queries.join(" "), sources.join(" "))
        }
        ServerEvent::GenerationComplete => "generation_complete".into(),
        ServerEvent::WaitingForInput => "waiting_for_input".into(),
        ServerEvent::Interrupted => "interrupted".into(),
        ServerEvent::TurnComplete { reason, usage, waterfall, ran_dry } => {
            let offsets = [
                waterfall.endpoint,
                waterfall.transcript_final,
                waterfall.first_token,
                waterfall.first_audio_generated,
                waterfall.first_audio_sent,
            ];
            let offsets: Vec<String> =
                offsets.iter().map(|offset| offset.map_or("-".into(), |ms| ms.round().to_string())).collect();
            let dry = if *ran_dry > 0 { format!(" dry {ran_dry}") } else { String::new() };
            format!("turn_complete {reason:?} {} tokens, at {}{dry}", usage.response_text, offsets.join(" "))
        }
        ServerEvent::Warning(problem) => format!("warning {:?} {}: {}", problem.code, problem.field, problem.message),
    }
}
