//! What the driver says, as messages of the wire.

use std::sync::Arc;
use std::time::Duration;

use causerie_model_api::{Capabilities, FinishReason, INPUT_RATE, InputSamples, OUTPUT_RATE, ToolCall, TurnId, Usage};
use causerie_proto::v1::{self, server_message::MessageType};
use causerie_session::{Grounding, Problem, ServerEvent, Source, TurnEnd, Waterfall};

use super::Dialect;
use super::inbound::response_id;
use super::schema::struct_of_json;
use crate::driver::Outbound;
use crate::status::code_name;

/// Turns the words of one conversation into its messages.
pub(super) struct Encoder {
    dialect: Dialect,
    capabilities: Arc<Capabilities>,
    output_mime: String,
    /// The reply whose audio was sent last, and how many pieces of it.
    reply: Option<(TurnId, i64)>,
}

impl Encoder {
    /// An encoder for one conversation. `output_mime` is empty when replies are text.
    pub(super) fn new(dialect: Dialect, capabilities: Arc<Capabilities>, output_mime: String) -> Self {
        Self { dialect, capabilities, output_mime, reply: None }
    }

    /// The message for a word. `None` when the client's dialect has none for it.
    pub(super) fn encode(&mut self, word: Outbound) -> Option<v1::ServerMessage> {
        match word {
            Outbound::Audio { turn, start, mime, data } => Some(self.audio(turn, start.0, mime, data)),
            Outbound::Event(event) => self.event(event),
            Outbound::Resumption { handle, consumed } => {
                let resumable = handle.is_some();
                let consumed =
                    i64::try_from(consumed).ok().filter(|_| resumable && self.dialect != Dialect::Compatible);
                Some(message(MessageType::SessionResumptionUpdate(v1::SessionResumptionUpdate {
                    new_handle: handle.unwrap_or_default(),
                    resumable,
                    last_consumed_client_message_index: consumed,
                })))
            }
        }
    }

    /// A message that stands beside the conversation: an answer to a ping, a warning of the transport.
    pub(super) fn own(&self, message: MessageType) -> Option<v1::ServerMessage> {
        let known = match self.dialect {
            Dialect::Causerie => true,
            Dialect::Compatible => matches!(message, MessageType::GoAway(_)),
            Dialect::CompatibleJson => matches!(
                message,
                MessageType::GoAway(_) | MessageType::SpeechStarted(_) | MessageType::SpeechStopped(_)
            ),
        };
        known.then_some(v1::ServerMessage { message_type: Some(message), usage_metadata: None })
    }

    fn audio(&mut self, turn: TurnId, start: u64, mime: String, data: bytes::Bytes) -> v1::ServerMessage {
        let sequence = match self.reply {
            Some((last, sequence)) if last == turn => sequence + 1,
            _ => 0,
        };
        self.reply = Some((turn, sequence));
        content(v1::ServerContent {
            model_turn: Some(v1::Content {
                role: "model".into(),
                parts: vec![v1::Part {
                    data: Some(v1::part::Data::InlineData(v1::Blob { mime_type: mime, data })),
                    ..Default::default()
                }],
            }),
            reply_audio: Some(v1::ReplyAudio {
                response_id: response_id(turn),
                sequence,
                audio_offset: Some(duration(start, OUTPUT_RATE)),
            }),
            ..Default::default()
        })
    }

