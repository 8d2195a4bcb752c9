//! What a client writes instead of says: text, history, tool results, and the wish to stop.

use causerie_model_api::{Content, Item, Request, Role, Scheduling, ToolBehavior, ToolCall, TurnId};

use super::Session;
use crate::history::bytes;
use crate::tools::CallState;
use crate::{ProblemCode, ServerEvent, ToolResponse};

/// Most text that one message may bring into the history.
const MAX_CONTENT_BYTES: usize = 1 << 20;

/// Most entries that wait for a running reply.
const MAX_DEFERRED: usize = 256;

impl Session {
    /// A turn of text.
    pub(super) fn realtime_text(&mut self, text: String) {
        if text.trim().is_empty() {
            return self.warn(ProblemCode::InvalidArgument, "realtime_input.text", "the text is empty");
        }
        let items = vec![Item::text(Role::User, text)];
        if self.reply.is_some() && !self.rules.interruption {
            if self.append(items, "realtime_input.text") {
                self.owed = true;
            }
            return;
        }
        self.take_turn(items, "realtime_input.text");
    }

    /// Entries for the history; with `turn_complete` they are answered, and cut off what is being said.
    pub(super) fn client_content(&mut self, items: Vec<Item>, turn_complete: bool) {
        if turn_complete {
            self.take_turn(items, "client_content.turns");
        } else {
            self.append(items, "client_content.turns");
        }
    }

    fn take_turn(&mut self, items: Vec<Item>, field: &str) {
        let last = items.last().or_else(|| self.history().next_back());
        if last.is_none_or(|item| item.role == Role::Model) {
            return self.warn(ProblemCode::InvalidArgument, field, "there is nothing to answer: say something first");
        }
        if items.iter().map(bytes).sum::<usize>() > MAX_CONTENT_BYTES {
            return self.too_much(field);
        }
        self.interrupt();
        self.append(items, field);
        self.start_from_history();
    }

    /// Puts entries behind what has been said; whether there was room.
    fn append(&mut self, items: Vec<Item>, field: &str) -> bool {
        if items.is_empty() {
            return true;
        }
        let size: usize = self.deferred.iter().chain(&items).map(bytes).sum();
        if size > MAX_CONTENT_BYTES || self.deferred.len() + items.len() > MAX_DEFERRED.max(items.len()) {
            self.too_much(field);
            return false;
        }
        // An answer begun on trial did not know of them.
        self.drop_proposal();
        self.deferred.extend(items);
        if self.reply.is_none() {
            self.release_deferred();
        }
        true
    }

    /// Hands on the entries that waited for the reply to be over.
    pub(super) fn release_deferred(&mut self) {
        if !self.deferred.is_empty() {
            let items = std::mem::take(&mut self.deferred);
            for item in &items {
                self.history.push(item.clone());
            }
            self.engine(Request::Append { session: self.id, items });
        }
    }

    fn too_much(&mut self, field: &str) {
        let message = format!("more than {MAX_CONTENT_BYTES} bytes at once do not go into the history");
        self.warn(ProblemCode::ResourceExhausted, field, message);
    }

    pub(super) fn cancel_reply(&mut self) {
        if self.reply.is_none() {
            return self.warn(ProblemCode::FailedPrecondition, "cancel", "there is no reply to cancel");
        }
        self.interrupt();
        self.after_reply();
    }

    /// The model wants a function run.
    pub(super) fn tool_call(&mut self, turn: TurnId, call: ToolCall) {
        let Some(reply) = self.running(turn) else { return };
        reply.shown = true;
        let declared = self.behaviors.iter().find(|(name, _)| *name == call.name);
        let behavior = declared.map_or(ToolBehavior::Blocking, |(_, behavior)| *behavior);
        self.tools.add(call.id.clone(), turn, behavior);
        self.history.push(Item { role: Role::Model, content: vec![Content::ToolCall(call.clone())] });
        self.client(ServerEvent::ToolCall(vec![call]));
    }

    pub(super) fn tool_responses(&mut self, responses: Vec<ToolResponse>) {
        for response in responses {
            self.tool_response(response);
        }
    }

    fn tool_response(&mut self, response: ToolResponse) {
        let ToolResponse { id, name, response: value, scheduling, will_continue } = response;
        let field = "tool_response.function_responses.id";
        if value.len() > MAX_CONTENT_BYTES {
            return self.too_much("tool_response.function_responses.response");
        }
        let (turn, behavior) = match self.tools.find(&id) {
            None => return self.warn(ProblemCode::InvalidArgument, field, format!("no call has the id {id:?}")),
            Some(call) if call.state == CallState::Answered => {
                return self.warn(ProblemCode::FailedPrecondition, field, format!("{id:?} was answered before"));
            }
            Some(call) if call.state == CallState::Cancelled => {
                return self.warn(ProblemCode::FailedPrecondition, field, format!("{id:?} was cancelled"));
            }
            Some(call) => {
                if !will_continue {
                    call.state = CallState::Answered;
                }
                (call.turn, call.behavior)
            }
        };
        self.history.push(Item {
            role: Role::Tool,
            content: vec![Content::ToolResult { call: id.clone(), name: name.clone(), value: value.clone() }],
        });
        self.drop_proposal();
        self.engine(Request::ToolResult { session: self.id, call: id, name, value, scheduling, will_continue });
        // The turn that waits for it goes on by itself.
        if let Some(reply) = self.reply.as_deref_mut().filter(|reply| reply.turn == turn && reply.waits_for_tools()) {
            reply.alive = self.now;
            if !self.tools.open_in(turn) {
                reply.done = None;
            }
            return;
        }
        if behavior == ToolBehavior::Blocking || scheduling == Scheduling::Silent {
            return;
        }
        if scheduling == Scheduling::Interrupt {
            self.interrupt();
        }
        if self.reply.is_some() {
            self.owed = true;
        } else {
            self.start_from_history();
        }
    }
}
