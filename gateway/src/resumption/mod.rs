//! Conversations that go on after their stream has ended: handles, and what they stand for.
//!
//! A handle names one moment of one conversation. It is opaque, signed, expires, and counts once: redeeming one spends
//! all handles of its conversation, so that a conversation never goes on in two places. What is kept is bounded in
//! number, bytes and age ([`Limits`]); at a bound the oldest goes, and its handle is unknown from then on.
//!
//! A conversation whose stream is still open is taken over: the old stream is told to end and is waited for, which
//! keeps what it knew last.

mod handle;
mod memory;
mod sqlite;
mod store;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use causerie_session::{Problem, ProblemCode};
use tokio::sync::watch;
use tokio::time::timeout;

use self::handle::{Invalid, Signer};
use self::memory::MemoryStore;
use self::sqlite::SqliteStore;
use self::store::{Found, Record, Store};
use crate::config::ResumptionConfig;

pub use self::store::{Limits, StoreError};

/// Largest conversation that is kept, in bytes. A larger one cannot be resumed.
const MAX_BODY_BYTES: usize = 8 << 20;

/// How long a stream that is taken over may need to end.
const TAKEOVER: Duration = Duration::from_secs(5);

/// The field that problems with handles are about.
const FIELD: &str = "setup.session_resumption.handle";

/// Identity of a conversation over all its streams.
pub type ConversationId = [u8; 16];

/// Keeps conversations and hands out handles.
pub struct Resumption {
    store: Arc<dyn Store>,
    signer: Signer,
    ttl: Duration,
    open: Arc<Mutex<HashMap<ConversationId, Open>>>,
}

/// A stream that holds a conversation.
struct Open {
    /// Who it is.
    caller: Option<String>,
    /// Set to end it.
    end: watch::Sender<bool>,
    /// Closed when it has ended.
    ended: watch::Receiver<()>,
}

/// A conversation that was taken out of the store.
#[derive(Debug)]
pub struct Redeemed {
    /// Whose it is.
    pub conversation: ConversationId,
    /// What the handle stands for.
    pub body: Vec<u8>,
    /// What was kept of the conversation last, if that is something else.
    pub latest: Option<Vec<u8>>,
    generation: u64,
    records: Vec<Record>,
}

impl Resumption {
    /// Opens the store that the configuration names.
    ///
    /// # Errors
    /// The store or the key cannot be read.
    pub fn open(config: &ResumptionConfig) -> Result<Self, StoreError> {
        let limits = Limits::default();
        let store: Arc<dyn Store> = match &config.file {
            None => Arc::new(MemoryStore::new(limits)),
            Some(path) => Arc::new(SqliteStore::open(path, limits)?),
        };
        let key = config.key_file.as_deref().map(read_key).transpose()?;
        Self::new(store, key, Duration::from_secs(config.seconds.into()))
    }

    fn new(store: Arc<dyn Store>, key: Option<Vec<u8>>, ttl: Duration) -> Result<Self, StoreError> {
        let key = key.map_or_else(|| store.key().map(|key| key.to_vec()), Ok)?;
        Ok(Self { store, signer: Signer::new(&key), ttl, open: Arc::default() })
    }

    /// Takes the conversation that a handle stands for, ending the stream that still holds it. `caller` is who asks: a
    /// handle counts for nobody else.
    ///
    /// # Errors
    /// The handle is not one of ours, has expired, was used, is somebody else's or stands for nothing any more.
    pub async fn redeem(&self, handle: &str, caller: Option<&str>) -> Result<Redeemed, Problem> {
        self.redeem_at(handle, caller, unix(SystemTime::now())).await
    }

    async fn redeem_at(&self, handle: &str, caller: Option<&str>, now: u64) -> Result<Redeemed, Problem> {
        let problem = |code, message: String| Err(Problem::new(code, FIELD, message));
        let id = match self.signer.read(handle, now) {
            Ok(id) => id,
            Err(Invalid::Forged) => {
                return problem(ProblemCode::InvalidArgument, "this server has not given out this handle".into());
            }
            Err(Invalid::Expired { ago }) => {
                return problem(ProblemCode::FailedPrecondition, format!("the handle expired {ago} s ago"));
            }
        };
        let conversation = match self.blocking(move |store| store.peek(&id, now)).await? {
            Found::Records(records) => {
                let Some(record) = records.iter().find(|record| record.id == id) else { return unknown() };
                if record.caller.as_deref() != caller {
                    return problem(ProblemCode::PermissionDenied, "the handle was given to another API key".into());
                }
                record.conversation
            }
            Found::Used => return used(),
            Found::Unknown => return unknown(),
        };
        self.end(conversation).await?;
        let records = match self.blocking(move |store| store.take(&id, now)).await? {
            Found::Records(records) => records,
            Found::Used => return used(),
            Found::Unknown => return unknown(),
        };
        let Some(record) = records.iter().find(|record| record.id == id) else { return unknown() };
        let last = records.iter().max_by_key(|record| record.generation).filter(|last| last.id != id);
        Ok(Redeemed {
            conversation,
            body: record.body.clone(),
            latest: last.map(|last| last.body.clone()),
            generation: records.iter().map(|record| record.generation).max().unwrap_or(0),
            records,
        })
    }

