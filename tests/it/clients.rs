//! Published clients, unmodified, against the server: Google's stubs and SDKs, OpenAI's SDK, and two frameworks on it.
//!
//! Each is a script that holds conversations with the scripted engine and prints one JSON object with what came of them.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;

use causerie_gateway::config::Config;
use causerie_tests::python;
use causerie_tests::service::{PATIENCE, config, mcp_program, start, utterance};
use serde_json::{Value, json};

/// The interpreter that a variable names. `make test` sets them all; elsewhere a test says what it misses, and passes.
fn interpreter(variable: &str, packages: &str) -> Option<OsString> {
    let interpreter = std::env::var_os(variable);
    if interpreter.is_none() {
        println!("skipped: {variable} names no interpreter with the clients of {packages}");
    }
    interpreter
}

/// What a script prints; `None` when there is no interpreter for it.
async fn run(script: &str, arguments: &[&OsStr]) -> Option<Value> {
    let interpreter = match script {
        "google_genai.mjs" => interpreter("CAUSERIE_NODE", "tests/package.json"),
        "google_genai.py" => python::interpreter("google-genai"),
        "google_stubs.py" => python::interpreter("google-ai-generativelanguage"),
        _ => interpreter("CAUSERIE_CLIENTS_PYTHON", "tests/clients.txt"),
    }?;
    let seen = python::run(&interpreter, script, arguments);
    Some(tokio::time::timeout(PATIENCE, seen).await.expect("in time"))
}

/// What a script prints that is told nothing but where the server is.
async fn ask(script: &str, server: SocketAddr) -> Option<Value> {
    run(script, &[server.to_string().as_ref()]).await
}

/// What a script prints that is given a recorded question too.
async fn ask_aloud(script: &str, server: SocketAddr) -> Option<Value> {
    let question = std::env::temp_dir().join(format!("causerie-{script}-{}.wav", std::process::id()));
    python::record(&question, &utterance(800, 1_000));
    let seen = run(script, &[server.to_string().as_ref(), question.as_os_str()]).await;
    std::fs::remove_file(&question).expect("our own file");
    seen
}

/// The engine speaks in the tone of the questions, which would be taken for its echo.
fn open_speakers() -> Config {
    Config { echo_gate: false, ..config() }
}

