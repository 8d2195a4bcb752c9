//! The last second of the voice-activity detector: what it says about starts, pauses and ends of speech.
//!
//! Counting windows instead of asking for an unbroken run keeps one weak window in a word from hiding a start, and one
//! loud click from making one.

use std::collections::VecDeque;
use std::time::Duration;

use causerie_units::SampleRate;

const RATE: SampleRate = SampleRate::HZ_16000;

/// Windows that are remembered. The longest rule looks at 25.
const WINDOWS: usize = 64;

/// Nominal length of a window of the detector.
const WINDOW: Duration = Duration::from_millis(32);

/// How far below the threshold of a start speech may fall before it is silence (as in Silero's own utility).
const HYSTERESIS: f32 = 0.15;

/// How far above the threshold of a start one window alone is probably speech, and how far below it may be its first
/// breath. In 22 interruptions the first came 40 ms after the onset (median) and up to 270 ms in words that begin softly,
/// the second within 50 ms; in 10 minutes of music two windows reached the first, and 2.6 % of the time was within reach of
/// the second.
const SURE: f32 = 0.1;
const FAINT: f32 = 0.45;

/// Windows for which a faint one counts.
const FAINT_SPAN: usize = 3;

/// Windows in which a single loud one leaves the question open whether somebody began to speak.
const CANDIDATE: usize = 5;

pub(crate) struct Ear {
    threshold: f32,
    windows: VecDeque<Window>,
    /// One past the last sample seen.
    position: u64,
    /// One past the last sample that was not silence.
    kept: u64,
}

struct Window {
    from: u64,
    probability: f32,
    active: bool,
}

impl Ear {
    /// Speech is what has at least the probability `threshold`.
    pub(crate) fn new(threshold: f32) -> Self {
        Self { threshold, windows: VecDeque::with_capacity(WINDOWS), position: 0, kept: 0 }
    }

    /// Takes a window; one that is not behind the last is ignored. Whether it counted.
    pub(crate) fn push(&mut self, probability: f32, from: u64, to: u64) -> bool {
        if from < self.position || to <= from {
            return false;
        }
        // A probability that is not a number compares false: silence.
        if probability >= self.threshold - HYSTERESIS {
            self.kept = to;
        }
        if self.windows.len() == WINDOWS {
            self.windows.pop_front();
        }
        self.windows.push_back(Window { from, probability, active: probability >= self.threshold });
        self.position = to;
        true
    }

    /// Forgets what was heard, so that it does not count twice.
    pub(crate) fn clear(&mut self) {
        self.windows.clear();
    }

    /// Where the speech began when `speech` of it was heard in the last windows (two of which may be silent).
    pub(crate) fn onset(&self, speech: Duration) -> Option<u64> {
        let need = windows(speech).max(1);
        let span = (need + 2).min(WINDOWS);
        (self.active(span) >= need.min(span)).then(|| self.first_active(span)).flatten()
    }

    /// Whether `speech` was heard within `within`.
    pub(crate) fn heard(&self, speech: Duration, within: Duration) -> bool {
        self.active(windows(within)) >= windows(speech)
    }

    /// Whether somebody may just be beginning to speak.
    pub(crate) fn candidate(&self) -> bool {
        self.active(CANDIDATE) > 0
    }

    /// Where the speech began if the last window is surely some.
    pub(crate) fn sure(&self) -> Option<u64> {
        let sure = self.windows.back().is_some_and(|window| window.probability >= self.threshold + SURE);
        sure.then(|| self.first_active(CANDIDATE)).flatten()
    }

    /// Whether there is the least sign that somebody may be beginning to speak.
    pub(crate) fn faint(&self) -> bool {
        let faint = |window: &Window| window.probability >= self.threshold - FAINT;
        self.windows.iter().rev().take(FAINT_SPAN).any(faint)
    }

    /// How long it has been silent, in samples.
    pub(crate) fn quiet(&self) -> u64 {
        self.position - self.kept
    }

    /// One past the last sample seen.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// One past the last sample of speech.
    pub(crate) fn speech_end(&self) -> u64 {
        self.kept
    }

    fn active(&self, last: usize) -> usize {
        self.windows.iter().rev().take(last).filter(|window| window.active).count()
    }

    fn first_active(&self, last: usize) -> Option<u64> {
        let skip = self.windows.len().saturating_sub(last);
        self.windows.iter().skip(skip).find(|window| window.active).map(|window| window.from)
    }
}

/// How many windows a duration is, rounded up.
fn windows(duration: Duration) -> usize {
    duration.as_nanos().div_ceil(WINDOW.as_nanos()) as usize
}

/// Samples of input in a duration.
pub(crate) fn samples(duration: Duration) -> u64 {
    RATE.samples(duration)
}

/// How long samples of input take.
pub(crate) fn duration(samples: u64) -> Duration {
    RATE.duration(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ear(pattern: &str) -> Ear {
        let mut ear = Ear::new(0.5);
        for (i, c) in pattern.chars().enumerate() {
            let p = match c {
                '#' => 0.9,
                '-' => 0.4,
                _ => 0.02,
            };
            assert!(ear.push(p, i as u64 * 512, i as u64 * 512 + 512));
        }
        ear
    }

    #[test]
    fn a_start_needs_enough_speech_but_not_an_unbroken_run() {
        let confirm = Duration::from_millis(96);
        for (pattern, onset) in [
            ("..###", Some(2)),
            ("..#.#.#", Some(2)),
            ("..##", None),
            ("#..#..#", None),
            ("##......##", None),
            ("###....", None),
        ] {
            assert_eq!(ear(pattern).onset(confirm), onset.map(|w| w * 512), "{pattern}");
        }
    }

    #[test]
    fn weak_speech_keeps_speech_going_but_does_not_begin_it() {
        assert_eq!(ear("###--").quiet(), 0);
        assert_eq!(ear("###--..").quiet(), 1024);
        assert_eq!(ear("-----").onset(Duration::from_millis(32)), None);
    }

    #[test]
    fn one_sure_window_is_speech_and_a_faint_one_may_be() {
        for (probability, sure, faint) in
            [(0.9, true, true), (0.55, false, true), (0.06, false, true), (0.04, false, false)]
        {
            let mut ear = ear("...");
            ear.push(probability, 1536, 2048);
            assert_eq!((ear.sure(), ear.faint()), (sure.then_some(1536), faint), "{probability}");
        }
        assert!(ear("#..").faint() && !ear("#...").faint());
        assert_eq!(ear("#.").sure(), None);
        assert!(Ear::new(0.5).sure().is_none());
    }

    #[test]
    fn windows_out_of_order_and_odd_probabilities_count_as_nothing() {
        let mut ear = ear("###");
        assert!(!ear.push(0.9, 0, 512));
        assert!(!ear.push(0.9, 2048, 2048));
        assert!(ear.push(f32::NAN, 1536, 2048));
        assert_eq!(ear.quiet(), 512);
    }
}
