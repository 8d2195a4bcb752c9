//! A response on its way to the client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use causerie_proto::v1;
use serde_json::{Value, json};

use super::config::Config;
use super::events::Events;
use super::items::{Item, Items};

/// Why a response is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Completed,
    /// Somebody spoke into it.
    TurnDetected,
    ClientCancelled,
    MaxTokens,
    Failed(String),
}

/// A response that somebody has asked for.
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) metadata: Value,
    /// Its items belong to the conversation.
    pub(super) kept: bool,
}

/// One response, from `response.created` to `response.done`.
pub(super) struct Response {
    pub(super) id: String,
    metadata: Value,
    kept: bool,
    text: bool,
    bytes_per_ms: usize,
    max_output_tokens: Value,
    audio: Value,
    modalities: Value,
    /// The message that is being made; its place in `output`.
    message: Option<(String, usize)>,
    /// Ended messages and calls, as they are told.
    output: Vec<Value>,
    said: String,
    sent_bytes: usize,
    spoken: Vec<(u64, usize)>,
    /// The client has asked for its end.
    pub(super) cancelled: bool,
    /// Of the message that is being made, the client has played no more than this.
    pub(super) truncated_ms: Option<u64>,
}

impl Response {
    /// Begins a response and tells of it.
    pub(super) fn begin(
        Asked { id, metadata, kept }: Asked,
        config: &Config,
        voice: &str,
        events: &mut Events,
        frames: &mut Vec<String>,
    ) -> Self {
        let response = Self {
            id,
            metadata,
            kept,
            text: config.text,
            bytes_per_ms: config.output.bytes_per_ms(),
            max_output_tokens: config.max_output_json(),
            audio: config.output_json(voice),
            modalities: config.modalities(),
            message: None,
            output: Vec::new(),
            said: String::new(),
            sent_bytes: 0,
            spoken: Vec::new(),
            cancelled: false,
            truncated_ms: None,
        };
        let created = response.json("in_progress", Value::Null, Value::Null);
        frames.push(events.event("response.created", json!({"response": created})));
        response
    }

    fn json(&self, status: &str, details: Value, usage: Value) -> Value {
        json!({
            "id": self.id, "object": "realtime.response", "status": status, "status_details": details,
            "output": self.output, "conversation_id": if self.kept { json!("conv_1") } else { Value::Null },
            "output_modalities": self.modalities, "max_output_tokens": self.max_output_tokens, "audio": self.audio,
            "usage": usage, "metadata": self.metadata})
    }

    /// Whether nothing has come of it yet.
    pub(super) fn is_empty(&self) -> bool {
        self.output.is_empty()
    }

    /// Speech of the message that is being made, in milliseconds.
    pub(super) fn sent_ms(&self) -> u64 {
        (self.sent_bytes / self.bytes_per_ms) as u64
    }

    /// Whether this message is one of its items and still being made.
    pub(super) fn is_saying(&self, item: &str) -> bool {
        self.message.as_ref().is_some_and(|(id, _)| id == item)
    }

    /// The message that text or speech belongs to; begun and told if there is none.
    fn message(&mut self, items: &mut Items, events: &mut Events, frames: &mut Vec<String>) -> (String, usize) {
        if let Some(message) = &self.message {
            return message.clone();
        }
        let (id, index) = (events.id("item"), self.output.len());
        self.said.clear();
        self.spoken.clear();
        self.sent_bytes = 0;
        let json = json!({
            "id": id, "object": "realtime.item", "type": "message", "status": "in_progress", "role": "assistant",
            "content": []});
        self.output.push(json.clone());
        let fields = json!({"response_id": self.id, "output_index": index, "item": json});
        frames.push(events.event("response.output_item.added", fields));
        self.add_item(&id, json, items, events, frames);
        let part =
            if self.text { json!({"type": "text", "text": ""}) } else { json!({"type": "audio", "transcript": ""}) };
        frames.push(events.event("response.content_part.added", self.at(&id, index, json!({"part": part}))));
        self.message = Some((id.clone(), index));
        (id, index)
    }

    fn add_item(&self, id: &str, json: Value, items: &mut Items, events: &mut Events, frames: &mut Vec<String>) {
        let before = items.last_id().map(str::to_owned);
        frames.push(events.event("conversation.item.added", json!({"previous_item_id": before, "item": json})));
        if self.kept {
            items.push(Item { id: id.to_owned(), json, spoken: Vec::new() });
        }
    }

    fn at(&self, item: &str, index: usize, more: Value) -> Value {
        let mut fields = json!({"response_id": self.id, "item_id": item, "output_index": index, "content_index": 0});
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        fields
    }

    pub(super) fn audio(&mut self, data: &[u8], items: &mut Items, events: &mut Events, frames: &mut Vec<String>) {
        let (id, index) = self.message(items, events, frames);
        self.sent_bytes += data.len();
        let fields = self.at(&id, index, json!({"delta": STANDARD.encode(data)}));
        frames.push(events.event("response.output_audio.delta", fields));
    }

    /// Text, or the transcript of speech.
    pub(super) fn text(&mut self, delta: &str, items: &mut Items, events: &mut Events, frames: &mut Vec<String>) {
        let (id, index) = self.message(items, events, frames);
        self.said.push_str(delta);
        self.spoken.push(((self.sent_bytes / self.bytes_per_ms) as u64, self.said.len()));
        let kind = if self.text { "response.output_text.delta" } else { "response.output_audio_transcript.delta" };
        frames.push(events.event(kind, self.at(&id, index, json!({"delta": delta}))));
        if self.kept {
            let content = self.content();
            items.change(&id, |item| item.json["content"] = content);
        }
    }

