//! An utterance on its way through the audio tower, begun while it is still being spoken.
//!
//! A second of spectrogram goes through the tower's convolutions as soon as it is there, and a block through its layers as
//! soon as it is complete, so that at the end of an utterance little is left to do. A pause may turn out to have been the
//! end after more has gone in: then the last second is taken back.

use causerie_kernels::Pool;
use causerie_kernels::ops::log_mel::{HOP, LogMel, loudest, scale};

use crate::cascade::audio::AudioBuffer;
use crate::omni::OmniError;
use crate::omni::audio::{AudioStream, Tower};
use crate::omni::config::AudioConfig;

/// Frames at the edges of a piece that its neighbours' samples reach into: a window is 2.5 hops.
const EDGE: usize = 2;

/// What the tower's input is scaled by: the loudest value of the spectrogram, below which 8 decades are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loudest {
    /// That of the whole utterance, as in the reference implementation. Nothing can be heard before the end.
    Utterance,
    /// The loudest so far, second by second: what was heard does not depend on what comes after. Equal to
    /// [`Loudest::Utterance`] from the loudest second on.
    #[default]
    SoFar,
    /// This one, in decades of power.
    Fixed(f32),
}

/// What listening needs.
#[derive(Clone, Copy)]
pub(super) struct Ear<'a> {
    pub(super) pool: &'a Pool,
    pub(super) mel: &'a LogMel,
    pub(super) loudest: Loudest,
}

/// An utterance on its way through the tower.
#[derive(Clone)]
pub(super) struct Hearing {
    /// Its first sample.
    from: u64,
    /// Frames of the spectrogram that went through: whole seconds until the last.
    done: usize,
    /// Logarithms of the frames that follow, `[frames, mels]`, once the end is known.
    rest: Vec<f32>,
    loudest: f32,
    stream: AudioStream,
    /// `[tokens, output]`.
    pub(super) rows: Vec<f32>,
    /// As it was a second ago.
    before: Option<Box<Hearing>>,
}

impl Hearing {
    /// An utterance that begins at input sample `from`.
    pub(super) fn new(from: u64) -> Self {
        Self {
            from,
            done: 0,
            rest: Vec::new(),
            loudest: f32::NEG_INFINITY,
            stream: AudioStream::default(),
            rows: Vec::new(),
            before: None,
        }
    }

    /// Whether another second can go through before the end is known.
    pub(super) fn can_go_on(&self, config: &AudioConfig, loudest: Loudest, audio: &AudioBuffer) -> bool {
        let there = frames(self.from, audio.end());
        loudest != Loudest::Utterance && there >= self.done + config.chunk + EDGE && self.held(audio)
    }

    /// Whether the samples that follow are still there.
    fn held(&self, audio: &AudioBuffer) -> bool {
        let lead = self.done.min(EDGE);
        self.from + ((self.done - lead) * HOP) as u64 >= audio.start()
    }

    /// A second goes through the tower while the utterance goes on.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub(super) fn go_on(
        &mut self,
        ear: &Ear<'_>,
        tower: &mut dyn Tower,
        config: &AudioConfig,
        audio: &AudioBuffer,
    ) -> Result<(), OmniError> {
        self.before = None;
        self.before = Some(Box::new(self.clone()));
        let last = self.done + config.chunk;
        self.rest = logarithms(ear, audio, self.from, self.done..last, false);
        self.push(ear, tower, config)
    }

    /// The utterance as of its end, `until`, none of it gone through that does not belong to it. `None` if there is nothing
    /// to hear.
    pub(super) fn until(&self, ear: &Ear<'_>, audio: &AudioBuffer, until: u64) -> Option<Self> {
        // The last frame of an utterance is reflected at its end, and others before it would not have been.
        let usable =
            |hearing: &&Self| (hearing.done == 0 || hearing.done < frames(hearing.from, until)) && hearing.held(audio);
        let state = Some(self).filter(usable).or_else(|| self.before.as_deref().filter(usable));
        // What is too long to be held is heard from where it is held.
        let mut state = state
            .map_or_else(|| Self::new(self.from.max(audio.start())), |state| Self { before: None, ..state.clone() });
        let last = frames(state.from, until);
        // One frame alone has nothing to reflect, and nobody says anything in 10 ms.
        if last < 2 {
            return None;
        }
        if state.done < last {
            state.rest = logarithms(ear, audio, state.from, state.done..last, true);
        }
        if ear.loudest == Loudest::Utterance {
            state.loudest = loudest(&state.rest);
        }
        Some(state)
    }

    /// Up to a second of what is left goes through the tower. Returns whether that was all.
    ///
    /// # Errors
    /// [`OmniError::Device`].
    pub(super) fn finish(
        &mut self,
        ear: &Ear<'_>,
        tower: &mut dyn Tower,
        config: &AudioConfig,
    ) -> Result<bool, OmniError> {
        if !self.rest.is_empty() {
            self.push(ear, tower, config)?;
        }
        if self.rest.is_empty() {
            self.stream.flush(tower, &mut self.rows)?;
        }
        Ok(self.rest.is_empty())
    }

    /// The first second of `rest` goes through.
    fn push(&mut self, ear: &Ear<'_>, tower: &mut dyn Tower, config: &AudioConfig) -> Result<(), OmniError> {
        let end = self.rest.len().min(config.chunk * config.mels);
        let mut mel: Vec<f32> = self.rest.drain(..end).collect();
        self.loudest = match ear.loudest {
            Loudest::Utterance => self.loudest,
            Loudest::SoFar => self.loudest.max(loudest(&mel)),
            Loudest::Fixed(loudest) => loudest,
        };
        scale(&mut mel, self.loudest);
        self.done += mel.len() / config.mels;
        self.stream.push(tower, &mel, &mut self.rows)
    }
}

