//! The Realtime API of OpenAI: flat JSON events, whose words are mapped onto a conversation of the contract.
//!
//! A conversation of ours is set up once, a session of theirs may be changed at any time, and so may its items. So the
//! items are kept here ([`items`]), and what changes begins the conversation anew with them as its history as soon as
//! nobody speaks: new instructions, tools, voices and formats, and items that were taken away or put between others.
//! A response with settings of its own is made the same way. What an engine hears and does not transcribe is no part
//! of such a history.
//!
//! Without turn detection the audio is collected here until the client commits it, as nothing may come of it before.
//!
//! What is wrong with an event is told by an `error` event that names it, and the session goes on. Differences that
//! clients may notice: `prefix_padding_ms` has no effect (the server keeps what it needs from before a start); detected
//! turns are always answered; a reply that is truncated while it is said goes on until the user or the client ends it, and
//! the history has it up to where the server's clock, set by the truncation, says that it was heard then.

mod config;
mod events;
mod items;
mod response;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{Buf as _, Bytes, BytesMut};
use causerie_proto::v1::{self, client_message::MessageType as ToServer, server_message::MessageType as FromServer};
use causerie_session::{Opened, Problem, ProblemCode};
use serde_json::{Value, json};

use self::config::{Config, Fields, message};
use self::events::Events;
use self::items::Items;
use self::response::{Asked, Ending, Response};
use super::{Out, Wire};
use crate::live::{Dialect, json_of_struct};
use crate::status::code_name;

/// Where clients ask.
pub(super) const PATH: &str = "/v1/realtime";

/// The model that a query names; empty for none.
pub(super) fn model_of(query: &str) -> String {
    query.split('&').find_map(|pair| pair.strip_prefix("model=")).unwrap_or_default().to_owned()
}

/// Most audio that is collected before it is answered. At the bound the oldest goes.
const MAX_COLLECTED_MS: usize = 30_000;
/// How it goes to the conversation then: in pieces of this size, a second of PCM.
const PIECE_BYTES: usize = 48_000;
/// Least audio that can be committed (the API's own limit).
const MIN_COMMITTED_MS: usize = 100;
/// Most utterances that wait for their transcripts. At the bound the oldest gets none.
const MAX_UTTERANCES: usize = 256;
/// Most text of one item, in bytes: what the history takes at once where the context is long. Where it is short, a warning
/// says that it takes less.
const MAX_ITEM_BYTES: usize = 1 << 20;
/// Longest `event_id` that is given back.
const MAX_EVENT_ID_BYTES: usize = 512;
/// Said in the user's place when a reply is asked for and there is nothing to reply to. Not kept.
const NUDGE: &str = "Go on.";

const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

/// Whether a conversation could be set up so, and as what.
pub(super) type Check = Box<dyn Fn(&v1::Setup) -> Result<Opened, Problem> + Send>;

/// Why an event has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    code: &'static str,
    param: String,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, param: &str, message: impl Into<String>) -> Self {
        Self { code, param: param.to_owned(), message: message.into() }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let code = match problem.code {
            ProblemCode::NotFound => "model_not_found",
            ProblemCode::Unimplemented => "unsupported_value",
            _ => "invalid_value",
        };
        Self { code, param: problem.field, message: problem.message }
    }
}

/// What the user says, or has said and is not yet transcribed.
struct Utterance {
    item: String,
    text: String,
    /// It is over, and its item has been told.
    over: bool,
    /// The end of the turn before its own is still to come.
    waits: bool,
    ms: u64,
}

/// A call whose answer its turn waits for.
struct Call {
    id: String,
    /// As an item.
    answer: Option<Value>,
}

/// The dialect.
pub(super) struct OpenAi {
    check: Check,
    events: Events,
    id: String,
    /// What the client has set.
    config: Config,
    /// What the conversation was begun with.
    running: Config,
    /// The conversation's history is not what the items say.
    stale: bool,
    opened: Opened,
    items: Items,
    /// Audio since the session began, in microseconds, and at the beginning of the conversation.
    heard_us: u64,
    begun_us: u64,
    /// Speech of the reply so far.
    spoken_us: u64,
    collected: BytesMut,
    /// Committed without detection, and not yet answered.
    committed: BytesMut,
    utterances: VecDeque<Utterance>,
    response: Option<Response>,
    /// An utterance is over, and nothing has been seen of its answer.
    expected: bool,
    calls: Vec<Call>,
    /// A turn was interrupted, and its end is still to come.
    interrupted: bool,
    /// What failed in the turn.
    failure: Option<String>,
    error_told: bool,
}

