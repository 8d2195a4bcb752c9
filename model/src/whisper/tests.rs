//! The network against independent values, and whole transcripts with the real weights.

// The service's tests count words in the same way; there the items are public.
#[path = "../../../tests/src/wer.rs"]
#[allow(unreachable_pub)]
mod wer;

use std::path::{Path, PathBuf};

use causerie_kernels::ops::linear::WeightType;
use serde::Deserialize;

use super::decoder::Cache;
use super::layers::Buffers;
use super::load::Precision;
use super::*;
use crate::testing;

const EXACT: Precision = Precision { encoder: WeightType::F32, decoder: WeightType::F32, embeddings: WeightType::F32 };
const RECORDINGS: &str = "/usr/share/pocketsphinx/test/data";

/// The folder of a model.
fn model(name: &str) -> Option<PathBuf> {
    let file = testing::model(Path::new("whisper").join(name).join("model.bin"))?;
    file.parent().map(Path::to_owned)
}

/// One of the recordings of Debian's pocketsphinx-testdata, 16 kHz.
fn recording(name: &str) -> Option<Vec<f32>> {
    let path = Path::new(RECORDINGS).join(name);
    if !testing::required(path.exists(), "package pocketsphinx-testdata", "install it") {
        return None;
    }
    let bytes = std::fs::read(path).unwrap();
    let pcm = if name.ends_with(".wav") { &bytes[44..] } else { &bytes[..] };
    Some(pcm.as_chunks::<2>().0.iter().map(|&b| f32::from(i16::from_le_bytes(b)) / 32768.0).collect())
}

/// The sentences of [`RECORDINGS`] with their transcripts.
fn sentences() -> Option<Vec<(String, Vec<f32>)>> {
    let mut sentences = vec![("go forward ten meters".to_owned(), recording("goforward.raw")?)];
    sentences.extend(transcribed("librivox", "transcription")?);
    Some(sentences)
}

/// The recordings of a folder of [`RECORDINGS`] that its list has transcripts for.
fn transcribed(folder: &str, list: &str) -> Option<Vec<(String, Vec<f32>)>> {
    let list = Path::new(RECORDINGS).join(folder).join(list);
    if !testing::required(list.exists(), "package pocketsphinx-testdata", "install it") {
        return None;
    }
    let text = std::fs::read_to_string(list).unwrap();
    let sentence = |line: &str| {
        let (said, name) = line.split_once("</s> (").unwrap();
        let name = format!("{folder}/{}.wav", name.trim_end_matches(')'));
        Some((said.trim_start_matches("<s>").to_owned(), recording(&name)?))
    };
    text.lines().map(sentence).collect()
}

fn transcribe(whisper: &Whisper, pool: &Pool, pcm: &[f32], options: Options) -> (Transcript, usize) {
    let mut pass = whisper.begin(pcm.to_vec(), options);
    for steps in 1..10_000 {
        if let Progress::Done(transcript) = pass.step(whisper, pool) {
            return (transcript, steps);
        }
    }
    panic!("a pass does not end");
}

#[derive(Deserialize)]
struct Golden {
    rows: usize,
    signal: Sample,
    mel: Sample,
    encoded: Sample,
    prompt: Vec<u32>,
    text: Vec<u32>,
    logits_start: Sample,
    logits_prompt: Sample,
    logits_text: Sample,
}

/// Values at `start + i * step` of a flattened array.
#[derive(Deserialize)]
struct Sample {
    start: usize,
    step: usize,
    values: Vec<f32>,
}

impl Sample {
    #[track_caller]
    fn check(&self, what: &str, got: &[f32], tolerance: f32) {
        let got: Vec<f32> = got.iter().skip(self.start).step_by(self.step).copied().collect();
        assert_eq!(got.len(), self.values.len(), "{what}");
        let errors = got.iter().zip(&self.values).map(|(got, want)| (got - want).abs());
        let (worst, error) = errors.enumerate().fold((0, 0.0), |a, b| if b.1 > a.1 { b } else { a });
        println!("{what}: worst error {error}");
        assert!(error <= tolerance, "{what}: value {worst} is {}, not {} ({error})", got[worst], self.values[worst]);
    }
}

