//! What `recount find` can be asked for.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use recount_store::{Event, Timestamp};

use super::{Age, moment};
use crate::query::shape::{BREAKER_STATES, CONNECTION_STATES, MESSAGE_STATES};

/// Look for events in all sessions
///
/// Prints each event that is like all of the flags, with its session or connection, in the order of the log and as
/// soon as it is found. Without a flag that is every event. Where the log was written by several machines, or a clock went
/// back, `--since` and `--until` cut it near that time.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  recount find --type StreamLost --type ServerExited
  recount find --error --since 2026-11-22T00:00:00Z        what went wrong since midnight
  recount find --state dead_lettered                       when a message was given up
  recount find --longer-than 5m                            what took long, and what never ended
  recount find --text \"rate.?limit\" --class observed
  recount find --type ConnectFailed --where 'data.attempt > 3'
  recount find --where 'type == \"ToolCallStarted\" and data.input.command contains \"rm \"'
  recount find --error --newest-first --limit 20

--longer-than measures, from the event that begins it to the one that ends it: a turn from its first request to its \
end; an attempt from DeliveryStarted until its outcome is known; a tool call; a question or a permission until it is \
settled; and how long a connection was away. It prints the event at the end; what has not ended is measured to the last \
event of the log or to --until, and printed at its beginning, after all others.

--where takes a condition on an event as --json prints it: paths, == != < <= > >= contains matches, and, or, not, \
and parentheses. `data` holds what the event says; a path through a list means each of its items.

Exit codes: 0 found; 1 nothing is like that; 2 wrong use.")]
pub(crate) struct Find {
    /// Only events of this type; again for another
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(Event::TYPE_NAMES), hide_possible_values = true)]
    pub(crate) types: Vec<String>,

    /// Only events that moved something into this state: a message, a connection, a breaker or a session
    ///
    /// Of a message: queued, sending, refused, unknown, accepted, requested, running, interrupted, waiting, completed,
    /// failed, aborted, cancelled, `dead_lettered`. Of a connection: disconnected, connecting, connected. Of a breaker:
    /// open, `half_open`, closed. Of a session: closed.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(states()), hide_possible_values = true)]
    pub(crate) state: Option<String>,

    /// Only events with such a text somewhere: a regular expression; of small letters, it means large ones, too
    #[arg(long, value_name = "PATTERN")]
    pub(crate) text: Option<String>,

    /// Only what went wrong: failures, losses, refusals, unknown outcomes, dead letters, openings of a breaker
    #[arg(long)]
    pub(crate) error: bool,

    /// Only the ends of what took longer than this, and what goes on that long: like 500ms, 30s, 5m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) longer_than: Option<Duration>,

    /// Only events of this TIME (RFC 3339, `2026-11-22 09:14`, `09:14`, or as long ago as `2h`) and later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,

    /// Only events of this TIME (RFC 3339, `2026-11-22 09:14`, `09:14`, or as long ago as `2h`) and earlier
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,

    /// Only this session and its connection: its id, the beginning of it, or `latest`
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,

    /// Only what was asked by somebody, observed in the world, or decided by the engine
    #[arg(long, value_name = "CLASS", value_parser = PossibleValuesParser::new(["asked", "observed", "decided"]))]
    pub(crate) class: Option<String>,

    /// Only what was seen live, backfilled from an agent's history, or inferred
    #[arg(long, value_name = "PROVENANCE", value_parser = PossibleValuesParser::new(["live", "backfilled", "inferred"]))]
    pub(crate) provenance: Option<String>,

    /// Only events of which this condition is true
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,

    /// No more than so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,

    /// Newest first
    #[arg(long)]
    pub(crate) newest_first: bool,
}

/// The words for all states, each once.
fn states() -> Vec<&'static str> {
    let mut states = MESSAGE_STATES.to_vec();
    states.extend(CONNECTION_STATES.iter().chain(&BREAKER_STATES));
    states
}

fn duration(text: &str) -> Result<Duration, String> {
    let millis = text.strip_suffix("ms").and_then(|number| {
        let digits = number.bytes().all(|digit| digit.is_ascii_digit());
        number.parse().ok().filter(|_| digits)
    });
    match millis {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => text
            .parse()
            .map(|Age(age)| age)
            .map_err(|_| "not a time like 500ms, 30s or 5m".to_owned()),
    }
}
