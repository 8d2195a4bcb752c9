//! One turn's speech on its way out: what may leave when, and what the listener has heard of it.
//!
//! Sample s is meant to be heard at `anchor + s / rate`, and leaves when its whole piece is within a `lead` of that: what
//! was sent never reaches further. Speech that comes too late for that (the listener has heard everything) moves the
//! anchor and is counted as run dry. While held, nothing leaves, and the anchor moves when the hold has lasted longer
//! than what was already sent.
//!
//! What was heard is what the client reports, carried on by the clock for a moment, or else what the clock says; never
//! more than was sent. A client that has fallen silent about it is counted by the clock again.

use std::collections::VecDeque;
use std::time::Duration;

use causerie_model_api::CREDIT_AHEAD;
use causerie_units::{MediaTime, SampleRate};

const RATE: SampleRate = SampleRate::HZ_24000;

/// A report of the client is carried on by the clock for this long: reports come a few times a second.
const REPORT_LIFE: Duration = Duration::from_millis(500);

/// A client that reports nothing for this long has stopped reporting, not playing.
const REPORT_SILENCE: Duration = Duration::from_secs(5);

/// The lead while somebody may be beginning to speak, and the longest piece: what was sent cannot be called back, and this
/// much is enough for the moment in which it turns out. A piece still leaves 40 ms before it is heard.
const CAUTIOUS_LEAD: Duration = Duration::from_millis(60);
const CAUTIOUS_PIECE: Duration = Duration::from_millis(20);

/// Credit is renewed when this much of it was used.
const CREDIT_STEP: Duration = Duration::from_secs(1);

/// Speech this far above the credit given is an engine that does not keep to it. A clause that begins within the credit may end beyond it.
const OVERRUN: Duration = Duration::from_secs(30);

pub(crate) struct Playout {
    piece: u64,
    lead: Duration,
    waiting: VecDeque<f32>,
    /// Positions in samples since the turn's first: handed over, sent, promised to the engine.
    received: u64,
    sent: u64,
    granted: u64,
    anchor: Option<MediaTime>,
    reported: Option<Report>,
    held: bool,
    cautious: bool,
    ran_dry: u32,
    /// Which text the speech says, piece by piece of the engine. The oldest are dropped when they were heard.
    spans: VecDeque<Span>,
    text_heard: usize,
}

/// What the client said that its listener has heard.
#[derive(Clone, Copy)]
struct Report {
    until: u64,
    /// When it said so first, and when it said anything last.
    at: MediaTime,
    latest: MediaTime,
}

struct Span {
    from: u64,
    until: u64,
    text_until: usize,
}

/// What can be wrong with speech from the engine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Gap,
    Overrun,
}

impl Playout {
    pub(crate) fn new(piece: Duration, lead: Duration) -> Self {
        Self {
            piece: RATE.samples(piece).max(1),
            lead,
            waiting: VecDeque::new(),
            received: 0,
            sent: 0,
            granted: CREDIT_AHEAD.0,
            anchor: None,
            reported: None,
            held: false,
            cautious: false,
            ran_dry: 0,
            spans: VecDeque::new(),
            text_heard: 0,
        }
    }

    /// Takes speech that begins at `start` and says the reply's text up to byte `text_until`.
    pub(crate) fn push(&mut self, start: u64, pcm: &[f32], text_until: usize) -> Result<(), Broken> {
        if start != self.received {
            return Err(Broken::Gap);
        }
        self.received += pcm.len() as u64;
        if self.received > self.granted + RATE.samples(OVERRUN) {
            return Err(Broken::Overrun);
        }
        self.waiting.extend(pcm);
        let text_until = text_until.max(self.spans.back().map_or(self.text_heard, |span| span.text_until));
        self.spans.push_back(Span { from: start, until: self.received, text_until });
        Ok(())
    }

