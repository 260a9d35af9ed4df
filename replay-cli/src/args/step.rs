//! `recount step`.

use clap::Args;

use super::{At, Session};

/// Go through a session event by event, on a whole screen
///
/// The timeline, and beside it how the session stood at the event that the cursor is on: exactly what the engine
/// believed then. The log is only read; a session that another process runs can be followed. Keys, and `?` shows
/// them all: arrows move, r e d p t jump to the next retry, error, disconnect, permission, turn (the capitals to the
/// one before), / searches, : goes to a number or a time, f follows, q leaves.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount step latest
  recount step 7kq3 --at 12                      begin at event 12, as `recount log` numbers them
  recount step 7kq3 --at 2026-11-22T09:14:03Z

Needs a terminal; `recount log` and `recount show --at` print the same.
Exit codes: 0 left; 1 failed; 2 no terminal; 130 ended by Ctrl-C.")]
pub(crate) struct Step {
    #[command(flatten)]
    pub(crate) session: Session,

    /// Begin at event N of the session, or at a TIME (RFC 3339, `2026-11-22 09:14` or `09:14`) [default: the last event]
    #[arg(long, value_name = "N|TIME")]
    pub(crate) at: Option<At>,
}