/// Whole frames of the samples `from..until`.
fn frames(from: u64, until: u64) -> usize {
    usize::try_from(until.saturating_sub(from)).unwrap_or(usize::MAX) / HOP
}

/// The frames `range` of an utterance that begins at sample `from`. If it is not over, the samples behind it are its own;
/// if it is, it is reflected at the end of the range.
fn logarithms(ear: &Ear<'_>, audio: &AudioBuffer, from: u64, range: std::ops::Range<usize>, over: bool) -> Vec<f32> {
    let lead = range.start.min(EDGE);
    let trail = if over { 0 } else { EDGE };
    let (first, last) = (range.start - lead, range.end + trail);
    let pcm = audio.range(from + (first * HOP) as u64, from + (last * HOP) as u64);
    let mels = ear.mel.mels();
    let mut logs = vec![0.0; (last - first) * mels];
    ear.mel.logarithms(ear.pool, pcm, &mut logs);
    logs.truncate((last - first - trail) * mels);
    logs.drain(..lead * mels);
    logs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::omni::tests::tiny;
    use crate::omni::{Omni, Placement};

    fn voice(samples: usize) -> Vec<f32> {
        // Quiet at first, then loud, then quiet again.
        let level = |i: usize| if (30_000..50_000).contains(&i) { 0.5 } else { 0.01 };
        (0..samples).map(|i| (i as f32 * 0.07).sin() * level(i) + (i as f32 * 0.31).sin() * 0.004).collect()
    }

    struct Setup {
        pool: Pool,
        omni: Omni,
        mel: LogMel,
    }

    impl Setup {
        fn new() -> Self {
            let pool = Pool::new(1);
            let omni = Omni::load(&pool, &tiny(), Placement::F32).unwrap();
            let mel = LogMel::new(omni.config.thinker.audio.mels);
            Self { pool, omni, mel }
        }

        /// Heard in pieces of `piece` samples, `late` samples after the end included, or only at the end.
        fn hear(&self, loudest: Loudest, samples: usize, piece: Option<usize>, late: usize) -> Vec<f32> {
            let config = &self.omni.config.thinker.audio;
            let ear = Ear { pool: &self.pool, mel: &self.mel, loudest };
            let mut audio = AudioBuffer::new(1 << 22);
            let (pcm, offset) = (voice(samples + late), 777);
            let mut hearing = Hearing::new(offset);
            let mut early = 0;
            audio.push(0, &vec![0.0; offset as usize]);
            for pcm in pcm.chunks(piece.unwrap_or(pcm.len())) {
                audio.push(audio.end(), pcm);
                while piece.is_some() && hearing.can_go_on(config, loudest, &audio) {
                    hearing.go_on(&ear, &mut self.omni.audio.on(&self.pool), config, &audio).unwrap();
                    early += 1;
                }
            }
            let may = piece.is_some() && loudest != Loudest::Utterance;
            assert!((early == 0 || may) && (early > 0 || !may || samples < 20_000), "{early} seconds");
            let mut whole = hearing.until(&ear, &audio, offset + samples as u64).unwrap();
            while !whole.finish(&ear, &mut self.omni.audio.on(&self.pool), config).unwrap() {}
            whole.rows
        }
    }

    #[test]
    fn what_is_heard_early_is_what_is_heard_at_the_end() {
        let setup = Setup::new();
        for loudest in [Loudest::Utterance, Loudest::SoFar, Loudest::Fixed(1.5)] {
            for samples in [16_000, 45_678, 80_000] {
                let whole = setup.hear(loudest, samples, None, 0);
                assert!(!whole.is_empty());
                for (piece, late) in [(160, 0), (333, 9_000), (3_200, 14_000), (20_000, 30_000)] {
                    let early = setup.hear(loudest, samples, Some(piece), late);
                    assert!(early == whole, "{loudest:?}, {samples} samples in pieces of {piece}, {late} too many");
                }
            }
        }
    }

    #[test]
    fn the_loudest_second_makes_the_difference() {
        let setup = Setup::new();
        let heard = |loudest| setup.hear(loudest, 80_000, None, 0);
        let (whole, so_far) = (heard(Loudest::Utterance), heard(Loudest::SoFar));
        assert_eq!(whole.len(), so_far.len());
        assert_ne!(whole, so_far, "the first second is quieter than a later one");
        assert_ne!(so_far, heard(Loudest::Fixed(1.5)));
    }

    #[test]
    fn nothing_is_heard_in_ten_milliseconds() {
        let setup = Setup::new();
        let ear = Ear { pool: &setup.pool, mel: &setup.mel, loudest: Loudest::SoFar };
        let audio = AudioBuffer::new(1_000);
        assert!(Hearing::new(0).until(&ear, &audio, 319).is_none());
    }
}
