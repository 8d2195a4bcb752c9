//! What a client may ask for: one pass over the setup, before anything exists.

use std::time::Duration;

use causerie_model_api::{Capabilities, Item, Modality, Sampling, SessionConfig, ToolDeclaration};

use crate::history::{MAX_ITEMS, bytes, max_bytes, max_content_bytes};
use crate::settings::Timing;
use crate::words::{Compression, Opened, PendingCall, Problem, ProblemCode, Sensitivity, Setup, Update};
use crate::{Settings, voices};

/// Most functions of one conversation.
const MAX_TOOLS: usize = 128;

/// Probability from which a window is speech; what the measurements of Silero were made with (0.7 misses short words).
const THRESHOLD_HIGH: f32 = 0.5;
const THRESHOLD_LOW: f32 = 0.7;

/// Silence after which an utterance is over is never asked for longer than this.
const MAX_SILENCE_MS: u32 = 10_000;

/// Two windows of the detector: what is shorter would end an utterance between its words.
const MIN_SILENCE: Duration = Duration::from_millis(64);

/// Within which a client may ask to be given up.
const IDLE_TIMEOUT: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// Speech needed before a start is never asked for longer than the detector's memory.
const MAX_START_MS: u32 = 1_900;

/// How one conversation is held, after validation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
    pub(crate) timing: Timing,
    /// The detector decides about speech; otherwise the client marks it.
    pub(crate) detect: bool,
    pub(crate) threshold: f32,
    pub(crate) start_confirm: Duration,
    pub(crate) propose_after: Duration,
    pub(crate) judge_after: Option<Duration>,
    pub(crate) hangover: Duration,
    pub(crate) hangover_unfinished: Duration,
    pub(crate) interruption: bool,
    pub(crate) covers_all_input: bool,
    pub(crate) text: bool,
    pub(crate) include_thoughts: bool,
    pub(crate) input_transcription: bool,
    pub(crate) output_transcription: bool,
    pub(crate) interim_transcription: bool,
    /// A conversation with more tokens forgets its oldest turns until the target is left.
    pub(crate) trigger_tokens: u32,
    pub(crate) target_tokens: u32,
    pub(crate) resumption: bool,
    pub(crate) idle_timeout: Option<Duration>,
    /// Whether the engine calls functions.
    pub(crate) tools: bool,
    /// Most tokens of the conversation; 0 if that is not known.
    pub(crate) context_tokens: u32,
}

/// A setup that can be served.
pub(crate) struct Accepted {
    pub(crate) rules: Rules,
    pub(crate) config: SessionConfig,
    pub(crate) opened: Opened,
    /// What the client asked for: `config` has the functions of both.
    pub(crate) update: Update,
    pub(crate) updated: bool,
    /// Functions that the server runs.
    pub(crate) server_tools: Vec<ToolDeclaration>,
    pub(crate) history: Vec<Item>,
    pub(crate) calls: Vec<PendingCall>,
    pub(crate) owed: bool,
    pub(crate) turns: u64,
}

