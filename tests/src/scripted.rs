//! An engine without weights: it hears by loudness, answers with words that say what it heard, and speaks in tones of
//! known length. Everything it does follows from what it was sent, so tests know the answer beforehand.
//!
//! - An utterance is heard as its loud milliseconds: `"loud for 320 ms"`, rounded down to [`HEARD_STEP_MS`].
//! - A reply is `"You said: …"` with what was heard or typed, one word a quantum, each word [`WORD_SAMPLES`] of a tone.
//! - Typed commands change it: `say N words` (or `long words`) makes the reply N words long, `call NAME` calls that
//!   function, `think WORDS` thinks them before it is answered, `recall` says again what the user said before, `recite`
//!   all that was said and what the engine was told, `task` says the instruction and the names of the functions, `fail`
//!   fails the turn, `panic` takes the whole engine down.
//! - A token is a word.

use std::collections::{BTreeMap, VecDeque};

use causerie_gateway::media::{Detector, DetectorStream};
use causerie_model_api::{
    Busy, CREDIT_AHEAD, Capabilities, Cause, Content, Engine, Event, FinishReason, INPUT_RATE, Item, Modality, Next,
    OUTPUT_RATE, Origin, OutputSamples, Request, Role, SessionConfig, SessionId, Thinking, ToolCall, ToolDeclaration,
    TurnId, Usage, Voice,
};

/// Length of a spoken word: 100 ms.
pub const WORD_SAMPLES: usize = OUTPUT_RATE as usize / 10;
/// What an utterance's length is rounded down to.
pub const HEARD_STEP_MS: u64 = 20;
/// Length of a long word.
pub const LONG_WORD_BYTES: usize = 1_024;
/// Pitch of the tones.
pub const TONE_HZ: f32 = 440.0;
/// Longest prompt.
pub const CONTEXT_TOKENS: u32 = 4_096;
/// A sample above this is loud.
pub const LOUD: f32 = 0.05;

/// What the engine says that it can do.
pub fn capabilities() -> Capabilities {
    Capabilities {
        engine: "scripted".into(),
        models: vec!["none".into()],
        audio_in: true,
        video_in: false,
        audio_out: true,
        thinking: true,
        tools: true,
        proactive: false,
        languages_in: vec!["en".into()],
        languages_out: vec!["en-US".into()],
        voices: vec![Voice { name: "tone".into(), language: "en-US".into(), gender: "neutral".into() }],
        context_tokens: CONTEXT_TOKENS,
    }
}

/// The engine.
pub struct Scripted {
    capabilities: Capabilities,
    sessions: BTreeMap<SessionId, Conversation>,
    max_sessions: usize,
}

struct Conversation {
    modality: Modality,
    /// The instruction, and the names of the functions.
    task: Vec<String>,
    thinking: Thinking,
    /// With where what the session gave came from.
    history: Vec<(Item, Option<Origin>)>,
    given: u64,
    /// Loudness of the input, one entry a millisecond.
    loud: Vec<bool>,
    part: Vec<f32>,
    turns: BTreeMap<TurnId, Turn>,
    /// Turns that wait for the result of a call, by its id.
    waiting: BTreeMap<String, (TurnId, Turn)>,
    out: VecDeque<Event>,
}

struct Turn {
    committed: bool,
    /// What it answers: an utterance, or the history as it is then.
    heard: Option<String>,
    begun: bool,
    words: VecDeque<String>,
    text: String,
    /// End of each spoken word: samples, bytes.
    spoken: Vec<(u64, usize)>,
    credit: OutputSamples,
    call: Option<ToolCall>,
    thoughts: u32,
}

impl Default for Scripted {
    fn default() -> Self {
        Self::new(64)
    }
}

impl Scripted {
    /// An engine with room for so many conversations.
    pub fn new(max_sessions: usize) -> Self {
        Self { capabilities: capabilities(), sessions: BTreeMap::new(), max_sessions }
    }
}

