//! The contract's JSON form: field names in lowerCamelCase or as in the contract, enums by name or number, bytes in
//! either alphabet of base64, whole numbers as `40`, `40.0` or `"40"`. Unknown fields are ignored, unknown names of
//! enums are not. Written are lowerCamelCase, names of enums and standard base64.
//!
//! The descriptors drive it (the ProtoJSON mapping of prost-reflect), so that a new field needs no line here.

use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor};
use serde_json::Value;

use crate::FILE_DESCRIPTOR_SET;
use crate::v1::{self, client_message::MessageType};

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build wrote descriptors"));
static CLIENT_MESSAGE: LazyLock<MessageDescriptor> = LazyLock::new(|| descriptor("ClientMessage"));
static SERVER_MESSAGE: LazyLock<MessageDescriptor> = LazyLock::new(|| descriptor("ServerMessage"));

fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("causerie.live.v1.{name}")).expect("the contract has the message")
}

/// Why JSON is not a message. For people: what is wrong and where; nothing of what was sent but names of enums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The field, dotted, as far as it is known.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// Longest word of the client's that an error repeats, in characters.
const MAX_QUOTED: usize = 40;

/// Reads a client's message.
///
/// # Errors
/// It is not JSON, or a value does not fit its field.
pub fn read_client_message(json: &[u8]) -> Result<v1::ClientMessage, JsonError> {
    let wrong = |message: String| JsonError { field: String::new(), message };
    let mut reader = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let dynamic = DynamicMessage::deserialize_with_options(CLIENT_MESSAGE.clone(), &mut reader, &options)
        .and_then(|message| reader.end().map(|()| message))
        .map_err(|error| wrong(describe(&error)))?;
    let message = v1::ClientMessage::decode(&dynamic.encode_to_vec()[..])
        .map_err(|_| wrong("the message is nested too deeply".into()))?;
    // Media has no enums, and is most of what is sent: it is not looked through a second time.
    if !matches!(message.message_type, Some(MessageType::RealtimeInput(_)))
        && let Ok(value) = serde_json::from_slice(json)
    {
        check_enums(&CLIENT_MESSAGE, &value, "")?;
    }
    Ok(message)
}

/// Writes a server's message. Fields that are not set are left out.
pub fn write_server_message(message: &v1::ServerMessage) -> Value {
    let dynamic = DynamicMessage::decode(SERVER_MESSAGE.clone(), &message.encode_to_vec()[..])
        .expect("what was encoded as the message decodes as it");
    serde_json::to_value(dynamic).expect("every message of the contract has a JSON form")
}

/// serde_json's words, which may repeat a string that was sent whole.
fn describe(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&place).unwrap_or(&text);
    let what = if error.is_data() { "a value does not fit its field" } else { "this is not JSON" };
    // A value of the client's stands in quotes.
    let cause = if text.contains('"') { String::new() } else { format!(": {}", shorten(text)) };
    format!("{what}{cause}{place}")
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED * 2) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// An unknown name would count as not set, and the client would wonder why it has no effect.
fn check_enums(of: &MessageDescriptor, value: &Value, path: &str) -> Result<(), JsonError> {
    let Value::Object(object) = value else { return Ok(()) };
    for (key, value) in object {
        let Some(field) = of.get_field_by_json_name(key).or_else(|| of.get_field_by_name(key)) else { continue };
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        let kind = match (field.kind(), field.is_map()) {
            (Kind::Message(entry), true) => entry.map_entry_value_field().kind(),
            (kind, _) => kind,
        };
        let values: Vec<&Value> = match value {
            Value::Array(values) if field.is_list() => values.iter().collect(),
            Value::Object(entries) if field.is_map() => entries.values().collect(),
            value => vec![value],
        };
        for value in values {
            match (&kind, value) {
                (Kind::Message(message), value) if !message.full_name().starts_with("google.protobuf.") => {
                    check_enums(message, value, &path)?;
                }
                (Kind::Enum(names), Value::String(name)) if names.get_value_by_name(name).is_none() => {
                    let known: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
                    let name: String = name.chars().take(MAX_QUOTED).collect();
                    let message = format!("{name:?} is not known; there are: {}", known.join(", "));
                    return Err(JsonError { field: path, message });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
