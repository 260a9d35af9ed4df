//! What happened, and keeping it: the event vocabulary, its bytes, and the log.

mod codec;
pub mod derived;
pub mod error;
pub mod event;
pub mod id;
pub mod limits;
pub mod log;

pub use error::{Error, Result};
pub use event::{
    Cause, Class, ConnectionState, Event, Json, NewEvent, OutputKind, PermissionAnswer, Placement,
    Provenance, Recorded, Refusal, Rerun, Resolution, Target, ToolOutcome,
};
pub use id::{ConnectionId, MessageId, Position, Seq, SessionId, StreamId, Timestamp};
pub use log::{
    Expected, Hash, Head, Log, LogReader, Select, Snapshot, StreamHead, Tail, Verified, verify,
};
