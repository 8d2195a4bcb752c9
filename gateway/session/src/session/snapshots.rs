//! What a conversation is resumed from: made whenever nothing is on its way, and when the conversation is parked.
//!
//! A conversation that is resumed has the history, its client's settings, and the calls whose results are still to come.
//! It does not have the turn that made them: when the last that was waited for is answered, the history is.
//!
//! Speech under way when a stream breaks is not lost. It ends with what came of it, and the engine has [`UNDERSTANDING`]
//! to put it into words. Who was pausing is answered where the conversation goes on; who was cut off in the middle of a
//! sentence is not, and may go on with it. Speech into a reply of which it is open whether it was meant is forgotten.

use std::time::Duration;

use causerie_model_api::{Content, Item, Role, ToolBehavior, TurnId};
use causerie_units::MediaTime;

use super::{Leaving, Phase, Session, User, Verdict};
use crate::history::MAX_ITEMS;
use crate::reply::Reply;
use crate::tools::{Call, CallState};
use crate::transcript::whole_words;
use crate::{Output, PendingCall, Problem, Snapshot};

/// Snapshots are not made more often than this.
const INTERVAL: Duration = Duration::from_millis(500);

/// The turn of calls that were made before the conversation was resumed.
pub(super) const RESTORED: TurnId = TurnId(0);

/// How long the engine may take to say what was last said.
const UNDERSTANDING: Duration = Duration::from_secs(2);

/// What the model is told of a call that the server ran when the conversation broke off. It may not be safe to make it
/// again.
const LOST: &str = r#"{"error": "the function was stopped before it answered"}"#;

/// What it is told of a call of which nobody wants the result any more.
const CANCELLED: &str = r#"{"error": "cancelled, the user interrupted"}"#;

#[derive(Default)]
pub(super) struct Snapshots {
    /// The history's revision in the last one; `None` when there has to be another whatever has changed.
    made: Option<u64>,
    /// Whether the driver has one that counts.
    valid: bool,
    next: MediaTime,
}

impl Session {
    /// Takes up what was left when the conversation broke off.
    pub(super) fn restore(&mut self, calls: Vec<PendingCall>, owed: bool) {
        let waited = calls.iter().any(|call| call.behavior == ToolBehavior::Blocking);
        let mut lost = Vec::new();
        for PendingCall { id, name, behavior, server } in calls {
            if server {
                lost.push((id, name));
            } else {
                let deadline = self.now + self.rules.timing.tool_timeout;
                let state = CallState::Open;
                self.tools.add(Call { id, turn: RESTORED, behavior, state, name, deadline, server });
            }
        }
        for (id, name) in lost {
            self.result(id, name, LOST.into(), false);
        }
        let answerable = self.history().next_back().is_some_and(|item| item.role != Role::Model);
        if (owed || waited) && answerable && !self.tools.open_in(RESTORED) {
            self.start_from_history();
        }
    }

    /// The last result that a conversation was resumed with, or given up: what was waited for is answered.
    pub(super) fn restored_result(&mut self) {
        if self.tools.open_in(RESTORED) {
            return;
        }
        if self.reply.is_some() {
            self.owed = true;
        } else if self.user == User::Silent {
            self.start_from_history();
        }
    }

    /// A turn begins. Calls of before the resumption would have been cancelled by it.
    pub(super) fn forget_restored(&mut self) {
        if self.tools.open_in(RESTORED) {
            for (id, name) in self.cancel_tools(RESTORED) {
                self.result(id, name, CANCELLED.into(), false);
            }
        }
    }

    /// Makes a snapshot if there is something new in it and nothing is on its way.
    pub(super) fn snapshot(&mut self) {
        if !self.rules.resumption || self.phase == Phase::Closed {
            return;
        }
        if self.snapshot_due() <= self.now {
            self.make_snapshot();
        } else if self.snapshots.valid && self.reply.as_ref().is_some_and(|reply| !reply.waits_for_tools()) {
            self.snapshots.valid = false;
            self.snapshots.made = None;
            self.outputs.push_back(Output::Snapshot(None));
        }
    }

    /// When the next snapshot is to be made.
    pub(super) fn snapshot_due(&self) -> MediaTime {
        let changed = self.snapshots.made != Some(self.history.revision());
        let idle = self.user == User::Silent && !self.ear.candidate() && self.ending.is_none();
        let settled = !self.owed && self.deferred.is_empty();
        let waits = self.reply.as_ref().is_none_or(|reply| reply.drained() && reply.waits_for_tools());
        let live = self.rules.resumption && self.phase != Phase::Closed;
        if live && changed && idle && settled && waits && self.history.is_written() {
            self.snapshots.next
        } else {
            MediaTime::MAX
        }
    }

    pub(super) fn make_snapshot(&mut self) {
        let said = self.reply.as_ref().map(|reply| reply.text.clone()).unwrap_or_default();
        self.outputs.push_back(Output::Snapshot(Some(Box::new(self.as_it_is(&said, false)))));
        self.snapshots.made = Some(self.history.revision());
        self.snapshots.valid = true;
        self.snapshots.next = self.now + INTERVAL;
    }