impl OpenAi {
    /// A session with the model that the client names.
    pub(super) fn new(model: &str, check: Check) -> Self {
        let config = Config::new(model);
        Self {
            check,
            events: Events::default(),
            id: String::new(),
            running: config.clone(),
            config,
            stale: false,
            opened: Opened::default(),
            items: Items::default(),
            heard_us: 0,
            begun_us: 0,
            spoken_us: 0,
            collected: BytesMut::new(),
            committed: BytesMut::new(),
            utterances: VecDeque::new(),
            response: None,
            expected: false,
            calls: Vec::new(),
            interrupted: false,
            failure: None,
            error_told: false,
        }
    }

    fn tell(&mut self, out: &mut Out, kind: &str, fields: Value) {
        out.frames.push(self.events.event(kind, fields));
    }

    fn error(&mut self, out: &mut Out, refusal: Refusal, event: Option<&str>) {
        let Refusal { code, param, message } = refusal;
        let param = Some(param).filter(|param| !param.is_empty());
        let event = event.filter(|id| id.len() <= MAX_EVENT_ID_BYTES);
        let error = json!({
            "type": "invalid_request_error", "code": code, "message": message, "param": param, "event_id": event});
        self.tell(out, "error", json!({"error": error}));
    }

    /// An event of the client's.
    fn event(&mut self, kind: &str, event: &Value, out: &mut Out) -> Result<(), Refusal> {
        let fields = Fields::of(event, "")?;
        match kind {
            "session.update" => self.update(fields.get("session").unwrap_or(&Value::Null), out),
            "input_audio_buffer.append" => self.append(&fields, out),
            "input_audio_buffer.commit" => self.commit(out),
            "input_audio_buffer.clear" => self.clear(out),
            "conversation.item.create" => self.create_item(&fields, out),
            "conversation.item.retrieve" => {
                let id = self.known_item(&fields, "item_retrieve_invalid_item_id")?;
                let item = self.items.get(&id).map(|item| item.json.clone());
                self.tell(out, "conversation.item.retrieved", json!({"item": item}));
                Ok(())
            }
            "conversation.item.delete" => {
                let id = self.known_item(&fields, "item_delete_invalid_item_id")?;
                self.items.remove(&id);
                self.stale = true;
                if !self.committed.is_empty() && self.utterances.iter().any(|u| u.over && u.item == id) {
                    // Committed and not yet answered. What else is committed cannot be told from it.
                    self.committed.clear();
                    self.utterances.retain(|utterance| utterance.item != id);
                }
                self.tell(out, "conversation.item.deleted", json!({"item_id": id}));
                Ok(())
            }
            "conversation.item.truncate" => self.truncate(&fields, out),
            "response.create" => {
                let none = json!({});
                let params = fields.get("response").filter(|params| !params.is_null()).unwrap_or(&none);
                self.create_response(params, out)
            }
            "response.cancel" | "output_audio_buffer.clear" => self.cancel(kind, out),
            _ => {
                let message = format!("there is no event {:?}", kind.chars().take(60).collect::<String>());
                Err(Refusal::new("invalid_value", "type", message))
            }
        }
    }

    fn update(&mut self, session: &Value, out: &mut Out) -> Result<(), Refusal> {
        let config = self.config.update(session)?;
        let opened = self.checked(&config)?;
        let detects_now = config.turns.is_some() && self.config.turns.is_none();
        if detects_now || config.input != self.config.input {
            self.collected.clear();
            self.committed.clear();
            self.untranscribed(out);
        }
        self.config = config;
        self.opened = opened;
        let session = self.config.json(&self.id, &self.opened.model, &self.opened.voice);
        self.tell(out, "session.updated", json!({"session": session}));
        Ok(())
    }

    fn checked(&self, config: &Config) -> Result<Opened, Refusal> {
        match config.setup(Vec::new())?.message_type {
            Some(ToServer::Setup(setup)) => (self.check)(&setup).map_err(Refusal::from),
            _ => Err(Refusal::new("server_error", "", "the session has no setup")),
        }
    }

