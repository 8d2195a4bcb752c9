//! The engine's logic on small deterministic networks: what is heard is the number of samples, what is thought is a
//! hash of the whole prompt, and what is said is as long as its text.

use causerie_model_api::{
    Cause, Content, FinishReason, InputSamples, Item, Origin, OutputSamples, Role, Scheduling, SessionConfig, Thinking,
    ToolBehavior, ToolDeclaration, TurnId,
};
use proptest::prelude::*;

use super::addressed::Choice;
use super::networks::{Heard, Spoken, User};
use super::*;

const END: u32 = 0;
const CALL: u32 = 5_000;
const YES: u32 = 5_001;
const NO: u32 = 5_002;

#[derive(Default)]
struct Toy {
    capabilities: Capabilities,
    /// Tokens run so far, for tests of what was cached.
    ran: usize,
}

#[derive(Default)]
struct Tokens(Vec<u32>);

impl Memory for Tokens {
    fn tokens(&self) -> &[u32] {
        &self.0
    }
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
    fn copy_prefix(&mut self, other: &Self, len: usize) {
        self.0 = other.0[..len].to_vec();
    }
}

fn hash(tokens: &[u32]) -> u32 {
    tokens.iter().fold(2_166_136_261, |h, t| (h ^ t).wrapping_mul(16_777_619))
}

impl Networks for Toy {
    /// Quanta left, and the transcript.
    type Hearing = (u32, String);
    type Memory = Tokens;
    type Detokenizer = ();

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    fn hear(&mut self, pcm: &[f32], _: Option<&str>, _: &[u32]) -> (u32, String) {
        let loud = pcm.iter().filter(|x| x.abs() > 0.1).count();
        (3, if loud == 0 { String::new() } else { format!("{loud} samples.") })
    }
    fn hear_step(&mut self, hearing: &mut (u32, String)) -> Option<Heard> {
        hearing.0 -= 1;
        (hearing.0 == 0).then(|| Heard { text: hearing.1.clone(), language: "en".into(), tokens: Vec::new() })
    }
    fn memory(&self) -> Tokens {
        Tokens::default()
    }
    fn prompt(
        &self,
        config: &SessionConfig,
        history: &[Item],
        user: User<'_>,
        thinks: bool,
    ) -> Result<Vec<u32>, String> {
        let names: Vec<&str> = config.tools.iter().map(|tool| tool.name.as_str()).collect();
        let mut text = format!("<{}|{}>", config.system_instruction, names.join(","));
        for item in history {
            for content in &item.content {
                text += &match content {
                    Content::Text(t) => format!("[{:?}:{t}]", item.role),
                    Content::Picture(_) => String::new(),
                    Content::ToolCall(call) => format!("[Call:{} {}]", call.name, call.arguments),
                    Content::ToolResult { name, value, .. } => format!("[Result:{name} {value}]"),
                };
            }
        }
        match user {
            User::Nothing => text += "[Model:",
            User::Open(t) => text += &format!("[User:{t}"),
            User::Closed(t) => text += &format!("[User:{t}][Model:"),
        }
        if thinks {
            text += "(";
        }
        Ok(text.chars().map(u32::from).collect())
    }
    fn think(&mut self, chunks: &mut [Chunk<'_, Tokens>]) -> Vec<Option<u32>> {
        assert!(!chunks.is_empty(), "a pass without work");
        chunks
            .iter_mut()
            .map(|c| {
                c.memory.0.extend_from_slice(c.tokens);
                self.ran += c.tokens.len();
                let draw = c.draw.as_ref()?;
                let n = draw.reply.len();
                let prompt: String = c.memory.0.iter().filter_map(|t| char::from_u32(*t)).collect();
                if draw.choice.is_some() {
                    // Speech that is short is for somebody else.
                    return Some(if prompt.contains("? 9600 ") { NO } else { YES });
                }
                // It calls the function that it has, once for each thing that is said to it.
                if prompt.contains("|f>") && n == 2 && prompt.rfind("[Result:") <= prompt.rfind("[User:") {
                    return Some(CALL);
                }
                Some(if n == 9 { END } else { 1 + hash(&c.memory.0) % 997 + if n % 4 == 3 { 1000 } else { 0 } })
            })
            .collect()
    }
    fn ends(&self, token: u32) -> bool {
        token == END
    }
    fn text(&self, (): &mut (), token: u32) -> String {
        if token == CALL {
            "\n{\"name\": \"f\", \"arguments\": {}}\n".into()
        } else if token > 1000 {
            format!(" Word{token}th.")
        } else {
            format!(" Word{token}")
        }
    }
    fn count(&self, text: &str) -> usize {
        text.chars().count()
    }
    fn addressed(&self, sentence: &str) -> Result<(Vec<u32>, Choice), String> {
        let choice = Choice { yes: vec![YES], no: vec![NO] };
        Ok((format!("for me? {sentence}").chars().map(u32::from).collect(), choice))
    }
    fn after_thought(&self) -> (&[u32], Option<&str>) {
        (&[41], None)
    }
    fn pending<'d>(&self, (): &'d ()) -> &'d [u8] {
        &[]
    }
    fn speak(&mut self, clause: &str, _: &SessionConfig, out: &mut Vec<f32>) -> Result<Spoken, String> {
        let n = clause.len() * 12_000;
        out.resize(n, 0.25);
        Ok(Spoken { words: vec![(clause.len() / 2, n / 2), (clause.len(), n)] })
    }
}

