//! Speech: turns, pauses, interruptions, and clients that fall silent.

use std::time::Duration;

use causerie_model_api::*;

use super::stage::{Script, Stage, setup};
use crate::{Detection, Input, Sensitivity, Setup};

fn stage() -> Stage {
    Stage::new(setup(), Script::default())
}

/// A stage in the middle of a reply of 6 s, at about 2 s of it.
fn talking(setup: Setup) -> Stage {
    let reply = vec![("One two three.", 3_000), (" Four five six.", 3_000)];
    let mut stage = Stage::new(setup, Script { reply, heard: ["Count.", "And now?"].into(), ..Script::default() });
    stage.speak(960).quiet(2_560);
    stage.lines();
    stage
}

#[test]
fn a_question_is_answered() {
    let mut stage = stage();
    stage.quiet(640).speak(960).quiet(3_000).expect(
        r#"
        736 | listen 340
        736 > speech_started 640
        1824 | propose 1 340..1824
        2112 > speech_stopped 1600
        2112 | commit 1
        2162 > heard "What is it?" finished
        2212 > speech 1 0..160
        2212 > said "One"
        2212 > speech 1 160..320
        2332 > said " two"
        2372 > speech 1 320..600
        2612 > said " three."
        2652 > speech 1 600..800
        2812 > said " Four"
        2852 > speech 1 800..1000
        3012 > said " five"
        3052 > speech 1 1000..1200
        3212 > said " six."
        3212 | credit 1 9000
        3212 > generation_complete
        3412 > turn_complete Finished(Stop) 9 tokens, at 512 562 612 612 612
        "#,
    );
    assert_eq!(stage.history(), "User: What is it?\nModel: One two three. Four five six.\n");
}

#[test]
fn a_pause_is_proposed_and_discarded_without_trace() {
    let mut stage = stage();
    stage.speak(640).quiet(320).speak(640).quiet(2_400).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        1024 | discard 1
        1824 | propose 2 0..1824
        2112 > speech_stopped 1600
        2112 | commit 2
        2162 > heard "What is it?" finished
        2212 > speech 2 0..160
        2212 > said "One"
        2212 > speech 2 160..320
        2332 > said " two"
        2372 > speech 2 320..600
        2612 > said " three."
        2652 > speech 2 600..800
        2812 > said " Four"
        2852 > speech 2 800..1000
        3012 > said " five"
        3052 > speech 2 1000..1200
        3212 > said " six."
        3212 | credit 2 9000
        3212 > generation_complete
        3412 > turn_complete Finished(Stop) 9 tokens, at 512 562 612 612 612
        "#,
    );
}

#[test]
fn pauses_inside_a_question_do_not_split_it() {
    for pause in [150, 300, 500] {
        // An engine that answers at once has its reply ready the moment a turn is committed.
        for think_ms in [0, 400] {
            let mut stage = Stage::new(setup(), Script { think_ms, ..Script::default() });
            stage.speak(800).quiet(pause).speak(800).quiet(pause).speak(500).quiet(4_000);
            let log = stage.lines();
            for (what, times) in [("interrupted", 0), ("turn_complete", 1), ("generation_complete", 1)] {
                assert_eq!(log.matches(what).count(), times, "{pause} ms, {think_ms} ms: {what}\n{log}");
            }
            assert_eq!(stage.history(), "User: What is it?\nModel: One two three. Four five six.\n");
        }
    }
}

#[test]
fn a_turn_of_which_nothing_was_sent_is_taken_back() {
    let heard = ["What is the", "What is the capital?"].into();
    let mut stage = Stage::new(setup(), Script { heard, think_ms: 400, ..Script::default() });
    stage.speak(640).quiet(960).speak(640).quiet(2_900).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        1152 > speech_stopped 640
        1152 | commit 1
        1552 > heard "What is the" finished
        1696 | cancel 1 0
        1696 | listen 0
        1696 > speech_started 1600
        2464 | propose 2 0..2464
        2752 > speech_stopped 2240
        2752 | commit 2
        3152 > heard " capital?" finished
        3552 > speech 2 0..160
        3552 > said "One"
        3552 > speech 2 160..320
        3672 > said " two"
        3712 > speech 2 320..600
        3952 > said " three."
        3992 > speech 2 600..800
        4152 > said " Four"
        4192 > speech 2 800..1000
        4352 > said " five"
        4392 > speech 2 1000..1200
        4552 > said " six."
        4552 | credit 2 9000
        4552 > generation_complete
        4752 > turn_complete Finished(Stop) 9 tokens, at 512 912 1312 1312 1312
        "#,
    );
    assert_eq!(stage.history(), "User: What is the capital?\nModel: One two three. Four five six.\n");
}

