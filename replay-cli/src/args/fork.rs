//! What `recount fork` can be asked for.

use clap::Args;

use super::{At, Session};

/// Begin a new session where an old one stood, to try again from there
///
/// The new one has the same agent, folder and model. What was said up to that moment belongs to it; a turn that had not
/// ended by then does not, so that it can be asked for in another way. The old one stays as it is.
///
/// With the first message, the agent is asked to copy its own session up to there. Where it makes no copy (it cannot, or
/// knows that session no more), what was said goes along with that message as text, tool calls in short. This says which
/// to expect, and the log of the new session which it was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount fork latest --at 40
  recount fork 7kq3 --at 2026-11-22T09:14:03Z --model provider/other
  recount run --session latest \"now without the tests\"      in the new session: it is the newest
  recount diff 7kq3 latest                                  how the two went on

Nothing is sent by this: `recount run` does that.
With --json one object: session (the new one), from, at (the event), messages (how many belong to it), by (\"copy\",
\"text\" or \"nothing\"), agent_session and through (what is to be copied), context_bytes, left_open (the message that is no
part of it).")]
pub(crate) struct Fork {
    #[command(flatten)]
    pub(crate) session: Session,

    /// Just after this event of it, or at this time [default: as it stands now]
    #[arg(long, value_name = "N|TIME")]
    pub(crate) at: Option<At>,

    /// The model [default: that of the old session]
    #[arg(long, value_name = "PROVIDER/MODEL", value_parser = super::model)]
    pub(crate) model: Option<String>,

    /// What the conversation is called [default: as the old one]
    #[arg(long, value_name = "TITLE")]
    pub(crate) title: Option<String>,
}
