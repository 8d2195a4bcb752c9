//! What a reply is for a conversation, whatever engine makes it: what of it was said, the calls in it, how far its listener
//! is, and which of its events may leave.

use causerie_model_api::{
    CREDIT_AHEAD, Event, Modality, OutputSamples, SessionId, ToolBehavior, ToolCall, ToolDeclaration, TurnId, Usage,
};

/// Calls of one part of a turn. A model that makes more has lost its way.
const MAX_CALLS: usize = 16;
/// How often one turn may call and go on with the results.
const MAX_PARTS: usize = 8;
/// Audio tokens are counted at this many input samples each (40 ms).
const INPUT_SAMPLES_PER_TOKEN: u64 = 640;
/// The same at the output rate.
const OUTPUT_SAMPLES_PER_TOKEN: u64 = 960;

/// Who calls, and what may be called.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) session: SessionId,
    pub(crate) tools: &'a [ToolDeclaration],
}

/// What a reply leaves behind is entered into this.
pub(crate) trait Book {
    /// A part of a turn's reply: the bytes of its text since `from`, and the calls that were made after them.
    fn reply(&mut self, turn: TurnId, text: &str, from: usize, calls: Vec<ToolCall>);
    /// The result of a call.
    fn result(&mut self, call: String, name: String, value: String);
    /// Keeps only the first `bytes` of a turn's text; an entry without text and calls goes.
    fn truncate_reply(&mut self, of: TurnId, full: &str, bytes: usize);
}

/// A reply on its way out.
pub(crate) struct Reply {
    pub(crate) id: TurnId,
    /// Whether its events may leave.
    pub(crate) committed: bool,
    /// Start and end of the utterance it answers; `None` when it answers the history.
    pub(crate) utterance: Option<(u64, u64)>,
    /// The prompt does not fit and waits until the session forgets something: its length and the limit.
    pub(crate) crowded: Option<(usize, usize)>,
    /// What is said; calls are not part of it.
    pub(crate) text: String,
    /// While it thinks and does not speak.
    pub(crate) thought: Option<Thought>,
    /// The calls of this part, and how many were made in parts before.
    pub(crate) calls: Vec<Called>,
    called_before: usize,
    /// A part ends with calls and the next begins with their results: how many ended, and where this one begins in the
    /// text.
    pub(crate) parts: usize,
    pub(crate) text_from: usize,
    /// Speech that was billed.
    audio_from: u64,
    /// Samples spoken so far.
    pub(crate) audio_until: u64,
    /// Samples that may be spoken.
    pub(crate) credit: u64,
    /// Text positions by sample position, ascending.
    alignment: Vec<(u64, usize)>,
    pub(crate) usage: Usage,
    withheld: Vec<Event>,
}

impl Reply {
    pub(crate) fn new(id: TurnId, committed: bool, utterance: Option<(u64, u64)>) -> Self {
        let heard = utterance.map_or(0, |(from, until)| until.saturating_sub(from));
        let prompt_audio = u32::try_from(heard / INPUT_SAMPLES_PER_TOKEN).unwrap_or(u32::MAX);
        Self {
            id,
            committed,
            utterance,
            crowded: None,
            text: String::new(),
            thought: None,
            calls: Vec::new(),
            called_before: 0,
            parts: 0,
            text_from: 0,
            audio_from: 0,
            audio_until: 0,
            credit: CREDIT_AHEAD.0,
            alignment: Vec::new(),
            usage: Usage { prompt_audio, ..Usage::default() },
            withheld: Vec::new(),
        }
    }

    /// Samples that the listener is behind what has been spoken.
    pub(crate) fn ahead(&self) -> u64 {
        (self.audio_until + CREDIT_AHEAD.0).saturating_sub(self.credit)
    }

    /// Whether more may be spoken.
    pub(crate) fn has_credit(&self) -> bool {
        self.audio_until <= self.credit
    }

    /// Hands an event on, or keeps it until the turn is committed.
    pub(crate) fn emit(&mut self, event: Event, out: &mut Vec<Event>) {
        if self.committed {
            out.push(event);
        } else {
            self.withheld.push(event);
        }
    }

