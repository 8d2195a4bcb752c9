//! Counts and latencies, in the Prometheus text format (version 0.0.4).
//!
//! Names are an interface: a test lists them.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use causerie_model_api::FinishReason;
use causerie_session::{ProblemCode, ServerEvent, TurnEnd};

use crate::status::code_name;
use crate::tools::McpFigures;

/// Upper bounds of the latency histograms, in seconds: dense where a listener notices a difference.
const BOUNDS: [f64; 14] = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3, 1.6, 2.5, 5.0, 10.0];

const CODES: [ProblemCode; 11] = [
    ProblemCode::InvalidArgument,
    ProblemCode::FailedPrecondition,
    ProblemCode::NotFound,
    ProblemCode::Unauthenticated,
    ProblemCode::Unimplemented,
    ProblemCode::ResourceExhausted,
    ProblemCode::PermissionDenied,
    ProblemCode::Aborted,
    ProblemCode::DeadlineExceeded,
    ProblemCode::Unavailable,
    ProblemCode::Internal,
];

const REASONS: [(&str, TurnEnd); 7] = [
    ("stop", TurnEnd::Finished(FinishReason::Stop)),
    ("max_tokens", TurnEnd::Finished(FinishReason::MaxTokens)),
    ("empty", TurnEnd::Finished(FinishReason::Empty)),
    ("not_addressed", TurnEnd::Finished(FinishReason::NotAddressed)),
    ("tool_calls", TurnEnd::Finished(FinishReason::ToolCalls)),
    ("interrupted", TurnEnd::Interrupted),
    ("failed", TurnEnd::Failed),
];

/// All figures of a server. They are independent of each other and publish nothing, so every access is relaxed.
#[derive(Debug, Default)]
pub struct Metrics {
    started: AtomicU64,
    active: AtomicU64,
    refused: AtomicU64,
    failed: [AtomicU64; CODES.len()],
    turns: [AtomicU64; REASONS.len()],
    ran_dry: AtomicU64,
    endpoint: Histogram,
    transcript_final: Histogram,
    first_token: Histogram,
    first_audio_generated: Histogram,
    first_audio: Histogram,
}

