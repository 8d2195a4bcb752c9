//! Pictures on their way in: decoded on a thread of their own before the words that follow them are read.

use bytes::Bytes;
use causerie_model_api::{Content, MediaResolution, Picture};
use causerie_session::{Input, Problem, ProblemCode};
use tokio::time::{Duration, Instant};

use super::contents::{Inline, Items};
use super::inbound::Action;
use crate::driver::Inbound;
use crate::media::Media;

/// Frames of a client's video that come sooner after the one before are not looked at: a camera of 30 frames a second is
/// seen three times a second.
const FRAME_GAP: Duration = Duration::from_millis(300);

/// A client's pictures.
pub(super) struct Eye {
    media: Media,
    engine: String,
    sees: bool,
    resolution: MediaResolution,
    last: Option<Instant>,
}

impl Eye {
    /// `engine` is the name that a client is told when it does not see.
    pub(super) fn new(media: Media, engine: &str, sees: bool, resolution: MediaResolution) -> Self {
        Self { media, engine: engine.to_owned(), sees, resolution, last: None }
    }

    /// Looks at the pictures of an action, so that none are left to be decoded. `None` for a frame too many.
    pub(super) async fn open(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Pass(Inbound::Video { mime, data }) => match self.frame(mime, data).await {
                Ok(word) => word.map(Action::Pass),
                // The next frame may be a better one.
                Err(problem) => Some(Action::Note(problem)),
            },
            Action::Look { contents, turn_complete } => {
                Some(self.contents(contents, turn_complete).await.map_or_else(Action::Complain, Action::Pass))
            }
            action => Some(action),
        }
    }

    /// A frame of live video; `None` for one too many. The driver says it where the engine does not see.
    ///
    /// # Errors
    /// What is wrong with the picture.
    async fn frame(&mut self, mime: String, data: Bytes) -> Result<Option<Inbound>, Problem> {
        if !self.sees {
            return Ok(Some(Inbound::Video { mime, data }));
        }
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + FRAME_GAP) {
            return Ok(None);
        }
        self.last = Some(now);
        self.look("realtime_input.video", mime, data).await.map(|picture| Some(Inbound::Frame(picture)))
    }

    /// Contents with pictures in them.
    ///
    /// # Errors
    /// What is wrong with a picture, or that the engine does not see.
    async fn contents(&self, contents: Items, turn_complete: bool) -> Result<Inbound, Problem> {
        let Items { mut items, pictures } = contents;
        for Inline { field, item, piece, blob } in pictures {
            if !self.sees {
                let message = format!("engine {} does not see; send words or sound", self.engine);
                return Err(Problem::new(ProblemCode::Unimplemented, field, message));
            }
            let picture = self.look(&field, blob.mime_type, blob.data).await?;
            items[item].content.insert(piece, Content::Picture(picture));
        }
        Ok(Inbound::Event(Input::ClientContent { items, turn_complete }))
    }

    async fn look(&self, field: &str, mime: String, data: Bytes) -> Result<Picture, Problem> {
        let resolution = self.resolution;
        let pixels = self.media.look(mime, data, resolution.pixels())?.await;
        let pixels =
            pixels.map_err(|_| Problem::new(ProblemCode::Internal, field, "the decoder of pictures failed"))?;
        let pixels = pixels.map_err(|e| Problem::new(ProblemCode::InvalidArgument, field, e.to_string()))?;
        Picture::new(pixels.width, pixels.height, pixels.rgb, resolution)
            .ok_or_else(|| Problem::new(ProblemCode::InvalidArgument, field, "the picture has no pixels"))
    }
}
