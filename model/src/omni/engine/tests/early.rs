use causerie_model_api::Usage;

use super::*;

fn usage(reply: &Reply) -> Usage {
    match reply.done {
        Some(Event::Done { usage, .. }) => usage,
        _ => panic!("the turn never ended: {reply:?}"),
    }
}

/// 4.5 s of speech that come in pieces of `piece` samples, with the engine at work between them; the answer.
fn spoken(e: &mut OmniEngine, piece: u64) -> Reply {
    open(e, S, config(9));
    settle(e);
    e.submit(Request::Listen { session: S, from: InputSamples(1_000) }).unwrap();
    let mut at = 0;
    while at < 80_000 {
        let samples = piece.min(80_000 - at);
        tone(e, S, at, samples);
        at += samples;
        assert_eq!(settle(e), [], "listening is silent");
    }
    let cause = Cause::Utterance { from: InputSamples(1_000), until: InputSamples(73_000) };
    e.submit(Request::Start { session: S, turn: TurnId(1), cause }).unwrap();
    reply(&settle(e), 1)
}

#[test]
fn speech_is_read_while_it_goes_on() {
    let whole = spoken(&mut engine(1), 80_000);
    for piece in [320, 5_000, 16_000] {
        let early = spoken(&mut engine(1), piece);
        assert!(early.pcm == whole.pcm && early.text == whole.text, "in pieces of {piece}");
        // Two blocks of two seconds were in the thinker's memory before the end.
        assert!(usage(&early).cached > 2 * 26, "{:?}", usage(&early));
    }
}

#[test]
fn nothing_is_read_early_when_the_loudest_of_all_decides() {
    let mut e = engine(1);
    e.loudest = Loudest::Utterance;
    let late = spoken(&mut e, 320);
    assert!(usage(&late).cached < 26, "only the instruction: {:?}", usage(&late));
    assert_ne!(late.done, None);
}

#[test]
fn an_instruction_is_read_before_anybody_speaks() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    assert_eq!(settle(&mut e), [Event::Opened]);
    say(&mut e, S, 1, "hello");
    let first = reply(&settle(&mut e), 1);
    assert!(usage(&first).cached >= 10, "{:?}", usage(&first));
    // What comes of it is the same.
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, "hello");
    let at_once = reply(&settle(&mut e), 1);
    assert_eq!(usage(&at_once).cached, 0);
    assert!(first.pcm == at_once.pcm && first.text == at_once.text);
}

#[test]
fn an_instruction_is_read_once_for_all() {
    let instructed =
        |seed| SessionConfig { system_instruction: "be brief and kind to everybody".into(), ..config(seed) };
    let other = SessionId(50);
    let mut e = engine(3);
    open(&mut e, other, instructed(1));
    settle_all(&mut e);
    open(&mut e, S, instructed(2));
    say(&mut e, S, 1, "hello");
    let second = reply(&settle(&mut e), 1);
    assert!(usage(&second).cached >= 30, "{:?}", usage(&second));
    let mut alone = engine(3);
    open(&mut alone, S, instructed(2));
    say(&mut alone, S, 1, "hello");
    let first = reply(&settle(&mut alone), 1);
    assert!(first.pcm == second.pcm && first.text == second.text);
    // What one of them goes on with is its own.
    say(&mut e, other, 1, "hello");
    settle_all(&mut e);
    say(&mut e, S, 2, "and now?");
    say(&mut alone, S, 2, "and now?");
    let (a, b) = (reply(&settle(&mut e), 2), reply(&settle(&mut alone), 2));
    assert!(a.pcm == b.pcm && a.text == b.text);
    // When room is needed, what nobody uses makes room.
    for session in [S, other] {
        e.submit(Request::Close { session }).unwrap();
    }
    let blocks = e.thinker.store.blocks();
    assert!(blocks.free() < blocks.count());
    for session in 60..63 {
        open(&mut e, SessionId(session), config(session));
        say(&mut e, SessionId(session), 1, &"x".repeat(215));
    }
    let events = settle_all(&mut e);
    assert_eq!(events.iter().filter(|(_, event)| matches!(event, Event::Done { .. })).count(), 3);
}

#[test]
fn noise_that_was_no_speech_leaves_nothing() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    settle(&mut e);
    let held = e.thinker.store.blocks().free();
    e.submit(Request::Listen { session: S, from: InputSamples(0) }).unwrap();
    tone(&mut e, S, 0, 60_000);
    settle(&mut e);
    assert!(e.thinker.store.blocks().free() < held, "the noise was read");
    e.submit(Request::Ignore { session: S }).unwrap();
    say(&mut e, S, 1, "hello");
    let after = reply(&settle(&mut e), 1);
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, "hello");
    let plain = reply(&settle(&mut e), 1);
    assert!(after.pcm == plain.pcm && after.text == plain.text);
}
