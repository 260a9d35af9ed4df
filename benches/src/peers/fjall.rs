//! fjall.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::group::{Row, Sink};
use crate::history::Key;
use crate::peers::CACHE_BYTES;

/// fjall, a log-structured tree: one batch a commit, its journal synchronised with it.
///
/// One process has it at a time, so nobody else can read it meanwhile. It compresses what it keeps (LZ4).
pub struct Fjall {
    database: Database,
    events: Keyspace,
}

impl std::fmt::Debug for Fjall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fjall")
    }
}

impl Fjall {
    /// Opens or makes a database.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn open(path: &Path) -> Self {
        let database = Database::builder(path)
            .cache_size(u64::from(CACHE_BYTES))
            .open()
            .expect("a database");
        let events = database
            .keyspace("event", KeyspaceCreateOptions::default)
            .expect("a keyspace");
        Self { database, events }
    }

    /// The events of one session from a number on, read in order: how many, and their bytes.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn read(&self, session: &Key, from: u64) -> (u64, u64) {
        let range = key(session, from)..=key(session, u64::MAX);
        self.events
            .range(range)
            .fold((0, 0), |(events, bytes), row| {
                let bytes_of_row = row.value().expect("a value").len();
                (events + 1, bytes + bytes_of_row as u64)
            })
    }

    /// The bytes of the last event of a session.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    #[must_use]
    pub fn last(&self, session: &Key) -> u64 {
        let row = self.events.prefix(session).next_back().expect("a row");
        row.value().expect("a value").len() as u64
    }

    /// Moves all that waits in the journal into the tree, and merges it: the smallest that it gets.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn settle(&self) {
        self.events
            .rotate_memtable_and_wait()
            .expect("it is written");
        self.events.major_compact().expect("it is merged");
    }
}

/// The session, then the number, big-endian, so that the order of keys is that of numbers.
fn key(session: &Key, seq: u64) -> [u8; size_of::<Key>() + 8] {
    let mut key = [0; size_of::<Key>() + 8];
    let (head, tail) = key.split_at_mut(size_of::<Key>());
    head.copy_from_slice(session);
    tail.copy_from_slice(&seq.to_be_bytes());
    key
}

impl Sink for Fjall {
    fn commit(&mut self, rows: &[Row]) {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for row in rows {
            batch.insert(
                &self.events,
                key(&row.session, row.seq),
                row.bytes.as_slice(),
            );
        }
        batch.commit().expect("a commit");
    }
}
