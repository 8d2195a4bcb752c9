//! The reply: what the engine says of it, its speech on the way out, and its ends.

use causerie_model_api::{Cause, Event, FinishReason, InputSamples, Item, OutputSamples, Request, Role, TurnId, Usage};
use causerie_units::MediaTime;

use super::{Ending, Phase, Session, TRUNCATE_WAIT, User};
use crate::playout::Broken;
use crate::reply::{Marks, Reply, Utterance, add};
use crate::transcript::{Meaning, meaning, whole_words};
use crate::{Grounding, Problem, ProblemCode, ServerEvent, TurnEnd};

impl Session {
    pub(super) fn new_turn(&mut self) -> TurnId {
        let turn = TurnId(self.next_turn);
        self.next_turn += 1;
        turn
    }

    /// A committed turn begins.
    pub(super) fn begin_reply(
        &mut self,
        turn: TurnId,
        utterance: Option<Utterance>,
        origin: MediaTime,
        endpoint: Option<MediaTime>,
    ) {
        // The history that it answers has everything that waited to be answered.
        self.owed = false;
        let marks = Marks::new(origin, endpoint);
        let mut reply = Box::new(Reply::new(turn, utterance, marks, &self.rules.timing, self.now));
        if utterance.is_some() || endpoint.is_some() {
            reply.transcript = std::mem::take(&mut self.transcript);
        }
        self.reply = Some(reply);
    }

    /// A reply to the history as it is.
    pub(super) fn start_from_history(&mut self) {
        let turn = self.new_turn();
        self.engine(Request::Start { session: self.id, turn, cause: Cause::History });
        self.begin_reply(turn, None, self.now, None);
    }

    /// The reply, if the turn is the one that is running and more may come of it.
    pub(super) fn running(&mut self, turn: TurnId) -> Option<&mut Reply> {
        self.reply.as_ref().filter(|reply| reply.turn == turn && !reply.complete)?;
        // The turn before ends before anything of this one is told.
        if self.ending.is_some() {
            self.truncated(None);
        }
        let reply = self.reply.as_deref_mut()?;
        reply.alive = self.now;
        Some(reply)
    }

    pub(super) fn engine_event(&mut self, event: Event) {
        match event {
            Event::Opened => {}
            Event::Prompt { turn, tokens, limit } => self.prompt_made(turn, tokens, limit),
            Event::Partial { stable, unstable, until } => self.partial(&stable, &unstable, until),
            Event::Heard { turn, text, .. } => self.heard(turn, &text),
            Event::Text { turn, delta } => self.text(turn, delta),
            Event::Thought { turn, delta } => {
                let include = self.rules.include_thoughts && !delta.is_empty();
                if let Some(reply) = self.running(turn)
                    && include
                {
                    reply.shown = true;
                    self.client(ServerEvent::Thought { delta });
                }
            }
            Event::Audio { turn, start, pcm, text_until } => self.audio(turn, start, &pcm, text_until),
            Event::ToolCall { turn, call } => self.tool_call(turn, call),
            Event::Truncated { turn, text_until, usage } => {
                if self.ending.as_ref().is_some_and(|ending| ending.turn == turn) {
                    self.truncated(Some((text_until, usage)));
                }
            }
            Event::Done { turn, reason, usage } => {
                // A client may answer a call before the words before it have been spoken.
                let goes_on = reason == FinishReason::ToolCalls && !self.tools.open_in(turn);
                if let Some(reply) = self.running(turn) {
                    reply.done = Some(reason).filter(|_| !goes_on);
                    add(&mut reply.usage, &usage);
                }
            }
            Event::Failed { turn: Some(turn), .. } => {
                if !self.proposal_failed(turn) && self.running(turn).is_some() {
                    self.fail_reply(ProblemCode::Internal, "the engine could not answer");
                }
            }
            Event::Failed { turn: None, resumable: true, .. } => {
                let problem = Problem::new(ProblemCode::Unavailable, "", "the engine cannot go on");
                self.park(Problem { retryable: true, ..problem });
            }
            // What the engine will never take is the client's to change: its message has the numbers.
            Event::Failed { turn: None, resumable: false, error } => {
                self.close(Err(Problem::new(ProblemCode::InvalidArgument, "setup", error)));
            }
        }
    }

