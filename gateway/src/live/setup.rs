//! The first message of a stream as a [`Setup`].
//!
//! What this server can never do is refused by its field; what only has no effect yet is reported by a warning after
//! the setup, so that a client that asks for it by habit is served all the same.

use std::time::Duration;

use causerie_codec::OutputFormat;
use causerie_model_api::{Capabilities, MediaResolution, Modality, Thinking, ToolBehavior, ToolDeclaration};
use causerie_proto::v1;
use causerie_session::{Compression, Detection, Problem, ProblemCode, Sensitivity, Setup};

use super::contents;
use super::schema::{json_of_value, json_schema};
use crate::catalog::{Catalog, shorten};

/// Most functions of one conversation.
const MAX_FUNCTIONS: usize = 128;
/// Longest name of a function, in bytes (the Live API's limit).
const MAX_NAME_BYTES: usize = 64;
/// Largest padding and silence that can be asked for.
const MAX_DETECTION_MS: i32 = 10_000;

/// A setup as far as the wire can judge it. Voices and languages are judged by the session, which knows the engine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReadSetup {
    /// What is asked for.
    pub(super) setup: Setup,
    /// What replies are to be encoded as.
    pub(super) output: OutputFormat,
    /// How closely pictures are looked at.
    pub(super) resolution: MediaResolution,
    /// What has no effect.
    pub(super) warnings: Vec<Problem>,
}

/// Reads a setup.
///
/// # Errors
/// The first field that cannot be served.
pub(super) fn read(wire: &v1::Setup, catalog: &Catalog, capabilities: &Capabilities) -> Result<ReadSetup, Problem> {
    let mut warnings = Vec::new();
    let mut setup = Setup { model: catalog.resolve(&wire.model)?.to_owned(), ..Setup::default() };
    setup.modality = if capabilities.audio_out { Modality::Audio } else { Modality::Text };
    if let Some(instruction) = &wire.system_instruction {
        setup.system_instruction = contents::system_instruction("setup.system_instruction", instruction)?;
    }
    if let Some(generation) = &wire.generation_config {
        read_generation(generation, capabilities, &mut setup, &mut warnings)?;
    }
    if setup.modality == Modality::Audio && !capabilities.audio_out {
        return Err(Problem::new(
            ProblemCode::InvalidArgument,
            "setup.generation_config.response_modalities",
            format!("engine {} does not speak; ask for TEXT", capabilities.engine),
        ));
    }
    setup.tools = read_tools("setup.tools", &wire.tools)?;
    setup.search = wire.tools.iter().any(|tool| tool.google_search.is_some());
    if (setup.search || !setup.tools.is_empty()) && !capabilities.tools {
        return Err(unimplemented("setup.tools", format!("engine {} cannot call functions", capabilities.engine)));
    }
    if let Some(realtime) = &wire.realtime_input_config {
        read_realtime(realtime, &mut setup)?;
    }
    setup.resumption = wire.session_resumption.is_some();
    if let Some(compression) = &wire.context_window_compression {
        setup.compression = read_compression(compression)?;
    }
    setup.idle_timeout = wire.idle_timeout.map(read_idle).transpose()?;
    setup.proactive = wire.proactivity.as_ref().is_some_and(|proactivity| proactivity.proactive_audio == Some(true));
    if setup.proactive && !capabilities.proactive {
        let what = format!("engine {} answers everything that it hears", capabilities.engine);
        warnings.push(no_effect("setup.proactivity.proactive_audio", &what));
        setup.proactive = false;
    }
    setup.input_transcription = wire.input_audio_transcription.is_some();
    setup.output_transcription = wire.output_audio_transcription.is_some();
    setup.interim_transcription = wire.interim_transcripts;
    if let Some(rate) = wire.speaking_rate {
        setup.speaking_rate = within("setup.speaking_rate", rate, 0.5, 2.0)?;
    }
    setup.history = contents::items_of_words("setup.history", &wire.history)?;
    let output = match wire.output_audio_format.as_str() {
        "" => OutputFormat::Pcm(causerie_units::SampleRate::HZ_24000),
        mime => OutputFormat::parse(mime).map_err(|e| invalid("setup.output_audio_format", e.to_string()))?,
    };
    let resolution =
        read_resolution(wire.generation_config.as_ref().and_then(|generation| generation.media_resolution))?;
    Ok(ReadSetup { setup, output, resolution, warnings })
}

