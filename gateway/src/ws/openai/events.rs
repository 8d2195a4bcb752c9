//! Events of the server and their numbers.

use serde_json::{Map, Value, json};

/// Numbers events, items and responses. Names are unique in their conversation.
#[derive(Debug, Default)]
pub(super) struct Events {
    next: u64,
}

impl Events {
    /// A new name.
    pub(super) fn id(&mut self, kind: &str) -> String {
        self.next += 1;
        format!("{kind}_{}", self.next)
    }

    /// A frame.
    pub(super) fn event(&mut self, kind: &str, fields: Value) -> String {
        let mut event = Map::new();
        event.insert("type".into(), json!(kind));
        event.insert("event_id".into(), json!(self.id("event")));
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        Value::Object(event).to_string()
    }
}
