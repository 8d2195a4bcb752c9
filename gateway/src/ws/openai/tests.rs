use super::*;
use causerie_proto::json::read_client_message;
use proptest::prelude::*;

/// A session whose setups are all served, by a voice called as it was asked for.
fn session() -> (OpenAi, Out) {
    let check: Check = Box::new(|setup| {
        let voice = format!("{:?}", setup.generation_config.as_ref().and_then(|g| g.speech_config.clone()).is_some());
        Ok(Opened { model: "scripted".into(), voice, ..Opened::default() })
    });
    let mut wire = OpenAi::new("gpt-realtime", check);
    let mut out = Out::default();
    wire.open(&mut out).expect("it is served");
    (wire, out)
}

/// A session that has begun.
fn begun() -> (OpenAi, Out) {
    let (wire, mut out) = session();
    out.frames.clear();
    out.messages.clear();
    (wire, out)
}

fn events(out: &mut Out) -> Vec<Value> {
    out.frames.drain(..).map(|frame| serde_json::from_str(&frame).expect("it is JSON")).collect()
}

fn kinds(out: &mut Out) -> Vec<String> {
    events(out).iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
}

fn send(wire: &mut OpenAi, out: &mut Out, event: Value) {
    wire.receive(event.to_string().as_bytes(), out).expect("events never end a session");
}

/// The only error that the event leads to.
fn refused(wire: &mut OpenAi, out: &mut Out, event: Value) -> (String, String) {
    send(wire, out, event.clone());
    let told = events(out);
    let [error] = &told[..] else { panic!("{event}: {told:?}") };
    assert_eq!(error["type"], "error", "{event}: {error}");
    let word = |name: &str| error["error"][name].as_str().unwrap_or_default().to_owned();
    (word("code"), word("param"))
}

fn say(wire: &mut OpenAi, out: &mut Out, message: Value) {
    let message: v1::ServerMessage = server_message(message);
    wire.reply(message, out);
}

fn server_message(json: Value) -> v1::ServerMessage {
    let content = &json["serverContent"];
    let text = |name: &str| {
        content[name]["text"]
            .as_str()
            .map(|text| v1::Transcription { text: text.into(), finished: content[name]["finished"] == true })
    };
    let parts = content["audio"].as_u64().map(|n| v1::Content {
        role: "model".into(),
        parts: vec![v1::Part {
            data: Some(v1::part::Data::InlineData(v1::Blob {
                mime_type: "audio/pcm".into(),
                data: vec![1; n as usize].into(),
            })),
            ..Default::default()
        }],
    });
    let kind = match json["tool_call"].as_str() {
        Some(id) => FromServer::ToolCall(v1::ToolCall {
            function_calls: vec![v1::FunctionCall { id: id.into(), name: "clock".into(), args: None }],
        }),
        None => match json["speech"].as_str() {
            Some("started") => FromServer::SpeechStarted(v1::SpeechStarted { audio_offset: None }),
            Some(_) => FromServer::SpeechStopped(v1::SpeechStopped { audio_offset: None }),
            None => FromServer::ServerContent(v1::ServerContent {
                model_turn: parts,
                input_transcription: text("heard"),
                output_transcription: text("said"),
                generation_complete: content["complete"] == true,
                waiting_for_tools: content["waiting"] == true,
                interrupted: content["interrupted"] == true,
                turn_complete: content["end"].is_u64(),
                turn_end_reason: content["end"].as_u64().unwrap_or(0) as i32,
                ..Default::default()
            }),
        },
    };
    v1::ServerMessage { message_type: Some(kind), usage_metadata: None }
}