/// Reads a setup against what the engine can do.
///
/// # Errors
/// The first field that cannot be served, and why.
pub(crate) fn accept(setup: Setup, capabilities: &Capabilities, settings: &Settings) -> Result<Accepted, Problem> {
    let timing = settings.timing;
    if setup.modality == Modality::Audio && !capabilities.audio_out {
        return refuse("generation_config.response_modalities", "this engine does not speak; ask for TEXT".into());
    }
    if let Some(language) = setup.language.as_deref().filter(|language| !language.is_empty())
        && !voices::well_formed(language)
    {
        return refuse("generation_config.speech_config.language_code", format!("{language:?} is not a BCP-47 tag"));
    }
    let language = setup.language.as_deref().filter(|language| !language.is_empty());
    let (voice, spoken) = if capabilities.voices.is_empty() && setup.modality == Modality::Text {
        (String::new(), language.unwrap_or_default().to_owned())
    } else {
        // Text needs no voice, so its language is only a hint about the speaker.
        let of = if setup.modality == Modality::Text { None } else { language };
        let voice = voices::choose(capabilities, setup.voice.as_deref(), of)?;
        (voice.name.clone(), voice.language.clone())
    };
    check_sampling(&setup.sampling)?;
    if let Some(idle) = setup.idle_timeout.filter(|idle| !IDLE_TIMEOUT.contains(idle)) {
        let (least, most) = (IDLE_TIMEOUT.start().as_secs(), IDLE_TIMEOUT.end().as_secs());
        return refuse("idle_timeout", format!("{} s are not between {least} and {most}", idle.as_secs_f64()));
    }
    if !(0.5..=2.0).contains(&setup.speaking_rate) {
        return refuse("speaking_rate", format!("{} is not between 0.5 and 2", setup.speaking_rate));
    }
    if setup.max_output_tokens == Some(0) {
        return refuse("generation_config.max_output_tokens", "0 tokens leave no reply".into());
    }
    if setup.thinking.budget.is_some_and(|budget| budget > 0) && !capabilities.thinking {
        return unsupported("generation_config.thinking_config", "this engine does not think; set a budget of 0");
    }
    if setup.proactive && !capabilities.proactive {
        return unsupported("proactivity.proactive_audio", "this engine answers everything; leave it out");
    }
    check_tools("setup", &setup.tools, capabilities.tools)?;
    if setup.history.len() > MAX_ITEMS {
        return refuse("history", format!("{} entries are more than {MAX_ITEMS}", setup.history.len()));
    }
    let (size, most) =
        (setup.history.iter().map(bytes).sum::<usize>(), max_bytes(max_content_bytes(capabilities.context_tokens)));
    if size > most {
        return refuse("history", format!("{size} bytes are more than the {most} that are kept"));
    }
    check_room("setup", &setup.system_instruction, &setup.tools, capabilities.context_tokens)?;
    let (trigger_tokens, target_tokens) = window(&setup.compression, capabilities.context_tokens)?;
    let detection = &setup.detection;
    let within = |value: Option<u32>, most: u32, field: &str| match value {
        Some(ms) if ms > most => refuse(
            &format!("realtime_input_config.automatic_activity_detection.{field}"),
            format!("{ms} ms are more than {most}"),
        ),
        value => Ok(value.map(|ms| Duration::from_millis(u64::from(ms)))),
    };
    let start_confirm = within(detection.start_confirm_ms, MAX_START_MS, "prefix_padding_ms")?;
    let silence = within(detection.silence_duration_ms, MAX_SILENCE_MS, "silence_duration_ms")?;
    let more = match detection.end_sensitivity {
        Sensitivity::High => Duration::ZERO,
        Sensitivity::Low => timing.hangover_low.saturating_sub(timing.hangover),
    };
    let hangover = silence.unwrap_or(timing.hangover + more).max(MIN_SILENCE);
    // A client that names a silence means this one, whatever the sentence sounds like.
    let judge_after = timing.judge_after.filter(|after| silence.is_none() && *after < hangover);
    let rules = Rules {
        timing,
        detect: !detection.disabled,
        threshold: match detection.start_sensitivity {
            Sensitivity::High => THRESHOLD_HIGH,
            Sensitivity::Low => THRESHOLD_LOW,
        },
        start_confirm: start_confirm.unwrap_or(timing.start_confirm),
        propose_after: timing.propose_after.min(hangover),
        judge_after,
        hangover,
        hangover_unfinished: (timing.hangover_unfinished + more).max(hangover),
        interruption: setup.interruption,
        covers_all_input: setup.covers_all_input,
        text: setup.modality == Modality::Text,
        include_thoughts: setup.thinking.include_thoughts,
        input_transcription: setup.input_transcription,
        output_transcription: setup.output_transcription,
        interim_transcription: setup.interim_transcription,
        trigger_tokens,
        target_tokens,
        resumption: setup.resumption,
        idle_timeout: setup.idle_timeout.into_iter().chain(settings.timing.idle_timeout).min(),
        tools: capabilities.tools,
        context_tokens: capabilities.context_tokens,
    };
    let opened = Opened {
        session: settings.name.clone(),
        model: settings.model.clone(),
        voice: voice.clone(),
        language: spoken,
    };
    let server_tools = if capabilities.tools { setup.server_tools } else { Vec::new() };
    let update = Update { system_instruction: setup.system_instruction, tools: setup.tools };
    let config = SessionConfig {
        // The words of an interruption are judged by the interim transcript.
        interim_transcripts: setup.interim_transcription || setup.input_transcription || setup.interruption,
        language: language.map(str::to_owned),
        proactive: setup.proactive,
        system_instruction: update.system_instruction.clone(),
        tools: all_tools(&update.tools, &server_tools),
        voice,
        speaking_rate: setup.speaking_rate,
        modality: setup.modality,
        sampling: setup.sampling,
        max_output_tokens: setup.max_output_tokens,
        thinking: setup.thinking,
    };
    let (history, calls, owed, turns, updated) = (setup.history, setup.calls, setup.owed, setup.turns, setup.updated);
    Ok(Accepted { rules, config, opened, update, updated, server_tools, history, calls, owed, turns })
}