    fn event(&mut self, event: ServerEvent) -> Option<v1::ServerMessage> {
        Some(match event {
            ServerEvent::SetupComplete(opened) => message(MessageType::SetupComplete(v1::SetupComplete {
                session_id: opened.session,
                model: opened.model,
                voice: opened.voice,
                language: opened.language,
                capabilities: Some(capabilities(&self.capabilities)),
                output_audio_format: self.output_mime.clone(),
            })),
            // The driver encodes audio before it is handed on.
            ServerEvent::Audio { .. } => return None,
            ServerEvent::Text { delta } => {
                content(v1::ServerContent { model_turn: Some(text_content(delta, false)), ..Default::default() })
            }
            ServerEvent::Thought { delta } => {
                content(v1::ServerContent { model_turn: Some(text_content(delta, true)), ..Default::default() })
            }
            ServerEvent::InputTranscription { text, finished } => content(v1::ServerContent {
                input_transcription: Some(v1::Transcription { text, finished }),
                ..Default::default()
            }),
            ServerEvent::InterimTranscription { text } => {
                return self.ours(content(v1::ServerContent {
                    interim_input_transcription: Some(v1::Transcription { text, finished: false }),
                    ..Default::default()
                }));
            }
            ServerEvent::OutputTranscription { text } => content(v1::ServerContent {
                output_transcription: Some(v1::Transcription { text, finished: false }),
                ..Default::default()
            }),
            ServerEvent::SpeechStarted { at } => {
                return self.own(MessageType::SpeechStarted(v1::SpeechStarted { audio_offset: Some(heard(at)) }));
            }
            ServerEvent::SpeechStopped { at } => {
                return self.own(MessageType::SpeechStopped(v1::SpeechStopped { audio_offset: Some(heard(at)) }));
            }
            ServerEvent::ToolCall(calls) => message(MessageType::ToolCall(v1::ToolCall {
                function_calls: calls.into_iter().map(function_call).collect(),
            })),
            ServerEvent::ToolCallCancellation(ids) => {
                message(MessageType::ToolCallCancellation(v1::ToolCallCancellation { ids }))
            }
            ServerEvent::WaitingForTools => {
                return self.ours(content(v1::ServerContent { waiting_for_tools: true, ..Default::default() }));
            }
            ServerEvent::Grounding(grounding) => content(v1::ServerContent {
                grounding_metadata: Some(Box::new(grounding_metadata(grounding))),
                ..Default::default()
            }),
            ServerEvent::GenerationComplete => {
                content(v1::ServerContent { generation_complete: true, ..Default::default() })
            }
            ServerEvent::WaitingForInput => {
                content(v1::ServerContent { waiting_for_input: true, ..Default::default() })
            }
            ServerEvent::Interrupted => content(v1::ServerContent { interrupted: true, ..Default::default() }),
            ServerEvent::TurnComplete { reason, usage, waterfall, ran_dry } => {
                let reply = self.reply.take().map(|(turn, _)| response_id(turn)).unwrap_or_default();
                v1::ServerMessage {
                    usage_metadata: Some(Box::new(usage_metadata(&usage))),
                    ..content(v1::ServerContent {
                        turn_complete: true,
                        turn_end_reason: turn_end(reason) as i32,
                        turn_metrics: Some(Box::new(metrics(&waterfall, ran_dry, reply))),
                        ..Default::default()
                    })
                }
            }
            ServerEvent::Warning(problem) => return self.own(MessageType::Warning(wire_problem(&problem))),
        })
    }

    /// A message that consists of our additions alone, which clients without a word for them would see as an empty one.
    fn ours(&self, message: v1::ServerMessage) -> Option<v1::ServerMessage> {
        (self.dialect != Dialect::Compatible).then_some(message)
    }
}

/// A problem as the wire has it.
pub(super) fn wire_problem(problem: &Problem) -> v1::Problem {
    v1::Problem {
        code: code_name(problem.code).to_owned(),
        field: problem.field.clone(),
        message: problem.message.clone(),
        retryable: problem.retryable,
    }
}

fn message(kind: MessageType) -> v1::ServerMessage {
    v1::ServerMessage { message_type: Some(kind), usage_metadata: None }
}

fn content(content: v1::ServerContent) -> v1::ServerMessage {
    message(MessageType::ServerContent(content))
}

fn text_content(text: String, thought: bool) -> v1::Content {
    let part = v1::Part { data: Some(v1::part::Data::Text(text)), thought, ..Default::default() };
    v1::Content { role: "model".into(), parts: vec![part] }
}

fn grounding_metadata(grounding: Grounding) -> v1::GroundingMetadata {
    let chunk = |source: Source| {
        let web = v1::grounding_chunk::Web { uri: Some(source.uri), title: Some(source.title) };
        v1::GroundingChunk { chunk_type: Some(v1::grounding_chunk::ChunkType::Web(web)) }
    };
    v1::GroundingMetadata {
        web_search_queries: grounding.queries,
        grounding_chunks: grounding.sources.into_iter().map(chunk).collect(),
        ..Default::default()
    }
}

