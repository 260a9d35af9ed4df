//! The log: append, read, tail. (Skeleton of the interface; the bodies come next.)

use std::path::Path;

use crate::error::Result;
use crate::event::{NewEvent, Recorded};
use crate::id::{Position, Seq, StreamId, Timestamp};

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
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

/// Where the whole log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The position of the last durable event; 0 where there is none.
    pub position: Position,
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
pub struct LogReader {}

impl LogReader {
    /// Opens the log in `directory` for reading, while another process may be writing it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let _ = directory;
        todo!()
    }
    /// Where the whole log stands.
    pub fn head(&self) -> Result<Head> {
        todo!()
    }
    /// Where one stream stands; `None` where it has no events.
    pub fn stream_head(&self, stream: StreamId) -> Result<Option<StreamHead>> {
        let _ = stream;
        todo!()
    }
    /// All streams, in the order of their names, from the index and its tail.
    pub fn streams(&self) -> Result<Vec<(StreamId, StreamHead)>> {
        todo!()
    }
    /// The events of one stream from a number on, in order; memory is bounded by a block.
    pub fn read(
        &self,
        stream: StreamId,
        from: Seq,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        let _ = (stream, from);
        std::iter::empty()
    }
    /// All events from a position on, in order; memory is bounded by a block.
    pub fn read_all(&self, from: Position) -> impl Iterator<Item = Result<Recorded>> + use<> {
        let _ = from;
        std::iter::empty()
    }
    /// Events from a position on: first what is there, then what comes, without gap or repeat.
    pub fn tail(&self, select: Select, from: Position) -> Tail {
        let _ = (select, from);
        todo!()
    }
    /// The last snapshot of a projection of a stream.
    pub fn snapshot(&self, stream: StreamId, projection: &str) -> Result<Option<Snapshot>> {
        let _ = (stream, projection);
        todo!()
    }
}

/// Events as they come.
pub struct Tail {}

impl Tail {
    /// The next event, waiting for it; `None` when the log was closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Result<Recorded>> {
        todo!()
    }
    /// The next event if there is one now.
    pub fn try_next(&mut self) -> Option<Result<Recorded>> {
        todo!()
    }
}

/// The log, for its one writer. Cheap to clone; derefs to [`LogReader`].
#[derive(Clone)]
pub struct Log {
    reader: LogReader,
}

impl std::ops::Deref for Log {
    type Target = LogReader;
    fn deref(&self) -> &LogReader {
        &self.reader
    }
}

impl Log {
    /// Opens the log in `directory`, making both where they are missing.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let _ = directory;
        todo!()
    }
    /// A log in memory, for tests.
    pub fn in_memory() -> Result<Self> {
        todo!()
    }
    /// Appends events to a stream, all or none, and resolves when they are durable.
    pub async fn append(
        &self,
        stream: StreamId,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Recorded>> {
        let _ = (stream, expected, events);
        todo!()
    }
    /// Keeps a snapshot: derived data, written with some later commit, and lost without harm.
    pub fn put_snapshot(&self, stream: StreamId, projection: &str, snapshot: Snapshot) {
        let _ = (stream, projection, snapshot);
    }
    /// Commits what waits, writes the index, and ends the writer; later appends give `Closed`.
    pub async fn close(&self) -> Result<()> {
        todo!()
    }
}
