//! The HTTP port: `/healthz`, `/readyz` and `/metrics` for machines, [`page`] for people, and conversations over
//! WebSocket ([`ws`]).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::{Access, presented_key};
use crate::engine_host::{EngineHandle, EngineStatus};
use crate::lag::Lag;
use crate::metrics::{Gauges, Metrics};
use crate::page;
use crate::ws::{self, Later};

/// An engine without a sign of life for this long is stuck: a quantum takes 20 ms, on a slow machine ten times that.
const MAX_BEAT_AGE: Duration = Duration::from_secs(10);

/// What probes look at.
#[derive(Clone)]
pub struct Probes {
    /// The engine.
    pub engine: EngineHandle,
    /// Counts and latencies.
    pub metrics: Arc<Metrics>,
    /// Most conversations at once.
    pub max_conversations: usize,
    /// How late the server is.
    pub lag: Lag,
    /// Who may see the metrics.
    pub access: Access,
    /// Set when the server shuts down.
    pub drain: watch::Receiver<Option<Instant>>,
}

impl Probes {
    /// Whether new conversations can be served.
    ///
    /// # Errors
    /// Why they cannot.
    pub fn ready(&self) -> Result<(), String> {
        if self.drain.borrow().is_some() {
            return Err("shutting down".into());
        }
        match self.engine.status() {
            EngineStatus::Ready(_) => {}
            EngineStatus::Loading => return Err("the engine is being loaded".into()),
            EngineStatus::Failed(_) => return Err("the engine could not be loaded".into()),
            EngineStatus::Stopped => return Err("the engine has stopped".into()),
        }
        let age = self.engine.last_beat();
        if age > MAX_BEAT_AGE {
            return Err(format!("the engine has shown no sign of life for {} s", age.as_secs()));
        }
        Ok(())
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            ready: self.ready().is_ok(),
            engine_busy: self.engine.busy(),
            engine_beat: self.engine.last_beat(),
            engine_conversations: self.engine.conversations(),
            mcp: self.engine.tools().figures(),
            max_conversations: self.max_conversations as u64,
            lag: self.lag.places(std::time::Instant::now()),
        }
    }
}

/// The pages, and the paths of conversations.
pub fn router(probes: Probes, conversations: Later) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(probes)
        .merge(ws::router(conversations))
        .merge(page::router())
}

async fn ready(State(probes): State<Probes>) -> Response {
    match probes.ready() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}

async fn metrics(State(probes): State<Probes>, uri: Uri, headers: HeaderMap) -> Response {
    if let Err(problem) = probes.access.client(presented_key(&headers, uri.query())) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, format!("{}\n", problem.message)).into_response();
    }
    let page = probes.metrics.render(&probes.gauges());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}