fn read_generation(
    wire: &v1::GenerationConfig,
    capabilities: &Capabilities,
    setup: &mut Setup,
    warnings: &mut Vec<Problem>,
) -> Result<(), Problem> {
    const FIELD: &str = "setup.generation_config";
    refuse_generation(wire)?;
    let field = |name: &str| format!("{FIELD}.{name}");
    setup.modality = read_modality(&wire.response_modalities)?.unwrap_or(setup.modality);
    setup.max_output_tokens = wire.max_output_tokens.map(|n| positive(&field("max_output_tokens"), n)).transpose()?;
    let sampling = &mut setup.sampling;
    let ranged = |name: &str, value: Option<f32>, low: f32, high: f32| {
        value.map(|value| within(&field(name), value, low, high)).transpose()
    };
    sampling.temperature = ranged("temperature", wire.temperature, 0.0, 2.0)?;
    sampling.top_p = ranged("top_p", wire.top_p, f32::MIN_POSITIVE, 1.0)?;
    sampling.top_k = wire.top_k.map(|n| positive(&field("top_k"), n)).transpose()?;
    sampling.min_p = ranged("min_p", wire.min_p, 0.0, 1.0)?;
    sampling.repetition_penalty = ranged("repetition_penalty", wire.repetition_penalty, 0.5, 2.0)?;
    sampling.presence_penalty = ranged("presence_penalty", wire.presence_penalty, -2.0, 2.0)?;
    sampling.frequency_penalty = ranged("frequency_penalty", wire.frequency_penalty, -2.0, 2.0)?;
    // Every seed is a seed: the bits count, not the sign.
    sampling.seed = wire.seed.map(|seed| u64::from(seed as u32));
    if let Some(speech) = &wire.speech_config {
        if speech.multi_speaker_voice_config.is_some() {
            return Err(invalid(
                field("speech_config.multi_speaker_voice_config"),
                "a conversation has one voice; use voice_config",
            ));
        }
        setup.language = Some(speech.language_code.clone()).filter(|code| !code.is_empty());
        if let Some(v1::voice_config::VoiceConfig::PrebuiltVoiceConfig(voice)) =
            speech.voice_config.as_ref().and_then(|v| v.voice_config.as_ref())
        {
            setup.voice = voice.voice_name.clone().filter(|name| !name.is_empty());
        }
    }
    if let Some(thinking) = &wire.thinking_config {
        setup.thinking = read_thinking(thinking)?;
        let asked = setup.thinking.budget.unwrap_or(0) > 0 || setup.thinking.include_thoughts;
        if asked && !capabilities.thinking {
            let what = format!("engine {} does not think before it speaks", capabilities.engine);
            warnings.push(no_effect(&field("thinking_config"), &what));
            setup.thinking = Thinking { budget: Some(0), include_thoughts: false };
        }
    }
    Ok(())
}

fn read_resolution(wire: Option<i32>) -> Result<MediaResolution, Problem> {
    use v1::generation_config::MediaResolution as Wire;
    match Wire::try_from(wire.unwrap_or_default()) {
        Ok(Wire::Low) => Ok(MediaResolution::Low),
        Ok(Wire::Unspecified | Wire::Medium) => Ok(MediaResolution::Medium),
        Ok(Wire::High) => Ok(MediaResolution::High),
        Err(_) => {
            let field = "setup.generation_config.media_resolution";
            Err(invalid(field, "it is one of LOW (1), MEDIUM (2) and HIGH (3)"))
        }
    }
}

