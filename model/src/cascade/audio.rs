//! The part of a session's input that may still be needed, addressed by absolute position.

/// Contiguous input samples `start..end`. Old samples are dropped by [`AudioBuffer::keep_from`]; a bound on the length
/// drops the oldest on its own.
pub(crate) struct AudioBuffer {
    samples: Vec<f32>,
    start: u64,
    limit: usize,
}

impl AudioBuffer {
    /// An empty buffer that never holds more than `limit` samples.
    pub(crate) fn new(limit: usize) -> Self {
        Self { samples: Vec::new(), start: 0, limit }
    }

    /// One past the last sample.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.samples.len() as u64
    }

    /// The first sample that is still held.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Appends `pcm` at position `at`. A gap before it becomes silence; an overlap keeps what was there.
    pub(crate) fn push(&mut self, at: u64, pcm: &[f32]) {
        let end = self.end();
        if at > end {
            let gap = at - end;
            if gap >= self.limit as u64 {
                self.samples.clear();
                self.start = at;
            } else {
                self.samples.resize(self.samples.len() + gap as usize, 0.0);
            }
        }
        let skip = usize::try_from(self.end().saturating_sub(at)).unwrap_or(usize::MAX).min(pcm.len());
        self.samples.extend_from_slice(&pcm[skip..]);
        if self.samples.len() > self.limit {
            let start = self.end() - self.limit as u64;
            self.keep_from(start);
        }
    }

    /// Forgets samples before `position`.
    pub(crate) fn keep_from(&mut self, position: u64) {
        let drop = position.saturating_sub(self.start).min(self.samples.len() as u64);
        self.samples.drain(..drop as usize);
        self.start += drop;
    }

    /// The samples of `from..until` that are still held.
    pub(crate) fn range(&self, from: u64, until: u64) -> &[f32] {
        let index = |position: u64| (position.clamp(self.start, self.end()) - self.start) as usize;
        let (from, until) = (index(from), index(until));
        &self.samples[from..until.max(from)]
    }

    /// The middle of the quietest `window` samples inside `from..until`: where an utterance is cut with least harm.
    pub(crate) fn quietest(&self, from: u64, until: u64, window: usize) -> u64 {
        let samples = self.range(from, until);
        let first = from.clamp(self.start, self.end());
        if samples.len() <= window {
            return first + samples.len() as u64 / 2;
        }
        let energy = |x: &f32| f64::from(x * x);
        let mut sum: f64 = samples[..window].iter().map(energy).sum();
        let (mut best, mut best_at) = (sum, 0);
        for i in window..samples.len() {
            sum += energy(&samples[i]) - energy(&samples[i - window]);
            if sum < best {
                (best, best_at) = (sum, i + 1 - window);
            }
        }
        first + (best_at + window / 2) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_absolute_while_old_samples_go() {
        let mut b = AudioBuffer::new(100);
        b.push(0, &[0.1; 60]);
        b.push(60, &[0.2; 60]);
        assert_eq!(b.end(), 120);
        assert_eq!(b.range(0, 200).len(), 100);
        assert_eq!(b.range(59, 61), [0.1, 0.2]);
        b.keep_from(110);
        assert_eq!(b.range(0, 200), [0.2; 10]);
    }

    #[test]
    fn gaps_are_silence_and_overlaps_are_skipped() {
        let mut b = AudioBuffer::new(100);
        b.push(0, &[1.0; 4]);
        b.push(6, &[2.0; 2]);
        b.push(7, &[3.0; 2]);
        assert_eq!(b.range(0, 100), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 2.0, 2.0, 3.0]);
        b.push(1_000_000, &[4.0]);
        assert_eq!(b.range(0, u64::MAX), [4.0]);
        b.push(10, &[5.0; 3]);
        assert_eq!(b.end(), 1_000_001);
    }

    #[test]
    fn the_quietest_place_is_found() {
        let mut b = AudioBuffer::new(1000);
        let mut pcm = vec![0.5; 500];
        pcm[300..340].fill(0.01);
        b.push(0, &pcm);
        assert!((310..=330).contains(&b.quietest(100, 450, 20)));
        assert_eq!(b.quietest(10, 20, 20), 15);
    }
}
