//! The order in which a turn ends, and what users of other services complain of when it is wrong.

use causerie_model_api::*;

use super::stage::{Script, Stage, setup};
use crate::{Detection, Input, Setup};

/// A reply of 2 s, with the log since it was asked for.
fn asked(setup: Setup) -> Stage {
    let reply = vec![("One two three.", 1_000), (" Four five six.", 1_000)];
    let heard = ["Count.", "And now?"].into();
    let mut stage = Stage::new(setup, Script { reply, heard, ..Script::default() });
    stage.speak(640).quiet(512);
    stage
}

fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.split_once("> ").is_some_and(|(_, said)| said.starts_with(what))).count()
}

/// When a line that begins so was logged.
fn at(log: &str, what: &str) -> Option<u64> {
    let line = log.lines().find(|line| line.split_once("> ").is_some_and(|(_, said)| said.starts_with(what)))?;
    line.split(' ').next()?.parse().ok()
}

/// Milliseconds of a turn's speech that were sent, which must be without gaps.
fn spoken(log: &str, turn: u64) -> u64 {
    let mut until = 0;
    for range in log.lines().filter_map(|line| line.split_once(&format!("> speech {turn} "))?.1.split_once("..")) {
        assert_eq!(range.0.parse(), Ok(until), "{log}");
        until = range.1.parse().unwrap();
    }
    until
}

#[test]
fn a_turn_is_over_when_it_was_heard_and_not_long_after() {
    let mut stage = asked(setup());
    stage.quiet(4_000);
    let log = stage.lines();
    let (complete, over) = (at(&log, "generation_complete").unwrap(), at(&log, "turn_complete").unwrap());
    // The first piece left 100 ms after the endpoint and was heard at once.
    assert_eq!(over, 1_152 + 100 + 2_000, "{log}");
    assert!((1..=240).contains(&(over - complete)), "{log}");
    assert_eq!(spoken(&log, 1), 2_000, "{log}");
}

#[test]
fn text_is_over_when_it_is_written() {
    let mut stage = asked(Setup { modality: Modality::Text, ..setup() });
    stage.quiet(960);
    let log = stage.lines();
    assert_eq!(at(&log, "generation_complete"), at(&log, "turn_complete"), "{log}");
}

#[test]
fn a_turn_ends_one_way_whenever_somebody_speaks_into_it() {
    for begin in (0..2_600).step_by(32) {
        for setup in [setup(), Setup { interruption: false, ..setup() }] {
            let interruption = setup.interruption;
            let mut stage = asked(setup);
            stage.quiet(begin).speak(960).quiet(8_000);
            let log = stage.lines();
            let case = format!("after {begin} ms:\n{log}");
            let interrupted = count(&log, "interrupted");
            assert!(interrupted <= usize::from(interruption), "{case}");
            // The interrupted turn has no generation_complete; every other one has. Both are answered.
            assert_eq!(count(&log, "turn_complete"), 2.min(count(&log, "generation_complete") + interrupted), "{case}");
            assert!(count(&log, "generation_complete") + interrupted >= 1, "{case}");
            assert_eq!(count(&log, "turn_complete Interrupted"), interrupted, "{case}");
            let marks = ["generation_complete", "interrupted", "turn_complete"];
            let mut order = log.lines().filter_map(|line| {
                let said = line.split_once("> ")?.1;
                marks.into_iter().find(|mark| said.starts_with(mark))
            });
            while let Some(mark) = order.next() {
                assert_ne!(mark, "turn_complete", "{case}");
                assert_eq!(order.next(), Some("turn_complete"), "{case}");
            }
            let last = log.lines().rfind(|line| line.contains("turn_complete")).unwrap();
            assert!(last.contains("Finished(Stop)"), "the last utterance is answered {case}");
        }
    }
}

#[test]
fn a_turn_that_is_stopped_in_its_last_moment_ends_as_it_was_announced() {
    let mut stage = asked(setup());
    stage.quiet(1_920).take(Input::CancelReply).quiet(64);
    let log = stage.lines();
    assert!(at(&log, "generation_complete").unwrap() < 3_072, "{log}");
    assert_eq!((count(&log, "interrupted"), count(&log, "turn_complete Finished(Stop)")), (0, 1), "{log}");
    // What the listener has not heard is not remembered.
    assert_eq!(stage.history(), "User: Count.\nModel: One two three.\n");
}

