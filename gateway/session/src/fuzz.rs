//! A session driven by arbitrary bytes, with the invariants that must hold whatever they say.

use std::collections::{HashMap, HashSet};

use causerie_model_api::*;
use causerie_units::{MediaTime, SampleRate};

use crate::{
    Detection, Grounding, Input, Output, Problem, ProblemCode, ServerEvent, Session, Settings, Setup, Snapshot, Source,
    Timing, ToolResponse, TurnEnd,
};

/// Most inputs of one run.
const MAX_INPUTS: usize = 2_000;

/// Drives a session by `data`: a byte of setup, then an input for each byte or two.
///
/// # Panics
/// An invariant does not hold: a turn that was proposed and neither committed nor discarded, an event of a turn that
/// was not committed, speech with a gap or before its time, `generation_complete` in an interrupted turn, anything
/// after the end.
pub fn fuzz_session(data: &[u8]) {
    let (&kind, data) = data.split_first().unwrap_or((&0, &[]));
    let mut run = Run::new(kind);
    let mut bytes = data.iter().copied();
    for _ in 0..MAX_INPUTS {
        let Some(byte) = bytes.next() else { break };
        run.step(byte, &mut bytes);
    }
    run.finish();
}

/// What the engine is told to answer and what the history says after a question with these pauses, in windows: turns
/// that were proposed and discarded left out.
#[cfg(test)]
pub(crate) fn speculate(pauses: &[u64]) -> (Vec<String>, Vec<Item>) {
    let mut run = Run::new(0);
    for pause in pauses {
        run.windows(10, 0.9);
        run.windows(*pause, 0.0);
    }
    run.windows(10, 0.9);
    run.windows(40, 0.0);
    let turns: Vec<TurnId> = run.committed.iter().copied().collect();
    for turn in &turns {
        run.take(Input::Engine(Event::Heard { turn: *turn, text: "Hello.".into(), language: "en".into() }));
        run.take(Input::Engine(Event::Text { turn: *turn, delta: "Hi.".into() }));
        let done = Event::Done { turn: *turn, reason: FinishReason::Stop, usage: Usage::default() };
        run.take(Input::Engine(done));
    }
    (run.told, run.session.history().cloned().collect())
}

/// A session of its own setup, at a time in nanoseconds.
fn open(setup: Setup, now: u64) -> Session {
    let capabilities = Capabilities {
        audio_in: true,
        audio_out: true,
        tools: true,
        thinking: true,
        voices: vec![Voice { name: "v".into(), language: "en-US".into(), gender: "female".into() }],
        ..Capabilities::default()
    };
    let settings = Settings { id: SessionId(1), name: String::new(), model: String::new(), timing: Timing::default() };
    Session::open(setup, &capabilities, settings, MediaTime::from_nanos(now)).expect("the setup is valid")
}

/// Whether a conversation of so many typed turns can be compared with one that is resumed from its end.
#[cfg(test)]
pub(crate) fn resumes(kind: u8, turns: u64) -> bool {
    let mut run = Run::new(kind);
    for _ in 0..turns {
        let items = vec![Item::text(Role::User, "Hello.")];
        run.take(Input::ClientContent { items, turn_complete: true });
        let turn = run.latest;
        run.take(Input::Engine(Event::Text { turn, delta: "Hi.".into() }));
        run.take(Input::Engine(Event::Done { turn, reason: FinishReason::Stop, usage: Usage::default() }));
        run.pass(1_000);
    }
    run.resume()
}

struct Run {
    session: Session,
    now: u64,
    input: u64,
    proposed: HashSet<TurnId>,
    committed: HashSet<TurnId>,
    settled: HashSet<TurnId>,
    latest: TurnId,
    spoken: HashMap<TurnId, u64>,
    sent: HashMap<TurnId, (u64, u64)>,
    generation_complete: bool,
    interrupted: u32,
    closed: bool,
    told: Vec<String>,
    /// The last pause that was asked about.
    asked: InputSamples,
    setup: Setup,
    /// What the conversation can be resumed from now.
    moment: Option<Snapshot>,
    /// Calls that the server runs.
    running: Vec<String>,
    served: u32,
}

