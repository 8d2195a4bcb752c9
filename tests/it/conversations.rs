//! What conversations are like for their clients.

use std::process::Stdio;

use causerie_gateway::config::McpConfig;
use causerie_gateway::serve::Running;
use causerie_gateway::tools::Toolbox;
use causerie_model_api::{Modality, OUTPUT_RATE};
use causerie_proto::v1::{self, client_message::MessageType as ToServer};
use causerie_tests::scripted::WORD_SAMPLES;
use causerie_tests::service::{
    Call, MCP_SERVER, OUR_PATH, config, connect, first, get, mcp_program, resumable, setup, start, typed, utterance,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tonic::Code;

#[tokio::test]
async fn a_typed_turn_is_answered_in_text() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, complete) = Call::begin(&channel, setup(Modality::Text)).await;
    assert_eq!((complete.model.as_str(), complete.voice.as_str()), ("scripted", "tone"));
    assert!(!complete.session_id.is_empty());
    assert_eq!(complete.output_audio_format, "", "text has no audio format");
    let capabilities = complete.capabilities.expect("what it can do");
    assert!(capabilities.audio_in && !capabilities.video_in);

    call.say("hello there").await;
    let turn = call.turn().await;
    assert_eq!(turn.text, "You said: hello there");
    assert!(turn.audio.is_empty());
    assert_eq!(turn.marks, ["generation_complete", "turn_complete"]);
    assert_eq!(turn.reason, Some(v1::TurnEndReason::Stop));
    let usage = turn.usage.expect("what it cost");
    assert_eq!((usage.prompt_token_count, usage.response_token_count, usage.total_token_count), (10, 4, 14));

    // A second turn of the same conversation, and its end.
    call.say("bye").await;
    assert_eq!(call.turn().await.text, "You said: bye");
    call.half_close();
    assert!(call.next().await.expect("it ends with OK").is_none());
}

#[tokio::test]
async fn a_spoken_turn_is_answered_in_speech() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, complete) = Call::begin(&channel, setup(Modality::Audio)).await;
    assert_eq!(complete.output_audio_format, "audio/pcm;rate=24000");
    call.speak(&utterance(640, 1_500)).await;
    let turn = call.turn().await;
    assert_eq!(turn.heard, "loud for 640 ms");
    assert_eq!(turn.said, "You said: loud for 640 ms");
    assert_eq!(turn.mime, "audio/pcm;rate=24000");
    assert_eq!(turn.audio.len(), 2 * 6 * WORD_SAMPLES, "six words");
    assert_eq!(turn.marks, ["speech_started", "speech_stopped", "generation_complete", "turn_complete"]);
    let metrics = turn.metrics.expect("when it happened");
    assert!(metrics.endpoint_ms.is_some() && metrics.first_audio_sent_ms.is_some(), "{metrics:?}");
    assert_eq!(metrics.response_id, turn.pieces[0].0.response_id);

    // The pieces are numbered and lie end to end.
    let loudest = turn.audio.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]]).unsigned_abs()).max();
    assert!(loudest > Some(10_000), "it is a tone, not silence");
    let mut sample = 0;
    for (i, (piece, bytes)) in turn.pieces.iter().enumerate() {
        assert_eq!((piece.sequence, &piece.response_id), (i as i64, &metrics.response_id));
        let offset = piece.audio_offset.expect("its place");
        let at = offset.seconds as u64 * 1_000_000_000 + offset.nanos as u64;
        assert_eq!(at / 1_000, sample * 1_000_000 / u64::from(OUTPUT_RATE), "piece {i}");
        sample += *bytes as u64 / 2;
    }
}

#[tokio::test]
async fn replies_are_encoded_as_asked() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    for (format, bytes) in [("audio/pcm;rate=8000", 4 * 1_600), ("audio/pcmu", 4 * 800)] {
        let wanted = v1::Setup { output_audio_format: format.into(), ..setup(Modality::Audio) };
        let (mut call, complete) = Call::begin(&channel, wanted).await;
        assert_eq!(complete.output_audio_format, format);
        call.say("say 4 words").await;
        let turn = call.turn().await;
        assert_eq!(turn.mime, format);
        assert_eq!(turn.audio.len(), bytes, "{format}");
    }
}

