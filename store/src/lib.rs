//! What happened, and keeping it: the event vocabulary, its bytes, and the log.
//!
//! - [`event`]: everything that can be recorded, and [`id`]: the names and numbers in it.
//! - [`frame`]: what agents said as it was received, kept beside the events.
//! - `codec`: the bytes of events. Old bytes keep their meaning for ever. All bytes are described in [`mod@format`].
//! - [`log`]: one file that events are appended to, read from, and followed in.
//! - [`key`]: who signs where the log stands, so that others can prove it later.
//! - [`derived`]: bytes for what can be folded again, such as snapshots.
//! - [`limits`] and [`error`]: how much, and what can go wrong.
//!
//! ```
//! use recount_store::{Event, Expected, Log, NewEvent, Seq, SessionId, StreamId, Timestamp};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let folder = tempfile::tempdir().unwrap();
//! # let directory = folder.path().join("data");
//! let log = Log::open(directory)?;
//! let session = StreamId::Session(SessionId::from_random(7));
//! let closed = NewEvent::live(Event::SessionClosed, Timestamp(1));
//!
//! let recorded = log.append(session, Expected::NoStream, vec![closed]).await?;
//! // It is durable now.
//! assert_eq!(recorded[0].seq, Seq::FIRST);
//! assert_eq!(log.read(session, Seq::FIRST).collect::<Result<Vec<_>, _>>()?, recorded);
//! # log.close().await
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codec;
pub mod derived;
pub mod error;
pub mod event;
pub mod frame;
#[doc = include_str!("../FORMAT.md")]
pub mod format {}
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hex;
pub mod id;
pub mod key;
pub mod limits;
pub mod log;

pub use error::{Error, Result};
pub use event::{
    Cause, Choice, Class, ConnectionState, Envelope, Event, Json, NewEvent, OutputKind,
    PermissionAnswer, Placement, Prompt, Provenance, Recorded, Refusal, Rerun, Resolution, Target,
    ToolOutcome, Verdict,
};
pub use frame::{Frame, FrameContent, FramesBefore};
pub use id::{
    ConnectionId, EventId, FrameNumber, MessageId, Position, Seq, SessionId, StreamId, Timestamp,
};
pub use key::{PublicKey, SigningKey};
pub use log::{
    Append, CheckError, Compacted, Excerpt, Expected, Hash, Head, Holder, Import, Log, LogReader,
    Options, Piece, Progress, RawEvent, Salvaged, SalvagedStream, Select, SignedHead, Snapshot,
    StreamHead, Tail, Verified, check, salvage, verify, verify_all,
};
