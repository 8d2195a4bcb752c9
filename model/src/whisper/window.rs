//! How much audio the encoder sees at once.
//!
//! Audio is followed by zeros up to the window, because the decoder ends its text well only when it hears the end:
//! without about a second of nothing it repeats itself or leaves words out.

use std::ops::Range;

use super::SAMPLE_RATE;

const SECOND: usize = SAMPLE_RATE as usize;
/// Samples of one row of the encoder's output: two frames of mel.
pub(super) const ROW: usize = 320;
const ROWS_PER_SECOND: usize = SECOND / ROW;

/// Recordings longer than this are cut into segments.
const MAX_SEGMENT: usize = 28 * SECOND;
/// A segment is cut at the quietest place behind this.
const MIN_SEGMENT: usize = 20 * SECOND;
/// Length of what is compared for quietness: a pause between words.
const PAUSE: usize = SECOND / 5;

/// The lengths of windows.
///
/// Errors of base in 376 words (30 synthetic and 6 read sentences of 1 to 7 s) by seconds of window and of padding at
/// least: 12 s and 2 s: 2; 2 s and 2 s: 3; 2 s and 1.5 s: 3; 2 s and 1 s: 3; 1 s and 0.5 s: 3. The one more is in a
/// name for the same sounds. tiny.en: 6, 7, 6, with 1 s of padding 13. The time of the encoder is proportional to the
/// window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// The shortest window, in rows.
    pub(super) min: usize,
    /// Rows of zeros behind the audio, at least.
    pub(super) padding: usize,
    /// What is added, in rows, to try again when the text goes round in circles.
    pub(super) retry: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self { min: 3 * ROWS_PER_SECOND, padding: 3 * ROWS_PER_SECOND / 2, retry: 8 * ROWS_PER_SECOND }
    }
}

impl Plan {
    /// Rows of the window for `samples` of audio at the `attempt`, counted from 0; never more than `max`.
    pub(super) fn rows(self, samples: usize, attempt: usize, max: usize) -> usize {
        let rows = samples.div_ceil(ROW) + self.padding;
        (rows.max(self.min) + attempt * self.retry).min(max)
    }
}

/// Cuts audio into segments of at most [`MAX_SEGMENT`], at the quietest places.
pub(super) fn segments(pcm: &[f32]) -> Vec<Range<usize>> {
    let mut segments = Vec::new();
    let mut start = 0;
    while pcm.len() - start > MAX_SEGMENT {
        let cut = start + MIN_SEGMENT + quietest(&pcm[start + MIN_SEGMENT..start + MAX_SEGMENT]);
        segments.push(start..cut);
        start = cut;
    }
    segments.push(start..pcm.len());
    segments
}

/// The middle of the [`PAUSE`] with the least energy.
fn quietest(pcm: &[f32]) -> usize {
    let step = PAUSE / 10;
    let energies: Vec<f32> = pcm.chunks(step).map(|chunk| chunk.iter().map(|v| v * v).sum()).collect();
    let sums = energies.windows(PAUSE / step).map(|window| window.iter().sum::<f32>());
    let best = sums.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
    best * step + PAUSE / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_leave_room_behind_the_audio() {
        let plan = Plan { min: 600, padding: 100, retry: 400 };
        for (seconds, attempt, rows) in [
            (0, 0, 600),
            (7, 0, 600),
            (10, 0, 600),
            (11, 0, 650),
            (28, 0, 1500),
            (29, 0, 1500),
            (3, 1, 1000),
            (28, 1, 1500),
        ] {
            assert_eq!(plan.rows(seconds * SECOND, attempt, 1500), rows, "{seconds} s, attempt {attempt}");
        }
    }

    #[test]
    fn long_audio_is_cut_in_its_pauses() {
        let mut pcm: Vec<f32> = (0..70 * SECOND).map(|i| (i as f32 * 0.3).sin()).collect();
        for pause in [23 * SECOND, 46 * SECOND] {
            pcm[pause..pause + 2 * PAUSE].fill(0.0);
        }
        let cuts = segments(&pcm);
        assert_eq!((cuts.first().map(|s| s.start), cuts.last().map(|s| s.end)), (Some(0), Some(pcm.len())));
        assert!(cuts.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(cuts.iter().all(|segment| segment.len() <= MAX_SEGMENT));
        assert_eq!(cuts.len(), 3);
        for (cut, pause) in cuts.iter().zip([23 * SECOND, 46 * SECOND]) {
            assert!((pause..pause + 2 * PAUSE).contains(&cut.end), "{} is not in the pause at {pause}", cut.end);
        }
        assert_eq!(segments(&[]), vec![Range { start: 0, end: 0 }]);
        assert_eq!(segments(&pcm[..MAX_SEGMENT]).len(), 1);
    }
}