const LIMITS: Limits = Limits { sessions: 2, context: 4096, opening: 200 };
const S: SessionId = SessionId(1);

fn engine() -> Cascade<Toy> {
    let mut e = Cascade::new(Toy::default(), LIMITS);
    open(&mut e, S, "be brief");
    e
}

fn engine_with(behavior: ToolBehavior) -> Cascade<Toy> {
    engine_with_schema(behavior, r#"{"type": "object", "properties": {}}"#)
}

fn engine_with_schema(behavior: ToolBehavior, parameters: &str) -> Cascade<Toy> {
    let mut e = Cascade::new(Toy::default(), LIMITS);
    let (name, parameters) = ("f".to_owned(), parameters.to_owned());
    let tools = vec![ToolDeclaration { name, description: String::new(), parameters, behavior }];
    let config = Box::new(SessionConfig { tools, ..SessionConfig::default() });
    e.submit(Request::Open { session: S, config, history: Vec::new() }).unwrap();
    e
}

fn answer(e: &mut Cascade<Toy>, events: &[Event], value: &str) {
    for event in events {
        let Event::ToolCall { call, .. } = event else { continue };
        let (call, name, value) = (call.id.clone(), call.name.clone(), value.to_owned());
        let scheduling = Scheduling::default();
        e.submit(Request::ToolResult { session: S, call, name, value, scheduling, will_continue: false }).unwrap();
    }
}

fn history_of(e: &Cascade<Toy>) -> String {
    e.sessions[&S].opening_prompt(&e.networks).unwrap().into_iter().filter_map(char::from_u32).collect()
}

#[test]
fn a_turn_waits_for_its_call_and_goes_on_with_the_result() {
    let mut e = engine_with(ToolBehavior::Blocking);
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let mut events = settle(&mut e);
    let Some(Event::Done { reason: FinishReason::ToolCalls, .. }) = events.last() else { panic!("{events:?}") };
    let calls: Vec<_> = events.iter().filter(|e| matches!(e, Event::ToolCall { .. })).collect();
    assert!(matches!(calls[..], [Event::ToolCall { call, .. }] if call.name == "f" && call.arguments == "{}"));
    assert_eq!(settle(&mut e), [], "it waits");
    answer(&mut e, &events.clone(), "7");
    events.extend(settle(&mut e));
    let Some(Event::Done { reason: FinishReason::Stop, usage, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(usage.prompt_tools, 1, "the result has one token");
    let text = said(&events, 1);
    assert!(!text.contains(['{', '}']) && text.matches("Word").count() == 2 + 9, "{text}");
    let (first, rest) = text.split_at(text.match_indices(" Word").nth(2).unwrap().0);
    let (first, rest) = (first.trim(), rest.trim());
    let want = format!("[Model:{first}][Call:f {{}}][Result:f 7][Model:{rest}]");
    assert!(history_of(&e).contains(&want), "{} has not {want}", history_of(&e));
    let covered = events
        .iter()
        .rev()
        .find_map(|e| if let Event::Audio { text_until, .. } = e { Some(*text_until) } else { None });
    assert_eq!(covered, Some(text.len()));
    let spoken: usize = events.iter().map(|e| if let Event::Audio { pcm, .. } = e { pcm.len() } else { 0 }).sum();
    assert!(spoken > 0 && spoken <= text.len() * 12_000);
}

#[test]
fn a_call_that_violates_its_schema_is_told_to_the_model_alone() {
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}"#;
    let mut e = engine_with_schema(ToolBehavior::Blocking, schema);
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    let Some(Event::Done { reason: FinishReason::Stop, .. }) = events.last() else { panic!("{events:?}") };
    assert!(!events.iter().any(|event| matches!(event, Event::ToolCall { .. })), "{events:?}");
    assert!(!said(&events, 1).contains(['{', '}']), "{events:?}");
    assert!(history_of(&e).contains("[Call:f {}][Result:f {\"error\": \"no function has"), "{}", history_of(&e));
}

#[test]
fn a_turn_does_not_wait_for_a_call_that_does_not_block() {
    let mut e = engine_with(ToolBehavior::NonBlocking);
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    let Some(Event::Done { reason: FinishReason::Stop, .. }) = events.last() else { panic!("{events:?}") };
    assert_eq!(events.iter().filter(|e| matches!(e, Event::ToolCall { .. })).count(), 1);
    assert!(history_of(&e).contains("[Call:f {}][Result:f {\"status\""), "{}", history_of(&e));
    answer(&mut e, &events, "7");
    assert!(history_of(&e).ends_with("[Result:f 7][User:"), "{}", history_of(&e));
}

#[test]
fn an_interrupted_call_is_remembered_as_cancelled() {
    let mut e = engine_with(ToolBehavior::Blocking);
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    e.submit(Request::Cancel { session: S, turn: TurnId(1), heard_until: OutputSamples(0) }).unwrap();
    assert!(matches!(settle(&mut e)[..], [Event::Truncated { text_until: 0, .. }]));
    assert!(history_of(&e).contains("][Call:f {}][Result:f {\"error\": \"cancelled"), "{}", history_of(&e));
    answer(&mut e, &events, "late");
    assert_eq!(settle(&mut e), []);
}

fn open(e: &mut Cascade<Toy>, session: SessionId, instruction: &str) {
    let config = SessionConfig { system_instruction: instruction.into(), ..SessionConfig::default() };
    e.submit(Request::Open { session, config: Box::new(config), history: Vec::new() }).unwrap();
}

/// Steps until there is nothing to do, with a listener who hears all at once; events of `S` alone.
fn settle(e: &mut Cascade<Toy>) -> Vec<Event> {
    let mut events = settle_without_credit(e);
    let speaking = events.iter().rev().find_map(|e| match e {
        Event::Audio { turn, .. } => Some(*turn),
        _ => None,
    });
    if let Some(turn) = speaking {
        e.submit(Request::Credit { session: S, turn, audio_until: OutputSamples(u64::MAX) }).unwrap();
        events.extend(settle_without_credit(e));
    }
    events
}

/// Steps until there is nothing to do; events of `S` alone. The session has nothing that it may forget.
fn settle_without_credit(e: &mut Cascade<Toy>) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..10 {
        let (prompts, others) = rest(e).into_iter().partition(|event| matches!(event, Event::Prompt { .. }));
        let prompts: Vec<Event> = prompts;
        events.extend::<Vec<Event>>(others);
        if !prompts.iter().any(|event| matches!(event, Event::Prompt { tokens, limit, .. } if tokens > limit)) {
            return events;
        }
        e.submit(Request::Forget { session: S, before: None }).unwrap();
    }
    panic!("the engine never gives up");
}

/// Steps until there is nothing to do; events of `S` alone.
fn rest(e: &mut Cascade<Toy>) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..100_000 {
        let next = e.step(&mut |s, event| {
            if s == S {
                events.push(event);
            }
        });
        if next == Next::Idle {
            return events;
        }
    }
    panic!("the engine never rests");
}

