//! The conversation as a whole: its state, its inputs, its timers.
//!
//! Two things go on at once, the user's speech ([`User`], moved by `speech.rs`) and at most one reply (`turns.rs`);
//! what a client writes or answers is in `requests.rs`. Every input first lets the timers catch up, then is taken, then
//! lets them settle, so a driver that is late sees the same effects in the same order.
//!
//! # Taking a turn back
//! People pause. An utterance that was taken to be over and goes on within [`crate::Timing::take_back`] (in input
//! time) was not over, as long as nothing of its reply has reached the client: the turn is cancelled with nothing heard,
//! its user entry leaves the history, and the utterance goes on from its first sample. The engine sees `Cancel` with
//! `heard_until` 0 and then a `Listen` from before the end of the utterance that it answered, which is the sign that
//! this utterance replaces that one. The client sees `SpeechStarted` once more, and later a transcript that continues
//! the first; a turn that was taken back never ends, as it never was. The first speech of a reply is held back while
//! somebody may be beginning to speak, so the race between a reply and a late word goes to the speaker.
//!
//! # The end of an utterance
//! In a pause the session asks once whether the sentence sounds finished ([`Verdict`]). If so, it ends after
//! [`crate::Timing::hangover`] of silence, else after [`crate::Timing::hangover_unfinished`], and so it does while the
//! answer is out: an answer that comes late is acted on when it comes. An answer that cannot be given leaves the
//! decision to the silence of `hangover`. A client that names the silence itself gets that, without any question.
//!
//! # Speech into a reply
//! Speech that begins while a reply is being played holds it ([`User::Overlapping`]). It is an interruption when the
//! words say so or when there is enough of it; when it falls silent before, the reply goes on from its unsent speech
//! and the engine forgets what it heard.

mod requests;
mod snapshots;
mod speech;
mod turns;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use causerie_model_api::{Capabilities, Item, Origin, Request, SessionId, ToolBehavior, ToolDeclaration, TurnId};
use causerie_units::MediaTime;

use self::snapshots::Snapshots;
use crate::ear::{self, Ear};
use crate::history::{History, Place, max_content_bytes};
use crate::reply::{Marks, Reply};
use crate::setup::{Accepted, Rules, accept, all_tools};
use crate::tools::Tools;
use crate::transcript::InputTranscript;
use crate::{Input, Output, Problem, ProblemCode, ServerEvent, Settings, Setup, TurnEnd, Update};

/// How long the end of an interrupted turn waits for the engine to say what it cost.
const TRUNCATE_WAIT: Duration = Duration::from_millis(500);

/// Missing packets are noticed after twice the usual packet, but within this.
const MAX_MUTE_AFTER: Duration = Duration::from_secs(2);

/// Rounds in which one effect may bring about another; what is left after them is done at the next tick.
const MAX_CONSEQUENCES: usize = 8;

/// One conversation.
///
/// After every [`Session::handle_input`], call [`Session::poll_output`] until it returns [`Output::Wait`] or
/// [`Output::Close`].
pub struct Session {
    id: SessionId,
    rules: Rules,
    now: MediaTime,
    outputs: VecDeque<Output>,
    phase: Phase,
    user: User,
    reply: Option<Box<Reply>>,
    /// An interrupted turn whose cost is not known yet.
    ending: Option<Box<Ending>>,
    /// A reply to the history as it is, due when the running one is over.
    owed: bool,
    /// Entries that wait for the running reply, behind which they belong.
    deferred: Vec<Item>,
    ear: Ear,
    transcript: InputTranscript,
    /// What was last understood of speech into a reply.
    overlap_text: String,
    /// Input audio so far, in samples.
    received: u64,
    last_packet: MediaTime,
    /// Usual length of a packet; falls slowly.
    packet: Duration,
    /// When the last speech of the user arrived.
    last_speech: MediaTime,
    /// End of the last utterance in the input.
    last_utterance: u64,
    next_turn: u64,
    history: History,
    /// Tokens of the last prompt, with what was replied to it.
    prompt_tokens: u32,
    /// What instruction and functions weigh beside the history.
    fixed_weight: usize,
    snapshots: Snapshots,
    /// Why the conversation is to be parked when its reply is over.
    parting: Option<Problem>,
    /// When something happened last.
    active: MediaTime,
    tools: Tools,
    told: Told,
}

/// What the model is told about its task.
struct Told {
    /// Instruction and functions of the client.
    update: Update,
    /// They are not those of the setup any more.
    updated: bool,
    /// Functions that the server runs.
    server_tools: Vec<ToolDeclaration>,
}

impl Told {
    /// How a function behaves, and whether the server runs it.
    fn find(&self, name: &str) -> (ToolBehavior, bool) {
        let of = |tools: &[ToolDeclaration]| tools.iter().find(|tool| tool.name == name).map(|tool| tool.behavior);
        match (of(&self.update.tools), of(&self.server_tools)) {
            (Some(behavior), _) => (behavior, false),
            (None, Some(behavior)) => (behavior, true),
            (None, None) => (ToolBehavior::Blocking, false),
        }
    }

