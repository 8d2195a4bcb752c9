//! Conversations that break off and are resumed.

use causerie_model_api::*;
use causerie_units::MediaTime;

use super::stage::{Script, Stage, capabilities, settings, setup};
use crate::{Input, Output, PendingCall, Problem, ProblemCode, Session, Setup, Snapshot, ToolResponse};

fn resumable() -> Setup {
    let tool = |name: &str, behavior| ToolDeclaration {
        name: name.into(),
        description: String::new(),
        parameters: "{}".into(),
        behavior,
    };
    let tools = vec![tool("look", ToolBehavior::Blocking), tool("note", ToolBehavior::NonBlocking)];
    Setup { resumption: true, tools, ..setup() }
}

fn resumed(snapshot: &Snapshot) -> Stage {
    Stage::new(resumable().resuming(snapshot.clone()), Script::default())
}

fn typed(text: &str, turn_complete: bool) -> Input {
    Input::ClientContent { items: vec![Item::text(Role::User, text)], turn_complete }
}

fn response(id: &str) -> Input {
    Input::ToolResponse(vec![ToolResponse {
        id: id.into(),
        name: "look".into(),
        response: r#"{"sun":true}"#.into(),
        scheduling: Scheduling::WhenIdle,
        will_continue: false,
    }])
}

fn gone() -> Problem {
    Problem::new(ProblemCode::Unavailable, "", "gone")
}

#[test]
fn a_conversation_can_be_resumed_whenever_nothing_is_on_its_way() {
    let mut stage = Stage::new(resumable(), Script::default());
    assert_eq!(stage.snapshots.last(), Some(&Some(Snapshot::default())), "from the beginning");
    stage.speak(480).quiet(100);
    assert_eq!(stage.snapshots.len(), 1, "while somebody speaks there is none");
    stage.quiet(900);
    assert_eq!(stage.snapshots.last(), Some(&None), "told once that a reply cannot be resumed");
    assert_eq!(stage.snapshots.len(), 2);
    stage.quiet(3_000);
    let snapshot = stage.snapshots.last().cloned().flatten().expect("the turn is over");
    assert_eq!(stage.snapshots.len(), 3);
    assert_eq!(snapshot.history.len(), 2);
    let mut resumed = resumed(&snapshot);
    assert_eq!(resumed.history(), stage.history());
    for stage in [&mut stage, &mut resumed] {
        stage.take(typed("And then?", true)).pass(3_000);
    }
    assert_eq!(resumed.history(), stage.history());
}

#[test]
fn snapshots_are_not_made_more_often_than_useful() {
    let mut stage = Stage::new(resumable(), Script::default());
    stage.snapshots.clear();
    for _ in 0..10 {
        stage.take(typed("word", false)).pass(10);
    }
    assert_eq!(stage.snapshots.len(), 0);
    stage.pass(1_000);
    assert_eq!(stage.snapshots.len(), 1, "the last state is not forgotten");
    assert_eq!(stage.snapshots[0].as_ref().map(|snapshot| snapshot.history.len()), Some(10));
    stage.pass(60_000);
    assert_eq!(stage.snapshots.len(), 1);
}

#[test]
fn nobody_makes_snapshots_who_was_not_asked() {
    let mut stage = Stage::new(Setup { resumption: false, ..resumable() }, Script::default());
    stage.take(typed("word", true)).pass(5_000).take(Input::Park(gone()));
    assert!(stage.snapshots.is_empty());
}

#[test]
fn calls_wait_for_their_results_across_a_resumption() {
    let script = Script { call: Some("look"), ..Script::default() };
    let mut stage = Stage::new(resumable(), script);
    stage.take(typed("Is it sunny?", true)).pass(3_000);
    let snapshot = stage.snapshots.last().cloned().flatten().expect("it waits for its client alone");
    assert_eq!(snapshot.calls.len(), 1);
    let mut resumed = resumed(&snapshot);
    assert_eq!(
        resumed.history(),
        "User: Is it sunny?\nModel: One two three. Four five six.\nModel: look({})\n",
        "what was said stands before the call"
    );
    resumed.take(response("call-1")).expect("0 | result call-1 {\"sun\":true}\n0 | start 2");
    resumed
        .take(response("call-1"))
        .expect("0 > warning FailedPrecondition tool_response.function_responses.id: \"call-1\" was answered before");
}