    fn append(&mut self, fields: &Fields<'_>, out: &mut Out) -> Result<(), Refusal> {
        let missing = || Refusal::new("missing_required_parameter", "audio", "it is missing");
        let text = fields.text("audio")?.ok_or_else(missing)?;
        let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let wrong = |_| Refusal::new("invalid_value", "audio", "it is not base64");
        let data = Bytes::from(alphabet.decode(text).map_err(wrong)?);
        if data.is_empty() {
            return Ok(());
        }
        if self.config.turns.is_some() {
            self.heard_us += self.config.input.us(data.len());
            out.messages.push_back(self.audio(data));
            return Ok(());
        }
        self.collected.extend_from_slice(&data);
        self.forget_oldest();
        Ok(())
    }

    /// Keeps what is collected and committed within its bound.
    fn forget_oldest(&mut self) {
        let most = MAX_COLLECTED_MS * self.config.input.bytes_per_ms();
        // In whole samples.
        let excess = (self.committed.len() + self.collected.len()).saturating_sub(most).next_multiple_of(2);
        let of_committed = excess.min(self.committed.len());
        self.committed.advance(of_committed);
        self.collected.advance(excess - of_committed);
    }

    fn audio(&self, data: Bytes) -> v1::ClientMessage {
        let blob = v1::Blob { mime_type: self.config.input.mime().to_owned(), data };
        realtime(v1::RealtimeInput { audio: Some(blob), ..Default::default() })
    }

    fn commit(&mut self, out: &mut Out) -> Result<(), Refusal> {
        let ms = self.collected.len() / self.config.input.bytes_per_ms();
        if self.config.turns.is_some() {
            // What is being said is over; the detector tells the rest.
            if self.utterances.back().is_some_and(|utterance| !utterance.over) {
                let end = v1::RealtimeInput { audio_stream_end: Some(true), ..Default::default() };
                out.messages.push_back(realtime(end));
                return Ok(());
            }
        } else if ms >= MIN_COMMITTED_MS {
            self.heard_us += self.config.input.us(self.collected.len());
            self.committed.unsplit(self.collected.split());
            let item = self.events.id("item");
            let text = String::new();
            self.utterance(Utterance { item, text, over: false, waits: false, ms: ms as u64 }, out);
            self.utterance_over(out);
            return Ok(());
        }
        let message = format!(
            "Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMITTED_MS}ms of audio, \
             but buffer only has {ms}ms of audio."
        );
        Err(Refusal::new("input_audio_buffer_commit_empty", "", message))
    }

    fn utterance(&mut self, utterance: Utterance, out: &mut Out) {
        if self.utterances.len() == MAX_UTTERANCES
            && let Some(Utterance { item, .. }) = self.utterances.front()
        {
            let oldest = item.clone();
            self.transcript_complete(&oldest, out);
        }
        self.utterances.push_back(utterance);
    }

    /// The newest utterance has become an item.
    fn utterance_over(&mut self, out: &mut Out) {
        let Some(utterance) = self.utterances.back_mut() else { return };
        utterance.over = true;
        let id = utterance.item.clone();
        let before = self.items.last_id().map(str::to_owned);
        self.tell(out, "input_audio_buffer.committed", json!({"previous_item_id": before, "item_id": id}));
        let json = json!({
            "id": id, "object": "realtime.item", "type": "message", "status": "completed", "role": "user",
            "content": [{"type": "input_audio", "transcript": null}]});
        self.items.push(items::Item { id, json: json.clone(), spoken: Vec::new() });
        self.tell(out, "conversation.item.added", json!({"previous_item_id": before, "item": json}));
        self.tell(out, "conversation.item.done", json!({"previous_item_id": before, "item": json}));
    }

    fn clear(&mut self, out: &mut Out) -> Result<(), Refusal> {
        self.collected.clear();
        let speaking = self.utterances.back().is_some_and(|utterance| !utterance.over);
        if self.config.turns.is_some() && speaking && self.response.is_none() {
            // Nothing of what is being said may be left.
            self.utterances.pop_back();
            self.begin(self.running.clone(), self.items.history(), out)?;
        }
        self.tell(out, "input_audio_buffer.cleared", json!({}));
        Ok(())
    }

    fn known_item(&self, fields: &Fields<'_>, code: &'static str) -> Result<String, Refusal> {
        let id = fields.text("item_id")?.unwrap_or_default();
        match self.items.get(id) {
            Some(item) => Ok(item.id.clone()),
            None => Err(Refusal::new(code, "item_id", "there is no item with this id")),
        }
    }

