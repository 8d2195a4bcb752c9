use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(value: Value) -> Result<v1::ClientMessage, JsonError> {
    read_client_message(value.to_string().as_bytes())
}

fn setup(value: Value) -> v1::Setup {
    match read(value).map(|message| message.message_type) {
        Ok(Some(MessageType::Setup(setup))) => *setup,
        other => panic!("{other:?}"),
    }
}

fn audio(value: Value) -> v1::Blob {
    match read(value).map(|message| message.message_type) {
        Ok(Some(MessageType::RealtimeInput(input))) => input.audio.expect("audio"),
        other => panic!("{other:?}"),
    }
}

/// What google-genai 3.4.0 sends with every option set, whose casing is mixed.
#[test]
fn a_setup_of_the_python_sdk_is_read() {
    let setup = setup(json!({"setup": {
        "model": "models/live-local",
        "generationConfig": {
            "responseModalities": ["AUDIO"], "temperature": 0.5, "topP": 0.9, "topK": 40.0,
            "mediaResolution": "MEDIA_RESOLUTION_LOW", "seed": 1, "enableAffectiveDialog": true,
            "speechConfig": {"voice_config": {"prebuilt_voice_config": {"voice_name": "Kore"}}, "language_code": "en-US"},
            "thinkingConfig": {"include_thoughts": true, "thinking_budget": 128}},
        "systemInstruction": {"parts": [{"text": "be brief"}], "role": "user"},
        "tools": [{"functionDeclarations": [{"name": "get_time", "parameters": {
            "properties": {"tz": {"type": "STRING"}}, "required": ["tz"], "type": "OBJECT"}}]}],
        "sessionResumption": {}, "inputAudioTranscription": {"language_codes": ["en-US"]},
        "realtimeInputConfig": {
            "automatic_activity_detection": {
                "start_of_speech_sensitivity": "START_SENSITIVITY_HIGH", "prefix_padding_ms": 20,
                "silence_duration_ms": "500"},
            "activity_handling": "NO_INTERRUPTION"},
        "contextWindowCompression": {"trigger_tokens": 25600, "sliding_window": {"target_tokens": "12800"}},
        "proactivity": {"proactive_audio": true}}}));
    let generation = setup.generation_config.expect("it is set");
    assert_eq!((generation.top_k, generation.response_modalities), (Some(40), vec![3]));
    assert_eq!(generation.thinking_config.and_then(|t| t.thinking_budget), Some(128));
    assert_eq!(generation.speech_config.map(|s| s.language_code), Some("en-US".into()));
    let realtime = setup.realtime_input_config.expect("it is set");
    assert_eq!(realtime.activity_handling, Some(2));
    let detection = realtime.automatic_activity_detection.expect("it is set");
    assert_eq!((detection.prefix_padding_ms, detection.silence_duration_ms), (Some(20), Some(500)));
    let compression = setup.context_window_compression.expect("it is set");
    assert_eq!(compression.trigger_tokens, Some(25_600));
    let tool = &setup.tools[0].function_declarations[0];
    assert_eq!(tool.parameters.as_ref().map(|p| p.properties["tz"].r#type), Some(1));
}

#[test]
fn both_alphabets_of_base64_are_read() {
    for data in ["-_-_AA==", "+/+/AA==", "-_-_AA", "+/+/AA"] {
        let blob = audio(json!({"realtime_input": {"audio": {"data": data, "mime_type": "audio/pcm"}}}));
        assert_eq!(&blob.data[..], [0xfb, 0xff, 0xbf, 0], "{data}");
    }
}

#[test]
fn enums_are_names_or_numbers() {
    for (value, expected) in [(json!("NO_INTERRUPTION"), 2), (json!(2), 2), (json!(77), 77)] {
        let setup = setup(json!({"setup": {"realtimeInputConfig": {"activityHandling": value}}}));
        assert_eq!(setup.realtime_input_config.and_then(|r| r.activity_handling), Some(expected));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let secret = "x".repeat(1_000);
    for (json, field, words) in [
        ("", "", "not JSON"),
        ("{", "", "not JSON"),
        ("nonsense", "", "not JSON"),
        ("{} {}", "", "not JSON"),
        ("[]", "", "does not fit"),
        (r#"{"setup":3}"#, "", "does not fit"),
        (r#"{"setup":{},"clientContent":{}}"#, "", "multiple fields"),
        (r#"{"setup":{"generationConfig":{"topK":4.5}}}"#, "", "does not fit"),
        (r#"{"setup":{"generationConfig":{"topK":"four"}}}"#, "", "does not fit"),
        (r#"{"realtimeInput":{"audio":{"data":"+_+_"}}}"#, "", "base64"),
        (r#"{"realtimeInput":{"audio":{"data":"A"}}}"#, "", "base64"),
        (
            r#"{"setup":{"generationConfig":{"responseModalities":["TEXT","SMELL"]}}}"#,
            "setup.generation_config.response_modalities",
            "SMELL",
        ),
        (
            r#"{"tool_response":{"function_responses":[{"scheduling":"LATER"}]}}"#,
            "tool_response.function_responses.scheduling",
            "WHEN_IDLE",
        ),
        (&format!(r#"{{"setup":{{"model":["{secret}"]}}}}"#), "", "does not fit"),
    ] {
        let error = read_client_message(json.as_bytes()).expect_err(json);
        assert_eq!(error.field, field, "{json}");
        assert!(error.message.contains(words), "{json}: {error:?}");
        assert!(error.message.len() < 300 && !error.message.contains("xxx"), "{json}: {error:?}");
    }
    assert!(read_client_message(&[0xff, 0xfe]).is_err());
    assert!(read_client_message("[".repeat(100_000).as_bytes()).is_err());
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let response = format!(r#"{{"toolResponse":{{"functionResponses":[{{"response":{{"x":{deep}}}}}]}}}}"#);
    assert!(read_client_message(response.as_bytes()).is_err());
    let unknown = format!(r#"{{"setup":{{"x":{deep}}}}}"#);
    assert!(read_client_message(unknown.as_bytes()).is_ok(), "what is not known is skipped, however deep");
}

#[test]
fn messages_are_written_in_camel_case() {
    let part = v1::Part {
        data: Some(v1::part::Data::InlineData(v1::Blob {
            mime_type: "audio/pcm;rate=24000".into(),
            data: vec![0xfb, 0xff, 0xbf].into(),
        })),
        ..Default::default()
    };
    let content = v1::ServerContent {
        model_turn: Some(v1::Content { role: "model".into(), parts: vec![part] }),
        turn_complete: true,
        turn_end_reason: v1::TurnEndReason::Stop as i32,
        ..Default::default()
    };
    let message = v1::ServerMessage {
        message_type: Some(v1::server_message::MessageType::ServerContent(content)),
        usage_metadata: Some(Box::new(v1::UsageMetadata { prompt_token_count: 3, ..Default::default() })),
    };
    let expected = json!({
        "serverContent": {
            "modelTurn": {
                "parts": [{"inlineData": {"mimeType": "audio/pcm;rate=24000", "data": "+/+/"}}], "role": "model"},
            "turnComplete": true, "turnEndReason": "TURN_END_REASON_STOP"},
        "usageMetadata": {"promptTokenCount": 3}});
    assert_eq!(write_server_message(&message), expected);
}

/// Any JSON, with names of the contract likely.
fn any_json() -> impl Strategy<Value = Value> {
    const NAMES: &[&str] = &[
        "setup",
        "clientContent",
        "realtime_input",
        "toolResponse",
        "generationConfig",
        "tools",
        "parts",
        "role",
        "text",
        "audio",
        "data",
        "mimeType",
        "turns",
        "response",
        "args",
        "functionResponses",
        "scheduling",
        "topK",
        "seed",
        "parameters",
        "properties",
        "type",
        "enum",
        "history",
        "timeLeft",
        "timeRangeFilter",
        "startTime",
        "googleSearch",
        "other",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[A-Za-z0-9+/_=.-]{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

/// What every input must survive; the body of the fuzz target.
fn survives(bytes: &[u8]) {
    if let Ok(message) = read_client_message(bytes) {
        let again = v1::ClientMessage::decode(&message.encode_to_vec()[..]).expect("a message encodes as one");
        assert_eq!(again, message);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..Default::default() })]

    #[test]
    fn any_json_is_read_or_refused(value in any_json()) {
        survives(value.to_string().as_bytes());
    }

    #[test]
    fn damaged_json_is_read_or_refused(
        value in any_json(), damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = value.to_string().into_bytes();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        survives(&bytes);
    }
}