    /// The conversation with `said` of the running reply, whose words stand before the calls that it waits for.
    fn as_it_is(&self, said: &str, owed: bool) -> Snapshot {
        let mut history: Vec<Item> = self.history().cloned().collect();
        let of_call = |item: &Item| {
            item.content.iter().all(|piece| !matches!(piece, Content::Text(_))) && item.role != Role::User
        };
        if !said.trim().is_empty() {
            let at = history.iter().rposition(|item| !of_call(item)).map_or(0, |at| at + 1);
            history.insert(at, Item::text(Role::Model, said.trim()));
        }
        let surplus = history.len().saturating_sub(MAX_ITEMS);
        history.drain(..surplus);
        let update = self.told.updated.then(|| self.told.update.clone());
        Snapshot { history, calls: self.tools.pending(), owed, turns: self.next_turn - 1, update }
    }

    /// The reply is finished, and then the conversation is parked.
    pub(super) fn drain(&mut self, problem: Problem) {
        if self.phase == Phase::Live {
            self.parting = Some(problem);
            self.stop_speaking();
        }
    }

    /// Parks a conversation that was to be, once nothing is on its way but results of the client.
    pub(super) fn part(&mut self) {
        let waits = self
            .reply
            .as_ref()
            .is_none_or(|reply| reply.drained() && reply.waits_for_tools() && !self.tools.server_runs(reply.turn));
        if waits
            && self.ending.is_none()
            && !self.owed
            && self.user == User::Silent
            && let Some(problem) = self.parting.take()
        {
            self.park(problem);
        }
    }

    /// The stream is over. What its user was saying is understood, if there is anything, and then it is parked.
    pub(super) fn leave(&mut self, problem: Problem) {
        let waits = self.reply.as_ref().is_some_and(|reply| reply.waits_for_tools());
        let last = match self.user {
            _ if !self.rules.resumption || waits || matches!(self.phase, Phase::Leaving(_)) => None,
            User::Speaking { from } => Some((Some((from, self.utterance_end(), None)), false)),
            User::Marked { from } => Some((Some((from, self.received, None)), false)),
            User::Pausing { from, until, proposal, verdict } => {
                let open = matches!(verdict, Verdict::Unfinished | Verdict::Awaited);
                Some((Some((from, until, proposal)), !open))
            }
            User::Waiting { from, until } => Some((Some((from, until, None)), true)),
            User::Silent | User::Overlapping { .. } => {
                let unheard = |reply: &Reply| reply.origin.is_some() && reply.heard.is_none() && !reply.shown;
                self.reply.as_deref().is_some_and(unheard).then_some((None, true))
            }
        };
        let Some((utterance, answered)) = last else { return self.park(problem) };
        let until = self.now + UNDERSTANDING;
        // An answer that was under way is owed if nothing is understood of what it answers.
        self.phase = Phase::Leaving(Leaving { until, answered, owed: self.owed || utterance.is_none() });
        self.parting = Some(problem);
        if let Some((from, until, proposal)) = utterance {
            let marked = matches!(self.user, User::Marked { .. });
            self.user = User::Silent;
            self.interrupt();
            self.answer(from, until, proposal, !marked);
        }
    }

    /// When what was last said is not waited for any more.
    pub(super) fn leaves(&self) -> Option<MediaTime> {
        if let Phase::Leaving(Leaving { until, .. }) = self.phase { Some(until) } else { None }
    }

    /// What was last said is known, if it was `understood`.
    pub(super) fn left(&mut self, understood: bool) {
        let Phase::Leaving(Leaving { answered, owed, .. }) = self.phase else { return };
        let Some(problem) = self.parting.take() else { return };
        if !(answered && understood) {
            self.reply = None;
            self.owed = owed;
        }
        self.park(problem);
    }

    /// Keeps what can be kept and ends the conversation here. Of a running reply it is what was heard; of one that
    /// nobody has heard anything of, the wish for it.
    pub(super) fn park(&mut self, problem: Problem) {
        if self.ending.is_some() {
            self.truncated(None);
        }
        let deferred = std::mem::take(&mut self.deferred);
        let mut owed = self.owed;
        let mut said = String::new();
        if let Some(reply) = self.reply.take() {
            let waits = reply.waits_for_tools() || self.tools.open_in(reply.turn);
            let until = match self.rules.text {
                true => reply.text.len(),
                false => whole_words(&reply.text, reply.playout.text_at(reply.playout.heard(self.now))),
            };
            said = reply.text[..until].to_owned();
            owed |= !waits && !reply.complete && said.trim().is_empty();
        }
        for item in deferred {
            self.history.give(item);
        }
        if self.rules.resumption && self.history.is_written() {
            let answerable = self.history().next_back().is_some_and(|item| item.role != Role::Model);
            let snapshot = self.as_it_is(&said, owed && answerable);
            self.outputs.push_back(Output::Snapshot(Some(Box::new(snapshot))));
        }
        self.close(Err(problem));
    }
}
