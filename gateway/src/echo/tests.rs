//! A room: our voice comes back through it, and somebody may speak. Voices are the recordings of examples/audio.

use causerie_codec::resample::Resampler;
use causerie_units::SampleRate;

use super::*;

const WINDOW: usize = 512;

fn recording(name: &str) -> Vec<f32> {
    let path = format!("{}/../examples/audio/{name}.wav", env!("CARGO_MANIFEST_DIR"));
    let wav = std::fs::read(path).unwrap();
    wav[44..].chunks_exact(2).map(|b| f32::from(i16::from_le_bytes([b[0], b[1]])) / 32_768.0).collect()
}

fn power(pcm: &[f32]) -> f32 {
    pcm.iter().map(|x| x * x).sum::<f32>() / pcm.len() as f32
}

/// Power while there is sound.
fn loudness(pcm: &[f32]) -> f32 {
    let loud: Vec<f32> = pcm.chunks_exact(WINDOW).map(power).filter(|power| *power > 1e-5).collect();
    loud.iter().sum::<f32>() / loud.len() as f32
}

fn decibels(gain: f32) -> f32 {
    10f32.powf(gain / 20.0)
}

/// A conversation of `seconds` in which we speak all the time.
struct Room {
    seconds: usize,
    /// Of the echo against our voice, in decibels; `None` for headphones.
    echo: Option<f32>,
    /// From us to the listener and back.
    delay_ms: usize,
    /// When somebody speaks, and how loud against our voice in decibels.
    user: Vec<(usize, f32)>,
    /// When the volume is turned up, and by how much.
    louder: Option<(usize, f32)>,
}

impl Room {
    fn quiet(seconds: usize, echo: f32, delay_ms: usize) -> Self {
        Self { seconds, echo: Some(echo), delay_ms, user: Vec::new(), louder: None }
    }

    /// Our voice: both recordings in turns, each time begun elsewhere.
    fn voice(&self) -> Vec<f32> {
        let both = [recording("capital-of-france"), recording("which-river")].concat();
        let mut voice = Vec::new();
        while voice.len() < self.seconds * 16_000 {
            let begin = voice.len() * 7 / 5 % both.len();
            voice.extend(&both[begin..]);
        }
        voice.truncate(self.seconds * 16_000);
        voice
    }

    /// What the microphone hears.
    fn microphone(&self, voice: &[f32]) -> Vec<f32> {
        let mut seed = 7u32;
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut heard: Vec<f32> = voice.iter().map(|_| noise() * 1e-3).collect();
        if let Some(echo) = self.echo {
            // A tail of 50 ms with random signs, of unit energy.
            let tail: Vec<f32> = (0..1_600).map(|n| noise() * (-(n as f32) / 800.0).exp()).collect();
            let unit = power(&tail).sqrt() * (tail.len() as f32).sqrt();
            // One in 16 taps is enough of a room, and 16 times as fast.
            let taps: Vec<(usize, f32)> =
                tail.iter().enumerate().step_by(16).map(|(n, x)| (n, x / unit * 4.0 * decibels(echo))).collect();
            for (n, heard) in heard.iter_mut().enumerate() {
                let louder = self.louder.filter(|(at, _)| n >= at * 16).map_or(1.0, |(_, gain)| decibels(gain));
                for (tap, gain) in &taps {
                    if let Some(at) = n.checked_sub(tap + self.delay_ms * 16) {
                        *heard += voice[at] * gain * louder;
                    }
                }
            }
        }
        for (at, level) in &self.user {
            let user = recording("which-river");
            let gain = (loudness(voice) / loudness(&user)).sqrt() * decibels(*level);
            for (heard, x) in heard[at * 16..].iter_mut().zip(&user[6_400..]) {
                *heard += x * gain;
            }
        }
        heard
    }

    /// The times in milliseconds at which three of five windows passed for somebody else's speech.
    fn starts(&self) -> Vec<usize> {
        let voice = self.voice();
        let microphone = self.microphone(&voice);
        let mut resampler = Resampler::new(SampleRate::HZ_16000, SampleRate::HZ_24000).unwrap();
        let mut sent = Vec::new();
        resampler.push(&voice, &mut sent);
        let mut pieces = sent.chunks(960).enumerate().peekable();
        let mut gate = EchoGate::new();
        let (mut passed, mut starts) = (VecDeque::new(), Vec::new());
        for (i, window) in microphone.chunks_exact(WINDOW).enumerate() {
            let now = Duration::from_millis(32 * (i as u64 + 1));
            // Pieces leave 200 ms ahead of when they are heard.
            while let Some((n, piece)) = pieces.next_if(|(n, _)| 40 * *n as u64 <= now.as_millis() as u64 + 200) {
                gate.sent(Duration::from_millis((40 * n as u64).saturating_sub(200)), piece);
            }
            let level = power(window);
            // The detector hears everything that is not noise.
            let speech = level > 3e-6;
            passed.push_back(!gate.is_echo(now, level, speech, true) && speech);
            if passed.len() > 5 {
                passed.pop_front();
            }
            if passed.iter().filter(|passed| **passed).count() >= 3 {
                starts.push(now.as_millis() as usize);
                passed.clear();
            }
        }
        starts
    }
}