/// One word for a message to the conversation.
fn word(message: &v1::ClientMessage) -> String {
    match &message.message_type {
        Some(ToServer::Setup(_)) => "setup".into(),
        Some(ToServer::RealtimeInput(input)) => match input {
            v1::RealtimeInput { audio: Some(blob), .. } => format!("{} {}", blob.mime_type, blob.data.len()),
            v1::RealtimeInput { activity_start: Some(_), .. } => "start".into(),
            v1::RealtimeInput { activity_end: Some(_), .. } => "end".into(),
            _ => "stream end".into(),
        },
        Some(ToServer::ClientContent(content)) => format!("content {} {}", content.turns.len(), content.turn_complete),
        Some(ToServer::ToolResponse(response)) => format!("results {}", response.function_responses.len()),
        Some(ToServer::CancelReply(_)) => "cancel".into(),
        Some(ToServer::PlaybackProgress(progress)) => format!("played {}", progress.played_ms),
        other => format!("{other:?}"),
    }
}

fn words(out: &mut Out) -> Vec<String> {
    out.messages.drain(..).map(|message| word(&message)).collect()
}

const NO_DETECTION: &str =
    r#"{"type":"session.update","session":{"type":"realtime","audio":{"input":{"turn_detection":null}}}}"#;

#[test]
fn a_session_is_told_and_changed() {
    let (mut wire, mut out) = session();
    let told = events(&mut out);
    assert_eq!(told[0]["type"], "session.created");
    let created = &told[0]["session"];
    assert_eq!((&created["model"], &created["voice"]), (&json!("scripted"), &Value::Null));
    assert_eq!(created["audio"]["input"]["turn_detection"]["type"], "server_vad");
    assert_eq!(words(&mut out), ["setup"]);
    let update = json!({"type": "session.update", "session": {
        "type": "realtime", "instructions": "be brief", "max_output_tokens": 50, "nothing": {"known": 1},
        "tools": [{"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}}],
        "audio": {"input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "whisper-1"},
                            "turn_detection": {"type": "server_vad", "silence_duration_ms": 700}},
                  "output": {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1.2}}}});
    send(&mut wire, &mut out, update);
    let told = events(&mut out);
    let session = &told[0]["session"];
    assert_eq!(told[0]["type"], "session.updated");
    assert_eq!((&session["instructions"], &session["max_output_tokens"]), (&json!("be brief"), &json!(50)));
    assert_eq!(session["audio"]["input"]["turn_detection"]["silence_duration_ms"], 700);
    assert!(out.anew, "nobody speaks: it has an effect at once");
    let Some(ToServer::Setup(setup)) = out.messages.pop_front().and_then(|m| m.message_type) else { panic!("a setup") };
    assert_eq!((setup.output_audio_format.as_str(), setup.speaking_rate), ("audio/pcma", Some(1.2)));
    assert_eq!(setup.tools[0].function_declarations[0].name, "clock");
    let generation = setup.generation_config.expect("it is set");
    assert_eq!(generation.max_output_tokens, Some(50));
    send(&mut wire, &mut out, json!({"type": "input_audio_buffer.append", "audio": "AAAA"}));
    assert_eq!(words(&mut out), ["audio/pcmu 3"]);
    // What is not named stays.
    send(&mut wire, &mut out, json!({"type": "session.update", "session": {"instructions": ""}}));
    let told = events(&mut out);
    assert_eq!(
        (&told[0]["session"]["instructions"], &told[0]["session"]["max_output_tokens"]),
        (&json!(""), &json!(50))
    );
}

#[test]
fn a_spoken_turn_is_told_in_the_order_of_the_api() {
    let (mut wire, mut out) = begun();
    send(
        &mut wire,
        &mut out,
        json!({"type": "session.update", "session": {"audio": {"input": {"transcription": {}}}}}),
    );
    out = Out::default();
    for message in [
        json!({"speech": "started"}),
        json!({"serverContent": {"heard": {"text": "What is"}}}),
        json!({"speech": "stopped"}),
        json!({"serverContent": {"heard": {"text": " the time?", "finished": true}}}),
        json!({"serverContent": {"audio": 4_800}}),
        json!({"serverContent": {"said": {"text": "It is"}}}),
        json!({"serverContent": {"audio": 4_800}}),
        json!({"serverContent": {"said": {"text": " noon."}}}),
        json!({"serverContent": {"complete": true}}),
        json!({"serverContent": {"end": 1}}),
    ] {
        say(&mut wire, &mut out, message);
    }
    let told = events(&mut out);
    let kinds: Vec<&str> = told.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(
        kinds,
        [
            "input_audio_buffer.speech_started",
            "conversation.item.input_audio_transcription.delta",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.input_audio_transcription.delta",
            "conversation.item.input_audio_transcription.completed",
            "response.created",
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio.delta",
            "response.output_audio_transcript.delta",
            "response.output_audio.delta",
            "response.output_audio_transcript.delta",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "conversation.item.done",
            "response.done",
        ]
    );
    assert_eq!(told[7]["transcript"], "What is the time?");
    assert_eq!(told[7]["item_id"], told[0]["item_id"]);
    let done = &told[21]["response"];
    assert_eq!(
        (&done["status"], &done["output"][0]["content"][0]["transcript"]),
        (&json!("completed"), &json!("It is noon."))
    );
    // What was said can be begun anew with.
    let history = wire.items.history();
    assert_eq!(history[0], json!({"role": "user", "parts": [{"text": "What is the time?"}]}));
    assert_eq!(history[1], json!({"role": "model", "parts": [{"text": "It is noon."}]}));
}

#[test]
fn without_detection_the_client_commits() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, serde_json::from_str(NO_DETECTION).expect("JSON"));
    out = Out::default();
    let commit = json!({"type": "input_audio_buffer.commit"});
    assert_eq!(refused(&mut wire, &mut out, commit.clone()).0, "input_audio_buffer_commit_empty");
    // 100 ms.
    let audio = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode([0_u8; 4_800])});
    send(&mut wire, &mut out, audio.clone());
    send(&mut wire, &mut out, json!({"type": "input_audio_buffer.clear"}));
    assert_eq!(kinds(&mut out), ["input_audio_buffer.cleared"]);
    assert_eq!(refused(&mut wire, &mut out, commit.clone()).0, "input_audio_buffer_commit_empty");
    send(&mut wire, &mut out, audio);
    send(&mut wire, &mut out, commit);
    assert_eq!(kinds(&mut out), ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]);
    assert!(words(&mut out).is_empty(), "nothing is answered before the client asks");
    send(&mut wire, &mut out, json!({"type": "response.create", "response": {"metadata": {"a": "b"}}}));
    assert_eq!(words(&mut out), ["start", "audio/pcm;rate=24000 4800", "end"]);
    let created = events(&mut out);
    assert_eq!(
        (&created[0]["type"], &created[0]["response"]["metadata"]["a"]),
        (&json!("response.created"), &json!("b"))
    );
    // Marks of ours are no news.
    say(&mut wire, &mut out, json!({"speech": "started"}));
    say(&mut wire, &mut out, json!({"speech": "stopped"}));
    assert!(out.frames.is_empty());
    assert_eq!(
        refused(&mut wire, &mut out, json!({"type": "response.create"})).0,
        "conversation_already_has_active_response"
    );
}

