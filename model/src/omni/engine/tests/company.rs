use causerie_model_api::CREDIT_AHEAD;

use super::*;
use crate::omni::engine::PROMPT_ROWS;

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

/// A long prompt is read in pieces between the frames of others. In virtual time, in which a pass costs 20 ms, nobody who
/// listens hears a gap meanwhile, and the prompt is read all the same.
#[test]
fn a_long_prompt_does_not_hold_up_speech() {
    const PASS: u64 = 480;
    let mut e = OmniEngine::load(&Options { context: 4_096, ..options(4) }).unwrap();
    e.generation.max_words = 200;
    let (reader, speakers) = (SessionId(9), [1, 2, 3].map(SessionId));
    speakers.iter().for_each(|session| open(&mut e, *session, config(session.0)));
    open(&mut e, reader, config(9));
    let (mut now, mut turn, mut began) = (0, [0; 3], [None; 3]);
    let (mut pieces, mut frames, mut held, mut asked) = (0, 0, 0, false);
    for _ in 0..4_000 {
        if e.sessions[&reader].turns.front().is_some_and(|turn| !turn.drawn.is_empty()) {
            break;
        }
        for (i, session) in speakers.into_iter().enumerate() {
            if e.sessions[&session].turns.is_empty() {
                (turn[i], began[i]) = (turn[i] + 1, None);
                say(&mut e, session, turn[i], "go on");
            }
        }
        if frames >= 40 && !std::mem::replace(&mut asked, true) {
            say(&mut e, reader, 1, &"x".repeat(3_700));
        }
        let (_, events) = step(&mut e);
        now += PASS;
        let read = e.sessions[&reader].memory.rows.len();
        assert!(read <= held + PROMPT_ROWS, "{read} rows after {held}");
        pieces += usize::from(asked && read > held);
        held = read;
        for (session, event) in events {
            if let Event::Audio { .. } = event {
                frames += 1;
                began[session.0 as usize - 1].get_or_insert(now);
            }
        }
        for (i, session) in speakers.into_iter().enumerate() {
            let Some((began, speaking)) = began[i].zip(e.sessions[&session].turns.front()) else { continue };
            let heard = now - began;
            let over = speaking.speech.as_ref().is_none_or(|speech| speech.ended);
            assert!(
                over || speaking.reply.audio_until >= heard,
                "session {} hears silence after {heard} samples",
                session.0
            );
            let audio_until = OutputSamples(heard + CREDIT_AHEAD.0);
            e.submit(Request::Credit { session, turn: TurnId(turn[i]), audio_until }).unwrap();
        }
    }
    assert_eq!(held, e.sessions[&reader].turns[0].prompt.as_ref().unwrap().rows.len(), "after {pieces} pieces");
    assert!(pieces > 110 && frames > 60, "{pieces} pieces, {frames} frames");
}