#[test]
fn a_reply_that_has_begun_is_interrupted_and_not_taken_back() {
    let mut stage = stage();
    stage.speak(640).quiet(800);
    stage.lines();
    stage.speak(960).quiet(640);
    let log = stage.lines();
    assert!(log.contains("> interrupted") && !log.contains("cancel 1 0\n"), "{log}");
}

#[test]
fn speech_counts_when_the_reply_it_went_into_is_over() {
    let mut stage = Stage::new(setup(), Script { think_ms: 100_000, ..Script::default() });
    stage.speak(640).quiet(2_560).speak(192).quiet(256);
    stage.lines();
    stage.event(Event::Done { turn: TurnId(1), reason: FinishReason::Empty, usage: Usage::default() }).expect(
        r#"
        3648 > turn_complete Finished(Empty) 0 tokens, at 512 - - - -
        3648 > speech_started 3200
        3648 | propose 2 2900..3648
        "#,
    );
}

#[test]
fn the_first_speech_waits_while_somebody_may_be_beginning() {
    // Two loud windows are no start, but the reply that is ready meanwhile waits for them to be over.
    let mut stage = Stage::new(setup(), Script { think_ms: 40, ..Script::default() });
    stage.speak(640).quiet(544).speak(64).quiet(640).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        1152 > speech_stopped 640
        1152 | commit 1
        1192 > heard "What is it?" finished
        1408 > speech 1 0..160
        1408 > said "One"
        1408 > speech 1 160..320
        1528 > said " two"
        1568 > speech 1 320..600
        1808 > said " three."
        1848 > speech 1 600..680
        "#,
    );
}

#[test]
fn a_click_is_not_speech() {
    let mut stage = stage();
    stage.quiet(320).speak(64).quiet(960).speak(32).quiet(320).expect("");
}

#[test]
fn enough_speech_interrupts() {
    let mut stage = talking(setup());
    stage.speak(960).quiet(1_600).expect(
        r#"
        3532 > speech 1 2120..2160
        3552 | listen 3220
        3584 | credit 1 10012
        4032 > speech_started 3520
        4032 > interrupted
        4032 | cancel 1 2160
        4033 > turn_complete Interrupted 1 tokens, at 512 562 612 612 612
        4704 | propose 2 3220..4704
        4992 > speech_stopped 4480
        4992 | commit 2
        5042 > heard "And now?" finished
        5092 > speech 2 0..680
        5572 > said "One"
        5612 > speech 2 680..1160
        "#,
    );
    assert_eq!(stage.history(), "User: Count.\nUser: And now?\n", "no whole piece was heard");
}

#[test]
fn a_nod_does_not_interrupt() {
    let mut stage = talking(setup());
    stage.speak(320).quiet(1_280).expect(
        r#"
        3532 > speech 1 2120..2160
        3552 | listen 3220
        3584 | credit 1 10012
        4160 | ignore
        4160 > speech 1 2160..3000
        4800 > said " three."
        4840 > speech 1 3000..3200
        5024 | credit 1 11024
        5040 > speech 1 3200..3320
        "#,
    );
}

#[test]
fn words_decide_before_the_clock() {
    let partial =
        |text: &str| Event::Partial { stable: String::new(), unstable: text.into(), until: InputSamples(1_000_000) };
    let mut stage = talking(setup());
    stage.speak(192).event(partial("Wait")).quiet(640).expect(
        r#"
        3532 > speech 1 2120..2160
        3552 | listen 3220
        3584 | credit 1 10012
        3712 > speech_started 3520
        3712 > interrupted
        3712 | cancel 1 2140
        3713 > turn_complete Interrupted 1 tokens, at 512 562 612 612 612
        3936 | propose 2 3220..3936
        4224 > speech_stopped 3712
        4224 | commit 2
        4274 > heard "And now?" finished
        4324 > speech 2 0..200
        "#,
    );
    let mut stage = talking(setup());
    stage.speak(192).event(partial("Yeah, right")).speak(960).quiet(512).expect(
        r#"
        3532 > speech 1 2120..2160
        3552 | listen 3220
        3584 | credit 1 10012
        4992 | ignore
        4992 > speech 1 2160..2520
        "#,
    );
}

