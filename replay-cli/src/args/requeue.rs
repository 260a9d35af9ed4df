//! The arguments of `recount requeue`.

use clap::Args;

/// Queue a message again that was given up
///
/// It becomes a new message of the same session, with the same text. Nothing is sent by this: `recount recover`
/// does that. Safe to repeat: a dead letter is queued again once, and this names the message that it became.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount dead-letters                           what was given up, and why
  recount requeue 7kq3 && recount recover
  recount requeue 7kq3 --even-if-it-may-double

With --json one object: session, message, again (the new message), new (false where it was queued
again before).
Exit codes: 0 queued again, now or before; 1 not, and why; 2 wrong use.")]
pub(crate) struct Requeue {
    /// The message: its id, the beginning of it, or `latest`, the one given up last
    #[arg(value_name = "MESSAGE")]
    pub(crate) message: String,

    /// Also where nobody knows whether the agent has it: it may then be answered twice
    #[arg(long)]
    pub(crate) even_if_it_may_double: bool,
}
