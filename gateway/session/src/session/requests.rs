//! What a client writes instead of says: text, history, tool results, and the wish to stop.

use causerie_model_api::{Content, Item, Request, Role, Scheduling, ToolBehavior, ToolCall, ToolDeclaration, TurnId};

use super::snapshots::RESTORED;
use super::{Session, User};
use crate::history::{MAX_ITEMS, MAX_PIXEL_BYTES, bytes, pixels};
use crate::setup::{all_tools, check_room, check_tools};
use crate::tools::{Call, CallState};
use crate::{Grounding, Output, ProblemCode, ServerEvent, ToolResponse, Update};

/// Most entries that wait for a running reply.
const MAX_DEFERRED: usize = 256;

/// Longest result of a function; more would hardly fit into a context.
const MAX_RESULT_BYTES: usize = 64 * 1024;

/// Searches and sources that a client is told of one reply.
const MAX_SOURCES: usize = 32;

/// What the model is told of a longer one of the server's own.
const TOO_LONG: &str = r#"{"error": "the result is too long"}"#;

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
        if !self.fits(&items, field) {
            return;
        }
        self.forget_restored();
        self.interrupt();
        self.append(items, field);
        self.start_from_history();
    }

    /// Puts entries behind what has been said; whether there was room.
    fn append(&mut self, items: Vec<Item>, field: &str) -> bool {
        if items.is_empty() {
            return true;
        }
        if !self.fits(&items, field) {
            return false;
        }
        let crowded = self.deferred.len() + items.len() > MAX_DEFERRED.max(items.len());
        if crowded || is_too_much(self.deferred.iter().chain(&items), self.history.max_content_bytes()) {
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
                self.history.give(item.clone());
            }
            self.engine(Request::Append { session: self.id, items });
        }
    }

    /// Whether one message does not bring more than the history holds.
    fn fits(&mut self, items: &[Item], field: &str) -> bool {
        if items.len() > MAX_ITEMS {
            let message = format!("{} entries are more than {MAX_ITEMS}, the longest history", items.len());
            self.warn(ProblemCode::ResourceExhausted, field, message);
            return false;
        }
        if is_too_much(items.iter(), self.history.max_content_bytes()) {
            self.too_much(field);
            return false;
        }
        true
    }

    fn too_much(&mut self, field: &str) {
        let message = format!(
            "more than {} bytes of text or {MAX_PIXEL_BYTES} of pixels at once do not go into the history",
            self.history.max_content_bytes()
        );
        self.warn(ProblemCode::ResourceExhausted, field, message);
    }

    /// Other words about the task, from the next reply on.
    pub(super) fn update(&mut self, instruction: Option<String>, tools: Option<Vec<ToolDeclaration>>) {
        const MESSAGE: &str = "context_update";
        let instruction = instruction.unwrap_or_else(|| self.told.update.system_instruction.clone());
        let tools = tools.unwrap_or_else(|| self.told.update.tools.clone());
        let checked = check_room(MESSAGE, &instruction, &tools, self.rules.context_tokens)
            .and_then(|()| check_tools(MESSAGE, &tools, self.rules.tools));
        if let Err(problem) = checked {
            return self.client(ServerEvent::Warning(problem));
        }
        // An answer begun on trial was told otherwise.
        self.drop_proposal();
        self.told.update = Update { system_instruction: instruction.clone(), tools };
        self.told.updated = true;
        self.fixed_weight = self.told.weight();
        self.history.touch();
        let tools = all_tools(&self.told.update.tools, &self.told.server_tools);
        self.engine(Request::Configure { session: self.id, system_instruction: instruction, tools });
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
        let (behavior, server) = self.told.find(&call.name);
        let (id, name) = (call.id.clone(), call.name.clone());
        let deadline = self.now + self.rules.timing.tool_timeout;
        self.tools.add(Call { id, turn, behavior, state: CallState::Open, name, deadline, server });
        self.history.push(Item { role: Role::Model, content: vec![Content::ToolCall(call.clone())] });
        if server {
            self.outputs.push_back(Output::RunTool(call));
        } else {
            self.client(ServerEvent::ToolCall(vec![call]));
        }
    }

    /// What the turn called is not wanted any more. The calls, with their functions.
    pub(super) fn cancel_tools(&mut self, turn: TurnId) -> Vec<(String, String)> {
        let cancelled = self.tools.cancel(turn);
        let ids: Vec<String> = cancelled.iter().filter(|(.., server)| !server).map(|(id, ..)| id.clone()).collect();
        for (id, ..) in cancelled.iter().filter(|(.., server)| *server) {
            self.outputs.push_back(Output::StopTool(id.clone()));
        }
        if !ids.is_empty() {
            self.client(ServerEvent::ToolCallCancellation(ids));
        }
        cancelled.into_iter().map(|(id, name, _)| (id, name)).collect()
    }

    /// Turns do not wait for ever.
    pub(super) fn late_tools(&mut self) {
        while let Some(call) = self.tools.late(self.now) {
            let (id, name, turn, server) = (call.id.clone(), call.name.clone(), call.turn, call.server);
            if server {
                self.outputs.push_back(Output::StopTool(id.clone()));
            } else {
                self.client(ServerEvent::ToolCallCancellation(vec![id.clone()]));
            }
            let seconds = self.rules.timing.tool_timeout.as_secs();
            let message = format!("{name:?} did not answer the call {id:?} within {seconds} s");
            self.warn(ProblemCode::DeadlineExceeded, "tool_call", message);
            self.awaited_result(turn, id, name, r#"{"error": "the function did not answer in time"}"#.into(), false);
        }
    }

    /// A function that the server ran has answered.
    pub(super) fn tool_done(&mut self, id: &str, value: String, grounding: Grounding) {
        let Some(call) = self.tools.find(id).filter(|call| call.server && call.state == CallState::Open) else {
            return;
        };
        let (id, name, turn) = (call.id.clone(), call.name.clone(), call.turn);
        let too_long = value.len() > MAX_RESULT_BYTES;
        if let Some(reply) = self.reply.as_deref_mut().filter(|reply| reply.turn == turn && !too_long) {
            let Grounding { queries, sources } = &mut reply.grounding;
            let room = MAX_SOURCES - queries.len().min(MAX_SOURCES);
            queries.extend(grounding.queries.into_iter().take(room));
            for source in grounding.sources {
                if sources.len() < MAX_SOURCES && !sources.iter().any(|other| other.uri == source.uri) {
                    sources.push(source);
                }
            }
        }
        let value = if too_long { TOO_LONG.to_owned() } else { value };
        let (scheduling, will_continue) = (Scheduling::default(), false);
        self.tool_response(ToolResponse { id, name, response: value, scheduling, will_continue }, true);
    }

    pub(super) fn tool_responses(&mut self, responses: Vec<ToolResponse>) {
        for response in responses {
            self.tool_response(response, false);
        }
    }

    fn tool_response(&mut self, response: ToolResponse, from_server: bool) {
        let ToolResponse { id, name, response: value, scheduling, will_continue } = response;
        let field = "tool_response.function_responses.id";
        if value.len() > MAX_RESULT_BYTES {
            let field = "tool_response.function_responses.response";
            let message = format!("{} bytes are more than {MAX_RESULT_BYTES}; the call still waits", value.len());
            return self.warn(ProblemCode::ResourceExhausted, field, message);
        }
        let (turn, behavior) = match self.tools.find(&id).filter(|call| call.server == from_server) {
            None => return self.warn(ProblemCode::InvalidArgument, field, format!("no call has the id {id:?}")),
            Some(call) if call.state == CallState::Answered => {
                return self.warn(ProblemCode::FailedPrecondition, field, format!("{id:?} was answered before"));
            }
            Some(call) if call.state == CallState::Cancelled => {
                return self.warn(ProblemCode::FailedPrecondition, field, format!("{id:?} was cancelled"));
            }
            Some(call) if call.state == CallState::Late => {
                return self.warn(ProblemCode::FailedPrecondition, field, format!("{id:?} came too late"));
            }
            Some(call) => {
                if !will_continue {
                    call.state = CallState::Answered;
                }
                (call.turn, call.behavior)
            }
        };
        // Parts of a result may come without an end. What could be forgotten for them was.
        let crowded = self.deferred.len() >= MAX_DEFERRED
            || is_too_much(self.deferred.iter(), self.history.max_content_bytes())
            || self.history.is_full();
        if will_continue && crowded {
            return self.too_much(field);
        }
        if behavior == ToolBehavior::Blocking {
            return self.awaited_result(turn, id, name, value, will_continue);
        }
        if scheduling == Scheduling::Interrupt {
            self.interrupt();
        }
        if self.reply.is_some() {
            // It belongs behind what is being said.
            self.deferred.push(Item { role: Role::Tool, content: vec![Content::ToolResult { call: id, name, value }] });
            self.owed |= scheduling != Scheduling::Silent;
            return;
        }
        self.result(id, name, value, will_continue);
        // Who speaks now is answered with the result in mind.
        if scheduling != Scheduling::Silent && (self.user == User::Silent || scheduling == Scheduling::Interrupt) {
            self.start_from_history();
        }
    }

    /// A result that a turn waits for: the turn goes on by itself.
    fn awaited_result(&mut self, turn: TurnId, id: String, name: String, value: String, will_continue: bool) {
        self.result(id, name, value, will_continue);
        if let Some(reply) = self.reply.as_deref_mut().filter(|reply| reply.turn == turn && reply.waits_for_tools()) {
            reply.alive = self.now;
            if !self.tools.open_in(turn) {
                reply.done = None;
                reply.waiting = false;
            }
        } else if turn == RESTORED && !will_continue {
            self.restored_result();
        }
    }

    pub(super) fn result(&mut self, call: String, name: String, value: String, will_continue: bool) {
        let content = vec![Content::ToolResult { call: call.clone(), name: name.clone(), value: value.clone() }];
        self.history.push(Item { role: Role::Tool, content });
        self.drop_proposal();
        let scheduling = Scheduling::default();
        self.engine(Request::ToolResult { session: self.id, call, name, value, scheduling, will_continue });
    }
}

fn is_too_much<'i>(items: impl Iterator<Item = &'i Item> + Clone, max_content_bytes: usize) -> bool {
    items.clone().map(bytes).sum::<usize>() > max_content_bytes || items.map(pixels).sum::<usize>() > MAX_PIXEL_BYTES
}