/// Whether there is room for an instruction and functions. The engine knows better but later, when the client has been
/// told that all is well.
pub(crate) fn check_room(
    message: &str,
    instruction: &str,
    tools: &[ToolDeclaration],
    context_tokens: u32,
) -> Result<(), Problem> {
    // About four bytes are a token; a quarter of the context is left to the conversation.
    let declared = |tool: &ToolDeclaration| tool.name.len() + tool.description.len() + tool.parameters.len();
    let instruction = instruction.len() / 4;
    let tokens = instruction + tools.iter().map(declared).sum::<usize>() / 4;
    let room = context_tokens as usize / 4 * 3;
    if context_tokens == 0 || tokens <= room {
        return Ok(());
    }
    let field = if instruction > room { "system_instruction" } else { "tools.function_declarations" };
    let words = format!("about {tokens} tokens are more than the {room} there is room for");
    Err(Problem::new(ProblemCode::InvalidArgument, format!("{message}.{field}"), words))
}

/// Whether functions of a client can be offered to the model.
pub(crate) fn check_tools(message: &str, tools: &[ToolDeclaration], supported: bool) -> Result<(), Problem> {
    let wrong = |field: &str, words: String| {
        Err(Problem::new(ProblemCode::InvalidArgument, format!("{message}.{field}"), words))
    };
    if !tools.is_empty() && !supported {
        let words = "this engine does not call functions";
        return Err(Problem::new(ProblemCode::Unimplemented, format!("{message}.tools"), words));
    }
    if tools.len() > MAX_TOOLS {
        return wrong("tools", format!("{} functions are more than {MAX_TOOLS}", tools.len()));
    }
    for (i, tool) in tools.iter().enumerate() {
        if tool.name.is_empty() {
            return wrong("tools.function_declarations.name", format!("function {i} has no name"));
        }
        if tools[..i].iter().any(|before| before.name == tool.name) {
            return wrong("tools.function_declarations.name", format!("{:?} is declared twice", tool.name));
        }
    }
    Ok(())
}

/// The functions of the client, and as many of the server's as there is room for.
pub(crate) fn all_tools(client: &[ToolDeclaration], server: &[ToolDeclaration]) -> Vec<ToolDeclaration> {
    let new = server.iter().filter(|tool| client.iter().all(|declared| declared.name != tool.name));
    client.iter().chain(new).take(MAX_TOOLS.max(client.len())).cloned().collect()
}

/// When turns are forgotten, and how much is left. A client's wish for a later moment than there is room for is met as
/// late as there is.
fn window(wanted: &Compression, context: u32) -> Result<(u32, u32), Problem> {
    const FIELD: &str = "context_window_compression";
    let most = if context == 0 { u32::MAX } else { context / 5 * 4 };
    if wanted.trigger_tokens == Some(0) {
        return refuse(&format!("{FIELD}.trigger_tokens"), "0 tokens are no conversation".into());
    }
    let trigger = wanted.trigger_tokens.unwrap_or(most);
    if let Some(target) = wanted.target_tokens.filter(|target| *target >= trigger) {
        let message = format!("{target} tokens are not less than the {trigger} of the trigger");
        return refuse(&format!("{FIELD}.sliding_window.target_tokens"), message);
    }
    let trigger = trigger.min(most);
    Ok((trigger, wanted.target_tokens.unwrap_or(trigger / 2).min(trigger / 8 * 7)))
}

fn check_sampling(sampling: &Sampling) -> Result<(), Problem> {
    let ranges = [
        ("temperature", sampling.temperature, 0.0..=2.0),
        ("top_p", sampling.top_p, 0.0..=1.0),
        ("min_p", sampling.min_p, 0.0..=1.0),
        ("repetition_penalty", sampling.repetition_penalty, 0.1..=10.0),
        ("presence_penalty", sampling.presence_penalty, -2.0..=2.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0..=2.0),
    ];
    for (name, value, range) in ranges {
        if let Some(value) = value
            && !range.contains(&value)
        {
            let message = format!("{value} is not between {} and {}", range.start(), range.end());
            return refuse(&format!("generation_config.{name}"), message);
        }
    }
    if sampling.top_k == Some(0) {
        return refuse("generation_config.top_k", "0 keeps no token".into());
    }
    Ok(())
}

fn refuse<T>(field: &str, message: String) -> Result<T, Problem> {
    Err(Problem::new(ProblemCode::InvalidArgument, format!("setup.{field}"), message))
}

fn unsupported<T>(field: &str, message: &str) -> Result<T, Problem> {
    Err(Problem::new(ProblemCode::Unimplemented, format!("setup.{field}"), message))
}

#[cfg(test)]
mod tests {
    use causerie_model_api::{Role, SessionId, Thinking, ToolBehavior, Voice};

    use super::*;
    use crate::words::Detection;

    fn capabilities() -> Capabilities {
        Capabilities {
            audio_out: true,
            context_tokens: 4_000,
            voices: vec![Voice { name: "heart".into(), language: "en-US".into(), gender: "female".into() }],
            ..Capabilities::default()
        }
    }