    fn create_item(&mut self, fields: &Fields<'_>, out: &mut Out) -> Result<(), Refusal> {
        let value = fields.get("item").unwrap_or(&Value::Null);
        if value.to_string().len() > MAX_ITEM_BYTES {
            let message = format!("more than {MAX_ITEM_BYTES} bytes do not go into an item");
            return Err(Refusal::new("invalid_value", "item", message));
        }
        let events = &mut self.events;
        let item = self.items.read(value, || events.id("item"))?;
        let last = self.items.last_id().map(str::to_owned);
        let before = match fields.text("previous_item_id")? {
            None => last.clone(),
            Some("root") => None,
            Some(id) if self.items.get(id).is_some() => Some(id.to_owned()),
            Some(_) => {
                let message = "there is no item with this id to put another behind";
                return Err(Refusal::new("invalid_value", "previous_item_id", message));
            }
        };
        let json = item.json.clone();
        // What has no form in the contract is refused before it is an item.
        let content = match self.items.content(&json) {
            Some(content) => Some(message(json!({"clientContent": {"turns": [content]}}))?),
            None => None,
        };
        let awaited = self.calls.iter_mut().find(|call| json["call_id"] == call.id.as_str() && call.answer.is_none());
        if let Some(call) = awaited.filter(|_| json["type"] == "function_call_output") {
            // The turn that waits for it goes on when the client asks for a response.
            call.answer = Some(json.clone());
        } else if before != last || !self.calls.is_empty() {
            // A turn that waits for functions would go on without having heard of it.
            self.stale = true;
        } else {
            out.messages.extend(content);
        }
        self.items.push_behind(before.as_deref(), item);
        self.tell(out, "conversation.item.added", json!({"previous_item_id": before, "item": json}));
        self.tell(out, "conversation.item.done", json!({"previous_item_id": before, "item": json}));
        Ok(())
    }

    /// Clamped, never an error for the clock: clients count what they have played in their own way.
    fn truncate(&mut self, fields: &Fields<'_>, out: &mut Out) -> Result<(), Refusal> {
        let id = self.known_item(fields, "item_truncate_invalid_item_id")?;
        let ms = fields.number("audio_end_ms")?.unwrap_or(0.0).max(0.0) as u64;
        let assistant = self.items.get(&id).is_some_and(|item| item.json["role"] == "assistant");
        if !assistant {
            let message = "only messages of the assistant can be truncated";
            return Err(Refusal::new("invalid_value", "item_id", message));
        }
        if let Some(response) = self.response.as_mut().filter(|response| response.is_saying(&id)) {
            response.truncated_ms = Some(ms);
            // A reply goes on after a call in another message, and its sound is counted from its beginning.
            let before = (self.spoken_us / 1000).saturating_sub(response.sent_ms());
            let played_ms = i64::try_from(before.saturating_add(ms)).unwrap_or(i64::MAX);
            let progress = v1::PlaybackProgress { response_id: String::new(), played_ms };
            out.messages.push_back(v1::ClientMessage { message_type: Some(ToServer::PlaybackProgress(progress)) });
        } else {
            // Of what was interrupted the engine has no more than was heard; the rest it believes to have said.
            let whole = self.items.get(&id).is_some_and(|item| item.json["status"] == "completed");
            self.stale |= self.items.truncate(&id, ms) && whole;
        }
        self.tell(out, "conversation.item.truncated", json!({"item_id": id, "content_index": 0, "audio_end_ms": ms}));
        Ok(())
    }

    fn create_response(&mut self, params: &Value, out: &mut Out) -> Result<(), Refusal> {
        if self.response.is_some() || self.expected {
            let which = self.response.as_ref().map_or("the answer to what was just said", |response| &response.id);
            let message = format!("Conversation already has an active response in progress: {which}");
            return Err(Refusal::new("conversation_already_has_active_response", "", message));
        }
        let config = self.config.for_response(params)?;
        let fields = Fields::of(params, "response")?;
        let kept = fields.text("conversation")? != Some("none");
        let metadata = fields.get("metadata").cloned().unwrap_or(Value::Null);
        let input = fields.array("input")?;
        let input = match input {
            Some(input) => Some(self.given(input)?),
            None => None,
        };
        let own = input.is_some();
        let history = input.unwrap_or_else(|| self.items.history());
        let asks = history.last().is_some_and(|content| content["role"] != "model");
        if config != self.running || self.stale || own {
            if self.utterances.back().is_some_and(|utterance| !utterance.over) {
                let message = "the user is speaking: ask again after input_audio_buffer.speech_stopped";
                return Err(Refusal::new("conversation_already_has_active_response", "", message));
            }
            self.begin(config, history, out)?;
            self.stale = own;
        }
        // What is said beside the conversation is not to stay in it.
        self.stale |= !kept;
        let id = self.events.id("resp");
        self.response_begins(Asked { id, metadata, kept }, out);
        self.ask(asks, own, out)
    }

