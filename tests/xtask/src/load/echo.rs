//! An engine that costs nothing: in a turn that was asked for in writing, it says what it hears.
//!
//! Every piece of input becomes one piece of speech of the same duration and the same loudness, so that a caller who
//! sends frames of one constant value each finds them again one by one.

use std::collections::HashMap;

use causerie_model_api::{
    Busy, Capabilities, Cause, Engine, Event, INPUT_RATE, Next, OUTPUT_RATE, OutputSamples, Request, SessionId, TurnId,
    Usage,
};
use causerie_tests::scripted;

pub(super) struct Echo {
    capabilities: Capabilities,
    conversations: HashMap<SessionId, Conversation>,
    out: Vec<(SessionId, Event)>,
}

#[derive(Default)]
struct Conversation {
    turn: Option<TurnId>,
    said: u64,
}

impl Echo {
    pub(super) fn new() -> Self {
        Self { capabilities: scripted::capabilities(), conversations: HashMap::new(), out: Vec::new() }
    }
}

impl Engine for Echo {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn submit(&mut self, request: Request) -> Result<(), Busy> {
        let session = request.session();
        match request {
            Request::Open { .. } => {
                self.conversations.insert(session, Conversation::default());
                self.out.push((session, Event::Opened));
            }
            Request::Close { .. } => drop(self.conversations.remove(&session)),
            Request::Start { turn, cause: Cause::History, .. } => {
                if let Some(conversation) = self.conversations.get_mut(&session) {
                    *conversation = Conversation { turn: Some(turn), said: 0 };
                }
            }
            Request::Cancel { turn, .. } => {
                if let Some(conversation) = self.conversations.get_mut(&session) {
                    conversation.turn = None;
                    self.out.push((session, Event::Truncated { turn, text_until: 0, usage: Usage::default() }));
                }
            }
            Request::Audio { pcm, .. } => {
                if let Some(Conversation { turn: Some(turn), said }) = self.conversations.get_mut(&session) {
                    // A piece is one frame, and a frame is one value.
                    let value = pcm.first().copied().unwrap_or_default();
                    let pcm = vec![value; pcm.len() * OUTPUT_RATE as usize / INPUT_RATE as usize];
                    let start = OutputSamples(*said);
                    *said += pcm.len() as u64;
                    self.out.push((session, Event::Audio { turn: *turn, start, pcm, text_until: 0 }));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, out: &mut dyn FnMut(SessionId, Event)) -> Next {
        for (session, event) in self.out.drain(..) {
            out(session, event);
        }
        Next::Idle
    }
}
