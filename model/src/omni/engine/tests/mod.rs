//! The engine over the tiny checkpoint: what it says is noise, but how it says it is not.

mod company;
mod conversations;
mod device;
mod early;
mod options;
mod sight;
mod tools;

use causerie_model_api::{
    Cause, Engine as _, Event, InputSamples, Item, Modality, Next, OutputSamples, Request, Role, Sampling,
    SessionConfig, SessionId, TurnId,
};

use super::{Loudest, OmniEngine, Options};
use crate::omni::tests::tiny;

const S: SessionId = SessionId(1);
/// Samples of the first frame of a stream, and of every later one.
const FIRST_FRAME: usize = 1_365;
const FRAME: usize = 1_920;

fn engine(sessions: usize) -> OmniEngine {
    OmniEngine::load(&options(sessions)).unwrap()
}

fn options(sessions: usize) -> Options {
    Options { threads: 1, sessions, context: 256, ..Options::new(tiny()) }
}

fn config(seed: u64) -> SessionConfig {
    let sampling = Sampling { seed: Some(seed), ..Sampling::default() };
    SessionConfig { system_instruction: "be brief".into(), sampling, ..SessionConfig::default() }
}

fn open(e: &mut OmniEngine, session: SessionId, config: SessionConfig) {
    e.submit(Request::Open { session, config: Box::new(config), history: Vec::new() }).unwrap();
}

fn say(e: &mut OmniEngine, session: SessionId, turn: u64, words: &str) {
    e.submit(Request::Append { session, items: vec![Item::text(Role::User, words)] }).unwrap();
    e.submit(Request::Start { session, turn: TurnId(turn), cause: Cause::History }).unwrap();
}

/// A tone of that many samples, from the session's sample `at` on.
fn tone(e: &mut OmniEngine, session: SessionId, at: u64, samples: u64) {
    let pcm = (at..at + samples).map(|i| (i as f32 * 0.11).sin() * 0.3).collect();
    e.submit(Request::Audio { session, at: InputSamples(at), pcm }).unwrap();
}

/// One step; the events of all sessions.
fn step(e: &mut OmniEngine) -> (Next, Vec<(SessionId, Event)>) {
    let mut events = Vec::new();
    let next = e.step(&mut |session, event| events.push((session, event)));
    (next, events)
}

/// Steps until there is nothing to do; the events of `S`.
fn settle(e: &mut OmniEngine) -> Vec<Event> {
    settle_all(e).into_iter().filter(|(session, _)| *session == S).map(|(_, event)| event).collect()
}

/// Steps until there is nothing to do. No session has anything that it may forget.
fn settle_all(e: &mut OmniEngine) -> Vec<(SessionId, Event)> {
    let mut events = Vec::new();
    for _ in 0..10_000 {
        let (mut next, more) = step(e);
        for (session, event) in more {
            match event {
                Event::Prompt { tokens, limit, .. } if tokens <= limit => {}
                Event::Prompt { .. } => {
                    e.submit(Request::Forget { session, before: None }).unwrap();
                    next = Next::Ready;
                }
                event => events.push((session, event)),
            }
        }
        if next == Next::Idle {
            return events;
        }
    }
    panic!("the engine never rests");
}

/// What a turn's events add up to.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    text: String,
    pcm: Vec<f32>,
    pieces: Vec<usize>,
    marks: Vec<usize>,
    done: Option<Event>,
}

fn reply(events: &[Event], id: u64) -> Reply {
    let mut reply = Reply::default();
    for event in events {
        match event {
            Event::Text { turn, delta } if turn.0 == id => reply.text += delta,
            Event::Audio { turn, start, pcm, text_until } if turn.0 == id => {
                assert_eq!(start.0, reply.pcm.len() as u64, "speech without gaps");
                reply.pcm.extend_from_slice(pcm);
                reply.pieces.push(pcm.len());
                reply.marks.push(*text_until);
            }
            Event::Done { turn, .. } if turn.0 == id => reply.done = Some(event.clone()),
            _ => {}
        }
    }
    reply
}