#[tokio::test]
async fn published_clients_are_served_on_their_paths() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    for path in [
        "/google.ai.generativelanguage.v1beta.GenerativeService/BidiGenerateContent",
        "/google.ai.generativelanguage.v1alpha.GenerativeService/BidiGenerateContent",
    ] {
        let mut call = Call::open(&channel, path, first(setup(Modality::Audio))).await.expect("it is served");
        call.speak(&utterance(640, 1_500)).await;
        let turn = call.turn().await;
        assert_eq!(turn.heard, "loud for 640 ms", "{path}");
        // Nothing that they would see as an empty message.
        assert_eq!(turn.marks, ["setup_complete", "generation_complete", "turn_complete"], "{path}");
    }
    let other = "/google.ai.generativelanguage.v1beta.GenerativeService/GenerateContent";
    let status = match Call::open(&channel, other, first(setup(Modality::Text))).await {
        Err(status) => status,
        Ok(mut call) => call.next().await.expect_err("it is not served"),
    };
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_half_close_leaves_the_owed_turn() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    for modality in [Modality::Text, Modality::Audio] {
        let (mut call, _) = Call::begin(&channel, setup(modality)).await;
        call.say("hello").await;
        call.half_close();
        let (end, turn) = call.end().await;
        assert!(end.is_ok(), "{end:?}");
        assert!(turn.complete);
        assert_eq!(turn.text + &turn.said, "You said: hello", "{modality:?}");
    }
    // Speech that was under way counts as over.
    let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
    call.speak(&utterance(640, 100)).await;
    call.half_close();
    let (end, turn) = call.end().await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(turn.heard, "loud for 640 ms");
    assert_eq!(turn.said, "You said: loud for 640 ms");
}

