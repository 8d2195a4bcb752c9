//! What a session hears from its driver and says to it. Every transport maps its own wire onto these words.
//!
//! The driver keeps what needs a clock, a socket or a codec: it decodes audio to mono 16 kHz, forwards it to the engine
//! as `Request::Audio`, runs the voice-activity detector, and encodes [`ServerEvent::Audio`]. The session decides
//! everything else.

use std::fmt;
use std::time::Duration;

use causerie_model_api::{
    Event, FinishReason, InputSamples, Item, Modality, OutputSamples, Request, Sampling, Scheduling, Thinking,
    ToolBehavior, ToolCall, ToolDeclaration, TurnId, Usage,
};
use causerie_units::MediaTime;

/// What a client asks for when it opens a conversation, free of any wire format.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// As the client wrote it, with or without `models/`.
    pub model: String,
    /// Text of the system instruction; empty for the engine's own.
    pub system_instruction: String,
    /// Functions of the client.
    pub tools: Vec<ToolDeclaration>,
    /// Functions that the server runs. One of the client's with the same name takes its place.
    pub server_tools: Vec<ToolDeclaration>,
    /// Whether the model may search, for what the client is told the sources of (the Live API's `google_search`).
    pub search: bool,
    /// As the client wrote it; `None` for the default voice.
    pub voice: Option<String>,
    /// BCP-47 tag as the client wrote it.
    pub language: Option<String>,
    /// Speed of speech, 1.0 for the voice's own.
    pub speaking_rate: f32,
    /// What replies are made of.
    pub modality: Modality,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Cap on the tokens of one reply.
    pub max_output_tokens: Option<u32>,
    /// How much is thought.
    pub thinking: Thinking,
    /// Voice-activity detection.
    pub detection: Detection,
    /// Whether speech of the user may stop a reply.
    pub interruption: bool,
    /// Whether a turn is all input since the last one, not only what the detector took for speech.
    pub covers_all_input: bool,
    /// Whether transcripts of the user are sent.
    pub input_transcription: bool,
    /// Whether transcripts of replies are sent.
    pub output_transcription: bool,
    /// Whether the whole interim transcript is sent too (our own field).
    pub interim_transcription: bool,
    /// Whether speech that is not meant for the model is left without an answer.
    pub proactive: bool,
    /// A conversation in which nothing happens for this long is closed.
    pub idle_timeout: Option<Duration>,
    /// When the oldest turns are forgotten.
    pub compression: Compression,
    /// Whether [`Output::Snapshot`]s are wanted.
    pub resumption: bool,
    /// What was said before.
    pub history: Vec<Item>,
    /// Calls of a conversation that is resumed, whose results are still to come.
    pub calls: Vec<PendingCall>,
    /// The history ends with what is to be answered at once.
    pub owed: bool,
    /// Turns of a conversation that is resumed, so that its names for turns and calls stay unique.
    pub turns: u64,
    /// Instruction or functions are not those any more that the client asked for when it opened the conversation.
    pub updated: bool,
}

/// What a conversation is resumed from, beside what its client asked for when it opened it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What was said, oldest first.
    pub history: Vec<Item>,
    /// Calls whose results are still to come.
    pub calls: Vec<PendingCall>,
    /// The history ends with what is to be answered.
    pub owed: bool,
    /// Turns so far.
    pub turns: u64,
    /// What the client has changed since it opened the conversation.
    pub update: Option<Update>,
}

/// What the client has told the model about its task in the middle of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Text of the system instruction; empty for the engine's own.
    pub system_instruction: String,
    /// Functions of the client.
    pub tools: Vec<ToolDeclaration>,
}

impl Setup {
    /// The setup of the same conversation when it goes on from there. What this one has for a history comes after it.
    #[must_use]
    pub fn resuming(self, snapshot: Snapshot) -> Self {
        let Snapshot { mut history, calls, owed, turns, update } = snapshot;
        history.extend(self.history);
        let updated = update.is_some();
        let Update { system_instruction, tools } =
            update.unwrap_or(Update { system_instruction: self.system_instruction, tools: self.tools });
        Self { system_instruction, tools, history, calls, owed, turns, updated, ..self }
    }
}

/// A call whose result is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCall {
    /// Identity, as the client knows it.
    pub id: String,
    /// The function.
    pub name: String,
    /// Whether the reply waits for it.
    pub behavior: ToolBehavior,
    /// It is run by the server.
    pub server: bool,
}

/// When the oldest turns of a conversation are forgotten, so that it never ends for want of room; `None` is our default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compression {
    /// Tokens of a conversation above which turns are forgotten.
    pub trigger_tokens: Option<u32>,
    /// Tokens that are about left then.
    pub target_tokens: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            model: "default".into(),
            system_instruction: String::new(),
            tools: Vec::new(),
            server_tools: Vec::new(),
            search: false,
            voice: None,
            language: None,
            speaking_rate: 1.0,
            modality: Modality::Audio,
            sampling: Sampling::default(),
            max_output_tokens: None,
            // Who does not ask for thoughts is not made to wait for them.
            thinking: Thinking { budget: Some(0), include_thoughts: false },
            detection: Detection::default(),
            interruption: true,
            covers_all_input: false,
            input_transcription: false,
            output_transcription: false,
            interim_transcription: false,
            proactive: false,
            idle_timeout: None,
            compression: Compression::default(),
            resumption: false,
            history: Vec::new(),
            calls: Vec::new(),
            owed: false,
            turns: 0,
            updated: false,
        }
    }
}