/// The signal of `make.py`.
fn signal() -> Vec<f32> {
    let mut state = 1u32;
    (0..48_000)
        .map(|n| {
            let t = f64::from(n) / 16_000.0;
            let phase = 2.0 * std::f64::consts::PI * (110.0 * t + 10.0 * t * t);
            let (f1, f2) = (500.0 + 200.0 * (2.0 * t).sin(), 1500.0 + 500.0 * (3.0 * t).cos());
            let voice: f64 = (1..30)
                .map(|h| {
                    let hz = f64::from(h) * (110.0 + 20.0 * t);
                    let weight = (-((hz - f1) / 150.0).powi(2)).exp() + 0.5 * (-((hz - f2) / 200.0).powi(2)).exp();
                    weight * (f64::from(h) * phase).sin()
                })
                .sum();
            let burst = (2.0 * std::f64::consts::PI * 1.3 * t).sin().max(0.0);
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(state) / f64::from(1u32 << 31) - 1.0;
            (((0.1 * voice * burst + 1e-3 * noise) * 32768.0).round_ties_even() / 32768.0) as f32
        })
        .collect()
}

/// Log-mel, encoder and decoder against the values of `tests/golden/whisper/make.py`, with tolerances for the encoder's
/// rows and for logits.
fn check_golden(name: &str, precision: Precision, encoder_tolerance: f32, logits_tolerance: f32) {
    let Some(dir) = model(name) else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/whisper").join(format!("{name}.json"));
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let pool = Pool::new(2);
    let Whisper { encoder, decoder, .. } = load::load(&pool, &dir, precision).unwrap();
    let mut buffers = Buffers::default();

    let pcm = signal();
    golden.signal.check("signal", &pcm, 1e-4);
    let mel = encoder.log_mel(&pool, &pcm, golden.rows);
    golden.mel.check("mel", &mel, 2e-4);
    let mut x = encoder.embed(&pool, &mut buffers, &mel);
    for layer in 0..encoder.layers.len() {
        encoder.attention(&pool, &mut buffers, layer, &mut x);
        encoder.feed_forward(&pool, &mut buffers, layer, &mut x);
    }
    let encoded = encoder.finish(&pool, &x);
    golden.encoded.check("encoded", &encoded, encoder_tolerance);

    let mut cache = Cache::default();
    while !decoder.hear(&pool, &mut buffers, &mut cache, &encoded) {}
    let mut logits = Vec::new();
    let width = decoder.embeddings.n();
    let last = golden.prompt.len() - 1;
    decoder.forward(&pool, &mut buffers, &mut cache, &golden.prompt, &[0, last], &mut logits);
    golden.logits_start.check("logits at the start", &logits[..width], logits_tolerance);
    golden.logits_prompt.check("logits behind the prompt", &logits[width..], logits_tolerance);
    // One token at a time, after a wrong one that is taken back.
    decoder.forward(&pool, &mut buffers, &mut cache, &[0, 1], &[1], &mut logits);
    cache.truncate(golden.prompt.len());
    for &token in &golden.text {
        decoder.forward(&pool, &mut buffers, &mut cache, &[token], &[0], &mut logits);
    }
    golden.logits_text.check("logits behind the text", &logits, logits_tolerance);
}

#[test]
fn base_agrees_with_the_golden_values() {
    check_golden("base", EXACT, 5e-3, 2e-3);
}

#[test]
fn tiny_en_agrees_with_the_golden_values() {
    check_golden("tiny.en", EXACT, 5e-3, 2e-3);
}

#[test]
fn default_precision_is_near_the_golden_values() {
    // Logits range over about 30.
    check_golden("base", Precision::default(), 5e-3, 0.5);
}

/// Sentences, and names of playing cards that are called out one to three words at a time: 96 words.
#[test]
fn recordings_are_transcribed() {
    let (Some(base), Some(sentences)) = (model("base"), sentences()) else { return };
    let Some(cards) = transcribed("cards", "cards.transcription") else { return };
    let pool = Pool::new(2);
    let whisper = Whisper::load(&pool, &base).unwrap();
    assert_eq!(whisper.languages().len(), 99);
    let (mut of_sentences, mut of_all) = (wer::Errors::default(), wer::Errors::default());
    for (i, (said, pcm)) in sentences.iter().chain(&cards).enumerate() {
        let (heard, _) = transcribe(&whisper, &pool, pcm, Options::default());
        println!("{heard:?}");
        let errors = wer::word_errors(said, &heard.text);
        if i < sentences.len() {
            assert_eq!(heard.language, "en", "{said}");
            assert!(heard.no_speech < 0.5 && heard.avg_logprob > -0.6, "{heard:?}");
            of_sentences += errors;
        }
        of_all += errors;
    }
    assert_eq!(of_all.words, 96);
    // One of the errors is the transcript's own ("a more a amiable woman").
    assert!(of_sentences.rate() <= 0.05, "{of_sentences:?}");
    assert!(of_all.rate() <= 0.05, "{of_all:?}");
}