#[test]
fn an_echo_alone_is_not_speech() {
    for echo in [0.0, -10.0, -20.0, -40.0] {
        for delay_ms in [10, 80, 200, 400] {
            let starts = Room::quiet(30, echo, delay_ms).starts();
            assert!(starts.is_empty(), "{echo} dB, {delay_ms} ms: {starts:?}");
        }
    }
}

#[test]
fn somebody_louder_than_the_echo_is_heard() {
    for (echo, above, within) in [(-20.0, 12.0, 250), (-20.0, 6.0, 600), (-40.0, 12.0, 250)] {
        let begins = 10_000;
        let room = Room { user: vec![(begins, echo + above)], ..Room::quiet(15, echo, 80) };
        let starts = room.starts();
        let first = *starts.first().unwrap_or_else(|| panic!("{above} dB above an echo of {echo} dB is not heard"));
        assert!((begins..begins + within).contains(&first), "{above} dB above {echo} dB: {starts:?}");
    }
}

#[test]
fn with_headphones_everybody_is_heard() {
    for level in [0.0, -20.0, -30.0] {
        let room = Room { echo: None, user: vec![(5_000, level)], ..Room::quiet(10, 0.0, 0) };
        let starts = room.starts();
        assert!(starts.first().is_some_and(|first| (5_000..5_500).contains(first)), "{level} dB: {starts:?}");
    }
}

#[test]
fn somebody_who_speaks_while_the_room_is_being_learned_is_heard_at_last() {
    for echo in [None, Some(-40.0), Some(-20.0)] {
        let room = Room { echo, user: vec![(100, -6.0)], ..Room::quiet(6, 0.0, 80) };
        let starts = room.starts();
        assert!(starts.first().is_some_and(|first| *first < 2_500), "{echo:?}: {starts:?}");
    }
}

#[test]
fn a_volume_turned_up_is_learned() {
    let room = Room { louder: Some((10_000, 12.0)), ..Room::quiet(40, -30.0, 80) };
    let starts = room.starts();
    assert!(starts.iter().all(|start| (10_000..14_000).contains(start)), "{starts:?}");
}

#[test]
fn without_our_voice_everything_passes() {
    let mut gate = EchoGate::new();
    assert!(!gate.is_echo(Duration::from_secs(1), 1e-9, false, true));
    assert!(!gate.is_echo(Duration::from_secs(2), 1.0, true, true));
    gate.sent(Duration::from_secs(2), &[0.5; 48_000]);
    assert!(gate.is_echo(Duration::from_millis(2_100), 0.1, true, true), "nothing is known yet");
    // The client dropped it: after the longest way back it can be heard no more.
    gate.dropped(Duration::from_millis(2_100));
    assert!(gate.is_echo(Duration::from_millis(2_500), 0.1, true, true));
    assert!(!gate.is_echo(Duration::from_millis(2_750), 0.1, true, true));
    // What comes after is heard at once.
    gate.sent(Duration::from_secs(9), &[0.5; 4_800]);
    assert!(gate.is_echo(Duration::from_millis(9_100), 0.1, true, true));
}

#[test]
fn a_future_of_any_length_and_clocks_that_jump_do_no_harm() {
    let mut gate = EchoGate::new();
    for at in [0, 1, 100_000, 50, 3_600_000, 0] {
        let now = Duration::from_millis(at);
        for _ in 0..40 {
            gate.sent(now, &[0.5; 24_000]);
        }
        gate.is_echo(now, f32::NAN, true, true);
        gate.is_echo(now, f32::INFINITY, true, true);
        gate.dropped(now);
        assert!(gate.voice.len() <= REACH + MAX_AHEAD && gate.levels.len() <= LIKENESS + REACH);
    }
}

#[test]
fn who_answers_at_once_is_heard() {
    // The microphone was off during the reply, so nothing is known of the room.
    let mut gate = EchoGate::new();
    gate.sent(Duration::ZERO, &[0.5; 48_000]);
    assert!(gate.is_echo(Duration::from_millis(1_990), 0.1, true, true));
    assert!(!gate.is_echo(Duration::from_millis(2_010), 0.1, true, false));
    // What was sent faster than it was spoken, too.
    assert!(!gate.is_echo(Duration::from_millis(500), 0.1, true, false));
}

#[test]
fn what_was_recorded_before_our_voice_is_no_echo_of_it() {
    let mut gate = EchoGate::new();
    gate.sent(Duration::from_secs(1), &[0.5; OUTPUT_RATE as usize]);
    assert!(!gate.is_echo(Duration::from_millis(500), 0.25, true, true));
    assert!(gate.is_echo(Duration::from_millis(1_200), 0.25, true, true));
}
