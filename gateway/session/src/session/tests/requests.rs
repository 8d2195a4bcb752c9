//! Text, history, tools, and engines that fail.

use causerie_model_api::*;

use super::stage::{Script, Stage, setup};
use crate::{Grounding, Input, Setup, Source, ToolResponse};

fn text_stage() -> Stage {
    Stage::new(Setup { modality: Modality::Text, ..setup() }, Script::default())
}

fn said(text: &str) -> Input {
    Input::ClientContent { items: vec![Item::text(Role::User, text)], turn_complete: true }
}

fn result(id: &str) -> Input {
    Input::ToolResponse(vec![ToolResponse {
        id: id.into(),
        name: "clock".into(),
        response: "{\"time\":\"noon\"}".into(),
        scheduling: Scheduling::WhenIdle,
        will_continue: false,
    }])
}

fn with_tool(behavior: ToolBehavior) -> Setup {
    let tool = ToolDeclaration {
        name: "clock".into(),
        description: "Tells the time.".into(),
        parameters: "{}".into(),
        behavior,
    };
    Setup { modality: Modality::Text, tools: vec![tool], ..setup() }
}

#[test]
fn text_is_answered_with_text() {
    let mut stage = text_stage();
    stage.take(said("Count.")).pass(400).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        100 > text " Four five six."
        100 > generation_complete
        100 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        "#,
    );
    assert_eq!(stage.history(), "User: Count.\nModel: One two three. Four five six.\n");
}

#[test]
fn pictures_are_taken_as_large_as_the_history_holds_them() {
    let shown = |side: u32, count: usize| {
        let picture = Picture::new(side, side, vec![0; (side * side * 3) as usize], MediaResolution::High).unwrap();
        let mut content = vec![Content::Picture(picture); count];
        content.push(Content::Text("Count.".into()));
        Input::ClientContent { items: vec![Item { role: Role::User, content }], turn_complete: true }
    };
    text_stage().take(shown(2_000, 1)).pass(50).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        "#,
    );
    text_stage().take(shown(2_000, 2)).pass(50).expect(
        r#"
        0 > warning ResourceExhausted client_content.turns: more than 1048576 bytes of text or 16777216 of pixels at once do not go into the history
        "#,
    );
}

#[test]
fn content_without_an_end_is_only_remembered() {
    let mut stage = text_stage();
    let items = vec![Item::text(Role::User, "I am Ada."), Item::text(Role::Model, "Hello Ada.")];
    stage.take(Input::ClientContent { items, turn_complete: false }).pass(400);
    stage.take(Input::ClientContent { items: Vec::new(), turn_complete: true });
    stage.take(Input::RealtimeText("Who am I?".into())).pass(400).expect(
        r#"
        0 | append 2
        400 > warning InvalidArgument client_content.turns: there is nothing to answer: say something first
        400 | append 1
        400 | start 1
        450 > text "One two three."
        500 > text " Four five six."
        500 > generation_complete
        500 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        "#,
    );
}

#[test]
fn content_during_a_reply_follows_it_and_a_turn_cuts_it() {
    let mut stage = Stage::new(setup(), Script::default());
    stage.take(said("Count.")).pass(500);
    let items = vec![Item::text(Role::User, "By the way.")];
    stage.take(Input::ClientContent { items, turn_complete: false }).pass(300);
    stage.take(said("Stop, count again.")).pass(2_000).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > speech 1 0..160
        50 > said "One"
        50 > speech 1 160..320
        170 > said " two"
        210 > speech 1 320..600
        450 > said " three."
        490 > speech 1 600..800
        650 > said " Four"
        690 > speech 1 800..920
        800 > interrupted
        800 | cancel 1 750
        800 | append 1
        800 | append 1
        800 | start 2
        801 > turn_complete Interrupted 1 tokens, at - - 50 50 50
        850 > speech 2 0..160
        850 > said "One"
        850 > speech 2 160..320
        970 > said " two"
        1010 > speech 2 320..600
        1250 > said " three."
        1290 > speech 2 600..800
        1450 > said " Four"
        1490 > speech 2 800..1000
        1650 > said " five"
        1690 > speech 2 1000..1200
        1850 > said " six."
        1850 | credit 2 9000
        1850 > generation_complete
        2050 > turn_complete Finished(Stop) 9 tokens, at - - 50 50 50
        "#,
    );
    assert_eq!(
        stage.history(),
        "User: Count.\nModel: One two three.\nUser: By the way.\nUser: Stop, count again.\nModel: One two three. Four \
         five six.\n"
    );
}