#[test]
fn history_keeps_what_the_client_says_was_heard() {
    let mut stage = talking(setup());
    stage.quiet(1_600);
    stage.lines();
    // By the clock 3.4 s were heard, the first piece among them; the listener lags behind.
    stage.take(Input::Played { until: OutputSamples(24 * 2_500) }).take(Input::CancelReply).quiet(64).expect(
        r#"
        5120 > interrupted
        5120 | cancel 1 2500
        5121 > turn_complete Interrupted 1 tokens, at 512 562 612 612 612
        "#,
    );
    assert_eq!(stage.history(), "User: Count.\n");
    let mut stage = talking(setup());
    stage.quiet(1_600);
    stage.take(Input::Played { until: OutputSamples(u64::MAX) }).take(Input::CancelReply).quiet(64);
    assert_eq!(stage.history(), "User: Count.\nModel: One two three.\n");
}

#[test]
fn a_reply_that_may_not_be_interrupted_is_followed_by_the_next() {
    let mut stage = talking(Setup { interruption: false, ..setup() });
    stage.speak(960).quiet(12_000).expect(
        r#"
        3532 > speech 1 2120..2200
        3572 | credit 1 10000
        3612 > speech 1 2200..2240
        3616 | listen 3220
        3616 > speech_started 3520
        3652 > speech 1 2240..3000
        4372 > said " three."
        4412 > speech 1 3000..3200
        4572 | credit 1 11000
        4612 > speech 1 3200..3600
        4992 > speech_stopped 4480
        5012 > speech 1 3600..4000
        5372 > said " Four"
        5412 > speech 1 4000..4200
        5572 | credit 1 12000
        5612 > speech 1 4200..5000
        6372 > said " five"
        6412 > speech 1 5000..5200
        6572 | credit 1 13000
        6612 > speech 1 5200..6000
        7372 > said " six."
        7372 > generation_complete
        7572 > turn_complete Finished(Stop) 9 tokens, at 512 562 612 612 612
        7572 | start 2 3220..4704
        7622 > heard "And now?" finished
        7672 > speech 2 0..680
        8152 > said "One"
        8192 > speech 2 680..1200
        8672 | credit 2 9000
        8712 > speech 2 1200..1520
        8992 > said " two"
        9032 > speech 2 1520..2200
        9672 | credit 2 10000
        9712 > speech 2 2200..3000
        10472 > said " three."
        10512 > speech 2 3000..3200
        10672 | credit 2 11000
        10712 > speech 2 3200..4000
        11472 > said " Four"
        11512 > speech 2 4000..4200
        11672 | credit 2 12000
        11712 > speech 2 4200..5000
        12472 > said " five"
        12512 > speech 2 5000..5200
        12672 | credit 2 13000
        12712 > speech 2 5200..6000
        13472 > said " six."
        13472 > generation_complete
        13672 > turn_complete Finished(Stop) 9 tokens, at 3092 3142 3192 3192 3192
        "#,
    );
    assert_eq!(
        stage.history(),
        "User: Count.\nModel: One two three. Four five six.\nUser: And now?\nModel: One two three. Four five six.\n"
    );
}

#[test]
fn noise_that_is_no_words_is_not_answered() {
    let script = Script { heard: [""].into(), reply: Vec::new(), reason: FinishReason::Empty, ..Script::default() };
    let mut stage = Stage::new(setup(), script);
    stage.speak(640).quiet(960).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        1152 > speech_stopped 640
        1152 | commit 1
        1202 > turn_complete Finished(Empty) 9 tokens, at 512 562 - - -
        "#,
    );
    assert_eq!(stage.history(), "");
}

#[test]
fn a_client_that_stops_sending_has_stopped_speaking() {
    let mut stage = stage();
    stage.speak(640).pass(3_000).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        1140 | propose 1 0..640
        1440 > speech_stopped 640
        1440 | commit 1
        1490 > heard "What is it?" finished
        1540 > speech 1 0..160
        1540 > said "One"
        1540 > speech 1 160..320
        1660 > said " two"
        1700 > speech 1 320..600
        1940 > said " three."
        1980 > speech 1 600..800
        2140 > said " Four"
        2180 > speech 1 800..1000
        2340 > said " five"
        2380 > speech 1 1000..1200
        2540 > said " six."
        2540 | credit 1 9000
        2540 > generation_complete
        2740 > turn_complete Finished(Stop) 9 tokens, at 800 850 900 900 900
        "#,
    );
}

#[test]
fn large_packets_are_not_silence() {
    let mut stage = stage();
    let mut at = 0;
    for _ in 0..6 {
        stage.pass(500);
        let from = at;
        at += 8_000;
        stage.take(Input::Received { until: InputSamples(at) });
        for window in (from / 512)..(at / 512) {
            let (from, to) = (InputSamples(window * 512), InputSamples(window * 512 + 512));
            stage.take(Input::Voice { probability: 0.9, from, to });
        }
    }
    stage.expect(
        r#"
        500 | listen 0
        500 > speech_started 0
        "#,
    );
}