/// Fields that speech has no use for.
fn refuse_generation(wire: &v1::GenerationConfig) -> Result<(), Problem> {
    let refused = [
        (
            "candidate_count",
            wire.candidate_count.is_some_and(|n| !(0..=1).contains(&n)),
            "there is one reply; leave it out",
        ),
        ("stop_sequences", !wire.stop_sequences.is_empty(), "they are not supported in conversations"),
        ("response_mime_type", !matches!(wire.response_mime_type.as_str(), "" | "text/plain"), NOT_SHAPED),
        ("response_schema", wire.response_schema.is_some(), NOT_SHAPED),
        ("response_json_schema", wire.response_json_schema.is_some(), NOT_SHAPED),
        ("response_json_schema_ordered", wire.response_json_schema_ordered.is_some(), NOT_SHAPED),
        ("response_logprobs", wire.response_logprobs == Some(true), NO_LOGPROBS),
        ("logprobs", wire.logprobs.is_some_and(|n| n != 0), NO_LOGPROBS),
        ("enable_enhanced_civic_answers", wire.enable_enhanced_civic_answers == Some(true), "there are none"),
        ("image_config", wire.image_config.is_some(), "pictures are not made"),
    ];
    const NOT_SHAPED: &str = "replies are speech or plain text; their shape cannot be set";
    const NO_LOGPROBS: &str = "log-probabilities are not returned in conversations";
    match refused.iter().find(|(_, set, _)| *set) {
        Some((name, _, why)) => Err(invalid(format!("setup.generation_config.{name}"), *why)),
        None => Ok(()),
    }
}

fn read_modality(wire: &[i32]) -> Result<Option<Modality>, Problem> {
    use v1::generation_config::Modality as Wire;
    const FIELD: &str = "setup.generation_config.response_modalities";
    let mut found = None;
    for value in wire {
        let modality = match Wire::try_from(*value) {
            Ok(Wire::Unspecified) => continue,
            Ok(Wire::Text) => Modality::Text,
            Ok(Wire::Audio) => Modality::Audio,
            Ok(Wire::Image) => return Err(invalid(FIELD, "IMAGE is not supported; ask for TEXT or AUDIO")),
            Err(_) => return Err(invalid(FIELD, format!("{value} is not a modality; ask for TEXT (1) or AUDIO (3)"))),
        };
        if found.is_some_and(|other| other != modality) {
            return Err(invalid(FIELD, "ask for one of TEXT and AUDIO; replies in AUDIO can be transcribed"));
        }
        found = Some(modality);
    }
    Ok(found)
}

fn read_thinking(wire: &v1::ThinkingConfig) -> Result<Thinking, Problem> {
    let budget = match wire.thinking_budget {
        None | Some(-1) => None,
        Some(n) => Some(u32::try_from(n).map_err(|_| {
            invalid(
                "setup.generation_config.thinking_config.thinking_budget",
                format!("{n} is not a number of tokens; use 0 or more, or -1 to leave it to the model"),
            )
        })?),
    };
    Ok(Thinking { budget, include_thoughts: wire.include_thoughts.unwrap_or(false) })
}

fn read_realtime(wire: &v1::RealtimeInputConfig, setup: &mut Setup) -> Result<(), Problem> {
    use v1::realtime_input_config::{ActivityHandling, TurnCoverage};
    const FIELD: &str = "setup.realtime_input_config";
    if let Some(detection) = &wire.automatic_activity_detection {
        setup.detection = read_detection(&format!("{FIELD}.automatic_activity_detection"), detection)?;
    }
    setup.interruption = match ActivityHandling::try_from(wire.activity_handling.unwrap_or(0)) {
        Ok(ActivityHandling::NoInterruption) => false,
        Ok(ActivityHandling::StartOfActivityInterrupts | ActivityHandling::Unspecified) => true,
        Err(_) => {
            return Err(invalid(
                format!("{FIELD}.activity_handling"),
                "it is one of START_OF_ACTIVITY_INTERRUPTS (1) and NO_INTERRUPTION (2)",
            ));
        }
    };
    setup.covers_all_input = match TurnCoverage::try_from(wire.turn_coverage.unwrap_or(0)) {
        Ok(TurnCoverage::TurnIncludesAllInput) => true,
        Ok(TurnCoverage::TurnIncludesOnlyActivity | TurnCoverage::Unspecified) => false,
        Err(_) => {
            return Err(invalid(
                format!("{FIELD}.turn_coverage"),
                "it is one of TURN_INCLUDES_ONLY_ACTIVITY (1) and TURN_INCLUDES_ALL_INPUT (2)",
            ));
        }
    };
    Ok(())
}

