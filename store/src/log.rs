//! The log: append, read, tail.
//!
//! One redb file in a directory of its own, and a journal in front of it. One process writes it, through a [`Log`]; any number of
//! processes may read it meanwhile, through a [`LogReader`].
//!
//! ```text
//! append ─> queue ─> writer: one entry for all who wait ─> journal, durable ─> answers
//!                                                             │
//!                     recent: the same in memory, indexed <───┤   readers and tails: by position, by stream
//!                     settler: tables of the storage      <───┘   now and then, much at a time
//! ```
//!
//! Start reading with `journal.rs`, `block.rs` and `table.rs`, which say what is in the files, then
//! `writer.rs`, and `recent.rs` for the reading side.

pub(crate) mod block;
mod ahead;
mod compact;
#[cfg(any(test, fuzzing))]
pub(crate) mod damaged;
mod excerpt;
mod files;
mod follow;
mod frames;
pub mod head;
mod import;
mod index;
mod journal;
mod plan;
mod reader;
mod recent;
mod salvage;
mod scan;
mod settle;
mod snapshot;
mod storage;
mod table;
mod tail;
mod unclean;
mod verify;
mod writer;

use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use tokio::sync::watch;

use crate::codec::Draft;
use crate::error::{Error, Result};
use crate::event::{Cause, Envelope, Event, NewEvent, Recorded};
use crate::frame::{Frame, FramesBefore};
use crate::hex;
use crate::id::{ConnectionId, FrameNumber, Position, Seq, StreamId, Timestamp};
use crate::limits;

use ahead::Events;
use follow::Follower;
use journal::{Journal, Mark};
use plan::{Outcome, Part, Placed};
use reader::{All, ReadBack, ReadFrames, Shared, Stream};
use recent::{Generation, Recent, View};
use storage::{Fault, Storage};

pub use compact::{Compacted, Progress};
pub use excerpt::{Excerpt, Piece, RawEvent};
pub use head::{CheckError, Head, SignedHead};
pub use import::Import;
pub use salvage::{Salvaged, SalvagedStream, salvage};
pub use tail::Tail;
pub use verify::{Verified, check, verify, verify_all};

/// How a log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether [frames](crate::frame) are kept. They are, by default.
    pub keep_frames: bool,
    /// The bytes that gather in the journal before they settle: what opening after a crash has to read, and
    /// up to three times this much memory. 8 MiB by default.
    pub settle_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_frames: true,
            settle_bytes: limits::JOURNAL_BYTES,
        }
    }
}

/// Events for one stream, of an append to several.
#[derive(Debug, Clone, PartialEq)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// What the caller believes about it.
    pub expected: Expected,
    /// What happened.
    pub events: Vec<NewEvent>,
}

impl Append {
    fn encode(&self) -> Result<Part> {
        Ok(Part {
            stream: self.stream,
            expected: self.expected,
            draft: Draft::encode(self.stream, &self.events)?,
        })
    }

    /// The events with their places.
    fn recorded(self, placed: Placed) -> impl Iterator<Item = Recorded> {
        let stream = self.stream;
        (0..).zip(self.events).map(move |(index, mut new)| {
            if let Cause::Sibling(sibling) = new.cause {
                new.cause = Cause::At(Position(placed.first.0 + sibling as u64));
            }
            let position = Position(placed.first.0 + index);
            new.recorded(stream, Seq(placed.first_seq.0 + index), position)
        })
    }
}

impl NewEvent {
    /// The event as a log holds it at this place.
    ///
    /// # Panics
    ///
    /// Where it follows from a sibling, which has no position without the others of its append.
    #[must_use]
    pub fn recorded(self, stream: StreamId, seq: Seq, position: Position) -> Recorded {
        Recorded {
            position,
            stream,
            seq,
            at: self.at,
            cause: match self.cause {
                // There is no position 0, so it says as much as none, here as in the file.
                Cause::None | Cause::At(Position(0)) => None,
                Cause::At(position) => Some(position),
                Cause::Sibling(sibling) => panic!("its sibling {sibling} has no position yet"),
            },
            class: self.event.class(),
            provenance: self.provenance,
            id: self.id,
            frame: self.frame,
            event: self.event,
        }
    }
}

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