    /// The history that a response is made from instead of the conversation's own.
    fn given(&mut self, input: &[Value]) -> Result<Vec<Value>, Refusal> {
        let mut history = Vec::new();
        for item in input {
            let content = match (item["type"].as_str(), item["id"].as_str()) {
                (Some("item_reference"), Some(id)) => self.items.get(id).map(|item| item.json.clone()),
                _ => {
                    let events = &mut self.events;
                    let mut item = item.clone();
                    if let Some(item) = item.as_object_mut() {
                        item.remove("id");
                    }
                    Some(self.items.read(&item, || events.id("item"))?.json)
                }
            };
            history.extend(content.and_then(|json| self.items.content(&json)));
        }
        Ok(history)
    }

    /// Has the conversation answer what there is: `asks` when its history has something to answer, `own` when that is
    /// not the session's.
    fn ask(&mut self, asks: bool, own: bool, out: &mut Out) -> Result<(), Refusal> {
        if !self.calls.is_empty() {
            let responses: Vec<Value> = self
                .calls
                .drain(..)
                .map(|call| match call.answer {
                    Some(item) => items::output(&item, self.items.function_of(&call.id)),
                    None => json!({
                        "id": call.id, "name": self.items.function_of(&call.id),
                        "response": {"error": "there is no result"}}),
                })
                .collect();
            out.messages.push_back(message(json!({"toolResponse": {"functionResponses": responses}}))?);
        } else if !self.committed.is_empty() && !own {
            let mark = v1::realtime_input::ActivityStart {};
            out.messages.push_back(realtime(v1::RealtimeInput { activity_start: Some(mark), ..Default::default() }));
            let mut committed = std::mem::take(&mut self.committed).freeze();
            while !committed.is_empty() {
                let piece = committed.split_to(committed.len().min(PIECE_BYTES));
                out.messages.push_back(self.audio(piece));
            }
            let mark = v1::realtime_input::ActivityEnd {};
            out.messages.push_back(realtime(v1::RealtimeInput { activity_end: Some(mark), ..Default::default() }));
        } else {
            let nudge = json!({"role": "user", "parts": [{"text": NUDGE}]});
            let turns = if asks { json!([]) } else { json!([nudge]) };
            self.stale |= !asks;
            out.messages.push_back(message(json!({"clientContent": {"turns": turns, "turnComplete": true}}))?);
        }
        Ok(())
    }

    fn cancel(&mut self, kind: &str, out: &mut Out) -> Result<(), Refusal> {
        match &mut self.response {
            Some(response) => response.cancelled = true,
            None if self.expected => {}
            None if kind == "output_audio_buffer.clear" => return Ok(()),
            None => {
                let message = "Cancellation failed: no active response found";
                return Err(Refusal::new("response_cancel_not_active", "", message));
            }
        }
        out.messages.push_back(v1::ClientMessage { message_type: Some(ToServer::CancelReply(v1::CancelReply {})) });
        Ok(())
    }

    /// Begins the conversation anew. Of a history that is too long the oldest goes, as it does in a conversation.
    fn begin(&mut self, config: Config, mut history: Vec<Value>, out: &mut Out) -> Result<(), Refusal> {
        let setup = loop {
            let setup = config.setup(history.clone())?;
            let Some(ToServer::Setup(asked)) = &setup.message_type else { break setup };
            match (self.check)(asked) {
                Err(problem) if problem.field.starts_with("setup.history") && !history.is_empty() => {
                    history.drain(..history.len().div_ceil(4));
                }
                checked => {
                    checked?;
                    break setup;
                }
            }
        };
        // Audio that is on its way is for the conversation that comes.
        out.messages.retain(|message| match &message.message_type {
            Some(ToServer::RealtimeInput(input)) => input.audio.is_some(),
            _ => false,
        });
        let on_its_way = out.messages.iter().map(|message| match &message.message_type {
            Some(ToServer::RealtimeInput(v1::RealtimeInput { audio: Some(blob), .. })) => blob.data.len(),
            _ => 0,
        });
        self.begun_us = self.heard_us.saturating_sub(self.config.input.us(on_its_way.sum()));
        out.messages.push_front(setup);
        out.anew = true;
        self.running = config;
        self.stale = false;
        // Their answers are in the history, or are none.
        self.calls.clear();
        self.expected = false;
        self.utterances.retain(|utterance| utterance.over && !self.committed.is_empty());
        Ok(())
    }

