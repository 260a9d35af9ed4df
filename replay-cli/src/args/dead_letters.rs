//! The arguments of `recount dead-letters`.

use clap::Args;

/// List the messages that were given up and not queued again, newest first
///
/// Each with its text, why and when it was given up, whether the agent may have it all the same, and the command
/// that queues it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount dead-letters
  recount dead-letters --session latest
  recount dead-letters --json | jq -r 'select(.may_have_arrived | not).requeue_with' | sh

With --json one object a line: session, message, key, text, attempts, reason, at, may_have_arrived,
requeue_with.")]
pub(crate) struct DeadLetters {
    /// Only those of this session: its id, the beginning of it, or `latest`
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
}
