//! Functions of servers of the Model Context Protocol: programs started beside this one that speak over their standard
//! streams, and servers reached by streamable HTTP.
//!
//! A server is connected or it is not. One that died is connected anew at the next call, the first time at once, and
//! then after pauses that double while it does not stay: until then its functions answer immediately that they are not
//! available. A server is taken to stay when a call of it has been answered.

use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use causerie_model_api::{ToolBehavior, ToolDeclaration};
use rmcp::model::CallToolRequestParams;
use rmcp::service::{RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{RoleClient, ServiceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::config::McpConfig;

/// How long a server may take to start and to list its functions.
const START_WAIT: Duration = Duration::from_secs(20);

/// Functions of one server; what is beyond them is not offered.
const MAX_FUNCTIONS: usize = 128;

/// Longest message of a server. A longer one ends the connection, or over HTTP the call; shorter ones may still be more
/// than the model is given of a result.
const MAX_MESSAGE: usize = 16 << 20;

/// Pauses before a server that does not stay is connected again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a call came to.
const OUTCOMES: [&str; 3] = ["ok", "error", "unavailable"];
const OK: usize = 0;
const ERROR: usize = 1;
const UNAVAILABLE: usize = 2;

type Running = RunningService<RoleClient, ()>;

/// One server.
pub(super) struct Server {
    config: McpConfig,
    link: Mutex<Link>,
    connects: AtomicU64,
    calls: [AtomicU64; OUTCOMES.len()],
}

/// The connection. Held while it is made, so that it is made once however many calls wait for it.
#[derive(Default)]
struct Link {
    connected: Option<Arc<Connected>>,
    /// Times that it was lost or could not be made since a call was answered.
    failures: u32,
    retry_at: Option<Instant>,
}

struct Connected {
    service: Running,
    /// Ends with it.
    _program: Option<Child>,
}

/// A server's state, for the page of metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct McpFigures {
    /// As in the configuration.
    pub server: String,
    /// Whether it is connected.
    pub up: bool,
    /// How often it was connected.
    pub connects: u64,
    /// Calls by what they came to.
    pub calls: [(&'static str, u64); OUTCOMES.len()],
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Server {
    /// Connects the server and asks for its functions.
    ///
    /// # Errors
    /// For the operator.
    pub(super) async fn start(config: &McpConfig) -> Result<(Arc<Self>, Vec<ToolDeclaration>), String> {
        let connected = connect(config).await?;
        let listed = timeout(START_WAIT, connected.service.list_all_tools()).await;
        let listed = listed.map_err(|_| failed(config, "it did not list its functions in time"))?;
        let tools = listed.map_err(|error| failed(config, error))?;
        let declarations = tools.into_iter().take(MAX_FUNCTIONS).map(|tool| ToolDeclaration {
            name: tool.name.into_owned(),
            description: tool.description.unwrap_or_default().into_owned(),
            parameters: Value::Object((*tool.input_schema).clone()).to_string(),
            behavior: ToolBehavior::Blocking,
        });
        let declarations = declarations.collect();
        let link = Link { connected: Some(Arc::new(connected)), ..Link::default() };
        let server = Self {
            config: config.clone(),
            link: Mutex::new(link),
            connects: AtomicU64::new(1),
            calls: Default::default(),
        };
        Ok((Arc::new(server), declarations))
    }

    /// Calls a function; how long that may take is the session's to decide, which drops the call.
    ///
    /// # Errors
    /// For the model.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Result<Value, String> {
        let unavailable = |error: String| {
            let server = self.config.label();
            tracing::warn!(server, function = name, "a function of an MCP server failed: {error}");
            self.count(UNAVAILABLE);
            "the function is not available now".to_owned()
        };
        let connected = self.connected().await.map_err(unavailable)?;
        let arguments = arguments.as_object().cloned().unwrap_or_default();
        let call = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        let answer = connected.service.call_tool(call).await;
        let mut link = self.link.lock().await;
        let result = match answer {
            Ok(result) => result,
            // The server said so itself, which is a sign of life.
            Err(ServiceError::McpError(error)) => {
                link.failures = 0;
                self.count(ERROR);
                return Err(error.message.into_owned());
            }
            Err(error) => {
                if link.connected.as_ref().is_some_and(|now| Arc::ptr_eq(now, &connected)) {
                    link.lost();
                }
                drop(link);
                return Err(unavailable(error.to_string()));
            }
        };
        link.failures = 0;
        drop(link);
        let result = serde_json::to_value(result).unwrap_or_default();
        let texts = result["content"].as_array().into_iter().flatten().filter_map(|block| block["text"].as_str());
        let text = texts.collect::<Vec<_>>().join("\n");
        let wrong = result["isError"].as_bool() == Some(true);
        self.count(if wrong { ERROR } else { OK });
        match &result["structuredContent"] {
            _ if wrong => Err(text),
            Value::Null => Ok(json!({ "output": text })),
            structured => Ok(structured.clone()),
        }
    }

    /// The connection, made anew if it is lost and the pause is over.
    async fn connected(&self) -> Result<Arc<Connected>, String> {
        let mut link = self.link.lock().await;
        if link.connected.as_ref().is_some_and(|connected| connected.service.is_transport_closed()) {
            link.lost();
        }
        if let Some(connected) = &link.connected {
            return Ok(connected.clone());
        }
        if let Some(at) = link.retry_at.filter(|at| *at > Instant::now()) {
            let left = at.duration_since(Instant::now()).as_secs_f32();
            return Err(format!("it is connected again in {left:.1} s at the earliest"));
        }
        match connect(&self.config).await {
            Ok(connected) => {
                self.connects.fetch_add(1, Ordering::Relaxed);
                Ok(link.connected.insert(Arc::new(connected)).clone())
            }
            Err(error) => {
                link.lost();
                Err(error)
            }
        }
    }

    /// What it has come to so far.
    pub(super) fn figures(&self) -> McpFigures {
        // While the link is held it is being made.
        let up = self.link.try_lock().is_ok_and(|link| {
            link.connected.as_ref().is_some_and(|connected| !connected.service.is_transport_closed())
        });
        let count = |i: usize| (OUTCOMES[i], self.calls[i].load(Ordering::Relaxed));
        McpFigures {
            server: self.config.label().to_owned(),
            up,
            connects: self.connects.load(Ordering::Relaxed),
            calls: std::array::from_fn(count),
        }
    }

    fn count(&self, outcome: usize) {
        self.calls[outcome].fetch_add(1, Ordering::Relaxed);
    }
}

impl Link {
    /// The connection is gone, or could not be made.
    fn lost(&mut self) {
        self.connected = None;
        self.retry_at = Some(Instant::now() + pause(self.failures));
        self.failures = self.failures.saturating_add(1);
    }
}

/// How long to wait before the next try, after so many failures in a row before this one.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(10)).min(LONGEST_PAUSE),
    }
}

async fn connect(config: &McpConfig) -> Result<Connected, String> {
    let connecting = async {
        if !config.url.is_empty() {
            let mut http = StreamableHttpClientTransportConfig::with_uri(config.url.as_str())
                .max_json_response_size(MAX_MESSAGE)
                .max_sse_event_size(MAX_MESSAGE);
            if let Some(name) = &config.token_env {
                let token = std::env::var(name).map_err(|_| format!("the environment has no {name}"))?;
                http = http.auth_header(token);
            }
            let transport = StreamableHttpClientTransport::from_config(http);
            let service = ().serve(transport).await.map_err(|error| error.to_string())?;
            return Ok(Connected { service, _program: None });
        }
        let mut command = Command::new(&config.command);
        command.args(&config.args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut program = command.spawn().map_err(|error| error.to_string())?;
        let (Some(stdout), Some(stdin)) = (program.stdout.take(), program.stdin.take()) else {
            return Err("its standard streams are missing".to_owned());
        };
        let service = ().serve((Lines::new(stdout), stdin)).await.map_err(|error| error.to_string())?;
        Ok(Connected { service, _program: Some(program) })
    };
    let connected = timeout(START_WAIT, connecting).await;
    connected.map_err(|_| failed(config, "it did not answer in time"))?.map_err(|error| failed(config, error))
}

fn failed(config: &McpConfig, error: impl std::fmt::Display) -> String {
    format!("MCP server {:?}: {error}", config.label())
}

/// Reads lines no longer than [`MAX_MESSAGE`]; a longer one is an error, so that no server fills the memory.
struct Lines<R> {
    inner: R,
    length: usize,
}

impl<R> Lines<R> {
    fn new(inner: R) -> Self {
        Self { inner, length: 0 }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let new = &buf.filled()[before..];
        self.length = match new.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => new.len() - at - 1,
            None => self.length + new.len(),
        };
        if self.length > MAX_MESSAGE {
            return Poll::Ready(Err(std::io::Error::other(format!("a message of more than {MAX_MESSAGE} bytes"))));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let pauses = [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(|failures| pause(failures).as_secs());
        assert_eq!(pauses, [0, 1, 2, 4, 32, 60, 60, 60]);
    }

    #[tokio::test]
    async fn a_line_without_end_is_an_error() {
        let long = vec![b'x'; MAX_MESSAGE];
        let mut taken = Vec::new();
        Lines::new(&[&long[..], b"\n", &long[..]].concat()[..])
            .read_to_end(&mut taken)
            .await
            .expect("both are short enough");
        let error = Lines::new(&[&long[..], b"y"].concat()[..]).read_to_end(&mut taken).await.unwrap_err();
        assert!(error.to_string().contains("16777216"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_cannot_be_started_is_tried_again_after_a_pause() {
        let config = McpConfig { command: "/nowhere/to/be/found".into(), ..McpConfig::default() };
        let link = Mutex::new(Link { failures: 1, ..Link::default() });
        let server = Server { config, link, connects: AtomicU64::new(1), calls: Default::default() };
        for (wait, said) in
            [(0, "No such file"), (0, "again in 1.0 s"), (1_000, "No such file"), (1_900, "again in 0.1 s")]
        {
            tokio::time::advance(Duration::from_millis(wait)).await;
            let error = server.connected().await.err().expect("there is no such program");
            assert!(error.contains(said), "{error}, not {said}");
            assert_eq!(server.call("f", Value::Null).await, Err("the function is not available now".into()));
        }
        let figures = server.figures();
        assert_eq!((figures.up, figures.connects, figures.calls[UNAVAILABLE].1), (false, 1, 4));
    }
}