    /// Lets the withheld events go.
    pub(crate) fn commit(&mut self, out: &mut Vec<Event>) {
        self.committed = true;
        out.append(&mut self.withheld);
    }

    /// Takes a call that was written, or one that cannot be made, of which the model alone hears. Returns whether there
    /// are enough.
    pub(crate) fn call(
        &mut self,
        caller: Caller<'_>,
        (name, arguments, possible): (String, String, bool),
        out: &mut Vec<Event>,
    ) -> bool {
        let number = self.called_before + self.calls.len();
        let id = format!("call-{:x}-{}-{number}", caller.session.0, self.id.0);
        let tool = caller.tools.iter().find(|tool| possible && tool.name == name);
        let behavior = tool.map_or(ToolBehavior::Blocking, |tool| tool.behavior);
        let call = ToolCall { id, name, arguments };
        let results = if possible { Vec::new() } else { vec![WRONG.to_owned()] };
        if possible {
            self.emit(Event::ToolCall { turn: self.id, call: call.clone() }, out);
        }
        self.calls.push(Called { call, behavior, results, answered: !possible });
        self.calls.len() >= MAX_CALLS
    }

    /// Which of its calls waits for the result of that id.
    pub(crate) fn waits_for(&self, id: &str) -> Option<usize> {
        let called = self.calls.iter().position(|called| called.call.id == id);
        called.filter(|i| self.committed && self.calls[*i].behavior == ToolBehavior::Blocking)
    }

    /// Takes a result of a call that waits for one.
    pub(crate) fn take_result(&mut self, call: usize, value: String, will_continue: bool) {
        let called = &mut self.calls[call];
        called.results.push(value);
        called.answered = !will_continue;
    }

    /// Whether all that the turn waits for is there.
    pub(crate) fn answered(&self) -> bool {
        self.calls.iter().all(|called| called.answered || called.behavior == ToolBehavior::NonBlocking)
    }

    /// The next part begins.
    ///
    /// # Errors
    /// A message for people if there were too many of them.
    pub(crate) fn go_on(&mut self) -> Result<(), String> {
        self.called_before += self.calls.len();
        self.calls.clear();
        self.parts += 1;
        self.text_from = self.text.len();
        let error = || format!("the model called functions {MAX_PARTS} times in one turn without an answer");
        if self.parts < MAX_PARTS { Ok(()) } else { Err(error()) }
    }

    /// Takes a piece of a thought, with which `all` tokens were drawn. Once it is over: how many of them the answer follows
    /// from.
    pub(crate) fn ponder(
        &mut self,
        delta: &str,
        mark: Option<&str>,
        all: usize,
        out: &mut Vec<Event>,
    ) -> Option<usize> {
        let Some(thought) = &mut self.thought else { return Some(all) };
        self.usage.thoughts += 1;
        let (delta, over) = thought.take(delta, mark, all);
        if !delta.is_empty() {
            self.emit(Event::Thought { turn: self.id, delta }, out);
        }
        over
    }

    /// Takes speech that says the text up to `text_until`.
    pub(crate) fn speak(&mut self, pcm: Vec<f32>, text_until: usize, out: &mut Vec<Event>) {
        if pcm.is_empty() {
            return;
        }
        let start = OutputSamples(self.audio_until);
        self.audio_until += pcm.len() as u64;
        self.alignment.push((self.audio_until, text_until));
        let tokens = |until: u64| until / OUTPUT_SAMPLES_PER_TOKEN;
        let spoken = tokens(self.audio_until) - tokens(self.audio_from);
        self.usage.response_audio = u32::try_from(spoken).unwrap_or(u32::MAX);
        self.emit(Event::Audio { turn: self.id, start, pcm, text_until }, out);
    }

    /// What was used since it was asked last.
    pub(crate) fn bill(&mut self) -> Usage {
        self.audio_from = self.audio_until;
        std::mem::take(&mut self.usage)
    }

    /// Bytes of the text that a listener knows who heard `samples` of the speech; who reads knows all of it.
    pub(crate) fn known(&self, modality: Modality, samples: u64) -> usize {
        if modality == Modality::Text && samples > 0 {
            return self.text.len();
        }
        let heard = self.alignment.partition_point(|(end, _)| *end <= samples);
        heard.checked_sub(1).map_or(0, |i| self.alignment[i].1)
    }