    /// Makes the conversation what the client wants it to be, as soon as nobody speaks.
    fn settle(&mut self, out: &mut Out) {
        let speaking = self.utterances.back().is_some_and(|utterance| !utterance.over);
        let idle = self.response.is_none() && !self.expected && !speaking && !self.error_told;
        if idle && (self.stale || self.running != self.config) {
            let begun = self.begin(self.config.clone(), self.items.history(), out);
            if let Err(refusal) = begun {
                // What was checked when it was asked for is refused by nothing but its history.
                self.stale = false;
                self.error(out, refusal, None);
            }
        }
    }

    /// The response that something belongs to; begun if nobody has asked for it.
    fn responding(&mut self, out: &mut Out) {
        self.expected = false;
        if self.response.is_none() {
            let asked = Asked { id: self.events.id("resp"), metadata: Value::Null, kept: true };
            self.response_begins(asked, out);
        }
    }

    fn response_begins(&mut self, asked: Asked, out: &mut Out) {
        let voice = &self.opened.voice;
        self.response = Some(Response::begin(asked, &self.running, voice, &mut self.events, &mut out.frames));
    }

    fn content(&mut self, content: v1::ServerContent, usage: Option<&v1::UsageMetadata>, out: &mut Out) {
        if let Some(transcript) = content.input_transcription {
            self.transcribed(&transcript.text, transcript.finished, out);
        }
        for part in content.model_turn.into_iter().flat_map(|turn| turn.parts) {
            self.responding(out);
            let Some(response) = &mut self.response else { continue };
            let (items, events, frames) = (&mut self.items, &mut self.events, &mut out.frames);
            match part.data {
                // Thoughts have no event.
                Some(v1::part::Data::Text(_)) if part.thought => {}
                Some(v1::part::Data::Text(text)) => response.text(&text, items, events, frames),
                Some(v1::part::Data::InlineData(blob)) => {
                    self.spoken_us += self.running.output.us(blob.data.len());
                    response.audio(&blob.data, items, events, frames);
                }
                _ => {}
            }
        }
        if let Some(transcript) = content.output_transcription.filter(|transcript| !transcript.text.is_empty()) {
            self.responding(out);
            if let Some(response) = &mut self.response {
                response.text(&transcript.text, &mut self.items, &mut self.events, &mut out.frames);
            }
        }
        if content.generation_complete
            && let Some(response) = &mut self.response
        {
            // The engine believes that all of it was heard.
            self.stale |= response.truncated_ms.is_some();
            response.message_done(true, &mut self.items, &mut self.events, &mut out.frames);
        }
        if content.waiting_for_tools {
            // The turn goes on with the results; their response ends here.
            self.end(Ending::Completed, None, out);
        }
        if content.interrupted {
            self.interrupted = true;
            if let Some(response) = &mut self.response {
                response.message_done(false, &mut self.items, &mut self.events, &mut out.frames);
            }
        }
        if content.turn_complete {
            let client = self.response.as_ref().is_some_and(|response| response.cancelled);
            let ending = match v1::TurnEndReason::try_from(content.turn_end_reason) {
                Ok(v1::TurnEndReason::Interrupted) if client => Ending::ClientCancelled,
                Ok(v1::TurnEndReason::Interrupted) => Ending::TurnDetected,
                Ok(v1::TurnEndReason::MaxTokens) => Ending::MaxTokens,
                Ok(v1::TurnEndReason::Failed) => {
                    self.responding(out);
                    Ending::Failed(self.failure.take().unwrap_or_else(|| "the response failed".into()))
                }
                _ => Ending::Completed,
            };
            self.interrupted = false;
            self.spoken_us = 0;
            self.end(ending, usage, out);
            self.untranscribed(out);
            // What was said meanwhile is answered now.
            self.expected = false;
            for utterance in &mut self.utterances {
                self.expected |= std::mem::take(&mut utterance.waits) && utterance.over;
            }
        }
    }

