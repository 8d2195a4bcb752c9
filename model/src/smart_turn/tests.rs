use serde::Deserialize;

use super::*;
use crate::testing::{golden, model};

#[derive(Deserialize)]
struct Golden {
    start: usize,
    step: usize,
    clips: Vec<Clip>,
}

#[derive(Deserialize)]
struct Clip {
    name: String,
    cut: usize,
    finished: f32,
    features: Vec<f32>,
}

/// A probability above this is a finished turn.
const FINISHED: f32 = 0.5;

fn load() -> Option<SmartTurn> {
    Some(SmartTurn::load(&model("smart-turn")?).unwrap())
}

fn clips() -> Golden {
    serde_json::from_str(&golden("smart_turn/turns.json")).unwrap()
}

/// The recording up to the cut, and the silence after which the network is asked.
fn pcm(clip: &Clip) -> Vec<f32> {
    let path = format!("{}/../examples/audio/{}.wav", env!("CARGO_MANIFEST_DIR"), clip.name);
    let wav = std::fs::read(&path).unwrap();
    let samples = wav[44..].chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0);
    samples.take(clip.cut).chain([0.0; 3_200]).collect()
}

#[test]
fn features_are_those_of_the_definition() {
    let Some(turn) = load() else { return };
    let golden = clips();
    let mut worst = 0.0f32;
    for clip in &golden.clips {
        let features = turn.features(&pcm(clip));
        let sampled = features.iter().skip(golden.start).step_by(golden.step);
        assert_eq!(sampled.len(), clip.features.len());
        for (got, want) in sampled.zip(&clip.features) {
            worst = worst.max((got - want).abs());
        }
    }
    assert!(worst < 1e-3, "off by {worst}");
}

#[test]
fn decisions_are_those_of_another_runtime() {
    let Some(turn) = load() else { return };
    let golden = clips();
    let mut error = 0.0;
    for clip in &golden.clips {
        let finished = turn.finished(&pcm(clip)).unwrap();
        println!("{} {}: {finished:.3}, elsewhere {:.3}", clip.name, clip.cut, clip.finished);
        error += (finished - clip.finished).abs() / golden.clips.len() as f32;
        // Runtimes disagree near the threshold, as the module head says.
        if (clip.finished - FINISHED).abs() > 0.25 {
            assert_eq!(finished > FINISHED, clip.finished > FINISHED, "{} {}", clip.name, clip.cut);
        }
    }
    assert!(error < 0.1, "off by {error} on average");
}

#[test]
fn only_the_last_eight_seconds_count() {
    let Some(turn) = load() else { return };
    let clip = pcm(&clips().clips[0]);
    let mut long: Vec<f32> = (0..SPAN).map(|n| (n as f32 * 0.05).sin() * 0.3).collect();
    let tail = long.len();
    long.resize(long.len() + SPAN - clip.len(), 0.0);
    long.extend(&clip);
    assert_eq!(normalised(&long), normalised(&clip));
    long[tail] = f32::NAN;
    assert_eq!(normalised(&long), normalised(&clip), "what is no number is silence");
    assert!(turn.finished(&[]).unwrap().is_finite(), "nothing at all is an answer too");
}
