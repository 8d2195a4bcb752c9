//! What a session is set to, and how `session.update` changes it.

use causerie_proto::json::read_client_message;
use causerie_proto::v1;
use serde_json::{Map, Value, json};

use super::Refusal;

/// Prefix of the vendor's names of models. We have other models, so they mean the default one, and the session says
/// which that is.
const VENDOR_MODELS: &str = "gpt-";

/// Silence before an utterance is over, as the API's documentation has it; told while the client sets none.
const USUAL_SILENCE_MS: u64 = 500;

/// Above this threshold the client wants more than the usual probability of speech.
const USUAL_THRESHOLD: f64 = 0.6;

/// An encoding of audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Pcm,
    Pcmu,
    Pcma,
}

impl Format {
    /// As the contract has it.
    pub(super) fn mime(self) -> &'static str {
        match self {
            Self::Pcm => "audio/pcm;rate=24000",
            Self::Pcmu => "audio/pcmu",
            Self::Pcma => "audio/pcma",
        }
    }

    pub(super) fn bytes_per_ms(self) -> usize {
        match self {
            Self::Pcm => 48,
            Self::Pcmu | Self::Pcma => 8,
        }
    }

    /// How long so many bytes last, in microseconds.
    pub(super) fn us(self, bytes: usize) -> u64 {
        bytes as u64 * 1000 / self.bytes_per_ms() as u64
    }

    fn json(self) -> Value {
        match self {
            Self::Pcm => json!({"type": "audio/pcm", "rate": 24_000}),
            Self::Pcmu | Self::Pcma => json!({"type": self.mime()}),
        }
    }
}

/// How turns are found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turns {
    /// By meaning; otherwise by silence alone.
    semantic: bool,
    eagerness: String,
    threshold: f64,
    padding_ms: u64,
    /// `None` leaves it to the server, which listens to how a sentence sounds.
    silence_ms: Option<u64>,
    pub(super) interrupt: bool,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            semantic: false,
            eagerness: "auto".into(),
            threshold: 0.5,
            padding_ms: 300,
            silence_ms: None,
            interrupt: true,
        }
    }
}

/// A session's configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    model: String,
    pub(super) text: bool,
    instructions: String,
    tools: Vec<Value>,
    /// Functions may be called.
    calls: bool,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) input: Format,
    pub(super) output: Format,
    transcription: Value,
    /// `None`: the client says itself when a turn is over.
    pub(super) turns: Option<Turns>,
    voice: Option<String>,
    speed: f64,
}