    fn partial(&mut self, stable: &str, unstable: &str, until: InputSamples) {
        match self.user {
            User::Overlapping { from, .. } if until.0 > from => {
                self.overlap_text = format!("{stable}{unstable}");
                if meaning(&self.overlap_text) != Meaning::Meant {
                    return;
                }
                self.barge_in();
            }
            User::Speaking { from } | User::Marked { from } | User::Pausing { from, .. } if until.0 > from => {}
            // About an utterance that is over or was none.
            _ => return,
        }
        if self.rules.interim_transcription {
            self.client(ServerEvent::InterimTranscription { text: format!("{stable}{unstable}") });
        }
        let text = self.transcript.grow(stable);
        if self.rules.input_transcription && !text.is_empty() {
            self.client(ServerEvent::InputTranscription { text, finished: false });
        }
    }

    fn heard(&mut self, turn: TurnId, text: &str) {
        let now = self.now;
        let last = self.running(turn).is_some();
        let (place, rest, origin) = if last {
            let place = self.history.reserve();
            let Some(reply) = self.reply.as_deref_mut().filter(|reply| reply.heard.is_none()) else { return };
            reply.marks.transcript_final = Some(now);
            reply.heard = Some(place);
            (place, reply.transcript.finish(text), reply.origin)
        } else {
            // The turn was interrupted before its utterance was transcribed to the end.
            let ending = self.ending.as_deref_mut().filter(|ending| ending.turn == turn && !ending.user_known);
            let Some(ending) = ending else { return };
            ending.user_known = true;
            (ending.user_place, ending.transcript.finish(text), ending.origin)
        };
        if !text.trim().is_empty() {
            self.history.put(place, Item::text(Role::User, text.trim()), origin);
        }
        if let Some(text) = rest.filter(|_| self.rules.input_transcription) {
            self.client(ServerEvent::InputTranscription { text, finished: true });
        }
        if last {
            self.left(!text.trim().is_empty());
        }
    }

    fn text(&mut self, turn: TurnId, delta: String) {
        let (now, as_text) = (self.now, self.rules.text);
        let Some(reply) = self.running(turn) else { return };
        if delta.is_empty() {
            return;
        }
        reply.marks.first_token.get_or_insert(now);
        reply.text.push_str(&delta);
        if as_text {
            reply.shown = true;
            self.client(ServerEvent::Text { delta });
        }
    }

    fn audio(&mut self, turn: TurnId, start: OutputSamples, pcm: &[f32], text_until: usize) {
        let (now, as_text) = (self.now, self.rules.text);
        let Some(reply) = self.running(turn) else { return };
        if as_text || pcm.is_empty() {
            return;
        }
        reply.marks.first_audio_generated.get_or_insert(now);
        let message = match reply.playout.push(start.0, pcm, text_until) {
            Ok(()) => return,
            Err(Broken::Gap) => "the engine's speech has a gap",
            Err(Broken::Overrun) => "the engine spoke further ahead than it may",
        };
        self.fail_reply(ProblemCode::Internal, message);
    }

    /// The client says what was heard.
    pub(super) fn played(&mut self, until: u64) {
        let now = self.now;
        if let Some(reply) = &mut self.reply {
            reply.playout.report(until, now);
        }
    }

    /// Sends the speech that is due and renews the engine's credit.
    pub(super) fn play(&mut self) {
        let Some(mut reply) = self.reply.take() else { return };
        // A microphone that is turned off says nothing of what it last heard.
        if self.now.since(self.last_packet) >= self.mute_after() {
            reply.playout.cautious(false);
        }
        if !self.held(&reply) {
            let turn = reply.turn;
            while let Some((start, pcm)) = reply.playout.pull(self.now) {
                reply.shown = true;
                reply.marks.first_audio_sent.get_or_insert(self.now);
                self.client(ServerEvent::Audio { turn, start: OutputSamples(start), pcm });
                if self.rules.output_transcription
                    && let Some(text) = reply.transcribe()
                {
                    self.client(ServerEvent::OutputTranscription { text });
                }
            }
        }
        reply.playout.prune(self.now);
        if !reply.complete
            && let Some(until) = reply.playout.grant(self.now)
        {
            let audio_until = OutputSamples(until);
            self.engine(Request::Credit { session: self.id, turn: reply.turn, audio_until });
        }
        self.reply = Some(reply);
    }