    /// In the unit of [`History::weight`].
    fn weight(&self) -> usize {
        let tools = all_tools(&self.update.tools, &self.server_tools);
        let declared = |tool: &ToolDeclaration| tool.name.len() + tool.description.len() + tool.parameters.len();
        self.update.system_instruction.len() + tools.iter().map(declared).sum::<usize>()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Live,
    /// The client sends nothing more; what is owed is still delivered.
    Finishing,
    /// The stream is over; what its user has just said is still being understood.
    Leaving(Leaving),
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leaving {
    /// No longer than this.
    until: MediaTime,
    /// What was said is to be answered where the conversation goes on.
    answered: bool,
    /// So is what was written before.
    owed: bool,
}

/// What the user is doing. Positions are input samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Silent,
    /// Speaks into a reply; whether it is meant is open.
    Overlapping {
        from: u64,
        onset: u64,
    },
    Speaking {
        from: u64,
    },
    /// Speaks between marks of the client.
    Marked {
        from: u64,
    },
    /// Has paused; the answer may have been begun on trial.
    Pausing {
        from: u64,
        until: u64,
        proposal: Option<TurnId>,
        verdict: Verdict,
    },
    /// Has spoken into a reply that may not be interrupted; answered after it.
    Waiting {
        from: u64,
        until: u64,
    },
}

/// Whether a pause is the end, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// To be asked when the silence is long enough.
    Unasked,
    /// Asked about the input up to there. Until the answer comes the sentence may go on.
    Asked {
        until: u64,
    },
    /// The sentence is finished, or silence alone decides.
    Finished,
    Unfinished,
    /// Unfinished, and the client has been told that more is expected.
    Awaited,
}

struct Ending {
    turn: TurnId,
    reason: TurnEnd,
    deadline: MediaTime,
    place: Place,
    text: String,
    /// Our own count of the text that was heard, should the engine not answer.
    text_until: usize,
    marks: Marks,
    ran_dry: u32,
    transcript: InputTranscript,
    user_place: Place,
    user_known: bool,
    origin: Option<Origin>,
}

impl Session {
    /// Validates `setup` and begins the conversation: the first output is the engine's `Open`, the second
    /// [`ServerEvent::SetupComplete`].
    ///
    /// # Errors
    /// The setup cannot be served; the problem names the field.
    pub fn open(
        setup: Setup,
        capabilities: &Capabilities,
        settings: Settings,
        now: MediaTime,
    ) -> Result<Self, Problem> {
        let accepted = accept(setup, capabilities, &settings)?;
        let Accepted { rules, config, opened, update, updated, server_tools, history: before, calls, owed, turns } =
            accepted;
        let mut history = History::new(max_content_bytes(capabilities.context_tokens));
        for item in &before {
            history.give(item.clone());
        }
        let told = Told { update, updated, server_tools };
        let fixed_weight = told.weight();
        let open = Request::Open { session: settings.id, config: Box::new(config), history: before };
        let mut session = Self {
            id: settings.id,
            now,
            outputs: VecDeque::from([Output::Engine(open), Output::Client(ServerEvent::SetupComplete(opened))]),
            phase: Phase::Live,
            user: User::Silent,
            reply: None,
            ending: None,
            owed: false,
            deferred: Vec::new(),
            ear: Ear::new(rules.threshold),
            transcript: InputTranscript::default(),
            overlap_text: String::new(),
            received: 0,
            last_packet: now,
            packet: Duration::ZERO,
            last_speech: now,
            last_utterance: 0,
            next_turn: turns + 1,
            history,
            prompt_tokens: 0,
            fixed_weight,
            snapshots: Snapshots::default(),
            parting: None,
            active: now,
            tools: Tools::default(),
            told,
            rules,
        };
        session.restore(calls, owed);
        session.snapshot();
        Ok(session)
    }

    /// Takes one input at time `now`, which never goes back (an earlier one counts as the latest).
    pub fn handle_input(&mut self, now: MediaTime, input: Input) {
        self.now = self.now.max(now);
        let happens = input.is_sign_of_life();
        self.advance();
        if self.phase == Phase::Closed {
            return;
        }
        match (self.phase, input) {
            (_, Input::Tick) => {}
            (_, Input::Engine(event)) => self.engine_event(event),
            (_, Input::ToolDone { id, value, grounding }) => self.tool_done(&id, value, grounding),
            (_, Input::Played { until }) => self.played(until.0),
            (_, Input::Leave(problem)) => self.leave(problem),
            (_, Input::Park(problem)) => self.park(problem),
            (_, Input::Drain(problem)) => self.drain(problem),
            (Phase::Live, Input::Received { until }) => self.audio_received(until.0),
            (Phase::Live, Input::Voice { probability, from, to }) => self.voice(probability, from.0, to.0),
            (Phase::Live, Input::Completion { until, probability }) => self.completion(until.0, probability),
            (Phase::Live, Input::AudioStreamEnd) => self.audio_stream_end(),
            (Phase::Live, Input::ActivityStart) => self.activity_start(),
            (Phase::Live, Input::ActivityEnd) => self.activity_end(),
            (Phase::Live, Input::RealtimeText(text)) => self.realtime_text(text),
            (Phase::Live, Input::ClientContent { items, turn_complete }) => self.client_content(items, turn_complete),
            (Phase::Live, Input::Update { system_instruction, tools }) => self.update(system_instruction, tools),
            (Phase::Live, Input::ToolResponse(responses)) => self.tool_responses(responses),
            (Phase::Live, Input::CancelReply) => self.cancel_reply(),
            (Phase::Live, Input::HalfClose) => self.half_close(),
            // The client said that nothing would come.
            (Phase::Finishing | Phase::Leaving(_) | Phase::Closed, _) => {}
        }
        self.bound_history();
        self.advance();
        if happens || !self.is_idle() {
            self.active = self.now;
        }
        self.snapshot();
    }

