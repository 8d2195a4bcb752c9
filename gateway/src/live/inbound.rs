//! What a client sends during a conversation, as the driver's words.

use bytes::Bytes;
use causerie_model_api::{OUTPUT_RATE, OutputSamples, TurnId};
use causerie_proto::v1::{self, client_message::MessageType};
use causerie_session::{Input, Problem, ProblemCode};

use super::contents::{self, Items};
use super::setup;
use crate::catalog::shorten;
use crate::driver::Inbound;

/// Largest payload of a ping, in bytes.
const MAX_PING_BYTES: usize = 64;

/// What is to be done about a message.
#[derive(Debug)]
pub(super) enum Action {
    /// Hand it to the driver.
    Pass(Inbound),
    /// Decode the pictures of contents, then hand them to the driver.
    Look {
        /// The contents.
        contents: Items,
        /// Reply now.
        turn_complete: bool,
    },
    /// Answer a ping.
    Pong(Bytes),
    /// Tell the client that something had no effect and is as good as not sent.
    Note(Problem),
    /// Tell the client that something was not understood: it may wait for an answer that will not come.
    Complain(Problem),
    /// End the stream.
    End(Problem),
}

/// Reads one message after the setup. `playing` is the turn whose audio was sent last.
pub(super) fn read(message: v1::ClientMessage, playing: Option<TurnId>) -> Vec<Action> {
    match message.message_type {
        Some(MessageType::RealtimeInput(input)) => realtime(input),
        Some(MessageType::ClientContent(content)) => {
            vec![match contents::items("client_content.turns", &content.turns) {
                Ok(Items { items, pictures }) if pictures.is_empty() => {
                    event(Input::ClientContent { items, turn_complete: content.turn_complete })
                }
                Ok(contents) => Action::Look { contents, turn_complete: content.turn_complete },
                Err(problem) => Action::Complain(problem),
            }]
        }
        Some(MessageType::ToolResponse(response)) => {
            vec![match contents::tool_responses(&response.function_responses) {
                Ok(responses) => event(Input::ToolResponse(responses)),
                Err(problem) => Action::Complain(problem),
            }]
        }
        Some(MessageType::ContextUpdate(update)) => {
            vec![match read_update(&update) {
                Ok(input) => event(input),
                Err(problem) => Action::Complain(problem),
            }]
        }
        Some(MessageType::CancelReply(_)) => vec![event(Input::CancelReply)],
        Some(MessageType::PlaybackProgress(progress)) => played(&progress, playing).into_iter().collect(),
        Some(MessageType::Ping(ping)) if ping.payload.len() <= MAX_PING_BYTES => vec![Action::Pong(ping.payload)],
        Some(MessageType::Ping(ping)) => vec![Action::Note(invalid(
            "ping.payload",
            format!("{} bytes are more than {MAX_PING_BYTES}", ping.payload.len()),
        ))],
        Some(MessageType::Setup(_)) => vec![Action::End(Problem::new(
            ProblemCode::FailedPrecondition,
            "setup",
            "the conversation is set up already; open another stream",
        ))],
        None => vec![Action::Complain(invalid("", "the message is empty, or of a kind that is not known"))],
    }
}

fn read_update(update: &v1::ContextUpdate) -> Result<Input, Problem> {
    let instruction = update.system_instruction.as_ref();
    let tools = update.tools.as_ref();
    Ok(Input::Update {
        system_instruction: instruction
            .map(|content| contents::system_instruction("context_update.system_instruction", content))
            .transpose()?,
        tools: tools.map(|tools| setup::read_tools("context_update.tools.tools", &tools.tools)).transpose()?,
    })
}