#[test]
fn text_waits_for_a_reply_that_may_not_be_interrupted() {
    let mut stage =
        Stage::new(Setup { interruption: false, output_transcription: false, ..setup() }, Script::default());
    stage.take(said("Count.")).pass(500).take(Input::RealtimeText("And again.".into())).pass(2_500).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > speech 1 0..1200
        1050 | credit 1 9000
        1050 > generation_complete
        1250 > turn_complete Finished(Stop) 9 tokens, at - - 50 50 50
        1250 | append 1
        1250 | start 2
        1300 > speech 2 0..1200
        2300 | credit 2 9000
        2300 > generation_complete
        2500 > turn_complete Finished(Stop) 9 tokens, at - - 50 50 50
        "#,
    );
}

#[test]
fn a_reply_is_cancelled_on_request() {
    let mut stage = Stage::new(setup(), Script::default());
    stage.take(Input::CancelReply).take(said("Count.")).pass(800).take(Input::CancelReply).pass(10).expect(
        r#"
        0 > warning FailedPrecondition cancel: there is no reply to cancel
        0 | append 1
        0 | start 1
        50 > speech 1 0..160
        50 > said "One"
        50 > speech 1 160..320
        170 > said " two"
        210 > speech 1 320..600
        450 > said " three."
        490 > speech 1 600..800
        650 > said " Four"
        690 > speech 1 800..920
        800 > interrupted
        800 | cancel 1 750
        801 > turn_complete Interrupted 1 tokens, at - - 50 50 50
        "#,
    );
}

#[test]
fn a_turn_waits_for_its_tool() {
    let mut stage = Stage::new(with_tool(ToolBehavior::Blocking), Script { call: Some("clock"), ..Script::default() });
    stage.take(said("What time is it?")).pass(1_000);
    stage.take(result("call-9")).take(result("call-1")).take(result("call-1"));
    stage.event(Event::Text { turn: TurnId(1), delta: " Noon.".into() });
    stage.event(Event::Done { turn: TurnId(1), reason: FinishReason::Stop, usage: Usage::default() }).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        100 > text " Four five six."
        100 > tool_call call-1
        100 > waiting_for_tools
        1000 > warning InvalidArgument tool_response.function_responses.id: no call has the id "call-9"
        1000 | result call-1 {"time":"noon"}
        1000 > warning FailedPrecondition tool_response.function_responses.id: "call-1" was answered before
        1000 > text " Noon."
        1000 > generation_complete
        1000 > turn_complete Finished(Stop) 0 tokens, at - - 50 - -
        "#,
    );
}

#[test]
fn a_result_without_an_id_or_of_5_mb_leaves_the_call_waiting() {
    let mut stage = Stage::new(with_tool(ToolBehavior::Blocking), Script { call: Some("clock"), ..Script::default() });
    stage.take(said("What time is it?")).pass(1_000);
    stage.lines();
    let Input::ToolResponse(mut long) = result("call-1") else { panic!("a result") };
    long[0].response = format!("{:?}", "x".repeat(5_000_000));
    stage.take(result("")).take(Input::ToolResponse(long)).take(result("call-1")).expect(
        r#"
        1000 > warning InvalidArgument tool_response.function_responses.id: no call has the id ""
        1000 > warning ResourceExhausted tool_response.function_responses.response: 5000002 bytes are more than 65536; the call still waits
        1000 | result call-1 {"time":"noon"}
        "#,
    );
}

#[test]
fn an_interruption_cancels_the_calls_of_its_turn() {
    let mut stage = Stage::new(with_tool(ToolBehavior::Blocking), Script { call: Some("clock"), ..Script::default() });
    stage.take(said("What time is it?")).pass(1_000).take(said("Never mind.")).pass(400).take(result("call-1")).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        100 > text " Four five six."
        100 > tool_call call-1
        100 > waiting_for_tools
        1000 > tool_call_cancellation call-1
        1000 > interrupted
        1000 | cancel 1 768614336404564650
        1000 | append 1
        1000 | start 2
        1001 > turn_complete Interrupted 1 tokens, at - - 50 - -
        1050 > text "One two three."
        1100 > text " Four five six."
        1100 > generation_complete
        1100 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        1400 > warning FailedPrecondition tool_response.function_responses.id: "call-1" was cancelled
        "#,
    );
}

