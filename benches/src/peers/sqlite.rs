//! `SQLite`.

use std::path::Path;

use rusqlite::Connection;

use crate::group::{Row, Sink};
use crate::history::Key;
use crate::peers::CACHE_BYTES;

/// `SQLite` with a write-ahead log and full synchronisation, and a unique index on session and number.
///
/// Other processes can read it meanwhile, as they can the log.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// Opens or makes a database.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let connection = Connection::open(path).expect("a database");
        connection
            .execute_batch(&format!(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA cache_size = -{};
                 CREATE TABLE IF NOT EXISTS event (
                     position INTEGER PRIMARY KEY, session BLOB NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL);
                 CREATE UNIQUE INDEX IF NOT EXISTS event_session_seq ON event (session, seq);",
                CACHE_BYTES / 1024,
            ))
            .expect("a schema");
        Self { connection }
    }

    /// The events of one session from a number on, read in order: how many, and their bytes.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn read(&self, session: &Key, from: u64) -> (u64, u64) {
        let query = "SELECT bytes FROM event WHERE session = ? AND seq >= ? ORDER BY seq";
        self.count(query, (session, from.cast_signed()))
    }

    /// The bytes of the last event of a session.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn last(&self, session: &Key) -> u64 {
        let query = "SELECT bytes FROM event WHERE session = ? ORDER BY seq DESC LIMIT 1";
        self.count(query, (session,)).1
    }

    /// How many events come after a position, each of them read.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn after(&self, position: u64) -> u64 {
        let query = "SELECT bytes FROM event WHERE position > ? ORDER BY position";
        self.count(query, (position.cast_signed(),)).0
    }

    /// How many events there are.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn len(&self) -> u64 {
        let len: i64 = self
            .connection
            .query_row("SELECT ifnull(max(position), 0) FROM event", (), |row| {
                row.get(0)
            })
            .expect("a number");
        len.cast_unsigned()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn count(&self, query: &str, what: impl rusqlite::Params) -> (u64, u64) {
        let mut statement = self.connection.prepare_cached(query).expect("a statement");
        let mut rows = statement.query(what).expect("rows");
        let (mut events, mut bytes) = (0, 0);
        while let Some(row) = rows.next().expect("a row") {
            let column = row.get_ref(0).expect("a column");
            events += 1;
            bytes += column.as_blob().expect("bytes").len() as u64;
        }
        (events, bytes)
    }
}

impl Sink for Sqlite {
    fn commit(&mut self, rows: &[Row]) {
        let transaction = self.connection.transaction().expect("a transaction");
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO event (session, seq, bytes) VALUES (?, ?, ?)")
                .expect("a statement");
            for row in rows {
                insert
                    .execute((&row.session, row.seq.cast_signed(), &row.bytes))
                    .expect("a row");
            }
        }
        transaction.commit().expect("a commit");
    }
}
