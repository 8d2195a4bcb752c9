//! The user's speech: starts, pauses, ends, and whether speech into a reply is meant.

use std::time::Duration;

use causerie_model_api::{Cause, InputSamples, Origin, OutputSamples, Request, TurnId};
use causerie_units::MediaTime;

use super::snapshots::RESTORED;
use super::{Phase, Session, User, Verdict};
use crate::ear;
use crate::reply::{Reply, Utterance};
use crate::transcript::{InputTranscript, Meaning, meaning};
use crate::{Output, ProblemCode, ServerEvent};

/// Speech before a reply that is not out yet waits for the rest of it: 2 windows.
const HOLD: Duration = Duration::from_millis(64);

/// The span in which speech into a reply is counted: 25 windows.
const BARGE_IN_SPAN: Duration = Duration::from_millis(800);

/// Speech that takes back a pause: 2 of 3 windows.
const GO_ON: (Duration, Duration) = (Duration::from_millis(64), Duration::from_millis(96));

/// A probability above this is a finished sentence.
const FINISHED: f32 = 0.5;

/// How far back the engine can listen.
const MAX_REACH: Duration = Duration::from_secs(2);

impl Session {
    /// A packet came.
    pub(super) fn audio_received(&mut self, until: u64) {
        if until > self.received {
            let packet = ear::duration(until - self.received);
            self.packet = packet.max(self.packet * 7 / 8);
            self.received = until;
        }
        self.last_packet = self.now;
        if let User::Marked { from } = self.user
            && until.saturating_sub(from) >= ear::samples(self.rules.timing.max_utterance)
        {
            self.end_utterance(from, until, None);
        }
    }

    /// A window of the detector.
    pub(super) fn voice(&mut self, probability: f32, from: u64, to: u64) {
        if !self.rules.detect || !self.ear.push(probability, from, to) {
            return;
        }
        self.received = self.received.max(to);
        self.last_packet = self.now;
        if self.ear.quiet() == 0 {
            self.last_speech = self.now;
        }
        match self.user {
            User::Silent => {
                // A client that wants more speech before a start wants it before a hold too.
                let holds = self.rules.interruption && self.reply.as_ref().is_some_and(|reply| reply.shown);
                let usual = self.rules.start_confirm <= self.rules.timing.start_confirm;
                let sure = if holds && usual { self.ear.sure() } else { None };
                if let Some(onset) = sure.or_else(|| self.ear.onset(self.rules.start_confirm)) {
                    self.begin(onset);
                }
                let cautious = holds && usual && self.ear.faint();
                if let Some(reply) = &mut self.reply {
                    reply.playout.cautious(cautious);
                }
            }
            User::Waiting { from, .. } => {
                if let Some(onset) = self.ear.onset(self.rules.start_confirm) {
                    self.user = User::Speaking { from };
                    self.client(ServerEvent::SpeechStarted { at: InputSamples(onset) });
                }
            }
            User::Overlapping { .. } => {
                let enough = self.ear.heard(self.rules.timing.barge_in, BARGE_IN_SPAN);
                if enough && meaning(&self.overlap_text) != Meaning::Acknowledgement {
                    self.barge_in();
                }
            }
            User::Speaking { from } => {
                if to.saturating_sub(from) >= ear::samples(self.rules.timing.max_utterance) {
                    self.end_utterance(from, to, None);
                }
            }
            User::Pausing { from, proposal, .. } => {
                if self.ear.heard(GO_ON.0, GO_ON.1) {
                    self.discard(proposal);
                    self.user = User::Speaking { from };
                }
            }
            User::Marked { .. } => {}
        }
    }