impl Config {
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: if model.starts_with(VENDOR_MODELS) { String::new() } else { model.to_owned() },
            text: false,
            instructions: String::new(),
            tools: Vec::new(),
            calls: true,
            max_output_tokens: None,
            input: Format::Pcm,
            output: Format::Pcm,
            transcription: Value::Null,
            turns: Some(Turns::default()),
            voice: None,
            speed: 1.0,
        }
    }

    /// Whether the client wants transcripts of what was said to it.
    pub(super) fn transcribes(&self) -> bool {
        !self.transcription.is_null()
    }

    /// The configuration after `session.update`. What is not named stays, what is not known is ignored.
    pub(super) fn update(&self, session: &Value) -> Result<Self, Refusal> {
        let mut config = self.clone();
        let fields = Fields::of(session, "session")?;
        match fields.text("type")? {
            None | Some("realtime") => {}
            Some(other) => {
                let message = format!("a session of type {:?} is not supported; use \"realtime\"", short(other));
                return Err(Refusal::new("unsupported_value", "session.type", message));
            }
        }
        config.common(&fields)?;
        if fields.get("prompt").is_some_and(|prompt| !prompt.is_null()) {
            return Err(fields.unsupported("prompt", "stored prompts are not known here; use instructions"));
        }
        let Some(audio) = fields.get("audio").filter(|audio| !audio.is_null()) else { return Ok(config) };
        let audio = Fields::of(audio, "session.audio")?;
        if let Some(input) = audio.get("input").filter(|input| !input.is_null()) {
            config.read_input(&Fields::of(input, "session.audio.input")?)?;
        }
        if let Some(output) = audio.get("output").filter(|output| !output.is_null()) {
            config.read_output(&Fields::of(output, "session.audio.output")?)?;
        }
        Ok(config)
    }

    /// The configuration of one response.
    pub(super) fn for_response(&self, response: &Value) -> Result<Self, Refusal> {
        let mut config = self.clone();
        let fields = Fields::of(response, "response")?;
        config.common(&fields)?;
        if let Some(audio) = fields.get("audio").filter(|audio| !audio.is_null()) {
            let audio = Fields::of(audio, "response.audio")?;
            if let Some(output) = audio.get("output").filter(|output| !output.is_null()) {
                config.read_output(&Fields::of(output, "response.audio.output")?)?;
            }
        }
        Ok(config)
    }

    /// What sessions and responses have in common.
    fn common(&mut self, fields: &Fields<'_>) -> Result<(), Refusal> {
        if let Some(modalities) = fields.array("output_modalities")? {
            self.text = match modalities.iter().map(Value::as_str).collect::<Vec<_>>()[..] {
                [Some("text")] => true,
                // Speech has its transcript with it.
                [Some("audio")] | [Some("audio"), Some("text")] | [Some("text"), Some("audio")] => false,
                _ => return Err(fields.invalid("output_modalities", "it is [\"audio\"] or [\"text\"]")),
            };
        }
        match fields.get("instructions") {
            None => {}
            Some(Value::Null) => self.instructions.clear(),
            Some(_) => self.instructions = fields.text("instructions")?.unwrap_or_default().to_owned(),
        }
        match fields.get("tools") {
            None => {}
            Some(Value::Null) => self.tools.clear(),
            Some(_) => self.tools = read_tools(fields)?,
        }
        match fields.get("tool_choice") {
            None => {}
            Some(Value::Null) => self.calls = true,
            Some(Value::String(choice)) if choice == "auto" => self.calls = true,
            Some(Value::String(choice)) if choice == "none" => self.calls = false,
            Some(_) => return Err(fields.unsupported("tool_choice", "the model decides itself: \"auto\" or \"none\"")),
        }
        match fields.get("max_output_tokens") {
            None => {}
            Some(Value::Null) => self.max_output_tokens = None,
            Some(Value::String(word)) if word == "inf" => self.max_output_tokens = None,
            Some(value) => {
                let tokens = value.as_u64().filter(|n| (1..=4_096).contains(n));
                let wrong = || fields.invalid("max_output_tokens", "it is a number from 1 to 4096, or \"inf\"");
                self.max_output_tokens = Some(tokens.ok_or_else(wrong)?);
            }
        }
        Ok(())
    }

    fn read_input(&mut self, fields: &Fields<'_>) -> Result<(), Refusal> {
        if let Some(format) = fields.get("format").filter(|format| !format.is_null()) {
            self.input = read_format(format, &fields.path("format"))?;
        }
        match fields.get("transcription") {
            None => {}
            Some(value @ (Value::Null | Value::Object(_))) => self.transcription = value.clone(),
            Some(_) => return Err(fields.invalid("transcription", "it is an object, or null for none")),
        }
        match fields.get("turn_detection") {
            None | Some(Value::Bool(true)) => {}
            // Some clients have no word for null.
            Some(Value::Null | Value::Bool(false)) => self.turns = None,
            Some(value) => self.turns = Some(read_turns(&Fields::of(value, &fields.path("turn_detection"))?)?),
        }
        Ok(())
    }

    fn read_output(&mut self, fields: &Fields<'_>) -> Result<(), Refusal> {
        if let Some(format) = fields.get("format").filter(|format| !format.is_null()) {
            self.output = read_format(format, &fields.path("format"))?;
        }
        match fields.get("voice") {
            None => {}
            Some(Value::Null) => self.voice = None,
            Some(Value::Object(voice)) => self.voice = voice.get("id").and_then(Value::as_str).map(str::to_owned),
            Some(_) => self.voice = fields.text("voice")?.map(str::to_owned),
        }
        if let Some(speed) = fields.number("speed")? {
            self.speed = speed;
        }
        Ok(())
    }

    /// The session as the client is told of it: what is in effect.
    pub(super) fn json(&self, id: &str, model: &str, voice: &str) -> Value {
        let turns = self.turns.as_ref().map(|turns| match turns.semantic {
            true => json!({
                "type": "semantic_vad", "eagerness": turns.eagerness, "create_response": true,
                "interrupt_response": turns.interrupt}),
            false => json!({
                "type": "server_vad", "threshold": turns.threshold, "prefix_padding_ms": turns.padding_ms,
                "silence_duration_ms": turns.silence_ms.unwrap_or(USUAL_SILENCE_MS), "idle_timeout_ms": null,
                "create_response": true, "interrupt_response": turns.interrupt}),
        });
        json!({
            "type": "realtime", "object": "realtime.session", "id": id, "model": model,
            "output_modalities": self.modalities(), "instructions": self.instructions, "tools": self.tools,
            "tool_choice": if self.calls { "auto" } else { "none" },
            "max_output_tokens": self.max_output_json(), "tracing": null, "prompt": null, "truncation": "auto",
            "audio": {
                "input": {
                    "format": self.input.json(), "transcription": self.transcription, "noise_reduction": null,
                    "turn_detection": turns},
                "output": {"format": self.output.json(), "voice": voice, "speed": self.speed}}})
    }

    pub(super) fn modalities(&self) -> Value {
        if self.text { json!(["text"]) } else { json!(["audio"]) }
    }

    pub(super) fn max_output_json(&self) -> Value {
        self.max_output_tokens.map_or_else(|| json!("inf"), |tokens| json!(tokens))
    }

    /// How replies are encoded, as a response tells it.
    pub(super) fn output_json(&self, voice: &str) -> Value {
        json!({"output": {"format": self.output.json(), "voice": voice}})
    }

    /// The setup of a conversation in this configuration, with what was said before.
    pub(super) fn setup(&self, history: Vec<Value>) -> Result<v1::ClientMessage, Refusal> {
        let mut generation = json!({"responseModalities": [if self.text { "TEXT" } else { "AUDIO" }]});
        if let Some(voice) = &self.voice {
            generation["speechConfig"] = json!({"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": voice}}});
        }
        if let Some(tokens) = self.max_output_tokens {
            generation["maxOutputTokens"] = json!(tokens);
        }
        let mut realtime = json!({"automaticActivityDetection": {"disabled": self.turns.is_none()}});
        // Without detection, audio that is being collected interrupts nothing: the client cancels.
        let interrupt = self.turns.as_ref().is_some_and(|turns| turns.interrupt);
        realtime["activityHandling"] =
            json!(if interrupt { "START_OF_ACTIVITY_INTERRUPTS" } else { "NO_INTERRUPTION" });
        if let Some(turns) = &self.turns {
            let detection = &mut realtime["automaticActivityDetection"];
            if turns.threshold > USUAL_THRESHOLD {
                detection["startOfSpeechSensitivity"] = json!("START_SENSITIVITY_LOW");
            }
            if turns.semantic && turns.eagerness == "low" {
                detection["endOfSpeechSensitivity"] = json!("END_SENSITIVITY_LOW");
            }
            if let Some(silence) = turns.silence_ms {
                detection["silenceDurationMs"] = json!(silence);
            }
        }
        let mut setup = json!({
            "model": self.model, "generationConfig": generation, "realtimeInputConfig": realtime,
            // The transcripts of both sides are what a conversation can be begun anew with.
            "inputAudioTranscription": {}, "outputAudioTranscription": {},
            "outputAudioFormat": self.output.mime(), "speakingRate": self.speed, "history": history});
        if !self.instructions.is_empty() {
            setup["systemInstruction"] = json!({"parts": [{"text": self.instructions}]});
        }
        if self.calls && !self.tools.is_empty() {
            let declarations: Vec<Value> = self.tools.iter().map(declaration).collect();
            setup["tools"] = json!([{"functionDeclarations": declarations}]);
        }
        message(json!({"setup": setup}))
    }
}

