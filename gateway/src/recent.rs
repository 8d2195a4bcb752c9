//! The last seconds of the input, kept for whoever is asked about them.

use std::collections::VecDeque;

/// Questions come by the window of the detector, so a range may end a window before the position.
const LATE: u64 = 512;

/// Full scale of a sample.
const SCALE: f32 = 32_768.0;

/// The samples around a position in a stream: those after it, and so many before it. In 16 bits: every listening
/// conversation has some seconds of them.
pub(crate) struct Recent {
    samples: VecDeque<i16>,
    span: usize,
    /// One past the last sample.
    end: u64,
}

impl Recent {
    /// Keeps `span` samples before the position.
    pub(crate) fn new(span: usize) -> Self {
        Self { samples: VecDeque::new(), span, end: 0 }
    }

    /// The next samples of the stream.
    pub(crate) fn push(&mut self, pcm: &[f32]) {
        self.end += pcm.len() as u64;
        self.samples.extend(pcm.iter().map(|x| (x * SCALE) as i16));
    }

    /// Moves the position to `at`.
    pub(crate) fn advance(&mut self, at: u64) {
        let keep = self.end.saturating_sub(at).saturating_add(self.span as u64 + LATE);
        let over = (self.samples.len() as u64).saturating_sub(keep);
        self.samples.drain(..over as usize);
    }

    /// The samples `from..until`, at most the last `span` of them and only those that are kept; what has not come yet is
    /// silence.
    pub(crate) fn range(&self, from: u64, until: u64) -> Vec<f32> {
        let begin = self.end - self.samples.len() as u64;
        let from = from.max(begin).max(until.saturating_sub(self.span as u64)).min(until);
        let sample = |at: u64| usize::try_from(at - begin).ok().and_then(|at| self.samples.get(at));
        (from..until).map(|at| sample(at).map_or(0.0, |&x| f32::from(x) / SCALE)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_is_kept_of_it_and_silence_after_the_end() {
        let mut recent = Recent::new(100);
        let ramp: Vec<f32> = (0..2_000).map(|n| n as f32 / SCALE).collect();
        // Until where samples have come, the position, what is asked for, and which samples are the answer.
        for (end, at, asked, want, silent) in [
            (1_000, 1_000, (950, 1_000), 950..1_000, 0),
            (1_000, 1_000, (0, 1_000), 900..1_000, 0),
            (1_000, 1_000, (0, 520), 420..520, 0),
            (1_000, 1_000, (0, 400), 388..400, 0),
            (1_000, 1_000, (0, 300), 300..300, 0),
            (1_000, 1_000, (990, 1_030), 990..1_000, 30),
            (1_000, 1_000, (0, 1_200), 1_000..1_000, 100),
            // The position lags behind a large piece.
            (2_000, 1_100, (0, 1_100), 1_000..1_100, 0),
            (2_000, 2_000, (0, 1_100), 1_388..1_388, 0),
        ] {
            let begin = recent.end as usize;
            recent.push(&ramp[begin..end]);
            recent.advance(at);
            let want: Vec<f32> = ramp[want].iter().copied().chain(std::iter::repeat_n(0.0, silent)).collect();
            assert_eq!(recent.range(asked.0, asked.1), want, "{asked:?} of {end}");
        }
    }
}