/// Figures that are read off elsewhere at the moment of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Whether the engine serves.
    pub ready: bool,
    /// Time that the engine has computed.
    pub engine_busy: Duration,
    /// Time since the engine's last sign of life.
    pub engine_beat: Duration,
    /// Conversations that the engine holds.
    pub engine_conversations: u64,
    /// Most conversations at once.
    pub max_conversations: u64,
    /// Longest wait of late at each place where conversations wait.
    pub lag: [(&'static str, Duration); 3],
    /// The servers whose functions are offered.
    pub mcp: Vec<McpFigures>,
}

/// Counts a conversation as active while it lives.
pub struct ConversationGuard {
    metrics: Arc<Metrics>,
}

impl Drop for ConversationGuard {
    fn drop(&mut self) {
        self.metrics.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// A conversation begins.
    pub fn conversation_started(self: &Arc<Self>) -> ConversationGuard {
        add(&self.started, 1);
        add(&self.active, 1);
        ConversationGuard { metrics: self.clone() }
    }

    /// A conversation found no place.
    pub fn conversation_refused(&self) {
        add(&self.refused, 1);
    }

    /// A conversation was ended by a problem.
    pub fn conversation_failed(&self, code: ProblemCode) {
        if let Some(i) = CODES.iter().position(|c| *c == code) {
            add(&self.failed[i], 1);
        }
    }

    /// Conversations that live now.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }

    /// Looks at what a client is told; the ends of turns count.
    pub fn observe(&self, event: &ServerEvent) {
        let ServerEvent::TurnComplete { reason, waterfall, ran_dry, .. } = event else { return };
        if let Some(i) = REASONS.iter().position(|(_, r)| r == reason) {
            add(&self.turns[i], 1);
        }
        add(&self.ran_dry, u64::from(*ran_dry));
        for (histogram, milliseconds) in [
            (&self.endpoint, waterfall.endpoint),
            (&self.transcript_final, waterfall.transcript_final),
            (&self.first_token, waterfall.first_token),
            (&self.first_audio_generated, waterfall.first_audio_generated),
            (&self.first_audio, waterfall.first_audio_sent),
        ] {
            if let Some(milliseconds) = milliseconds {
                histogram.record(milliseconds / 1000.0);
            }
        }
    }

    /// Everything as text.
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut page = Page(String::with_capacity(8 * 1024));
        page.head("causerie_conversations_active", "gauge", "Conversations that live now.");
        page.value("causerie_conversations_active", self.active());
        page.head("causerie_conversations_max", "gauge", "Most conversations at once.");
        page.value("causerie_conversations_max", gauges.max_conversations);
        page.head("causerie_conversations_started_total", "counter", "Conversations that were begun.");
        page.value("causerie_conversations_started_total", get(&self.started));
        page.head("causerie_conversations_refused_total", "counter", "Conversations that found no place.");
        page.value("causerie_conversations_refused_total", get(&self.refused));
        page.head("causerie_conversations_failed_total", "counter", "Conversations ended by a problem, by its code.");
        for (code, count) in CODES.iter().zip(&self.failed) {
            let label = format!("{{code=\"{}\"}}", code_name(*code));
            page.labelled("causerie_conversations_failed_total", &label, get(count));
        }
        page.head("causerie_turns_total", "counter", "Turns that ended, by reason.");
        for ((reason, _), count) in REASONS.iter().zip(&self.turns) {
            page.labelled("causerie_turns_total", &format!("{{reason=\"{reason}\"}}"), get(count));
        }
        page.head(
            "causerie_ran_dry_total",
            "counter",
            "Times that a listener had heard everything before the next sample was there.",
        );
        page.value("causerie_ran_dry_total", get(&self.ran_dry));
        for (name, help, histogram) in [
            ("causerie_endpoint_seconds", "End of user speech to its detection.", &self.endpoint),
            (
                "causerie_transcript_final_seconds",
                "End of user speech to its complete transcript.",
                &self.transcript_final,
            ),
            ("causerie_first_token_seconds", "End of user speech to the first token of the reply.", &self.first_token),
            (
                "causerie_first_audio_generated_seconds",
                "End of user speech to the first synthesised sample.",
                &self.first_audio_generated,
            ),
            (
                "causerie_first_audio_seconds",
                "End of user speech to the first synthesised sample sent.",
                &self.first_audio,
            ),
        ] {
            page.head(name, "histogram", help);
            histogram.render(name, &mut page);
        }
        page.head("causerie_engine_ready", "gauge", "1 when the engine serves.");
        page.value("causerie_engine_ready", u64::from(gauges.ready));
        page.head("causerie_engine_busy_seconds_total", "counter", "Time that the engine has computed.");
        page.value("causerie_engine_busy_seconds_total", gauges.engine_busy.as_secs_f64());
        page.head("causerie_engine_beat_age_seconds", "gauge", "Time since the engine's last sign of life.");
        page.value("causerie_engine_beat_age_seconds", gauges.engine_beat.as_secs_f64());
        page.head("causerie_engine_conversations", "gauge", "Conversations that the engine holds.");
        page.value("causerie_engine_conversations", gauges.engine_conversations);
        page.head("causerie_lag_seconds", "gauge", "Longest wait of late, by where was waited.");
        for (place, longest) in gauges.lag {
            page.labelled("causerie_lag_seconds", &format!("{{place=\"{place}\"}}"), longest.as_secs_f64());
        }
        let label = |server: &str| server.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        page.head("causerie_mcp_up", "gauge", "1 when the MCP server is connected.");
        for mcp in &gauges.mcp {
            page.labelled("causerie_mcp_up", &format!("{{server=\"{}\"}}", label(&mcp.server)), u64::from(mcp.up));
        }
        page.head("causerie_mcp_connects_total", "counter", "Times that the MCP server was connected.");
        for mcp in &gauges.mcp {
            let labels = format!("{{server=\"{}\"}}", label(&mcp.server));
            page.labelled("causerie_mcp_connects_total", &labels, mcp.connects);
        }
        page.head("causerie_mcp_calls_total", "counter", "Calls of the MCP server's functions, by outcome.");
        for mcp in &gauges.mcp {
            for (outcome, count) in mcp.calls {
                let labels = format!("{{server=\"{}\",outcome=\"{outcome}\"}}", label(&mcp.server));
                page.labelled("causerie_mcp_calls_total", &labels, count);
            }
        }
        page.0
    }
}

/// A page of the text format.
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn value(&mut self, name: &str, value: impl std::fmt::Display) {
        self.labelled(name, "", value);
    }

    fn labelled(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// A histogram over [`BOUNDS`]. Offsets before the end of speech count as zero.
#[derive(Debug, Default)]
struct Histogram {
    /// One for each bound and one for what is above them all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn record(&self, seconds: f64) {
        let seconds = seconds.max(0.0);
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        add(&self.buckets[bucket], 1);
        add(&self.sum_us, (seconds * 1e6) as u64);
    }

    fn render(&self, name: &str, page: &mut Page) {
        let mut count = 0;
        let bucket = format!("{name}_bucket");
        for (bound, bucket_count) in BOUNDS.iter().zip(&self.buckets) {
            count += get(bucket_count);
            page.labelled(&bucket, &format!("{{le=\"{bound}\"}}"), count);
        }
        count += get(&self.buckets[BOUNDS.len()]);
        page.labelled(&bucket, "{le=\"+Inf\"}", count);
        page.value(&format!("{name}_sum"), get(&self.sum_us) as f64 / 1e6);
        page.value(&format!("{name}_count"), count);
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use causerie_model_api::Usage;
    use causerie_session::Waterfall;

    #[test]
    fn the_names_are_these() {
        let text = Metrics::default().render(&Gauges::default());
        let names: Vec<&str> =
            text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).filter_map(|l| l.split(' ').next()).collect();
        assert_eq!(
            names,
            [
                "causerie_conversations_active",
                "causerie_conversations_max",
                "causerie_conversations_started_total",
                "causerie_conversations_refused_total",
                "causerie_conversations_failed_total",
                "causerie_turns_total",
                "causerie_ran_dry_total",
                "causerie_endpoint_seconds",
                "causerie_transcript_final_seconds",
                "causerie_first_token_seconds",
                "causerie_first_audio_generated_seconds",
                "causerie_first_audio_seconds",
                "causerie_engine_ready",
                "causerie_engine_busy_seconds_total",
                "causerie_engine_beat_age_seconds",
                "causerie_engine_conversations",
                "causerie_lag_seconds",
                "causerie_mcp_up",
                "causerie_mcp_connects_total",
                "causerie_mcp_calls_total",
            ]
        );
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (_, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn turns_are_counted() {
        let metrics = Metrics::default();
        let turn = |reason, sent| ServerEvent::TurnComplete {
            reason,
            usage: Usage::default(),
            waterfall: Waterfall { endpoint: Some(-10.0), first_audio_sent: sent, ..Default::default() },
            ran_dry: 2,
        };
        metrics.observe(&turn(TurnEnd::Finished(FinishReason::Stop), Some(700.0)));
        metrics.observe(&turn(TurnEnd::Interrupted, Some(60_000.0)));
        metrics.observe(&turn(TurnEnd::Interrupted, None));
        metrics.observe(&ServerEvent::GenerationComplete);
        let calls = [("ok", 3), ("error", 0), ("unavailable", 1)];
        let mcp = vec![McpFigures { server: "a \"b\"".into(), up: true, connects: 2, calls }];
        let text = metrics.render(&Gauges { mcp, ..Gauges::default() });
        for line in [
            r#"causerie_mcp_up{server="a \"b\""} 1"#,
            r#"causerie_mcp_connects_total{server="a \"b\""} 2"#,
            r#"causerie_mcp_calls_total{server="a \"b\"",outcome="ok"} 3"#,
            "causerie_turns_total{reason=\"stop\"} 1",
            "causerie_turns_total{reason=\"interrupted\"} 2",
            "causerie_ran_dry_total 6",
            "causerie_first_audio_seconds_bucket{le=\"0.6\"} 0",
            "causerie_first_audio_seconds_bucket{le=\"0.8\"} 1",
            "causerie_first_audio_seconds_bucket{le=\"10\"} 1",
            "causerie_first_audio_seconds_bucket{le=\"+Inf\"} 2",
            "causerie_first_audio_seconds_sum 60.7",
            "causerie_first_audio_seconds_count 2",
            "causerie_endpoint_seconds_bucket{le=\"0.05\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn conversations_leave() {
        let metrics = Arc::new(Metrics::default());
        let guard = metrics.conversation_started();
        assert_eq!(metrics.active(), 1);
        drop(guard);
        assert_eq!(metrics.active(), 0);
    }
}
