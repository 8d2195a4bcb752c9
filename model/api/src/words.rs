//! What sessions and engines say to each other.

use crate::{InputSamples, OutputSamples, Picture, Scheduling, SessionConfig, SessionId, ToolDeclaration, TurnId};

/// From a session to the engine.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// A conversation begins. The engine prefills instruction, tools and history when it has time.
    Open {
        /// The new conversation.
        session: SessionId,
        /// How it is to be held.
        config: Box<SessionConfig>,
        /// What was said before, oldest first.
        history: Vec<Item>,
    },
    /// The conversation is over; its state is freed.
    Close {
        /// The conversation.
        session: SessionId,
    },
    /// Input audio, contiguous with what came before.
    Audio {
        /// The conversation.
        session: SessionId,
        /// Position of the first sample.
        at: InputSamples,
        /// Mono samples at [`crate::INPUT_RATE`].
        pcm: Vec<f32>,
    },
    /// A frame of the video that comes beside the audio. Engines that do not see ignore it.
    Frame {
        /// The conversation.
        session: SessionId,
        /// Where in the input audio it was taken.
        at: InputSamples,
        /// What it shows.
        picture: Picture,
    },
    /// Somebody speaks since `from`: the engine may transcribe and prefill on the way.
    Listen {
        /// The conversation.
        session: SessionId,
        /// Start of the utterance, pre-roll included. The engine keeps enough audio to reach back two seconds. The
        /// start of the utterance that was answered last takes that one back (the speaker went on, and its turn was
        /// cancelled with nothing heard): what is heard from here replaces its entry in the history.
        from: InputSamples,
    },
    /// What was taken for speech was not: forget the utterance begun by [`Request::Listen`].
    Ignore {
        /// The conversation.
        session: SessionId,
    },
    /// Items appended to the history without asking for a reply.
    Append {
        /// The conversation.
        session: SessionId,
        /// Oldest first.
        items: Vec<Item>,
    },
    /// The utterance may be over: answer it, but keep the answer inside until it is committed.
    Propose {
        /// The conversation.
        session: SessionId,
        /// A new turn.
        turn: TurnId,
        /// Start of the utterance.
        from: InputSamples,
        /// Its end; later audio does not belong to it. All audio before it has been sent.
        until: InputSamples,
    },
    /// The proposed turn counts: its events may leave.
    Commit {
        /// The conversation.
        session: SessionId,
        /// The proposed turn.
        turn: TurnId,
    },
    /// The speaker went on: forget the proposed turn, keep listening to the utterance.
    Discard {
        /// The conversation.
        session: SessionId,
        /// The proposed turn.
        turn: TurnId,
    },
    /// Reply now, from the history as it is or with an utterance (propose and commit at once).
    Start {
        /// The conversation.
        session: SessionId,
        /// A new turn.
        turn: TurnId,
        /// Why.
        cause: Cause,
    },
    /// The engine may speak up to here.
    Credit {
        /// The conversation.
        session: SessionId,
        /// The turn.
        turn: TurnId,
        /// Speech up to this position may be generated.
        audio_until: OutputSamples,
    },
    /// Stop the turn. Answered by [`Event::Truncated`].
    Cancel {
        /// The conversation.
        session: SessionId,
        /// The turn.
        turn: TurnId,
        /// What the listener heard. Zero leaves no reply in the history; of a reply in text, anything else leaves
        /// all that was sent.
        heard_until: OutputSamples,
    },
    /// A tool has answered.
    ToolResult {
        /// The conversation.
        session: SessionId,
        /// Identity of the call.
        call: String,
        /// Its function.
        name: String,
        /// JSON text.
        value: String,
        /// When to speak about it.
        scheduling: Scheduling,
        /// More results of this call will follow.
        will_continue: bool,
    },
    /// The instruction or the functions are others from here on. Turns that were begun are not concerned.
    Configure {
        /// The conversation.
        session: SessionId,
        /// In the place of [`SessionConfig::system_instruction`].
        system_instruction: String,
        /// In the place of [`SessionConfig::tools`].
        tools: Vec<ToolDeclaration>,
    },
    /// Forget what came before an entry of the user's; also the answer to an [`Event::Prompt`] that is too long. The
    /// turn that waits for it makes its prompt anew.
    Forget {
        /// The conversation.
        session: SessionId,
        /// The entry with which the history begins from here on, or with the first after it if it is gone. `None` when
        /// there is nothing that may be forgotten: what does not fit fails.
        before: Option<Origin>,
    },
}

/// Where an entry of the user's came from: its name on both sides of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// One of the items that the session gave in [`Request::Open`] and [`Request::Append`], counted from 0.
    Given(u64),
    /// The utterance that begins there.
    Utterance(InputSamples),
}

impl Origin {
    /// Whether this is the other entry, or one of its kind after it.
    pub fn reaches(self, other: Self) -> bool {
        match (self, other) {
            (Self::Given(index), Self::Given(first)) => index >= first,
            (Self::Utterance(from), Self::Utterance(first)) => from >= first,
            _ => false,
        }
    }
}