impl serde::Serialize for Hash {
    /// As text.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Hash {
    /// From text.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::decode(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
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
    /// The position of its first event that is still in the file.
    pub first: Position,
    /// The position of its last event.
    pub last: Position,
    /// When its last event happened.
    pub at: Timestamp,
    /// The number of the first event that can be read: 1, unless its front was cut.
    pub from: Seq,
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

/// A process that writes a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its id, where it is known: an engine says so in the log.
    pub pid: Option<u32>,
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
        let directory = directory.as_ref();
        let storage = files::open_read_only(directory)?;
        let key = storage.view(Position::FIRST, files::journal_key)?;
        Ok(Self {
            shared: Shared::reading(storage, Follower::new(directory, key)),
        })
    }

    /// The process that writes the log in `directory` now; `None` where none does. Changes nothing, and keeps
    /// nobody waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Read`] where the file, or who has locked it, cannot be looked at.
    pub fn writer(directory: impl AsRef<Path>) -> Result<Option<Holder>> {
        files::writer(directory.as_ref())
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
            // What is announced comes a moment after what readers are shown.
            Some(_) => Ok(self.shared.recent().growing.get().after.tip.into()),
            None => self.shared.look(View::tip).map(Head::from),
        }
    }

    /// Where one stream stands; `None` where it has no events.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn stream_head(&self, stream: StreamId) -> Result<Option<StreamHead>> {
        let key = stream.to_bytes();
        let end = self.shared.look(|view| view.end(&key))?;
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
        self.shared.look(|view| {
            view.ends()?
                .into_iter()
                .map(|(key, end)| Ok((index::stream_of(key)?, end.head)))
                .collect()
        })
    }

    /// The events of one stream from a number on, in order; memory is bounded by a few blocks.
    ///
    /// It sees what is durable when it gets there, so it may see more than there was when it began. It
    /// ends where the stream does, or after the first error.
    ///
    /// What is long is read ahead by a thread, which ends with the iterator.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read(
        &self,
        stream: StreamId,
        from: Seq,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        Events::new(Stream::new(Arc::clone(&self.shared), stream, from))
    }

    /// The events of one stream from a number down to the first that remains; memory is bounded by a few blocks.
    ///
    /// From `Seq(u64::MAX)` it begins with the last. It ends after the first error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read_backwards(
        &self,
        stream: StreamId,
        from: Seq,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        ReadBack::stream(Arc::clone(&self.shared), stream, from)
    }

    /// All events from a position down to the first; memory is bounded by a few blocks.
    ///
    /// From `Position(u64::MAX)` it begins with the last. It ends after the first error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read_all_backwards(
        &self,
        from: Position,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        ReadBack::all(Arc::clone(&self.shared), from)
    }

    /// The position from which on events are as young as `time`: to read by time.
    ///
    /// Events carry the clocks of those who appended them. Where these went back, it is a position with
    /// older events before it and younger ones after it, near that time. Past the end where all are older.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn position_at(&self, time: Timestamp) -> Result<Position> {
        self.shared.look(|view| view.position_at(time))
    }

    /// All events from a position on, in order; memory is bounded by a few blocks.
    ///
    /// It sees what is durable when it gets there, so it may see more than there was when it began. It
    /// ends where the log does, or after the first error.
    ///
    /// What is long is read ahead by a thread, which ends with the iterator.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read_all(&self, from: Position) -> impl Iterator<Item = Result<Recorded>> + use<> {
        Events::new(All::new(Arc::clone(&self.shared), from))
    }

    /// Of the events from one position through another, those that `keep` wants, in order: to look for something in
    /// much. What it does not want costs next to nothing, since its payload is never read. Memory is bounded by a
    /// few blocks.
    ///
    /// It ends after the last position, where the log does, or after the first error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub fn read_range<Keep: Fn(&Envelope) -> bool + Send + 'static>(
        &self,
        range: RangeInclusive<Position>,
        keep: Keep,
    ) -> impl Iterator<Item = Result<Recorded>> + Send + use<Keep> {
        Events::beside_others(All::of_range(
            Arc::clone(&self.shared),
            range,
            Box::new(keep),
        ))
    }

    /// The frames that were kept, from a number on, in order; memory is bounded by a chunk of them.
    ///
    /// It ends where the frames do, or after the first error.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::CorruptFrame`]; [`Error::Closed`] after the log was closed.
    pub fn frames(&self, from: FrameNumber) -> impl Iterator<Item = Result<Frame>> + use<> {
        ReadFrames::new(Arc::clone(&self.shared), from)
    }

    /// Some streams as they are now, in pieces that prove themselves, for an [`Import`] or for somebody else.
    ///
    /// It reads the log up to the last of their events, in short looks, while others may write.
    ///
    /// # Errors
    ///
    /// [`Error::Read`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed. The pieces give the same.
    pub fn excerpt(&self, select: Select) -> Result<Excerpt> {
        Excerpt::new(Arc::clone(&self.shared), select)
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
        let waiting = self.shared.snapshots.get(stream, projection);
        self.shared.look(|view| {
            let snapshot = match waiting {
                Some(waiting) => Some(waiting),
                None => snapshot::read(&view.transaction, stream, projection)?,
            };
            // What was cut off is not to live on in a state that nobody could fold again.
            let cut = view.end(&stream.to_bytes())?.and_then(|end| end.cut);
            Ok(snapshot.filter(|snapshot| cut.is_none_or(|cut| snapshot.seq >= cut.at)))
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
    keep_frames: bool,
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
        Self::open_with(directory, Options::default())
    }

    /// Opens the log in `directory`, to be kept as `options` say.
    ///
    /// # Errors
    ///
    /// As [`Log::open`].
    pub fn open_with(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = directory.as_ref();
        let storage = files::open(directory)?;
        let journal = files::open_journal(directory)?;
        Self::start(storage, journal, options, None)
    }

    /// A log in memory, for tests.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system gives no thread.
    pub fn in_memory() -> Result<Self> {
        let journal = [InMemoryBackend::new(), InMemoryBackend::new()];
        let journal = journal.map(|file| Arc::new(file) as Arc<dyn StorageBackend>);
        Self::with_backends(InMemoryBackend::new(), journal, Options::default())
    }

    /// A log in backends that no other process shares, for tests that let storage fail: the storage itself,
    /// and the two files of the journal.
    ///
    /// # Errors
    ///
    /// As [`Log::open`], for what the backends hold.
    #[doc(hidden)]
    pub fn with_backends(
        storage: impl StorageBackend,
        journal: [Arc<dyn StorageBackend>; 2],
        options: Options,
    ) -> Result<Self> {
        let storage = Self::initialised(storage)?;
        Self::start(storage, journal, options, None)
    }

    /// The same without threads: whoever appends does the writer's work, and settles. For tests in which
    /// everything happens in an order that they chose. Each append is answered as long after it is durable as `pace`
    /// says, by tokio's clock.
    ///
    /// # Errors
    ///
    /// As [`Log::open`], for what the backends hold.
    #[doc(hidden)]
    pub fn without_threads(
        storage: impl StorageBackend,
        journal: [Arc<dyn StorageBackend>; 2],
        options: Options,
        pace: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Result<Self> {
        let storage = Self::initialised(storage)?;
        Self::start(storage, journal, options, Some(Box::new(pace)))
    }

    fn initialised(storage: impl StorageBackend) -> Result<Storage> {
        let storage = Storage::with_backend(storage).and_then(|storage| {
            if !files::is_initialised(&storage)? {
                files::initialise(&storage, &files::new_key()?)?;
            }
            Ok(storage)
        });
        storage.map_err(|fault| fault.near(Position::FIRST))
    }

    fn start(
        storage: Storage,
        files: [journal::File; 2],
        options: Options,
        pace: Option<writer::Pace>,
    ) -> Result<Self> {
        compact::index_settled(&storage, &mut |_| {})?;
        let (recent, mark, journal) = recover(&storage, files, options.settle_bytes)
            .map_err(|fault| fault.near(Position::FIRST))?;
        let (durable, watching) = watch::channel(Head::from(mark.tip));
        let shared = Shared::writing(storage, recent, mark, watching);
        Ok(Self {
            writer: Arc::new(writer::Handle::start(
                Arc::clone(&shared),
                mark,
                journal,
                durable,
                pace,
            )?),
            reader: LogReader { shared },
            keep_frames: options.keep_frames,
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
        let append = Append {
            stream,
            expected,
            events,
        };
        let mut recorded = self.append_all(vec![append]).await?;
        Ok(recorded.pop().unwrap_or_default())
    }

    /// Appends events to several streams, all or none, and resolves when they are durable.
    ///
    /// As [`Log::append`]; the events come back for each append. A stream may be named again, and is then
    /// expected to be where the appends before would leave it.
    ///
    /// # Errors
    ///
    /// As [`Log::append`].
    ///
    /// # Panics
    ///
    /// As [`Log::append`].
    pub async fn append_all(&self, mut appends: Vec<Append>) -> Result<Vec<Vec<Recorded>>> {
        let counts: Vec<usize> = appends.iter().map(|append| append.events.len()).collect();
        appends.retain(|append| !append.events.is_empty());
        if appends.is_empty() {
            return Ok(counts.iter().map(|_| Vec::new()).collect());
        }
        // Encoding is the caller's work; the writer is there for everyone.
        let parts: Vec<Part> = appends.iter().map(Append::encode).collect::<Result<_>>()?;
        let bytes = parts.iter().map(|part| part.draft.len()).sum();
        if bytes > limits::APPEND_BYTES_MAX {
            return Err(Error::TooLarge {
                bytes,
                limit: limits::APPEND_BYTES_MAX,
            });
        }
        let mut recorded = match self.writer.append(parts).await? {
            Outcome::Repeated(recorded) => recorded.into_iter(),
            Outcome::New(placed) => {
                let appends = placed.into_iter().zip(appends);
                let recorded = appends.flat_map(|(placed, append)| append.recorded(placed));
                recorded.collect::<Vec<_>>().into_iter()
            }
        };
        Ok(counts
            .into_iter()
            .map(|count| recorded.by_ref().take(count).collect())
            .collect())
    }

    /// Cuts the front of a stream: its events before `before` are gone for readers at once. Their space comes
    /// back with [`Log::compact`].
    ///
    /// What remains is told by an event in the stream itself, [`Event::StreamCut`]: numbers and positions
    /// stay, and the chain of the stream goes on from the hash that it names. `before` may be one more than
    /// the last number; then that event alone remains. Snapshots made before are not given any more.
    ///
    /// The folds of a session begin with its first event. So the front of one that is to go on is better left
    /// alone; one that was closed can go but for its last event.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToCut`] where no event stands before `before`, or the stream ends before it; else as
    /// [`Log::append`].
    pub async fn cut(&self, stream: StreamId, before: Seq, at: Timestamp) -> Result<Recorded> {
        loop {
            let head = self.stream_head(stream)?;
            let (seq, from) = head.map_or((Seq(0), Seq::FIRST), |head| (head.seq, head.from));
            if before <= from || before > seq.next() {
                return Err(Error::NothingToCut {
                    stream,
                    before,
                    from,
                    last: seq,
                });
            }
            let hash = self.hash_of(stream, Seq(before.0 - 1))?;
            let cut = NewEvent::live(Event::StreamCut { before, hash }, at);
            match self.append(stream, Expected::Exact(seq), vec![cut]).await {
                // Somebody was faster; it can still be cut.
                Err(Error::Conflict { .. }) => {}
                appended => return appended.map(|mut recorded| recorded.remove(0)),
            }
        }
    }

    /// Deletes frames that are old, in whole [chunks](crate::frame): a few that are old may stay until their
    /// neighbours are too. Gives the number of the first that remains.
    ///
    /// Events stay as they are: they name frames that are gone. The space comes back with [`Log::compact`].
    ///
    /// # Errors
    ///
    /// [`Error::CorruptFrame`] where a chunk that may be old cannot be read; [`Error::Failed`] where the change
    /// could not be written; [`Error::Closed`] after the log was closed.
    pub async fn drop_frames(&self, old: FramesBefore) -> Result<FrameNumber> {
        self.writer
            .upkeep(move |shared| {
                let dropped = shared
                    .storage
                    .change(|transaction| frames::drop_old(transaction, old));
                dropped.map_err(|fault| match fault {
                    Fault::Ours(error) => error,
                    fault => Error::Failed {
                        cause: fault.to_string().into(),
                    },
                })
            })
            .await
    }

    /// Gives back the space of what was cut off and dropped.
    ///
    /// Appends go on meanwhile, as long as the journal has room for what does not settle (twice
    /// [`Options::settle_bytes`]); reading waits while the file is made shorter. It can be killed at any time: the log is whole, and compacting again goes on.
    /// A process that reads the log keeps the file from becoming shorter; then its space is used again by
    /// later events, and [`Compacted`] shows the length that stayed.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub async fn compact(
        &self,
        mut report: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Compacted> {
        self.writer
            .upkeep(move |shared| compact::compact(&shared.storage, &mut report))
            .await
    }

    /// Drops all that is derived, the index and the snapshots, and makes the index anew from the events.
    ///
    /// Nothing is lost but time: what is read before and after is the same. Snapshots come again with time.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::Corrupt`]; [`Error::Closed`] after the log was closed.
    pub async fn rebuild(&self, mut report: impl FnMut(Progress) + Send + 'static) -> Result<()> {
        self.writer
            .upkeep(move |shared| {
                compact::drop_derived(&shared.storage)?;
                compact::index_settled(&shared.storage, &mut report)
            })
            .await
    }

    /// The hash of an event of a stream.
    fn hash_of(&self, stream: StreamId, seq: Seq) -> Result<Hash> {
        let key = stream.to_bytes();
        let hash = self.shared.look(|view| {
            let wanted = view.blocks_of(&key, seq, 1)?;
            let mut hash = None;
            view.visit(&wanted, |block| {
                for record in block.records() {
                    let record = record?;
                    if *record.stream_key() == key && record.seq() == seq {
                        hash = Some(record.hash());
                    }
                }
                Ok(recent::Go::On)
            })?;
            Ok(hash)
        })?;
        hash.ok_or_else(|| Error::Corrupt {
            position: Position::FIRST,
            what: format!("event {seq} of {stream} is missing"),
        })
    }

    /// Keeps a frame as it was received, beside the events, and gives its number for those that come from it.
    ///
    /// It never waits: the frame is written with what is appended next, or by itself when much has gathered.
    /// So an event that names it is never durable without it. `None` where frames are not kept by this log's
    /// [`Options`], or where too much waits to be written: then it is counted, and the count is kept
    /// ([`FrameContent::Skipped`](crate::FrameContent::Skipped)).
    #[must_use = "an event that comes from it should name it"]
    pub fn keep_frame(
        &self,
        connection: ConnectionId,
        at: Timestamp,
        bytes: &[u8],
    ) -> Option<FrameNumber> {
        if !self.keep_frames {
            self.shared.gathering.skip(connection, at);
            return None;
        }
        let kept = self.shared.gathering.keep(connection, at, bytes);
        if kept.is_much {
            self.writer.write_frames_soon();
        }
        kept.number
    }

    /// Keeps a snapshot: derived data, written with some later commit, and lost without harm.
    ///
    /// It replaces the last one of the same projection and stream. One that is larger than
    /// [`SNAPSHOT_BYTES_MAX`](crate::limits::SNAPSHOT_BYTES_MAX) is not kept.
    pub fn put_snapshot(&self, stream: StreamId, projection: &str, snapshot: Snapshot) {
        if self.shared.snapshots.put(stream, projection, snapshot) {
            self.writer.settle_soon();
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

    /// Resolves when no thread of the log does anything but wait, for tests that need each step in turn.
    #[doc(hidden)]
    pub async fn quiet(&self) {
        self.writer.quiet().await;
    }
}

/// Reads what the journal holds beyond the tables, and goes on after it.
fn recover(
    storage: &Storage,
    files: [journal::File; 2],
    settle_bytes: u64,
) -> Result<(Recent, Mark, Journal), Fault> {
    let (key, settled) = {
        let transaction = storage.begin_read()?;
        (
            files::journal_key(&transaction)?,
            follow::settled(&transaction)?,
        )
    };
    let mut mark = settled;
    let mut found: Vec<(usize, Arc<Generation>)> = Vec::new();
    let mut last = None;
    let end = journal::walk(&files, &key, settled, |place, entry, _| {
        last = Some(place);
        if found.last().is_none_or(|(file, _)| *file != place.file) {
            found.push((place.file, Generation::after(mark)));
        }
        mark = entry.after;
        let (_, generation) = found.last().expect("one was pushed");
        Ok(generation.add(entry)?)
    })?;
    let growing = found.pop().map(|(_, generation)| generation);
    let settling = found.pop().map(|(_, generation)| generation);
    assert!(found.is_empty(), "a journal has two files");
    let growing = growing.unwrap_or_else(|| Generation::after(mark));
    let journal = Journal::resume(files, key, last, end, settle_bytes)?;
    Ok((Recent::new(settling, growing), mark, journal))
}

#[cfg(test)]
mod tests;
