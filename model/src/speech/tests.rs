use super::*;
use crate::testing::model;

fn load() -> Option<Speech> {
    Some(Speech::load(&model("hibari")?).unwrap())
}

fn say(speech: &Speech, text: &str) -> (Vec<f32>, Spoken) {
    let mut out = Vec::new();
    let spoken = speech.synthesize(text, "", 1.0, &mut out).unwrap();
    assert_eq!(spoken.samples, out.len());
    (out, spoken)
}

#[test]
fn a_sentence_is_spoken() {
    let Some(speech) = load() else { return };
    let text = "The train leaves at 7:05 and costs $12.50.";
    let (pcm, spoken) = say(&speech, text);
    let seconds = pcm.len() as f32 / 24_000.0;
    assert!((3.0..6.0).contains(&seconds), "{seconds} s");
    let peak = pcm.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!((0.1..=0.95).contains(&peak), "peak {peak}");
    let rms = (pcm.iter().map(|x| x * x).sum::<f32>() / pcm.len() as f32).sqrt();
    assert!((0.02..0.2).contains(&rms), "rms {rms}");
    // The clause begins and ends in silence, and pauses behind its full stop.
    assert!(pcm[0].abs() < 1e-3 && pcm[pcm.len() - 4_800..].iter().all(|x| x.abs() < 0.01));
    let heard: Vec<&str> = spoken.words.iter().map(|w| &text[..w.0]).collect();
    assert_eq!(heard.len(), 8);
    assert_eq!(heard[4], "The train leaves at 7:05");
    assert_eq!(heard[7].trim_end_matches('.'), "The train leaves at 7:05 and costs $12.50");
    assert!(spoken.words.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    assert!(spoken.words.iter().all(|w| w.1 > 0 && w.1 <= pcm.len()));
}

#[test]
fn equal_texts_sound_equal_wherever_they_are_appended() {
    let Some(speech) = load() else { return };
    let (alone, spoken) = say(&speech, "Hello there.");
    let mut out = vec![0.25; 100];
    assert_eq!(speech.synthesize("Hello there.", "heart", 1.0, &mut out).unwrap(), spoken);
    assert_eq!(out[100..], alone);
    assert!(out[..100].iter().all(|x| *x == 0.25));
}

#[test]
fn text_without_words_is_silent_and_short() {
    let Some(speech) = load() else { return };
    for text in ["", "   ", "...", "***", "😀🎉", "```\nlet x = 1;\n```", "| --- |", "日本語", "\u{0}\u{1}"] {
        assert_eq!(say(&speech, text), (Vec::new(), Spoken::default()), "{text:?}");
    }
}

#[test]
fn strange_words_are_spoken_all_the_same() {
    let Some(speech) = load() else { return };
    for text in
        ["Grzegorz Brzęczyszczykiewicz", "xkcd qwrt", "Привет", "ﬁne", "a̐éö̲", "'''", "O'", "-a-", &"w".repeat(300)]
    {
        let (pcm, _) = say(&speech, text);
        assert!(pcm.iter().all(|x| x.is_finite() && x.abs() <= 0.95), "{text:?}");
    }
}

#[test]
fn wrong_voices_and_rates_are_named() {
    let Some(speech) = load() else { return };
    let mut out = vec![1.0];
    let error = |voice: &str, rate: f32, out: &mut Vec<f32>| {
        speech.synthesize("Hi.", voice, rate, out).unwrap_err().to_string()
    };
    assert_eq!(error("nobody", 1.0, &mut out), "there is no voice `nobody`; there are heart");
    for rate in [0.0, 0.1, 9.0, f32::NAN, f32::INFINITY, -1.0] {
        assert!(error("", rate, &mut out).contains("speaking rate"));
    }
    let error = speech.synthesize(&"long ".repeat(20_000), "", 1.0, &mut out).unwrap_err().to_string();
    assert!(error.contains("100000 bytes"), "{error}");
    assert_eq!(out, [1.0]);
}

#[test]
fn missing_files_name_the_command_that_fetches_them() {
    let error = Speech::load(Path::new("/nonexistent")).err().unwrap().to_string();
    assert!(
        error.contains("/nonexistent/tokenizer_exceptions.json") && error.contains("causerie models pull"),
        "{error}"
    );
}

#[test]
fn long_phonemes_are_cut_between_words() {
    let word: Vec<char> = "wˈɜɹd ".chars().collect();
    let chars = word.repeat(200);
    let word_ends = (1..=200).map(|n| (5 * n, 6 * n - 1)).collect();
    let parts = parts(&Phonemes { chars, word_ends }, levels::Ending::Clause);
    assert_eq!(parts.iter().map(|p| p.word_ends.len()).sum::<usize>(), 200);
    for part in &parts {
        assert!(part.chars.len() <= MAX_PHONEMES && part.chars.starts_with(&['w']));
        assert!(part.word_ends.iter().all(|w| w.1 <= part.chars.len()));
    }
    let (last, before) = parts.split_last().unwrap();
    assert_eq!(last.ending, levels::Ending::Clause);
    assert!(before.iter().all(|p| p.ending == levels::Ending::None));
}