    fn content(&self) -> Value {
        match self.text {
            true => json!([{"type": "output_text", "text": self.said}]),
            false => json!([{"type": "output_audio", "transcript": self.said}]),
        }
    }

    /// A function that the client is to run. The message before it may still be being spoken.
    pub(super) fn call(
        &mut self,
        call: &v1::FunctionCall,
        arguments: &str,
        items: &mut Items,
        events: &mut Events,
        frames: &mut Vec<String>,
    ) {
        let (id, index) = (events.id("item"), self.output.len());
        let json = |status: &str, arguments: &str| {
            json!({
                "id": id, "object": "realtime.item", "type": "function_call", "status": status, "call_id": call.id,
                "name": call.name, "arguments": arguments})
        };
        let place = json!({"response_id": self.id, "output_index": index, "item": json("in_progress", "")});
        frames.push(events.event("response.output_item.added", place));
        self.add_item(&id, json("in_progress", ""), items, events, frames);
        let fields = |more: Value| {
            let mut fields = json!({
                "response_id": self.id, "item_id": id, "output_index": index, "call_id": call.id});
            if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
                fields.extend(more);
            }
            fields
        };
        let delta = fields(json!({"delta": arguments}));
        let done = fields(json!({"name": call.name, "arguments": arguments}));
        frames.push(events.event("response.function_call_arguments.delta", delta));
        frames.push(events.event("response.function_call_arguments.done", done));
        let whole = json("completed", arguments);
        items.change(&id, |item| item.json = whole.clone());
        self.item_done(index, &whole, events, frames);
        self.output.push(whole);
    }

    fn item_done(&self, index: usize, json: &Value, events: &mut Events, frames: &mut Vec<String>) {
        let fields = json!({"response_id": self.id, "output_index": index, "item": json});
        frames.push(events.event("response.output_item.done", fields));
        frames.push(events.event("conversation.item.done", json!({"item": json})));
    }

    /// Everything of the message has been sent.
    pub(super) fn message_done(
        &mut self,
        whole: bool,
        items: &mut Items,
        events: &mut Events,
        frames: &mut Vec<String>,
    ) {
        let Some((id, index)) = self.message.take() else { return };
        let part = if self.text {
            frames.push(events.event("response.output_text.done", self.at(&id, index, json!({"text": self.said}))));
            json!({"type": "text", "text": self.said})
        } else {
            frames.push(events.event("response.output_audio.done", self.at(&id, index, json!({}))));
            let fields = self.at(&id, index, json!({"transcript": self.said}));
            frames.push(events.event("response.output_audio_transcript.done", fields));
            json!({"type": "audio", "transcript": self.said})
        };
        frames.push(events.event("response.content_part.done", self.at(&id, index, json!({"part": part}))));
        let json = json!({
            "id": id, "object": "realtime.item", "type": "message",
            "status": if whole { "completed" } else { "incomplete" }, "role": "assistant", "content": self.content()});
        let spoken = std::mem::take(&mut self.spoken);
        items.change(&id, |item| {
            item.json = json.clone();
            item.spoken = spoken;
        });
        if let Some(ms) = self.truncated_ms.take() {
            items.truncate(&id, ms);
        }
        self.item_done(index, &json, events, frames);
        self.output[index] = json;
    }

    /// The response is over.
    pub(super) fn done(
        mut self,
        ending: Ending,
        usage: Option<&v1::UsageMetadata>,
        items: &mut Items,
        events: &mut Events,
        frames: &mut Vec<String>,
    ) {
        self.message_done(ending == Ending::Completed, items, events, frames);
        let (status, details) = match &ending {
            Ending::Completed => ("completed", Value::Null),
            Ending::TurnDetected => ("cancelled", json!({"type": "cancelled", "reason": "turn_detected"})),
            Ending::ClientCancelled => ("cancelled", json!({"type": "cancelled", "reason": "client_cancelled"})),
            Ending::MaxTokens => ("incomplete", json!({"type": "incomplete", "reason": "max_output_tokens"})),
            Ending::Failed(message) => {
                let error = json!({"type": "server_error", "code": "server_error", "message": message});
                ("failed", json!({"type": "failed", "error": error}))
            }
        };
        let done = self.json(status, details, usage.map_or(Value::Null, usage_json));
        frames.push(events.event("response.done", json!({"response": done})));
    }
}

fn usage_json(usage: &v1::UsageMetadata) -> Value {
    let of = |details: &[v1::ModalityTokenCount], modality: v1::Modality| -> i32 {
        details.iter().filter(|d| d.modality == modality as i32).map(|d| d.token_count).sum()
    };
    let (prompt, response) = (&usage.prompt_tokens_details, &usage.response_tokens_details);
    json!({
        "total_tokens": usage.total_token_count, "input_tokens": usage.prompt_token_count,
        "output_tokens": usage.response_token_count + usage.thoughts_token_count,
        "input_token_details": {
            "text_tokens": of(prompt, v1::Modality::Text), "audio_tokens": of(prompt, v1::Modality::Audio),
            "image_tokens": 0, "cached_tokens": usage.cached_content_token_count},
        "output_token_details": {
            "text_tokens": of(response, v1::Modality::Text) + usage.thoughts_token_count,
            "audio_tokens": of(response, v1::Modality::Audio)}})
}