    /// The next piece, if one is due: its position and samples.
    pub(crate) fn pull(&mut self, now: MediaTime) -> Option<(u64, Vec<f32>)> {
        if self.due()? > now {
            return None;
        }
        match self.anchor {
            None => self.anchor = Some(now),
            Some(anchor) if anchor + RATE.duration(self.sent) < now => {
                self.ran_dry += 1;
                self.anchor = Some(now.saturating_sub(RATE.duration(self.sent)));
            }
            Some(_) => {}
        }
        let start = self.sent;
        let count = self.next();
        self.sent += count;
        // By slices, which are copied at once; the samples of an iterator are moved one by one.
        let (front, back) = self.waiting.as_slices();
        let (front, back) =
            (&front[..front.len().min(count as usize)], &back[..(count as usize).saturating_sub(front.len())]);
        let piece = [front, back].concat();
        self.waiting.drain(..count as usize);
        Some((start, piece))
    }

    /// When the next piece may leave; `None` when there is none or it is held.
    pub(crate) fn due(&self) -> Option<MediaTime> {
        if self.waiting.is_empty() || self.held {
            return None;
        }
        Some(match self.anchor {
            None => MediaTime::ZERO,
            Some(anchor) => {
                let lead = if self.cautious { self.lead.min(CAUTIOUS_LEAD) } else { self.lead };
                let piece = RATE.duration(self.next());
                (anchor + RATE.duration(self.sent)).saturating_sub(lead.saturating_sub(piece))
            }
        })
    }

    /// Length of the next piece.
    fn next(&self) -> u64 {
        let piece = if self.cautious { self.piece.min(RATE.samples(CAUTIOUS_PIECE)) } else { self.piece };
        piece.min(self.waiting.len() as u64)
    }

    /// Whether somebody may be beginning to speak: as little as possible is to be on its way then.
    pub(crate) fn cautious(&mut self, cautious: bool) {
        self.cautious = cautious;
    }

    /// Nothing leaves until [`Playout::release`].
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// Goes on from the unsent speech. Silence that the hold made is not the engine's lateness.
    pub(crate) fn release(&mut self, now: MediaTime) {
        if std::mem::take(&mut self.held)
            && let Some(anchor) = self.anchor
            && anchor + RATE.duration(self.sent) < now
        {
            self.anchor = Some(now.saturating_sub(RATE.duration(self.sent)));
        }
    }

    /// The client says that its listener has heard up to `until`. Reports backwards are old, reports of what was never
    /// sent are cut.
    pub(crate) fn report(&mut self, until: u64, now: MediaTime) {
        let until = until.min(self.sent);
        self.reported = Some(match self.reported {
            Some(before) if until <= before.until => Report { latest: now, ..before },
            _ => Report { until, at: now, latest: now },
        });
    }

    /// What the listener has heard, in samples.
    pub(crate) fn heard(&self, now: MediaTime) -> u64 {
        let heard = match (self.reported, self.anchor) {
            (Some(Report { until, at, latest }), _) => {
                let played = now.since(at).min(REPORT_LIFE) + now.since(latest).saturating_sub(REPORT_SILENCE);
                until + RATE.samples(played)
            }
            (None, Some(anchor)) => RATE.samples(now.since(anchor)),
            (None, None) => 0,
        };
        heard.min(self.sent)
    }

    /// A new promise to the engine, when there is one to make.
    pub(crate) fn grant(&mut self, now: MediaTime) -> Option<u64> {
        let until = self.heard(now) + CREDIT_AHEAD.0;
        (until >= self.granted + RATE.samples(CREDIT_STEP)).then(|| {
            self.granted = until;
            until
        })
    }

    /// When an engine that waits for it will have a new promise although nothing leaves; `None` if the listener has to
    /// be heard of first.
    pub(crate) fn grant_due(&self) -> Option<MediaTime> {
        // A duration is rounded down.
        const ROUNDING: Duration = Duration::from_millis(1);
        let heard = (self.granted + RATE.samples(CREDIT_STEP)).saturating_sub(CREDIT_AHEAD.0);
        if !self.waiting.is_empty() || !self.spent() || heard > self.sent {
            return None;
        }
        let due = match self.reported {
            None => self.anchor? + RATE.duration(heard),
            Some(Report { until, at, latest }) => {
                let missing = RATE.duration(heard.saturating_sub(until));
                match missing.checked_sub(REPORT_LIFE) {
                    None => at + missing,
                    Some(more) => latest + REPORT_SILENCE + more,
                }
            }
        };
        Some(due + ROUNDING)
    }

