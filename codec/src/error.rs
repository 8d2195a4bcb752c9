//! What can be wrong with a stream, by what its owner can do about it.

/// An error of one media stream. The streams beside it are not affected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes are not what was declared, or broken. The stream cannot go on without a reset.
    #[error("{0}")]
    Malformed(String),
    /// Well-formed, but not something this build decodes. Send another format.
    #[error("{0}")]
    Unsupported(String),
    /// Within the format, but more than one stream may ask for at once. Send less at a time.
    #[error("{0}")]
    Limit(String),
    /// The stream ended in the middle of something. What came before was delivered, and the stream is ready for the
    /// next one, so a caller may treat it as a warning.
    #[error("{0}")]
    Truncated(String),
    /// A decoder or encoder gave up for a reason of its own: it panicked, or a thread could not be started.
    #[error("{0}")]
    Failed(String),
}
