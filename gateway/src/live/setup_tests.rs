use super::*;
use causerie_model_api::{Item, MediaResolution};

fn capabilities() -> Capabilities {
    Capabilities { engine: "test".into(), audio_out: true, audio_in: true, tools: true, ..Default::default() }
}

fn catalog() -> Catalog {
    Catalog::new("test", [])
}

fn try_read(wire: &v1::Setup) -> Result<ReadSetup, Problem> {
    read(wire, &catalog(), &capabilities())
}

fn generation(config: v1::GenerationConfig) -> v1::Setup {
    v1::Setup { generation_config: Some(config), ..Default::default() }
}

fn detection(config: v1::realtime_input_config::AutomaticActivityDetection) -> v1::Setup {
    v1::Setup {
        realtime_input_config: Some(v1::RealtimeInputConfig {
            automatic_activity_detection: Some(config),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn function(name: &str) -> v1::FunctionDeclaration {
    v1::FunctionDeclaration { name: name.into(), ..Default::default() }
}

fn functions(declarations: Vec<v1::FunctionDeclaration>) -> v1::Setup {
    v1::Setup {
        tools: vec![v1::Tool { function_declarations: declarations, ..Default::default() }],
        ..Default::default()
    }
}

fn text(role: &str, text: &str) -> v1::Content {
    v1::Content {
        role: role.into(),
        parts: vec![v1::Part { data: Some(v1::part::Data::Text(text.into())), ..Default::default() }],
    }
}

#[test]
fn an_empty_setup_is_the_default() {
    let read = try_read(&v1::Setup::default()).expect("nothing is wrong");
    assert_eq!(read.setup, Setup { model: "test".into(), ..Setup::default() });
    assert_eq!(read.output.mime(), "audio/pcm;rate=24000");
    assert!(read.warnings.is_empty());
}

#[test]
fn every_setting_arrives() {
    let wire = v1::Setup {
        model: "models/default".into(),
        system_instruction: Some(text("", "be brief")),
        generation_config: Some(v1::GenerationConfig {
            candidate_count: Some(1),
            max_output_tokens: Some(100),
            temperature: Some(0.0),
            top_p: Some(0.9),
            top_k: Some(40),
            seed: Some(-1),
            media_resolution: Some(v1::generation_config::MediaResolution::Low as i32),
            presence_penalty: Some(-1.0),
            frequency_penalty: Some(1.5),
            min_p: Some(0.05),
            repetition_penalty: Some(1.1),
            response_modalities: vec![v1::generation_config::Modality::Text as i32],
            speech_config: Some(v1::SpeechConfig {
                voice_config: Some(v1::VoiceConfig {
                    voice_config: Some(v1::voice_config::VoiceConfig::PrebuiltVoiceConfig(v1::PrebuiltVoiceConfig {
                        voice_name: Some("Puck".into()),
                    })),
                }),
                language_code: "en-US".into(),
                multi_speaker_voice_config: None,
            }),
            ..Default::default()
        }),
        realtime_input_config: Some(v1::RealtimeInputConfig {
            automatic_activity_detection: Some(v1::realtime_input_config::AutomaticActivityDetection {
                disabled: Some(true),
                start_of_speech_sensitivity: Some(2),
                prefix_padding_ms: Some(20),
                end_of_speech_sensitivity: Some(1),
                silence_duration_ms: Some(700),
            }),
            activity_handling: Some(2),
            turn_coverage: Some(2),
        }),
        input_audio_transcription: Some(v1::AudioTranscriptionConfig {}),
        output_audio_transcription: Some(v1::AudioTranscriptionConfig {}),
        output_audio_format: "audio/pcmu".into(),
        interim_transcripts: true,
        speaking_rate: Some(1.5),
        history: vec![text("user", "hello"), text("model", "hi")],
        ..functions(vec![function("look_up")])
    };
    let ReadSetup { setup, output, warnings, resolution } = try_read(&wire).expect("nothing is wrong");
    assert_eq!(resolution, MediaResolution::Low);
    assert!(warnings.is_empty());
    assert_eq!(output, OutputFormat::Mulaw);
    assert_eq!(setup.system_instruction, "be brief");
    assert_eq!((setup.voice.as_deref(), setup.language.as_deref()), (Some("Puck"), Some("en-US")));
    assert_eq!((setup.modality, setup.max_output_tokens, setup.speaking_rate), (Modality::Text, Some(100), 1.5));
    let sampling = setup.sampling;
    assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k), (Some(0.0), Some(0.9), Some(40)));
    assert_eq!((sampling.min_p, sampling.repetition_penalty), (Some(0.05), Some(1.1)));
    assert_eq!((sampling.presence_penalty, sampling.frequency_penalty), (Some(-1.0), Some(1.5)));
    assert_eq!(sampling.seed, Some(0xffff_ffff));
    let detection = Detection {
        disabled: true,
        start_sensitivity: Sensitivity::Low,
        end_sensitivity: Sensitivity::High,
        start_confirm_ms: Some(20),
        silence_duration_ms: Some(700),
    };
    assert_eq!((setup.detection, setup.interruption, setup.covers_all_input), (detection, false, true));
    assert!(setup.input_transcription && setup.output_transcription && setup.interim_transcription);
    assert_eq!(setup.history.len(), 2);
    assert_eq!(setup.history[0], Item::text(causerie_model_api::Role::User, "hello"));
    let parameters: serde_json::Value = serde_json::from_str(&setup.tools[0].parameters).expect("JSON");
    assert_eq!(parameters, serde_json::json!({"type": "object", "properties": {}}));
}

#[test]
fn what_cannot_be_served_is_refused_by_its_field() {
    use ProblemCode::{InvalidArgument, NotFound, Unimplemented};
    let value = prost_types::Value::from(1.0);
    let tool = |tool: v1::Tool| v1::Setup { tools: vec![tool], ..Default::default() };
    let config = v1::GenerationConfig::default;
    let detect = v1::realtime_input_config::AutomaticActivityDetection::default;
    let cases = [
        (v1::Setup { model: "models/none".into(), ..Default::default() }, NotFound, "setup.model"),
        (compression(Some(0), None), InvalidArgument, "setup.context_window_compression.trigger_tokens"),
        (compression(None, Some(-1)), InvalidArgument, "setup.context_window_compression.sliding_window.target_tokens"),
        (
            generation(v1::GenerationConfig { candidate_count: Some(2), ..config() }),
            InvalidArgument,
            "setup.generation_config.candidate_count",
        ),
        (
            generation(v1::GenerationConfig { stop_sequences: vec!["x".into()], ..config() }),
            InvalidArgument,
            "setup.generation_config.stop_sequences",
        ),
        (
            generation(v1::GenerationConfig { logprobs: Some(3), ..config() }),
            InvalidArgument,
            "setup.generation_config.logprobs",
        ),
        (
            generation(v1::GenerationConfig { response_mime_type: "application/json".into(), ..config() }),
            InvalidArgument,
            "setup.generation_config.response_mime_type",
        ),
        (
            generation(v1::GenerationConfig { response_schema: Some(v1::Schema::default()), ..config() }),
            InvalidArgument,
            "setup.generation_config.response_schema",
        ),
        (
            generation(v1::GenerationConfig { response_json_schema: Some(value.clone()), ..config() }),
            InvalidArgument,
            "setup.generation_config.response_json_schema",
        ),
        (
            generation(v1::GenerationConfig { temperature: Some(f32::NAN), ..config() }),
            InvalidArgument,
            "setup.generation_config.temperature",
        ),
        (
            generation(v1::GenerationConfig { temperature: Some(2.5), ..config() }),
            InvalidArgument,
            "setup.generation_config.temperature",
        ),
        (
            generation(v1::GenerationConfig { top_p: Some(0.0), ..config() }),
            InvalidArgument,
            "setup.generation_config.top_p",
        ),
        (
            generation(v1::GenerationConfig { top_k: Some(0), ..config() }),
            InvalidArgument,
            "setup.generation_config.top_k",
        ),
        (
            generation(v1::GenerationConfig { max_output_tokens: Some(-5), ..config() }),
            InvalidArgument,
            "setup.generation_config.max_output_tokens",
        ),
        (
            generation(v1::GenerationConfig { response_modalities: vec![1, 3], ..config() }),
            InvalidArgument,
            "setup.generation_config.response_modalities",
        ),
        (
            generation(v1::GenerationConfig { response_modalities: vec![77], ..config() }),
            InvalidArgument,
            "setup.generation_config.response_modalities",
        ),
        (
            generation(v1::GenerationConfig {
                thinking_config: Some(v1::ThinkingConfig { thinking_budget: Some(-2), ..Default::default() }),
                ..config()
            }),
            InvalidArgument,
            "setup.generation_config.thinking_config.thinking_budget",
        ),
        (
            detection(v1::realtime_input_config::AutomaticActivityDetection {
                silence_duration_ms: Some(-1),
                ..detect()
            }),
            InvalidArgument,
            "setup.realtime_input_config.automatic_activity_detection.silence_duration_ms",
        ),
        (
            detection(v1::realtime_input_config::AutomaticActivityDetection {
                end_of_speech_sensitivity: Some(9),
                ..detect()
            }),
            InvalidArgument,
            "setup.realtime_input_config.automatic_activity_detection.end_of_speech_sensitivity",
        ),
        (
            tool(v1::Tool { code_execution: Some(v1::CodeExecution {}), ..Default::default() }),
            Unimplemented,
            "setup.tools[0].code_execution",
        ),
        (
            tool(v1::Tool { url_context: Some(v1::UrlContext {}), ..Default::default() }),
            Unimplemented,
            "setup.tools[0].url_context",
        ),
        (functions(vec![function("2x")]), InvalidArgument, "setup.tools[0].function_declarations[0].name"),
        (functions(vec![function("")]), InvalidArgument, "setup.tools[0].function_declarations[0].name"),
        (
            functions(vec![function("a"), function("a")]),
            InvalidArgument,
            "setup.tools[0].function_declarations[1].name",
        ),
        (
            functions(vec![v1::FunctionDeclaration { parameters_json_schema: Some(value), ..function("a") }]),
            InvalidArgument,
            "setup.tools[0].function_declarations[0].parameters_json_schema",
        ),
        (functions((0..129).map(|i| function(&format!("f{i}"))).collect()), InvalidArgument, "setup.tools"),
        (v1::Setup { speaking_rate: Some(9.0), ..Default::default() }, InvalidArgument, "setup.speaking_rate"),
        (
            v1::Setup { output_audio_format: "audio/pcm;rate=11025".into(), ..Default::default() },
            InvalidArgument,
            "setup.output_audio_format",
        ),
        (
            v1::Setup { history: vec![text("robot", "x")], ..Default::default() },
            InvalidArgument,
            "setup.history[0].role",
        ),
    ];
    let mut wrong = Vec::new();
    for (wire, code, field) in cases {
        match try_read(&wire) {
            Err(problem) if problem.code == code && problem.field == field => {}
            other => wrong.push(format!("{field}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn compression(trigger_tokens: Option<i64>, target_tokens: Option<i64>) -> v1::Setup {
    use v1::context_window_compression_config::{CompressionMechanism, SlidingWindow};
    let compression_mechanism = Some(CompressionMechanism::SlidingWindow(SlidingWindow { target_tokens }));
    let config = v1::ContextWindowCompressionConfig { trigger_tokens, compression_mechanism };
    v1::Setup { context_window_compression: Some(config), ..Default::default() }
}

#[test]
fn compression_is_passed_on() {
    let read = try_read(&compression(Some(i64::MAX), Some(500))).expect("valid");
    let wanted = Compression { trigger_tokens: Some(u32::MAX), target_tokens: Some(500) };
    assert_eq!(read.setup.compression, wanted);
    let by_default = v1::ContextWindowCompressionConfig::default();
    let wire = v1::Setup { context_window_compression: Some(by_default), ..Default::default() };
    assert_eq!(try_read(&wire).expect("valid").setup.compression, Compression::default());
}

#[test]
fn what_has_no_effect_is_told() {
    let wire = v1::Setup {
        proactivity: Some(v1::Proactivity { proactive_audio: Some(true) }),
        ..generation(v1::GenerationConfig {
            thinking_config: Some(v1::ThinkingConfig { thinking_budget: Some(100), include_thoughts: None }),
            ..Default::default()
        })
    };
    let read = try_read(&wire).expect("it is served all the same");
    let fields: Vec<&str> = read.warnings.iter().map(|w| w.field.as_str()).collect();
    assert_eq!(fields, ["setup.generation_config.thinking_config", "setup.proactivity.proactive_audio"]);
    assert_eq!(read.setup.thinking.budget, Some(0));
}

#[test]
fn an_engine_is_asked_for_nothing_that_it_cannot_do() {
    let mute = Capabilities { audio_out: false, tools: false, ..capabilities() };
    let read_mute = |wire: &v1::Setup| read(wire, &catalog(), &mute);
    assert_eq!(read_mute(&v1::Setup::default()).expect("text is the default").setup.modality, Modality::Text);
    let audio = generation(v1::GenerationConfig { response_modalities: vec![3], ..Default::default() });
    let problem = read_mute(&audio).expect_err("it does not speak");
    assert_eq!(problem.field, "setup.generation_config.response_modalities");
    let problem = read_mute(&functions(vec![function("f")])).expect_err("it cannot call");
    assert_eq!((problem.code, problem.field.as_str()), (ProblemCode::Unimplemented, "setup.tools"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 256, ..Default::default() })]
    /// Bytes that were a message before they were damaged are refused or read, and nothing else.
    #[test]
    fn damaged_messages_do_no_harm(
        which in 0..3usize, cut in 0..400usize, damage in proptest::collection::vec((0..400usize, 0..=255u8), 0..6),
    ) {
        use prost::Message as _;
        use v1::client_message::MessageType;
        let content = text("user", "hello");
        let call = v1::FunctionCall {
            name: "f".into(),
            id: "1".into(),
            args: Some(prost_types::Struct { fields: [("n".to_owned(), 3.0.into())].into() }),
        };
        let part = v1::Part { data: Some(v1::part::Data::FunctionCall(call)), ..Default::default() };
        let message = match which {
            0 => MessageType::Setup(Box::new(v1::Setup {
                system_instruction: Some(content.clone()),
                history: vec![content],
                speaking_rate: Some(1.0),
                output_audio_format: "audio/opus".into(),
                ..functions(vec![v1::FunctionDeclaration {
                    parameters: Some(v1::Schema { r#type: 6, ..Default::default() }),
                    ..function("f")
                }])
            })),
            1 => MessageType::ClientContent(v1::ClientContent {
                turns: vec![content, v1::Content { role: "model".into(), parts: vec![part] }],
                turn_complete: true,
            }),
            _ => MessageType::RealtimeInput(v1::RealtimeInput {
                audio: Some(v1::Blob { mime_type: "audio/pcm;rate=16000".into(), data: vec![1; 64].into() }),
                text: Some("hello".into()),
                audio_stream_end: Some(true),
                ..Default::default()
            }),
        };
        let mut bytes = v1::ClientMessage { message_type: Some(message) }.encode_to_vec();
        bytes.truncate(cut.max(1));
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(message) = v1::ClientMessage::decode(&bytes[..]) {
            if let Some(MessageType::Setup(setup)) = &message.message_type {
                let _ = try_read(setup);
            }
            let actions = super::super::inbound::read(message, None);
            proptest::prop_assert!(actions.len() <= 7);
        }
    }
}
