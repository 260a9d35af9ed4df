//! What is compared with: two databases that people would use instead of the log, and the least that a disk and a
//! client can do.
//!
//! Each database is set as its documentation advises for durable appends, and given nothing to keep but the
//! payload under its session and number: no time, no cause, no hash.

mod bare;
mod client;
mod fjall;
mod sqlite;

pub use bare::{Bare, Preallocated};
pub use client::{BareClient, Calls, Heard, Parser};
pub use fjall::Fjall;
pub use sqlite::Sqlite;

/// The memory that a peer may use for its pages.
const CACHE_BYTES: u32 = 64 << 20;
