//! Contents of the wire as items of a history, and results of tools.

use causerie_model_api::{Content, Item, Role, Scheduling, ToolCall};
use causerie_proto::v1::{self, part::Data};
use causerie_session::{Problem, ProblemCode, ToolResponse};

use super::schema::json_of_struct;
use crate::catalog::shorten;

/// Contents as items, and the pictures in them, which are still to be decoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Items {
    pub(super) items: Vec<Item>,
    /// In order; each goes into its item once the ones before it are there.
    pub(super) pictures: Vec<Inline>,
}

/// A picture inside a content.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inline {
    /// Where it stands in the message.
    pub(super) field: String,
    /// The item, and the place in it.
    pub(super) item: usize,
    pub(super) piece: usize,
    pub(super) blob: v1::Blob,
}

/// Pictures of one message, at most.
const MAX_PICTURES: usize = 16;

/// Contents, oldest first, as items. `field` is where they stand in the message.
///
/// # Errors
/// A role or a part that a history cannot hold, or more pictures than [`MAX_PICTURES`].
pub(super) fn items(field: &str, contents: &[v1::Content]) -> Result<Items, Problem> {
    let mut all = Items { items: Vec::with_capacity(contents.len()), pictures: Vec::new() };
    for (i, content) in contents.iter().enumerate() {
        item(&format!("{field}[{i}]"), content, &mut all)?;
    }
    if all.pictures.len() > MAX_PICTURES {
        let message = format!("{} pictures are more than {MAX_PICTURES} in one message", all.pictures.len());
        return Err(Problem::new(ProblemCode::InvalidArgument, field, message));
    }
    Ok(all)
}

/// As [`items`], where there can be no pictures.
///
/// # Errors
/// The same, and a picture.
pub(super) fn items_of_words(field: &str, contents: &[v1::Content]) -> Result<Vec<Item>, Problem> {
    let Items { items, pictures } = items(field, contents)?;
    match pictures.into_iter().next() {
        Some(Inline { field, .. }) => Err(Problem::new(
            ProblemCode::Unimplemented,
            field,
            "pictures are not supported here; send them as client_content",
        )),
        None => Ok(items),
    }
}

/// The text of a system instruction: its parts, joined by empty lines.
///
/// # Errors
/// A part that is not text.
pub(super) fn system_instruction(field: &str, content: &v1::Content) -> Result<String, Problem> {
    let mut texts = Vec::with_capacity(content.parts.len());
    for (i, part) in content.parts.iter().enumerate() {
        match &part.data {
            Some(Data::Text(text)) => texts.push(text.as_str()),
            other => {
                return Err(Problem::new(
                    ProblemCode::InvalidArgument,
                    format!("{field}.parts[{i}]"),
                    format!("a system instruction is text; this part is {}", kind_of(other.as_ref())),
                ));
            }
        }
    }
    Ok(texts.join("\n\n"))
}

/// Results of functions.
///
/// # Errors
/// A result without identity, or with media.
pub(super) fn tool_responses(responses: &[v1::FunctionResponse]) -> Result<Vec<ToolResponse>, Problem> {
    responses
        .iter()
        .enumerate()
        .map(|(i, response)| {
            let field = format!("tool_response.function_responses[{i}]");
            if response.id.is_empty() {
                return Err(Problem::new(
                    ProblemCode::InvalidArgument,
                    format!("{field}.id"),
                    "the id of the call is missing",
                ));
            }
            let value = result_json(&field, response)?;
            let scheduling = match v1::function_response::Scheduling::try_from(response.scheduling.unwrap_or(0)) {
                Ok(v1::function_response::Scheduling::Silent) => Scheduling::Silent,
                Ok(v1::function_response::Scheduling::Interrupt) => Scheduling::Interrupt,
                Ok(v1::function_response::Scheduling::WhenIdle | v1::function_response::Scheduling::Unspecified) => {
                    Scheduling::WhenIdle
                }
                Err(_) => {
                    return Err(Problem::new(
                        ProblemCode::InvalidArgument,
                        format!("{field}.scheduling"),
                        "it is one of SILENT (1), WHEN_IDLE (2) and INTERRUPT (3)",
                    ));
                }
            };
            Ok(ToolResponse {
                id: response.id.clone(),
                name: response.name.clone(),
                response: value,
                scheduling,
                will_continue: response.will_continue,
            })
        })
        .collect()
}

