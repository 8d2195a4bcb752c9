//! The items of a conversation: what the client sees and edits, and the history that it stands for.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::Refusal;
use super::config::Fields;

/// Most items kept; at the bound the oldest goes. As many as a setup may bring as history.
const MAX_ITEMS: usize = 4_096;
/// Most bytes of them as JSON, with the same effect.
const MAX_BYTES: usize = 2 << 20;
/// Longest result of a function, as JSON: what a conversation takes.
const MAX_OUTPUT_BYTES: usize = 64 << 10;
/// Longest name that a client may give to an item, in bytes.
const MAX_ID_BYTES: usize = 128;

/// One item.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) id: String,
    /// As the client is told of it.
    pub(super) json: Value,
    /// Of a spoken reply: how long its transcript was when so many milliseconds of it had been sent.
    pub(super) spoken: Vec<(u64, usize)>,
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(super) struct Items {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Items {
    pub(super) fn get(&self, id: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.id == id)
    }

    pub(super) fn last_id(&self) -> Option<&str> {
        self.items.back().map(|item| item.id.as_str())
    }

    /// Puts an item at the end.
    pub(super) fn push(&mut self, item: Item) {
        self.insert(self.items.len(), item);
    }

    /// Puts an item behind another, or first when there is no other.
    pub(super) fn push_behind(&mut self, other: Option<&str>, item: Item) {
        let at = other.and_then(|id| self.items.iter().position(|item| item.id == id)).map_or(0, |at| at + 1);
        self.insert(at, item);
    }

    fn insert(&mut self, at: usize, item: Item) {
        self.bytes += size(&item.json);
        self.items.insert(at, item);
        while self.items.len() > MAX_ITEMS || (self.bytes > MAX_BYTES && self.items.len() > 1) {
            if let Some(item) = self.items.pop_front() {
                self.bytes = self.bytes.saturating_sub(size(&item.json));
            }
        }
    }

    /// Takes an item away; whether it was there.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(at) = self.items.iter().position(|item| item.id == id) else { return false };
        if let Some(item) = self.items.remove(at) {
            self.bytes = self.bytes.saturating_sub(size(&item.json));
        }
        true
    }

    /// Changes an item.
    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut Item)) {
        if let Some(item) = self.items.iter_mut().find(|item| item.id == id) {
            let before = size(&item.json);
            change(item);
            self.bytes = (self.bytes + size(&item.json)).saturating_sub(before);
        }
    }

    /// Cuts the transcript of a spoken reply to what was said in so many milliseconds. Whether that takes any of it away.
    pub(super) fn truncate(&mut self, id: &str, audio_end_ms: u64) -> bool {
        let mut cut = false;
        self.change(id, |item| {
            let heard = item.spoken.iter().rev().find(|(ms, _)| *ms <= audio_end_ms).map_or(0, |(_, bytes)| *bytes);
            if let Some(Value::String(transcript)) = item.json.pointer_mut("/content/0/transcript") {
                let whole_words = transcript.floor_char_boundary(heard);
                cut = whole_words < transcript.len();
                transcript.truncate(whole_words);
            }
        });
        cut
    }

    /// The conversation as contents of the contract's JSON form.
    pub(super) fn history(&self) -> Vec<Value> {
        self.items.iter().filter_map(|item| self.content(&item.json)).collect()
    }

    /// One item as a content; `None` for one that says nothing.
    pub(super) fn content(&self, item: &Value) -> Option<Value> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match item["type"].as_str()? {
            "message" => {
                let said = spoken_text(item);
                // What the system says in the middle of a conversation is news for the model, as what the user says.
                let role = if item["role"] == "assistant" { "model" } else { "user" };
                (!said.trim().is_empty()).then(|| json!({"role": role, "parts": [{"text": said}]}))
            }
            "function_call" => {
                let args = object(&text(&item["arguments"]), "arguments");
                let call = json!({"id": item["call_id"], "name": item["name"], "args": args});
                Some(json!({"role": "model", "parts": [{"functionCall": call}]}))
            }
            "function_call_output" => {
                let response = output(item, self.function_of(item["call_id"].as_str()?));
                Some(json!({"role": "function", "parts": [{"functionResponse": response}]}))
            }
            _ => None,
        }
    }

    /// Name of the function that was called.
    pub(super) fn function_of(&self, call: &str) -> String {
        let called = self.items.iter().rev().find(|item| {
            item.json["type"] == "function_call" && item.json["call_id"].as_str().is_some_and(|id| id == call)
        });
        called.and_then(|item| item.json["name"].as_str()).unwrap_or_default().to_owned()
    }

    /// Reads an item that a client wants to add.
    pub(super) fn read(&self, value: &Value, new_id: impl FnOnce() -> String) -> Result<Item, Refusal> {
        let fields = Fields::of(value, "item")?;
        let id = match fields.text("id")? {
            None => new_id(),
            Some(id) if id.is_empty() || id.len() > MAX_ID_BYTES => {
                return Err(fields.invalid("id", &format!("an id has 1 to {MAX_ID_BYTES} bytes")));
            }
            Some(id) if self.get(id).is_some() => return Err(fields.invalid("id", "there is an item with this id")),
            Some(id) => id.to_owned(),
        };
        let required = |name: &str| -> Result<&str, Refusal> {
            let missing = || Refusal::new("missing_required_parameter", &fields.path(name), "it is missing");
            fields.text(name)?.ok_or_else(missing)
        };
        let short = |name: &str, value: &str| match value.len() {
            1..=MAX_ID_BYTES => Ok(value.to_owned()),
            _ => Err(fields.invalid(name, &format!("it has 1 to {MAX_ID_BYTES} bytes"))),
        };
        let mut json = json!({"id": id, "object": "realtime.item", "type": required("type")?, "status": "completed"});
        match required("type")? {
            "message" => {
                let role = required("role")?;
                if !["user", "assistant", "system"].contains(&role) {
                    return Err(fields.invalid("role", "it is \"user\", \"assistant\" or \"system\""));
                }
                json["role"] = json!(role);
                json["content"] = Value::Array(read_content(&fields)?);
            }
            "function_call" => {
                json["call_id"] = json!(short("call_id", fields.text("call_id")?.unwrap_or(&id))?);
                json["name"] = json!(short("name", required("name")?)?);
                json["arguments"] = json!(required("arguments")?);
            }
            "function_call_output" => {
                json["call_id"] = json!(short("call_id", required("call_id")?)?);
                json["output"] = json!(required("output")?);
                if output(&json, String::new())["response"].to_string().len() > MAX_OUTPUT_BYTES {
                    let most = format!("the result of a function has at most {MAX_OUTPUT_BYTES} bytes");
                    return Err(fields.invalid("output", &most));
                }
            }
            _ => {
                let types = "it is \"message\", \"function_call\" or \"function_call_output\"";
                return Err(fields.unsupported("type", types));
            }
        }
        Ok(Item { id, json, spoken: Vec::new() })
    }
}