impl Run {
    fn new(kind: u8) -> Self {
        let tool = |name: &str, behavior| ToolDeclaration {
            name: name.into(),
            description: String::new(),
            parameters: "{}".into(),
            behavior,
        };
        let setup = Setup {
            modality: if kind & 1 == 0 { Modality::Audio } else { Modality::Text },
            interruption: kind & 2 == 0,
            detection: Detection { disabled: kind & 4 != 0, ..Detection::default() },
            covers_all_input: kind & 8 != 0,
            input_transcription: true,
            output_transcription: kind & 16 == 0,
            interim_transcription: kind & 32 != 0,
            thinking: Thinking { budget: None, include_thoughts: true },
            tools: vec![tool("block", ToolBehavior::Blocking), tool("free", ToolBehavior::NonBlocking)],
            resumption: kind & 64 == 0,
            server_tools: vec![tool("serve", ToolBehavior::Blocking)],
            ..Setup::default()
        };
        let mut run = Self {
            session: open(setup.clone(), 0),
            now: 0,
            input: 0,
            proposed: HashSet::new(),
            committed: HashSet::new(),
            settled: HashSet::new(),
            latest: TurnId(0),
            spoken: HashMap::new(),
            sent: HashMap::new(),
            generation_complete: false,
            interrupted: 0,
            closed: false,
            told: Vec::new(),
            asked: InputSamples(0),
            setup,
            moment: None,
            running: Vec::new(),
            served: 0,
        };
        run.drain();
        run
    }

