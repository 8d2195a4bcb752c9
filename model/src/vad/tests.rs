use super::*;
use crate::testing::{golden, model};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde::Deserialize;

fn load() -> Option<Vad> {
    Some(Vad::load(&model("silero")?).unwrap())
}

/// A hum with a beat, which keeps the detector undecided, and noise from a fixed seed.
fn sound(samples: usize) -> Vec<f32> {
    let mut seed = 7u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let wave = |n: usize, hz: f32| (n as f32 * hz * std::f32::consts::TAU / 16_000.0).sin();
    (0..samples)
        .map(|n| 0.2 * wave(n, 140.0) * wave(n, 3.0) + 0.1 * wave(n, 900.0) * wave(n, 5.0) + 0.05 * noise())
        .collect()
}

fn windows(vad: &Vad, pieces: &[&[f32]]) -> Vec<(f32, u64, u64)> {
    let mut stream = VadStream::new();
    let mut seen = Vec::new();
    for piece in pieces {
        stream.push(vad, piece, |p, from, to| seen.push((p, from.0, to.0)));
    }
    seen
}

#[test]
fn windows_are_contiguous_and_only_whole_ones_are_reported() {
    let Some(vad) = load() else { return };
    let seen = windows(&vad, &[&sound(WINDOW * 3 + 5)]);
    let positions: Vec<_> = seen.iter().map(|w| (w.1, w.2)).collect();
    assert_eq!(positions, [(0, 512), (512, 1024), (1024, 1536)]);
}

#[test]
fn it_does_not_matter_how_audio_is_cut() {
    let Some(vad) = load() else { return };
    let sound = sound(WINDOW * 6);
    let whole = windows(&vad, &[&sound]);
    proptest!(ProptestConfig { rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..ProptestConfig::with_cases(24) }, |(cuts in prop::collection::vec(0..sound.len(), 0..8))| {
        let mut cuts = cuts;
        cuts.extend([0, sound.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[f32]> = cuts.windows(2).map(|c| &sound[c[0]..c[1]]).collect();
        prop_assert_eq!(&windows(&vad, &pieces), &whole);
    });
}

#[test]
fn later_audio_changes_nothing() {
    let Some(vad) = load() else { return };
    let mut sound = sound(WINDOW * 6);
    let before = windows(&vad, &[&sound]);
    sound[WINDOW * 4..].fill(0.3);
    let after = windows(&vad, &[&sound]);
    assert_eq!(before[..4], after[..4]);
    assert_ne!(before[4], after[4]);
}

#[test]
fn what_is_no_number_counts_as_silence() {
    let Some(vad) = load() else { return };
    let bad = windows(&vad, &[&[f32::NAN; WINDOW], &[f32::INFINITY; WINDOW], &sound(WINDOW)]);
    let silent = windows(&vad, &[&[0.0; 2 * WINDOW], &sound(WINDOW)]);
    assert_eq!(bad, silent);
}

#[test]
fn the_state_is_cleared_after_ten_seconds_at_a_quiet_moment() {
    let Some(vad) = load() else { return };
    let mut stream = VadStream::new();
    let ignore = |_, _, _| ();
    stream.push(&vad, &[0.0; 9 * 16_000], ignore);
    assert!(!stream.reset_if_due());
    stream.push(&vad, &[0.0; 2 * 16_000], ignore);
    assert!(stream.reset_if_due());
    assert!(!stream.reset_if_due());
    // A fresh state hears the same as a cleared one, at a later position.
    let sound = sound(4 * WINDOW);
    let mut rest = vec![0.0; WINDOW - stream.buffer.len() + CONTEXT];
    rest.truncate(if stream.buffer.len() == CONTEXT { 0 } else { rest.len() });
    let mut cleared = Vec::new();
    stream.push(&vad, &rest, ignore);
    stream.state = State::NEW;
    stream.buffer.fill(0.0);
    stream.push(&vad, &sound, |p, _, _| cleared.push(p));
    assert_eq!(cleared, windows(&vad, &[&sound]).iter().map(|w| w.0).collect::<Vec<_>>());
}

#[test]
fn speech_is_told_from_noise() {
    let Some(vad) = load() else { return };
    let quiet = windows(&vad, &[&vec![0.0; 16_000]]);
    assert!(quiet.iter().all(|w| w.0 < 0.2), "silence: {quiet:?}");
    let path = "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb-0870.wav";
    let Ok(wav) = std::fs::read(path) else {
        println!("skipped: pocketsphinx-testdata is not installed");
        return;
    };
    let speech: Vec<f32> =
        wav[44..].chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect();
    let seen = windows(&vad, &[&speech]);
    let voiced = seen.iter().filter(|w| w.0 > 0.5).count();
    assert!(voiced * 10 > seen.len() * 6, "{voiced} of {} windows", seen.len());
}

#[derive(Deserialize)]
struct Clip {
    name: String,
    windows: Vec<f32>,
}

#[test]
fn probabilities_are_those_of_another_runtime() {
    let Some(vad) = load() else { return };
    let clips: Vec<Clip> = serde_json::from_str(&golden("silero/windows.json")).unwrap();
    for clip in clips {
        let path = format!("{}/../examples/audio/{}.wav", env!("CARGO_MANIFEST_DIR"), clip.name);
        let wav = std::fs::read(&path).unwrap();
        let samples = wav[44..].as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / 32_768.0);
        let seen = windows(&vad, &[&samples.collect::<Vec<_>>()]);
        assert_eq!(seen.len(), clip.windows.len());
        for (i, (got, want)) in seen.iter().zip(&clip.windows).enumerate() {
            assert!((got.0 - want).abs() < 1e-4, "{} window {i}: {} instead of {want}", clip.name, got.0);
        }
    }
}

#[test]
fn damaged_files_are_named() {
    let dir = std::env::temp_dir().join(format!("causerie-vad-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let error = || Vad::load(&dir).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error().contains("is missing; `causerie models pull`"), "{}", error());
    std::fs::write(dir.join(Vad::FILE), b"no graph").unwrap();
    assert!(error().contains("cannot be used"), "{}", error());
    // A graph of another network.
    if let Some(other) = model("hibari/oov.onnx") {
        std::fs::copy(other, dir.join(Vad::FILE)).unwrap();
        assert!(error().contains("it has no value `model.stft.forward_basis_buffer`"), "{}", error());
    }
    std::fs::remove_dir_all(&dir).unwrap();
}
