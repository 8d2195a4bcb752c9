//! One socket: frames in and out, signs of life, and the end.
//!
//! Bounds: a frame is read only when what the last one gave was taken, so the driver slows a client that sends too
//! fast; a frame that is not taken within [`SEND_WITHIN`] and a client silent for [`SILENCE`] end the conversation.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use causerie_proto::v1;
use causerie_session::{Problem, ProblemCode};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tungstenite::Error as Broke;

use super::{MAX_FRAME_BYTES, Out, Wire};
use crate::admission::Waiting;
use crate::live::{Broken, FromPeer, Replies, Shared};

/// How often a sign of life is asked for. Proxies close a connection that is quiet for a minute.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client that shows no sign of life for this long is gone: two pings were not answered.
const SILENCE: Duration = Duration::from_secs(50);
/// How long a client may take to take a frame.
const SEND_WITHIN: Duration = Duration::from_secs(20);
/// How long a client may take to answer the close frame.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Longest reason of a close frame, in bytes (RFC 6455 §5.5: 125 with the code).
const MAX_REASON_BYTES: usize = 123;

/// How a conversation ended.
enum End {
    /// Nobody is left to tell.
    Gone,
    /// The client is told.
    Close(CloseFrame),
}

/// Holds a conversation to its end. The place is free again when the socket is closed.
pub(super) async fn hold(mut socket: WebSocket, shared: Arc<Shared>, mut wire: impl Wire, waiting: Waiting) {
    let (to_conversation, from_client) = conversation();
    // Holds the place until the close frame is out, so that a shutdown waits for it.
    let mut replies = Replies::start(shared, wire.dialect(), from_client, waiting);
    let end = carry(&mut socket, &mut wire, &mut replies, to_conversation).await;
    let End::Close(frame) = end else { return };
    let close = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while socket.recv().await.is_some_and(|frame| frame.is_ok()) {}
        }
    };
    // A client that does not answer is left.
    let _ = timeout(CLOSE_WITHIN, close).await;
}

type ToConversation = mpsc::Sender<Result<v1::ClientMessage, Broken>>;

/// The two ends of what a conversation reads.
fn conversation() -> (ToConversation, FromPeer) {
    let (to_conversation, messages) = mpsc::channel(1);
    // A socket that is closed has nobody who still listens.
    let gone = futures::stream::once(std::future::ready(Err(Broken::Gone)));
    (to_conversation, ReceiverStream::new(messages).chain(gone).boxed())
}

async fn carry(
    socket: &mut WebSocket,
    wire: &mut impl Wire,
    replies: &mut Replies,
    mut to_conversation: ToConversation,
) -> End {
    let mut out = Out::default();
    if let Err(problem) = wire.open(&mut out) {
        return refused(socket, wire, &problem, out).await;
    }
    // What cannot be read, on its way to the conversation, which ends by it and tells the client. Nothing is read
    // after it.
    let mut broken = None;
    let mut reading = true;
    let mut heard = Instant::now();
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if std::mem::take(&mut out.anew) {
            let (to_another, from_client) = conversation();
            to_conversation = to_another;
            replies.begin_anew(from_client).await;
        }
        if !flush(socket, &mut out).await {
            return End::Gone;
        }
        tokio::select! {
            permit = to_conversation.reserve(), if !out.messages.is_empty() || broken.is_some() => {
                // When the conversation has ended, the next reply says why.
                match permit {
                    Ok(permit) => {
                        let next = out.messages.pop_front().map(Ok);
                        if let Some(next) = next.or_else(|| broken.take().map(|why| Err(Broken::Unreadable(why)))) {
                            permit.send(next);
                        }
                    }
                    Err(_) => {
                        out.messages.clear();
                        broken = None;
                    }
                }
                heard = Instant::now();
            }
            frame = socket.recv(), if reading && out.messages.is_empty() => {
                heard = Instant::now();
                let read = match frame {
                    Some(Ok(Message::Text(text))) => wire.receive(text.as_bytes(), &mut out),
                    Some(Ok(Message::Binary(bytes))) => wire.receive(&bytes, &mut out),
                    // Pings are answered by the library.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                    Some(Ok(Message::Close(_))) => {
                        // The library's answer goes out with the next read.
                        let _ = timeout(CLOSE_WITHIN, socket.recv()).await;
                        return End::Gone;
                    }
                    None => return End::Gone,
                    Some(Err(error)) => match unreadable(error) {
                        Some(problem) => Err(problem),
                        None => return End::Gone,
                    },
                };
                broken = read.err();
                reading = broken.is_none();
            }
            reply = replies.next() => match reply {
                Some(Ok(message)) => wire.reply(message, &mut out),
                Some(Err(problem)) => return refused(socket, wire, &problem, out).await,
                None => return End::Close(CloseFrame { code: close_code::NORMAL, reason: "".into() }),
            },
            _ = ping.tick() => {
                if out.messages.is_empty() && broken.is_none() && heard.elapsed() > SILENCE {
                    return End::Gone;
                }
                if !send(socket, Message::Ping(Bytes::new())).await {
                    return End::Gone;
                }
            }
        }
    }
}