    /// One input, chosen by `byte` and the bytes after it.
    fn step(&mut self, byte: u8, bytes: &mut impl Iterator<Item = u8>) {
        let more = bytes.next().unwrap_or(0);
        // Mostly the turn that is latest, now and then another.
        let turn = if more & 0xc0 == 0xc0 { TurnId(u64::from(more & 7)) } else { self.latest };
        let text = || ["", "Hello", " there.", " stop", "…"][usize::from(more) % 5].to_owned();
        match byte % 32 {
            0..=5 => self.windows(u64::from(more % 24), 0.9),
            6..=10 => self.windows(u64::from(more % 24), 0.1),
            11 => self.windows(1, f32::from(more) / 255.0),
            12..=14 => self.pass(u64::from(more) * 8),
            15 => self.take(Input::Engine(Event::Partial {
                stable: text(),
                unstable: text(),
                until: InputSamples(self.input),
            })),
            16 => self.take(Input::Engine(Event::Heard { turn, text: text(), language: String::new() })),
            17 => self.take(Input::Engine(Event::Text { turn, delta: text() })),
            18..=20 => {
                let start = if more == 255 { 7 } else { self.spoken.get(&turn).copied().unwrap_or(0) };
                let pcm = vec![0.0; usize::from(more) * 96];
                let text_until = usize::from(more) % 40;
                if more != 255 && self.committed.contains(&turn) {
                    self.spoken.insert(turn, start + pcm.len() as u64);
                }
                self.take(Input::Engine(Event::Audio { turn, start: OutputSamples(start), pcm, text_until }));
            }
            21 => {
                let reason = [
                    FinishReason::Stop,
                    FinishReason::Empty,
                    FinishReason::ToolCalls,
                    FinishReason::MaxTokens,
                    FinishReason::NotAddressed,
                ][usize::from(more) % 5];
                self.take(Input::Engine(Event::Done { turn, reason, usage: Usage::default() }));
            }
            22 => {
                let name = ["block", "free", "serve"][usize::from(more) % 3];
                // An engine calls nothing twice under one id, which for the server's own the client cannot see.
                self.served += 1;
                let id = if name == "serve" { format!("serve-{}", self.served) } else { (more % 9).to_string() };
                let call = ToolCall { id, name: name.into(), arguments: "{}".into() };
                self.take(Input::Engine(Event::ToolCall { turn, call }));
            }
            // The server answers what it runs, and now and then what it does not.
            23 if more & 128 != 0 => {
                let id = if more & 8 == 0 { self.running.first().cloned() } else { None };
                let id = id.unwrap_or_else(|| (more % 9).to_string());
                let value = if more & 4 == 0 { "{}".into() } else { "x".repeat(usize::from(more) * 512) };
                let source = Source { uri: "https://a.example".into(), title: String::new() };
                let grounding = Grounding { queries: vec![text()], sources: vec![source; usize::from(more & 3)] };
                self.running.retain(|other| *other != id);
                self.take(Input::ToolDone { id, value, grounding });
            }
            23 => self.take(Input::ToolResponse(vec![ToolResponse {
                id: (more % 9).to_string(),
                name: "block".into(),
                response: "{}".into(),
                scheduling: [Scheduling::Silent, Scheduling::WhenIdle, Scheduling::Interrupt][usize::from(more) % 3],
                will_continue: more & 64 != 0,
            }])),
            24 => {
                let items = if more & 2 == 0 { vec![Item::text(Role::User, text())] } else { Vec::new() };
                self.take(Input::ClientContent { items, turn_complete: more & 1 == 0 });
            }
            25 => self.take(Input::RealtimeText(text())),
            26 => self.take(if more & 1 == 0 { Input::ActivityStart } else { Input::ActivityEnd }),
            27 => self.take(if more & 1 == 0 { Input::AudioStreamEnd } else { Input::CancelReply }),
            28 => self.take(Input::Played { until: OutputSamples(u64::from(more) << (more & 31)) }),
            29 => self.take(Input::Engine(Event::Truncated {
                turn,
                text_until: usize::from(more),
                usage: Usage::default(),
            })),
            30 if more > 250 => self.take(Input::HalfClose),
            30 => self.take(Input::Engine(Event::Failed {
                turn: (more != 250).then_some(turn),
                error: String::new(),
                resumable: true,
            })),
            _ => match more % 8 {
                0 => self.take(Input::Voice {
                    probability: f32::NAN,
                    from: InputSamples(u64::from(more)),
                    to: InputSamples(u64::from(more / 2)),
                }),
                1 => self.take(Input::Completion { until: InputSamples(u64::from(more)), probability: Some(0.9) }),
                // The clock jumps: back, which counts for nothing, and hours ahead.
                2 => {
                    let before = self.now.min(u64::from(more) * 1_000_000);
                    self.session.handle_input(MediaTime::from_nanos(before), Input::Tick);
                    self.drain();
                }
                3 => {
                    self.now += u64::from(more) * 600_000_000_000;
                    self.take(Input::Tick);
                }
                4 => self.take(Input::Engine(Event::Prompt {
                    turn: Some(turn).filter(|_| more & 8 != 0),
                    tokens: u32::from(more) * 100,
                    limit: if more & 16 != 0 { 10_000 } else { 100 },
                })),
                5 => {
                    let instruction = (more & 8 != 0).then(|| "Be brief.".repeat(usize::from(more)));
                    let tool = |name: &str| ToolDeclaration {
                        name: name.into(),
                        description: String::new(),
                        parameters: "{}".into(),
                        behavior: ToolBehavior::NonBlocking,
                    };
                    let tools = (more & 16 != 0).then(|| vec![tool("block"), tool("new")]);
                    self.take(Input::Update { system_instruction: instruction, tools });
                }
                answer => {
                    let answer = usize::from(answer % 2 + more / 8 * 2);
                    let probability = [Some(0.9), Some(0.1), Some(f32::NAN), None][answer % 4];
                    self.take(Input::Completion { until: self.asked, probability });
                }
            },
        }
    }

    fn windows(&mut self, count: u64, probability: f32) {
        for _ in 0..count {
            self.pass(32);
            let (from, to) = (InputSamples(self.input), InputSamples(self.input + 512));
            self.input += 512;
            self.take(Input::Received { until: to });
            self.take(Input::Voice { probability, from, to });
        }
    }