#[test]
fn collected_audio_is_bounded() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, serde_json::from_str(NO_DETECTION).expect("JSON"));
    // A second at a time.
    let audio = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(vec![0_u8; 48_000])});
    for _ in 0..100 {
        send(&mut wire, &mut out, audio.clone());
    }
    assert_eq!(wire.collected.len(), MAX_COLLECTED_MS * 48);
}

#[test]
fn a_function_is_called_and_answered() {
    let (mut wire, mut out) = begun();
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 480}}));
    say(&mut wire, &mut out, json!({"tool_call": "call-1"}));
    say(&mut wire, &mut out, json!({"serverContent": {"waiting": true}}));
    let told = events(&mut out);
    let done = told.last().expect("an event");
    assert_eq!((&done["type"], &done["response"]["status"]), (&json!("response.done"), &json!("completed")));
    let output = &done["response"]["output"];
    assert_eq!((&output[0]["type"], &output[1]["type"]), (&json!("message"), &json!("function_call")));
    assert!(told.iter().any(|event| event["type"] == "response.function_call_arguments.done"
        && event["call_id"] == "call-1"
        && event["name"] == "clock"));
    let item = json!({"type": "function_call_output", "call_id": "call-1", "output": "{\"time\":\"noon\"}"});
    send(&mut wire, &mut out, json!({"type": "conversation.item.create", "item": item}));
    assert_eq!(kinds(&mut out), ["conversation.item.added", "conversation.item.done"]);
    assert!(words(&mut out).is_empty(), "the turn goes on when the client asks");
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    assert_eq!(words(&mut out), ["results 1"]);
    assert_eq!(kinds(&mut out), ["response.created"]);
}