fn read_content(fields: &Fields<'_>) -> Result<Vec<Value>, Refusal> {
    let mut content = Vec::new();
    for (i, part) in fields.array("content")?.unwrap_or_default().iter().enumerate() {
        let part = Fields::of(part, &format!("{}[{i}]", fields.path("content")))?;
        let kind = part.text("type")?.unwrap_or("input_text");
        content.push(match kind {
            "input_text" | "output_text" | "text" => {
                json!({"type": kind, "text": part.text("text")?.unwrap_or_default()})
            }
            "input_audio" | "output_audio" | "audio" => match part.text("transcript")? {
                Some(transcript) => json!({"type": kind, "transcript": transcript}),
                None => {
                    let message = "audio inside items is not supported without its transcript; append it to the buffer";
                    return Err(part.unsupported("audio", message));
                }
            },
            _ => return Err(part.unsupported("type", "parts of items are texts and transcripts")),
        });
    }
    Ok(content)
}

/// The answer of a function in the contract's JSON form.
pub(super) fn output(item: &Value, name: String) -> Value {
    let output = item["output"].as_str().unwrap_or_default();
    json!({"id": item["call_id"], "name": name, "response": object(output, "output")})
}

/// JSON text as an object; what is none becomes the only field of one.
fn object(text: &str, name: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => value,
        Ok(value) => json!({name: value}),
        Err(_) => json!({name: text}),
    }
}

/// The words of a message.
fn spoken_text(item: &Value) -> String {
    let parts = item["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words = parts.iter().filter_map(|part| part["text"].as_str().or_else(|| part["transcript"].as_str()));
    words.collect::<Vec<_>>().join("\n")
}

/// Its bytes as JSON.
fn size(item: &Value) -> usize {
    item.to_string().len()
}
