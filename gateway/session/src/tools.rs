//! The calls that a client has been asked to make.

use std::collections::VecDeque;

use causerie_model_api::{ToolBehavior, TurnId};

/// Calls remembered, open and closed. At the bound the oldest is forgotten, and its result is one of an unknown call.
const MAX_CALLS: usize = 256;

#[derive(Default)]
pub(crate) struct Tools {
    calls: VecDeque<Call>,
}

pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) turn: TurnId,
    pub(crate) behavior: ToolBehavior,
    pub(crate) state: CallState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    Open,
    Answered,
    Cancelled,
}

impl Tools {
    pub(crate) fn add(&mut self, id: String, turn: TurnId, behavior: ToolBehavior) {
        if self.calls.len() == MAX_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { id, turn, behavior, state: CallState::Open });
    }

    pub(crate) fn find(&mut self, id: &str) -> Option<&mut Call> {
        self.calls.iter_mut().rev().find(|call| call.id == id)
    }

    /// The turn does not want its results any more: the calls that it waited for.
    pub(crate) fn cancel(&mut self, turn: TurnId) -> Vec<String> {
        let mut cancelled = Vec::new();
        for call in &mut self.calls {
            if call.turn == turn && call.state == CallState::Open && call.behavior == ToolBehavior::Blocking {
                call.state = CallState::Cancelled;
                cancelled.push(call.id.clone());
            }
        }
        cancelled
    }

    /// Whether the turn still waits for a result.
    pub(crate) fn open_in(&self, turn: TurnId) -> bool {
        self.calls
            .iter()
            .any(|call| call.turn == turn && call.state == CallState::Open && call.behavior == ToolBehavior::Blocking)
    }
}
