//! Is what the microphone hears only our own voice? An agent that plays through open speakers must not interrupt itself.
//!
//! A detector of speech cannot tell: it calls an echo speech even 40 dB below the voice. Levels can. The gate knows what
//! was sent and when it is heard, learns by how much the room passes it on to the microphone (the coupling: the 90th
//! percentile of the ratio of powers over 5 s), and lets a window pass only when it is [`MARGIN`] louder than the echo
//! can be. That is sound for speakers whom the microphone hears 6 dB above the echo; below, an echo canceller at the
//! client is needed, as in every browser and telephone.
//!
//! Two cases need a second measure, how alike the levels of both were in the last second, whatever the delay. Somebody
//! who speaks while the coupling is being learned would be taken for the echo for seconds: what does not resemble our
//! voice unlearns it. And when the volume is turned up, what resembles it is learned though it is loud.
//!
//! Time is the driver's, since the conversation opened. The way to the client and back may take up to [`REACH`].

use std::collections::VecDeque;
use std::time::Duration;

use causerie_model_api::OUTPUT_RATE;

/// What levels are measured over; a window of the detector.
const SLOT: Duration = Duration::from_millis(32);
const SLOT_SAMPLES: usize = OUTPUT_RATE as usize * 32 / 1_000;

/// Slots within which the echo of what is heard now may come back: 512 ms.
const REACH: usize = 16;

/// How much louder than the echo speech has to be: 4.5 dB, with which an echo alone never passed in 44 s of speech
/// through a simulated room (at 3 dB it did ten times a minute).
const MARGIN: f32 = 2.8;

/// Ratios that the coupling is learned from: 5 s of our voice.
const LEARNED: usize = 156;
/// Ratios without which nothing is known: 1 s, half of which may pass before the first echo is back.
const ENOUGH: usize = 32;

/// Slots over which likeness is measured: 1 s. Our voice must be heard in three quarters as many.
const LIKENESS: usize = 32;
/// An echo resembles our voice by more, somebody else by less (measured in the tests of this file).
const UNLIKE: f32 = 0.5;
const ALIKE: f32 = 0.85;

/// Below this power (-60 dB) our voice has no echo worth mentioning.
const SILENT: f32 = 1e-6;
/// Powers below this (-70 dB) are alike.
const FLOOR: f32 = 1e-7;

/// Our voice at the listener: any longer future than this is not kept. Sessions run ahead by their lead.
const MAX_AHEAD: usize = 256;

/// The gate of one conversation.
pub(crate) struct EchoGate {
    /// Energy of our voice, slot by slot; the first is `first`.
    voice: VecDeque<f32>,
    first: u64,
    /// Until when what was sent is heard, in samples since the conversation opened.
    heard_until: u64,
    /// Powers of the microphone with those of our voice in the same slot, oldest first.
    levels: VecDeque<(f32, f32)>,
    ratios: VecDeque<f32>,
}

impl EchoGate {
    /// A gate that has heard nothing.
    pub(crate) fn new() -> Self {
        Self {
            voice: VecDeque::new(),
            first: 0,
            heard_until: 0,
            levels: VecDeque::with_capacity(LIKENESS + REACH),
            ratios: VecDeque::with_capacity(LEARNED),
        }
    }

    /// Our voice, sent at `now`: it is heard at once, or behind what is still being heard.
    pub(crate) fn sent(&mut self, now: Duration, pcm: &[f32]) {
        let mut at = self.heard_until.max(samples(now));
        if self.voice.is_empty() {
            self.first = at / SLOT_SAMPLES as u64;
        }
        self.heard_until = at + pcm.len() as u64;
        let mut pcm = pcm;
        while !pcm.is_empty() {
            let slot = (at / SLOT_SAMPLES as u64).saturating_sub(self.first) as usize;
            let room = SLOT_SAMPLES - (at % SLOT_SAMPLES as u64) as usize;
            let (now, later) = pcm.split_at(room.min(pcm.len()));
            if slot >= REACH + MAX_AHEAD {
                return;
            }
            if self.voice.len() <= slot {
                self.voice.resize(slot + 1, 0.0);
            }
            self.voice[slot] += now.iter().map(|x| x * x).sum::<f32>();
            at += now.len() as u64;
            pcm = later;
        }
    }

    /// The client drops what it has not played.
    pub(crate) fn dropped(&mut self, now: Duration) {
        self.heard_until = self.heard_until.min(samples(now));
        let keep = slot(now).saturating_add(1).saturating_sub(self.first);
        self.voice.truncate(keep as usize);
    }

