//! The gRPC transport: `causerie.live.v1.Live` and the foreign paths on which published clients ask for the same
//! conversation. A stream is one conversation.

mod compatible;
mod public;

use std::sync::Arc;

use causerie_proto::v1;
use causerie_proto::v1::live_server::{Live, LiveServer};
use causerie_session::Problem;
use futures::stream::MapErr;
use futures::{StreamExt as _, TryStreamExt as _};
use tonic::service::{Routes, RoutesBuilder};
use tonic::{Request, Response, Status, Streaming};

use crate::access::presented_key;
use crate::live::{Broken, Dialect, MAX_MESSAGE_BYTES, Replies, Shared};
use crate::status::{read_problem, status};

use compatible::Compatible;
pub(crate) use public::{MAX_PUBLIC, Public};

/// The service.
#[derive(Clone)]
pub struct Conversations {
    shared: Arc<Shared>,
}

impl Conversations {
    /// A service of what is shared.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The routes of the service, on our path and on the compatible ones.
    pub fn routes(self) -> Routes {
        let server = LiveServer::new(self).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(Compatible::<0, _>::new(server.clone()))
            .add_service(Compatible::<1, _>::new(server.clone()))
            .add_service(server);
        routes.routes()
    }
}

#[tonic::async_trait]
impl Live for Conversations {
    type ConverseStream = MapErr<Replies, fn(Problem) -> Status>;

    async fn converse(
        &self,
        request: Request<Streaming<v1::ClientMessage>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let dialect = request.extensions().get().copied().unwrap_or(Dialect::Causerie);
        let waiting = self
            .shared
            .admission
            .knock(presented_key(request.metadata().as_ref(), None))
            .map_err(|problem| status(&problem))?;
        let messages = request.into_inner().map(|message| message.map_err(broken)).boxed();
        let replies = Replies::start(self.shared.clone(), dialect, messages, waiting);
        Ok(Response::new(replies.map_err(|problem| status(&problem))))
    }
}

fn broken(error: Status) -> Broken {
    read_problem(&error, MAX_MESSAGE_BYTES).map_or(Broken::Gone, Broken::Unreadable)
}