#[test]
fn long_recordings_are_transcribed_in_segments() {
    let (Some(tiny), Some(sentences)) = (model("tiny.en"), sentences()) else { return };
    let pool = Pool::new(2);
    let whisper = Whisper::load(&pool, &tiny).unwrap();
    assert_eq!(whisper.languages(), ["en"]);
    let (mut said, mut pcm) = (String::new(), Vec::new());
    for (text, audio) in sentences.iter().chain(&sentences[1..]) {
        said.push_str(text);
        pcm.extend_from_slice(audio);
        pcm.extend([0.0; 8000]);
    }
    assert!(pcm.len() > 45 * SAMPLE_RATE as usize);
    let (heard, _) = transcribe(&whisper, &pool, &pcm, Options::default());
    let errors = wer::word_errors(&said, &heard.text);
    assert!(errors.rate() <= 0.1, "{errors:?} {heard:?}");
}

#[test]
fn a_draft_saves_steps_and_changes_nothing() {
    let (Some(tiny), Some(sentences)) = (model("tiny.en"), sentences()) else { return };
    let pool = Pool::new(2);
    let whisper = Whisper::load(&pool, &tiny).unwrap();
    let pcm = &sentences[1].1;
    let (plain, steps) = transcribe(&whisper, &pool, pcm, Options::default());
    let len = plain.tokens.len();
    let mut wrong = plain.tokens.clone();
    wrong[len / 2] += 1;
    let mut longer = plain.tokens.clone();
    longer.extend([262, u32::MAX, 50_000]);
    let (before, _) = transcribe(&whisper, &pool, &pcm[..pcm.len() * 2 / 3], Options::default());
    for (draft, saved) in [
        (plain.tokens.clone(), len / 2),
        (plain.tokens[..len / 2].to_vec(), len / 4),
        (wrong, len / 4),
        (longer, len / 2),
        (vec![u32::MAX; 3], 0),
        (before.tokens, len / 4),
    ] {
        let (heard, fewer) = transcribe(&whisper, &pool, pcm, Options { draft: draft.clone(), ..Options::default() });
        assert_eq!((&heard.text, &heard.tokens), (&plain.text, &plain.tokens), "draft {draft:?}");
        assert!(fewer + saved <= steps, "draft {draft:?}: {fewer} steps, {steps} without");
    }
}

#[test]
fn nothing_said_is_nothing_heard() {
    let Some(base) = model("base") else { return };
    let pool = Pool::new(2);
    let whisper = Whisper::load(&pool, &base).unwrap();
    let mut state = 1u32;
    let mut noise = |n: usize, gain: f32| -> Vec<f32> {
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            gain * (state as f32 / (1u32 << 31) as f32 - 1.0)
        };
        (0..n).map(next).collect()
    };
    let hum: Vec<f32> =
        (0..32_000).map(|i| 0.05 * (i as f32 * 50.0 * std::f32::consts::TAU / 16_000.0).sin()).collect();
    let click: Vec<f32> = (0..16_000).map(|i| if (8000..8040).contains(&i) { 0.5 } else { 0.0 }).collect();
    for (what, pcm) in [
        ("nothing", Vec::new()),
        ("silence", vec![0.0; 32_000]),
        ("no numbers", vec![f32::NAN; 32_000]),
        ("a tenth of a second", noise(1600, 0.1)),
        ("faint noise", noise(32_000, 0.002)),
        ("noise", noise(32_000, 0.05)),
        ("loud noise", noise(64_000, 0.5)),
        ("hum", hum),
        ("a click", click),
    ] {
        let (heard, _) = transcribe(&whisper, &pool, &pcm, Options::default());
        println!("{what}: {heard:?}");
        assert_eq!(heard.text, "", "{what}: {heard:?}");
        assert!(heard.tokens.is_empty() && heard.no_speech > 0.0, "{what}: {heard:?}");
    }
}

#[test]
fn what_is_no_model_is_named() {
    let pool = Pool::new(1);
    let dir = std::env::temp_dir().join(format!("causerie-whisper-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let error = || Whisper::load(&pool, &dir).err().unwrap().to_string();
    assert!(error().contains("vocabulary.txt"), "{}", error());
    let special = "<|endoftext|>\n<|startoftranscript|>\n<|transcribe|>\n<|nocaptions|>\n<|notimestamps|>\n";
    std::fs::write(dir.join("vocabulary.txt"), special).unwrap();
    assert!(error().contains("config.json"), "{}", error());
    std::fs::write(dir.join("config.json"), r#"{"suppress_ids": [], "suppress_ids_begin": []}"#).unwrap();
    assert!(error().contains("model.bin"), "{}", error());
    std::fs::write(dir.join("model.bin"), [6, 0, 0, 0, 9]).unwrap();
    assert!(error().contains("model.bin: it ends inside"), "{}", error());
    std::fs::remove_dir_all(dir).unwrap();
}
