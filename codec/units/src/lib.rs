//! Units of time and rate that never mix by accident.
//!
//! Three clocks exist in a conversation and each stays with its owner: arrival time (the driver's `Instant`), media
//! time (a sender's sample counter, [`MediaTime`] here) and playout time (what a listener has heard, counted in
//! samples). Inside a session "now" is a [`MediaTime`] since the session opened.
#![forbid(unsafe_code)]

use std::fmt;
use std::num::NonZeroU32;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// Samples a second of one channel; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleRate(NonZeroU32);

impl SampleRate {
    /// Telephone.
    pub const HZ_8000: Self = Self::constant(8_000);
    /// What speech models hear.
    pub const HZ_16000: Self = Self::constant(16_000);
    /// What speech models say.
    pub const HZ_24000: Self = Self::constant(24_000);
    /// Opus and video.
    pub const HZ_48000: Self = Self::constant(48_000);

    const fn constant(hz: u32) -> Self {
        match NonZeroU32::new(hz) {
            Some(hz) => Self(hz),
            None => panic!("a sample rate constant is zero"),
        }
    }

    /// `None` for zero.
    pub const fn new(hz: u32) -> Option<Self> {
        match NonZeroU32::new(hz) {
            Some(hz) => Some(Self(hz)),
            None => None,
        }
    }

    /// The rate in hertz.
    pub const fn hz(self) -> u32 {
        self.0.get()
    }

    /// Time that `samples` take at this rate, rounded down to the nanosecond.
    pub fn duration(self, samples: u64) -> Duration {
        let hz = u64::from(self.hz());
        Duration::new(samples / hz, ((samples % hz) * 1_000_000_000 / hz) as u32)
    }

    /// Whole samples that fit `duration` at this rate.
    pub fn samples(self, duration: Duration) -> u64 {
        let hz = u128::from(self.hz());
        u64::try_from(duration.as_nanos() * hz / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for SampleRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Hz", self.0)
    }
}

/// A point in time since the session opened, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(u64);

impl MediaTime {
    /// The opening of the session.
    pub const ZERO: Self = Self(0);
    /// Later than every time that occurs.
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms * 1_000_000)
    }

    /// From microseconds.
    pub const fn from_micros(us: u64) -> Self {
        Self(us * 1_000)
    }

    /// From nanoseconds.
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// Whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since the opening.
    pub const fn as_duration(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// `self - earlier`, or zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self - duration`, or the opening of the session.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// Milliseconds from `origin` to `self`; negative when `self` is earlier.
    pub fn millis_from(self, origin: Self) -> f64 {
        (self.0 as f64 - origin.0 as f64) / 1e6
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for MediaTime {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl AddAssign<Duration> for MediaTime {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub for MediaTime {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

impl fmt::Display for MediaTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_converts_between_samples_and_time() {
        assert_eq!(SampleRate::HZ_16000.samples(Duration::from_millis(32)), 512);
        assert_eq!(SampleRate::HZ_24000.duration(24_000 * 7200), Duration::from_secs(7200));
        assert!(SampleRate::new(0).is_none());
    }

    #[test]
    fn times_never_go_below_the_opening() {
        let t = MediaTime::from_millis(5);
        assert_eq!(t.saturating_sub(Duration::from_secs(1)), MediaTime::ZERO);
        assert_eq!(MediaTime::ZERO - t, Duration::ZERO);
        assert_eq!(MediaTime::ZERO.millis_from(t), -5.0);
    }
}
