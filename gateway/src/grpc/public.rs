//! Services that anybody may ask, with a key or without: health and reflection.
//!
//! Some of their answers end when the client wants, and a request may never be finished. They sit in a [`Room`], so that
//! however many somebody opens, they hold no connection that others need; whoever means it asks again.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Bytes, HttpBody};
use causerie_session::{Problem, ProblemCode};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::room::Room;
use crate::status::status;

/// Requests to such services at once, on all connections.
pub(crate) const MAX_PUBLIC: usize = 64;

/// A service whose requests sit in a room.
#[derive(Clone, Debug)]
pub(crate) struct Public<S> {
    inner: S,
    room: Room,
}

impl<S> Public<S> {
    /// `inner`, with seats in `room`.
    pub(crate) fn new(inner: S, room: &Room) -> Self {
        Self { inner, room: room.clone() }
    }
}

impl<S: NamedService> NamedService for Public<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Public<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut seat = self.room.enter();
        let mut driven_out = async move { seat.taken_away().await }.boxed();
        let answer = self.inner.call(request);
        async move {
            tokio::select! {
                answer = answer => Ok(answer?.map(|body| Body::new(Seated { body, driven_out: Some(driven_out) }))),
                () = &mut driven_out => Ok(others_need_it().into_http()),
            }
        }
        .boxed()
    }
}

fn others_need_it() -> Status {
    status(&Problem::new(ProblemCode::ResourceExhausted, "", "others need its place; ask again"))
}

/// An answer that ends when its seat is given to somebody else.
struct Seated {
    body: Body,
    /// Has the seat; gone when the answer was ended.
    driven_out: Option<BoxFuture<'static, ()>>,
}

impl HttpBody for Seated {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(driven_out) = &mut this.driven_out else { return Poll::Ready(None) };
        if driven_out.poll_unpin(cx).is_pending() {
            return Pin::new(&mut this.body).poll_frame(cx);
        }
        this.driven_out = None;
        let mut trailers = http::HeaderMap::new();
        others_need_it().add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.driven_out.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