#[test]
fn a_result_nobody_waited_for_is_spoken_about_later() {
    let mut stage = Stage::new(with_tool(ToolBehavior::NonBlocking), Script::default());
    stage.take(said("What time is it?"));
    let call = ToolCall { id: "call-1".into(), name: "clock".into(), arguments: "{}".into() };
    stage.event(Event::ToolCall { turn: TurnId(1), call }).pass(400).take(result("call-1")).pass(400).expect(
        r#"
        0 | append 1
        0 | start 1
        0 > tool_call call-1
        50 > text "One two three."
        100 > text " Four five six."
        100 > generation_complete
        100 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        400 | result call-1 {"time":"noon"}
        400 | start 2
        450 > text "One two three."
        500 > text " Four five six."
        500 > generation_complete
        500 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        "#,
    );
}

#[test]
fn a_result_that_comes_while_the_model_speaks_waits_for_its_end() {
    let mut stage = Stage::new(with_tool(ToolBehavior::NonBlocking), Script::default());
    stage.take(said("What time is it?"));
    let call = ToolCall { id: "call-1".into(), name: "clock".into(), arguments: "{}".into() };
    stage.event(Event::ToolCall { turn: TurnId(1), call }).take(result("call-1")).pass(400).expect(
        r#"
        0 | append 1
        0 | start 1
        0 > tool_call call-1
        50 > text "One two three."
        100 > text " Four five six."
        100 > generation_complete
        100 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        100 | append 1
        100 | start 2
        150 > text "One two three."
        200 > text " Four five six."
        200 > generation_complete
        200 > turn_complete Finished(Stop) 9 tokens, at - - 50 - -
        "#,
    );
}

#[test]
fn parts_of_a_result_that_never_ends_are_bounded() {
    let part = || {
        Input::ToolResponse(vec![ToolResponse {
            id: "call-1".into(),
            name: "clock".into(),
            response: "x".repeat(60_000),
            scheduling: Scheduling::Silent,
            will_continue: true,
        }])
    };
    // While a reply is being made they wait for its end, and else they go into the history.
    for speaks in [true, false] {
        let mut stage = Stage::new(with_tool(ToolBehavior::NonBlocking), Script::default());
        stage.take(said("What time is it?"));
        let call = ToolCall { id: "call-1".into(), name: "clock".into(), arguments: "{}".into() };
        stage.event(Event::ToolCall { turn: TurnId(1), call });
        if !speaks {
            stage.pass(400);
        }
        for _ in 0..400 {
            stage.take(part());
        }
        stage.take(result("call-1")).pass(400);
        let bytes = stage.history().len();
        assert!(bytes < 10 << 20, "{bytes} bytes are kept while speaks is {speaks}");
        assert!(stage.history().contains("noon"), "the end of the result is heard of");
    }
}

#[test]
fn a_function_that_never_answers_is_given_up() {
    let mut stage = Stage::new(with_tool(ToolBehavior::Blocking), Script { call: Some("clock"), ..Script::default() });
    stage.take(said("What time is it?")).pass(61_000).take(result("call-1")).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        100 > text " Four five six."
        100 > tool_call call-1
        100 > waiting_for_tools
        60100 > tool_call_cancellation call-1
        60100 > warning DeadlineExceeded tool_call: "clock" did not answer the call "call-1" within 60 s
        60100 | result call-1 {"error": "the function did not answer in time"}
        61000 > warning FailedPrecondition tool_response.function_responses.id: "call-1" came too late
        "#,
    );
}

#[test]
fn the_server_runs_its_own_functions() {
    let client = with_tool(ToolBehavior::Blocking);
    let server = Setup { tools: Vec::new(), server_tools: client.tools.clone(), ..client };
    let mut stage = Stage::new(server, Script { call: Some("clock"), ..Script::default() });
    let value = "{\"now\": 7}".to_owned();
    stage.take(said("What time is it?")).pass(1_000).take(result("call-1")).take(Input::HalfClose);
    let page = || Source { uri: "https://a.example".into(), title: "A".into() };
    let grounding = || Grounding { queries: vec!["now".into()], sources: vec![page(), page()] };
    stage.take(Input::ToolDone { id: "call-1".into(), value: value.clone(), grounding: grounding() });
    stage.take(Input::ToolDone { id: "call-1".into(), value, grounding: grounding() });
    stage.event(Event::Text { turn: TurnId(1), delta: " Seven.".into() });
    stage.event(Event::Done { turn: TurnId(1), reason: FinishReason::Stop, usage: Usage::default() }).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        100 > text " Four five six."
        100 | run call-1
        1000 > warning InvalidArgument tool_response.function_responses.id: no call has the id "call-1"
        1000 | result call-1 {"now": 7}
        1000 > text " Seven."
        1000 > grounding now https://a.example
        1000 > generation_complete
        1000 > turn_complete Finished(Stop) 0 tokens, at - - 50 - -
        1000 | close
        1000 > close Ok(())
        "#,
    );
}

