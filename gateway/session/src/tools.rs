//! The calls that a client has been asked to make.

use std::collections::VecDeque;

use causerie_model_api::{ToolBehavior, TurnId};
use causerie_units::MediaTime;

use crate::words::PendingCall;

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
    /// The function, for an answer in its stead.
    pub(crate) name: String,
    /// When a turn that waits for it waits no longer.
    pub(crate) deadline: MediaTime,
    /// It is run by the server and not by the client.
    pub(crate) server: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallState {
    Open,
    Answered,
    Cancelled,
    /// It took too long, and the model was told so.
    Late,
}

impl Tools {
    pub(crate) fn add(&mut self, call: Call) {
        if self.calls.len() == MAX_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    pub(crate) fn find(&mut self, id: &str) -> Option<&mut Call> {
        self.calls.iter_mut().rev().find(|call| call.id == id)
    }

    /// Calls whose results are still to come.
    pub(crate) fn pending(&self) -> Vec<PendingCall> {
        let open = self.calls.iter().filter(|call| call.state == CallState::Open);
        open.map(|call| PendingCall {
            id: call.id.clone(),
            name: call.name.clone(),
            behavior: call.behavior,
            server: call.server,
        })
        .collect()
    }

    /// When the first of the calls that are waited for is late.
    pub(crate) fn deadline(&self) -> Option<MediaTime> {
        self.calls.iter().filter(|call| call.awaited()).map(|call| call.deadline).min()
    }

    /// A call that is late, closed by this.
    pub(crate) fn late(&mut self, now: MediaTime) -> Option<&Call> {
        let call = self.calls.iter_mut().find(|call| call.awaited() && call.deadline <= now)?;
        call.state = CallState::Late;
        Some(call)
    }

    /// Whether the server still runs something that the turn waits for.
    pub(crate) fn server_runs(&self, turn: TurnId) -> bool {
        self.calls.iter().any(|call| call.turn == turn && call.server && call.awaited())
    }

    /// Whether the turn waits for the client.
    pub(crate) fn client_runs(&self, turn: TurnId) -> bool {
        self.calls.iter().any(|call| call.turn == turn && !call.server && call.awaited())
    }

    /// The turn does not want its results any more: the calls that it waited for, their functions, and whether the server
    /// runs them.
    pub(crate) fn cancel(&mut self, turn: TurnId) -> Vec<(String, String, bool)> {
        let mut cancelled = Vec::new();
        for call in &mut self.calls {
            if call.turn == turn && call.state == CallState::Open && call.behavior == ToolBehavior::Blocking {
                call.state = CallState::Cancelled;
                cancelled.push((call.id.clone(), call.name.clone(), call.server));
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

impl Call {
    fn awaited(&self) -> bool {
        self.state == CallState::Open && self.behavior == ToolBehavior::Blocking
    }
}
