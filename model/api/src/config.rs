//! What a session asks of an engine, and what an engine says of itself.

/// How one conversation is to be held. Validated by the session; an engine may rely on it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// Replaces the engine's default instruction when not empty.
    pub system_instruction: String,
    /// Functions that the model may call.
    pub tools: Vec<ToolDeclaration>,
    /// One of [`Capabilities::voices`].
    pub voice: String,
    /// BCP-47 tag of the language spoken by the user; `None` lets the engine find out.
    pub language: Option<String>,
    /// Speed of speech; 1.0 is the voice's own, 0.5 to 2.0 is sensible.
    pub speaking_rate: f32,
    /// What a reply is made of.
    pub modality: Modality,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Cap on the tokens of one reply; `None` leaves it to the engine.
    pub max_output_tokens: Option<u32>,
    /// How much is thought before and between speaking.
    pub thinking: Thinking,
    /// Whether partial transcripts of the user's speech are wanted.
    pub interim_transcripts: bool,
    /// Whether speech that is not meant for the model is left without an answer.
    pub proactive: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            system_instruction: String::new(),
            tools: Vec::new(),
            voice: String::new(),
            language: None,
            speaking_rate: 1.0,
            modality: Modality::Audio,
            sampling: Sampling::default(),
            max_output_tokens: None,
            thinking: Thinking::default(),
            interim_transcripts: true,
            proactive: false,
        }
    }
}

/// What a reply is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modality {
    /// Text only.
    Text,
    /// Speech, with its text beside it.
    Audio,
}

/// How tokens are drawn; `None` is the model's own default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: Option<f32>,
    /// Keep the k likeliest.
    pub top_k: Option<u32>,
    /// Keep the likeliest that together have this probability.
    pub top_p: Option<f32>,
    /// Drop what is less likely than this times the likeliest.
    pub min_p: Option<f32>,
    /// Divide (or multiply) the logits of tokens seen before; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Subtracted once from tokens that occurred in the reply.
    pub presence_penalty: Option<f32>,
    /// Subtracted once for each occurrence in the reply.
    pub frequency_penalty: Option<f32>,
    /// Equal seeds and equal inputs draw equal tokens.
    pub seed: Option<u64>,
}

/// How much is thought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thinking {
    /// Most tokens to think; 0 is none, `None` leaves it to the model.
    pub budget: Option<u32>,
    /// Whether thoughts are sent to the client.
    pub include_thoughts: bool,
}

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolDeclaration {
    /// Its name, unique in the session.
    pub name: String,
    /// What it is for, in the model's prompt.
    pub description: String,
    /// JSON Schema of its arguments, as JSON text.
    pub parameters: String,
    /// Whether the model waits for the result.
    pub behavior: ToolBehavior,
}

/// Whether the model waits for a tool's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolBehavior {
    /// The turn goes on when the result is there.
    #[default]
    Blocking,
    /// The model talks on; the result arrives when it arrives.
    NonBlocking,
}

/// When the model speaks about a result that was not waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// Put into the history, nothing is said.
    Silent,
    /// When the running turn is over.
    #[default]
    WhenIdle,
    /// At once.
    Interrupt,
}

/// What an engine can and cannot do; shown to clients and operators.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capabilities {
    /// `cascade`, `omni` or `scripted`.
    pub engine: String,
    /// Names of the networks inside, for people.
    pub models: Vec<String>,
    /// Hears audio.
    pub audio_in: bool,
    /// Sees video frames.
    pub video_in: bool,
    /// Speaks.
    pub audio_out: bool,
    /// Can think under a budget.
    pub thinking: bool,
    /// Can call functions.
    pub tools: bool,
    /// Can tell whether speech is meant for it.
    pub proactive: bool,
    /// BCP-47 primary tags that it understands when spoken.
    pub languages_in: Vec<String>,
    /// BCP-47 tags that it speaks.
    pub languages_out: Vec<String>,
    /// Voices that it speaks with; the first is the default.
    pub voices: Vec<Voice>,
    /// Most tokens of one conversation.
    pub context_tokens: u32,
}

/// A voice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voice {
    /// Its name in [`SessionConfig::voice`].
    pub name: String,
    /// BCP-47 tag.
    pub language: String,
    /// `female`, `male` or `neutral`, for mapping other vendors' names.
    pub gender: String,
}