    fn end(&mut self, ending: Ending, usage: Option<&v1::UsageMetadata>, out: &mut Out) {
        if let Some(response) = self.response.take() {
            response.done(ending, usage, &mut self.items, &mut self.events, &mut out.frames);
        }
    }

    /// The transcript of the user grew. Its last piece belongs to the oldest utterance that is over, any other to the
    /// newest.
    fn transcribed(&mut self, text: &str, finished: bool, out: &mut Out) {
        let of = if finished {
            self.utterances.iter_mut().find(|utterance| utterance.over)
        } else {
            self.utterances.back_mut()
        };
        let Some(utterance) = of else { return };
        utterance.text.push_str(text);
        let item = utterance.item.clone();
        if self.config.transcribes() && !text.is_empty() {
            let fields = json!({"item_id": item, "content_index": 0, "delta": text});
            self.tell(out, "conversation.item.input_audio_transcription.delta", fields);
        }
        if finished {
            self.transcript_complete(&item, out);
        }
    }

    /// Nothing more comes of utterances that are over: what was understood of them is all.
    fn untranscribed(&mut self, out: &mut Out) {
        if !self.committed.is_empty() {
            return;
        }
        let over = self.utterances.iter().filter(|utterance| utterance.over && !utterance.waits);
        let over: Vec<String> = over.map(|utterance| utterance.item.clone()).collect();
        for item in over {
            self.transcript_complete(&item, out);
        }
    }

    fn transcript_complete(&mut self, item: &str, out: &mut Out) {
        let Some(at) = self.utterances.iter().position(|utterance| utterance.item == item) else { return };
        let Some(Utterance { text, ms, .. }) = self.utterances.remove(at) else { return };
        let transcript = text.trim();
        self.items.change(item, |item| {
            if let Some(told) = item.json.pointer_mut("/content/0/transcript") {
                *told = json!(transcript);
            }
        });
        if self.config.transcribes() {
            let usage = json!({"type": "duration", "seconds": ms as f64 / 1000.0});
            let fields = json!({"item_id": item, "content_index": 0, "transcript": transcript, "usage": usage});
            self.tell(out, "conversation.item.input_audio_transcription.completed", fields);
        }
    }

    fn speech_started(&mut self, offset: Option<prost_types::Duration>, out: &mut Out) {
        // Marks of ours, not of a detector.
        if self.running.turns.is_none() {
            return;
        }
        self.expected = false;
        let at = self.begun_us / 1000 + millis(offset);
        let item = self.events.id("item");
        self.tell(out, "input_audio_buffer.speech_started", json!({"audio_start_ms": at, "item_id": item}));
        self.utterance(Utterance { item, text: String::new(), over: false, waits: false, ms: at }, out);
    }

    fn speech_stopped(&mut self, offset: Option<prost_types::Duration>, out: &mut Out) {
        if self.running.turns.is_none() {
            return;
        }
        let at = self.begun_us / 1000 + millis(offset);
        let Some(utterance) = self.utterances.back_mut().filter(|utterance| !utterance.over) else { return };
        utterance.ms = at.saturating_sub(utterance.ms);
        utterance.waits = self.response.is_some() || self.interrupted || !self.calls.is_empty();
        self.expected = !utterance.waits;
        let fields = json!({"audio_end_ms": at, "item_id": utterance.item});
        self.tell(out, "input_audio_buffer.speech_stopped", fields);
        self.utterance_over(out);
    }

    fn warning(&mut self, problem: v1::Problem, out: &mut Out) {
        match problem.code.as_str() {
            // The turn's end tells it.
            "INTERNAL" | "DEADLINE_EXCEEDED" if problem.field.is_empty() => self.failure = Some(problem.message),
            // The reply was over before the wish reached it.
            _ if problem.field == "cancel" => {
                let message = "Cancellation failed: no active response found";
                self.error(out, Refusal::new("response_cancel_not_active", "", message), None);
            }
            // What has no effect is not in the session that the client was told of.
            "UNIMPLEMENTED" => {}
            // The session had nothing to answer, and no turn begins.
            "INVALID_ARGUMENT"
                if problem.field == "client_content.turns"
                    && self.response.as_ref().is_some_and(|response| response.is_empty()) =>
            {
                self.end(Ending::Failed(problem.message), None, out);
            }
            _ => self.error(out, Refusal::new("invalid_value", &problem.field, problem.message), None),
        }
    }

