//! A port: its connections, from when they are accepted to when they are closed.
//!
//! A connection is idle while it has no request, from its first byte on: a handshake that is not finished and a head
//! that comes a byte at a time count as idle. Idle connections are closed after a time, and there is a [`Room`] of them,
//! so that a thousand of them disturb nobody. What a request is and does is the business of the router; a WebSocket
//! leaves with its upgrade.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::codegen::Service as _;

use crate::room::{Room, Seat};
use crate::tls::Certificates;

/// HTTP/2 windows. A connection carries many streams, and at 50 ms of round trip the default of 64 KiB is 27 of them;
/// a stream's window is its back-pressure, 64 KiB being 1.4 s of 24 kHz audio.
const CONNECTION_WINDOW: u32 = 1 << 20;
const STREAM_WINDOW: u32 = 64 << 10;
/// Streams of one connection, the probes' own among them. Conversations are counted over all connections.
const MAX_STREAMS: u32 = 1_024;
/// A peer that does not answer a ping is gone.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Longest head of a request.
const MAX_HEAD_BYTES: usize = 32 << 10;
/// Idle connections of a port. One more closes that which has been idle longest.
const MAX_IDLE: usize = 512;
/// Connections of a port; one more is closed at once. Each takes a file descriptor.
const MAX_CONNECTIONS: usize = 4_096;
/// How long a connection may take to its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests. Channels of gRPC open another when they need it.
const IDLE: Duration = Duration::from_secs(300);
/// How long a client of HTTP/1.1 may take to take a page. WebSockets are no pages.
const PAGE: Duration = Duration::from_secs(60);
/// How long an idle connection of HTTP/2 may take to leave when told so.
const LEAVING: Duration = Duration::from_secs(2);
/// Wait after the system has given no connection, for want of file descriptors.
const NO_ACCEPT: Duration = Duration::from_millis(100);

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: pages and WebSockets.
    Http1,
    /// HTTP/2: gRPC.
    Http2,
}

/// A port that is to be served.
pub struct Port {
    /// Where it is.
    pub listener: TcpListener,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// How it is encrypted, if it is.
    pub(crate) tls: Option<Certificates>,
    /// What answers.
    pub router: Router,
}

/// Why a connection was closed before its time.
type Gone = Box<dyn std::error::Error + Send + Sync>;

/// What the connections of a port share.
struct Shared {
    protocol: Protocol,
    tls: Option<Certificates>,
    router: Router,
    idle: Room,
    connections: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Port {
    /// Serves until `stop` is sent or dropped, and then until every connection is closed: those that are idle at once,
    /// the others when their requests have been answered.
    pub async fn serve(self, stop: oneshot::Receiver<()>) {
        let (stopping, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            protocol: self.protocol,
            tls: self.tls,
            router: self.router,
            idle: Room::new(MAX_IDLE),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            stop: stopped,
        });
        let mut stop = pin!(stop);
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let shared = shared.clone();
                        tasks.spawn(async move { shared.accepted(stream, peer).await });
                    }
                    Err(error) => not_accepted(&error).await,
                },
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                _ = &mut stop => break,
            }
        }
        drop(self.listener);
        stopping.send_replace(true);
        while tasks.join_next().await.is_some() {}
    }
}

/// Lets the process have as many files open as the system allows it: a connection is one, and the usual limit is 1,024.
pub fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, files = limit.current, "there may not be enough files for all connections");
    }
}

/// The connection of a client that is gone already is nobody's trouble. Others mean that there are too many.
async fn not_accepted(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(%error, "a connection cannot be accepted");
        tokio::time::sleep(NO_ACCEPT).await;
    }
}

