//! The arguments of `recount salvage`.

use std::path::PathBuf;

use clap::Args;

/// Take what can still be proven out of a damaged log, into a new one
///
/// Reads the bytes of the file, whatever its tables say, and of the journal beside it. Of each stream it takes the events
/// that the chain of hashes proves, up to the first that is missing or damaged. What stands behind such a hole is
/// listed and not taken: no log should say what it cannot prove, and no engine go on over a hole. The
/// damaged file is only read, and the new log is there whole or not at all.
///
/// Nobody knows what happened after the last event that was found. So no message that is open in the new log is sent by
/// itself: each becomes a dead letter, to be looked at and queued again. A session of which events are known to be
/// missing is closed. Frames are not taken.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount salvage ~/.local/share/recount --into rescued
  recount salvage log.redb --into rescued --unproven rest.jsonl
  recount --data rescued dead-letters

With --json one object: whole, events, streams (each with stream, taken, unproven, reason), missing, last,
whole_through, unreadable, dead_letters, closed.
Exit codes: 0 everything that was found was taken, and nothing between is missing; 1 not everything, or nothing;
2 wrong use.")]
pub(crate) struct Salvage {
    /// The log's file, or its directory
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The directory to make the new log in; one that holds a log already is refused
    #[arg(long, value_name = "DIR")]
    pub(crate) into: PathBuf,

    /// Write the events that cannot be proven to this new file, one a line, as `recount log --json` prints them
    #[arg(long, value_name = "FILE")]
    pub(crate) unproven: Option<PathBuf>,
}
