//! Conversations kept in a file: they outlive the process, and with them the key that signs their handles.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::store::{Found, Id, Limits, Record, Store, StoreError};
use super::{lock, random};

/// How long another process may hold the database.
const BUSY: std::time::Duration = std::time::Duration::from_secs(2);

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 0), key BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS records (
        age INTEGER PRIMARY KEY AUTOINCREMENT,
        id BLOB NOT NULL UNIQUE,
        conversation BLOB NOT NULL,
        generation INTEGER NOT NULL,
        caller TEXT,
        expires INTEGER NOT NULL,
        size INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS by_conversation ON records (conversation, generation);
    CREATE INDEX IF NOT EXISTS by_size ON records (size);
    CREATE INDEX IF NOT EXISTS by_expiry ON records (expires);
    CREATE TABLE IF NOT EXISTS spent (age INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE);
";

const COLUMNS: &str = "id, conversation, generation, caller, expires, body";

pub(super) struct SqliteStore {
    connection: Mutex<Connection>,
    limits: Limits,
}

impl SqliteStore {
    /// Opens the file, or makes it, for its owner alone.
    pub(super) fn open(path: &Path, limits: Limits) -> Result<Self, StoreError> {
        let mut options = std::fs::OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)?;
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Mutex::new(connection), limits })
    }

    fn transact<T>(&self, work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut connection = lock(&self.connection);
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

fn insert(to: &Transaction<'_>, record: &Record) -> rusqlite::Result<()> {
    let Record { id, conversation, generation, caller, expires, body } = record;
    to.prepare_cached(
        "INSERT INTO records (id, conversation, generation, caller, expires, size, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![id, conversation, *generation as i64, caller, *expires as i64, body.len() as i64, body])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        id: row.get(0)?,
        conversation: row.get(1)?,
        generation: row.get::<_, i64>(2)? as u64,
        caller: row.get(3)?,
        expires: row.get::<_, i64>(4)? as u64,
        body: row.get(5)?,
    })
}

fn find(of: &Connection, id: &Id, now: u64) -> rusqlite::Result<Found> {
    let conversation: Option<[u8; 16]> = of
        .prepare_cached("SELECT conversation FROM records WHERE id = ? AND expires > ?")?
        .query_row(params![id, now as i64], |row| row.get(0))
        .optional()?;
    let Some(conversation) = conversation else {
        let spent = of.prepare_cached("SELECT 1 FROM spent WHERE id = ?")?.exists(params![id])?;
        return Ok(if spent { Found::Used } else { Found::Unknown });
    };
    let sql = format!("SELECT {COLUMNS} FROM records WHERE conversation = ? ORDER BY age");
    let records = of.prepare_cached(&sql)?.query_map(params![conversation], record)?.collect::<Result<_, _>>()?;
    Ok(Found::Records(records))
}

impl Store for SqliteStore {
    fn key(&self) -> Result<[u8; 32], StoreError> {
        self.transact(|t| {
            t.execute("INSERT OR IGNORE INTO secret (id, key) VALUES (0, ?)", params![random::<32>()])?;
            t.query_row("SELECT key FROM secret", [], |row| row.get(0))
        })
    }

    fn put(&self, record: Record, now: u64) -> Result<(), StoreError> {
        let Limits { generations, records, bytes, .. } = self.limits;
        self.transact(|t| {
            insert(t, &record)?;
            let old = record.generation.saturating_sub(generations) as i64;
            t.prepare_cached("DELETE FROM records WHERE conversation = ? AND generation <= ?")?
                .execute(params![record.conversation, old])?;
            t.prepare_cached("DELETE FROM records WHERE expires <= ?")?.execute(params![now as i64])?;
            loop {
                let (count, size): (i64, i64) = t
                    .prepare_cached("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM records")?
                    .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
                if count as usize <= records && size as usize <= bytes {
                    return Ok(());
                }
                t.prepare_cached("DELETE FROM records WHERE age = (SELECT MIN(age) FROM records)")?.execute([])?;
            }
        })
    }

    fn peek(&self, id: &Id, now: u64) -> Result<Found, StoreError> {
        Ok(find(&lock(&self.connection), id, now)?)
    }

    fn take(&self, id: &Id, now: u64) -> Result<Found, StoreError> {
        let spent = self.limits.spent as i64;
        self.transact(|t| {
            let found = find(t, id, now)?;
            if let Found::Records(records) = &found {
                for record in records {
                    t.prepare_cached("DELETE FROM records WHERE id = ?")?.execute(params![record.id])?;
                    t.prepare_cached("INSERT OR IGNORE INTO spent (id) VALUES (?)")?.execute(params![record.id])?;
                }
                t.prepare_cached("DELETE FROM spent WHERE age <= (SELECT MAX(age) FROM spent) - ?")?
                    .execute(params![spent])?;
            }
            Ok(found)
        })
    }

    fn put_back(&self, records: Vec<Record>) -> Result<(), StoreError> {
        self.transact(|t| {
            for record in &records {
                t.prepare_cached("DELETE FROM spent WHERE id = ?")?.execute(params![record.id])?;
                insert(t, record)?;
            }
            Ok(())
        })
    }
}