#[test]
fn a_reply_is_interrupted_cancelled_and_truncated() {
    for (cancel, reason) in [(false, "turn_detected"), (true, "client_cancelled")] {
        let (mut wire, mut out) = begun();
        say(&mut wire, &mut out, json!({"serverContent": {"audio": 4_800}}));
        say(&mut wire, &mut out, json!({"serverContent": {"said": {"text": "One"}}}));
        say(&mut wire, &mut out, json!({"serverContent": {"audio": 4_800}}));
        say(&mut wire, &mut out, json!({"serverContent": {"said": {"text": " two"}}}));
        let item = wire.items.last_id().expect("a message").to_owned();
        let truncate = json!({
            "type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 150});
        if cancel {
            send(&mut wire, &mut out, json!({"type": "response.cancel"}));
            assert_eq!(words(&mut out), ["cancel"]);
        }
        send(&mut wire, &mut out, truncate.clone());
        assert_eq!(words(&mut out), ["played 150"]);
        say(&mut wire, &mut out, json!({"serverContent": {"interrupted": true}}));
        say(&mut wire, &mut out, json!({"serverContent": {"end": 5}}));
        let told = events(&mut out);
        let done = &told.last().expect("an event")["response"];
        assert_eq!((&done["status"], &done["status_details"]["reason"]), (&json!("cancelled"), &json!(reason)));
        assert_eq!(done["output"][0]["status"], "incomplete");
        let history = wire.items.history();
        assert_eq!(history[0]["parts"][0]["text"], "One", "the second word was sent with 200 ms");
        send(&mut wire, &mut out, truncate);
        assert_eq!(kinds(&mut out), ["conversation.item.truncated"]);
        assert!(!out.anew, "the engine has no more than was heard");
    }
}

#[test]
fn a_whole_reply_is_truncated() {
    let (mut wire, mut out) = begun();
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 4_800}}));
    say(&mut wire, &mut out, json!({"serverContent": {"said": {"text": "One"}}}));
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 4_800}}));
    say(&mut wire, &mut out, json!({"serverContent": {"said": {"text": " two"}}}));
    let item = wire.items.last_id().expect("a message").to_owned();
    say(&mut wire, &mut out, json!({"serverContent": {"complete": true}}));
    send(
        &mut wire,
        &mut out,
        json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 100}),
    );
    assert!(!out.anew, "the turn is not over");
    say(&mut wire, &mut out, json!({"serverContent": {"end": 1}}));
    assert!(out.anew);
    assert_eq!(wire.items.history()[0]["parts"][0]["text"], "One");
}

#[test]
fn utterances_that_nobody_answers_are_bounded() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, serde_json::from_str(NO_DETECTION).expect("JSON"));
    let audio = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode([0_u8; 4_800])});
    for _ in 0..2 * MAX_UTTERANCES {
        send(&mut wire, &mut out, audio.clone());
        send(&mut wire, &mut out, json!({"type": "input_audio_buffer.commit"}));
    }
    assert_eq!(wire.utterances.len(), MAX_UTTERANCES);
}

