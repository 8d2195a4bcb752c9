//! The edges of an utterance: silence trimmed, a pause that fits its punctuation, no clicks, no clipping.

use causerie_model_api::OUTPUT_RATE;

/// What an utterance ends with, which decides the pause behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Words go on at once.
    None,
    /// A comma, colon, semicolon or dash.
    Clause,
    /// A full stop, question mark or exclamation mark.
    Sentence,
}

impl Ending {
    pub(super) fn of(text: &str) -> Self {
        match text.trim_end_matches(['”', '"', ')', ' ', '\'']).chars().last() {
            Some('.' | '!' | '?' | '…') => Self::Sentence,
            Some(',' | ';' | ':' | '—') => Self::Clause,
            _ => Self::None,
        }
    }

    fn pause_ms(self) -> f32 {
        match self {
            Self::None => 20.0,
            Self::Clause => 140.0,
            Self::Sentence => 320.0,
        }
    }
}

/// Samples below this are silence: 46 dB under full scale, a little above the network's idle noise.
const SILENCE: f32 = 0.005;
/// Silence kept before the first sound and, at least, behind the last.
const MARGIN: usize = samples(15.0);
/// Length of the fades at both ends.
const FADE: usize = samples(5.0);
/// Loudest sample; above it the utterance is turned down as a whole.
const PEAK: f32 = 0.95;

const fn samples(ms: f32) -> usize {
    (ms * OUTPUT_RATE as f32 / 1000.0) as usize
}

/// Trims, fades and pads `out[from..]`. Returns how many samples were taken off the front.
pub(super) fn finish(out: &mut Vec<f32>, from: usize, ending: Ending, rate: f32) -> usize {
    let loud = |x: &f32| x.abs() > SILENCE;
    for x in &mut out[from..] {
        if !x.is_finite() {
            *x = 0.0;
        }
    }
    let Some(first) = out[from..].iter().position(loud) else {
        out.truncate(from);
        return 0;
    };
    let last = out[from..].iter().rposition(loud).unwrap_or(first);
    let end = (from + last + 1 + MARGIN).min(out.len());
    out.truncate(end);
    let lead = first.saturating_sub(MARGIN);
    out.drain(from..from + lead);
    let peak = out[from..].iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
    let gain = if peak > PEAK { PEAK / peak } else { 1.0 };
    let len = out.len() - from;
    let fade = FADE.min(len / 2).max(1);
    for (i, x) in out[from..].iter_mut().enumerate() {
        let edge = (i.min(len - 1 - i) as f32 / fade as f32).min(1.0);
        *x *= gain * edge;
    }
    let pause = samples(ending.pause_ms() / rate);
    let silent = pause.saturating_sub(MARGIN);
    out.resize(out.len() + silent, 0.0);
    lead
}
