//! `recount import`.

use std::path::PathBuf;

use clap::Args;

/// Make a new log of what `recount export` wrote
///
/// Events keep their numbers, positions and hashes, so `recount verify` proves of them what it proved
/// before. A file in which anything was changed is refused, and the line is named. The log is there whole or not
/// at all; one that is there already is never touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount import session.jsonl --into ./looked-at
  recount --data ./looked-at log latest
  ssh host recount export latest | recount import - --into ./looked-at

Exit codes: 0 imported; 1 refused, and nothing was made; 2 wrong use.")]
pub(crate) struct Import {
    /// What `recount export` wrote as jsonl; `-` reads standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The directory of the new log [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
}
