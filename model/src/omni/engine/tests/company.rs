use super::*;

/// A conversation of three turns, one of them spoken and one interrupted, with `company` others that talk at the same
/// time; the events of `S`.
fn conversation(e: &mut OmniEngine, company: u64) -> Vec<Event> {
    let mut events = Vec::new();
    open(e, S, config(7));
    for other in 0..company {
        open(e, SessionId(10 + other), config(100 + other));
        say(e, SessionId(10 + other), 1, &"so ".repeat(1 + other as usize * 7));
    }
    say(e, S, 1, "first");
    events.extend(settle(e));
    tone(e, S, 0, 30_000);
    for other in 0..company {
        tone(e, SessionId(10 + other), 0, 16_000 + 3_000 * other);
        let until = InputSamples(16_000 + 3_000 * other);
        let cause = Cause::Utterance { from: InputSamples(0), until };
        e.submit(Request::Start { session: SessionId(10 + other), turn: TurnId(2), cause }).unwrap();
    }
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(30_000) };
    e.submit(Request::Start { session: S, turn: TurnId(2), cause }).unwrap();
    events.extend(settle(e));
    e.submit(Request::Cancel { session: S, turn: TurnId(2), heard_until: OutputSamples(4_000) }).unwrap();
    say(e, S, 3, "third");
    events.extend(settle(e));
    events
}

#[test]
fn a_conversation_is_the_same_alone_and_in_company() {
    let replies = |events: &[Event]| [1, 2, 3].map(|turn| reply(events, turn));
    let alone = replies(&conversation(&mut engine(1), 0));
    assert!(alone[2].done.is_some() && !alone[1].pcm.is_empty());
    for company in [1, 5] {
        assert!(replies(&conversation(&mut engine(6), company)) == alone, "with {company} others");
    }
}

#[test]
fn a_place_that_was_used_is_like_a_new_one() {
    let mut e = engine(1);
    let first = conversation(&mut e, 0);
    e.submit(Request::Close { session: S }).unwrap();
    for store in [&e.thinker.store, &e.talker.store] {
        assert_eq!(store.blocks().free(), store.blocks().count(), "all memory came back");
    }
    assert!(conversation(&mut e, 0) == first);
}

#[test]
fn everybody_is_answered() {
    let mut e = engine(40);
    for session in 0..40 {
        open(&mut e, SessionId(session), config(session));
        say(&mut e, SessionId(session), 1, "hello");
    }
    let events = settle_all(&mut e);
    for session in 0..40 {
        let own: Vec<Event> = events.iter().filter(|(s, _)| s.0 == session).map(|(_, e)| e.clone()).collect();
        assert!(reply(&own, 1).done.is_some(), "session {session}");
    }
}