#[tokio::test]
async fn conversations_do_not_mix() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let calls = (0..4).map(|i| {
        let channel = channel.clone();
        tokio::spawn(async move {
            let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
            for round in 0..3 {
                let words = format!("caller {i} round {round}");
                call.say(&words).await;
                assert_eq!(call.turn().await.said, format!("You said: {words}"));
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.expect("every caller is answered about its own question");
    }
}

#[tokio::test]
async fn functions_are_called_and_their_results_answered() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let declaration = v1::FunctionDeclaration { name: "look_up".into(), ..Default::default() };
    let tools = vec![v1::Tool { function_declarations: vec![declaration], ..Default::default() }];
    let (mut call, _) = Call::begin(&channel, v1::Setup { tools, ..setup(Modality::Text) }).await;
    call.say("call look_up").await;
    let asked = call.function_call().await;
    assert_eq!(asked.name, "look_up");
    assert_eq!(asked.args.as_ref().expect("arguments").fields.len(), 1);
    let response = v1::FunctionResponse { id: asked.id, name: asked.name, ..Default::default() };
    let response = ToServer::ToolResponse(v1::ToolResponse { function_responses: vec![response] });
    // The turn that waits for the result goes on with it. An answer too many has no effect, and is told.
    call.send(response.clone()).await;
    let turn = call.turn().await;
    assert_eq!((turn.text.as_str(), turn.reason), ("You said: look_up gave {}", Some(v1::TurnEndReason::Stop)));
    call.send(response).await;
    call.say("thanks").await;
    let turn = call.turn().await;
    assert_eq!((turn.text.as_str(), turn.warnings.len()), ("You said: thanks", 1));
}

#[tokio::test]
async fn the_server_runs_its_own_functions() {
    let mut config = config();
    config.tools.builtin = vec!["clock".into()];
    let server = start(&config).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("call clock").await;
    // It is served although the client says nothing more.
    call.half_close();
    let turn = call.turn().await;
    assert!(turn.text.starts_with("You said: clock gave {\"now\":"), "{turn:?}");
    assert!(turn.calls.is_empty() && turn.warnings.is_empty(), "{turn:?}");
}

/// A variable that is set in every test; its value is as good a token as any.
const TOKEN_ENV: &str = "CARGO_MANIFEST_DIR";

/// An MCP server that is reached by HTTP on this port, 0 for any; it ends with the value.
async fn mcp_over_http(port: u16) -> (tokio::process::Child, u16) {
    let mut command = tokio::process::Command::new("python3");
    let token = std::env::var(TOKEN_ENV).expect("cargo sets it");
    command.arg(MCP_SERVER).arg(port.to_string()).arg(token).stdout(Stdio::piped()).kill_on_drop(true);
    let mut program = command.spawn().expect("python3 is there");
    let mut line = String::new();
    BufReader::new(program.stdout.take().expect("piped")).read_line(&mut line).await.expect("it says its port");
    let port = line.trim().parse().expect("a port");
    (program, port)
}

/// Asks for functions of the server one after the other, and looks for words in the answers.
async fn ask_for(server: &Running, asked: &[(&str, &str)]) {
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    for (words, answer) in asked {
        call.say(words).await;
        let turn = call.turn().await;
        assert!(turn.text.contains(answer) && turn.calls.is_empty(), "{words}: {turn:?}");
    }
}

#[tokio::test]
async fn functions_of_an_mcp_server_are_run_and_a_dead_server_is_started_anew() {
    let mut config = config();
    config.tools.mcp = vec![mcp_program()];
    let server = start(&config).await;
    let asked = [
        ("call twice", "ran twice"),
        ("call big", "too long"),
        ("call die", "not available"),
        ("call twice", "ran twice"),
    ];
    ask_for(&server, &asked).await;
    let (_, page) = get(server.http_addr, "/metrics").await;
    for line in [
        r#"causerie_mcp_up{server="python3"} 1"#,
        r#"causerie_mcp_connects_total{server="python3"} 2"#,
        r#"causerie_mcp_calls_total{server="python3",outcome="ok"} 3"#,
        r#"causerie_mcp_calls_total{server="python3",outcome="unavailable"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
}

#[tokio::test]
async fn functions_of_an_mcp_server_are_run_over_http_and_it_may_come_back() {
    let (program, port) = mcp_over_http(0).await;
    let mut config = config();
    let url = format!("http://127.0.0.1:{port}/mcp");
    let stranger = McpConfig { url, name: Some("pages".into()), ..McpConfig::default() };
    config.tools.mcp = vec![stranger.clone()];
    let refused = Toolbox::start(&config.tools).await.expect_err("it has no token");
    assert!(refused.contains("pages"), "{refused}");
    config.tools.mcp = vec![McpConfig { token_env: Some(TOKEN_ENV.into()), ..stranger }];
    let server = start(&config).await;
    ask_for(&server, &[("call twice", "ran twice"), ("call big", "too long"), ("call die", "not available")]).await;
    let (_, page) = get(server.http_addr, "/metrics").await;
    assert!(page.contains(r#"causerie_mcp_up{server="pages"} 0"#), "{page}");
    drop(program);
    let _back = mcp_over_http(port).await;
    ask_for(&server, &[("call twice", "ran twice")]).await;
}

#[tokio::test]
async fn a_search_is_the_servers_own_and_tells_its_sources() {
    let mut config = config();
    config.tools.mcp = vec![mcp_program()];
    config.tools.google_search = Some("search".into());
    let server = start(&config).await;
    let channel = connect(server.grpc_addr).await;
    let search = v1::Tool { google_search: Some(v1::tool::GoogleSearch::default()), ..Default::default() };
    let (mut call, _) = Call::begin(&channel, v1::Setup { tools: vec![search], ..setup(Modality::Text) }).await;
    call.say("call search").await;
    let turn = call.turn().await;
    assert_eq!(turn.marks, ["grounding", "generation_complete", "turn_complete"], "{turn:?}");
    let grounding = turn.grounding.expect("it is told");
    let titles = grounding.grounding_chunks.iter().filter_map(|chunk| match &chunk.chunk_type {
        Some(v1::grounding_chunk::ChunkType::Web(web)) => web.title.as_deref(),
        _ => None,
    });
    assert_eq!(titles.collect::<Vec<_>>(), ["The Danube", "The Rhine"]);
    // Two functions of one name would leave it open who searches.
    let declaration = v1::FunctionDeclaration { name: "search".into(), ..Default::default() };
    let search = v1::Tool {
        google_search: Some(v1::tool::GoogleSearch::default()),
        function_declarations: vec![declaration],
        ..Default::default()
    };
    let both = v1::Setup { tools: vec![search], ..setup(Modality::Text) };
    let mut call = Call::open(&channel, OUR_PATH, first(both)).await.expect("a stream");
    let refused = call.next().await.expect_err("there are two of this name");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // Who does not ask for it does not have it: the engine's call is then one of a function of the client's.
    let (mut call, _) = Call::begin(&channel, setup(Modality::Text)).await;
    call.say("call search").await;
    assert_eq!(call.function_call().await.name, "search");
}

#[tokio::test]
async fn pings_are_answered_and_replies_cancelled() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let (mut call, _) = Call::begin(&channel, setup(Modality::Audio)).await;
    call.say("say 600 words").await;
    let mut heard_some = false;
    while !heard_some {
        let message = call.next().await.expect("the reply").expect("the reply");
        if let Some(v1::server_message::MessageType::ServerContent(content)) = message.message_type {
            heard_some = content.reply_audio.is_some();
        }
    }
    call.send(ToServer::Ping(v1::Ping { payload: vec![7, 8].into() })).await;
    call.send(ToServer::CancelReply(v1::CancelReply {})).await;
    let turn = call.turn().await;
    assert_eq!(turn.pongs, [vec![7, 8]]);
    assert_eq!(turn.marks, ["interrupted", "turn_complete"]);
    assert_eq!(turn.reason, Some(v1::TurnEndReason::Interrupted));
    call.say("again").await;
    assert_eq!(call.turn().await.said, "You said: again");
}

#[tokio::test]
async fn a_history_can_be_given() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let ToServer::ClientContent(before) = typed("from before") else { panic!("contents") };
    let (mut call, _) = Call::begin(&channel, v1::Setup { history: before.turns, ..setup(Modality::Text) }).await;
    let now = v1::ClientContent { turns: Vec::new(), turn_complete: true };
    call.send(ToServer::ClientContent(now)).await;
    assert_eq!(call.turn().await.text, "You said: from before");
}

#[tokio::test]
async fn the_task_can_be_changed_on_the_way() {
    let server = start(&config()).await;
    let channel = connect(server.grpc_addr).await;
    let text = |text: &str| v1::Content {
        parts: vec![v1::Part { data: Some(v1::part::Data::Text(text.into())), ..Default::default() }],
        ..Default::default()
    };
    let function = v1::FunctionDeclaration { name: "look".into(), ..Default::default() };
    let tool = v1::Tool { function_declarations: vec![function], ..Default::default() };
    let kind = v1::Setup { system_instruction: Some(text("kind")), ..setup(Modality::Text) };
    let (mut call, _) = Call::begin(&channel, resumable(kind, None)).await;
    call.say("task").await;
    assert_eq!(call.turn().await.text, "kind");
    call.send(ToServer::ContextUpdate(v1::ContextUpdate {
        system_instruction: Some(text("brief")),
        tools: Some(v1::ToolUpdate { tools: vec![tool] }),
    }))
    .await;
    call.say("task").await;
    assert_eq!(call.turn().await.text, "brief look");
    // It is still so after a resumption, and after another.
    for _ in 0..2 {
        let handle = call.handle().await;
        drop(call);
        (call, _) = Call::begin(&channel, resumable(v1::Setup::default(), Some(&handle))).await;
        call.say("task").await;
        assert_eq!(call.turn().await.text, "brief look");
    }
    let picture = v1::part::Data::InlineData(v1::Blob { mime_type: "image/png".into(), data: vec![0].into() });
    let part = v1::Part { data: Some(picture), ..Default::default() };
    let picture = v1::Content { parts: vec![part], ..Default::default() };
    call.send(ToServer::ContextUpdate(v1::ContextUpdate { system_instruction: Some(picture), tools: None })).await;
    call.say("task").await;
    let turn = call.turn().await;
    assert_eq!(turn.text, "brief look");
    assert_eq!(turn.warnings[0].field, "context_update.system_instruction.parts[0]");
}