/// Whether the client took what was written for it.
async fn flush(socket: &mut WebSocket, out: &mut Out) -> bool {
    for frame in out.frames.drain(..) {
        if !send(socket, Message::Text(frame.into())).await {
            return false;
        }
    }
    true
}

/// The end because of a problem, told in frames where the dialect has words for it.
async fn refused(socket: &mut WebSocket, wire: &mut impl Wire, problem: &Problem, mut out: Out) -> End {
    wire.problem(problem, &mut out);
    if !flush(socket, &mut out).await {
        return End::Gone;
    }
    End::Close(close_frame(problem))
}

/// Whether the client took the frame.
async fn send(socket: &mut WebSocket, frame: Message) -> bool {
    matches!(timeout(SEND_WITHIN, socket.send(frame)).await, Ok(Ok(())))
}

/// What the client is told about a frame that the library refuses; `None` when the connection is broken.
fn unreadable(error: axum::Error) -> Option<Problem> {
    let error = error.into_inner().downcast::<Broke>().ok()?;
    match *error {
        Broke::Capacity(_) => Some(Problem::new(
            ProblemCode::ResourceExhausted,
            "",
            format!("a frame is larger than {MAX_FRAME_BYTES} bytes; send media in smaller pieces"),
        )),
        Broke::Utf8(_) => Some(Problem::new(ProblemCode::InvalidArgument, "", "a text frame is not UTF-8")),
        _ => None,
    }
}

/// The close frame that tells a problem. Published clients show code and reason.
fn close_frame(problem: &Problem) -> CloseFrame {
    let code = match problem.code {
        ProblemCode::InvalidArgument => close_code::INVALID,
        ProblemCode::FailedPrecondition
        | ProblemCode::NotFound
        | ProblemCode::Unauthenticated
        | ProblemCode::PermissionDenied
        | ProblemCode::Aborted
        | ProblemCode::Unimplemented
        | ProblemCode::DeadlineExceeded => close_code::POLICY,
        ProblemCode::ResourceExhausted if problem.retryable => close_code::AGAIN,
        ProblemCode::ResourceExhausted => close_code::SIZE,
        ProblemCode::Unavailable => close_code::AWAY,
        ProblemCode::Internal => close_code::ERROR,
    };
    let mut reason = problem.to_string();
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    CloseFrame { code, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_fit_into_a_close_frame() {
        for n in 100..140 {
            let problem = Problem::new(ProblemCode::InvalidArgument, "field", "ü".repeat(n));
            let frame = close_frame(&problem);
            assert!(frame.reason.len() <= MAX_REASON_BYTES && frame.reason.len() > 110, "{}", frame.reason.len());
            assert_eq!(frame.code, 1007);
        }
    }
}