fn function_call(call: ToolCall) -> v1::FunctionCall {
    let args = serde_json::from_str(&call.arguments).ok().and_then(|value| struct_of_json(&value));
    v1::FunctionCall { name: call.name, id: call.id, args }
}

fn heard(at: InputSamples) -> prost_types::Duration {
    duration(at.0, INPUT_RATE)
}

fn duration(samples: u64, rate: u32) -> prost_types::Duration {
    let rate = u64::from(rate);
    let whole = Duration::new(samples / rate, (samples % rate * 1_000_000_000 / rate) as u32);
    // The range of the protobuf type is 10,000 years.
    whole.try_into().unwrap_or_default()
}

fn turn_end(reason: TurnEnd) -> v1::TurnEndReason {
    match reason {
        TurnEnd::Finished(FinishReason::Stop) => v1::TurnEndReason::Stop,
        TurnEnd::Finished(FinishReason::MaxTokens) => v1::TurnEndReason::MaxTokens,
        TurnEnd::Finished(FinishReason::Empty) => v1::TurnEndReason::Empty,
        TurnEnd::Finished(FinishReason::NotAddressed) => v1::TurnEndReason::NotAddressed,
        TurnEnd::Finished(FinishReason::ToolCalls) => v1::TurnEndReason::ToolCalls,
        TurnEnd::Interrupted => v1::TurnEndReason::Interrupted,
        TurnEnd::Failed => v1::TurnEndReason::Failed,
    }
}

fn metrics(waterfall: &Waterfall, ran_dry: u32, response_id: String) -> v1::TurnMetrics {
    v1::TurnMetrics {
        endpoint_ms: waterfall.endpoint,
        transcript_final_ms: waterfall.transcript_final,
        first_token_ms: waterfall.first_token,
        first_audio_generated_ms: waterfall.first_audio_generated,
        first_audio_sent_ms: waterfall.first_audio_sent,
        ran_dry_count: count(ran_dry),
        response_id,
    }
}