#[test]
fn sensitivity_and_durations_are_the_clients() {
    let detection =
        Detection { end_sensitivity: Sensitivity::Low, start_confirm_ms: Some(320), ..Detection::default() };
    let mut stage = Stage::new(Setup { detection, ..setup() }, Script::default());
    stage.speak(256).quiet(640).speak(640).quiet(960).expect(
        r#"
        1216 | listen 596
        1216 > speech_started 896
        1760 | propose 1 596..1760
        2336 > speech_stopped 1536
        2336 | commit 1
        2386 > heard "What is it?" finished
        2436 > speech 1 0..160
        2436 > said "One"
        2436 > speech 1 160..240
        "#,
    );
    let detection = Detection { silence_duration_ms: Some(100), ..Detection::default() };
    let mut stage = Stage::new(Setup { detection, ..setup() }, Script::default());
    stage.speak(640).quiet(192).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        768 | propose 1 0..768
        768 > speech_stopped 640
        768 | commit 1
        818 > heard "What is it?" finished
        "#,
    );
}

#[test]
fn the_streams_end_ends_the_utterance() {
    let mut stage = stage();
    stage.speak(640).take(Input::AudioStreamEnd).pass(400).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        640 > speech_stopped 640
        640 | start 1 0..640
        690 > heard "What is it?" finished
        740 > speech 1 0..160
        740 > said "One"
        740 > speech 1 160..320
        860 > said " two"
        900 > speech 1 320..480
        "#,
    );
}

#[test]
fn a_half_close_finishes_what_is_owed() {
    let mut stage = stage();
    stage.speak(640).take(Input::HalfClose).pass(3_000).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        640 > speech_stopped 640
        640 | start 1 0..640
        690 > heard "What is it?" finished
        740 > speech 1 0..160
        740 > said "One"
        740 > speech 1 160..320
        860 > said " two"
        900 > speech 1 320..600
        1140 > said " three."
        1180 > speech 1 600..800
        1340 > said " Four"
        1380 > speech 1 800..1000
        1540 > said " five"
        1580 > speech 1 1000..1200
        1740 > said " six."
        1740 | credit 1 9000
        1740 > generation_complete
        1940 > turn_complete Finished(Stop) 9 tokens, at 0 50 100 100 100
        1940 | close
        1940 > close Ok(())
        "#,
    );
    assert!(stage.closed);
    let mut stage = self::stage();
    stage.quiet(320).take(Input::HalfClose).expect(
        r#"
        320 | close
        320 > close Ok(())
        "#,
    );
    assert!(stage.closed);
}

#[test]
fn a_late_engine_runs_the_listener_dry_and_is_counted() {
    let mut stage = Stage::new(setup(), Script { think_ms: 900, ..Script::default() });
    stage.speak(640).quiet(5_120).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        1152 > speech_stopped 640
        1152 | commit 1
        2052 > heard "What is it?" finished
        2952 > speech 1 0..160
        2952 > said "One"
        2952 > speech 1 160..320
        3072 > said " two"
        3112 > speech 1 320..600
        3352 > said " three."
        3852 > speech 1 600..800
        3852 > said " Four"
        3892 > speech 1 800..1000
        4052 > said " five"
        4092 > speech 1 1000..1200
        4252 > said " six."
        4252 | credit 1 9000
        4252 > generation_complete
        4452 > turn_complete Finished(Stop) 9 tokens, at 512 1412 2312 2312 2312 dry 1
        "#,
    );
}

#[test]
fn credit_is_renewed_as_the_listener_hears() {
    let script = Script { reply: vec![("One.", 7_900), (" Two.", 3_000)], ..Script::default() };
    let mut stage = Stage::new(Setup { output_transcription: false, ..setup() }, script);
    stage.speak(640).quiet(12_800).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        864 | propose 1 0..864
        1152 > speech_stopped 640
        1152 | commit 1
        1202 > heard "What is it?" finished
        1252 > speech 1 0..1200
        2252 | credit 1 9000
        2292 > speech 1 1200..2200
        3252 | credit 1 10000
        3292 > speech 1 2200..3200
        4252 | credit 1 11000
        4292 > speech 1 3200..4200
        5252 | credit 1 12000
        5292 > speech 1 4200..5200
        6252 | credit 1 13000
        6292 > speech 1 5200..6200
        7252 | credit 1 14000
        7292 > speech 1 6200..7200
        8252 | credit 1 15000
        8292 > speech 1 7200..8200
        9252 | credit 1 16000
        9292 > speech 1 8200..9200
        10252 | credit 1 17000
        10292 > speech 1 9200..10200
        11252 | credit 1 18000
        11292 > speech 1 10200..10900
        11952 > generation_complete
        12152 > turn_complete Finished(Stop) 9 tokens, at 512 562 612 612 612
        "#,
    );
}

