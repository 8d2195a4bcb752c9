//! Who may hold conversations, and how many: API keys and what each allows.
//!
//! Without a keys file there are no keys and everybody who reaches the server may talk, which is why it then listens on
//! this machine only. With one, every conversation needs a key of the file. [`keys`] is the file; here is what a
//! running server knows of it. The file is looked at every second ([`crate::reload`]), so a key that was made or revoked counts
//! without a restart; conversations that run already go on.
//!
//! A key is 256 random bits, so its SHA-256 can be kept in its stead: nobody can try that many, salted and slow or not.
//! For the same reason wrong keys are not counted. The digests are compared in constant time, all of them each time.

pub mod keys;
mod origin;
mod usage;

use std::path::Path;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use causerie_session::{Problem, ProblemCode};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tokio::sync::watch;
use tokio::time::Instant;

use self::keys::{Key, KeysError, digest};
pub use self::origin::Origins;
pub use self::usage::Pass;
use self::usage::Usage;
use crate::reload::{Files, Reloading};

/// Header in which published clients send a key.
pub const KEY_HEADER: &str = "x-goog-api-key";

/// What a server knows about its clients.
#[derive(Clone, Debug)]
pub struct Access {
    /// `None` when there are no keys and everybody may talk.
    keys: Option<watch::Receiver<Arc<Keyring>>>,
}

/// The keys of a file, each with what is in use of it.
#[derive(Debug, Default)]
struct Keyring {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Key,
    usage: Arc<Usage>,
}

impl Access {
    /// Everybody may talk.
    pub fn open() -> Self {
        Self { keys: None }
    }

    /// Reads the keys file, if there is to be one, and keeps looking at it. Must be called on tokio's runtime.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(path: Option<&Path>) -> Result<(Self, Option<Reloading>), KeysError> {
        let Some(path) = path else { return Ok((Self::open(), None)) };
        let files = Files::new(vec![path.to_owned()]);
        let ring = Keyring::default().with(keys::read(path)?);
        if ring.entries.is_empty() {
            tracing::warn!(file = %path.display(), "the keys file has no keys: nobody can hold a conversation");
        }
        let (publish, keys) = watch::channel(Arc::new(ring));
        let path = path.to_owned();
        let reloading = files.watch(
            move || keys::read(&path),
            move |read| match read {
                Ok(keys) => {
                    tracing::info!(keys = keys.len(), "the keys file has changed");
                    let ring = publish.borrow().with(keys);
                    publish.send_replace(Arc::new(ring));
                }
                Err(error) => {
                    tracing::error!(%error, "the keys file has changed and cannot be read; the old keys count")
                }
            },
        );
        Ok((Self { keys: Some(keys) }, Some(reloading)))
    }

    /// Whether keys are asked for.
    pub fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Who presents this key.
    ///
    /// # Errors
    /// It is missing or unknown.
    pub fn client(&self, presented: Option<&str>) -> Result<Client, Problem> {
        let Some(keys) = &self.keys else { return Ok(Client(None)) };
        let Some(presented) = presented else {
            let message = format!("an API key is needed, as {KEY_HEADER}: KEY or authorization: Bearer KEY; none came");
            return Err(Problem::new(ProblemCode::Unauthenticated, "", message));
        };
        let found = keys.borrow().find(presented).cloned();
        found
            .map(|entry| Client(Some(entry)))
            .ok_or_else(|| Problem::new(ProblemCode::Unauthenticated, "", "the API key is not one of this server's"))
    }
}

/// Somebody who may talk, within limits.
#[derive(Clone, Debug)]
pub struct Client(Option<Entry>);

impl Client {
    /// Whose conversations are whose: the same for as long as the key is. `None` where everybody may talk.
    pub fn id(&self) -> Option<String> {
        self.0.as_ref().map(|Entry { key, .. }| key.sha256.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a conversation could be begun now.
    ///
    /// # Errors
    /// The key has all the conversations that it allows.
    pub fn check(&self, now: Instant) -> Result<(), Problem> {
        self.0.as_ref().map_or(Ok(()), |Entry { key, usage }| usage.check(key, now))
    }

    /// Begins a conversation: counts it until the pass is dropped.
    ///
    /// # Errors
    /// The key has all the conversations that it allows.
    pub fn begin(&self, now: Instant) -> Result<Pass, Problem> {
        match &self.0 {
            Some(Entry { key, usage }) => Usage::begin(usage, key, now),
            None => Ok(Pass::of_nobody()),
        }
    }
}

impl Keyring {
    /// Other keys; those that were there before keep what is in use of them.
    fn with(&self, keys: Vec<Key>) -> Self {
        let entries = keys.into_iter().map(|key| {
            let before = self.entries.iter().find(|entry| entry.key.sha256 == key.sha256);
            let usage = before.map_or_else(Arc::default, |entry| entry.usage.clone());
            Entry { key, usage }
        });
        Self { entries: entries.collect() }
    }

    fn find(&self, presented: &str) -> Option<&Entry> {
        let wanted = digest(presented);
        // One further than the last stands for none.
        let mut found = self.entries.len() as u64;
        for (i, entry) in self.entries.iter().enumerate() {
            let same: Choice = entry.key.sha256.ct_eq(&wanted);
            found.conditional_assign(&(i as u64), same);
        }
        self.entries.get(found as usize)
    }
}

/// The key that a request carries: in [`KEY_HEADER`], as a bearer of `authorization`, or as `key` in the query of its
/// address, which is all that a page in a browser can set of a WebSocket. Our keys need no percent-encoding, so none is
/// undone.
pub fn presented_key<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> Option<&'a str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = || {
        let (scheme, key) = text(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        let known = scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token");
        known.then_some(key.trim())
    };
    let in_query = || query?.split('&').find_map(|pair| pair.strip_prefix("key="));
    text(KEY_HEADER).or_else(bearer).or_else(in_query)
}

#[cfg(test)]
mod tests;