    /// Speech has begun at `onset`.
    fn begin(&mut self, onset: u64) {
        let back = if self.rules.covers_all_input { MAX_REACH } else { self.rules.timing.preroll };
        let from = onset.saturating_sub(ear::samples(back)).max(self.last_utterance);
        match self.reply.as_deref() {
            Some(reply) if self.can_take_back(reply, onset) => self.take_back(onset),
            Some(_) if self.rules.interruption => {
                self.user = User::Overlapping { from, onset };
                self.overlap_text.clear();
                self.transcript = InputTranscript::default();
                self.engine(Request::Listen { session: self.id, from: InputSamples(from) });
                if let Some(reply) = &mut self.reply {
                    reply.playout.hold();
                }
            }
            _ => {
                self.transcript = InputTranscript::default();
                self.user = User::Speaking { from };
                self.engine(Request::Listen { session: self.id, from: InputSamples(from) });
                self.client(ServerEvent::SpeechStarted { at: InputSamples(onset) });
            }
        }
    }

    /// Whether speech at `onset` still belongs to the utterance that the reply answers.
    fn can_take_back(&self, reply: &Reply, onset: u64) -> bool {
        let grace = ear::samples(self.rules.timing.take_back);
        !reply.shown && reply.utterance.is_some_and(|utterance| onset <= utterance.ended + grace)
    }

    fn take_back(&mut self, onset: u64) {
        let Some(reply) = self.reply.take() else { return };
        let Some(Utterance { from, .. }) = reply.utterance else { return };
        self.engine(Request::Cancel { session: self.id, turn: reply.turn, heard_until: OutputSamples(0) });
        if let Some(place) = reply.heard {
            self.history.remove(place);
        }
        self.release_deferred();
        self.transcript = reply.transcript;
        self.user = User::Speaking { from };
        self.engine(Request::Listen { session: self.id, from: InputSamples(from) });
        self.client(ServerEvent::SpeechStarted { at: InputSamples(onset) });
    }

    /// Speech into the reply was meant.
    pub(super) fn barge_in(&mut self) {
        if let User::Overlapping { .. } = self.user {
            self.overlap_counts();
            self.interrupt();
        }
    }

    /// Speech into a reply is an utterance from here on.
    pub(super) fn overlap_counts(&mut self) {
        if let User::Overlapping { from, onset } = self.user {
            self.user = User::Speaking { from };
            self.client(ServerEvent::SpeechStarted { at: InputSamples(onset) });
        }
    }

    /// The reply is over; speech into it is an utterance if it is enough for a start, which a hold is not.
    pub(super) fn overlap_outlives(&mut self) {
        if self.ear.heard(self.rules.start_confirm, BARGE_IN_SPAN) {
            self.overlap_counts();
        } else if let User::Overlapping { .. } = self.user {
            self.user = User::Silent;
            self.engine(Request::Ignore { session: self.id });
        }
    }

    /// Speech into the reply was nothing: the reply goes on.
    fn ignore_overlap(&mut self) {
        self.user = User::Silent;
        self.ear.clear();
        self.engine(Request::Ignore { session: self.id });
        if let Some(reply) = &mut self.reply {
            reply.playout.release(self.now);
        }
    }

    /// The silence that the user's state waits for, if it waits for one.
    pub(super) fn silence_wanted(&self) -> Option<Duration> {
        match self.user {
            User::Overlapping { .. } => Some(self.rules.timing.resume_after),
            User::Speaking { .. } => Some(self.rules.propose_after),
            User::Pausing { verdict, .. } => Some(match verdict {
                Verdict::Unasked => self.rules.judge_after.unwrap_or(self.rules.hangover),
                Verdict::Finished | Verdict::Unfinished => self.rules.hangover,
                Verdict::Asked { .. } | Verdict::Awaited => self.rules.hangover_unfinished,
            }),
            User::Silent | User::Marked { .. } | User::Waiting { .. } => None,
        }
    }