/// A message of the contract from its JSON form, in which it is easily composed.
pub(super) fn message(json: Value) -> Result<v1::ClientMessage, Refusal> {
    read_client_message(json.to_string().as_bytes())
        .map_err(|error| Refusal::new("invalid_value", &error.field, error.message))
}

fn declaration(tool: &Value) -> Value {
    let mut declaration = json!({"name": tool["name"]});
    if let Some(description) = tool["description"].as_str() {
        declaration["description"] = json!(description);
    }
    if tool["parameters"].is_object() {
        declaration["parametersJsonSchema"] = tool["parameters"].clone();
    }
    declaration
}

fn read_tools(fields: &Fields<'_>) -> Result<Vec<Value>, Refusal> {
    let tools = fields.array("tools")?.unwrap_or_default();
    for (i, tool) in tools.iter().enumerate() {
        let tool = Fields::of(tool, &format!("{}[{i}]", fields.path("tools")))?;
        if tool.text("type")? != Some("function") {
            return Err(tool.unsupported("type", "only tools of type \"function\" are supported"));
        }
        if tool.text("name")?.is_none() {
            return Err(Refusal::new("missing_required_parameter", &tool.path("name"), "a function has a name"));
        }
    }
    Ok(tools.to_vec())
}

fn read_format(value: &Value, path: &str) -> Result<Format, Refusal> {
    let fields = Fields::of(value, path)?;
    match fields.text("type")? {
        Some("audio/pcm") => match fields.get("rate") {
            None | Some(Value::Null) => Ok(Format::Pcm),
            Some(rate) if rate.as_f64() == Some(24_000.0) => Ok(Format::Pcm),
            Some(_) => Err(fields.invalid("rate", "audio/pcm has a rate of 24000")),
        },
        Some("audio/pcmu") => Ok(Format::Pcmu),
        Some("audio/pcma") => Ok(Format::Pcma),
        _ => Err(fields.invalid("type", "it is \"audio/pcm\", \"audio/pcmu\" or \"audio/pcma\"")),
    }
}