    /// Lets time pass, waking the session when it asks for it.
    fn pass(&mut self, ms: u64) {
        let until = self.now + ms * 1_000_000;
        while let Output::Wait(due) = self.session.poll_output()
            && due.as_nanos() <= until
        {
            assert!(due.as_nanos() >= self.now, "a deadline in the past");
            let before = self.now;
            self.now = self.now.max(due.as_nanos());
            self.take(Input::Tick);
            let again = self.session.poll_output();
            assert!(self.now > before || again != Output::Wait(due), "the session asks for a time that has come");
        }
        self.now = until;
    }

    fn take(&mut self, input: Input) {
        self.session.handle_input(MediaTime::from_nanos(self.now), input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.session.poll_output() {
                Output::Wait(_) => return,
                output => {
                    assert!(!self.closed, "{output:?} after the end");
                    self.check(output);
                }
            }
        }
    }

    fn check(&mut self, output: Output) {
        match output {
            Output::Engine(request) => {
                match &request {
                    Request::Propose { turn, from, until, .. } => {
                        assert!(from < until && until.0 <= self.input, "{request:?} reaches beyond the input");
                        assert!(self.proposed.insert(*turn), "proposed twice");
                    }
                    Request::Commit { turn, .. } => {
                        assert!(self.proposed.contains(turn) && self.settled.insert(*turn), "{request:?}");
                        self.committed.insert(*turn);
                    }
                    Request::Discard { turn, .. } => {
                        assert!(self.proposed.contains(turn) && self.settled.insert(*turn), "{request:?}");
                    }
                    Request::Start { turn, .. } => {
                        assert!(!self.proposed.contains(turn) && self.committed.insert(*turn), "{request:?}");
                    }
                    Request::Cancel { turn, heard_until, .. } => {
                        assert!(self.committed.contains(turn), "{request:?}");
                        let sent = self.sent.get(turn).map_or(0, |(_, until)| *until);
                        assert!(heard_until.0 <= sent || heard_until.0 == u64::MAX, "{heard_until:?} of {sent} sent");
                    }
                    _ => {}
                }
                if let Request::Commit { turn, .. } | Request::Start { turn, .. } = &request {
                    self.latest = *turn;
                    self.told.push("answer".into());
                } else if !matches!(request, Request::Propose { .. } | Request::Discard { .. }) {
                    // Positions and turns differ with the pauses; what is asked does not.
                    let name = format!("{request:?}");
                    self.told.push(name.split([' ', '{']).next().unwrap_or_default().to_owned());
                }
            }
            Output::Judge { from, until } => {
                assert!(from < until && until > self.asked, "asked twice about the pause before {until:?}");
                self.asked = until;
            }
            Output::Client(ServerEvent::Audio { turn, start, pcm }) => {
                assert!(self.committed.contains(&turn), "speech of an uncommitted turn");
                assert!(!pcm.is_empty() && pcm.len() <= 960);
                let (began, until) = self.sent.entry(turn).or_insert((self.now, 0));
                assert_eq!(*until, start.0, "speech with a gap");
                // Played from its first piece on, a listener has this much; no piece is further ahead than the lead.
                let played = SampleRate::HZ_24000.samples(MediaTime::from_nanos(self.now - *began).as_duration());
                *until += pcm.len() as u64;
                assert!(*until <= played + 4_800, "{until} samples had left when {played} were played");
            }
            Output::Client(ServerEvent::Text { .. } | ServerEvent::OutputTranscription { .. }) => {
                assert!(!self.committed.is_empty(), "text of no turn");
            }
            Output::Client(ServerEvent::GenerationComplete) => self.generation_complete = true,
            Output::Client(ServerEvent::Interrupted) => self.interrupted += 1,
            Output::Client(ServerEvent::TurnComplete { reason, .. }) => {
                let finished = matches!(reason, TurnEnd::Finished(reason) if !reason.is_silent());
                assert_eq!(std::mem::take(&mut self.generation_complete), finished, "{reason:?}");
                if reason == TurnEnd::Interrupted {
                    assert!(self.interrupted > 0, "the end of an interruption that was not told");
                    self.interrupted -= 1;
                }
            }
            Output::Snapshot(moment) => {
                if let Some(snapshot) = &moment {
                    let said: Vec<Item> = self.session.history().cloned().collect();
                    let calls = |items: &[Item]| {
                        let pieces = items.iter().flat_map(|item| &item.content);
                        pieces.filter(|piece| !matches!(piece, Content::Text(_))).count()
                    };
                    assert_eq!(calls(&snapshot.history), calls(&said), "calls and results are kept");
                    if snapshot.calls.is_empty() && !snapshot.owed && !self.closed {
                        self.moment = Some(*snapshot.clone());
                    }
                }
                if moment.is_none_or(|snapshot| !snapshot.calls.is_empty()) {
                    self.moment = None;
                }
            }
            Output::RunTool(call) => {
                assert_eq!(call.name, "serve", "run what is the client's");
                assert!(!self.committed.is_empty(), "run for no turn");
                self.running.push(call.id);
            }
            Output::StopTool(id) => {
                assert!(self.running.contains(&id), "stopped what does not run");
                self.running.retain(|other| *other != id);
            }
            Output::Client(ServerEvent::ToolCall(calls)) => {
                assert!(calls.iter().all(|call| call.name != "serve"), "the client is asked to run the server's");
            }
            Output::Client(ServerEvent::Grounding(grounding)) => {
                assert!(grounding.sources.len() <= 1, "a source told twice");
            }
            Output::Client(_) => {}
            Output::Close(_) => self.closed = true,
            Output::Wait(_) => {}
        }
    }