    /// Acts on silence that has lasted long enough, at most once for each step of speaking and pausing.
    pub(super) fn silence(&mut self) {
        while let Some(wanted) = self.silence_wanted() {
            // Loud windows that are not followed by packets do not end a pause.
            if self.silent_for() < wanted {
                return;
            }
            match self.user {
                User::Overlapping { .. } => self.ignore_overlap(),
                User::Speaking { from } => {
                    let until = self.utterance_end();
                    let proposal = self.reply.is_none().then(|| self.propose(from, until));
                    // What was heard before packets stopped coming does not end the pause when they come again.
                    self.ear.clear();
                    let verdict = self.rules.judge_after.map_or(Verdict::Finished, |_| Verdict::Unasked);
                    self.user = User::Pausing { from, until, proposal, verdict };
                }
                User::Pausing { from, until, proposal, verdict: Verdict::Unasked } => {
                    let verdict = self.judge(from);
                    self.user = User::Pausing { from, until, proposal, verdict };
                }
                User::Pausing { from, until, proposal, verdict: Verdict::Unfinished } => {
                    self.user = User::Pausing { from, until, proposal, verdict: Verdict::Awaited };
                    self.client(ServerEvent::WaitingForInput);
                }
                User::Pausing { from, until, proposal, .. } => self.end_utterance(from, until, proposal),
                User::Silent | User::Marked { .. } | User::Waiting { .. } => return,
            }
        }
    }

    /// Asks whether the utterance is finished, always with the same silence behind it.
    fn judge(&mut self, from: u64) -> Verdict {
        let silence = ear::samples(self.rules.judge_after.unwrap_or_default());
        let until = self.ear.speech_end().max(from) + silence;
        self.outputs.push_back(Output::Judge { from: InputSamples(from), until: InputSamples(until) });
        Verdict::Asked { until }
    }

    /// The answer to [`Session::judge`].
    pub(super) fn completion(&mut self, until: u64, probability: Option<f32>) {
        if let User::Pausing { verdict: verdict @ Verdict::Asked { .. }, .. } = &mut self.user
            && *verdict == (Verdict::Asked { until })
        {
            // Where nothing can be told, silence decides. What is not a number compares false: unfinished.
            let finished = probability.is_none_or(|probability| probability > FINISHED);
            *verdict = if finished { Verdict::Finished } else { Verdict::Unfinished };
        }
    }

    /// Where an utterance ends that ends now: where the detector is, or with the last sample when no more come. Audio
    /// that came in one piece with it may be ahead of the detector.
    pub(super) fn utterance_end(&self) -> u64 {
        if self.now.since(self.last_packet) < self.mute_after() { self.ear.position() } else { self.received }
    }

    fn propose(&mut self, from: u64, until: u64) -> TurnId {
        let turn = self.new_turn();
        let (from, until) = (InputSamples(from), InputSamples(until));
        self.engine(Request::Propose { session: self.id, turn, from, until });
        turn
    }

    fn discard(&mut self, proposal: Option<TurnId>) {
        if let Some(turn) = proposal {
            self.engine(Request::Discard { session: self.id, turn });
        }
    }

    /// Forgets an answer begun on trial, as what it answers has changed.
    pub(super) fn drop_proposal(&mut self) {
        if let User::Pausing { proposal, .. } = &mut self.user
            && let Some(turn) = proposal.take()
        {
            self.discard(Some(turn));
        }
    }

    /// The engine has given up the proposal; the utterance is answered when it is over.
    pub(super) fn proposal_failed(&mut self, turn: TurnId) -> bool {
        let failed = matches!(self.user, User::Pausing { proposal: Some(proposal), .. } if proposal == turn);
        if failed {
            self.drop_proposal();
        }
        failed
    }

    /// The utterance is over and is answered, or waits for a reply that may not be interrupted.
    fn end_utterance(&mut self, from: u64, until: u64, proposal: Option<TurnId>) {
        let marked = matches!(self.user, User::Marked { .. });
        let at = if marked { until } else { self.ear.speech_end().max(from) };
        self.client(ServerEvent::SpeechStopped { at: InputSamples(at) });
        self.ear.clear();
        self.user = User::Silent;
        let proposal = match proposal {
            proposal if !self.tools.open_in(RESTORED) => proposal,
            proposal => {
                self.discard(proposal);
                self.forget_restored();
                None
            }
        };
        if self.reply.is_some() {
            self.discard(proposal);
            if !self.rules.interruption {
                self.user = User::Waiting { from, until };
                return;
            }
            self.interrupt();
            self.answer(from, until, None, !marked);
        } else {
            self.answer(from, until, proposal, !marked);
        }
    }

