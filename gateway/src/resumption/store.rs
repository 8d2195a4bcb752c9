//! Where conversations are kept.

/// Identity of one moment of a conversation.
pub(super) type Id = [u8; 16];

/// One moment of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: Id,
    pub(super) conversation: super::ConversationId,
    /// Counts the conversation's moments; the newest is the highest.
    pub(super) generation: u64,
    /// Whose it is; `None` on a server without keys.
    pub(super) caller: Option<String>,
    /// Seconds since 1970.
    pub(super) expires: u64,
    pub(super) body: Vec<u8>,
}

/// How much is kept. At each bound the oldest goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Moments of one conversation.
    pub generations: u64,
    /// Moments of all.
    pub records: usize,
    /// Bytes of all.
    pub bytes: usize,
    /// Handles of which it is remembered that they were used.
    pub spent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { generations: 4, records: 10_000, bytes: 256 << 20, spent: 100_000 }
    }
}

/// What is found under an identity.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All moments of its conversation.
    Records(Vec<Record>),
    /// It was taken, or a later or earlier moment of its conversation was.
    Used,
    Unknown,
}

/// Why nothing can be kept or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database.
    #[error("the database of conversations: {0}")]
    Database(#[from] rusqlite::Error),
    /// The database's file.
    #[error("the database of conversations: {0}")]
    File(#[from] std::io::Error),
    /// The key that signs handles.
    #[error("resumption.key_file: {0}")]
    Key(String),
}

/// A place for conversations. Its methods may block.
pub(super) trait Store: Send + Sync {
    /// A secret that is the same for as long as what is kept.
    fn key(&self) -> Result<[u8; 32], StoreError>;

    /// Keeps a moment, and forgets what has expired or is too much.
    fn put(&self, record: Record, now: u64) -> Result<(), StoreError>;

    /// Finds a moment.
    fn peek(&self, id: &Id, now: u64) -> Result<Found, StoreError>;

    /// Finds a moment and takes out its conversation: all its moments count as used from here on.
    fn take(&self, id: &Id, now: u64) -> Result<Found, StoreError>;

    /// Undoes [`Store::take`].
    fn put_back(&self, records: Vec<Record>) -> Result<(), StoreError>;
}
