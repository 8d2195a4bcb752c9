//! The Live API in JSON: the contract's own JSON form, with the few words that only the published JSON has.

use causerie_proto::json::{read_client_message, write_server_message};
use causerie_proto::v1;
use causerie_session::{Problem, ProblemCode};
use serde_json::{Map, Value, json};

use super::{Out, Wire};
use crate::live::Dialect;

/// Where clients in Vertex mode ask.
pub(super) const VERTEX_PATH: &str = "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent";
/// Our own contract in JSON, with all of its messages.
pub(super) const OUR_PATH: &str = "/ws/causerie.live.v1.Live/Converse";

/// Whether the last piece of a path is the method that clients in Gemini mode ask for. With a short-lived key they add
/// a word.
pub(super) fn is_method(name: &str) -> bool {
    ["v1", "v1beta", "v1alpha"].iter().any(|version| {
        name.strip_prefix("google.ai.generativelanguage.")
            .and_then(|rest| rest.strip_prefix(version))
            .and_then(|rest| rest.strip_prefix(".GenerativeService.BidiGenerateContent"))
            .is_some_and(|rest| matches!(rest, "" | "Constrained"))
    })
}

/// The dialect.
pub(super) struct Google {
    flavour: Flavour,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavour {
    Gemini,
    Vertex,
    Ours,
}

impl Google {
    pub(super) fn gemini() -> Self {
        Self { flavour: Flavour::Gemini }
    }

    pub(super) fn vertex() -> Self {
        Self { flavour: Flavour::Vertex }
    }

    pub(super) fn ours() -> Self {
        Self { flavour: Flavour::Ours }
    }
}

impl Wire for Google {
    fn dialect(&self) -> Dialect {
        match self.flavour {
            Flavour::Ours => Dialect::Causerie,
            Flavour::Gemini | Flavour::Vertex => Dialect::CompatibleJson,
        }
    }

    fn receive(&mut self, frame: &[u8], out: &mut Out) -> Result<(), Problem> {
        let message = read_client_message(frame)
            .map_err(|error| Problem::new(ProblemCode::InvalidArgument, error.field, error.message))?;
        out.messages.push_back(message);
        Ok(())
    }

    fn reply(&mut self, message: v1::ServerMessage, out: &mut Out) {
        let mut json = write_server_message(&message);
        if self.flavour != Flavour::Ours
            && let Value::Object(fields) = &mut json
        {
            publish(fields);
            if self.flavour == Flavour::Vertex
                && let Some(Value::Object(usage)) = fields.get_mut("usageMetadata")
            {
                rename(usage, "responseTokenCount", "candidatesTokenCount");
                rename(usage, "responseTokensDetails", "candidatesTokensDetails");
            }
        }
        out.frames.push(json.to_string());
    }
}

/// Puts our own words into those that the published JSON has for them.
fn publish(message: &mut Map<String, Value>) {
    for (ours, kind) in [("speechStarted", "ACTIVITY_START"), ("speechStopped", "ACTIVITY_END")] {
        if let Some(Value::Object(mut speech)) = message.remove(ours) {
            // The beginning of the stream is left out by the writer, as every zero is.
            let offset = speech.remove("audioOffset").unwrap_or_else(|| json!("0s"));
            message.insert("voiceActivity".into(), json!({"type": kind, "audioOffset": offset}));
        }
    }
    if let Some(Value::Object(content)) = message.get_mut("serverContent")
        && content.get("turnEndReason").is_some_and(|reason| reason == "TURN_END_REASON_EMPTY")
    {
        content.insert("turnCompleteReason".into(), json!("NEED_MORE_INPUT"));
    }
}

fn rename(object: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = object.remove(from) {
        object.insert(to.into(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::server_message::MessageType;

    fn written(mut wire: Google, kind: MessageType) -> Value {
        let usage = v1::UsageMetadata { response_token_count: 2, total_token_count: 5, ..Default::default() };
        let mut out = Out::default();
        wire.reply(v1::ServerMessage { message_type: Some(kind), usage_metadata: Some(Box::new(usage)) }, &mut out);
        serde_json::from_str(&out.frames[0]).expect("it is JSON")
    }

    #[test]
    fn methods_are_those_of_the_sdks() {
        for (name, known) in [
            ("google.ai.generativelanguage.v1.GenerativeService.BidiGenerateContent", true),
            ("google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", true),
            ("google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContent", true),
            ("google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained", true),
            ("google.ai.generativelanguage.v2.GenerativeService.BidiGenerateContent", false),
            ("google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateMusic", false),
            ("google.ai.generativelanguage.v1beta.GenerativeService.GenerateContent", false),
            ("", false),
        ] {
            assert_eq!(is_method(name), known, "{name}");
        }
    }

    #[test]
    fn our_words_are_published_as_theirs() {
        let started = || {
            MessageType::SpeechStarted(v1::SpeechStarted {
                audio_offset: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            })
        };
        let activity = json!({"type": "ACTIVITY_START", "audioOffset": "1.500s"});
        assert_eq!(written(Google::gemini(), started())["voiceActivity"], activity);
        assert_eq!(written(Google::ours(), started())["speechStarted"], json!({"audioOffset": "1.500s"}));
        let empty = MessageType::ServerContent(v1::ServerContent {
            turn_complete: true,
            turn_end_reason: v1::TurnEndReason::Empty as i32,
            ..Default::default()
        });
        assert_eq!(written(Google::gemini(), empty)["serverContent"]["turnCompleteReason"], "NEED_MORE_INPUT");
    }

    #[test]
    fn usage_has_other_names_at_vertex() {
        let done = || MessageType::ServerContent(v1::ServerContent { turn_complete: true, ..Default::default() });
        assert_eq!(
            written(Google::vertex(), done())["usageMetadata"],
            json!({"candidatesTokenCount": 2, "totalTokenCount": 5})
        );
        assert_eq!(written(Google::gemini(), done())["usageMetadata"]["responseTokenCount"], 2);
    }
}