fn usage_metadata(usage: &Usage) -> v1::UsageMetadata {
    let details = |text: u32, audio: u32, video: u32| -> Vec<v1::ModalityTokenCount> {
        [(v1::Modality::Text, text), (v1::Modality::Audio, audio), (v1::Modality::Video, video)]
            .into_iter()
            .filter(|(_, tokens)| *tokens > 0)
            .map(|(modality, tokens)| v1::ModalityTokenCount { modality: modality as i32, token_count: count(tokens) })
            .collect()
    };
    let prompt = usage.prompt_text.saturating_add(usage.prompt_audio).saturating_add(usage.prompt_video);
    let response = usage.response_text.saturating_add(usage.response_audio);
    v1::UsageMetadata {
        prompt_token_count: count(prompt),
        response_token_count: count(response),
        total_token_count: count(prompt.saturating_add(response).saturating_add(usage.thoughts)),
        cached_content_token_count: count(usage.cached),
        prompt_tokens_details: details(usage.prompt_text, usage.prompt_audio, usage.prompt_video),
        response_tokens_details: details(usage.response_text, usage.response_audio, 0),
        tool_use_prompt_token_count: count(usage.prompt_tools),
        tool_use_prompt_tokens_details: details(usage.prompt_tools, 0, 0),
        thoughts_token_count: count(usage.thoughts),
        ..Default::default()
    }
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn capabilities(of: &Capabilities) -> v1::Capabilities {
    v1::Capabilities {
        engine: of.engine.clone(),
        models: of.models.clone(),
        audio_in: of.audio_in,
        video_in: of.video_in,
        audio_out: of.audio_out,
        thinking: of.thinking,
        tools: of.tools,
        proactive: of.proactive,
        languages_in: of.languages_in.clone(),
        languages_out: of.languages_out.clone(),
        voices: of
            .voices
            .iter()
            .map(|voice| v1::Voice {
                name: voice.name.clone(),
                language: voice.language.clone(),
                gender: voice.gender.clone(),
            })
            .collect(),
        context_tokens: count(of.context_tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use causerie_model_api::OutputSamples;
    use causerie_session::{Opened, ProblemCode};

    fn encoder(dialect: Dialect) -> Encoder {
        Encoder::new(dialect, Arc::new(Capabilities { engine: "x".into(), ..Default::default() }), "audio/pcm".into())
    }

    fn piece(turn: u64, start: u64) -> Outbound {
        Outbound::Audio {
            turn: TurnId(turn),
            start: OutputSamples(start),
            mime: "audio/pcm;rate=24000".into(),
            data: Bytes::from_static(b"xx"),
        }
    }

    fn position(message: Option<v1::ServerMessage>) -> (String, i64, i64, i32) {
        let Some(MessageType::ServerContent(content)) = message.and_then(|m| m.message_type) else { panic!("content") };
        let audio = content.reply_audio.expect("its place");
        let offset = audio.audio_offset.expect("its offset");
        (audio.response_id, audio.sequence, offset.seconds, offset.nanos)
    }

    #[test]
    fn pieces_are_counted_in_their_reply() {
        let mut encoder = encoder(Dialect::Causerie);
        assert_eq!(position(encoder.encode(piece(1, 0))), ("r1".into(), 0, 0, 0));
        assert_eq!(position(encoder.encode(piece(1, 24_001))), ("r1".into(), 1, 1, 41_666));
        assert_eq!(position(encoder.encode(piece(2, 12))), ("r2".into(), 0, 0, 500_000));
    }

    #[test]
    fn a_published_client_sees_no_empty_messages() {
        let ours = [
            ServerEvent::SpeechStarted { at: InputSamples(16_000) },
            ServerEvent::SpeechStopped { at: InputSamples(32_000) },
            ServerEvent::InterimTranscription { text: "so".into() },
            ServerEvent::Warning(Problem::new(ProblemCode::InvalidArgument, "f", "m")),
        ];
        for event in ours {
            assert!(encoder(Dialect::Compatible).encode(Outbound::Event(event.clone())).is_none(), "{event:?}");
            assert!(encoder(Dialect::Causerie).encode(Outbound::Event(event.clone())).is_some(), "{event:?}");
        }
        let shared = [
            ServerEvent::SetupComplete(Opened::default()),
            ServerEvent::Text { delta: "a".into() },
            ServerEvent::GenerationComplete,
            ServerEvent::Interrupted,
        ];
        for event in shared {
            assert!(encoder(Dialect::Compatible).encode(Outbound::Event(event.clone())).is_some(), "{event:?}");
        }
    }

    #[test]
    fn the_end_of_a_turn_carries_its_costs_and_times() {
        let mut encoder = encoder(Dialect::Causerie);
        encoder.encode(piece(3, 0));
        let usage = Usage {
            prompt_text: 10,
            prompt_audio: 5,
            prompt_tools: 6,
            cached: 4,
            response_text: 3,
            thoughts: 2,
            ..Usage::default()
        };
        let waterfall = Waterfall { endpoint: Some(-1.5), first_audio_sent: Some(700.0), ..Default::default() };
        let event = ServerEvent::TurnComplete {
            reason: TurnEnd::Finished(FinishReason::MaxTokens),
            usage,
            waterfall,
            ran_dry: 1,
        };
        let message = encoder.encode(Outbound::Event(event)).expect("it is for everybody");
        let counts = message.usage_metadata.expect("the costs");
        assert_eq!((counts.prompt_token_count, counts.response_token_count, counts.total_token_count), (15, 3, 20));
        assert_eq!(counts.prompt_tokens_details.len(), 2);
        assert_eq!((counts.tool_use_prompt_token_count, counts.tool_use_prompt_tokens_details.len()), (6, 1));
        assert_eq!(counts.response_tokens_details.len(), 1, "no audio, no entry");
        let Some(MessageType::ServerContent(content)) = message.message_type else { panic!("content") };
        assert!(content.turn_complete && !content.generation_complete);
        assert_eq!(content.turn_end_reason(), v1::TurnEndReason::MaxTokens);
        let metrics = content.turn_metrics.expect("the times");
        assert_eq!((metrics.endpoint_ms, metrics.first_token_ms), (Some(-1.5), None));
        assert_eq!((metrics.ran_dry_count, metrics.response_id.as_str()), (1, "r3"));
    }

    #[test]
    fn arguments_of_calls_are_objects() {
        let call = ToolCall { id: "1".into(), name: "f".into(), arguments: r#"{"a":[1]}"#.into() };
        assert_eq!(function_call(call).args.expect("an object").fields.len(), 1);
    }
}