/// Automatic activity detection as asked for; `None` is our default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detection {
    /// The client marks activity itself.
    pub disabled: bool,
    /// How readily speech is taken to begin.
    pub start_sensitivity: Sensitivity,
    /// How readily speech is taken to end.
    pub end_sensitivity: Sensitivity,
    /// Speech needed before a start counts (the Live API's `prefix_padding_ms`).
    pub start_confirm_ms: Option<u32>,
    /// Silence needed before an end counts.
    pub silence_duration_ms: Option<u32>,
}

/// A detector's readiness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sensitivity {
    /// The default: sooner.
    #[default]
    High,
    /// Later and surer.
    Low,
}

/// Into the session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// One window of the detector: `probability` of speech in input samples `from..to`. Windows are contiguous.
    Voice {
        /// 0 to 1.
        probability: f32,
        /// First sample.
        from: InputSamples,
        /// One past the last.
        to: InputSamples,
    },
    /// All audio up to here has gone to the engine (sent with every piece, also while detection is off).
    Received {
        /// One past the last sample.
        until: InputSamples,
    },
    /// The answer to [`Output::Judge`]. One that comes when the pause is over is ignored.
    Completion {
        /// As in the question, which it tells from others.
        until: InputSamples,
        /// That the speaker has finished, 0 to 1; `None` when it cannot be told.
        probability: Option<f32>,
    },
    /// The microphone is off for now.
    AudioStreamEnd,
    /// Push to talk: pressed.
    ActivityStart,
    /// Push to talk: released.
    ActivityEnd,
    /// Text typed while the stream runs; a turn of its own.
    RealtimeText(String),
    /// Items for the history; with `turn_complete` they are answered.
    ClientContent {
        /// Oldest first.
        items: Vec<Item>,
        /// Reply now.
        turn_complete: bool,
    },
    /// Another instruction, other functions; `None` leaves them as they are.
    Update {
        /// Text of the system instruction.
        system_instruction: Option<String>,
        /// Functions of the client.
        tools: Option<Vec<ToolDeclaration>>,
    },
    /// Results of tools.
    ToolResponse(Vec<ToolResponse>),
    /// The result of a function that the server was to run.
    ToolDone {
        /// Identity of the call.
        id: String,
        /// JSON text.
        value: String,
        /// What was searched and found, if it was a search.
        grounding: Grounding,
    },
    /// The client reports what its listener has heard of the reply being played.
    Played {
        /// Position in the turn's speech.
        until: OutputSamples,
    },
    /// The client wants the reply stopped.
    CancelReply,
    /// From the engine.
    Engine(Event),
    /// The client will send nothing more: finish what is owed, then close.
    HalfClose,
    /// The conversation is to go on elsewhere: finish the reply, then [`Input::Park`].
    Drain(Problem),
    /// The stream is over, and the conversation may go on in another: what its user has just said is understood first,
    /// for a moment at most; then [`Input::Park`].
    Leave(Problem),
    /// The conversation cannot go on here: keep what can be kept for its resumption, and close with this.
    Park(Problem),
    /// The deadline that was asked for has come (or any other moment: it is harmless).
    Tick,
}

impl Input {
    /// Whether the client does something by it. A microphone that is on does not count: what is said into it does.
    pub(crate) fn is_sign_of_life(&self) -> bool {
        !matches!(
            self,
            Self::Voice { .. } | Self::Received { .. } | Self::Completion { .. } | Self::Engine(_) | Self::Tick
        )
    }
}

/// The result of a function run by the client.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResponse {
    /// Identity of the call.
    pub id: String,
    /// Its function.
    pub name: String,
    /// JSON text.
    pub response: String,
    /// When to speak about it.
    pub scheduling: Scheduling,
    /// More will follow.
    pub will_continue: bool,
}