    /// Whether the engine has said all that it may before the listener has heard more.
    pub(crate) fn spent(&self) -> bool {
        self.received >= self.granted
    }

    /// Bytes of the text said by the first `samples`, between the ends of the engine's pieces by proportion.
    pub(crate) fn text_at(&self, samples: u64) -> usize {
        let mut before = self.text_heard;
        for span in &self.spans {
            if samples < span.until {
                let part = samples.saturating_sub(span.from) as u128 * (span.text_until - before) as u128;
                return before + (part / u128::from(span.until - span.from)) as usize;
            }
            before = span.text_until;
        }
        before
    }

    /// Forgets what the text was of speech that has been heard.
    pub(crate) fn prune(&mut self, now: MediaTime) {
        let heard = self.heard(now);
        while let Some(span) = self.spans.pop_front_if(|span| span.until <= heard) {
            self.text_heard = span.text_until;
        }
    }

    /// Whether everything handed over was sent.
    pub(crate) fn drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the listener will have heard what was sent, by the clock. A client that reports otherwise is not waited for:
    /// nothing is left to be done for it.
    pub(crate) fn ends(&self) -> Option<MediaTime> {
        self.anchor.map(|anchor| anchor + RATE.duration(self.sent))
    }

    /// What was sent, in samples.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// How often the listener had to wait.
    pub(crate) fn ran_dry(&self) -> u32 {
        self.ran_dry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> MediaTime {
        MediaTime::from_millis(ms)
    }

    fn playout() -> Playout {
        Playout::new(Duration::from_millis(40), Duration::from_millis(200))
    }

    fn departures(playout: &mut Playout, until: u64) -> Vec<(u64, u64)> {
        let mut left = Vec::new();
        for now in 0..=until {
            while let Some((start, _)) = playout.pull(ms(now)) {
                left.push((now, start / 24));
            }
        }
        left
    }

    #[test]
    fn pieces_leave_by_deadline_with_the_lead() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24 * 330], 10).unwrap();
        let left = departures(&mut playout, 1000);
        assert_eq!(left, [(0, 0), (0, 40), (0, 80), (0, 120), (0, 160), (40, 200), (80, 240), (120, 280), (130, 320)]);
        assert_eq!(playout.ran_dry(), 0);
        assert_eq!(playout.ends(), Some(ms(330)));
        assert_eq!(playout.heard(ms(100)), 2400);
        assert_eq!(playout.heard(ms(5000)), 24 * 330);
    }

    #[test]
    fn late_speech_moves_the_anchor_and_counts_as_dry() {
        let mut playout = playout();
        playout.push(0, &[0.0; 2400], 1).unwrap();
        departures(&mut playout, 50);
        playout.push(2400, &[0.0; 2400], 2).unwrap();
        assert!(playout.pull(ms(90)).is_some());
        assert_eq!(playout.ran_dry(), 0, "within the lead");
        departures(&mut playout, 90);
        playout.push(4800, &[0.0; 2400], 3).unwrap();
        assert_eq!(playout.pull(ms(700)).map(|(start, _)| start), Some(4800));
        assert_eq!(playout.ran_dry(), 1);
        assert_eq!(playout.heard(ms(710)), 4800 + 240);
    }

    #[test]
    fn with_caution_little_is_on_its_way_and_nothing_runs_dry() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24_000], 1).unwrap();
        departures(&mut playout, 100);
        playout.cautious(true);
        let sent = playout.sent() / 24;
        let left: Vec<_> = departures(&mut playout, 400).into_iter().collect();
        assert_eq!(left[0], (sent - 40, sent), "it waits until what was sent is heard but for 40 ms");
        assert!(left.iter().all(|(at, start)| start + 20 - at <= 60), "{left:?}");
        playout.cautious(false);
        assert_eq!(playout.due(), Some(ms(playout.sent() / 24 - 160)));
        assert!(playout.pull(ms(400)).is_some());
        assert_eq!(playout.ran_dry(), 0);
    }

    #[test]
    fn a_hold_stops_what_leaves_and_is_not_dryness() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24_000], 1).unwrap();
        departures(&mut playout, 0);
        playout.hold();
        assert_eq!(playout.due(), None);
        playout.release(ms(600));
        assert_eq!(playout.heard(ms(600)), 24 * 200, "what had been sent was heard meanwhile");
        assert!(playout.pull(ms(600)).is_some());
        assert_eq!(playout.ran_dry(), 0);
    }

    #[test]
    fn reports_are_clamped_to_what_was_sent_and_never_go_back() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24_000], 1).unwrap();
        departures(&mut playout, 300);
        let sent = playout.sent();
        playout.report(1_000, ms(300));
        assert_eq!(playout.heard(ms(300)), 1_000);
        assert_eq!(playout.heard(ms(310)), 1_240);
        playout.report(10, ms(320));
        assert_eq!(playout.heard(ms(320)), 1_480);
        playout.report(u64::MAX, ms(330));
        assert_eq!(playout.heard(ms(330)), sent);
    }

    #[test]
    fn a_client_that_reports_no_more_is_counted_by_the_clock() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24 * 9_000], 1).unwrap();
        departures(&mut playout, 9_000);
        playout.report(2_400, ms(1_000));
        for later in [1_500, 2_000, 6_000] {
            assert_eq!(playout.heard(ms(later)), 2_400 + 24 * 500, "at {later} ms");
        }
        assert_eq!(playout.heard(ms(7_000)), 2_400 + 24 * 1_500);
        // A player that has been stopped says the same again and again.
        playout.report(2_400, ms(7_000));
        assert_eq!(playout.heard(ms(12_000)), 2_400 + 24 * 500);
        assert_eq!(playout.heard(ms(999_000)), playout.sent());
    }

    #[test]
    fn a_clock_that_jumps_bursts_nothing() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24 * 3_000], 1).unwrap();
        departures(&mut playout, 100);
        let before = playout.sent();
        let hours = 3_600_000;
        let mut pieces = 0;
        while playout.pull(ms(hours)).is_some() {
            pieces += 1;
        }
        assert!(playout.sent() - before <= 24 * 200 && pieces > 0, "{pieces} pieces at once");
        assert_eq!(playout.ran_dry(), 1, "the listener has waited");
        assert_eq!(playout.due(), Some(ms(hours + 40)));
        // Back again: the session never hands on an earlier time, and nothing leaves if it did.
        assert!(playout.pull(ms(50)).is_none());
        assert!(playout.heard(ms(50)) <= playout.sent());
    }

    #[test]
    fn text_follows_the_speech() {
        let mut playout = playout();
        playout.push(0, &[0.0; 1000], 10).unwrap();
        playout.push(1000, &[0.0; 1000], 30).unwrap();
        assert_eq!([0, 500, 1000, 1500, 2000, 9000].map(|at| playout.text_at(at)), [0, 5, 10, 20, 30, 30]);
        departures(&mut playout, 1000);
        playout.prune(ms(60));
        assert_eq!([1500, 2000].map(|at| playout.text_at(at)), [20, 30]);
    }

    #[test]
    fn credit_follows_the_listener() {
        let mut playout = playout();
        playout.push(0, &[0.0; 24 * 3000], 10).unwrap();
        departures(&mut playout, 900);
        assert_eq!(playout.grant(ms(999)), None);
        departures(&mut playout, 1000);
        assert_eq!(playout.grant(ms(1000)), Some(192_000 + 24_000));
        assert_eq!(playout.push(9, &[0.0], 1), Err(Broken::Gap));
        assert_eq!(playout.push(24 * 3000, &vec![0.0; 24 * 40_000], 1), Err(Broken::Overrun));
    }
}
