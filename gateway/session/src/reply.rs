//! One committed turn of the model, from its start to its last sample.

use std::time::Duration;

use causerie_model_api::{FinishReason, Origin, TurnId, Usage};
use causerie_units::MediaTime;

use crate::history::Place;
use crate::playout::Playout;
use crate::settings::Timing;
use crate::transcript::{InputTranscript, whole_words};
use crate::words::{Grounding, Waterfall};

pub(crate) struct Reply {
    pub(crate) turn: TurnId,
    /// The utterance that it answers, when it answers one that the detector found.
    pub(crate) utterance: Option<Utterance>,
    /// What the engine calls its user entry.
    pub(crate) origin: Option<Origin>,
    /// Its user entry in the history.
    pub(crate) heard: Option<Place>,
    /// What the client has of the user's transcript.
    pub(crate) transcript: InputTranscript,
    pub(crate) text: String,
    /// Bytes of `text` that the client has as transcript.
    transcribed: usize,
    pub(crate) playout: Playout,
    /// Something of it has reached the client.
    pub(crate) shown: bool,
    pub(crate) done: Option<FinishReason>,
    /// The client has been told that everything was made; only the listener is not done yet.
    pub(crate) complete: bool,
    /// The client has been told that only its answers are waited for.
    pub(crate) waiting: bool,
    pub(crate) usage: Usage,
    /// What its searches found.
    pub(crate) grounding: Grounding,
    pub(crate) marks: Marks,
    /// When the engine was last heard of.
    pub(crate) alive: MediaTime,
}

/// Where an utterance was in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utterance {
    pub(crate) from: u64,
    /// Input at the moment when it was taken to be over.
    pub(crate) ended: u64,
}

/// When things happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) origin: MediaTime,
    pub(crate) endpoint: Option<MediaTime>,
    pub(crate) transcript_final: Option<MediaTime>,
    pub(crate) first_token: Option<MediaTime>,
    pub(crate) first_audio_generated: Option<MediaTime>,
    pub(crate) first_audio_sent: Option<MediaTime>,
}

impl Marks {
    /// Counts from `origin`, the end of the user's speech.
    pub(crate) fn new(origin: MediaTime, endpoint: Option<MediaTime>) -> Self {
        Self {
            origin,
            endpoint,
            transcript_final: None,
            first_token: None,
            first_audio_generated: None,
            first_audio_sent: None,
        }
    }

    pub(crate) fn waterfall(&self) -> Waterfall {
        let offset = |mark: Option<MediaTime>| mark.map(|mark| mark.millis_from(self.origin));
        Waterfall {
            endpoint: offset(self.endpoint),
            transcript_final: offset(self.transcript_final),
            first_token: offset(self.first_token),
            first_audio_generated: offset(self.first_audio_generated),
            first_audio_sent: offset(self.first_audio_sent),
        }
    }
}

impl Reply {
    pub(crate) fn new(
        turn: TurnId,
        utterance: Option<Utterance>,
        marks: Marks,
        timing: &Timing,
        now: MediaTime,
    ) -> Self {
        let piece = timing.piece.clamp(Duration::from_millis(20), Duration::from_millis(100));
        Self {
            turn,
            utterance,
            origin: None,
            heard: None,
            transcript: InputTranscript::default(),
            text: String::new(),
            transcribed: 0,
            playout: Playout::new(piece, timing.lead),
            shown: false,
            done: None,
            complete: false,
            waiting: false,
            usage: Usage::default(),
            grounding: Grounding::default(),
            marks,
            alive: now,
        }
    }

    /// The piece of the transcript that belongs to the speech sent so far; never ahead of it.
    pub(crate) fn transcribe(&mut self) -> Option<String> {
        let until = whole_words(&self.text, self.playout.text_at(self.playout.sent()));
        self.transcribe_until(until)
    }

    /// The rest of the transcript: what was written but is not said (a symbol, a full stop) included.
    pub(crate) fn transcribe_all(&mut self) -> Option<String> {
        self.transcribe_until(self.text.len())
    }

    fn transcribe_until(&mut self, until: usize) -> Option<String> {
        let delta = self.text.get(self.transcribed..until).filter(|delta| !delta.is_empty())?.to_owned();
        self.transcribed = until;
        Some(delta)
    }

    /// Whether it waits for the results of its tool calls.
    pub(crate) fn waits_for_tools(&self) -> bool {
        self.done == Some(FinishReason::ToolCalls)
    }

    /// Whether the engine is done, or waits for tools, and everything was sent.
    pub(crate) fn drained(&self) -> bool {
        self.done.is_some() && self.playout.drained()
    }
}

/// Adds what another part of the same turn cost.
pub(crate) fn add(total: &mut Usage, more: &Usage) {
    let fields = [
        (&mut total.prompt_text, more.prompt_text),
        (&mut total.prompt_audio, more.prompt_audio),
        (&mut total.prompt_tools, more.prompt_tools),
        (&mut total.prompt_video, more.prompt_video),
        (&mut total.cached, more.cached),
        (&mut total.response_text, more.response_text),
        (&mut total.response_audio, more.response_audio),
        (&mut total.thoughts, more.thoughts),
    ];
    for (total, more) in fields {
        *total = total.saturating_add(more);
    }
}