#[test]
fn results_of_before_are_not_wanted_when_the_user_goes_on() {
    let snapshot = Snapshot {
        history: vec![Item::text(Role::User, "Is it sunny?")],
        calls: vec![PendingCall {
            id: "c".into(),
            name: "look".into(),
            behavior: ToolBehavior::Blocking,
            server: false,
        }],
        ..Snapshot::default()
    };
    let cancelled = "result c {\"error\": \"cancelled, the user interrupted\"}";
    let mut typed_into = resumed(&snapshot);
    typed_into.take(typed("Never mind.", true));
    typed_into.expect(&format!(
        "0 > tool_call_cancellation c
         0 | {cancelled}
         0 | append 1
         0 | start 1"
    ));
    let mut spoken_into = resumed(&snapshot);
    let lines = spoken_into.speak(480).quiet(1_000).lines();
    let order = ["discard 1", "tool_call_cancellation c", cancelled, "start 2 "].map(|part| lines.find(part));
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{lines}");
    let mut late = resumed(&snapshot);
    let lines = late.pass(61_000).lines();
    assert!(lines.contains("60000 | result c") && lines.contains("60000 | start 1"), "{lines}");
}

#[test]
fn functions_of_the_server_are_not_run_twice() {
    let call = PendingCall { id: "c".into(), name: "clock".into(), behavior: ToolBehavior::Blocking, server: true };
    let history = vec![Item::text(Role::User, "What time is it?")];
    let mut stage = Stage::new(Setup { history, calls: vec![call], ..resumable() }, Script::default());
    assert!(stage.history().contains("was stopped before it answered"), "{}", stage.history());
    assert!(stage.pass(3_000).lines().contains("turn_complete"), "the model says what it makes of it");
}

#[test]
fn a_reply_that_breaks_off_is_kept_as_far_as_it_was_heard() {
    let mut stage = Stage::new(resumable(), Script::default());
    stage.take(typed("Count.", true)).pass(700).take(Input::Park(gone()));
    let snapshot = stage.snapshots.last().cloned().flatten().expect("the last state");
    assert_eq!(snapshot.history[1..], [Item::text(Role::Model, "One two three.")]);
    assert!(!snapshot.owed && stage.closed);

    let mut stage = Stage::new(resumable(), Script::default());
    stage.take(typed("Count.", true)).pass(20).take(Input::Park(gone()));
    let snapshot = stage.snapshots.last().cloned().flatten().expect("the last state");
    assert!(snapshot.owed, "nobody has heard anything of the reply");
    let mut resumed = resumed(&snapshot);
    assert!(resumed.pass(3_000).lines().contains("turn_complete Finished(Stop)"));
    assert_eq!(resumed.history(), "User: Count.\nModel: One two three. Four five six.\n");
}

#[test]
fn a_drain_waits_for_the_reply_and_not_for_the_client() {
    let mut stage = Stage::new(resumable(), Script::default());
    stage.take(typed("Count.", true)).pass(500).take(Input::Drain(gone()));
    assert!(!stage.closed, "the reply is finished first");
    stage.pass(3_000);
    assert!(stage.closed);
    let snapshot = stage.snapshots.last().cloned().flatten().expect("the last state");
    assert_eq!(snapshot.history.len(), 2);

    let script = Script { call: Some("look"), ..Script::default() };
    let mut stage = Stage::new(resumable(), script);
    stage.take(typed("Is it sunny?", true)).pass(3_000).take(Input::Drain(gone()));
    assert!(stage.closed, "a result of the client comes elsewhere");
    assert_eq!(stage.snapshots.last().cloned().flatten().map(|snapshot| snapshot.calls.len()), Some(1));

    let mut stage = Stage::new(resumable(), Script::default());
    stage.speak(480).take(Input::Drain(gone()));
    assert!(!stage.closed, "what was just said is answered");
    stage.pass(3_000);
    assert!(stage.closed && stage.history().contains("Four five six."), "{}", stage.history());
}

#[test]
fn an_engine_that_is_lost_leaves_a_state_behind() {
    let mut stage = Stage::new(resumable(), Script::default());
    stage.take(typed("Count.", true)).pass(20);
    stage.event(Event::Failed { turn: None, error: "lost".into(), resumable: true });
    assert!(stage.closed && stage.snapshots.last().cloned().flatten().is_some_and(|snapshot| snapshot.owed));
}