#[test]
fn audio_on_its_way_goes_to_the_conversation_that_comes() {
    let (mut wire, mut out) = begun();
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 480}}));
    send(&mut wire, &mut out, json!({"type": "session.update", "session": {"instructions": "be brief"}}));
    send(&mut wire, &mut out, json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode([0_u8; 960])}));
    say(&mut wire, &mut out, json!({"serverContent": {"end": 1}}));
    assert!(out.anew);
    assert_eq!(words(&mut out), ["setup", "audio/pcm;rate=24000 960"]);
    assert_eq!(wire.begun_us, 0, "it was not heard by the conversation before");
}

#[test]
fn a_history_that_is_too_long_loses_its_oldest() {
    let check: Check = Box::new(|setup| match setup.history.len() {
        0..3 => Ok(Opened::default()),
        n => Err(Problem::new(ProblemCode::InvalidArgument, "setup.history", format!("{n} are too many"))),
    });
    let (mut wire, mut out) = (OpenAi::new("gpt-realtime", check), Out::default());
    wire.open(&mut out).expect("it is served");
    for word in ["one", "two", "three", "four"] {
        let item = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": word}]});
        send(&mut wire, &mut out, json!({"type": "conversation.item.create", "item": item}));
    }
    out.messages.clear();
    send(&mut wire, &mut out, json!({"type": "session.update", "session": {"instructions": "be brief"}}));
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    let Some(ToServer::Setup(setup)) = out.messages.pop_front().and_then(|m| m.message_type) else { panic!("a setup") };
    let texts = setup.history.iter().flat_map(|content| &content.parts).map(|part| format!("{:?}", part.data));
    let texts = texts.collect::<Vec<_>>().join(" ");
    assert!(texts.contains("four") && !texts.contains("one"), "{texts}");
}

#[test]
fn a_response_to_nothing_ends() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    let problem = v1::Problem {
        code: "INVALID_ARGUMENT".into(),
        field: "client_content.turns".into(),
        message: "there is nothing to answer".into(),
        ..Default::default()
    };
    wire.warning(problem, &mut out);
    assert_eq!(kinds(&mut out).last().map(String::as_str), Some("response.done"));
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    assert!(kinds(&mut out).contains(&"response.created".to_owned()), "another is not refused");
}

#[test]
fn what_was_committed_and_deleted_is_not_answered() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, serde_json::from_str(NO_DETECTION).expect("JSON"));
    let audio = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode([0_u8; 9_600])});
    send(&mut wire, &mut out, audio);
    send(&mut wire, &mut out, json!({"type": "input_audio_buffer.commit"}));
    let item = wire.items.last_id().expect("an item").to_owned();
    send(&mut wire, &mut out, json!({"type": "conversation.item.delete", "item_id": item}));
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    assert!(!words(&mut out).contains(&"start".to_owned()), "no sound of it is sent");
}

#[test]
fn items_are_edited() {
    let (mut wire, mut out) = begun();
    let message = |id: &str, text: &str| json!({"id": id, "type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
    send(&mut wire, &mut out, json!({"type": "conversation.item.create", "item": message("b", "two")}));
    assert_eq!(words(&mut out), ["content 1 false"]);
    let first = json!({"type": "conversation.item.create", "previous_item_id": "root", "item": message("a", "one")});
    send(&mut wire, &mut out, first);
    assert!(out.anew, "what is put before others begins the conversation anew");
    assert_eq!(words(&mut out), ["setup"]);
    out = Out::default();
    send(&mut wire, &mut out, json!({"type": "conversation.item.retrieve", "item_id": "a"}));
    assert_eq!(events(&mut out)[0]["item"]["content"][0]["text"], "one");
    send(&mut wire, &mut out, json!({"type": "conversation.item.delete", "item_id": "b"}));
    assert_eq!(kinds(&mut out), ["conversation.item.deleted"]);
    assert_eq!(wire.items.history(), [json!({"role": "user", "parts": [{"text": "one"}]})]);
    assert!(out.anew);
}

#[test]
fn a_response_may_have_settings_of_its_own() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, json!({"type": "response.create", "response": {"instructions": "greet"}}));
    assert!(out.anew);
    // There is nothing to answer, so something is said in the user's place.
    assert_eq!(words(&mut out), ["setup", "content 1 true"]);
    assert_eq!(kinds(&mut out), ["response.created"]);
    out.anew = false;
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 480}}));
    say(&mut wire, &mut out, json!({"serverContent": {"end": 1}}));
    assert!(out.anew, "the session's own settings are back");
    assert_eq!(words(&mut out), ["setup"]);
}

