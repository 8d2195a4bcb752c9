//! What an operator decides about conversations: names, timing and limits.

use std::time::Duration;

use causerie_model_api::SessionId;

/// Of one conversation, from the server's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Identity at the engine.
    pub id: SessionId,
    /// The session's name for clients, logs and support.
    pub name: String,
    /// Canonical name of the model that serves it.
    pub model: String,
    /// When things happen.
    pub timing: Timing,
}

/// When things happen in a conversation. What a client asks for in its setup overrides the turn detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Speech needed before a start counts: 3 windows of the detector.
    pub start_confirm: Duration,
    /// Audio kept from before the first window of speech.
    pub preroll: Duration,
    /// Silence after which the answer is begun on trial.
    pub propose_after: Duration,
    /// Silence after which the driver is asked whether the sentence is finished; `None` lets silence alone decide.
    pub judge_after: Option<Duration>,
    /// How long the driver keeps what was heard after a pause waiting for the verdict about it: as long as the session
    /// could wait at the pace of speech. A verdict that takes longer is taken when it comes.
    pub judge_wait: Duration,
    /// Silence that ends an utterance (with end sensitivity high) that is finished, or of which nothing is known.
    pub hangover: Duration,
    /// Silence that ends an utterance that does not sound finished (with end sensitivity high).
    pub hangover_unfinished: Duration,
    /// Silence that ends an utterance with end sensitivity low.
    pub hangover_low: Duration,
    /// How long after the end of an utterance more speech still belongs to it, as long as nothing of the reply was
    /// sent.
    pub take_back: Duration,
    /// An utterance is taken to be over after this.
    pub max_utterance: Duration,
    /// Time without packets after which missing audio counts as silence.
    pub mute_after: Duration,
    /// Speech over a reply that is an interruption whatever its words: 16 of 25 windows.
    pub barge_in: Duration,
    /// Quiet after which a reply that was held goes on: 10 windows.
    pub resume_after: Duration,
    /// Longest piece of speech sent at once, 20 to 100 ms.
    pub piece: Duration,
    /// How far what is sent runs ahead of what is heard.
    pub lead: Duration,
    /// A reply of which nothing has come for this long has failed.
    pub reply_timeout: Duration,
    /// A call that has not been answered for this long has failed, and its turn goes on without.
    pub tool_timeout: Duration,
    /// A conversation in which nothing happens for this long is closed; `None` for never. A client may ask for less.
    pub idle_timeout: Option<Duration>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start_confirm: Duration::from_millis(96),
            preroll: Duration::from_millis(300),
            propose_after: Duration::from_millis(100),
            judge_after: Some(Duration::from_millis(200)),
            judge_wait: Duration::from_millis(300),
            hangover: Duration::from_millis(500),
            hangover_unfinished: Duration::from_millis(1_200),
            hangover_low: Duration::from_millis(800),
            take_back: Duration::from_millis(1_200),
            max_utterance: Duration::from_secs(120),
            mute_after: Duration::from_millis(300),
            barge_in: Duration::from_millis(512),
            resume_after: Duration::from_millis(320),
            piece: Duration::from_millis(40),
            lead: Duration::from_millis(200),
            reply_timeout: Duration::from_secs(60),
            tool_timeout: Duration::from_secs(60),
            idle_timeout: None,
        }
    }
}
