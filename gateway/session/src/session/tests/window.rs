//! Conversations that are longer than the engine's memory.

use causerie_model_api::*;
use causerie_units::MediaTime;

use super::stage::{Script, Stage, capabilities, settings, setup};
use crate::{Compression, Input, Output, ProblemCode, ServerEvent, Session, Setup};

fn prompt(turn: u64, tokens: u32, limit: u32) -> Event {
    Event::Prompt { turn: Some(TurnId(turn)), tokens, limit }
}

fn typed(stage: &mut Stage, text: &str) {
    stage.take(Input::ClientContent { items: vec![Item::text(Role::User, text)], turn_complete: true });
}

fn windowed(trigger: u32, target: u32) -> Setup {
    Setup { compression: Compression { trigger_tokens: Some(trigger), target_tokens: Some(target) }, ..setup() }
}

#[test]
fn the_oldest_turns_are_forgotten_when_a_turn_is_over() {
    let mut stage = Stage::new(windowed(100, 75), Script::default());
    stage.speak(480).quiet(2_500);
    typed(&mut stage, "What is it?");
    stage.pass(3_000);
    typed(&mut stage, "And then?");
    stage.event(prompt(3, 95, 200)).pass(2_000).lines();
    assert_eq!(stage.history().lines().count(), 4, "{}", stage.history());
    stage.pass(1_000);
    // 95 and the 9 of the reply are more than 100: one turn of three goes, which leaves about 69.
    assert_eq!(stage.history().lines().count(), 4);
    assert!(stage.history().starts_with("User: What is it?"), "{}", stage.history());
}

#[test]
fn a_prompt_without_room_makes_room_at_once() {
    let mut stage = Stage::new(setup(), Script { think_ms: 500, ..Script::default() });
    typed(&mut stage, "One?");
    stage.pass(4_000);
    stage.speak(480).quiet(1_000).pass(100).lines();
    stage.event(prompt(2, 300, 200)).expect("5572 | forget before 0");
    // It was too little, and there is nothing more.
    stage.event(prompt(2, 250, 200)).expect("5572 | forget nothing");
    let failed = Event::Failed { turn: Some(TurnId(2)), error: "too long".into(), resumable: true };
    assert!(stage.event(failed).lines().contains("turn_complete Failed"));
    // What is taken back, interrupted or over waits for nothing.
    stage.event(prompt(2, 250, 200)).expect("");
}

#[test]
fn a_history_that_does_not_fit_is_shortened_at_the_start() {
    let history = (0..10).map(|i| Item::text(if i % 2 == 0 { Role::User } else { Role::Model }, "word")).collect();
    let mut stage = Stage::new(Setup { history, ..setup() }, Script::default());
    stage.event(Event::Prompt { turn: None, tokens: 400, limit: 200 }).expect("0 | forget before item 6");
    assert_eq!(stage.history().lines().count(), 4);
}