    /// When a reply of which nothing comes has failed, for want of an engine or of a listener. One whose speech is not
    /// over, or that waits for a tool, has not.
    pub(super) fn reply_fails(&self, reply: &Reply) -> Option<MediaTime> {
        let waits = reply.playout.drained() && reply.done.is_none();
        waits.then(|| reply.alive + self.rules.timing.reply_timeout)
    }

    /// Ends what is over: the reply, and after it the conversation.
    pub(super) fn conclude(&mut self) {
        if let Some(reply) = self.reply.as_deref() {
            // Nobody is left who could answer the calls of a client that is done.
            if reply.drained()
                && (!reply.waits_for_tools() || (self.phase == Phase::Finishing && !self.tools.server_runs(reply.turn)))
            {
                self.generation_complete();
                self.finish_when_heard();
            } else if reply.drained() && !reply.waiting && self.tools.client_runs(reply.turn) {
                self.waiting_for_tools();
            } else if self.reply_fails(reply).is_some_and(|at| at <= self.now) {
                let message = match reply.playout.spent() {
                    true => "the listener has heard nothing more, as playback_progress says, and is not waited for",
                    false => "the engine did not answer in time",
                };
                self.fail_reply(ProblemCode::DeadlineExceeded, message);
            }
        }
        self.part();
        let idle = self.reply.is_none() && self.ending.is_none() && self.user == User::Silent && !self.owed;
        if self.phase == Phase::Finishing && idle {
            // Whoever comes back goes on from here, even from a stream that ended in order.
            if self.snapshot_due() < MediaTime::MAX {
                self.make_snapshot();
            }
            self.close(Ok(()));
        }
    }

    /// Everything up to the calls was sent, and the client's answers are all that is missing.
    fn waiting_for_tools(&mut self) {
        let Some(reply) = self.reply.as_deref_mut() else { return };
        reply.waiting = true;
        if self.rules.output_transcription
            && !self.rules.text
            && let Some(text) = reply.transcribe_all()
        {
            self.client(ServerEvent::OutputTranscription { text });
        }
        self.client(ServerEvent::WaitingForTools);
    }

    /// Everything of the reply was sent: the last of its transcript and the word that there is no more follow at once.
    fn generation_complete(&mut self) {
        let Some(mut reply) = self.reply.take_if(|reply| !reply.complete) else { return };
        reply.complete = true;
        if reply.done == Some(FinishReason::ToolCalls) {
            self.cancel(&reply);
        }
        if self.rules.output_transcription
            && !self.rules.text
            && let Some(text) = reply.transcribe_all()
        {
            self.client(ServerEvent::OutputTranscription { text });
        }
        if reply.grounding != Grounding::default() {
            self.client(ServerEvent::Grounding(std::mem::take(&mut reply.grounding)));
        }
        if !reply.done.is_some_and(FinishReason::is_silent) {
            self.client(ServerEvent::GenerationComplete);
        }
        self.reply = Some(reply);
    }

    /// Everything of the reply was sent; the turn is over when it was heard.
    fn finish_when_heard(&mut self) {
        if self.reply.as_ref().and_then(|reply| reply.playout.ends()).is_none_or(|ends| ends <= self.now) {
            self.finish_reply();
        }
    }

    fn finish_reply(&mut self) {
        let Some(mut reply) = self.reply.take() else { return };
        let reason = reply.done.unwrap_or(FinishReason::Stop);
        self.turn_complete(TurnEnd::Finished(reason), reply.usage, &reply.marks, reply.playout.ran_dry());
        if let Some(origin) = reply.origin.filter(|_| reply.heard.is_none() && !reason.is_silent()) {
            // The engine heard it and has no words for it.
            let place = self.history.reserve();
            self.history.put(place, Item { role: Role::User, content: Vec::new() }, Some(origin));
        }
        if !reply.text.is_empty() {
            self.history.push(Item::text(Role::Model, std::mem::take(&mut reply.text)));
        }
        self.compress(reply.usage.response_text);
        self.after_reply();
    }