#[tokio::test]
async fn googles_sdk_is_answered_unmodified() {
    let mut config = open_speakers();
    config.tools.mcp = vec![mcp_program()];
    config.tools.google_search = Some("search".into());
    let server = start(&config).await;
    let Some(seen) = ask_aloud("google_genai.py", server.http_addr).await else { return };
    for version in ["v1", "v1beta", "v1alpha", "vertex"] {
        let text = &seen[version]["text"];
        assert_eq!(text["text"], "You said: hello there", "{version}: {seen}");
        assert_eq!(text["tokens"], 4, "{version}: {seen}");
        assert_eq!(text["marks"], json!(["generation_complete", "turn_complete"]), "{version}: {seen}");
        assert!(text["session"].as_str().is_some_and(|name| !name.is_empty()), "{version}: {seen}");
        let audio = &seen[version]["audio"];
        assert_eq!(audio["heard"].as_str().map(str::trim), Some("loud for 800 ms"), "{version}: {seen}");
        assert_eq!(audio["said"].as_str().map(str::trim), Some("You said: loud for 800 ms"), "{version}: {seen}");
        // Six words of 100 ms at 24 kHz and 16 bit.
        assert_eq!(audio["audio_bytes"], 6 * 4_800, "{version}: {seen}");
        assert_eq!(
            audio["marks"],
            json!(["ACTIVITY_START", "ACTIVITY_END", "generation_complete", "turn_complete"]),
            "{version}: {seen}"
        );
    }
    let interruption = &seen["interruption"];
    let marks = interruption["first"]["marks"].as_array().expect("marks");
    assert!(marks.contains(&json!("interrupted")) && !marks.contains(&json!("generation_complete")), "{seen}");
    assert_eq!(interruption["second"]["said"].as_str().map(str::trim), Some("You said: loud for 800 ms"), "{seen}");
    let function = &seen["function"]["first"];
    assert_eq!(function["calls"][0][1], "double", "{seen}");
    assert_eq!(function["text"], r#"You said: double gave {"output":2}"#, "{seen}");
    let sources = &seen["function"]["second"]["sources"];
    assert_eq!(*sources, json!(["https://rivers.example/danube", "https://rivers.example/rhine"]), "{seen}");
    assert_eq!(seen["refusal"][0], 1008, "{seen}");
    assert!(seen["refusal"][1].as_str().is_some_and(|words| words.contains("default, scripted")), "{seen}");
}

#[tokio::test]
async fn googles_sdk_for_javascript_is_answered_unmodified() {
    let server = start(&open_speakers()).await;
    let Some(seen) = ask_aloud("google_genai.mjs", server.http_addr).await else { return };
    assert_eq!(seen["text"]["text"], "You said: hello there", "{seen}");
    assert_eq!(seen["audio"]["heard"], "loud for 800 ms", "{seen}");
    assert_eq!(
        (&seen["audio"]["said"], &seen["audio"]["audioBytes"]),
        (&json!("You said: loud for 800 ms"), &json!(28_800))
    );
    assert_eq!(seen["function"]["calls"], json!([["call-1", "clock"]]), "{seen}");
    assert!(seen["function"]["text"].as_str().is_some_and(|text| text.contains("noon")), "{seen}");
    assert!(seen["refusal"].as_str().is_some_and(|words| words.contains("default, scripted")), "{seen}");
}

#[tokio::test]
async fn openais_sdk_is_answered_unmodified() {
    let server = start(&open_speakers()).await;
    let Some(seen) = ask("openai_realtime.py", server.http_addr).await else { return };
    let text = &seen["text"];
    assert_eq!(
        (&text["created"], &text["updated"]),
        (&json!(["session.created", "scripted"]), &json!(["session.updated", "be brief"]))
    );
    assert_eq!((&text["text"], &text["status"]), (&json!("You said: hello there"), &json!("completed")), "{seen}");
    assert_eq!(text["tokens"], 4, "{seen}");
    let said = |turn: &Value| turn["said"].as_str().unwrap_or_default().trim().to_owned();
    for (kind, bytes_per_word) in [("pcm", 4_800), ("pcmu", 800), ("pcma", 800)] {
        let turn = &seen[kind];
        assert!(turn["heard"].as_str().is_some_and(|heard| heard.starts_with("loud for ")), "{kind}: {seen}");
        assert_eq!(said(turn), format!("You said: {}", turn["heard"].as_str().unwrap_or_default()), "{kind}: {seen}");
        assert_eq!(turn["audio_bytes"], 6 * bytes_per_word, "{kind}: {seen}");
        assert_eq!(turn["kinds"][2], "input_audio_buffer.speech_started", "{kind}: {seen}");
        assert_eq!((&turn["status"], &turn["errors"]), (&json!("completed"), &json!([])), "{kind}: {seen}");
    }
    assert_eq!(seen["committed"]["heard"], "loud for 600 ms", "what was cleared is not heard: {seen}");
    assert_eq!(said(&seen["committed"]), "You said: loud for 600 ms", "{seen}");
    assert_eq!(seen["function"]["called"]["calls"], json!([["call-1", "clock", {"n": 1}]]), "{seen}");
    let answered = seen["function"]["answered"]["text"].as_str().unwrap_or_default();
    assert!(answered.contains("noon"), "{seen}");
    for (how, second) in [("cancelled", "You said: again"), ("interrupted", "You said: loud for 800 ms")] {
        assert_eq!(seen[how]["first"]["status"], "cancelled", "{how}: {seen}");
        assert_eq!(seen[how]["second"]["status"], "completed", "{how}: {seen}");
        assert_eq!(said(&seen[how]["second"]), second, "{how}: {seen}");
    }
    // What was said is what the client says that it played: words of 100 ms.
    assert_eq!(seen["interrupted"]["item"], json!(["incomplete", "1 2"]));
    assert_eq!(said(&seen["truncated"]), "[] user: hello there model: You said:");
    assert_eq!(seen["cleared"], json!(["loud for 600 ms", "cancelled"]));
    assert_eq!(seen["instructed"], "[be brief] user: hello model: You said: hello");
    assert_eq!(seen["edited"]["greeting"]["text"], "You said: Go on.", "{seen}");
    assert_eq!(
        (&seen["edited"]["item"], &seen["edited"]["after"]["text"]),
        (&json!("first"), &json!("You said: first"))
    );
    assert_eq!(
        seen["wrong"]["errors"],
        json!([
            ["invalid_value", "type", "mine"],
            ["invalid_value", "audio", null],
            ["invalid_value", "session.max_output_tokens", null],
            [
                "invalid_value",
                "setup.generation_config.speech_config.voice_config.prebuilt_voice_config.voice_name",
                null
            ],
            ["input_audio_buffer_commit_empty", null, null],
            ["response_cancel_not_active", null, null],
        ])
    );
    assert_eq!(seen["wrong"]["after"]["text"], "You said: still there", "{seen}");
    assert_eq!(seen["unknown_model"][1], "model_not_found", "{seen}");
    assert!(seen["unknown_model"][2].as_str().is_some_and(|words| words.contains("default, scripted")), "{seen}");
}

#[tokio::test]
async fn livekits_realtime_model_needs_only_an_address() {
    let server = start(&open_speakers()).await;
    let Some(seen) = ask("livekit_realtime.py", server.http_addr).await else { return };
    let said = |value: &Value| value.as_str().unwrap_or_default().trim().to_owned();
    assert_eq!(said(&seen["greeting"]["said"]), "You said: Go on.", "{seen}");
    assert_eq!(seen["heard"], "loud for 800 ms", "{seen}");
    assert_eq!(said(&seen["spoken"]["said"]), "You said: loud for 800 ms", "{seen}");
    assert_eq!(seen["spoken"]["samples"], 6 * 2_400, "{seen}");
    assert_eq!(seen["function"]["called"][0][1], "clock", "{seen}");
    assert!(said(&seen["function"]["answered"]).contains("noon"), "{seen}");
    assert_eq!(seen["interrupted"], true, "{seen}");
    assert_eq!(said(&seen["after"]), "You said: still there", "{seen}");
    assert_eq!(seen["errors"], json!([]), "{seen}");
}

#[tokio::test]
async fn pipecats_realtime_service_needs_only_an_address() {
    let server = start(&open_speakers()).await;
    let Some(seen) = ask("pipecat_realtime.py", server.http_addr).await else { return };
    let said = |turn: &Value| turn["said"].as_str().unwrap_or_default().trim().to_owned();
    assert_eq!(
        (&seen["heard"], said(&seen["spoken"]).as_str()),
        (&json!("loud for 800 ms"), "You said: loud for 800 ms")
    );
    assert_eq!(seen["called"].as_array().map(Vec::len), Some(1), "{seen}");
    assert!(said(&seen["function"]).contains("noon"), "{seen}");
}

#[tokio::test]
async fn googles_stubs_hold_every_kind_of_conversation() {
    let server = start(&open_speakers()).await;
    let Some(seen) = ask("google_stubs.py", server.grpc_addr).await else { return };
    let whole = json!(["generation_complete", "turn_complete"]);
    let said = |turn: &Value| {
        (turn["text"].as_str().unwrap_or_default().to_owned() + turn["said"].as_str().unwrap_or_default())
            .trim()
            .to_owned()
    };
    for (kind, words) in [
        ("text", "You said: hello there"),
        ("realtime_text", "You said: typed"),
        ("audio", "You said: loud for 800 ms"),
        ("media_chunks", "You said: loud for 800 ms"),
        ("audio_stream_end", "You said: loud for 800 ms"),
        ("activity_marks", "You said: loud for 600 ms"),
        ("speech_config", "You said: hello"),
    ] {
        let turn = &seen[kind];
        assert_eq!((said(turn).as_str(), &turn["marks"]), (words, &whole), "{kind}: {turn}");
        assert!(turn["tokens"].as_u64().is_some_and(|tokens| tokens > 10), "{kind}: {turn}");
        let heard = turn["heard"].as_str().unwrap_or_default();
        assert!(heard.is_empty() || words.ends_with(heard.trim()), "{kind}: {turn}");
    }
    assert_eq!(seen["text"]["closed"], true, "a stream that is half-closed ends with OK");
    let answer = "You said: think one two three";
    assert_eq!(seen["thinking"], json!([["one two ", 2, answer], ["", 2, answer], ["", 0, answer]]));
    assert_eq!(
        seen["compression"],
        json!([
            "[] user: first model: You said: first user: second model: You said: second user: third model: You said: third",
            "[] user: third model: You said: third",
        ])
    );
    assert_eq!(seen["resumption"], json!(["[] user: first model: You said: first", "FAILED_PRECONDITION"]));
    let (heard, answered, bytes) = ("loud for 800 ms", "You said: loud for 800 ms", 6 * 4_800);
    assert_eq!(seen["transcripts"], json!([["", "", bytes], [heard, "", bytes], ["", answered, bytes]]));
    let stopped = json!(["interrupted", "turn_complete"]);
    for (kind, marks, first, second) in [
        ("interrupts", &stopped, None, "You said: loud for 800 ms"),
        ("waits", &whole, Some(30), "You said: loud for 800 ms"),
        ("content_interrupts", &stopped, None, "You said: enough"),
    ] {
        let turns = &seen[kind];
        assert_eq!(&turns[0]["marks"], marks, "{kind}: {turns}");
        let words = said(&turns[0]).split_whitespace().count();
        assert!(first.is_none_or(|all| words == all) && words < 600, "{kind}: {turns}");
        assert_eq!((said(&turns[1]).as_str(), &turns[1]["marks"]), (second, &whole), "{kind}: {turns}");
    }
    assert_eq!(seen["function_call"]["called"]["calls"], json!([["call-1", "clock", {"n": 1.0}]]), "{seen}");
    assert_eq!(said(&seen["function_call"]["answered"]), r#"You said: clock gave {"output":"noon"}"#);
    assert_eq!(seen["cancelled"][0]["marks"], json!(["cancellation", "interrupted", "turn_complete"]));
    assert_eq!(said(&seen["cancelled"][1]), "You said: never mind");
    assert_eq!(seen["refusals"], json!(["NOT_FOUND", "UNIMPLEMENTED", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]));
}