    fn fatal(&mut self, code: &str, message: &str, out: &mut Out) {
        if std::mem::replace(&mut self.error_told, true) {
            return;
        }
        let ours = !matches!(code, "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "NOT_FOUND" | "UNIMPLEMENTED");
        let kind = if ours { "server_error" } else { "invalid_request_error" };
        let code = if code == "NOT_FOUND" { "model_not_found".to_owned() } else { code.to_lowercase() };
        let error = json!({"type": kind, "code": code, "message": message, "param": null, "event_id": null});
        self.tell(out, "error", json!({"error": error}));
    }
}

impl Wire for OpenAi {
    fn dialect(&self) -> Dialect {
        Dialect::Causerie
    }

    fn open(&mut self, out: &mut Out) -> Result<(), Problem> {
        let broken = |refusal: Refusal| Problem::new(ProblemCode::Internal, refusal.param, refusal.message);
        let setup = self.config.setup(Vec::new()).map_err(broken)?;
        if let Some(ToServer::Setup(setup)) = &setup.message_type {
            self.opened = (self.check)(setup)?;
        }
        self.id = self.events.id("sess");
        let session = self.config.json(&self.id, &self.opened.model, &self.opened.voice);
        self.tell(out, "session.created", json!({"session": session}));
        out.messages.push_back(setup);
        Ok(())
    }

    fn receive(&mut self, frame: &[u8], out: &mut Out) -> Result<(), Problem> {
        let event: Value = match serde_json::from_slice(frame) {
            Ok(event) => event,
            Err(_) => {
                self.error(out, Refusal::new("invalid_json", "", "this is not JSON"), None);
                return Ok(());
            }
        };
        let id = event["event_id"].as_str();
        match event["type"].as_str() {
            Some(kind) => {
                if let Err(refusal) = self.event(kind, &event, out) {
                    self.error(out, refusal, id);
                }
            }
            None => self.error(out, Refusal::new("missing_required_parameter", "type", "an event has a type"), id),
        }
        self.settle(out);
        Ok(())
    }

    fn reply(&mut self, message: v1::ServerMessage, out: &mut Out) {
        let usage = message.usage_metadata;
        match message.message_type {
            Some(FromServer::ServerContent(content)) => self.content(content, usage.as_deref(), out),
            Some(FromServer::SpeechStarted(speech)) => self.speech_started(speech.audio_offset, out),
            Some(FromServer::SpeechStopped(speech)) => self.speech_stopped(speech.audio_offset, out),
            Some(FromServer::ToolCall(calls)) => {
                for call in calls.function_calls {
                    let arguments =
                        call.args.as_ref().map_or_else(|| "{}".to_owned(), |args| json_of_struct(args).to_string());
                    self.calls.push(Call { id: call.id.clone(), answer: None });
                    self.responding(out);
                    if let Some(response) = &mut self.response {
                        response.call(&call, &arguments, &mut self.items, &mut self.events, &mut out.frames);
                    }
                }
            }
            Some(FromServer::ToolCallCancellation(cancelled)) => {
                // Their results may still come, as items like others.
                self.calls.retain(|call| !cancelled.ids.contains(&call.id));
            }
            Some(FromServer::Warning(problem)) => self.warning(problem, out),
            Some(FromServer::Error(problem)) => self.fatal(&problem.code, &problem.message, out),
            Some(
                FromServer::SetupComplete(_)
                | FromServer::GoAway(_)
                | FromServer::SessionResumptionUpdate(_)
                | FromServer::Pong(_),
            )
            | None => {}
        }
        self.settle(out);
    }

    fn problem(&mut self, problem: &Problem, out: &mut Out) {
        self.fatal(code_name(problem.code), &problem.message, out);
    }
}

fn realtime(input: v1::RealtimeInput) -> v1::ClientMessage {
    v1::ClientMessage { message_type: Some(ToServer::RealtimeInput(input)) }
}

fn millis(offset: Option<prost_types::Duration>) -> u64 {
    let offset = offset.unwrap_or_default();
    u64::try_from(offset.seconds).unwrap_or(0) * 1000 + u64::try_from(offset.nanos).unwrap_or(0) / 1_000_000
}