impl Shared {
    async fn accepted(&self, stream: TcpStream, peer: SocketAddr) {
        let Ok(_permit) = self.connections.clone().try_acquire_owned() else {
            tracing::warn!("all {MAX_CONNECTIONS} connections of a port are taken");
            return;
        };
        // Small packets leave at once; without it they only come later.
        let _ = stream.set_nodelay(true);
        let ended = match &self.tls {
            None => self.carry(stream, self.idle.enter()).await,
            Some(certificates) => {
                let mut seat = self.idle.enter();
                let newest = certificates.borrow().of(self.protocol);
                let handshake = timeout(FIRST_REQUEST, TlsAcceptor::from(newest).accept(stream));
                let encrypted: Result<io::Result<_>, Gone> = tokio::select! {
                    encrypted = handshake => encrypted.map_err(|_| "the handshake took too long".into()),
                    () = seat.taken_away() => Err("others need its place".into()),
                };
                match encrypted {
                    Ok(Ok(encrypted)) => self.carry(encrypted, seat).await,
                    Ok(Err(error)) => Err(error.into()),
                    Err(why) => Err(why),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ends");
        }
    }

    /// Answers requests until the connection is closed.
    async fn carry<IO>(&self, io: IO, seat: Seat) -> Result<(), Gone>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let running = watch::Sender::new(0_usize);
        let mut changes = running.subscribe();
        let router = self.router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let request_runs = Running::new(&running);
            let answer = router.clone().call(request.map(Body::new));
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| Counted { body, _running: request_runs }))
            }
        });
        let builder = builder(self.protocol);
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
        let mut stop = self.stop.clone();
        let mut state = State::Idle { seat, until: Instant::now() + FIRST_REQUEST };
        let mut stopping = false;
        loop {
            let look = tokio::select! {
                ended = connection.as_mut() => return ended,
                _ = changes.changed() => Look::Requests(*changes.borrow_and_update()),
                look = state.over() => look,
                _ = stop.changed(), if !stopping => Look::Stop,
            };
            match look {
                Look::Requests(0) if !stopping => {
                    // The seat that it may have is free before it takes another.
                    drop(std::mem::replace(&mut state, State::Busy { until: None }));
                    state = State::Idle { seat: self.idle.enter(), until: Instant::now() + IDLE };
                }
                Look::Requests(_) if self.protocol == Protocol::Http1 => {
                    state = State::Busy { until: Some(Instant::now() + PAGE) };
                }
                Look::Requests(_) => state = State::Busy { until: None },
                Look::OutOfTime => match state {
                    // A client that opens a stream at this moment is told to open it elsewhere.
                    State::Idle { .. } if self.protocol == Protocol::Http2 => {
                        connection.as_mut().graceful_shutdown();
                        state = State::Leaving { until: Instant::now() + LEAVING };
                    }
                    _ => return Err("it took too long".into()),
                },
                Look::DrivenOut => return Err("others need its place".into()),
                Look::Stop => {
                    if self.protocol == Protocol::Http1 && matches!(state, State::Idle { .. }) {
                        return Ok(());
                    }
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// What there is to be looked at.
enum Look {
    Requests(usize),
    OutOfTime,
    DrivenOut,
    Stop,
}

/// What a connection does.
enum State {
    /// It has no request.
    Idle { seat: Seat, until: Instant },
    /// It has some.
    Busy { until: Option<Instant> },
    /// It was told to close.
    Leaving { until: Instant },
}

impl State {
    /// Waits until this cannot go on.
    async fn over(&mut self) -> Look {
        match self {
            Self::Idle { seat, until } => tokio::select! {
                () = sleep_until(*until) => Look::OutOfTime,
                () = seat.taken_away() => Look::DrivenOut,
            },
            Self::Busy { until: Some(until) } | Self::Leaving { until } => {
                sleep_until(*until).await;
                Look::OutOfTime
            }
            Self::Busy { until: None } => pending().await,
        }
    }
}

fn builder(protocol: Protocol) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    match protocol {
        Protocol::Http1 => {
            let mut builder = builder.http1_only();
            // The time of a head is that of an idle connection.
            builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
            builder
        }
        Protocol::Http2 => {
            let mut builder = builder.http2_only();
            builder
                .http2()
                .timer(TokioTimer::new())
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_stream_window_size(STREAM_WINDOW)
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(MAX_HEAD_BYTES as u32)
                .keep_alive_interval(KEEPALIVE.0)
                .keep_alive_timeout(KEEPALIVE.1);
            builder
        }
    }
}

/// A request that runs, counted until its answer is out or given up.
struct Running(watch::Sender<usize>);

impl Running {
    fn new(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|running| *running += 1);
        Self(running.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

/// A body that belongs to a running request.
struct Counted {
    body: Body,
    _running: Running,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
