//! The keys file: a list of keys, each by its SHA-256 and with its limits.
//!
//! ```toml
//! [[key]]
//! name = "ada"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! streams = 4          # conversations at once
//! per_minute = 60      # conversations begun
//! ```
//! `causerie key` writes it; comments in it are not kept then.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Most keys of a file; every request is compared with each, which takes some nanoseconds.
pub const MAX_KEYS: usize = 10_000;
/// Longest name of a key, in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// What every key begins with, so that one which got lost is recognised.
pub const PREFIX: &str = "causerie_";
/// Default of [`Key::streams`].
pub const DEFAULT_STREAMS: u32 = 4;
/// Default of [`Key::per_minute`].
pub const DEFAULT_PER_MINUTE: u32 = 60;

/// Random bytes of a key.
const KEY_BYTES: usize = 32;

/// SHA-256 of a key.
pub type Digest = [u8; 32];

/// One key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What its owner calls it.
    pub name: String,
    /// Its digest.
    #[serde(with = "hexadecimal")]
    pub sha256: Digest,
    /// Most conversations at once.
    #[serde(default = "default_streams")]
    pub streams: u32,
    /// Most conversations begun in a minute.
    #[serde(default = "default_per_minute")]
    pub per_minute: u32,
}

fn default_streams() -> u32 {
    DEFAULT_STREAMS
}

fn default_per_minute() -> u32 {
    DEFAULT_PER_MINUTE
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Key>,
}

/// A key as its owner gets it, once.
pub struct Secret(String);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; KEY_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", hexadecimal::write(&bytes))))
    }

    /// The key itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What is kept of a key.
pub fn digest(key: &str) -> Digest {
    Sha256::digest(key.as_bytes()).into()
}

/// Why a keys file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It cannot be read or written.
    #[error("keys file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("keys file {}: {message}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
}

/// The keys of a file.
///
/// # Errors
/// It cannot be read, or is no list of keys.
pub fn read(path: &Path) -> Result<Vec<Key>, KeysError> {
    let text = std::fs::read_to_string(path).map_err(|source| KeysError::Io { path: path.to_owned(), source })?;
    parse(&text).map_err(|message| KeysError::Content { path: path.to_owned(), message })
}

fn parse(text: &str) -> Result<Vec<Key>, String> {
    let keys = toml::from_str::<File>(text).map_err(|e| e.to_string().trim_end().to_owned())?.key;
    if keys.len() > MAX_KEYS {
        return Err(format!("{} keys are more than {MAX_KEYS}", keys.len()));
    }
    for (i, key) in keys.iter().enumerate() {
        let Key { name, streams, per_minute, .. } = key;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(format!("{name:?} is no name for a key: it has 1 to {MAX_NAME_BYTES} bytes"));
        }
        if *streams == 0 || *per_minute == 0 {
            return Err(format!("key {name:?}: streams and per_minute are at least 1"));
        }
        if keys[..i].iter().any(|other| other.name == *name) {
            return Err(format!("there are two keys called {name:?}"));
        }
    }
    Ok(keys)
}

/// Writes a file in one step: whoever reads it meanwhile sees the old one or the new one. Only its owner may read it.
///
/// # Errors
/// It cannot be written, or the keys are not ones that [`read`] would take.
pub fn write(path: &Path, keys: Vec<Key>) -> Result<(), KeysError> {
    let content = |message| KeysError::Content { path: path.to_owned(), message };
    let text = toml::to_string(&File { key: keys }).map_err(|e| content(e.to_string()))?;
    parse(&text).map_err(content)?;
    replace(path, &text).map_err(|source| KeysError::Io { path: path.to_owned(), source })
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let moved = written.and_then(|()| std::fs::rename(&draft, path));
    if moved.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    moved
}

/// Digests as the file has them: 64 hexadecimal digits.
mod hexadecimal {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Digest;

    pub(super) fn write(bytes: &[u8; 32]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&write(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        read(&text).ok_or_else(|| D::Error::custom(format!("a SHA-256 has 64 hexadecimal digits, not {}", text.len())))
    }

    fn read(text: &str) -> Option<Digest> {
        let mut digest = [0; 32];
        let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
        if digits.len() != 2 * digest.len() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Some(digest)
    }
}
