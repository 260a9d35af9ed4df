//! The arguments of `recount doctor`.

use std::path::PathBuf;

use clap::Args;

/// Say what is wrong with a data directory, and what to do about it
///
/// Looks at a directory in any state: its files and who may read them, whether the log can be opened and is whole, who
/// writes it, the policy, the room on the disk, servers that were left running, what is open and what waits for
/// you. It changes nothing, and another process may be writing meanwhile.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount doctor
  recount doctor /backup/recount --json | jq -r '.findings[].next'

With --json one object: directory, healthy, findings; each with severity (note, warning, error), what, means
and next (null where nothing is to be done).
Exit codes: 0 nothing needs doing (notes do not count); 1 something does; 2 wrong use.")]
pub(crate) struct Doctor {
    /// The data directory [default: as every verb]
    #[arg(value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,

    /// Believe that the log is whole: a large one takes a while to prove
    #[arg(long)]
    pub(crate) quick: bool,
}
