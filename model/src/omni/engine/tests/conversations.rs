use causerie_model_api::{Busy, CREDIT_AHEAD, FinishReason, Origin, Usage};

use super::*;

fn done(reply: &Reply) -> (FinishReason, Usage) {
    match reply.done {
        Some(Event::Done { reason, usage, .. }) => (reason, usage),
        _ => panic!("the turn never ended: {reply:?}"),
    }
}

#[test]
fn a_typed_turn_is_answered_in_words_and_speech() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, "hello");
    let events = settle(&mut e);
    assert_eq!(events[0], Event::Opened);
    let reply = reply(&events, 1);
    let (reason, usage) = done(&reply);
    assert!(matches!(reason, FinishReason::Stop | FinishReason::MaxTokens), "{reason:?}");
    assert!(!reply.pieces.is_empty(), "it speaks");
    assert_eq!(reply.pieces[0], FIRST_FRAME, "one frame is a packet");
    assert!(reply.pieces[1..].iter().all(|n| *n == FRAME), "{:?}", reply.pieces);
    assert!(reply.marks.is_sorted() && *reply.marks.last().unwrap() <= reply.text.len());
    assert!(reply.pcm.iter().any(|x| x.abs() > 0.01) && reply.pcm.iter().all(|x| x.abs() <= 1.0));
    assert_eq!(usage.response_audio, (reply.pcm.len() / 960) as u32);
    assert!(usage.response_text > 0 && usage.prompt_text > 15 && usage.prompt_audio == 0, "{usage:?}");
}

#[test]
fn a_spoken_turn_is_heard_and_answered() {
    let mut e = engine(1);
    open(&mut e, S, config(2));
    tone(&mut e, S, 0, 40_000);
    e.submit(Request::Listen { session: S, from: InputSamples(0) }).unwrap();
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(40_000) };
    e.submit(Request::Start { session: S, turn: TurnId(1), cause }).unwrap();
    let first = reply(&settle(&mut e), 1);
    let (_, usage) = done(&first);
    assert_eq!(usage.prompt_audio, 40_000 / 640);
    assert!(!first.pcm.is_empty());

    // Another sound gives another answer: it is heard, not ignored.
    let mut e = engine(1);
    open(&mut e, S, config(2));
    tone(&mut e, S, 0, 20_000);
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(20_000) };
    e.submit(Request::Start { session: S, turn: TurnId(1), cause }).unwrap();
    assert!(reply(&settle(&mut e), 1).pcm != first.pcm);
}

#[test]
fn an_utterance_of_nothing_is_not_answered() {
    let mut e = engine(1);
    open(&mut e, S, config(3));
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(100) };
    e.submit(Request::Start { session: S, turn: TurnId(1), cause }).unwrap();
    let reply = reply(&settle(&mut e), 1);
    assert_eq!(done(&reply).0, FinishReason::Empty);
    assert!(reply.text.is_empty() && reply.pcm.is_empty());
}

#[test]
fn speech_begins_before_the_words_are_all_there() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, "hello");
    let (mut words, mut words_at_first_sound) = (0, None);
    let mut next = Next::Ready;
    while next == Next::Ready {
        let (now, events) = step(&mut e);
        next = now;
        for (_, event) in events {
            match event {
                Event::Text { .. } => words += 1,
                Event::Audio { .. } => _ = words_at_first_sound.get_or_insert(words),
                _ => {}
            }
        }
    }
    assert!(words > 4, "{words} words: the seed gives too short an answer to tell");
    assert!(words_at_first_sound.unwrap() < words, "{words_at_first_sound:?} of {words}");
}

#[test]
fn a_text_conversation_has_no_speech() {
    let mut e = engine(1);
    open(&mut e, S, SessionConfig { modality: Modality::Text, ..config(1) });
    say(&mut e, S, 1, "hello");
    let reply = reply(&settle(&mut e), 1);
    assert!(!reply.text.is_empty() && reply.pcm.is_empty());
    assert_eq!(done(&reply).1.response_audio, 0);
}

#[test]
fn a_second_turn_finds_the_first_in_memory() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, "hello");
    settle(&mut e);
    say(&mut e, S, 2, "and now?");
    let (_, usage) = done(&reply(&settle(&mut e), 2));
    assert!(usage.cached >= 20 && usage.cached < usage.prompt_text, "{usage:?}");
}