#[test]
fn a_turn_that_is_not_known_in_words_cannot_be_resumed() {
    let mut session = Session::open(resumable(), &capabilities(), settings(), MediaTime::ZERO).unwrap();
    let mut made = 0;
    let mut at = 0;
    let mut take = |session: &mut Session, input| {
        session.handle_input(MediaTime::from_millis(at), input);
        at += 16;
        loop {
            match session.poll_output() {
                Output::Wait(_) => return made,
                Output::Snapshot(Some(_)) => made += 1,
                _ => {}
            }
        }
    };
    assert_eq!(take(&mut session, Input::Tick), 1);
    for (window, probability) in (0..60).map(|n| (n, if n < 30 { 0.9 } else { 0.0 })) {
        let (from, to) = (InputSamples(window * 512), InputSamples(window * 512 + 512));
        take(&mut session, Input::Received { until: to });
        take(&mut session, Input::Voice { probability, from, to });
    }
    let turn = TurnId(1);
    // An engine that hears without transcribing says nothing of what it heard.
    take(&mut session, Input::Engine(Event::Text { turn, delta: "Hello.".into() }));
    let done = Event::Done { turn, reason: FinishReason::Stop, usage: Usage::default() };
    take(&mut session, Input::Engine(done));
    assert_eq!(take(&mut session, Input::Tick), 1);
    assert_eq!(session.history().count(), 2);
}

#[test]
fn what_was_last_said_is_understood_before_the_conversation_is_left() {
    // Who had paused is answered elsewhere; who was speaking or sounded unfinished is not.
    for (quiet, finished, owed) in
        [(224, None, true), (0, None, false), (320, Some(0.9), true), (320, Some(0.1), false)]
    {
        let script = Script { finished: finished.map(|p| (Some(p), 10)).into_iter().collect(), ..Script::default() };
        let mut stage = Stage::new(resumable(), script);
        stage.speak(480).quiet(quiet).take(Input::Leave(gone()));
        assert!(!stage.closed, "{quiet}, {finished:?}: the engine has not said what it heard");
        stage.pass(60);
        let lines = stage.lines();
        assert!(stage.closed && !lines.contains("> speech "), "{quiet}, {finished:?}: {lines}");
        let snapshot = stage.snapshots.last().cloned().flatten().expect("the last state");
        assert_eq!(snapshot.history, [Item::text(Role::User, "What is it?")], "{quiet}, {finished:?}");
        assert_eq!(snapshot.owed, owed, "{quiet}, {finished:?}");
        let answered = resumed(&snapshot).pass(3_000).lines().contains("turn_complete");
        assert_eq!(answered, owed, "{quiet}, {finished:?}");
    }
}

#[test]
fn a_conversation_is_left_in_any_state() {
    let left = |stage: &mut Stage| {
        stage.take(Input::Leave(gone())).pass(2_000);
        assert!(stage.closed, "{}", stage.lines());
        stage.snapshots.last().cloned().flatten().expect("the last state")
    };
    // Committed, and not yet understood.
    let mut stage = Stage::new(resumable(), Script { think_ms: 300, ..Script::default() });
    let snapshot = left(stage.speak(480).quiet(544));
    assert_eq!((snapshot.history.len(), snapshot.owed), (1, true), "{}", stage.lines());
    // An engine that does not say what it heard is not waited for, and what was written before is still owed.
    let mut stage = Stage::new(resumable(), Script { think_ms: 9_000, ..Script::default() });
    let snapshot = left(stage.speak(480));
    assert_eq!((snapshot.history.len(), snapshot.owed), (0, false));
    // The end of speech into a reply whose listener heard a part of it.
    let mut stage = Stage::new(Setup { interruption: false, ..resumable() }, Script::default());
    stage.take(typed("Count.", true)).pass(100).speak(480).quiet(224);
    let snapshot = left(&mut stage);
    let roles: Vec<Role> = snapshot.history.iter().map(|item| item.role).collect();
    assert_eq!((&roles[..], snapshot.owed), (&[Role::User, Role::Model, Role::User][..], true), "{}", stage.history());
    // Nothing is being said.
    let mut stage = Stage::new(resumable(), Script::default());
    stage.take(Input::Leave(gone()));
    assert!(stage.closed);
}