fn read_compression(wire: &v1::ContextWindowCompressionConfig) -> Result<Compression, Problem> {
    use v1::context_window_compression_config::CompressionMechanism::SlidingWindow;
    const FIELD: &str = "setup.context_window_compression";
    let tokens = |name: &str, value: Option<i64>| match value {
        // No context is longer than this.
        Some(n) if n > 0 => Ok(Some(u32::try_from(n).unwrap_or(u32::MAX))),
        Some(n) => Err(invalid(format!("{FIELD}.{name}"), format!("{n} is not a number of tokens; use 1 or more"))),
        None => Ok(None),
    };
    let target = wire.compression_mechanism.as_ref().and_then(|SlidingWindow(window)| window.target_tokens);
    Ok(Compression {
        trigger_tokens: tokens("trigger_tokens", wire.trigger_tokens)?,
        target_tokens: tokens("sliding_window.target_tokens", target)?,
    })
}

fn read_detection(
    field: &str,
    wire: &v1::realtime_input_config::AutomaticActivityDetection,
) -> Result<Detection, Problem> {
    use v1::realtime_input_config::automatic_activity_detection::{EndSensitivity, StartSensitivity};
    let wrong = |name: &str| invalid(format!("{field}.{name}"), "it is one of HIGH (1) and LOW (2)");
    let start = match StartSensitivity::try_from(wire.start_of_speech_sensitivity.unwrap_or(0)) {
        Ok(StartSensitivity::High | StartSensitivity::Unspecified) => Sensitivity::High,
        Ok(StartSensitivity::Low) => Sensitivity::Low,
        Err(_) => return Err(wrong("start_of_speech_sensitivity")),
    };
    let end = match EndSensitivity::try_from(wire.end_of_speech_sensitivity.unwrap_or(0)) {
        Ok(EndSensitivity::High | EndSensitivity::Unspecified) => Sensitivity::High,
        Ok(EndSensitivity::Low) => Sensitivity::Low,
        Err(_) => return Err(wrong("end_of_speech_sensitivity")),
    };
    let milliseconds = |name: &str, value: Option<i32>| match value {
        Some(ms) if (0..=MAX_DETECTION_MS).contains(&ms) => Ok(Some(ms as u32)),
        Some(ms) => {
            Err(invalid(format!("{field}.{name}"), format!("{ms} ms is not within 0 to {MAX_DETECTION_MS} ms")))
        }
        None => Ok(None),
    };
    Ok(Detection {
        disabled: wire.disabled.unwrap_or(false),
        start_sensitivity: start,
        end_sensitivity: end,
        start_confirm_ms: milliseconds("prefix_padding_ms", wire.prefix_padding_ms)?,
        silence_duration_ms: milliseconds("silence_duration_ms", wire.silence_duration_ms)?,
    })
}

