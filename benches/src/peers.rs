//! What the log is compared with: a database that everybody knows, and the least that a disk can do.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use rusqlite::Connection;

use crate::group::{Row, Sink};

/// `SQLite` with a write-ahead log and full synchronisation, and a unique index on session and number.
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
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS event (
                     position INTEGER PRIMARY KEY, session BLOB NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL);
                 CREATE UNIQUE INDEX IF NOT EXISTS event_session_seq ON event (session, seq);",
            )
            .expect("a schema");
        Self { connection }
    }

    /// The bytes of one session's events, read in order and counted.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn count_bytes(&self, session: &[u8]) -> usize {
        let mut statement = self
            .connection
            .prepare_cached("SELECT bytes FROM event WHERE session = ? ORDER BY seq")
            .expect("a statement");
        let mut rows = statement.query([session]).expect("rows");
        let mut count = 0;
        while let Some(row) = rows.next().expect("a row") {
            count += row
                .get_ref(0)
                .expect("a column")
                .as_blob()
                .expect("bytes")
                .len();
        }
        count
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

/// A file that is appended to, and its data synchronised. It can find nothing again.
#[derive(Debug)]
pub struct Bare {
    file: File,
    buffer: Vec<u8>,
}

impl Bare {
    /// Opens or makes a file.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .expect("a file");
        Self {
            file,
            buffer: Vec::new(),
        }
    }

    /// The bytes of a file, read in order and counted.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn count_bytes(path: &Path) -> usize {
        let mut file = File::open(path).expect("a file");
        let mut buffer = vec![0; 64 << 10];
        let mut count = 0;
        loop {
            match file.read(&mut buffer).expect("bytes") {
                0 => return count,
                read => count += read,
            }
        }
    }
}

impl Sink for Bare {
    fn commit(&mut self, rows: &[Row]) {
        self.buffer.clear();
        for row in rows {
            self.buffer.extend_from_slice(&row.bytes);
        }
        self.file.write_all(&self.buffer).expect("written");
        self.file.sync_data().expect("synchronised");
    }
}
