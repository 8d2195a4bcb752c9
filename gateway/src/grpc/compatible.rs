//! The method paths of the compatible contract, led to our own service.

use std::task::{Context, Poll};

use causerie_proto::{COMPATIBLE_METHOD, COMPATIBLE_SERVICES, SERVICE};
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::live::Dialect;

/// The service of [`COMPATIBLE_SERVICES`]`[VERSION]`: the same messages on another path.
#[derive(Clone, Debug)]
pub(super) struct Compatible<const VERSION: usize, S> {
    inner: S,
}

impl<const VERSION: usize, S> Compatible<VERSION, S> {
    /// A further path to `inner`.
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<const VERSION: usize, S> NamedService for Compatible<VERSION, S> {
    const NAME: &'static str = COMPATIBLE_SERVICES[VERSION];
}

impl<const VERSION: usize, S, B> Service<http::Request<B>> for Compatible<VERSION, S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        // Other methods of theirs keep their path, which our service does not know: it answers UNIMPLEMENTED.
        if method == COMPATIBLE_METHOD
            && let Ok(uri) = format!("/{SERVICE}/Converse").parse()
        {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(Dialect::Compatible);
        }
        self.inner.call(request)
    }
}