/// One content as items: results of functions are said by the tool, the rest by the content's role, so a content that
/// mixes them becomes several.
fn item(field: &str, content: &v1::Content, all: &mut Items) -> Result<(), Problem> {
    let role = match content.role.as_str() {
        "" | "user" => Role::User,
        "model" | "assistant" => Role::Model,
        "function" | "tool" => Role::Tool,
        other => {
            return Err(Problem::new(
                ProblemCode::InvalidArgument,
                format!("{field}.role"),
                format!("role {:?} is not one of user, model, function and tool", shorten(other)),
            ));
        }
    };
    if content.parts.is_empty() {
        return Err(Problem::new(ProblemCode::InvalidArgument, format!("{field}.parts"), "there are no parts"));
    }
    let Items { items, pictures } = all;
    let first = items.len();
    for (i, part) in content.parts.iter().enumerate() {
        let field = format!("{field}.parts[{i}]");
        // What was thought is not part of what was said.
        if part.thought {
            continue;
        }
        let (role, piece) = match &part.data {
            Some(Data::Text(text)) => (role, Content::Text(text.clone())),
            Some(Data::FunctionCall(call)) => (role, Content::ToolCall(tool_call(&field, call)?)),
            Some(Data::FunctionResponse(response)) => (
                Role::Tool,
                Content::ToolResult {
                    call: response.id.clone(),
                    name: response.name.clone(),
                    value: result_json(&field, response)?,
                },
            ),
            None => return Err(Problem::new(ProblemCode::InvalidArgument, field, "the part is empty")),
            Some(Data::InlineData(blob)) if blob.mime_type.starts_with("image/") && role == Role::User => {
                if items.len() == first || items.last().is_some_and(|last| last.role != role) {
                    items.push(Item { role, content: Vec::new() });
                }
                let item = items.len() - 1;
                let before = pictures.iter().filter(|picture| picture.item == item).count();
                let piece = items[item].content.len() + before;
                pictures.push(Inline { field: format!("{field}.inline_data"), item, piece, blob: blob.clone() });
                continue;
            }
            Some(Data::InlineData(blob)) => {
                return Err(Problem::new(
                    ProblemCode::Unimplemented,
                    format!("{field}.inline_data"),
                    format!(
                        "media ({}) inside contents is not supported; send audio as realtime_input.audio",
                        shorten(&blob.mime_type)
                    ),
                ));
            }
            Some(other) => {
                return Err(Problem::new(
                    ProblemCode::Unimplemented,
                    field,
                    format!("{} is not supported in contents", kind_of(Some(other))),
                ));
            }
        };
        match items[first..].last_mut() {
            Some(last) if last.role == role => last.content.push(piece),
            _ => items.push(Item { role, content: vec![piece] }),
        }
    }
    Ok(())
}

fn tool_call(field: &str, call: &v1::FunctionCall) -> Result<ToolCall, Problem> {
    if call.name.is_empty() {
        return Err(Problem::new(
            ProblemCode::InvalidArgument,
            format!("{field}.function_call.name"),
            "the name of the function is missing",
        ));
    }
    let arguments = call.args.as_ref().map_or_else(|| "{}".to_owned(), |args| json_of_struct(args).to_string());
    Ok(ToolCall { id: call.id.clone(), name: call.name.clone(), arguments })
}

fn result_json(field: &str, response: &v1::FunctionResponse) -> Result<String, Problem> {
    if !response.parts.is_empty() {
        return Err(Problem::new(
            ProblemCode::Unimplemented,
            format!("{field}.parts"),
            "media in results of functions is not supported; use response",
        ));
    }
    Ok(response.response.as_ref().map_or_else(|| "{}".to_owned(), |value| json_of_struct(value).to_string()))
}