/// Functions. `field` is where they are.
///
/// # Errors
/// A tool that is no function, or a declaration that cannot be read.
pub(super) fn read_tools(field: &str, wire: &[v1::Tool]) -> Result<Vec<ToolDeclaration>, Problem> {
    let mut tools: Vec<ToolDeclaration> = Vec::new();
    for (i, tool) in wire.iter().enumerate() {
        let built_in = [
            ("google_search_retrieval", tool.google_search_retrieval.is_some()),
            ("code_execution", tool.code_execution.is_some()),
            ("computer_use", tool.computer_use.is_some()),
            ("url_context", tool.url_context.is_some()),
            ("file_search", tool.file_search.is_some()),
            ("google_maps", tool.google_maps.is_some()),
        ];
        if let Some((name, _)) = built_in.iter().find(|(_, set)| *set) {
            return Err(unimplemented(
                format!("{field}[{i}].{name}"),
                "this tool is not built in; declare a function and run it in the client",
            ));
        }
        for (j, declaration) in tool.function_declarations.iter().enumerate() {
            let field = format!("{field}[{i}].function_declarations[{j}]");
            let tool = read_function(&field, declaration)?;
            if tools.iter().any(|other| other.name == tool.name) {
                return Err(invalid(format!("{field}.name"), format!("function {:?} is declared twice", tool.name)));
            }
            tools.push(tool);
        }
    }
    if tools.len() > MAX_FUNCTIONS {
        return Err(invalid(field, format!("{} functions are more than {MAX_FUNCTIONS}", tools.len())));
    }
    Ok(tools)
}

fn read_function(field: &str, wire: &v1::FunctionDeclaration) -> Result<ToolDeclaration, Problem> {
    use v1::function_declaration::Behavior;
    let fits = wire.name.len() <= MAX_NAME_BYTES
        && wire.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && wire.name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c));
    if !fits {
        return Err(invalid(
            format!("{field}.name"),
            format!(
                "{:?} is not a name: 1 to {MAX_NAME_BYTES} letters, digits, _, -, . and :, beginning with a letter or _",
                shorten(&wire.name)
            ),
        ));
    }
    let parameters = match (&wire.parameters, &wire.parameters_json_schema) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                format!("{field}.parameters"),
                "parameters and parameters_json_schema exclude each other",
            ));
        }
        (Some(schema), None) => json_schema(schema)
            .map_err(|at| invalid(format!("{field}.parameters.{at}"), "it is a number from STRING (1) to NULL (7)"))?,
        (None, Some(value)) => json_of_value(value),
        (None, None) => serde_json::json!({"type": "object", "properties": {}}),
    };
    if !parameters.is_object() {
        return Err(invalid(format!("{field}.parameters_json_schema"), "a JSON Schema is an object"));
    }
    let behavior = match Behavior::try_from(wire.behavior) {
        Ok(Behavior::Unspecified | Behavior::Blocking) => ToolBehavior::Blocking,
        Ok(Behavior::NonBlocking) => ToolBehavior::NonBlocking,
        Err(_) => {
            return Err(invalid(format!("{field}.behavior"), "it is one of BLOCKING (1) and NON_BLOCKING (2)"));
        }
    };
    Ok(ToolDeclaration {
        name: wire.name.clone(),
        description: wire.description.clone(),
        parameters: parameters.to_string(),
        behavior,
    })
}

fn read_idle(wire: prost_types::Duration) -> Result<Duration, Problem> {
    Duration::try_from(wire).map_err(|_| invalid("setup.idle_timeout", "it is a negative duration"))
}

fn within(field: &str, value: f32, low: f32, high: f32) -> Result<f32, Problem> {
    // NaN is in no range.
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    let low = if low == f32::MIN_POSITIVE { "above 0".to_owned() } else { low.to_string() };
    Err(invalid(field, format!("{value} is not within {low} to {high}")))
}

fn positive(field: &str, value: i32) -> Result<u32, Problem> {
    match u32::try_from(value) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(invalid(field, format!("{value} is not 1 or more"))),
    }
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidArgument, field, message)
}

fn unimplemented(field: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::Unimplemented, field, message)
}

fn no_effect(field: &str, why: &str) -> Problem {
    unimplemented(field, format!("without effect: {why}"))
}

#[cfg(test)]
#[path = "setup_tests.rs"]
mod tests;