impl Engine for Scripted {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, request: Request) -> Result<(), Busy> {
        match request {
            Request::Open { session, config, history } => {
                if self.sessions.len() >= self.max_sessions {
                    return Err(Busy);
                }
                self.sessions.insert(session, Conversation::new(*config, history));
            }
            Request::Close { session } => drop(self.sessions.remove(&session)),
            other => {
                if let Some(conversation) = self.sessions.get_mut(&other.session()) {
                    conversation.take(other);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next {
        let mut next = Next::Idle;
        for (id, conversation) in &mut self.sessions {
            if conversation.work() {
                next = Next::Ready;
            }
            while let Some(event) = conversation.out.pop_front() {
                out(*id, event);
            }
        }
        next
    }
}

impl Conversation {
    fn new(config: SessionConfig, history: Vec<Item>) -> Self {
        let mut conversation = Self {
            modality: config.modality,
            task: task(config.system_instruction, config.tools),
            thinking: config.thinking,
            history: Vec::new(),
            given: 0,
            loud: Vec::new(),
            part: Vec::new(),
            turns: BTreeMap::new(),
            waiting: BTreeMap::new(),
            out: VecDeque::from([Event::Opened]),
        };
        conversation.append(history);
        conversation
    }

    fn append(&mut self, items: Vec<Item>) {
        for item in items {
            self.history.push((item, Some(Origin::Given(self.given))));
            self.given += 1;
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Audio { pcm, .. } => {
                const MS: usize = INPUT_RATE as usize / 1000;
                self.part.extend(pcm);
                let whole = self.part.len() / MS * MS;
                let loud = self.part[..whole].chunks(MS).map(|ms| ms.iter().any(|x| x.abs() > LOUD));
                self.loud.extend(loud);
                self.part.drain(..whole);
            }
            Request::Append { items, .. } => self.append(items),
            Request::Propose { turn, from, until, .. } => {
                let heard = self.hear(from.0, until.0);
                self.turns.insert(turn, Turn::new(false, Some(heard)));
            }
            Request::Commit { turn, .. } => {
                if let Some(turn) = self.turns.get_mut(&turn) {
                    turn.committed = true;
                }
            }
            Request::Discard { turn, .. } => {
                if self.turns.get(&turn).is_some_and(|t| !t.committed) {
                    self.turns.remove(&turn);
                }
            }
            Request::Start { turn, cause: Cause::Utterance { from, until }, .. } => {
                let heard = self.hear(from.0, until.0);
                self.turns.insert(turn, Turn::new(true, Some(heard)));
            }
            Request::Start { turn, cause: Cause::History, .. } => {
                self.turns.insert(turn, Turn::new(true, None));
            }
            Request::Credit { turn, audio_until, .. } => {
                if let Some(turn) = self.turns.get_mut(&turn) {
                    turn.credit = turn.credit.max(audio_until);
                }
            }
            Request::Cancel { turn, heard_until, .. } => {
                if let Some(ended) = self.turns.remove(&turn) {
                    let spoken = ended.spoken.iter().rev().find(|(samples, _)| *samples <= heard_until.0);
                    let text_until = spoken.map_or(0, |(_, bytes)| *bytes);
                    self.keep(&ended, text_until);
                    self.out.push_back(Event::Truncated { turn, text_until, usage: ended.usage() });
                }
            }
            Request::ToolResult { call, name, value, .. } => {
                if let Some((id, turn)) = self.waiting.remove(&call) {
                    self.turns.insert(id, Turn { begun: false, heard: None, ..turn });
                }
                let result = Content::ToolResult { call, name, value };
                self.history.push((Item { role: Role::Tool, content: vec![result] }, None));
            }
            Request::Configure { system_instruction, tools, .. } => self.task = task(system_instruction, tools),
            Request::Forget { before: Some(before), .. } => {
                let kept = |(_, origin): &(Item, Option<Origin>)| origin.is_some_and(|origin| origin.reaches(before));
                let keep = self.history.iter().position(kept).unwrap_or(0);
                self.history.drain(..keep);
            }
            Request::Forget { before: None, .. }
            | Request::Frame { .. }
            | Request::Open { .. }
            | Request::Close { .. }
            | Request::Listen { .. }
            | Request::Ignore { .. } => {}
        }
    }

    /// What a stretch of input says, from its loud milliseconds.
    fn hear(&self, from: u64, until: u64) -> String {
        let ms = |samples: u64| (samples / (u64::from(INPUT_RATE) / 1000)) as usize;
        let end = ms(until).min(self.loud.len());
        let loud = self.loud[ms(from).min(end)..end].iter().filter(|loud| **loud).count() as u64;
        match loud / HEARD_STEP_MS * HEARD_STEP_MS {
            0 => String::new(),
            ms => format!("loud for {ms} ms"),
        }
    }

    fn keep(&mut self, turn: &Turn, text_until: usize) {
        if text_until > 0 {
            self.history.push((Item::text(Role::Model, &turn.text[..text_until]), None));
        }
    }

    /// Does a word of the oldest committed turn. Whether there is more to do.
    fn work(&mut self) -> bool {
        let Some((&id, _)) = self.turns.iter().find(|(_, turn)| turn.committed) else { return false };
        let Some(mut turn) = self.turns.remove(&id) else { return false };
        if !turn.begun {
            self.begin(id, &mut turn);
            self.turns.insert(id, turn);
            return true;
        }
        let speaks = self.modality == Modality::Audio;
        let start = turn.spoken.last().map_or(0, |(samples, _)| *samples);
        let end = start + WORD_SAMPLES as u64;
        match turn.words.pop_front() {
            Some(word) if speaks && end > turn.credit.0 => {
                turn.words.push_front(word);
                self.turns.insert(id, turn);
                false
            }
            Some(word) => {
                if word == "fail" {
                    self.out.push_back(Event::Failed { turn: Some(id), error: "asked to".into(), resumable: true });
                    return true;
                }
                let delta = if turn.text.is_empty() { word } else { format!(" {word}") };
                turn.text.push_str(&delta);
                self.out.push_back(Event::Text { turn: id, delta });
                if speaks {
                    turn.spoken.push((end, turn.text.len()));
                    let pcm = tone(OUTPUT_RATE, start, WORD_SAMPLES);
                    let text_until = turn.text.len();
                    self.out.push_back(Event::Audio { turn: id, start: OutputSamples(start), pcm, text_until });
                }
                self.turns.insert(id, turn);
                true
            }
            None => {
                self.keep(&turn, turn.text.len());
                let (call, usage) = (turn.call.take(), turn.usage());
                let reason = match call {
                    Some(call) => {
                        let content = vec![Content::ToolCall(call.clone())];
                        self.history.push((Item { role: Role::Model, content }, None));
                        self.waiting.insert(call.id.clone(), (id, turn));
                        self.out.push_back(Event::ToolCall { turn: id, call });
                        FinishReason::ToolCalls
                    }
                    None if turn.text.is_empty() => FinishReason::Empty,
                    None => FinishReason::Stop,
                };
                self.out.push_back(Event::Done { turn: id, reason, usage });
                true
            }
        }
    }

    /// Finds out what is to be answered.
    fn begin(&mut self, id: TurnId, turn: &mut Turn) {
        turn.begun = true;
        if let Some(text) = turn.heard.clone() {
            let language = if text.is_empty() { "" } else { "en" };
            self.out.push_back(Event::Heard { turn: id, text: text.clone(), language: language.into() });
            if text.is_empty() {
                return;
            }
            self.history.push((Item::text(Role::User, text), None));
        }
        let prompt = self.recite().split_whitespace().count();
        self.out.push_back(Event::prompt(Some(id), prompt, CONTEXT_TOKENS as usize));
        let asked = self.history.iter().map(|(item, _)| item).rfind(|item| item.role != Role::Model);
        let said = match asked.map(|item| &item.content[..]) {
            Some([.., Content::Text(text)]) => text.clone(),
            Some([.., Content::ToolResult { name, value, .. }]) => format!("{name} gave {value}"),
            _ => "nothing".to_owned(),
        };
        let words: Vec<&str> = said.split_whitespace().collect();
        match words[..] {
            ["panic"] => panic!("asked to"),
            ["fail"] => turn.words.push_back("fail".into()),
            ["recall"] => {
                let users = self.history.iter().map(|(item, _)| item).filter(|item| item.role == Role::User);
                let texts = users.flat_map(|item| &item.content).filter_map(|content| match content {
                    Content::Text(text) if text != "recall" => Some(text.clone()),
                    _ => None,
                });
                turn.words.extend(texts);
            }
            ["task"] => turn.words.extend(self.task.iter().cloned()),
            ["call", name] => {
                let id = format!("call-{}", id.0);
                turn.call = Some(ToolCall { id, name: name.into(), arguments: r#"{"n":1}"#.into() });
            }
            ["think", ref thoughts @ ..] => {
                let budget = self.thinking.budget.map_or(usize::MAX, |tokens| tokens as usize);
                for thought in thoughts.iter().take(budget) {
                    self.out.push_back(Event::Thought { turn: id, delta: format!("{thought} ") });
                    turn.thoughts += 1;
                }
                turn.words.extend(["You", "said:"].into_iter().chain(words.iter().copied()).map(str::to_owned));
            }
            ["recite"] => turn.words.extend(self.recite().split_whitespace().map(str::to_owned)),
            ["say", count, "words"] => {
                turn.words.extend((1..=count.parse().unwrap_or(1)).map(|n: u32| n.to_string()));
            }
            ["say", count, "long", "words"] => {
                let word = "x".repeat(LONG_WORD_BYTES);
                turn.words.extend(std::iter::repeat_n(word, count.parse().unwrap_or(1)));
            }
            _ => turn.words.extend(["You", "said:"].into_iter().chain(words).map(str::to_owned)),
        }
    }
}

impl Conversation {
    /// What the model would be given, without the last entry: `[instruction] user: … model: …`.
    fn recite(&self) -> String {
        let before = &self.history[..self.history.len().saturating_sub(1)];
        let entries = before.iter().map(|(item, _)| {
            let words = item.content.iter().map(|content| match content {
                Content::Text(text) => text.clone(),
                Content::Picture(_) => "a picture".into(),
                Content::ToolCall(call) => format!("called {}", call.name),
                Content::ToolResult { name, value, .. } => format!("{name} gave {value}"),
            });
            let role = format!("{:?}", item.role).to_lowercase();
            format!("{role}: {}", words.collect::<Vec<_>>().join(" "))
        });
        [format!("[{}]", self.task[0])].into_iter().chain(entries).collect::<Vec<_>>().join(" ")
    }
}

fn task(instruction: String, tools: Vec<ToolDeclaration>) -> Vec<String> {
    std::iter::once(instruction).chain(tools.into_iter().map(|tool| tool.name)).collect()
}

impl Turn {
    fn new(committed: bool, heard: Option<String>) -> Self {
        Self {
            committed,
            heard,
            begun: false,
            words: VecDeque::new(),
            text: String::new(),
            spoken: Vec::new(),
            credit: CREDIT_AHEAD,
            call: None,
            thoughts: 0,
        }
    }

    fn usage(&self) -> Usage {
        let words = self.text.split_whitespace().count() as u32;
        Usage { prompt_text: 10, response_text: words, thoughts: self.thoughts, ..Usage::default() }
    }
}

/// A stretch of the tone at half amplitude, its phase counted from position 0.
pub fn tone(rate: u32, start: u64, samples: usize) -> Vec<f32> {
    (start..start + samples as u64)
        .map(|n| 0.5 * (std::f32::consts::TAU * TONE_HZ * (n % u64::from(rate)) as f32 / rate as f32).sin())
        .collect()
}

/// A detector that takes loudness for speech, in the windows of the real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoudnessDetector;

impl Detector for LoudnessDetector {
    fn stream(&self) -> Box<dyn DetectorStream> {
        Box::new(LoudnessStream { part: Vec::new(), at: 0 })
    }
}

struct LoudnessStream {
    part: Vec<f32>,
    at: u64,
}

impl DetectorStream for LoudnessStream {
    fn push(&mut self, pcm: &[f32], window: &mut dyn FnMut(f32, u64, u64)) {
        const WINDOW: usize = 512;
        self.part.extend_from_slice(pcm);
        while self.part.len() >= WINDOW {
            let loud = self.part.drain(..WINDOW).any(|x| x.abs() > LOUD);
            let to = self.at + WINDOW as u64;
            window(if loud { 1.0 } else { 0.0 }, self.at, to);
            self.at = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use causerie_model_api::InputSamples;

    fn open(modality: Modality) -> (Scripted, SessionId) {
        let session = SessionId(1);
        let mut engine = Scripted::default();
        let config = Box::new(SessionConfig { modality, ..SessionConfig::default() });
        engine.submit(Request::Open { session, config, history: Vec::new() }).expect("there is room");
        (engine, session)
    }

    fn drain(engine: &mut Scripted) -> Vec<Event> {
        let mut events = Vec::new();
        while engine.step(&mut |_, event| events.push(event)) == Next::Ready {}
        events
    }

    #[test]
    fn an_utterance_is_heard_by_its_loudness() {
        let (mut engine, session) = open(Modality::Audio);
        let pcm = [vec![0.0; 1_600], tone(INPUT_RATE, 0, 16_000), vec![0.0; 1_600]].concat();
        engine.submit(Request::Audio { session, at: InputSamples(0), pcm }).expect("taken");
        let turn = TurnId(1);
        let (from, until) = (InputSamples(0), InputSamples(19_200));
        engine.submit(Request::Propose { session, turn, from, until }).expect("taken");
        assert_eq!(drain(&mut engine), [Event::Opened], "nothing leaves before the commit");
        engine.submit(Request::Commit { session, turn }).expect("taken");
        let events = drain(&mut engine);
        assert!(matches!(&events[0], Event::Heard { text, .. } if text == "loud for 1000 ms"), "{events:?}");
        let spoken: usize = events.iter().map(|e| if let Event::Audio { pcm, .. } = e { pcm.len() } else { 0 }).sum();
        assert_eq!(spoken, 6 * WORD_SAMPLES, "You said: loud for 1000 ms");
    }

    #[test]
    fn speech_stops_where_the_credit_ends() {
        let (mut engine, session) = open(Modality::Audio);
        let items = vec![Item::text(Role::User, "say 1000 words")];
        engine.submit(Request::Append { session, items }).expect("taken");
        let turn = TurnId(1);
        engine.submit(Request::Start { session, turn, cause: Cause::History }).expect("taken");
        let spoken = |events: Vec<Event>| {
            events.iter().map(|e| if let Event::Audio { pcm, .. } = e { pcm.len() as u64 } else { 0 }).sum::<u64>()
        };
        assert_eq!(spoken(drain(&mut engine)), CREDIT_AHEAD.0);
        let audio_until = OutputSamples(CREDIT_AHEAD.0 + WORD_SAMPLES as u64);
        engine.submit(Request::Credit { session, turn, audio_until }).expect("taken");
        assert_eq!(spoken(drain(&mut engine)), WORD_SAMPLES as u64);
        let heard_until = OutputSamples(2 * WORD_SAMPLES as u64 + 1);
        engine.submit(Request::Cancel { session, turn, heard_until }).expect("taken");
        assert!(matches!(drain(&mut engine)[..], [Event::Truncated { text_until: 3, .. }]), "1 2");
    }
}