    /// Enters the last part into the history, up to `until`, and its calls with what is known of them.
    pub(crate) fn leave(&self, history: &mut impl Book, until: usize) {
        // What nobody was told of did not happen.
        let calls: &[_] = if self.committed { &self.calls } else { &[] };
        let made = calls.iter().map(|called| called.call.clone()).collect();
        history.truncate_reply(self.id, &self.text, until);
        history.reply(self.id, &self.text[..until.max(self.text_from)], self.text_from, made);
        for called in calls {
            for value in called.told() {
                history.result(called.call.id.clone(), called.call.name.clone(), value.to_owned());
            }
        }
    }
}

/// A thought before the reply.
pub(crate) struct Thought {
    /// Tokens that may still be thought.
    left: u32,
    text: String,
    /// Bytes of the text that were handed on.
    told: usize,
    /// Tokens up to the end of its last whole sentence or line.
    whole: usize,
}

impl Thought {
    pub(crate) fn new(budget: u32) -> Self {
        Self { left: budget, text: String::new(), told: 0, whole: 0 }
    }

    /// Whether what was thought last ends a line or a sentence. A full stop after a digit may be a decimal point or an
    /// item's number, and a colon announces what is not there yet.
    fn rests(&self) -> bool {
        let text = self.text.trim_end();
        let ends = |mark: char| {
            let before = text.strip_suffix(mark).and_then(|text| text.chars().next_back());
            before.is_some_and(|before| !before.is_ascii_digit())
        };
        let line = self.text[text.len()..].contains('\n') && !text.ends_with(':');
        line || ['.', '!', '?'].into_iter().any(ends)
    }

    /// Takes a piece, with which it is `all` tokens long. What may be handed on; and once the thought is over, how many of
    /// its tokens the reply follows from. Of a thought that the budget cuts it is the whole sentences, because the model
    /// takes half a calculation for its result. What may be the beginning of the model's mark is held back.
    pub(crate) fn take(&mut self, delta: &str, mark: Option<&str>, all: usize) -> (String, Option<usize>) {
        self.text.push_str(delta);
        if self.rests() {
            self.whole = all;
        }
        self.left = self.left.saturating_sub(1);
        let marked = mark.and_then(|mark| self.text.find(mark));
        let over = marked.is_some() || self.left == 0;
        let begins = |at: &usize| mark.is_some_and(|mark| mark.starts_with(&self.text[*at..]));
        let until = match marked {
            Some(at) => at,
            None if over => self.text.len(),
            None => self
                .text
                .char_indices()
                .map(|(at, _)| at)
                .skip_while(|at| *at < self.told)
                .find(begins)
                .unwrap_or(self.text.len()),
        };
        let delta = self.text.get(self.told..until).unwrap_or_default().to_owned();
        self.told = self.told.max(until);
        (delta, over.then_some(if marked.is_none() && self.whole > 0 { self.whole } else { all }))
    }
}

/// What the model is told of a call that cannot be made. It goes on with that, and nobody else hears of it.
const WRONG: &str = r#"{"error": "no function has this name and these arguments; answer in words yourself"}"#;

/// What the model is told of a call that it does not wait for.
const RUNNING: &str = r#"{"status": "running, the result will come later"}"#;
/// What the model is told of a call whose turn was interrupted.
const CANCELLED: &str = r#"{"error": "cancelled, the user interrupted"}"#;

/// A call that a turn has made.
pub(crate) struct Called {
    pub(crate) call: ToolCall,
    pub(crate) behavior: ToolBehavior,
    /// What came back so far, and whether that is all.
    pub(crate) results: Vec<String>,
    pub(crate) answered: bool,
}

impl Called {
    /// What the model is told of it where its turn ends.
    pub(crate) fn told(&self) -> impl Iterator<Item = &str> {
        let missing = match (self.behavior, self.answered) {
            (ToolBehavior::NonBlocking, _) => Some(RUNNING),
            (ToolBehavior::Blocking, false) => Some(CANCELLED),
            (ToolBehavior::Blocking, true) => None,
        };
        self.results.iter().map(String::as_str).chain(missing)
    }
}