#[test]
fn a_client_that_is_done_answers_no_calls() {
    let mut stage = Stage::new(with_tool(ToolBehavior::Blocking), Script { call: Some("clock"), ..Script::default() });
    stage.take(said("What time is it?")).take(Input::HalfClose).pass(1_000).expect(
        r#"
        0 | append 1
        0 | start 1
        50 > text "One two three."
        100 > text " Four five six."
        100 > tool_call call-1
        100 | cancel 1 768614336404564650
        100 > generation_complete
        100 > turn_complete Finished(ToolCalls) 0 tokens, at - - 50 - -
        100 | close
        100 > close Ok(())
        "#,
    );
    assert!(stage.closed);
}

#[test]
fn thoughts_are_shown_only_when_asked_for() {
    for include_thoughts in [false, true] {
        let thinking = Thinking { budget: Some(100), include_thoughts };
        let mut stage = Stage::new(Setup { modality: Modality::Text, thinking, ..setup() }, Script::default());
        stage.take(said("Think."));
        stage.event(Event::Thought { turn: TurnId(1), delta: "Hm.".into() });
        assert_eq!(stage.lines().contains("thought"), include_thoughts);
    }
}

#[test]
fn a_failed_turn_leaves_the_conversation() {
    let mut stage = Stage::new(setup(), Script { reply: Vec::new(), ..Script::default() });
    stage.take(said("Count."));
    stage.event(Event::Failed { turn: Some(TurnId(1)), error: "secret".into(), resumable: true });
    stage.take(said("Again.")).pass(400).expect(
        r#"
        0 | append 1
        0 | start 1
        0 | cancel 1 0
        0 > warning Internal : the engine could not answer
        0 > turn_complete Failed 0 tokens, at - - - - -
        0 | append 1
        0 | start 2
        0 > generation_complete
        0 > turn_complete Finished(Stop) 9 tokens, at - - - - -
        "#,
    );
    stage.event(Event::Failed { turn: None, error: "secret".into(), resumable: true }).take(said("Hello?")).expect(
        r#"
        400 | close
        400 > close Err("the engine cannot go on")
        "#,
    );
    assert!(stage.closed);
}

#[test]
fn a_failed_proposal_is_begun_anew_at_the_end() {
    let mut stage = Stage::new(setup(), Script::default());
    stage.speak(640).quiet(320);
    stage.event(Event::Failed { turn: Some(TurnId(1)), error: "secret".into(), resumable: true });
    stage.quiet(320).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        960 | discard 1
        1152 > speech_stopped 640
        1152 | start 2 0..864
        1202 > heard "What is it?" finished
        1252 > speech 2 0..160
        1252 > said "One"
        1252 > speech 2 160..200
        "#,
    );
}

#[test]
fn an_engine_that_never_answers_is_given_up() {
    let mut stage = Stage::new(setup(), Script { think_ms: 1_000_000, ..Script::default() });
    stage.take(said("Count.")).pass(61_000).expect(
        r#"
        0 | append 1
        0 | start 1
        60000 | cancel 1 0
        60000 > warning DeadlineExceeded : the engine did not answer in time
        60000 > turn_complete Failed 0 tokens, at - - - - -
        "#,
    );
}

#[test]
fn events_of_unknown_turns_and_broken_speech_do_no_harm() {
    let mut stage = Stage::new(setup(), Script { think_ms: 10_000, ..Script::default() });
    let audio = |turn, start| Event::Audio {
        turn: TurnId(turn),
        start: OutputSamples(start),
        pcm: vec![0.0; 240],
        text_until: usize::MAX,
    };
    stage.event(audio(1, 0)).event(Event::Text { turn: TurnId(4), delta: "x".into() });
    stage.event(Event::Done { turn: TurnId(4), reason: FinishReason::Stop, usage: Usage::default() });
    stage.event(Event::Truncated { turn: TurnId(4), text_until: 9, usage: Usage::default() }).expect("");
    stage.take(said("Count.")).event(audio(1, 0)).event(audio(1, 960)).expect(
        r#"
        0 | append 1
        0 | start 1
        0 > speech 1 0..10
        0 | cancel 1 0
        0 > warning Internal : the engine's speech has a gap
        0 > turn_complete Failed 0 tokens, at - - - 0 0
        "#,
    );
}