fn kind_of(data: Option<&Data>) -> &'static str {
    match data {
        None => "empty",
        Some(Data::Text(_)) => "text",
        Some(Data::InlineData(_)) => "inline_data",
        Some(Data::FunctionCall(_)) => "function_call",
        Some(Data::FunctionResponse(_)) => "function_response",
        Some(Data::FileData(_)) => "file_data",
        Some(Data::ExecutableCode(_)) => "executable_code",
        Some(Data::CodeExecutionResult(_)) => "code_execution_result",
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::struct_of_json;
    use super::*;
    use serde_json::json;

    fn part(data: Data) -> v1::Part {
        v1::Part { data: Some(data), ..Default::default() }
    }

    fn content(role: &str, parts: Vec<v1::Part>) -> v1::Content {
        v1::Content { role: role.into(), parts }
    }

    #[test]
    fn text_keeps_its_role() {
        let said = items(
            "turns",
            &[
                content("", vec![part(Data::Text("one".into())), part(Data::Text("two".into()))]),
                content("model", vec![part(Data::Text("three".into()))]),
            ],
        )
        .expect("both are text");
        assert_eq!(
            said.items,
            [
                Item { role: Role::User, content: vec![Content::Text("one".into()), Content::Text("two".into())] },
                Item::text(Role::Model, "three"),
            ]
        );
    }

    #[test]
    fn results_are_said_by_the_tool() {
        let args = struct_of_json(&json!({"n": 3}));
        let call = v1::FunctionCall { name: "f".into(), id: "1".into(), args };
        let response = v1::FunctionResponse {
            name: "f".into(),
            id: "1".into(),
            response: struct_of_json(&json!({"output": [1, 2.5]})),
            ..Default::default()
        };
        let said = items(
            "turns",
            &[
                content("model", vec![part(Data::FunctionCall(call))]),
                content("user", vec![part(Data::FunctionResponse(response)), part(Data::Text("so?".into()))]),
            ],
        )
        .expect("all parts are known")
        .items;
        let roles: Vec<Role> = said.iter().map(|i| i.role).collect();
        assert_eq!(roles, [Role::Model, Role::Tool, Role::User]);
        assert_eq!(
            said[0].content[0],
            Content::ToolCall(ToolCall { id: "1".into(), name: "f".into(), arguments: r#"{"n":3}"#.into() })
        );
        assert_eq!(
            said[1].content[0],
            Content::ToolResult { call: "1".into(), name: "f".into(), value: r#"{"output":[1,2.5]}"#.into() }
        );
    }

    #[test]
    fn what_a_history_cannot_hold_is_refused_by_name() {
        let blob = v1::Blob { mime_type: "audio/wav".into(), data: Default::default() };
        for (bad, code, field) in [
            (content("robot", vec![part(Data::Text("x".into()))]), ProblemCode::InvalidArgument, "turns[0].role"),
            (content("user", vec![]), ProblemCode::InvalidArgument, "turns[0].parts"),
            (content("user", vec![v1::Part::default()]), ProblemCode::InvalidArgument, "turns[0].parts[0]"),
            (
                content("user", vec![part(Data::InlineData(blob))]),
                ProblemCode::Unimplemented,
                "turns[0].parts[0].inline_data",
            ),
            (
                content("user", vec![part(Data::FileData(v1::FileData::default()))]),
                ProblemCode::Unimplemented,
                "turns[0].parts[0]",
            ),
        ] {
            let problem = items("turns", &[bad]).expect_err(field);
            assert_eq!((problem.code, problem.field.as_str()), (code, field));
        }
    }

    #[test]
    fn pictures_keep_their_places_among_the_words() {
        let picture = |name: &'static str| {
            let data = name.as_bytes().into();
            part(Data::InlineData(v1::Blob { mime_type: "image/png".into(), data }))
        };
        let words = |text: &str| part(Data::Text(text.into()));
        let turns = [
            content("user", vec![picture("a"), words("one"), picture("b"), picture("c"), words("two")]),
            content("user", vec![picture("d")]),
        ];
        let Items { items: mut all, pictures } = items("turns", &turns).expect("words and pictures");
        for Inline { item, piece, blob, .. } in &pictures {
            let name = String::from_utf8_lossy(&blob.data).into_owned();
            all[*item].content.insert(*piece, Content::Text(name));
        }
        let texts = |item: &Item| {
            let of = |content: &Content| if let Content::Text(text) = content { text.clone() } else { "?".into() };
            item.content.iter().map(of).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(all.iter().map(texts).collect::<Vec<_>>(), ["a one b c two", "d"]);
        assert_eq!(pictures[3].field, "turns[1].parts[0].inline_data");
        let many = [content("user", vec![picture("x"); MAX_PICTURES + 1])];
        assert_eq!(items("turns", &many).expect_err("too many").code, ProblemCode::InvalidArgument);
        assert_eq!(items_of_words("turns", &turns).expect_err("pictures").code, ProblemCode::Unimplemented);
        let of_model = [content("model", vec![picture("x")])];
        assert_eq!(items("turns", &of_model).expect_err("it shows nothing").code, ProblemCode::Unimplemented);
    }

    #[test]
    fn a_system_instruction_is_text() {
        let two = content("", vec![part(Data::Text("a".into())), part(Data::Text("b".into()))]);
        let system_instruction = |content| system_instruction("setup.system_instruction", content);
        assert_eq!(system_instruction(&two), Ok("a\n\nb".to_owned()));
        let bad = content("", vec![part(Data::InlineData(v1::Blob::default()))]);
        assert_eq!(system_instruction(&bad).expect_err("media").field, "setup.system_instruction.parts[0]");
    }

    #[test]
    fn responses_need_an_id() {
        let good = v1::FunctionResponse { id: "7".into(), name: "f".into(), scheduling: Some(3), ..Default::default() };
        let read = tool_responses(std::slice::from_ref(&good)).expect("it is complete");
        assert_eq!((read[0].scheduling, read[0].response.as_str()), (Scheduling::Interrupt, "{}"));
        let bad = v1::FunctionResponse { id: String::new(), ..good };
        assert_eq!(tool_responses(&[bad]).expect_err("no id").field, "tool_response.function_responses[0].id");
    }
}