#[test]
fn no_conversation_ends_for_want_of_room() {
    const LIMIT: u32 = 900;
    let capabilities = Capabilities { context_tokens: 1_000, ..capabilities() };
    let system_instruction = "Be kind. ".repeat(40);
    let setup = Setup { system_instruction: system_instruction.clone(), modality: Modality::Text, ..Setup::default() };
    let mut session = Session::open(setup, &capabilities, settings(), MediaTime::ZERO).unwrap();
    let mut forgotten = 0;
    let mut drain = |session: &mut Session| {
        loop {
            match session.poll_output() {
                Output::Engine(Request::Forget { before, .. }) => {
                    assert!(before.is_some(), "there was room to be made");
                    forgotten += 1;
                }
                Output::Wait(_) => return,
                Output::Close(result) => panic!("{result:?}"),
                _ => {}
            }
        }
    };
    let mut longest = 0;
    for n in 0..10_000_u64 {
        let now = MediaTime::from_millis(n * 1_000);
        let turn = Some(TurnId(n + 1));
        let text = "word ".repeat(1 + (n * 7 % 60) as usize);
        let items = vec![Item::text(Role::User, text.clone())];
        session.handle_input(now, Input::ClientContent { items, turn_complete: true });
        drain(&mut session);
        // A token has three bytes here, and more of them in a reply than its text says.
        let tokens = |session: &Session| {
            let bytes = session.history().map(crate::history::bytes).sum::<usize>() + system_instruction.len();
            (bytes / 3) as u32
        };
        while tokens(&session) > LIMIT {
            let before = tokens(&session);
            session.handle_input(now, Input::Engine(Event::Prompt { turn, tokens: before, limit: LIMIT }));
            drain(&mut session);
            assert!(tokens(&session) < before);
        }
        longest = longest.max(tokens(&session));
        let turn = TurnId(n + 1);
        for event in [
            Event::Prompt { turn: Some(turn), tokens: tokens(&session), limit: LIMIT },
            Event::Text { turn, delta: text },
            Event::Done { turn, reason: FinishReason::Stop, usage: Usage { response_text: 100, ..Usage::default() } },
        ] {
            session.handle_input(now, Input::Engine(event));
            drain(&mut session);
        }
        assert_eq!(session.history().next().map(|item| item.role), Some(Role::User));
    }
    assert!(forgotten > 100 && longest > 600, "{forgotten} times, at most {longest} tokens");
}

#[test]
fn a_message_with_ten_thousand_turns_is_refused_by_name() {
    let mut stage = Stage::new(setup(), Script::default());
    let items: Vec<Item> = (0..10_000).map(|i| Item::text(Role::User, i.to_string())).collect();
    stage.take(Input::ClientContent { items: items.clone(), turn_complete: true });
    stage.expect(
        "0 > warning ResourceExhausted client_content.turns: 10000 entries are more than 4096, the longest history",
    );
    let problem =
        Session::open(Setup { history: items, ..setup() }, &capabilities(), settings(), MediaTime::ZERO).err();
    let problem = problem.expect("a setup with more than is kept");
    assert_eq!(
        (problem.field.as_str(), problem.message.as_str()),
        ("setup.history", "10000 entries are more than 4096")
    );
}

#[test]
fn a_full_history_is_forgotten_on_both_sides() {
    let mut stage = Stage::new(setup(), Script::default());
    for n in 0..5 {
        let items: Vec<Item> = (0..1_000).map(|i| Item::text(Role::User, (n * 1_000 + i).to_string())).collect();
        stage.take(Input::ClientContent { items, turn_complete: false });
    }
    let lines = stage.lines();
    assert!(lines.contains("| forget before item "), "{lines}");
    assert!(stage.session.history().count() <= crate::history::MAX_ITEMS);
}

#[test]
fn no_more_is_kept_than_a_context_could_hold_a_part_of() {
    let capabilities = Capabilities { context_tokens: 1_000, ..capabilities() };
    let setup = Setup { modality: Modality::Text, ..Setup::default() };
    let mut session = Session::open(setup, &capabilities, settings(), MediaTime::ZERO).unwrap();
    let mut longest = 0;
    for n in 1..=40 {
        let items = vec![Item::text(Role::User, "x".repeat(n * 4_000))];
        let now = MediaTime::from_millis(n as u64);
        session.handle_input(now, Input::ClientContent { items, turn_complete: false });
        let mut refused = false;
        loop {
            match session.poll_output() {
                Output::Client(ServerEvent::Warning(problem)) => {
                    assert_eq!(problem.code, ProblemCode::ResourceExhausted);
                    refused = true;
                }
                Output::Wait(_) => break,
                _ => {}
            }
        }
        assert_eq!(refused, n * 4_000 > 64 << 10, "{n}");
        longest = longest.max(session.history().map(crate::history::bytes).sum());
    }
    assert!(longest > 128 << 10 && longest <= 256 << 10, "{longest}");
}
