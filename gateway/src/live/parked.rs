//! What is kept of a conversation, as bytes: the client's setup as it was sent, and the session's snapshot.
//!
//! A conversation that is resumed is set up as before; what its client sends anew overrides it field by field, as
//! protobuf merges messages, but for lists, which replace each other.

use causerie_model_api::{Content, Item, Role, ToolBehavior, ToolCall, ToolDeclaration};
use causerie_proto::v1;
use causerie_session::{PendingCall, Problem, ProblemCode, Setup, Snapshot, Update};
use prost::Message;

/// A conversation as it is kept. The messages are ours alone: their numbers may only be added to, as files outlive
/// servers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Parked {
    #[prost(message, optional, tag = "1")]
    setup: Option<v1::Setup>,
    #[prost(message, repeated, tag = "2")]
    history: Vec<ParkedItem>,
    #[prost(message, repeated, tag = "3")]
    calls: Vec<ParkedCall>,
    #[prost(bool, tag = "4")]
    owed: bool,
    #[prost(uint64, tag = "5")]
    turns: u64,
    /// What the client has changed since its setup.
    #[prost(message, optional, tag = "6")]
    update: Option<ParkedUpdate>,
}

#[derive(Clone, PartialEq, Message)]
struct ParkedUpdate {
    #[prost(string, tag = "1")]
    system_instruction: String,
    #[prost(message, repeated, tag = "2")]
    tools: Vec<ParkedTool>,
}

#[derive(Clone, PartialEq, Message)]
struct ParkedTool {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    /// JSON Schema.
    #[prost(string, tag = "3")]
    parameters: String,
    #[prost(bool, tag = "4")]
    non_blocking: bool,
}

#[derive(Clone, PartialEq, Message)]
struct ParkedItem {
    /// 0 for the user, 1 for the model, 2 for a tool.
    #[prost(uint32, tag = "1")]
    role: u32,
    #[prost(message, repeated, tag = "2")]
    content: Vec<ParkedContent>,
}

#[derive(Clone, PartialEq, Message)]
struct ParkedContent {
    #[prost(oneof = "Piece", tags = "1, 2, 3")]
    piece: Option<Piece>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Piece {
    #[prost(string, tag = "1")]
    Text(String),
    /// Its payload is the arguments.
    #[prost(message, tag = "2")]
    Call(Named),
    /// Its payload is the value.
    #[prost(message, tag = "3")]
    Result(Named),
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    /// JSON.
    #[prost(string, tag = "3")]
    payload: String,
}

#[derive(Clone, PartialEq, Message)]
struct ParkedCall {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bool, tag = "3")]
    non_blocking: bool,
    #[prost(bool, tag = "4")]
    server: bool,
}

impl Parked {
    /// Puts a snapshot beside the setup of its conversation.
    pub(super) fn new(setup: &v1::Setup, snapshot: Snapshot) -> Self {
        let call = |PendingCall { id, name, behavior, server }| ParkedCall {
            id,
            name,
            non_blocking: behavior == ToolBehavior::NonBlocking,
            server,
        };
        let tool = |ToolDeclaration { name, description, parameters, behavior }| ParkedTool {
            name,
            description,
            parameters,
            non_blocking: behavior == ToolBehavior::NonBlocking,
        };
        let update = |Update { system_instruction, tools }| ParkedUpdate {
            system_instruction,
            tools: tools.into_iter().map(tool).collect(),
        };
        Self {
            setup: Some(v1::Setup { history: Vec::new(), session_resumption: None, ..setup.clone() }),
            history: snapshot.history.into_iter().map(ParkedItem::from).collect(),
            calls: snapshot.calls.into_iter().map(call).collect(),
            owed: snapshot.owed,
            turns: snapshot.turns,
            update: snapshot.update.map(update),
        }
    }