/// Out of the session. Drain with `poll_output` until [`Output::Wait`] or [`Output::Close`].
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// For the engine.
    Engine(Request),
    /// For the client.
    Client(ServerEvent),
    /// The server is to run this function; the answer is [`Input::ToolDone`].
    RunTool(ToolCall),
    /// The result of this call is not wanted any more.
    StopTool(String),
    /// The user has paused: does it sound as if they had finished? The driver answers with [`Input::Completion`]. Asked
    /// once in a pause, and only with [`crate::Timing::judge_after`].
    Judge {
        /// Where the utterance begins in the input.
        from: InputSamples,
        /// Where the silence to be heard with it ends; samples that have not come by now count as silence.
        until: InputSamples,
    },
    /// The conversation can be resumed from here; `None`: not while this reply is being made.
    Snapshot(Option<Box<Snapshot>>),
    /// Nothing more until an input or this time.
    Wait(MediaTime),
    /// The conversation is over. After this nothing follows.
    Close(Result<(), Problem>),
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// The setup is valid; the client may send.
    SetupComplete(Opened),
    /// Speech of the reply, due now.
    Audio {
        /// The turn.
        turn: TurnId,
        /// Position in the turn's speech.
        start: OutputSamples,
        /// Mono samples at [`causerie_model_api::OUTPUT_RATE`].
        pcm: Vec<f32>,
    },
    /// Text of the reply, when the modality is text.
    Text {
        /// To be appended.
        delta: String,
    },
    /// Thought, when asked for.
    Thought {
        /// To be appended.
        delta: String,
    },
    /// The stable transcript of the user grew by this.
    InputTranscription {
        /// To be appended.
        text: String,
        /// This was the last piece of the utterance.
        finished: bool,
    },
    /// The whole interim transcript of the user, replacing the one before.
    InterimTranscription {
        /// Stable and unstable part.
        text: String,
    },
    /// The transcript of the reply's speech grew by this.
    OutputTranscription {
        /// To be appended.
        text: String,
    },
    /// Speech of the user began.
    SpeechStarted {
        /// Position in the input.
        at: InputSamples,
    },
    /// Speech of the user ended.
    SpeechStopped {
        /// Position in the input.
        at: InputSamples,
    },
    /// Functions are to be run by the client.
    ToolCall(Vec<ToolCall>),
    /// These calls are not wanted any more.
    ToolCallCancellation(Vec<String>),
    /// Everything up to the reply's calls has been sent; it goes on when the client has answered them.
    WaitingForTools,
    /// What the reply rests on; before its end.
    Grounding(Grounding),
    /// Everything of the reply has been generated and sent. Not sent in an interrupted turn, and after it the turn is
    /// not interrupted any more.
    GenerationComplete,
    /// The user has paused and is expected to go on: nothing is answered yet.
    WaitingForInput,
    /// The user spoke into the reply; the client drops what it has not played.
    Interrupted,
    /// The turn is over: by the clock, its listener has heard all of it.
    TurnComplete {
        /// Why.
        reason: TurnEnd,
        /// What it cost.
        usage: Usage,
        /// When everything happened.
        waterfall: Waterfall,
        /// How often the listener had heard everything before the next sample was there.
        ran_dry: u32,
    },
    /// Something the client did had no effect, or a turn failed; the conversation goes on.
    Warning(Problem),
}

/// What a reply rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grounding {
    /// What was searched.
    pub queries: Vec<String>,
    /// What was found, the best first.
    pub sources: Vec<Source>,
}

/// A page that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Its address.
    pub uri: String,
    /// Its title; may be empty.
    pub title: String,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// The engine was done.
    Finished(FinishReason),
    /// The user spoke into it.
    Interrupted,
    /// The engine failed.
    Failed,
}

/// The answer to a setup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Opened {
    /// For logs and support.
    pub session: String,
    /// Canonical model name.
    pub model: String,
    /// The voice that speaks, after mapping.
    pub voice: String,
    /// The language that is spoken, BCP-47.
    pub language: String,
}

/// When the steps of a turn happened, in milliseconds after the last sample of the user's speech; negative before it.
/// `None` where the step did not occur.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waterfall {
    /// The end of speech was decided.
    pub endpoint: Option<f64>,
    /// The transcript was complete.
    pub transcript_final: Option<f64>,
    /// The first token of the reply was there.
    pub first_token: Option<f64>,
    /// The first sample of the reply was there.
    pub first_audio_generated: Option<f64>,
    /// The first sample of the reply was handed to the transport.
    pub first_audio_sent: Option<f64>,
}

/// Something wrong that a client is told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub code: ProblemCode,
    /// The field or message it is about, dotted; empty if none.
    pub field: String,
    /// For people: lower-case, no full stop, with the numbers.
    pub message: String,
    /// Whether trying again may help.
    pub retryable: bool,
    /// When trying again may help, if that can be guessed.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem that will not go away by trying again.
    pub fn new(code: ProblemCode, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, field: field.into(), message: message.into(), retryable: false, retry_after: None }
    }

    /// The same problem, which may be gone after this time.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retryable: true, retry_after: Some(after), ..self }
    }

    /// The same time for protocols that know whole seconds: never early.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| after.as_secs() + u64::from(after.subsec_nanos() > 0))
    }
}

/// As one line: the field, if there is one, and the message.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// What kind of problem; each transport has its own number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemCode {
    /// The client sent something that can never be right.
    InvalidArgument,
    /// The client sent something at the wrong moment.
    FailedPrecondition,
    /// No such model.
    NotFound,
    /// The client has not said who it is, or is nobody known.
    Unauthenticated,
    /// Known, but not built.
    Unimplemented,
    /// A limit was reached.
    ResourceExhausted,
    /// The client may not have it.
    PermissionDenied,
    /// The conversation was taken away.
    Aborted,
    /// A deadline passed.
    DeadlineExceeded,
    /// The server cannot serve now.
    Unavailable,
    /// Our fault.
    Internal,
}