    fn settings() -> Settings {
        Settings { id: SessionId(1), name: "s-1".into(), model: "cascade".into(), timing: Timing::default() }
    }

    fn field(setup: Setup) -> Option<(ProblemCode, String)> {
        accept(setup, &capabilities(), &settings()).err().map(|problem| (problem.code, problem.field))
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        let tool = |name: &str| ToolDeclaration {
            name: name.into(),
            description: String::new(),
            parameters: "{}".into(),
            behavior: ToolBehavior::Blocking,
        };
        let sampling = Sampling { temperature: Some(f32::NAN), ..Sampling::default() };
        let detection = Detection { silence_duration_ms: Some(60_000), ..Detection::default() };
        let base = Setup::default;
        use ProblemCode::{InvalidArgument, Unimplemented};
        let cases = [
            (base(), None),
            (Setup { language: Some("fr".into()), ..base() }, Some((InvalidArgument, "language_code"))),
            (Setup { language: Some("fr".into()), modality: Modality::Text, ..base() }, None),
            (Setup { language: Some("??".into()), ..base() }, Some((InvalidArgument, "language_code"))),
            (Setup { voice: Some("Hal".into()), ..base() }, Some((InvalidArgument, "voice_name"))),
            (Setup { sampling, ..base() }, Some((InvalidArgument, "temperature"))),
            (Setup { speaking_rate: f32::NAN, ..base() }, Some((InvalidArgument, "speaking_rate"))),
            (Setup { idle_timeout: Some(Duration::ZERO), ..base() }, Some((InvalidArgument, "idle_timeout"))),
            (Setup { max_output_tokens: Some(0), ..base() }, Some((InvalidArgument, "max_output_tokens"))),
            (Setup { tools: vec![tool("a")], ..base() }, Some((Unimplemented, "tools"))),
            (
                Setup { thinking: Thinking { budget: Some(9), include_thoughts: false }, ..base() },
                Some((Unimplemented, "thinking_config")),
            ),
            (Setup { detection, ..base() }, Some((InvalidArgument, "silence_duration_ms"))),
            (
                Setup { system_instruction: "word ".repeat(10_000), ..base() },
                Some((InvalidArgument, "system_instruction")),
            ),
            (
                Setup { history: vec![Item::text(Role::User, "word ".repeat(100_000))], ..base() },
                Some((InvalidArgument, "history")),
            ),
        ];
        for (i, (setup, want)) in cases.into_iter().enumerate() {
            let got = field(setup);
            match (&got, want) {
                (None, None) => {}
                (Some((code, field)), Some((want_code, want_field))) => {
                    assert!(*code == want_code && field.ends_with(want_field), "case {i}: {got:?}");
                }
                _ => panic!("case {i}: {got:?}, not {want:?}"),
            }
        }
        let able = Capabilities { tools: true, ..capabilities() };
        let wordy = ToolDeclaration { description: "word ".repeat(10_000), ..tool("a") };
        let refused = accept(Setup { tools: vec![wordy], ..base() }, &able, &settings()).err().expect("it is too long");
        assert_eq!((refused.code, refused.field.as_str()), (InvalidArgument, "setup.tools.function_declarations"));
    }

    #[test]
    fn the_window_slides_in_time() {
        let of = |trigger_tokens, target_tokens| {
            window(&Compression { trigger_tokens, target_tokens }, 1_000).map_err(|problem| problem.field)
        };
        assert_eq!(of(None, None), Ok((800, 400)));
        assert_eq!(of(Some(500), None), Ok((500, 250)));
        assert_eq!(of(Some(500), Some(100)), Ok((500, 100)));
        assert_eq!(of(Some(100_000), Some(50_000)), Ok((800, 700)), "as late as there is room");
        let refused = |name: &str| Err(format!("setup.context_window_compression.{name}"));
        assert_eq!(of(Some(500), Some(500)), refused("sliding_window.target_tokens"));
        assert_eq!(of(Some(0), None), refused("trigger_tokens"));
    }

    #[test]
    fn the_client_decides_about_turn_detection() {
        let detection = Detection {
            start_sensitivity: Sensitivity::Low,
            silence_duration_ms: Some(100),
            start_confirm_ms: Some(20),
            ..Detection::default()
        };
        let Ok(accepted) = accept(Setup { detection, ..Setup::default() }, &capabilities(), &settings()) else {
            panic!("refused");
        };
        assert_eq!(accepted.rules.threshold, 0.7);
        assert_eq!(accepted.rules.hangover, Duration::from_millis(100));
        assert_eq!(accepted.rules.propose_after, Duration::from_millis(100));
        assert_eq!(accepted.rules.start_confirm, Duration::from_millis(20));
        assert_eq!(accepted.opened.voice, "heart");
    }
}