impl Request {
    /// The conversation that it is about.
    pub fn session(&self) -> SessionId {
        match self {
            Self::Open { session, .. }
            | Self::Close { session }
            | Self::Audio { session, .. }
            | Self::Frame { session, .. }
            | Self::Listen { session, .. }
            | Self::Ignore { session }
            | Self::Append { session, .. }
            | Self::Propose { session, .. }
            | Self::Commit { session, .. }
            | Self::Discard { session, .. }
            | Self::Start { session, .. }
            | Self::Credit { session, .. }
            | Self::Cancel { session, .. }
            | Self::ToolResult { session, .. }
            | Self::Configure { session, .. }
            | Self::Forget { session, .. } => *session,
        }
    }
}

/// Why a reply is to be made without a proposal before it.
#[derive(Clone, Debug, PartialEq)]
pub enum Cause {
    /// An utterance that is certainly over.
    Utterance {
        /// Its start.
        from: InputSamples,
        /// Its end.
        until: InputSamples,
    },
    /// The history ends with what is to be answered.
    History,
}

/// From the engine to a session. Events of turns that a session no longer knows are dropped by it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session is open and prefilled.
    Opened,
    /// A prompt has been made. One with more tokens than the limit waits for a [`Request::Forget`].
    Prompt {
        /// The turn; `None` for instruction, tools and history of a new conversation.
        turn: Option<TurnId>,
        /// Its length, history included.
        tokens: u32,
        /// Most tokens that it may have.
        limit: u32,
    },
    /// What has been understood of the utterance so far.
    Partial {
        /// Text that two passes agree on; it only grows.
        stable: String,
        /// What follows it, and may change.
        unstable: String,
        /// Input up to here is covered.
        until: InputSamples,
    },
    /// The whole utterance, as it enters the history. Empty when nothing was said.
    Heard {
        /// The turn that answers it.
        turn: TurnId,
        /// Its transcript.
        text: String,
        /// Its language as a BCP-47 primary tag, empty if unknown.
        language: String,
    },
    /// A piece of the reply's text.
    Text {
        /// The turn.
        turn: TurnId,
        /// To be appended.
        delta: String,
    },
    /// A piece of thought; never spoken.
    Thought {
        /// The turn.
        turn: TurnId,
        /// To be appended.
        delta: String,
    },
    /// A piece of speech.
    Audio {
        /// The turn.
        turn: TurnId,
        /// Position of the first sample.
        start: OutputSamples,
        /// Mono samples at [`crate::OUTPUT_RATE`].
        pcm: Vec<f32>,
        /// Bytes of the reply's text that have been said when this piece ends.
        text_until: usize,
    },
    /// The model wants a function run.
    ToolCall {
        /// The turn.
        turn: TurnId,
        /// The call.
        call: ToolCall,
    },
    /// Answer to [`Request::Cancel`]: what the history keeps of the reply.
    Truncated {
        /// The turn.
        turn: TurnId,
        /// Bytes of the reply's text that were heard.
        text_until: usize,
        /// What the turn cost.
        usage: Usage,
    },
    /// The turn is finished: all its text and audio have been handed over.
    Done {
        /// The turn.
        turn: TurnId,
        /// Why it ended.
        reason: FinishReason,
        /// What it cost.
        usage: Usage,
    },
    /// The turn, or the session if `turn` is `None`, cannot go on.
    Failed {
        /// The turn.
        turn: Option<TurnId>,
        /// For people; without user content.
        error: String,
        /// Whether the session may try again.
        resumable: bool,
    },
}

impl Event {
    /// [`Event::Prompt`], from lengths as engines have them.
    pub fn prompt(turn: Option<TurnId>, tokens: usize, limit: usize) -> Self {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self::Prompt { turn, tokens: count(tokens), limit: count(limit) }
    }
}

/// A function call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Identity, unique in the session.
    pub id: String,
    /// The declared function.
    pub name: String,
    /// JSON object as text.
    pub arguments: String,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// The token cap was reached.
    MaxTokens,
    /// Nothing was said that could be answered.
    Empty,
    /// It waits for the results of its tool calls.
    ToolCalls,
    /// What was said was not meant for the model.
    NotAddressed,
}

impl FinishReason {
    /// Whether there was nothing to reply to.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Empty | Self::NotAddressed)
    }
}

/// Tokens of one turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Text tokens in the prompt, history included.
    pub prompt_text: u32,
    /// Audio tokens in the prompt (one per 40 ms heard in this turn).
    pub prompt_audio: u32,
    /// Tokens of pictures in the prompt, history included.
    pub prompt_video: u32,
    /// Prompt tokens that are results of tools.
    pub prompt_tools: u32,
    /// Prompt tokens that were found in the cache.
    pub cached: u32,
    /// Text tokens of the reply.
    pub response_text: u32,
    /// Audio tokens of the reply (one per 40 ms spoken).
    pub response_audio: u32,
    /// Tokens of thought.
    pub thoughts: u32,
}

/// One entry of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Who said it.
    pub role: Role,
    /// What, in order.
    pub content: Vec<Content>,
}

impl Item {
    /// An entry of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::Text(text.into())] }
    }
}

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person.
    User,
    /// The model.
    Model,
    /// A tool.
    Tool,
}

/// A piece of an entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Words.
    Text(String),
    /// A picture. Engines that do not see ignore it.
    Picture(Picture),
    /// A call made by the model.
    ToolCall(ToolCall),
    /// The result of one, as JSON text.
    ToolResult {
        /// Identity of the call.
        call: String,
        /// Its function.
        name: String,
        /// JSON text.
        value: String,
    },
}
