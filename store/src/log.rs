//! The log: append, read, tail.
//!
//! One redb file in a directory of its own. One process writes it, through a [`Log`]; any number of
//! processes may read it meanwhile, through a [`LogReader`].
//!
//! ```text
//! append ─> queue ─> writer: one commit for all who wait ─> blocks, durable ─> answers
//!                                                              │
//!                                    readers and tails <───────┘   by position, or by stream through the index
//! ```
//!
//! Start reading with `table.rs` and `block.rs`, which say what is in the file, then `writer.rs`.

mod block;
mod files;
pub mod head;
mod index;
mod plan;
mod reader;
mod scan;
mod snapshot;
mod storage;
mod table;
mod tail;
mod unclean;
mod verify;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redb::StorageBackend;
use tokio::sync::watch;

use crate::codec::Draft;
use crate::error::{Error, Result};
use crate::event::{Cause, NewEvent, Recorded};
use crate::id::{Position, Seq, StreamId, Timestamp};

use index::Index;
use reader::{ReadAll, ReadStream, Shared};
use storage::{Fault, Storage};

pub use head::{CheckError, Head, SignedHead};
pub use tail::Tail;
pub use verify::{Verified, check, verify, verify_all};

/// What the caller believes about a stream when it appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    Any,
    /// That it has no events.
    NoStream,
    /// That this is the number of its last event.
    Exact(Seq),
}

/// A hash of the chain: 32 bytes of BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first link of a chain follows.
    pub const ZERO: Self = Self([0; 32]);
}

impl fmt::Display for Hash {
    /// 64 hexadecimal digits; with a precision, the first so many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

/// Where one stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    /// The number of its last event.
    pub seq: Seq,
    /// The position of its first event.
    pub first: Position,
    /// The position of its last event.
    pub last: Position,
    /// When its last event happened.
    pub at: Timestamp,
}

/// Which streams a tail follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All.
    All,
    /// These.
    Streams(Vec<StreamId>),
}

/// A projection's state as it was stored, to start a fold from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The version of the fold that made it; another version's is of no use.
    pub fold_version: u32,
    /// The last event that is in it.
    pub seq: Seq,
    /// The state, encoded.
    pub bytes: Vec<u8>,
}

/// The reading side of a log. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl fmt::Debug for LogReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogReader").field(&self.path()).finish()
    }
}

impl LogReader {
    /// Opens the log in `directory` for reading, while another process may be writing it.
    ///
    /// Changes nothing on disk. Works after the writer was killed, too.
    ///
    /// # Errors
    ///
    /// [`Error::NoLog`] where there is none, [`Error::NotALog`] or [`Error::NewerLog`] where it is not one
    /// that this build can read, [`Error::Io`] where the system refuses.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let storage = files::open_read_only(directory.as_ref())?;
        Ok(Self {
            shared: Shared::new(storage, Index::default(), None),
        })
    }

    /// The log's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.storage.path()
    }

    /// Where the whole log stands, by its last block's word: [`verify`] proves it.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Corrupt`], where another process writes the log.
    pub fn head(&self) -> Result<Head> {
        match &self.shared.durable {
            Some(durable) => Ok(*durable.borrow()),
            None => self
                .shared
                .storage
                .view(Position::FIRST, reader::tip)
                .map(Head::from),
        }
    }

    /// Where one stream stands; `None` where it has no events.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn stream_head(&self, stream: StreamId) -> Result<Option<StreamHead>> {
        let key = stream.to_bytes();
        let end = self
            .shared
            .look_up(|index, transaction| index.end(transaction, &key))?;
        Ok(end.map(|end| end.head))
    }

    /// All streams, in the order of their names, from the index and its tail.
    ///
    /// Holds all of them in memory: about 60 bytes each.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn streams(&self) -> Result<Vec<(StreamId, StreamHead)>> {
        self.shared.look_up(|index, transaction| {
            index
                .ends(transaction)?
                .into_iter()
                .map(|(key, end)| Ok((index::stream_of(key)?, end.head)))
                .collect()
        })
    }

    /// The events of one stream from a number on, in order; memory is bounded by a block.
    ///
    /// It sees what is durable when it gets there, so it may see more than there was when it began. It
    /// ends where the stream does, or after the first error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read(
        &self,
        stream: StreamId,
        from: Seq,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        ReadStream::new(Arc::clone(&self.shared), stream, from)
    }

    /// All events from a position on, in order; memory is bounded by a block.
    ///
    /// It sees what is durable when it gets there, so it may see more than there was when it began. It
    /// ends where the log does, or after the first error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read_all(&self, from: Position) -> impl Iterator<Item = Result<Recorded>> + use<> {
        ReadAll::new(Arc::clone(&self.shared), from)
    }

    /// Events from a position on: first what is there, then what comes, without gap or repeat.
    ///
    /// A tail of some streams steps over what is between: begin it near the end, after reading the streams.
    #[must_use]
    pub fn tail(&self, select: Select, from: Position) -> Tail {
        Tail::new(Arc::clone(&self.shared), select, from)
    }

    /// The last snapshot of a projection of a stream.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn snapshot(&self, stream: StreamId, projection: &str) -> Result<Option<Snapshot>> {
        if let Some(waiting) = self.shared.snapshots.get(stream, projection) {
            return Ok(Some(waiting));
        }
        self.shared.storage.view(Position(0), |transaction| {
            snapshot::read(transaction, stream, projection)
        })
    }
}