fn audio(e: &mut Cascade<Toy>, at: u64, level: f32, samples: usize) {
    e.submit(Request::Audio { session: S, at: InputSamples(at), pcm: vec![level; samples] }).unwrap();
}

fn said(events: &[Event], turn: u64) -> String {
    let text = |e: &Event| match e {
        Event::Text { turn: t, delta } if t.0 == turn => Some(delta.clone()),
        _ => None,
    };
    events.iter().filter_map(text).collect()
}

fn start(turn: u64, from: u64, until: u64) -> Request {
    let cause = Cause::Utterance { from: InputSamples(from), until: InputSamples(until) };
    Request::Start { session: S, turn: TurnId(turn), cause }
}

#[test]
fn an_utterance_is_heard_thought_about_and_spoken() {
    let mut e = engine();
    assert_eq!(settle(&mut e), [Event::Opened]);
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    let heard = events.iter().find_map(|e| match e {
        Event::Heard { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert_eq!(heard.as_deref(), Some("16000 samples."));
    let text = said(&events, 1);
    assert_eq!(text.split_whitespace().count(), 9);
    let mut at = 0;
    let mut covered = 0;
    for event in &events {
        if let Event::Audio { start, pcm, text_until, .. } = event {
            assert_eq!(start.0, at, "speech has no gaps");
            at += pcm.len() as u64;
            assert!(*text_until >= covered);
            covered = *text_until;
        }
    }
    assert_eq!(covered, text.len(), "everything was said");
    assert!(matches!(events.last(), Some(Event::Done { reason: FinishReason::Stop, .. })));
}

#[test]
fn silence_is_not_answered() {
    let mut e = engine();
    audio(&mut e, 0, 0.0, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    assert!(events.iter().any(|e| matches!(e, Event::Done { reason: FinishReason::Empty, .. })));
    assert_eq!(said(&events, 1), "");
}

#[test]
fn a_proposed_turn_is_silent_until_committed() {
    let mut e = engine();
    audio(&mut e, 0, 0.5, 16_000);
    settle(&mut e);
    let (from, until) = (InputSamples(0), InputSamples(16_000));
    e.submit(Request::Propose { session: S, turn: TurnId(1), from, until }).unwrap();
    assert_eq!(settle(&mut e), []);
    e.submit(Request::Commit { session: S, turn: TurnId(1) }).unwrap();
    e.submit(Request::Commit { session: S, turn: TurnId(1) }).unwrap();
    let events = settle(&mut e);
    assert!(matches!(events.first(), Some(Event::Heard { .. })));
    assert_eq!(events.iter().filter(|e| matches!(e, Event::Done { .. })).count(), 1);
}

#[test]
fn credit_holds_speech_back() {
    let mut e = engine();
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle_without_credit(&mut e);
    let total = |events: &[Event]| -> u64 {
        events.iter().map(|e| if let Event::Audio { pcm, .. } = e { pcm.len() as u64 } else { 0 }).sum()
    };
    let first = total(&events);
    assert!(!events.iter().any(|e| matches!(e, Event::Done { .. })), "the toy's reply outlasts its first credit");
    assert!(first >= causerie_model_api::CREDIT_AHEAD.0);
    let audio_until = OutputSamples(u64::MAX);
    e.submit(Request::Credit { session: S, turn: TurnId(1), audio_until }).unwrap();
    let rest = settle_without_credit(&mut e);
    assert!(matches!(rest.last(), Some(Event::Done { .. })));
    assert_eq!(first + total(&rest), said(&events, 1).len() as u64 * 12_000);
}

#[test]
fn what_was_not_heard_was_not_said() {
    let mut e = engine();
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    let text = said(&events, 1);
    let half = events.iter().find_map(|e| match e {
        Event::Audio { start, pcm, text_until, .. } => Some((start.0 + pcm.len() as u64, *text_until)),
        _ => None,
    });
    let (heard, bytes) = half.unwrap();
    let heard_until = OutputSamples(heard);
    e.submit(Request::Cancel { session: S, turn: TurnId(1), heard_until }).unwrap();
    let cut = settle(&mut e);
    assert!(matches!(cut[..], [Event::Truncated { text_until, .. }] if text_until == bytes));
    let history = e.sessions[&S].opening_prompt(&e.networks).unwrap();
    let history: String = history.into_iter().filter_map(char::from_u32).collect();
    assert!(history.contains(&format!("[Model:{}]", text[..bytes].trim())), "{history}");
    e.submit(Request::Cancel { session: S, turn: TurnId(1), heard_until: OutputSamples(0) }).unwrap();
    settle(&mut e);
    let history = e.sessions[&S].opening_prompt(&e.networks).unwrap();
    let history: String = history.into_iter().filter_map(char::from_u32).collect();
    assert!(!history.contains("[Model:"), "{history}");
}

#[test]
fn a_new_conversation_finds_the_shared_prefix() {
    let mut e = engine();
    settle(&mut e);
    let before = e.networks.ran;
    open(&mut e, SessionId(2), "be brief");
    settle(&mut e);
    assert_eq!(e.networks.ran, before, "nothing to prefill");
    e.submit(Request::Close { session: S }).unwrap();
    open(&mut e, SessionId(3), "be long");
    settle(&mut e);
    assert!(e.networks.ran > before);
}

#[test]
fn limits_have_answers() {
    let mut e = engine();
    open(&mut e, SessionId(2), "");
    let config = Box::new(SessionConfig::default());
    assert_eq!(e.submit(Request::Open { session: SessionId(3), config, history: Vec::new() }), Err(Busy));
    e.submit(Request::Close { session: S }).unwrap();
    open(&mut e, S, &"x".repeat(500));
    let events = settle(&mut e);
    assert!(matches!(&events[..], [Event::Failed { turn: None, resumable: false, .. }]), "{events:?}");
    for turn in 1..10 {
        e.submit(Request::Start { session: SessionId(2), turn: TurnId(turn), cause: Cause::History }).unwrap();
    }
    settle(&mut e);
}

#[test]
fn speech_into_a_reply_is_transcribed() {
    let mut e = engine();
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle_without_credit(&mut e);
    assert!(!events.iter().any(|e| matches!(e, Event::Done { .. })), "the reply is still being made");
    e.submit(Request::Listen { session: S, from: InputSamples(16_000) }).unwrap();
    audio(&mut e, 16_000, 0.5, 12_800);
    let events = settle_without_credit(&mut e);
    let partial = events.iter().find_map(|e| match e {
        Event::Partial { stable, unstable, .. } => Some(format!("{stable}{unstable}")),
        _ => None,
    });
    assert_eq!(partial.as_deref(), Some("12800 samples."));
    e.submit(Request::Cancel { session: S, turn: TurnId(1), heard_until: OutputSamples(0) }).unwrap();
    e.submit(start(2, 16_000, 28_800)).unwrap();
    let events = settle(&mut e);
    assert!(events.iter().any(|e| matches!(e, Event::Done { turn: TurnId(2), .. })));
}

#[test]
fn a_prompt_that_does_not_fit_fails_its_turn_alone() {
    let mut e = engine();
    settle(&mut e);
    let items = vec![Item::text(Role::User, "x".repeat(LIMITS.context))];
    e.submit(Request::Append { session: S, items }).unwrap();
    e.submit(Request::Start { session: S, turn: TurnId(1), cause: Cause::History }).unwrap();
    let events = settle(&mut e);
    assert!(matches!(&events[..], [Event::Failed { turn: Some(TurnId(1)), resumable: true, .. }]), "{events:?}");
    e.submit(Request::Append { session: S, items: vec![Item::text(Role::User, "short")] }).unwrap();
    e.submit(Request::Forget { session: S, before: Some(Origin::Given(1)) }).unwrap();
    e.submit(Request::Start { session: S, turn: TurnId(2), cause: Cause::History }).unwrap();
    let events = settle(&mut e);
    assert!(matches!(events.last(), Some(Event::Done { turn: TurnId(2), .. })), "{events:?}");
}

#[test]
fn a_prompt_without_room_waits_until_the_session_forgets() {
    let mut e = engine();
    settle(&mut e);
    let long = |n: usize| Item::text(Role::User, "x".repeat(LIMITS.context / 2 + n));
    e.submit(Request::Append { session: S, items: vec![long(0), Item::text(Role::Model, "yes"), long(1)] }).unwrap();
    audio(&mut e, 0, 0.5, 9_600);
    e.submit(Request::Propose { session: S, turn: TurnId(1), from: InputSamples(0), until: InputSamples(9_600) })
        .unwrap();
    assert_eq!(rest(&mut e), [], "what is proposed has no effect outside");
    e.submit(Request::Commit { session: S, turn: TurnId(1) }).unwrap();
    let events = rest(&mut e);
    let [Event::Heard { .. }, Event::Prompt { turn: Some(TurnId(1)), tokens, limit }] = events[..] else {
        panic!("{events:?}");
    };
    assert!(tokens > limit && limit as usize <= LIMITS.context);
    e.submit(Request::Forget { session: S, before: Some(Origin::Given(2)) }).unwrap();
    let events = settle(&mut e);
    assert!(matches!(events.last(), Some(Event::Done { turn: TurnId(1), .. })), "{events:?}");
    // What is left is in the memory before somebody asks.
    e.submit(Request::Forget { session: S, before: Some(Origin::Utterance(InputSamples(0))) }).unwrap();
    rest(&mut e);
    let c = &e.sessions[&S];
    assert_eq!(c.memory.tokens(), c.opening_prompt(&e.networks).unwrap());
    assert!(!history_of(&e).contains('x'));
}

#[test]
fn what_is_not_meant_for_the_model_is_left_without_an_answer() {
    let mut e = Cascade::new(Toy::default(), LIMITS);
    let config = Box::new(SessionConfig { proactive: true, ..SessionConfig::default() });
    e.submit(Request::Open { session: S, config, history: Vec::new() }).unwrap();
    settle(&mut e);
    audio(&mut e, 0, 0.5, 9_600);
    e.submit(start(1, 0, 9_600)).unwrap();
    let events = settle(&mut e);
    let [Event::Heard { .. }, Event::Done { reason: FinishReason::NotAddressed, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    let before = e.sessions[&S].opening_prompt(&e.networks).unwrap();
    assert!(history_of(&e).contains("[User:9600 samples.]"), "it was heard all the same");
    audio(&mut e, 9_600, 0.5, 16_000);
    e.submit(start(2, 9_600, 25_600)).unwrap();
    let events = settle(&mut e);
    assert!(matches!(events.last(), Some(Event::Done { reason: FinishReason::Stop, .. })), "{events:?}");
    let c = &e.sessions[&S];
    assert!(c.memory.common_prefix(&before) > 10, "the question is not part of the conversation");
    // What is written is always for the model.
    e.submit(Request::Append { session: S, items: vec![Item::text(Role::User, "? 9600 ")] }).unwrap();
    e.submit(Request::Start { session: S, turn: TurnId(3), cause: Cause::History }).unwrap();
    let events = settle(&mut e);
    assert!(matches!(events.last(), Some(Event::Done { reason: FinishReason::Stop, .. })), "{events:?}");
}

#[test]
fn another_instruction_counts_from_the_next_reply_on() {
    let mut e = engine();
    settle(&mut e);
    let configure = |instruction: &str| Request::Configure {
        session: S,
        system_instruction: instruction.into(),
        tools: Vec::new(),
    };
    let prompt = |e: &Cascade<Toy>| -> String {
        e.sessions[&S].memory.tokens().iter().filter_map(|token| char::from_u32(*token)).collect()
    };
    e.submit(configure("quiet")).unwrap();
    settle(&mut e);
    let quiet = prompt(&e);
    assert!(quiet.contains("quiet"), "it is prefilled before anybody waits: {quiet}");
    e.submit(Request::Append { session: S, items: vec![Item::text(Role::User, "Go.")] }).unwrap();
    e.submit(Request::Start { session: S, turn: TurnId(1), cause: Cause::History }).unwrap();
    e.step(&mut |_, _| {});
    e.submit(configure("loud")).unwrap();
    let events = settle(&mut e);
    assert!(matches!(events.last(), Some(Event::Done { reason: FinishReason::Stop, .. })), "{events:?}");
    let loud = prompt(&e);
    assert!(loud.contains("loud") && loud.contains("Word"), "what was replied is in it: {loud}");
}

#[test]
fn a_long_utterance_is_settled_piecewise() {
    let mut e = engine();
    let (from, mut at) = (InputSamples(0), 0);
    e.submit(Request::Listen { session: S, from }).unwrap();
    let mut partials = 0;
    for second in 0..40 {
        let level = if second % 10 == 9 { 0.0 } else { 0.5 };
        audio(&mut e, at, level, 16_000);
        at += 16_000;
        partials += settle(&mut e).iter().filter(|e| matches!(e, Event::Partial { .. })).count();
    }
    assert!(partials > 10);
    e.submit(start(1, 0, at)).unwrap();
    let events = settle(&mut e);
    let text = events.iter().find_map(|e| match e {
        Event::Heard { text, .. } => Some(text.clone()),
        _ => None,
    });
    let samples: u64 = text.unwrap().split_whitespace().filter_map(|w| w.parse::<u64>().ok()).sum();
    assert_eq!(samples, 36 * 16_000, "every loud sample was heard once");
}

/// An engine that has heard an utterance and answered it with a thought of at most `budget` tokens.
fn thinker(budget: u32) -> (Cascade<Toy>, Vec<Event>) {
    let mut e = engine();
    let thinking = Thinking { budget: Some(budget), include_thoughts: true };
    let config = Box::new(SessionConfig { thinking, ..SessionConfig::default() });
    e.submit(Request::Close { session: S }).unwrap();
    e.submit(Request::Open { session: S, config, history: Vec::new() }).unwrap();
    audio(&mut e, 0, 0.5, 16_000);
    e.submit(start(1, 0, 16_000)).unwrap();
    let events = settle(&mut e);
    (e, events)
}

#[test]
fn the_answer_follows_from_the_whole_sentences_of_a_thought_that_is_cut() {
    // The toy's fourth and eighth words end sentences, and its ninth the thought; the last token drawn was not run.
    for (budget, follows) in [(1, 0), (3, 2), (4, 3), (5, 4), (6, 4), (7, 4), (8, 7), (9, 8), (30, 9)] {
        let (e, _) = thinker(budget);
        let tokens = &e.sessions[&S].memory.0;
        let at = |c| tokens.iter().position(|t| *t == u32::from(c)).unwrap();
        assert_eq!(at(')') - at('(') - 1, follows, "a budget of {budget}");
    }
}

#[test]
fn thoughts_are_bounded_told_apart_and_forgotten() {
    for budget in [0, 1, 4, 30] {
        let (e, events) = thinker(budget);
        let thought: String = events
            .iter()
            .filter_map(|e| if let Event::Thought { delta, .. } = e { Some(delta.as_str()) } else { None })
            .collect();
        let Some(Event::Done { usage, reason: FinishReason::Stop, .. }) = events.last() else { panic!("{events:?}") };
        // The toy ends whatever it writes after nine tokens.
        assert_eq!(usage.thoughts as usize, (budget as usize).min(9));
        assert_eq!(thought.matches("Word").count(), usage.thoughts as usize, "{thought}");
        assert_eq!(said(&events, 1).matches("Word").count(), 9, "the answer is as long as ever");
        assert!(!history_of(&e).contains('('), "{}", history_of(&e));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Proposals that are discarded, repeated or interleaved with partial transcripts leave the same words and the same
    /// history as no speculation at all.
    #[test]
    fn speculation_leaves_no_trace(
        tries in prop::collection::vec((1u64..6, any::<bool>(), 0usize..40), 0..5),
        second in 1u64..6,
        tools in any::<bool>(),
    ) {
        let engine = || if tools { engine_with(ToolBehavior::Blocking) } else { engine() };
        let settle = |e: &mut Cascade<Toy>| {
            let mut events = settle(e);
            answer(e, &events.clone(), "7");
            events.extend(settle(e));
            events
        };
        let plain = {
            let mut e = engine();
            audio(&mut e, 0, 0.5, 32_000);
            e.submit(start(100, 0, 32_000)).unwrap();
            let mut events = settle(&mut e);
            audio(&mut e, 32_000, 0.5, 16_000 * second as usize);
            e.submit(start(101, 32_000, 32_000 + 16_000 * second)).unwrap();
            events.extend(settle(&mut e));
            events
        };
        let mut e = engine();
        let mut events = Vec::new();
        e.submit(Request::Listen { session: S, from: InputSamples(0) }).unwrap();
        audio(&mut e, 0, 0.5, 32_000);
        let mut turn = 0;
        for (seconds, twice, steps) in tries {
            turn += 1;
            let until = InputSamples(seconds * 5_000);
            e.submit(Request::Propose { session: S, turn: TurnId(turn), from: InputSamples(0), until }).unwrap();
            for _ in 0..steps {
                e.step(&mut |_, event| events.push(event));
            }
            for _ in 0..=usize::from(twice) {
                e.submit(Request::Discard { session: S, turn: TurnId(turn) }).unwrap();
            }
        }
        let (from, until) = (InputSamples(0), InputSamples(32_000));
        e.submit(Request::Propose { session: S, turn: TurnId(100), from, until }).unwrap();
        e.step(&mut |_, event| events.push(event));
        events.retain(|e| !matches!(e, Event::Partial { .. } | Event::Opened | Event::Prompt { turn: None, .. }));
        prop_assert_eq!(&events, &[]);
        e.submit(Request::Commit { session: S, turn: TurnId(100) }).unwrap();
        events.extend(settle(&mut e));
        audio(&mut e, 32_000, 0.5, 16_000 * second as usize);
        e.submit(start(101, 32_000, 32_000 + 16_000 * second)).unwrap();
        events.extend(settle(&mut e));
        let words = |events: &[Event]| -> Vec<Event> {
            events
                .iter()
                .filter(|e| !matches!(e, Event::Partial { .. } | Event::Opened))
                .map(|e| match e {
                    // What was cached depends on the way; what it cost otherwise does not.
                    Event::Done { turn, reason, usage } => {
                        Event::Done { turn: *turn, reason: *reason, usage: causerie_model_api::Usage { cached: 0, ..*usage } }
                    }
                    e => e.clone(),
                })
                .collect()
        };
        prop_assert_eq!(events.iter().any(|e| matches!(e, Event::ToolCall { .. })), tools);
        prop_assert_eq!(words(&events), words(&plain));
    }
}

#[test]
fn two_conversations_do_not_change_each_other() {
    let alone = {
        let mut e = engine();
        audio(&mut e, 0, 0.5, 16_000);
        e.submit(start(1, 0, 16_000)).unwrap();
        said(&settle(&mut e), 1)
    };
    let mut e = engine();
    open(&mut e, SessionId(2), "another");
    audio(&mut e, 0, 0.5, 16_000);
    let item = Item::text(Role::User, "and me");
    e.submit(Request::Append { session: SessionId(2), items: vec![item] }).unwrap();
    e.submit(Request::Start { session: SessionId(2), turn: TurnId(1), cause: Cause::History }).unwrap();
    e.submit(start(1, 0, 16_000)).unwrap();
    let mut events = Vec::new();
    while e.step(&mut |s, event| {
        if s == S {
            events.push(event);
        }
    }) == Next::Ready
    {}
    assert_eq!(said(&events, 1), alone);
}