#[test]
fn a_stop_word_is_followed_by_a_turn_and_the_next_question_by_an_answer() {
    // Only "Stop." is said, in which there is nothing to answer; then a question comes.
    let mut stage = asked(setup());
    let partial = Event::Partial { stable: String::new(), unstable: "Stop.".into(), until: InputSamples(1_000_000) };
    stage.quiet(640).speak(192).event(partial).quiet(960);
    let log = stage.lines();
    assert_eq!((count(&log, "interrupted"), count(&log, "turn_complete Interrupted")), (1, 1), "{log}");
    stage.quiet(4_000).speak(640).quiet(4_000);
    let log = stage.lines();
    assert_eq!(count(&log, "turn_complete Finished(Stop)"), 2, "{log}");
}

#[test]
fn nothing_is_interrupted_where_nothing_is_said() {
    // Noise, questions and noise again: the reply is over each time.
    let mut stage = asked(setup());
    stage.quiet(3_008).speak(640).quiet(4_000).speak(64).quiet(640).speak(320).quiet(4_000);
    let log = stage.lines();
    assert_eq!((count(&log, "interrupted"), count(&log, "turn_complete Finished(Stop)")), (0, 3), "{log}");
}

#[test]
fn speech_does_not_interrupt_where_the_client_marks_it() {
    let detection = Detection { disabled: true, ..Detection::default() };
    for (interruption, interrupted) in [(true, 1), (false, 0)] {
        let mut stage = Stage::new(Setup { detection, interruption, ..setup() }, Script::default());
        stage.take(Input::ActivityStart).quiet(320).take(Input::ActivityEnd).quiet(320).speak(1_280).quiet(640);
        let log = stage.lines();
        assert_eq!((count(&log, "interrupted"), spoken(&log, 1)), (0, 1_200), "{log}");
        stage.take(Input::ActivityStart).quiet(320).take(Input::ActivityEnd).quiet(320).take(Input::ActivityStart);
        stage.quiet(320).take(Input::ActivityEnd).quiet(3_000);
        let log = stage.lines();
        assert_eq!(count(&log, "interrupted"), interrupted, "{log}");
        assert_eq!(count(&log, "turn_complete"), 2, "{log}");
    }
}

#[test]
fn media_without_marks_is_not_answered() {
    let detection = Detection { disabled: true, ..Detection::default() };
    let mut stage = Stage::new(Setup { detection, ..setup() }, Script::default());
    stage.speak(60_000).quiet(10_000).expect("");
}

#[test]
fn short_words_are_answered_at_once() {
    for word in [96, 128, 192] {
        let mut stage = Stage::new(setup(), Script::default());
        stage.quiet(320).speak(word).quiet(960);
        let log = stage.lines();
        assert_eq!(at(&log, "speech 1"), Some(320 + word + 512 + 100), "{word} ms: {log}");
    }
}

#[test]
fn a_reply_is_whole_whatever_was_coughed_into_it() {
    for cough in [96, 192, 320, 480] {
        let mut stage = asked(setup());
        stage.quiet(640).speak(cough).quiet(640).speak(cough).quiet(6_000);
        let log = stage.lines();
        assert_eq!((spoken(&log, 1), count(&log, "interrupted")), (2_000, 0), "{cough} ms: {log}");
        assert_eq!(stage.history(), "User: Count.\nModel: One two three. Four five six.\n");
    }
}

#[test]
fn a_blip_at_the_end_of_a_reply_is_no_utterance_and_its_beginning_may_be_one() {
    for (more, answered) in [(0, 1), (640, 2)] {
        // The reply is over 64 ms after a hold began.
        let mut stage = asked(setup());
        stage.quiet(2_016).speak(64).speak(more).quiet(4_000);
        let log = stage.lines();
        assert!(log.contains("listen"), "{log}");
        assert_eq!((count(&log, "turn_complete"), count(&log, "interrupted")), (answered, 0), "{log}");
    }
}