/// Input as it happens. The order in which fields are read is part of the contract.
fn realtime(input: v1::RealtimeInput) -> Vec<Action> {
    let mut actions = Vec::with_capacity(1);
    if input.activity_start.is_some() {
        actions.push(event(Input::ActivityStart));
    }
    if let Some(audio) = input.audio {
        actions.push(media("realtime_input.audio", audio, false));
    }
    if let Some(first) = input.media_chunks.into_iter().next() {
        let is_picture = first.mime_type.starts_with("image/") || first.mime_type.starts_with("video/");
        actions.push(media("realtime_input.media_chunks[0]", first, is_picture));
    }
    if let Some(video) = input.video {
        actions.push(media("realtime_input.video", video, true));
    }
    if let Some(text) = input.text {
        actions.push(match text.trim() {
            "" => Action::Note(invalid("realtime_input.text", "the text is empty")),
            _ => event(Input::RealtimeText(text)),
        });
    }
    if input.activity_end.is_some() {
        actions.push(event(Input::ActivityEnd));
    }
    if input.audio_stream_end == Some(true) {
        actions.push(event(Input::AudioStreamEnd));
    }
    if actions.is_empty() && input.audio_stream_end.is_none() {
        actions.push(Action::Note(invalid("realtime_input", "nothing is set")));
    }
    actions
}

fn media(field: &str, blob: v1::Blob, is_picture: bool) -> Action {
    let v1::Blob { mime_type: mime, data } = blob;
    if mime.is_empty() {
        return Action::Complain(invalid(format!("{field}.mime_type"), "the type is missing"));
    }
    if data.is_empty() {
        return Action::Note(invalid(format!("{field}.data"), format!("a piece of {} is empty", shorten(&mime))));
    }
    Action::Pass(if is_picture { Inbound::Video { mime, data } } else { Inbound::Audio { mime, data } })
}

/// A report about a reply that is no longer played says nothing about the one that is.
fn played(progress: &v1::PlaybackProgress, playing: Option<TurnId>) -> Option<Action> {
    let about = match progress.response_id.as_str() {
        "" => playing,
        id => parse_response_id(id),
    };
    if playing.is_none() || about != playing {
        return None;
    }
    let ms = u64::try_from(progress.played_ms).unwrap_or(0);
    let until = OutputSamples(ms.saturating_mul(u64::from(OUTPUT_RATE) / 1000));
    Some(event(Input::Played { until }))
}

/// The name of a turn's reply on the wire.
pub(super) fn response_id(turn: TurnId) -> String {
    format!("r{}", turn.0)
}

fn parse_response_id(id: &str) -> Option<TurnId> {
    id.strip_prefix('r')?.parse().ok().map(TurnId)
}