    /// Reads what was kept.
    ///
    /// # Errors
    /// The bytes are damaged, or a later version's.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Problem> {
        Self::decode(bytes).map_err(|_| {
            let message = "what was kept of the conversation cannot be read";
            Problem::new(ProblemCode::Internal, "setup.session_resumption.handle", message)
        })
    }

    /// The setup to go on with: as it was, but for what `asked` says.
    pub(super) fn setup(&self, asked: &v1::Setup) -> v1::Setup {
        let mut setup = self.setup.clone().unwrap_or_default();
        if asked.system_instruction.is_some() {
            setup.system_instruction = None;
        }
        if !asked.tools.is_empty() {
            setup.tools.clear();
        }
        let modalities = |setup: &v1::Setup| setup.generation_config.as_ref().map(|g| g.response_modalities.len());
        if modalities(asked).is_some_and(|n| n > 0)
            && let Some(generation) = &mut setup.generation_config
        {
            generation.response_modalities.clear();
        }
        // Encoded messages that follow each other are one, merged.
        let merged = setup.merge(&asked.encode_to_vec()[..]);
        debug_assert!(merged.is_ok(), "what was just encoded can be decoded");
        setup
    }

    /// Puts what was said, and what is still awaited, into the setup that was made of what the client `asked`. `latest`
    /// is what was kept last of the same conversation: results that came after this moment are taken over from it.
    pub(super) fn restore(self, latest: Option<Self>, asked: &v1::Setup, setup: Setup) -> Setup {
        let mut history: Vec<Item> = self.history.into_iter().map(Item::from).collect();
        let mut calls = self.calls;
        let mut answered = false;
        let later = latest.as_ref().map_or(0, |latest| latest.turns);
        for item in latest.into_iter().flat_map(|latest| latest.history).map(Item::from) {
            for piece in item.content {
                let Content::ToolResult { call, .. } = &piece else { continue };
                if let Some(at) = calls.iter().position(|pending| pending.id == *call) {
                    answered |= !calls.remove(at).non_blocking;
                    history.push(Item { role: Role::Tool, content: vec![piece] });
                }
            }
        }
        let waits = calls.iter().any(|call| !call.non_blocking);
        let behavior = |non_blocking| if non_blocking { ToolBehavior::NonBlocking } else { ToolBehavior::Blocking };
        let call = |ParkedCall { id, name, non_blocking, server }| PendingCall {
            id,
            name,
            behavior: behavior(non_blocking),
            server,
        };
        let tool = |ParkedTool { name, description, parameters, non_blocking }| ToolDeclaration {
            name,
            description,
            parameters,
            behavior: behavior(non_blocking),
        };
        // What the client says now counts more than what it said in the meantime.
        let update = self.update.map(|ParkedUpdate { system_instruction, tools }| Update {
            system_instruction: match asked.system_instruction {
                Some(_) => setup.system_instruction.clone(),
                None => system_instruction,
            },
            tools: match asked.tools.is_empty() {
                true => tools.into_iter().map(tool).collect(),
                false => setup.tools.clone(),
            },
        });
        setup.resuming(Snapshot {
            history,
            calls: calls.into_iter().map(call).collect(),
            owed: self.owed || (answered && !waits),
            turns: self.turns.max(later),
            update,
        })
    }
}

impl From<Item> for ParkedItem {
    fn from(item: Item) -> Self {
        let role = match item.role {
            Role::User => 0,
            Role::Model => 1,
            Role::Tool => 2,
        };
        let piece = |content| {
            let piece = match content {
                Content::Text(text) => Piece::Text(text),
                // A conversation whose contents have pictures is not parked. Frames of live video are not in the history,
                // and are forgotten.
                Content::Picture(_) => return None,
                Content::ToolCall(ToolCall { id, name, arguments }) => {
                    Piece::Call(Named { id, name, payload: arguments })
                }
                Content::ToolResult { call, name, value } => Piece::Result(Named { id: call, name, payload: value }),
            };
            Some(ParkedContent { piece: Some(piece) })
        };
        let content = item.content.into_iter().filter_map(piece).collect();
        Self { role, content }
    }
}