#[test]
fn what_is_written_while_a_turn_waits_for_functions_is_answered_with_them() {
    let (mut wire, mut out) = begun();
    say(&mut wire, &mut out, json!({"tool_call": "call-1"}));
    say(&mut wire, &mut out, json!({"serverContent": {"waiting": true}}));
    events(&mut out);
    let written = json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "in Paris"}]});
    send(&mut wire, &mut out, json!({"type": "conversation.item.create", "item": written}));
    // The turn goes on from what it knew when it called, so the conversation begins anew with what has come since.
    assert!(out.anew);
    assert_eq!(words(&mut out), ["setup"]);
    let result = json!({"type": "function_call_output", "call_id": "call-1", "output": "noon"});
    send(&mut wire, &mut out, json!({"type": "conversation.item.create", "item": result}));
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    assert!(!words(&mut out).contains(&"results 1".to_owned()), "nobody waits for it any more");
    let history = serde_json::to_string(&wire.items.history()).expect("JSON");
    assert!(history.contains("in Paris") && history.contains("noon"), "{history}");
}

#[test]
fn a_response_with_settings_of_its_own_waits_for_the_user() {
    let (mut wire, mut out) = begun();
    say(&mut wire, &mut out, json!({"speech": "started"}));
    events(&mut out);
    let own = json!({"type": "response.create", "response": {"instructions": "greet"}});
    let (code, _) = refused(&mut wire, &mut out, own.clone());
    assert_eq!(code, "conversation_already_has_active_response");
    assert!(!out.anew && out.messages.is_empty(), "what is being said is not lost");
    say(&mut wire, &mut out, json!({"speech": "stopped"}));
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 480}}));
    say(&mut wire, &mut out, json!({"serverContent": {"end": 1}}));
    events(&mut out);
    send(&mut wire, &mut out, own);
    assert!(out.anew);
}

#[test]
fn another_format_of_the_input_forgets_what_was_collected() {
    let (mut wire, mut out) = begun();
    send(&mut wire, &mut out, serde_json::from_str(NO_DETECTION).expect("JSON"));
    let audio =
        |bytes: usize| json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(vec![0_u8; bytes])});
    send(&mut wire, &mut out, audio(9_600));
    send(&mut wire, &mut out, json!({"type": "input_audio_buffer.commit"}));
    send(&mut wire, &mut out, audio(9_600));
    out.messages.clear();
    let mulaw = json!({"audio": {"input": {"format": {"type": "audio/pcmu"}}}});
    send(&mut wire, &mut out, json!({"type": "session.update", "session": mulaw}));
    assert!(wire.collected.is_empty() && wire.committed.is_empty());
    events(&mut out);
    out.messages.clear();
    // Read in the new format it would be noise.
    send(&mut wire, &mut out, audio(1_600));
    send(&mut wire, &mut out, json!({"type": "input_audio_buffer.commit"}));
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    assert_eq!(words(&mut out), ["start", "audio/pcmu 1600", "end"]);
}

#[test]
fn what_was_played_after_a_call_counts_from_the_beginning_of_the_turn() {
    let (mut wire, mut out) = begun();
    // 100 ms before the call, 200 ms after it, in two messages of one turn.
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 4_800, "said": {"text": "Let me see."}}}));
    say(&mut wire, &mut out, json!({"tool_call": "call-1"}));
    say(&mut wire, &mut out, json!({"serverContent": {"waiting": true}}));
    let result = json!({"type": "function_call_output", "call_id": "call-1", "output": "noon"});
    send(&mut wire, &mut out, json!({"type": "conversation.item.create", "item": result}));
    send(&mut wire, &mut out, json!({"type": "response.create"}));
    say(&mut wire, &mut out, json!({"serverContent": {"audio": 9_600, "said": {"text": "It is noon."}}}));
    let item = wire.items.last_id().expect("a message").to_owned();
    words(&mut out);
    send(
        &mut wire,
        &mut out,
        json!({"type": "conversation.item.truncate", "item_id": item, "content_index": 0, "audio_end_ms": 50}),
    );
    assert_eq!(words(&mut out), ["played 150"]);
}

