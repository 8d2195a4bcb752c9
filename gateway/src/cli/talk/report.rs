//! A finished turn in words: as a small chart for people, as a line of JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::record::Turn;

/// Columns of the chart.
const COLUMNS: f64 = 40.0;

/// The steps of a turn, in the order in which they are printed.
fn steps(turn: &Turn) -> [(&'static str, Option<f64>); 6] {
    let metrics = &turn.metrics;
    [
        ("endpoint", metrics.endpoint_ms),
        ("transcript_final", metrics.transcript_final_ms),
        ("first_token", metrics.first_token_ms),
        ("first_audio_generated", metrics.first_audio_generated_ms),
        ("first_audio_sent", metrics.first_audio_sent_ms),
        ("first_voiced_here", turn.first_voiced_ms),
    ]
}

/// Transcripts and waterfall.
pub(super) fn text(turn: &Turn) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{text}");
    };
    line(format!("turn {}  {}", turn.number, turn.input).trim_end().to_owned());
    line(format!("  heard    {}", or_nothing(&turn.input_transcript)));
    line(format!("  answered {}", or_nothing(&turn.output_transcript)));
    let dry = match turn.dry.count {
        0 => String::new(),
        count => format!(", ran dry {count} times for {:.0} ms", turn.dry.ms),
    };
    line(format!("  speech   {:.1} s{dry}, ended by {}", turn.audio_seconds(), reason(turn)));
    let known = steps(turn).into_iter().filter_map(|(name, at)| at.map(|at| (name, at)));
    let known: Vec<_> = known.filter(|(_, at)| at.is_finite()).collect();
    let low = known.iter().map(|step| step.1).fold(0.0, f64::min);
    let high = known.iter().map(|step| step.1).fold(low + 1.0, f64::max);
    let column = |at: f64| ((at - low) / (high - low) * COLUMNS).round() as usize;
    if !known.is_empty() {
        line(format!("  {:<21}     ms  {}0 = end of your speech", "", " ".repeat(column(0.0))));
    }
    for (name, at) in known {
        let (from, to) = (column(at).min(column(0.0)), column(at).max(column(0.0)));
        let bar: String = (0..=to)
            .map(|here| match here {
                here if here == column(at) => '●',
                here if here < from => ' ',
                _ => '─',
            })
            .collect();
        line(format!("  {name:<21} {at:>6.0}  {bar}"));
    }
    out
}

/// One object, on one line.
pub(super) fn json(turn: &Turn) -> Value {
    let round = |ms: Option<f64>| ms.map(|ms| (ms * 10.0).round() / 10.0);
    let metrics = &turn.metrics;
    json!({
        "turn": turn.number,
        "input": turn.input,
        "engine": turn.engine,
        "input_transcript": turn.input_transcript.trim(),
        "output_transcript": turn.output_transcript.trim(),
        "waterfall": {
            "endpoint_ms": round(metrics.endpoint_ms),
            "transcript_final_ms": round(metrics.transcript_final_ms),
            "first_token_ms": round(metrics.first_token_ms),
            "first_audio_generated_ms": round(metrics.first_audio_generated_ms),
            "first_audio_sent_ms": round(metrics.first_audio_sent_ms),
        },
        "first_voiced_ms": round(turn.first_voiced_ms),
        "audio_seconds": (turn.audio_seconds() * 1e3).round() / 1e3,
        "ran_dry": turn.dry.count,
        "ran_dry_ms": round(Some(turn.dry.ms)),
        "reason": reason(turn),
        "usage": turn.usage.as_ref().map(|usage| json!({
            "prompt_tokens": usage.prompt_token_count,
            "response_tokens": usage.response_token_count,
            "cached_tokens": usage.cached_content_token_count,
        })),
        "warnings": turn.warnings,
    })
}

fn reason(turn: &Turn) -> String {
    let name = turn.reason.as_str_name();
    name.strip_prefix("TURN_END_REASON_").unwrap_or(name).to_lowercase()
}

fn or_nothing(text: &str) -> &str {
    match text.trim() {
        "" => "(nothing)",
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use causerie_proto::v1::{TurnEndReason, TurnMetrics};

    use super::super::record::Dry;
    use super::*;

    fn turn() -> Turn {
        Turn {
            number: 2,
            input: "question.wav".to_owned(),
            engine: "cascade".to_owned(),
            input_transcript: " What is it?".to_owned(),
            output_transcript: "A test. ".to_owned(),
            metrics: TurnMetrics {
                endpoint_ms: Some(300.04),
                transcript_final_ms: Some(-100.0),
                ..TurnMetrics::default()
            },
            reason: TurnEndReason::Stop,
            usage: None,
            audio: vec![0.0; 36_000],
            first_voiced_ms: Some(400.0),
            dry: Dry { count: 1, ms: 20.0 },
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_chart_puts_zero_and_the_steps_in_one_scale() {
        let expected = "\
turn 2  question.wav
  heard    What is it?
  answered A test.
  speech   1.5 s, ran dry 1 times for 20 ms, ended by stop
                            ms          0 = end of your speech
  endpoint                 300          ────────────────────────●
  transcript_final        -100  ●────────
  first_voiced_here        400          ────────────────────────────────●
";
        assert_eq!(text(&turn()), expected);
    }

    #[test]
    fn json_has_every_field_on_one_line() {
        let line = json(&turn()).to_string();
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["waterfall"]["endpoint_ms"], 300.0);
        assert_eq!(value["waterfall"]["first_token_ms"], Value::Null);
        assert_eq!(value["first_voiced_ms"], 400.0);
        assert_eq!((&value["audio_seconds"], &value["reason"]), (&json!(1.5), &json!("stop")));
        assert_eq!(value["input_transcript"], "What is it?");
    }

    #[test]
    fn a_turn_in_which_nothing_happened_is_printed_too() {
        let text = text(&Turn::default());
        assert!(text.contains("heard    (nothing)"), "{text}");
    }
}
