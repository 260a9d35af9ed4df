//! What `recount bisect` can be asked for.

use clap::Args;

use super::Session;

/// Find the moment at which something became true of a session
///
/// Goes through the events of a session and of its connection, and asks after each one whether the condition is true of
/// what `recount show --json` would print there. The answer is the event after which it first was.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount bisect latest 'queue.dead_letters > 0'
  recount bisect latest 'connection.state == \"disconnected\"' --all
  recount bisect 7kq3 'turns.last.text contains \"error\"'
  recount bisect 7kq3 'messages.attempts > 3 and not breaker == \"closed\"'
  recount bisect 7kq3 'turns.runs.tools.input.command matches \"rm +-rf\"'

A condition:
  PATH                     is there: not null, not false, not 0, not empty
  PATH == VALUE, !=        a text in quotes, a number, true, false, null
  PATH < VALUE, <= > >=    a number, or a time like \"2026-11-22T09:14:03Z\"
  PATH contains TEXT       has this text in it
  PATH matches PATTERN     has a match of this regular expression in it
  and, or, not, ( )        `not` binds more than `and`, and `and` more than `or`
A path names members, with dots: `recount show ID --json` shows all there are. Through a list it means each item, and \
one of them will do; `first`, `last`, `[0]` and `count` pick from a list.

What is true may become false again, so no halving finds the first time: every event is looked at, a few million a second \
for short conditions, and --all lists each change.

Exit codes: 0 it became true; 1 it never did; 2 wrong use.")]
pub(crate) struct Bisect {
    #[command(flatten)]
    pub(crate) session: Session,

    /// What should be true
    #[arg(value_name = "CONDITION")]
    pub(crate) condition: String,

    /// Each time that it became true, and false again
    #[arg(long)]
    pub(crate) all: bool,
}