#[test]
fn transcripts_of_the_user_grow_while_speaking() {
    let partial = |stable: &str, unstable: &str| Event::Partial {
        stable: stable.into(),
        unstable: unstable.into(),
        until: InputSamples(9_000),
    };
    let setup = Setup { interim_transcription: true, ..setup() };
    let mut stage = Stage::new(setup, Script { heard: ["What is the capital?"].into(), ..Script::default() });
    stage.speak(640);
    stage.event(partial("What", " was the")).event(partial("What is", " the cap"));
    stage.quiet(576).event(partial("late", "")).expect(
        r#"
        96 | listen 0
        96 > speech_started 0
        640 > interim "What was the"
        640 > heard "What"
        640 > interim "What is the cap"
        640 > heard " is"
        864 | propose 1 0..864
        1152 > speech_stopped 640
        1152 | commit 1
        1202 > heard " the capital?" finished
        "#,
    );
}

#[test]
fn marks_replace_the_detector() {
    let detection = Detection { disabled: true, ..Detection::default() };
    let mut stage = Stage::new(Setup { detection, ..setup() }, Script::default());
    stage.speak(640).quiet(960);
    stage.take(Input::ActivityEnd).take(Input::AudioStreamEnd);
    stage.take(Input::ActivityStart).take(Input::ActivityStart).quiet(960).take(Input::ActivityEnd).quiet(640);
    stage.take(Input::ActivityStart).quiet(32).expect(
        r#"
        1600 > warning FailedPrecondition realtime_input.activity_end: no activity has started
        1600 > warning FailedPrecondition realtime_input.audio_stream_end: the stream's end means nothing while automatic activity detection is disabled
        1600 | listen 1600
        1600 > speech_started 1600
        1600 > warning FailedPrecondition realtime_input.activity_start: the activity has started already
        2560 > speech_stopped 2560
        2560 | start 1 1600..2560
        2610 > heard "What is it?" finished
        2660 > speech 1 0..160
        2660 > said "One"
        2660 > speech 1 160..320
        2780 > said " two"
        2820 > speech 1 320..600
        3060 > said " three."
        3100 > speech 1 600..720
        3200 > interrupted
        3200 | cancel 1 540
        3200 | listen 3200
        3200 > speech_started 3200
        3201 > turn_complete Interrupted 1 tokens, at 0 50 100 100 100
        "#,
    );
    let mut stage = self::stage();
    stage.take(Input::ActivityStart).take(Input::ActivityEnd).expect(
        r#"
        0 > warning FailedPrecondition realtime_input.activity_start: activity marks need automatic activity detection to be disabled
        0 > warning FailedPrecondition realtime_input.activity_end: activity marks need automatic activity detection to be disabled
        "#,
    );
}

#[test]
fn a_turn_that_includes_all_input_reaches_back() {
    let mut stage = Stage::new(Setup { covers_all_input: true, ..setup() }, Script::default());
    stage.quiet(3_200).speak(640).quiet(640).expect(
        r#"
        3296 | listen 1200
        3296 > speech_started 3200
        4064 | propose 1 1200..4064
        4352 > speech_stopped 3840
        4352 | commit 1
        4402 > heard "What is it?" finished
        4452 > speech 1 0..160
        4452 > said "One"
        4452 > speech 1 160..200
        "#,
    );
}

#[test]
fn a_conversation_in_which_nothing_happens_is_given_up_if_its_client_wants_that() {
    let mut stage = Stage::new(Setup { idle_timeout: Some(Duration::from_secs(30)), ..setup() }, Script::default());
    stage.quiet(20_000).speak(480).quiet(20_000);
    assert!(stage.history().contains("Model"), "silence before and after does not count together");
    stage.lines();
    stage.quiet(9_000);
    assert!(!stage.closed);
    let lines = stage.quiet(10_000).lines();
    assert!(stage.closed && lines.contains("nothing was said or sent for 30 s"), "{lines}");
    let mut stage = Stage::new(setup(), Script::default());
    assert!(!stage.pass(10_000_000).closed, "nobody is given up otherwise");
}