    /// Starts the reply to an utterance.
    pub(super) fn answer(&mut self, from: u64, until: u64, proposal: Option<TurnId>, detected: bool) {
        self.last_utterance = until;
        let turn = match proposal {
            Some(turn) => {
                self.engine(Request::Commit { session: self.id, turn });
                turn
            }
            None => {
                let turn = self.new_turn();
                let cause = Cause::Utterance { from: InputSamples(from), until: InputSamples(until) };
                self.engine(Request::Start { session: self.id, turn, cause });
                turn
            }
        };
        // What the client marked is over when the client says so.
        let utterance = detected.then_some(Utterance { from, ended: self.utterance_end() });
        let origin = if detected { self.last_speech } else { self.now };
        self.begin_reply(turn, utterance, origin, Some(self.now));
        if let Some(reply) = &mut self.reply {
            reply.origin = Some(Origin::Utterance(InputSamples(from)));
        }
    }

    pub(super) fn audio_stream_end(&mut self) {
        if !self.rules.detect {
            let message = "the stream's end means nothing while automatic activity detection is disabled";
            return self.warn(ProblemCode::FailedPrecondition, "realtime_input.audio_stream_end", message);
        }
        self.stop_speaking();
    }

    /// No more speech comes for now: whatever the user was doing is over.
    pub(super) fn stop_speaking(&mut self) {
        match self.user {
            User::Overlapping { .. } => self.ignore_overlap(),
            User::Speaking { from } | User::Marked { from } => self.end_utterance(from, self.received, None),
            User::Pausing { from, until, proposal, .. } => self.end_utterance(from, until, proposal),
            User::Silent | User::Waiting { .. } => self.ear.clear(),
        }
    }

    pub(super) fn activity_start(&mut self) {
        if self.rules.detect {
            let message = "activity marks need automatic activity detection to be disabled";
            return self.warn(ProblemCode::FailedPrecondition, "realtime_input.activity_start", message);
        }
        let from = match self.user {
            User::Marked { .. } => {
                let message = "the activity has started already";
                return self.warn(ProblemCode::FailedPrecondition, "realtime_input.activity_start", message);
            }
            User::Waiting { from, .. } => from,
            _ => self.received,
        };
        if self.reply.is_some() && self.rules.interruption {
            self.interrupt();
        }
        self.transcript = InputTranscript::default();
        self.user = User::Marked { from };
        self.engine(Request::Listen { session: self.id, from: InputSamples(from) });
        self.client(ServerEvent::SpeechStarted { at: InputSamples(self.received) });
    }

    pub(super) fn activity_end(&mut self) {
        if let User::Marked { from } = self.user {
            return self.end_utterance(from, self.received, None);
        }
        let message = match self.rules.detect {
            true => "activity marks need automatic activity detection to be disabled",
            false => "no activity has started",
        };
        self.warn(ProblemCode::FailedPrecondition, "realtime_input.activity_end", message);
    }

    pub(super) fn half_close(&mut self) {
        self.phase = Phase::Finishing;
        self.stop_speaking();
    }

    /// Whether the reply's speech must wait: somebody speaks into it, or may be about to go on with what it answers.
    pub(super) fn held(&self, reply: &Reply) -> bool {
        matches!(self.user, User::Overlapping { .. })
            || (!reply.shown
                && self.user == User::Silent
                && self.phase == Phase::Live
                && self.ear.candidate()
                && self.can_take_back(reply, self.ear.position().saturating_sub(ear::samples(HOLD)))
                && self.hold_ends().is_some_and(|ends| self.now < ends))
    }

    /// When a beginning that no packets follow stops holding back a reply.
    pub(super) fn hold_ends(&self) -> Option<MediaTime> {
        (self.user == User::Silent).then(|| self.last_packet + self.mute_after())
    }
}
