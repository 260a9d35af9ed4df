//! What the world can do to a log, with the data that whoever acts on it needs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::id::{EventId, FrameNumber, Position, Seq, StreamId};

/// Why a log could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A bare verb phrase: `create the directory`.
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        source: Arc<std::io::Error>,
    },
    /// The directory holds things, but no log.
    #[error("{} is not a data directory of recount: it holds {found:?} and no log; name an empty or a new directory", path.display())]
    NotADataDirectory {
        /// The directory.
        path: PathBuf,
        /// One of the things that it holds.
        found: String,
    },
    /// There is a log already, where a new one was to be made. It was left as it is.
    #[error("there is a log in {} already; name a new directory", path.display())]
    LogExists {
        /// The directory.
        path: PathBuf,
    },
    /// There is no log to read.
    #[error("there is no log in {}; nothing was recorded there yet", path.display())]
    NoLog {
        /// The directory.
        path: PathBuf,
    },
    /// The file is something else, or damaged beyond recognition; it was left as it is.
    #[error("{} is not a log of recount ({reason}); it was left as it is: move it away, or name another data directory", path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A newer release wrote the file; it was left as it is.
    #[error("{} has format {found}, and this release reads up to {known}; it was left as it is: use the release that wrote it or a newer one", path.display())]
    NewerLog {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this build reads.
        known: u32,
    },
    /// Another process writes this log.
    #[error("another process{} is writing {}: wait for it to end, or name another data directory", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), path.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// The process, where it is known.
        holder: Option<u32>,
    },
    /// The stream is not where the caller believed it to be. Nothing was appended.
    #[error("{stream} has {actual} events, not {expected}")]
    Conflict {
        /// The stream.
        stream: StreamId,
        /// The number that the caller expected.
        expected: Seq,
        /// The number of its last event; 0 where it has none.
        actual: Seq,
    },
    /// An event with the same id is in the log already, and is another one. Nothing was appended.
    #[error(
        "the event with id {id} is in the log already, at position {position}, and is not the same: choose another id for another event"
    )]
    IdTaken {
        /// The id.
        id: EventId,
        /// The event that has it.
        position: Position,
    },
    /// A stream cannot be cut there. Nothing was changed.
    #[error(
        "{stream} cannot be cut before event {before}: it has the events {from} to {last}, and can be cut before a later one of them or after the last"
    )]
    NothingToCut {
        /// The stream.
        stream: StreamId,
        /// Where it was to be cut.
        before: Seq,
        /// Its first event that remains.
        from: Seq,
        /// Its last event.
        last: Seq,
    },
    /// One call carried more than a log takes at once. Nothing was appended.
    #[error("{bytes} bytes in one append; the limit is {limit}")]
    TooLarge {
        /// What it carried.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The log holds something that cannot be.
    #[error("the log is damaged at position {position}: {what}")]
    Corrupt {
        /// The first bad place.
        position: Position,
        /// What is wrong there.
        what: String,
    },
    /// The frames as received hold something that cannot be. Events do not depend on them.
    #[error("the frames as received are damaged at number {number}: {what}")]
    CorruptFrame {
        /// The first bad frame.
        number: FrameNumber,
        /// What is wrong there.
        what: String,
    },
    /// The file could not be read.
    #[error("cannot read the log: {reason}")]
    Read {
        /// What the storage said.
        reason: String,
    },
    /// A write failed once; the log takes no more until it is opened again.
    #[error(
        "the log takes no more writes since one failed ({cause}); what was acknowledged is safe: mend the cause and open it again"
    )]
    Failed {
        /// Why the first write failed.
        cause: Arc<str>,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// The result of asking a log.
pub type Result<T, E = Error> = std::result::Result<T, E>;