    /// What waited for the reply to be over.
    pub(super) fn after_reply(&mut self) {
        self.release_deferred();
        self.overlap_outlives();
        if let User::Waiting { from, until } = self.user {
            self.user = User::Silent;
            self.answer(from, until, None, self.rules.detect);
        } else if self.owed {
            self.drop_proposal();
            self.start_from_history();
        }
    }

    /// Stops the reply because of the user. Its end is told when the engine has said what it cost.
    pub(super) fn interrupt(&mut self) {
        let Some(reply) = self.reply.take() else { return };
        if self.ending.is_some() {
            self.truncated(None);
        }
        self.cancel_tools(reply.turn);
        // A turn of which everything was made and sent is not called interrupted any more; what was not heard of the
        // little that the client still has is forgotten all the same.
        let reason = match reply.done.filter(|_| reply.complete) {
            Some(reason) => TurnEnd::Finished(reason),
            None => {
                self.client(ServerEvent::Interrupted);
                TurnEnd::Interrupted
            }
        };
        let text_until = self.cancel(&reply);
        let user_place = reply.heard.unwrap_or_else(|| self.history.reserve());
        self.ending = Some(Box::new(Ending {
            turn: reply.turn,
            reason,
            deadline: self.now + TRUNCATE_WAIT,
            place: self.history.reserve(),
            text_until,
            text: reply.text,
            transcript: reply.transcript,
            marks: reply.marks,
            ran_dry: reply.playout.ran_dry(),
            user_place,
            user_known: reply.heard.is_some(),
            origin: reply.origin,
        }));
        self.release_deferred();
    }

    /// Tells the engine to stop; how much of the text was heard by our own count.
    fn cancel(&mut self, reply: &Reply) -> usize {
        let (heard, until) = if self.rules.text {
            // Text is read as it comes; speech is heard as it is played.
            (if reply.shown { u64::MAX } else { 0 }, reply.text.len())
        } else {
            let heard = reply.playout.heard(self.now);
            (heard, whole_words(&reply.text, reply.playout.text_at(heard)))
        };
        self.engine(Request::Cancel { session: self.id, turn: reply.turn, heard_until: OutputSamples(heard) });
        until
    }

    /// The interrupted turn is over, with what the engine says of it or without.
    pub(super) fn truncated(&mut self, report: Option<(usize, Usage)>) {
        let Some(ending) = self.ending.take() else { return };
        let Ending { reason, place, text, text_until, marks, ran_dry, .. } = *ending;
        let (until, usage) = match report {
            // In a text conversation everything that was sent was read, whatever the engine counts.
            Some((_, usage)) if self.rules.text => (text_until, usage),
            Some((until, usage)) => (text.floor_char_boundary(until), usage),
            None => (text_until, Usage::default()),
        };
        let heard = text[..until].trim_end();
        if !heard.is_empty() {
            self.history.put(place, Item::text(Role::Model, heard), None);
        }
        self.turn_complete(reason, usage, &marks, ran_dry);
        self.compress(usage.response_text);
    }

    /// The reply cannot go on; the conversation can.
    fn fail_reply(&mut self, code: ProblemCode, message: &str) {
        let Some(reply) = self.reply.take() else { return };
        self.cancel_tools(reply.turn);
        let until = self.cancel(&reply);
        let said = reply.text[..until].trim_end();
        if !said.is_empty() {
            self.history.push(Item::text(Role::Model, said));
        }
        self.client(ServerEvent::Warning(Problem { retryable: true, ..Problem::new(code, "", message) }));
        self.turn_complete(TurnEnd::Failed, reply.usage, &reply.marks, reply.playout.ran_dry());
        self.after_reply();
    }

    fn turn_complete(&mut self, reason: TurnEnd, usage: Usage, marks: &Marks, ran_dry: u32) {
        self.client(ServerEvent::TurnComplete { reason, usage, waterfall: marks.waterfall(), ran_dry });
    }
}
