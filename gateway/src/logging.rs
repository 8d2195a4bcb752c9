//! What is logged: our own words at the level that is asked for, and of what people say nothing.
//!
//! Two things keep it so. Ours: content is logged through [`Redacted`], which shows how much it is and not what. Foreign:
//! libraries print what passes through them at their lower levels, frames and all, so of them only warnings and errors
//! are let through, and of those that carry the words of tools only errors. An operator who asks for content
//! (`--log-content`) gets both.

use std::fmt;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::{EnvFilter, registry};

/// Whether what people say may be logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogContent(pub bool);

impl LogContent {
    /// Content on its way into the log.
    pub fn show(self, content: &str) -> Redacted<'_> {
        Redacted { content, shown: self.0 }
    }
}

/// Content that shows itself only where that was asked for.
#[derive(Clone, Copy)]
pub struct Redacted<'a> {
    content: &'a str,
    shown: bool,
}

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shown { write!(f, "{:?}", self.content) } else { write!(f, "<{} bytes>", self.content.len()) }
    }
}

/// Writes to `writer` what `filter` lets through (`info`, `debug`, `causerie_gateway=trace`, …).
pub fn subscriber<W>(
    filter: EnvFilter,
    content: LogContent,
    colours: bool,
    writer: W,
) -> impl tracing::Subscriber + Send + Sync + 'static
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let foreign = if content.0 {
        Targets::new().with_default(Level::TRACE)
    } else {
        Targets::new().with_default(Level::WARN).with_target("rmcp", Level::ERROR).with_target("causerie", Level::TRACE)
    };
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(writer);
    registry().with(lines.with_filter(foreign)).with(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_shows_only_its_size() {
        assert_eq!(format!("{:?}", LogContent(false).show("my number is 5")), "<14 bytes>");
        assert_eq!(format!("{:?}", LogContent(true).show("my number is 5")), "\"my number is 5\"");
    }
}