impl From<ParkedItem> for Item {
    fn from(item: ParkedItem) -> Self {
        let role = match item.role {
            0 => Role::User,
            1 => Role::Model,
            _ => Role::Tool,
        };
        let content = |piece| match piece {
            Piece::Text(text) => Content::Text(text),
            Piece::Call(Named { id, name, payload }) => Content::ToolCall(ToolCall { id, name, arguments: payload }),
            Piece::Result(Named { id, name, payload }) => Content::ToolResult { call: id, name, value: payload },
        };
        Self { role, content: item.content.into_iter().filter_map(|content| content.piece).map(content).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> v1::Content {
        let part = v1::Part { data: Some(v1::part::Data::Text(text.into())), ..Default::default() };
        v1::Content { role: "user".into(), parts: vec![part] }
    }

    fn call(id: &str, behavior: ToolBehavior) -> PendingCall {
        PendingCall { id: id.into(), name: "f".into(), behavior, server: false }
    }

    fn result(id: &str) -> Item {
        let content = Content::ToolResult { call: id.into(), name: "f".into(), value: "7".into() };
        Item { role: Role::Tool, content: vec![content] }
    }

    fn snapshot() -> Snapshot {
        let called = ToolCall { id: "1".into(), name: "f".into(), arguments: r#"{"b":9007199254740993,"a":1}"#.into() };
        Snapshot {
            history: vec![
                Item::text(Role::User, "hello"),
                Item {
                    role: Role::Model,
                    content: vec![Content::Text("one moment".into()), Content::ToolCall(called)],
                },
                result("0"),
            ],
            calls: vec![call("1", ToolBehavior::Blocking), call("2", ToolBehavior::NonBlocking)],
            owed: false,
            turns: 3,
            update: None,
        }
    }

    #[test]
    fn what_was_said_is_kept_to_the_letter() {
        let setup = v1::Setup { history: vec![text("before")], ..Default::default() };
        let bytes = Parked::new(&setup, snapshot()).encode_to_vec();
        let read = Setup { history: vec![Item::text(Role::User, "more")], ..Setup::default() };
        let read = Parked::read(&bytes).unwrap().restore(None, &v1::Setup::default(), read);
        let mut history = snapshot().history;
        history.push(Item::text(Role::User, "more"));
        assert_eq!((read.history, read.calls, read.owed, read.turns), (history, snapshot().calls, false, 3));
        assert!(Parked::read(&bytes[1..]).is_err());
    }

    #[test]
    fn results_that_came_later_are_taken_over() {
        let of = |snapshot| Parked::new(&v1::Setup::default(), snapshot);
        let later = Snapshot { history: vec![result("0"), result("1"), result("9")], ..Snapshot::default() };
        let read = of(snapshot()).restore(Some(of(later)), &v1::Setup::default(), Setup::default());
        assert_eq!(read.history[3..], [result("1")]);
        assert_eq!(read.calls, [call("2", ToolBehavior::NonBlocking)]);
        assert!(read.owed, "nothing is waited for any more");
    }

    #[test]
    fn what_was_changed_on_the_way_is_kept_until_it_is_changed_again() {
        let tool = |name: &str| ToolDeclaration {
            name: name.into(),
            description: "what it does".into(),
            parameters: r#"{"type":"object"}"#.into(),
            behavior: ToolBehavior::NonBlocking,
        };
        let update = Update { system_instruction: "be long".into(), tools: vec![tool("new")] };
        let snapshot = Snapshot { update: Some(update.clone()), ..snapshot() };
        let bytes = Parked::new(&v1::Setup::default(), snapshot).encode_to_vec();
        let read = Setup { system_instruction: "be brief".into(), tools: vec![tool("old")], ..Setup::default() };
        let restore = |asked| Parked::read(&bytes).unwrap().restore(None, &asked, read.clone());
        let same = restore(v1::Setup::default());
        assert_eq!(
            (same.system_instruction, same.tools, same.updated),
            (update.system_instruction, update.tools, true)
        );
        let other = restore(v1::Setup { system_instruction: Some(text("be brief")), ..Default::default() });
        assert_eq!((other.system_instruction.as_str(), &other.tools[..]), ("be brief", &[tool("new")][..]));
        let other = restore(v1::Setup { tools: vec![v1::Tool::default()], ..Default::default() });
        assert_eq!((other.system_instruction.as_str(), &other.tools[..]), ("be long", &[tool("old")][..]));
    }

    #[test]
    fn a_setup_is_overridden_field_by_field() {
        use v1::generation_config::Modality;
        let generation = |modality: Modality, temperature| {
            let response_modalities = vec![modality as i32];
            Some(v1::GenerationConfig { response_modalities, temperature, ..Default::default() })
        };
        let before = v1::Setup {
            model: "models/default".into(),
            system_instruction: Some(text("be brief")),
            generation_config: generation(Modality::Audio, Some(0.5)),
            output_audio_transcription: Some(v1::AudioTranscriptionConfig::default()),
            tools: vec![v1::Tool::default()],
            ..Default::default()
        };
        let parked = Parked::new(&before, Snapshot::default());
        assert_eq!(parked.setup(&v1::Setup::default()), before);
        let asked = v1::Setup {
            system_instruction: Some(text("be long")),
            generation_config: generation(Modality::Text, None),
            ..Default::default()
        };
        let merged = parked.setup(&asked);
        assert_eq!(merged.system_instruction, asked.system_instruction);
        assert_eq!(merged.generation_config, generation(Modality::Text, Some(0.5)));
        assert_eq!(merged.tools, before.tools);
    }
}