fn event(input: Input) -> Action {
    Action::Pass(Inbound::Event(input))
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidArgument, field, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use causerie_model_api::{Item, Role};

    fn message(kind: MessageType) -> v1::ClientMessage {
        v1::ClientMessage { message_type: Some(kind) }
    }

    fn input(input: v1::RealtimeInput) -> Vec<Action> {
        read(message(MessageType::RealtimeInput(input)), None)
    }

    fn blob(mime: &str, data: &'static [u8]) -> v1::Blob {
        v1::Blob { mime_type: mime.into(), data: Bytes::from_static(data) }
    }

    /// One word for an action, for comparison.
    fn word(action: &Action) -> String {
        match action {
            Action::Pass(Inbound::Audio { mime, .. }) => format!("audio {mime}"),
            Action::Pass(Inbound::Video { mime, .. }) => format!("video {mime}"),
            Action::Pass(Inbound::Mark(number)) => format!("mark {number}"),
            Action::Pass(Inbound::Frame(picture)) => format!("{picture:?}"),
            Action::Look { contents, .. } => format!("look {:?}", contents.pictures.len()),
            Action::Pass(Inbound::Event(input)) => format!("{input:?}"),
            Action::Pong(payload) => format!("pong {payload:?}"),
            Action::Note(problem) => format!("note {}", problem.field),
            Action::Complain(problem) => format!("complain {}", problem.field),
            Action::End(problem) => format!("end {:?} {}", problem.code, problem.field),
        }
    }

    fn words(actions: &[Action]) -> Vec<String> {
        actions.iter().map(word).collect()
    }

    #[test]
    fn realtime_fields_are_read_in_their_order() {
        let all = v1::RealtimeInput {
            media_chunks: vec![blob("image/jpeg", b"x"), blob("audio/pcm", b"y")],
            audio: Some(blob("audio/pcm", b"zz")),
            audio_stream_end: Some(true),
            video: Some(blob("image/png", b"p")),
            text: Some("hello".into()),
            activity_start: Some(v1::realtime_input::ActivityStart {}),
            activity_end: Some(v1::realtime_input::ActivityEnd {}),
        };
        assert_eq!(
            words(&input(all)),
            [
                "ActivityStart",
                "audio audio/pcm",
                "video image/jpeg",
                "video image/png",
                "RealtimeText(\"hello\")",
                "ActivityEnd",
                "AudioStreamEnd",
            ]
        );
    }

    #[test]
    fn bad_input_is_named() {
        let audio = |blob| v1::RealtimeInput { audio: Some(blob), ..Default::default() };
        for (bad, expected) in [
            (v1::RealtimeInput::default(), "note realtime_input"),
            (audio(blob("audio/pcm", b"")), "note realtime_input.audio.data"),
            (audio(blob("", b"xx")), "complain realtime_input.audio.mime_type"),
            (v1::RealtimeInput { text: Some(" ".into()), ..Default::default() }, "note realtime_input.text"),
        ] {
            assert_eq!(words(&input(bad)), [expected]);
        }
        let off = v1::RealtimeInput { audio_stream_end: Some(false), ..Default::default() };
        assert!(input(off).is_empty(), "false is the same as absent");
    }

    #[test]
    fn messages_at_the_wrong_moment_end_the_stream() {
        let second = read(message(MessageType::Setup(Box::default())), None);
        assert_eq!(words(&second), ["end FailedPrecondition setup"]);
        assert_eq!(words(&read(v1::ClientMessage { message_type: None }, None)), ["complain "]);
    }

    #[test]
    fn contents_are_items() {
        let said = v1::ClientContent {
            turns: vec![v1::Content {
                role: "user".into(),
                parts: vec![v1::Part { data: Some(v1::part::Data::Text("hi".into())), ..Default::default() }],
            }],
            turn_complete: true,
        };
        let expected = Input::ClientContent { items: vec![Item::text(Role::User, "hi")], turn_complete: true };
        assert_eq!(words(&read(message(MessageType::ClientContent(said)), None)), [format!("{expected:?}")]);
    }

    #[test]
    fn progress_counts_only_for_the_reply_that_is_played() {
        let report = |id: &str, ms, playing| {
            let progress = v1::PlaybackProgress { response_id: id.into(), played_ms: ms };
            words(&read(message(MessageType::PlaybackProgress(progress)), playing))
        };
        let second = Some(TurnId(2));
        let played = |samples| vec![format!("{:?}", Input::Played { until: OutputSamples(samples) })];
        assert_eq!(report(&response_id(TurnId(2)), 100, second), played(2_400));
        assert_eq!(report("", 1, second), played(24));
        assert_eq!(report("", -5, second), played(0));
        assert_eq!(report("r1", 100, second), Vec::<String>::new());
        assert_eq!(report("nonsense", 100, second), Vec::<String>::new());
        assert_eq!(report("", 100, None), Vec::<String>::new());
        assert_eq!(report("", i64::MAX, second).len(), 1, "no overflow");
    }

    #[test]
    fn pings_are_answered() {
        let ping = |n| message(MessageType::Ping(v1::Ping { payload: vec![b'x'; n].into() }));
        assert_eq!(words(&read(ping(2), None)), ["pong b\"xx\""]);
        assert_eq!(words(&read(ping(65), None)), ["note ping.payload"]);
    }
}