#[test]
fn a_cancelled_turn_is_not_heard_of_again() {
    let mut stage = text_stage();
    stage.take(said("Count.")).take(said("No, spell."));
    stage.lines();
    stage.event(Event::Text { turn: TurnId(1), delta: "One".into() });
    stage.event(Event::Done { turn: TurnId(1), reason: FinishReason::Stop, usage: Usage::default() }).expect("");
}

#[test]
fn a_session_that_fails_leaves_no_proposal() {
    let mut stage = Stage::new(setup(), Script::default());
    stage.speak(640).quiet(320);
    stage.lines();
    stage
        .event(Event::Failed { turn: None, error: "the prompt has 9 tokens, the limit is 8".into(), resumable: false })
        .expect(
            r#"
        960 | discard 1
        960 | close
        960 > close Err("the prompt has 9 tokens, the limit is 8")
        "#,
        );
}

#[test]
fn the_task_can_be_changed_on_the_way() {
    let tool = |name: &str| ToolDeclaration {
        name: name.into(),
        description: String::new(),
        parameters: "{}".into(),
        behavior: ToolBehavior::Blocking,
    };
    let update = |system_instruction: Option<&str>, tools: Option<Vec<ToolDeclaration>>| Input::Update {
        system_instruction: system_instruction.map(str::to_owned),
        tools,
    };
    let setup = Setup {
        system_instruction: "Be kind.".into(),
        tools: vec![tool("old")],
        server_tools: vec![tool("clock")],
        resumption: true,
        ..setup()
    };
    let mut stage = Stage::new(setup, Script { call: Some("clock"), ..Script::default() });
    stage.take(update(Some("Be brief."), None)).expect("0 | configure \"Be brief.\" old clock");
    stage.take(update(None, Some(vec![tool("new")]))).expect("0 | configure \"Be brief.\" new clock");
    stage.take(update(None, Some(Vec::new()))).expect("0 | configure \"Be brief.\" clock");
    stage.take(update(Some("Be gone."), Some(vec![tool("twice"), tool("twice")]))).expect(
        "0 > warning InvalidArgument context_update.tools.function_declarations.name: \"twice\" is declared twice",
    );
    // One of the client's takes the place of the server's.
    stage.take(update(None, Some(vec![tool("clock")]))).expect("0 | configure \"Be brief.\" clock");
    let lines = stage.take(said("What time is it?")).pass(2_000).lines();
    assert!(lines.contains("> tool_call call-1") && !lines.contains("| run"), "{lines}");
    let snapshot = stage.snapshots.last().cloned().flatten().expect("it waits for its client");
    let update = snapshot.update.expect("the task is not that of the setup");
    assert_eq!((update.system_instruction.as_str(), &update.tools[..]), ("Be brief.", &[tool("clock")][..]));
}

#[test]
fn an_answer_on_trial_is_told_of_another_task() {
    let mut stage = Stage::new(setup(), Script::default());
    stage.speak(640).quiet(320);
    stage.lines();
    let brief = Input::Update { system_instruction: Some("Be brief.".into()), tools: None };
    stage.take(brief).expect("960 | discard 1\n960 | configure \"Be brief.\"");
}

#[test]
fn a_listener_who_hears_nothing_more_is_not_waited_for_for_ever() {
    let mut stage = Stage::new(setup(), Script { think_ms: 1_000_000, ..Script::default() });
    stage.take(said("Count."));
    let pcm = vec![0.1; 24 * 10_000];
    stage.event(Event::Audio { turn: TurnId(1), start: OutputSamples(0), pcm, text_until: 0 });
    // The player has been stopped, and says so.
    for _ in 0..61 {
        stage.take(Input::Played { until: OutputSamples(24_000) }).pass(1_000);
    }
    let lines = stage.lines();
    let message = "warning DeadlineExceeded : the listener has heard nothing more";
    assert!(lines.contains(message) && lines.contains("turn_complete Failed"), "{lines}");
    // One that reports no more is taken to go on: the engine may, and is waited for.
    let mut stage = Stage::new(setup(), Script { think_ms: 1_000_000, ..Script::default() });
    stage.take(said("Count."));
    let pcm = vec![0.1; 24 * 8_000];
    stage.event(Event::Audio { turn: TurnId(1), start: OutputSamples(0), pcm, text_until: 0 });
    for _ in 0..=10 {
        stage.take(Input::Played { until: OutputSamples(0) }).pass(1_000);
    }
    let lines = stage.pass(5_000).lines();
    assert!(lines.ends_with("15501 | credit 1 9001\n"), "{lines}");
}