#[test]
fn what_is_wrong_is_an_error_event() {
    let (mut wire, mut out) = begun();
    let update = |session: Value| json!({"type": "session.update", "session": session});
    for (event, code, param) in [
        (json!([]), "missing_required_parameter", "type"),
        (json!({"type": 3}), "missing_required_parameter", "type"),
        (json!({"type": "session.upgrade"}), "invalid_value", "type"),
        (json!({"type": "session.update"}), "invalid_type", "session"),
        (update(json!({"type": "transcription"})), "unsupported_value", "session.type"),
        (update(json!({"instructions": 3})), "invalid_type", "session.instructions"),
        (update(json!({"max_output_tokens": "50"})), "invalid_value", "session.max_output_tokens"),
        (update(json!({"output_modalities": ["smell"]})), "invalid_value", "session.output_modalities"),
        (update(json!({"tools": [{"type": "mcp"}]})), "unsupported_value", "session.tools[0].type"),
        (update(json!({"tool_choice": "required"})), "unsupported_value", "session.tool_choice"),
        (
            update(json!({"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}}}})),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            update(json!({"audio": {"input": {"turn_detection": {"silence_duration_ms": "500"}}}})),
            "invalid_type",
            "session.audio.input.turn_detection.silence_duration_ms",
        ),
        (
            update(json!({"audio": {"input": {"turn_detection": {"create_response": false}}}})),
            "unsupported_value",
            "session.audio.input.turn_detection.create_response",
        ),
        (
            json!({"type": "conversation.item.create",
                   "item": {"type": "function_call", "name": "x".repeat(129), "arguments": ""}}),
            "invalid_value",
            "item.name",
        ),
        (json!({"type": "input_audio_buffer.append"}), "missing_required_parameter", "audio"),
        (json!({"type": "input_audio_buffer.append", "audio": "A*=="}), "invalid_value", "audio"),
        (json!({"type": "input_audio_buffer.append", "audio": "+_+_"}), "invalid_value", "audio"),
        (json!({"type": "input_audio_buffer.commit"}), "input_audio_buffer_commit_empty", ""),
        (json!({"type": "response.cancel"}), "response_cancel_not_active", ""),
        (json!({"type": "conversation.item.create"}), "invalid_type", "item"),
        (
            json!({"type": "conversation.item.create", "item": {"type": "message", "role": "robot"}}),
            "invalid_value",
            "item.role",
        ),
        (
            json!({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "x".repeat(MAX_ITEM_BYTES)}]}}),
            "invalid_value",
            "item",
        ),
        (json!({"type": "conversation.item.retrieve", "item_id": "x"}), "item_retrieve_invalid_item_id", "item_id"),
        (json!({"type": "conversation.item.delete", "item_id": "x"}), "item_delete_invalid_item_id", "item_id"),
        (json!({"type": "conversation.item.truncate", "item_id": "x"}), "item_truncate_invalid_item_id", "item_id"),
    ] {
        let found = refused(&mut wire, &mut out, event.clone());
        assert_eq!((found.0.as_str(), found.1.as_str()), (code, param), "{event}");
        assert!(words(&mut out).is_empty() && !out.anew, "{event}");
    }
    for bytes in [&b"{"[..], b"", b"\xff\xfe"] {
        wire.receive(bytes, &mut out).expect("events never end a session");
        assert_eq!(events(&mut out)[0]["error"]["code"], "invalid_json");
    }
    // The client's own name for its event comes back.
    send(&mut wire, &mut out, json!({"type": "nothing", "event_id": "mine"}));
    assert_eq!(events(&mut out)[0]["error"]["event_id"], "mine");
}