fn read_turns(fields: &Fields<'_>) -> Result<Turns, Refusal> {
    let semantic = match fields.text("type")? {
        None | Some("server_vad") => false,
        Some("semantic_vad") => true,
        Some(_) => return Err(fields.invalid("type", "it is \"server_vad\" or \"semantic_vad\"")),
    };
    let mut turns = Turns { semantic, ..Turns::default() };
    if fields.flag("create_response")? == Some(false) {
        let why = "detected turns are always answered; set turn_detection to null and commit turns yourself";
        return Err(fields.unsupported("create_response", why));
    }
    if fields.get("idle_timeout_ms").is_some_and(|timeout| !timeout.is_null()) {
        return Err(fields.unsupported("idle_timeout_ms", "silence is never answered"));
    }
    turns.interrupt = fields.flag("interrupt_response")?.unwrap_or(true);
    if let Some(eagerness) = fields.text("eagerness")? {
        if !["low", "medium", "high", "auto"].contains(&eagerness) {
            return Err(fields.invalid("eagerness", "it is \"low\", \"medium\", \"high\" or \"auto\""));
        }
        turns.eagerness = eagerness.to_owned();
    }
    if let Some(threshold) = fields.number("threshold")? {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(fields.invalid("threshold", "it is between 0 and 1"));
        }
        turns.threshold = threshold;
    }
    let milliseconds = |name: &str| -> Result<Option<u64>, Refusal> {
        let Some(ms) = fields.number(name)? else { return Ok(None) };
        if !(0.0..=10_000.0).contains(&ms) {
            return Err(fields.invalid(name, "it is between 0 and 10000"));
        }
        Ok(Some(ms as u64))
    };
    turns.padding_ms = milliseconds("prefix_padding_ms")?.unwrap_or(turns.padding_ms);
    turns.silence_ms = milliseconds("silence_duration_ms")?;
    Ok(turns)
}

/// An object of the client's, with where it stands.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    path: String,
}

impl<'a> Fields<'a> {
    pub(super) fn of(value: &'a Value, path: &str) -> Result<Self, Refusal> {
        match value {
            Value::Object(object) => Ok(Self { object, path: path.to_owned() }),
            _ => Err(Refusal::new("invalid_type", path, "it is an object")),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name)
    }

    /// A string; null counts as absent.
    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.typed(name, Value::as_str, "it is a string")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        self.typed(name, Value::as_f64, "it is a number")
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.typed(name, Value::as_bool, "it is true or false")
    }

    pub(super) fn array(&self, name: &str) -> Result<Option<&'a [Value]>, Refusal> {
        self.typed(name, |value| value.as_array().map(Vec::as_slice), "it is an array")
    }

    fn typed<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>, what: &str) -> Result<Option<T>, Refusal> {
        match self.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| Refusal::new("invalid_type", &self.path(name), what)),
        }
    }

    pub(super) fn invalid(&self, name: &str, message: &str) -> Refusal {
        Refusal::new("invalid_value", &self.path(name), message)
    }

    pub(super) fn unsupported(&self, name: &str, message: &str) -> Refusal {
        Refusal::new("unsupported_value", &self.path(name), message)
    }
}

/// A word of the client's in a message to it.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