/// The log, for its one writer. Cheap to clone; derefs to [`LogReader`].
///
/// When the last clone is dropped, what waits is committed and the file is let go of; dropping waits for
/// that. Readers and tails end then. [`Log::close`] does the same and says how it went.
#[derive(Clone)]
pub struct Log {
    // Before the reader: the writer ends first.
    writer: Arc<writer::Handle>,
    reader: LogReader,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Log").field(&self.path()).finish()
    }
}

impl std::ops::Deref for Log {
    type Target = LogReader;

    fn deref(&self) -> &LogReader {
        &self.reader
    }
}

impl Log {
    /// Opens the log in `directory`, making both where they are missing.
    ///
    /// After a crash this reads what the index lacks, a bounded piece of the end of the log, and no more.
    /// The directory is made for its owner alone. Nothing that is there is overwritten.
    ///
    /// # Errors
    ///
    /// [`Error::NotADataDirectory`], [`Error::NotALog`] or [`Error::NewerLog`] where something else is
    /// there, and is left as it is; [`Error::Locked`] where another process writes the log;
    /// [`Error::Corrupt`] where the end of the log is damaged; [`Error::Io`] where the system refuses.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        Self::start(files::open(directory.as_ref())?)
    }

    /// A log in memory, for tests.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system gives no thread.
    pub fn in_memory() -> Result<Self> {
        Self::with_backend(redb::backends::InMemoryBackend::new())
    }

    /// A log in a backend that no other process shares, for tests that let storage fail.
    ///
    /// # Errors
    ///
    /// As [`Log::open`], for what the backend holds.
    #[doc(hidden)]
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self> {
        let position = Position::FIRST;
        let storage = Storage::with_backend(backend).map_err(|fault| fault.near(position))?;
        files::initialise(&storage).map_err(|fault| fault.near(position))?;
        Self::start(storage)
    }

    fn start(storage: Storage) -> Result<Self> {
        let tip = storage.view(Position::FIRST, reader::tip)?;
        let index = complete_index(&storage)?;
        if index.through() != tip.position {
            return Err(Error::Corrupt {
                position: tip.position,
                what: format!("the index covers events up to {}", index.through()),
            });
        }
        let (durable, watching) = watch::channel(Head::from(tip));
        let shared = Shared::new(storage, index, Some(watching));
        Ok(Self {
            writer: Arc::new(writer::Handle::start(Arc::clone(&shared), tip, durable)?),
            reader: LogReader { shared },
        })
    }

    /// Appends events to a stream, all or none, and resolves when they are durable.
    ///
    /// They stand next to each other in the log. No events are no commit, and nothing is checked. An append
    /// whose future is dropped is whole or absent. The events come back with their places.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] where the stream is not where it was expected, and [`Error::TooLarge`]: nothing
    /// was appended. [`Error::Failed`] where a write failed, now or earlier: whether these events are in the
    /// log is known when it is opened again. [`Error::Closed`] after the log was closed.
    ///
    /// # Panics
    ///
    /// Where an event names itself or a later one of `events` as its cause.
    pub async fn append(
        &self,
        stream: StreamId,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Recorded>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        // Encoding is the caller's work; the writer is there for everyone.
        let draft = Draft::encode(stream, &events)?;
        let placed = self.writer.append(stream, expected, draft).await?;
        Ok((0..)
            .zip(events)
            .map(|(index, new)| Recorded {
                position: Position(placed.first.0 + index),
                stream,
                seq: Seq(placed.first_seq.0 + index),
                at: new.at,
                cause: match new.cause {
                    // There is no position 0, so it says as much as none, here as in the file.
                    Cause::None | Cause::At(Position(0)) => None,
                    Cause::At(position) => Some(position),
                    Cause::Sibling(sibling) => Some(Position(placed.first.0 + sibling as u64)),
                },
                class: new.event.class(),
                provenance: new.provenance,
                event: new.event,
            })
            .collect())
    }

    /// Keeps a snapshot: derived data, written with some later commit, and lost without harm.
    ///
    /// It replaces the last one of the same projection and stream. One that is larger than
    /// [`SNAPSHOT_BYTES_MAX`](crate::limits::SNAPSHOT_BYTES_MAX) is not kept.
    pub fn put_snapshot(&self, stream: StreamId, projection: &str, snapshot: Snapshot) {
        if self.shared.snapshots.put(stream, projection, snapshot) {
            self.writer.nudge();
        }
    }

    /// Commits what waits, writes the index, and ends the writer; later appends give `Closed`.
    ///
    /// The file is free when this resolves: readers and tails of this log end, and another process can
    /// open it. A log that was closed already is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] where a write failed; what had been acknowledged is safe.
    pub async fn close(&self) -> Result<()> {
        self.writer.close().await
    }
}

/// Reads what the tables of the index lack, and writes as much of it as memory is not to hold.
fn complete_index(storage: &Storage) -> Result<Index> {
    let mut index = Index::default();
    loop {
        storage.view(index.through().next(), |transaction| {
            index.catch_up(transaction, true)
        })?;
        if !index.lags() {
            return Ok(index);
        }
        let rows = index.unflushed();
        storage
            .change(|transaction| rows.write(transaction))
            .map_err(|fault: Fault| fault.near(index.through()))?;
        index.flushed(&rows);
    }
}

#[cfg(test)]
mod tests;