    /// Ends the stream that holds a conversation, if there is one.
    async fn end(&self, conversation: ConversationId) -> Result<(), Problem> {
        let Some(mut ended) = lock(&self.open).get(&conversation).map(|open| {
            open.end.send_replace(true);
            open.ended.clone()
        }) else {
            return Ok(());
        };
        // Nothing is ever sent: an error is the end.
        if timeout(TAKEOVER, ended.changed()).await.is_err() {
            let message = format!("the stream that holds the conversation did not end within {} s", TAKEOVER.as_secs());
            return Err(Problem { retryable: true, ..Problem::new(ProblemCode::Unavailable, FIELD, message) });
        }
        Ok(())
    }

    /// Gives back what was redeemed, as the conversation could not be opened.
    pub async fn put_back(&self, redeemed: Redeemed) {
        let put_back = self.blocking(move |store| store.put_back(redeemed.records)).await;
        if let Err(problem) = put_back {
            tracing::error!(problem.message, "a handle could not be given back");
        }
    }

    /// Whether `caller` has a stream that holds a conversation.
    pub fn is_held_by(&self, caller: Option<&str>) -> bool {
        lock(&self.open).values().any(|open| open.caller.as_deref() == caller)
    }

    /// A stream begins to hold a conversation, a new one or one that was redeemed.
    pub fn hold(self: &Arc<Self>, redeemed: Option<&Redeemed>, caller: Option<String>) -> Hold {
        let conversation = redeemed.map_or_else(random, |redeemed| redeemed.conversation);
        let (end, ending) = watch::channel(false);
        let (running, ended) = watch::channel(());
        lock(&self.open).insert(conversation, Open { caller: caller.clone(), end, ended });
        let generation = redeemed.map_or(0, |redeemed| redeemed.generation);
        Hold { resumption: self.clone(), conversation, generation, caller, ending, _running: running }
    }

    async fn keep(&self, record: Record) -> Result<String, Problem> {
        let handle = self.signer.write(&record.id, record.expires);
        self.blocking(move |store| store.put(record, unix(SystemTime::now()))).await?;
        Ok(handle)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        done.map_err(|error| error.to_string()).and_then(|done| done.map_err(|error| error.to_string())).map_err(
            |error| {
                tracing::error!(error, "the store of conversations failed");
                let message = "the store of conversations failed";
                Problem { retryable: true, ..Problem::new(ProblemCode::Unavailable, FIELD, message) }
            },
        )
    }
}

/// A stream's hold on its conversation. Dropping it lets the next one have it.
pub struct Hold {
    resumption: Arc<Resumption>,
    conversation: ConversationId,
    generation: u64,
    caller: Option<String>,
    ending: watch::Receiver<bool>,
    _running: watch::Sender<()>,
}

impl Hold {
    /// Says when the stream is to end, as the conversation goes on in another.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.clone()
    }

    /// Keeps the conversation as it is now; the handle to go on from there. `None` when it is too large to be kept.
    ///
    /// # Errors
    /// The store fails.
    pub async fn keep(&mut self, body: Vec<u8>) -> Result<Option<String>, Problem> {
        if body.len() > MAX_BODY_BYTES {
            return Ok(None);
        }
        self.generation += 1;
        let record = Record {
            id: random(),
            conversation: self.conversation,
            generation: self.generation,
            caller: self.caller.clone(),
            expires: unix(SystemTime::now() + self.resumption.ttl),
            body,
        };
        self.resumption.keep(record).await.map(Some)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut open = lock(&self.resumption.open);
        // Another stream may have begun to hold it since this one was told to end.
        if open.get(&self.conversation).is_some_and(|open| open.end.subscribe().same_channel(&self.ending)) {
            open.remove(&self.conversation);
        }
    }
}

/// The problem that ends a stream whose conversation goes on in another.
pub fn taken_over() -> Problem {
    Problem::new(ProblemCode::Aborted, "", "the conversation was resumed by another stream")
}

fn used<T>() -> Result<T, Problem> {
    let message = "the conversation was resumed with this handle or a later one already";
    Err(Problem::new(ProblemCode::FailedPrecondition, FIELD, message))
}

fn unknown<T>() -> Result<T, Problem> {
    let message = "the conversation is not kept any more; start a new one without a handle";
    Err(Problem::new(ProblemCode::NotFound, FIELD, message))
}

fn read_key(path: &Path) -> Result<Vec<u8>, StoreError> {
    const SHORTEST: usize = 32;
    let read = std::fs::read(path);
    let key = read.map_err(|error| StoreError::Key(format!("cannot read {}: {error}", path.display())))?;
    let key = key.trim_ascii();
    if key.len() < SHORTEST {
        let message = format!("{} has {} bytes, which are less than {SHORTEST}", path.display(), key.len());
        return Err(StoreError::Key(message));
    }
    Ok(key.to_vec())
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes
}

/// Nothing that holds the lock can leave what it guards half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