    /// Whether a window of the microphone that ended at `at` with this power is our own voice and nobody else's.
    /// `speech` is whether the detector takes it for speech, `playing` whether the reply is still being heard: behind its
    /// end, and as long as nothing is known of the room, who speaks is the user.
    pub(crate) fn is_echo(&mut self, at: Duration, power: f32, speech: bool, playing: bool) -> bool {
        self.forget(at);
        let voice = |slot: usize| self.voice.get(slot).copied().unwrap_or(0.0) / SLOT_SAMPLES as f32;
        // What was recorded before our voice was heard is no echo of it, however late it comes.
        let loudest = slot(at).checked_sub(self.first).map_or(0.0, |latest| {
            let latest = (latest as usize).min(self.voice.len());
            (latest.saturating_sub(REACH)..=latest).map(voice).fold(0.0, f32::max)
        });
        if self.levels.len() == LIKENESS + REACH {
            self.levels.pop_front();
        }
        let current = if slot(at) >= self.first { voice((slot(at) - self.first) as usize) } else { 0.0 };
        self.levels.push_back((power, current));
        if loudest < SILENT {
            return false;
        }
        let likeness = if speech { self.likeness() } else { None };
        let echo = match self.coupling() {
            Some(coupling) if power > MARGIN * coupling * loudest => false,
            None if !playing => return false,
            _ if likeness.is_some_and(|likeness| likeness < UNLIKE) => {
                self.ratios.clear();
                return false;
            }
            _ => true,
        };
        if echo || likeness.is_some_and(|likeness| likeness > ALIKE) {
            if self.ratios.len() == LEARNED {
                self.ratios.pop_front();
            }
            self.ratios.push_back(power / loudest);
        }
        echo
    }

    /// The share of our voice's power that comes back, when it is known.
    fn coupling(&self) -> Option<f32> {
        if self.ratios.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<f32> = self.ratios.iter().copied().collect();
        let place = sorted.len() * 9 / 10;
        Some(*sorted.select_nth_unstable_by(place, f32::total_cmp).1)
    }

    /// The correlation of the levels (in decibels) in the last second at the delay where it is highest; `None` when
    /// our voice was not heard for long enough.
    fn likeness(&self) -> Option<f32> {
        let levels: Vec<(f32, f32)> =
            self.levels.iter().map(|(mic, voice)| (mic.max(FLOOR).log10(), voice.max(FLOOR).log10())).collect();
        // Its echo may have had no time to come back yet.
        let heard = levels.iter().filter(|(_, voice)| *voice > SILENT.log10()).count();
        if levels.len() < LIKENESS + REACH || heard < LIKENESS * 3 / 4 {
            return None;
        }
        let mic = &levels[levels.len() - LIKENESS..];
        let delays = 0..=(levels.len() - LIKENESS);
        delays.map(|delay| correlation(mic, &levels[levels.len() - LIKENESS - delay..])).max_by(f32::total_cmp)
    }

    /// Drops what cannot be heard any more at `at`.
    fn forget(&mut self, at: Duration) {
        let old = slot(at).saturating_sub(REACH as u64 + 1).saturating_sub(self.first).min(self.voice.len() as u64);
        self.voice.drain(..old as usize);
        self.first += old;
    }
}

/// Correlation of the first of `mic` with the second of `voice`.
fn correlation(mic: &[(f32, f32)], voice: &[(f32, f32)]) -> f32 {
    let pairs = || mic.iter().zip(voice).map(|((mic, _), (_, voice))| (*mic, *voice));
    let count = mic.len() as f32;
    let (mic_sum, voice_sum) = pairs().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
    let (mic_mean, voice_mean) = (mic_sum / count, voice_sum / count);
    let (mut both, mut mic_square, mut voice_square) = (0.0, 0.0, 0.0);
    for (mic, voice) in pairs() {
        let (mic, voice) = (mic - mic_mean, voice - voice_mean);
        both += mic * voice;
        mic_square += mic * mic;
        voice_square += voice * voice;
    }
    // Levels that do not change are like nothing.
    if mic_square * voice_square > 0.0 { both / (mic_square * voice_square).sqrt() } else { 0.0 }
}

fn slot(at: Duration) -> u64 {
    (at.as_nanos() / SLOT.as_nanos()) as u64
}

fn samples(at: Duration) -> u64 {
    (at.as_nanos() * u128::from(OUTPUT_RATE) / 1_000_000_000) as u64
}

#[cfg(test)]
mod tests;