#[test]
fn speech_stays_within_its_credit() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, "hello");
    // The answer is far shorter than the credit that a turn begins with, so that is taken away first.
    e.sessions.get_mut(&S).unwrap().turns[0].reply.credit = 5_000;
    let events = settle(&mut e);
    let spoken = reply(&events, 1);
    assert_eq!(spoken.pcm.len(), FIRST_FRAME + 2 * FRAME, "the frame that crosses the line is the last");
    assert!(spoken.done.is_none());
    let until = OutputSamples(CREDIT_AHEAD.0);
    e.submit(Request::Credit { session: S, turn: TurnId(1), audio_until: until }).unwrap();
    let rest = settle(&mut e);
    assert!(rest.iter().any(|event| matches!(event, Event::Done { .. })));
}

#[test]
fn an_interrupted_answer_leaves_what_was_heard() {
    for heard in [0, (FIRST_FRAME + 2 * FRAME) as u64] {
        let mut e = engine(1);
        open(&mut e, S, config(1));
        say(&mut e, S, 1, "hello");
        let mut events = Vec::new();
        while reply(&events, 1).pieces.len() < 4 {
            events.extend(step(&mut e).1.into_iter().map(|(_, event)| event));
        }
        e.submit(Request::Cancel { session: S, turn: TurnId(1), heard_until: OutputSamples(heard) }).unwrap();
        let after = settle(&mut e);
        let known = reply(&events, 1);
        let [Event::Truncated { text_until, .. }] = after[..] else { panic!("{after:?}") };
        assert_eq!(text_until, if heard == 0 { 0 } else { known.marks[2] });
        // Nothing of the turn is left in the talker's memory.
        assert_eq!(e.talker.store.blocks().free(), e.talker.store.blocks().count());
    }
}

#[test]
fn speculation_leaves_no_trace() {
    let propose = |e: &mut OmniEngine, turn: u64, until: u64| {
        let (from, until) = (InputSamples(0), InputSamples(until));
        e.submit(Request::Propose { session: S, turn: TurnId(turn), from, until }).unwrap();
    };
    let plain = |e: &mut OmniEngine| {
        open(e, S, config(5));
        tone(e, S, 0, 32_000);
    };
    let (mut a, mut b) = (engine(1), engine(1));
    plain(&mut a);
    plain(&mut b);
    settle(&mut a);
    settle(&mut b);
    // One proposal is answered in full and taken back; another is discarded half-way.
    propose(&mut a, 1, 16_000);
    assert_eq!(settle(&mut a), [], "a proposal is silent");
    a.submit(Request::Discard { session: S, turn: TurnId(1) }).unwrap();
    propose(&mut a, 2, 24_000);
    (0..5).for_each(|_| assert!(step(&mut a).1.is_empty()));
    a.submit(Request::Discard { session: S, turn: TurnId(2) }).unwrap();
    propose(&mut a, 3, 32_000);
    settle(&mut a);
    a.submit(Request::Commit { session: S, turn: TurnId(3) }).unwrap();
    let cause = Cause::Utterance { from: InputSamples(0), until: InputSamples(32_000) };
    b.submit(Request::Start { session: S, turn: TurnId(3), cause }).unwrap();
    let (mut with, mut without) = (reply(&settle(&mut a), 3), reply(&settle(&mut b), 3));
    assert!(with.done.is_some());
    // What was found in memory may differ, what is said may not.
    (with.done, without.done) = (None, None);
    assert!(with == without);
}

#[test]
fn a_conversation_too_many_is_refused() {
    let mut e = engine(2);
    open(&mut e, S, config(1));
    open(&mut e, SessionId(2), config(1));
    let third = Request::Open { session: SessionId(3), config: Box::new(config(1)), history: Vec::new() };
    assert_eq!(e.submit(third.clone()), Err(Busy));
    e.submit(Request::Close { session: S }).unwrap();
    assert_eq!(e.submit(third), Ok(()));
}

#[test]
fn a_prompt_that_does_not_fit_fails_its_turn_alone() {
    let mut e = engine(1);
    open(&mut e, S, config(1));
    say(&mut e, S, 1, &"word ".repeat(100));
    let events = settle(&mut e);
    assert!(matches!(&events[1], Event::Failed { turn: Some(TurnId(1)), resumable: true, .. }), "{events:?}");
    // The words stay in the history until the session forgets them.
    say(&mut e, S, 2, "hello");
    assert!(reply(&settle(&mut e), 2).done.is_none());
    say(&mut e, S, 3, "hello");
    e.submit(Request::Forget { session: S, before: Some(Origin::Given(1)) }).unwrap();
    assert!(reply(&settle(&mut e), 3).done.is_some());
}
