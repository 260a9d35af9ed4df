//! A file per verb. Verbs that look back are given a log to read and nothing else; those that run
//! something are given the directory of the log, and share `engine`.

pub(crate) mod demo;
mod engine;
pub(crate) mod frames;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod recover;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod sessions;
pub(crate) mod show;
pub(crate) mod sign;
pub(crate) mod verify;

use recount_store::Timestamp;

/// The time now, for saying how long ago something was.
fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}