    /// A conversation that is resumed here answers as the one that goes on. Whether there was one to compare.
    fn resume(&mut self) -> bool {
        let Some(snapshot) = self.moment.take() else { return false };
        if self.closed || !self.session.history().eq(&snapshot.history) || !self.session.is_idle() {
            return false;
        }
        let mut resumed = open(self.setup.clone().resuming(snapshot), self.now);
        let answer = |session: &mut Session| {
            let mut told = Vec::new();
            let mut turn = TurnId(0);
            let mut take = |session: &mut Session, turn: &mut TurnId, ms: u64, input| {
                session.handle_input(MediaTime::from_nanos(self.now + ms * 1_000_000), input);
                loop {
                    match session.poll_output() {
                        Output::Wait(_) => break,
                        Output::Engine(Request::Start { turn: begun, .. }) => *turn = begun,
                        Output::Client(event) => told.push(format!("{event:?}")),
                        _ => {}
                    }
                }
            };
            let items = vec![Item::text(Role::User, "Go on.")];
            take(session, &mut turn, 0, Input::ClientContent { items, turn_complete: true });
            let of = turn;
            take(session, &mut turn, 1, Input::Engine(Event::Text { turn: of, delta: "I do.".into() }));
            let usage = Usage { prompt_text: 7, response_text: 3, ..Usage::default() };
            take(session, &mut turn, 2, Input::Engine(Event::Done { turn: of, reason: FinishReason::Stop, usage }));
            // What was sent before the conversation was opened anew is not sent again.
            told.retain(|event| !event.starts_with("SetupComplete"));
            (told, session.history().cloned().collect::<Vec<Item>>())
        };
        let (went_on, anew) = (answer(&mut self.session), answer(&mut resumed));
        assert_eq!(went_on, anew, "a resumed conversation goes its own way");
        self.now += 2_000_000;
        true
    }

    /// Ends the conversation: what is owed is delivered or given up, and then it is over.
    fn finish(mut self) {
        let parked = self.moment.is_some() && self.input.is_multiple_of(3);
        self.resume();
        if parked && !self.closed {
            self.take(Input::Park(Problem::new(ProblemCode::Aborted, "", "parked")));
        } else if self.input % 5 == 2 {
            self.take(Input::Leave(Problem::new(ProblemCode::Aborted, "", "left")));
        } else if self.input % 3 == 1 {
            self.take(Input::Drain(Problem::new(ProblemCode::Unavailable, "", "drained")));
        } else {
            self.take(Input::HalfClose);
        }
        for _ in 0..64 {
            self.pass(61_000);
        }
        assert!(self.closed, "the conversation does not end");
        assert_eq!(self.proposed.difference(&self.settled).count(), 0, "a proposal was left open");
    }
}