    /// The next effect; [`Output::Wait`] when there is none now.
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| Output::Wait(self.deadline().min(self.snapshot_due())))
    }

    /// What has been said, oldest first, as the listener heard it.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Item> {
        self.history.iter()
    }

    /// Whether nothing is on its way and nothing is waited for.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Live
            && self.user == User::Silent
            && self.reply.is_none()
            && self.ending.is_none()
            && !self.owed
    }

    /// When a conversation in which nothing happens is given up.
    fn idle_ends(&self) -> Option<MediaTime> {
        self.rules.idle_timeout.filter(|_| self.is_idle()).map(|idle| self.active + idle)
    }

    /// Nothing happens any more.
    fn give_up(&mut self) {
        let seconds = self.rules.idle_timeout.unwrap_or_default().as_secs_f64();
        let message = format!("nothing was said or sent for {seconds} s");
        self.park(Problem::new(ProblemCode::DeadlineExceeded, "idle_timeout", message));
    }

    /// The timers: what they wait for, and until when. [`Session::advance`] does what is due.
    fn deadline(&self) -> MediaTime {
        if self.phase == Phase::Closed {
            return MediaTime::MAX;
        }
        let reply = self.reply.as_deref();
        let timers = [
            reply.and_then(|reply| if self.held(reply) { self.hold_ends() } else { reply.playout.due() }),
            reply.and_then(|reply| self.reply_fails(reply)),
            reply.filter(|reply| !reply.complete).and_then(|reply| reply.playout.grant_due()),
            reply.filter(|reply| reply.complete).and_then(|reply| reply.playout.ends()),
            self.ending.as_ref().map(|ending| ending.deadline),
            self.tools.deadline(),
            self.silence_wanted().map(|silence| self.silent_at(silence)),
            self.idle_ends(),
            self.leaves(),
        ];
        timers.into_iter().flatten().min().unwrap_or(MediaTime::MAX)
    }

    /// Does everything that is due.
    fn advance(&mut self) {
        if self.phase == Phase::Closed {
            return;
        }
        if let Some(ending) = &self.ending
            && ending.deadline <= self.now
        {
            self.truncated(None);
        }
        self.late_tools();
        if self.leaves().is_some_and(|ends| ends <= self.now) {
            return self.left(false);
        }
        if self.idle_ends().is_some_and(|ends| ends <= self.now) {
            return self.give_up();
        }
        // The end of a reply can make room for what has waited, which may be due as well.
        for _ in 0..MAX_CONSEQUENCES {
            self.silence();
            self.play();
            self.conclude();
            if self.deadline() > self.now {
                return;
            }
        }
    }

    /// When missing packets will have made the silence this long. The packets that came are counted by what they
    /// contain, those that did not by their absence.
    fn silent_at(&self, silence: Duration) -> MediaTime {
        match silence.checked_sub(ear::duration(self.ear.quiet())) {
            None | Some(Duration::ZERO) => self.now,
            Some(missing) => self.last_packet + self.mute_after() + missing,
        }
    }

    /// How long the user has been silent: in the audio that came, and by the audio that did not.
    fn silent_for(&self) -> Duration {
        let missing = self.now.since(self.last_packet).saturating_sub(self.mute_after());
        ear::duration(self.ear.quiet()) + missing
    }

    fn mute_after(&self) -> Duration {
        self.rules.timing.mute_after.max((self.packet * 2).min(MAX_MUTE_AFTER))
    }

    fn engine(&mut self, request: Request) {
        self.outputs.push_back(Output::Engine(request));
    }

    fn client(&mut self, event: ServerEvent) {
        self.outputs.push_back(Output::Client(event));
    }

    fn warn(&mut self, code: ProblemCode, field: &str, message: impl Into<String>) {
        self.client(ServerEvent::Warning(Problem::new(code, field, message)));
    }

    /// Ends the conversation. Nothing follows.
    fn close(&mut self, result: Result<(), Problem>) {
        self.drop_proposal();
        self.engine(Request::Close { session: self.id });
        self.outputs.push_back(Output::Close(result));
        self.phase = Phase::Closed;
        self.user = User::Silent;
        self.reply = None;
        self.ending = None;
    }
}
