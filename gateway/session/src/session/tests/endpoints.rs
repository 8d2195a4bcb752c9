//! The end of an utterance: pauses that are judged by their sound, and by the client's own settings.

use super::stage::{Script, Stage};
use crate::{Detection, Input, Sensitivity, Setup};

fn setup() -> Setup {
    Setup { input_transcription: true, ..Setup::default() }
}

/// A stage where pauses sound finished or not as given, each told after so many milliseconds.
fn judged(finished: impl Into<std::collections::VecDeque<(Option<f32>, u64)>>) -> Stage {
    let reply = vec![("One.", 200)];
    Stage::new(setup(), Script { reply, finished: finished.into(), ..Script::default() })
}

#[test]
fn a_finished_sentence_is_answered_after_the_short_silence() {
    judged([(Some(0.9), 80)]).speak(640).quiet(960).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        864 | judge 0..840
        1152 > speech_stopped 640
        1152 | commit 1
        1202 > heard "What is it?" finished
        1252 > speech 1 0..200
        1252 > generation_complete
        1452 > turn_complete Finished(Stop) 9 tokens, at 512 562 612 612 612
        "#,
    );
}

#[test]
fn a_sentence_that_goes_on_is_waited_for() {
    let mut stage = judged([(Some(0.1), 80), (Some(0.9), 80)]);
    stage.speak(640).quiet(1_088).speak(640).quiet(960).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        864 | judge 0..840
        1152 > waiting_for_input
        1792 | discard 1
        2592 | propose 2 0..2592
        2592 | judge 0..2568
        2880 > speech_stopped 2368
        2880 | commit 2
        2930 > heard "What is it?" finished
        2980 > speech 2 0..200
        2980 > generation_complete
        3180 > turn_complete Finished(Stop) 9 tokens, at 512 562 612 612 612
        "#,
    );
    assert_eq!(stage.history(), "User: What is it?\nModel: One.\n");
}

#[test]
fn nobody_who_says_no_more_waits_longer_than_the_long_silence() {
    judged([(Some(0.1), 80)]).speak(640).quiet(1_280).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        864 | judge 0..840
        1152 > waiting_for_input
        1856 > speech_stopped 640
        1856 | commit 1
        1906 > heard "What is it?" finished
        "#,
    );
}

/// When the utterance of the stage was over, after 640 ms of speech.
fn ended(stage: &mut Stage) -> u64 {
    stage.speak(640).quiet(2_560);
    let log = stage.lines();
    let line = log.lines().find(|line| line.contains("speech_stopped")).unwrap_or_else(|| panic!("{log}"));
    line.split(' ').next().unwrap().parse::<u64>().unwrap() - 640
}

#[test]
fn silence_decides_by_what_is_known_of_it() {
    let cases: [(&str, Option<f32>, u64, u64); 7] = [
        ("finished", Some(0.51), 0, 512),
        ("unfinished", Some(0.5), 0, 1_216),
        ("no number", Some(f32::NAN), 0, 1_216),
        ("it cannot be told", None, 80, 512),
        ("late, but finished: at once", Some(0.9), 600, 824),
        ("later than the long silence", Some(0.9), 1_500, 1_216),
        ("late, and it cannot be told", None, 600, 824),
    ];
    for (what, probability, after, want) in cases {
        assert_eq!(ended(&mut judged([(probability, after)])), want, "{what}");
    }
}

#[test]
fn a_client_that_names_the_silence_gets_it_whatever_it_sounds_like() {
    let cases = [
        (Detection::default(), 1_216),
        (Detection { silence_duration_ms: Some(500), ..Detection::default() }, 512),
        (Detection { silence_duration_ms: Some(2_000), ..Detection::default() }, 2_016),
        (Detection { end_sensitivity: Sensitivity::High, ..Detection::default() }, 1_216),
        (Detection { end_sensitivity: Sensitivity::Low, ..Detection::default() }, 1_504),
    ];
    for (detection, want) in cases {
        let script = Script { finished: [(Some(0.1), 80)].into(), ..Script::default() };
        let mut stage = Stage::new(Setup { detection, ..setup() }, script);
        assert_eq!(ended(&mut stage), want, "{detection:?}");
    }
    let script = Script { finished: [(Some(0.9), 80)].into(), ..Script::default() };
    let detection = Detection { end_sensitivity: Sensitivity::Low, ..Detection::default() };
    assert_eq!(ended(&mut Stage::new(Setup { detection, ..setup() }, script)), 800);
}

#[test]
fn a_pause_without_packets_is_judged_too() {
    judged([(Some(0.9), 80)]).speak(640).pass(1_200).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        1140 | propose 1 0..640
        1140 | judge 0..840
        1440 > speech_stopped 640
        1440 | commit 1
        1490 > heard "What is it?" finished
        1540 > speech 1 0..200
        1540 > generation_complete
        1740 > turn_complete Finished(Stop) 9 tokens, at 800 850 900 900 900
        "#,
    );
}

#[test]
fn the_answer_about_another_pause_changes_nothing() {
    let mut stage = judged([(Some(0.9), 300), (Some(0.1), 80)]);
    // The first answer comes in the second pause.
    stage.speak(640).quiet(224).speak(64).quiet(960);
    let log = stage.lines();
    assert_eq!(log.matches("judge").count(), 2, "{log}");
    assert!(log.contains("waiting_for_input") && !log.contains("speech_stopped"), "{log}");
    // Nor does one that nobody asked for.
    let mut stage = judged([(Some(0.9), 0)]);
    stage.take(Input::Completion { until: causerie_model_api::InputSamples(0), probability: Some(1.0) }).expect("");
}

#[test]
fn the_streams_end_does_not_wait_for_a_verdict() {
    let mut stage = judged([(Some(0.1), 80)]);
    stage.speak(640).quiet(256).take(Input::AudioStreamEnd);
    let log = stage.lines();
    assert!(log.contains("judge") && log.contains("commit 1"), "{log}");
}

#[test]
fn packets_that_come_again_with_silence_do_not_end_a_pause() {
    let mut stage = judged([(Some(0.1), 80)]);
    stage.speak(640).pass(512).quiet(64);
    let log = stage.lines();
    assert!(log.contains("propose 1") && !log.contains("discard"), "{log}");
}
