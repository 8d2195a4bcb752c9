//! The WebSocket transport: conversations in JSON, for published clients and browsers.
//!
//! A [`Wire`] is one dialect: it turns frames into messages of the contract and back, and is pure. [`socket`] carries
//! both between a socket and the conversation.

mod google;
mod openai;
mod socket;

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{RequestExt as _, Router};
use causerie_proto::v1;
use causerie_session::{Problem, ProblemCode};
use serde_json::json;

use crate::access::presented_key;
use crate::live::{Dialect, MAX_MESSAGE_BYTES, Shared};
use crate::status::code_name;

/// Largest frame that is read: the largest message, in base64 and with room for what is around it.
const MAX_FRAME_BYTES: usize = MAX_MESSAGE_BYTES / 3 * 4 + (64 << 10);

/// What conversations share, from when the engine is loaded.
pub type Later = Arc<OnceLock<Arc<Shared>>>;

/// One way of putting a conversation into frames.
trait Wire: Send + 'static {
    /// What the conversation may say.
    fn dialect(&self) -> Dialect;
    /// Says what is said before the client has said anything.
    ///
    /// # Errors
    /// The conversation cannot be held.
    fn open(&mut self, _out: &mut Out) -> Result<(), Problem> {
        Ok(())
    }
    /// Reads a frame.
    ///
    /// # Errors
    /// It cannot be read, and the conversation ends.
    fn receive(&mut self, frame: &[u8], out: &mut Out) -> Result<(), Problem>;
    /// Writes what the conversation says.
    fn reply(&mut self, message: v1::ServerMessage, out: &mut Out);
    /// Writes what ends the conversation, where that takes more than a close code.
    fn problem(&mut self, _problem: &Problem, _out: &mut Out) {}
}

/// What a [`Wire`] makes of what it is given.
#[derive(Debug, Default)]
struct Out {
    /// For the conversation. A frame gives a few at most.
    messages: VecDeque<v1::ClientMessage>,
    /// For the client: text frames. Sent before the next is read.
    frames: Vec<String>,
    /// The conversation is to be ended, and another begun with these messages.
    anew: bool,
}

/// The paths of conversations.
pub fn router(later: Later) -> Router {
    Router::new()
        .route("/ws/{method}", any(gemini))
        // Some clients add their path to an address that ends in a slash.
        .route("//ws/{method}", any(gemini))
        .route(google::VERTEX_PATH, any(vertex))
        .route(&format!("/{}", google::VERTEX_PATH), any(vertex))
        .route(google::OUR_PATH, any(ours))
        .route(openai::PATH, any(realtime))
        .with_state(later)
}

async fn gemini(Path(method): Path<String>, State(later): State<Later>, request: Request) -> Response {
    if !google::is_method(&method) {
        return refusal(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such method");
    }
    upgrade(&later, request, |_| google::Google::gemini()).await
}

async fn vertex(State(later): State<Later>, request: Request) -> Response {
    upgrade(&later, request, |_| google::Google::vertex()).await
}

async fn ours(State(later): State<Later>, request: Request) -> Response {
    upgrade(&later, request, |_| google::Google::ours()).await
}

async fn realtime(State(later): State<Later>, request: Request) -> Response {
    let model = openai::model_of(request.uri().query().unwrap_or_default());
    let wire = |shared: &Arc<Shared>| {
        let shared = shared.clone();
        openai::OpenAi::new(&model, Box::new(move |setup| shared.check(setup)))
    };
    upgrade(&later, request, wire).await
}

async fn upgrade<W: Wire>(later: &Later, request: Request, wire: impl FnOnce(&Arc<Shared>) -> W) -> Response {
    let Some(shared) = later.get() else {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the engine is being loaded");
    };
    if let Err(why) = shared.origins.check(request.headers()) {
        return refusal(StatusCode::FORBIDDEN, "PERMISSION_DENIED", why);
    }
    let waiting = match shared.admission.knock(presented_key(request.headers(), request.uri().query())) {
        Ok(waiting) => waiting,
        Err(problem) => return refuse(&problem),
    };
    let upgrade = match request.extract::<WebSocketUpgrade, _>().await {
        Ok(upgrade) => upgrade,
        Err(not_a_websocket) => return not_a_websocket.into_response(),
    };
    let (shared, wire) = (shared.clone(), wire(shared));
    upgrade
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .on_upgrade(move |socket| socket::hold(socket, shared, wire, waiting))
}

fn refuse(problem: &Problem) -> Response {
    let status = match problem.code {
        ProblemCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ProblemCode::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = refusal(status, code_name(problem.code), &problem.message);
    if let Some(seconds) = problem.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn refusal(status: StatusCode, name: &str, message: &str) -> Response {
    let body = json!({"error": {"code": status.as_u16(), "status": name, "message": message}});
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}