/// Events of the API with any values.
fn any_event() -> impl Strategy<Value = Value> {
    const KINDS: &[&str] = &[
        "session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "conversation.item.create",
        "conversation.item.retrieve",
        "conversation.item.truncate",
        "conversation.item.delete",
        "response.create",
        "response.cancel",
        "output_audio_buffer.clear",
        "else",
    ];
    const NAMES: &[&str] = &[
        "session",
        "audio",
        "input",
        "output",
        "format",
        "type",
        "rate",
        "turn_detection",
        "tools",
        "item",
        "role",
        "content",
        "text",
        "transcript",
        "item_id",
        "previous_item_id",
        "audio_end_ms",
        "response",
        "conversation",
        "metadata",
        "instructions",
        "call_id",
        "name",
        "arguments",
        "voice",
        "speed",
        "id",
        "max_output_tokens",
        "output_modalities",
        "transcription",
    ];
    const WORDS: &[&str] = &[
        "AAAA",
        "a",
        "b",
        "root",
        "message",
        "function_call",
        "function_call_output",
        "user",
        "assistant",
        "system",
        "input_text",
        "none",
        "auto",
        "inf",
        "audio",
        "text",
        "audio/pcmu",
        "server_vad",
        "semantic_vad",
        "function",
        "item_s1",
        "call-1",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (0..5_000_u64).prop_map(Value::from),
        prop::sample::select(WORDS).prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((prop::sample::select(NAMES), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    });
    (prop::sample::select(KINDS), prop::collection::vec((prop::sample::select(NAMES), value), 0..5)).prop_map(
        |(kind, fields)| {
            let mut event: serde_json::Map<String, Value> =
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            event.insert("type".into(), json!(kind));
            Value::Object(event)
        },
    )
}

fn any_reply() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({"speech": "started"}),
        json!({"speech": "stopped"}),
        json!({"serverContent": {"heard": {"text": "a"}}}),
        json!({"serverContent": {"heard": {"text": " b", "finished": true}}}),
        json!({"serverContent": {"audio": 480}}),
        json!({"serverContent": {"said": {"text": "c"}}}),
        json!({"serverContent": {"complete": true}}),
        json!({"serverContent": {"waiting": true}}),
        json!({"serverContent": {"interrupted": true}}),
        json!({"serverContent": {"end": 1}}),
        json!({"serverContent": {"end": 5}}),
        json!({"serverContent": {"end": 6}}),
        json!({"tool_call": "call-1"}),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..Default::default() })]

    /// Whatever both sides say: frames are events with names of their own, a response that begins is over before
    /// another begins, and what goes to the conversation can be sent.
    #[test]
    fn any_events_are_answered(steps in prop::collection::vec(prop_oneof![
        any_event().prop_map(Ok), any_reply().prop_map(Err)], 0..60)) {
        let (mut wire, mut out) = begun();
        let mut names = std::collections::HashSet::new();
        let mut open = None;
        for step in steps {
            match step {
                Ok(event) => send(&mut wire, &mut out, event),
                Err(reply) => say(&mut wire, &mut out, reply),
            }
            for event in events(&mut out) {
                prop_assert!(names.insert(event["event_id"].clone()));
                match event["type"].as_str() {
                    Some("response.created") => {
                        prop_assert!(open.is_none());
                        open = Some(event["response"]["id"].clone());
                    }
                    Some("response.done") => prop_assert_eq!(open.take(), Some(event["response"]["id"].clone())),
                    Some(kind) if kind.starts_with("response.") => {
                        prop_assert_eq!(open.as_ref(), Some(&event["response_id"]));
                    }
                    other => prop_assert!(other.is_some()),
                }
            }
            out = Out::default();
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let (mut wire, mut out) = begun();
        prop_assert!(wire.receive(&bytes, &mut out).is_ok());
        let _ = read_client_message(&bytes);
    }
}
