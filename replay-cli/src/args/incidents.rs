//! The arguments of `recount incidents`.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use recount_projections::incident::Kind;
use recount_store::Timestamp;

use super::moment;

/// List what went wrong, grouped into incidents, newest last; or report one
///
/// What belongs together is one incident: a connection that was lost with its tries and its breaker, the turns and
/// messages that it touched, and the gap that it left. Each has a beginning, an end or none yet, the sessions that it
/// touched, the cause as far as the log knows it, and how it ended. Reads the whole log once.
///
/// Its name is the position of its first event, i1042, and stays. With a name it is reported in Markdown: what
/// happened, when, to whom, how it ended, and what to do now.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount incidents                                 everything that went wrong
  recount incidents --open                          what still goes on, or waits for you
  recount incidents --since 12h --kind dead-letter
  recount incidents --session latest
  recount incidents i1042 > incident.md             one as a report
  recount incidents latest                          the newest one
  recount incidents --json | jq -r 'select(.open) | [.incident, .cause.text] | @tsv'

Kinds, the most telling first; an incident is called by the first that it has:
  crash         an engine ended without saying so
  panic         a part of the engine failed by a mistake of its own
  exit          a server ended that nobody stopped
  connection    a connection was lost, or could not be made
  breaker       too many tries failed: none was made for a while
  amnesia       an agent forgot a session
  gap           something that an agent sent never arrived
  stall         a turn fell silent, or took too long
  interruption  an agent died in the middle of a turn
  unknown       nobody knew whether a message had arrived
  expiry        a question waited for too long, and was refused
  failure       a turn ended without a whole answer
  dead-letter   a message was given up

How they end, the best first: healed (by itself), filled (what was missing was read later), settled (a person
decided), lost (something is missing for good), given-up; or they do not: open, waits (for a person).

With --json one object a line: incident, kind, kinds (how often each), begin, end (null while open), open, ending,
cause (null where the log does not know it; else position and text), connections, sessions (with the messages of
each), messages (how many), messages_left_out, evidence (positions of events), evidence_left_out. Of one incident
there is a timeline besides: its events, as `recount log --json` prints them.")]
pub(crate) struct Incidents {
    /// The incident to report: its name (or any event of it, i1042), or `latest`
    #[arg(value_name = "NAME", conflicts_with_all = ["since", "until", "session", "kind", "open"])]
    pub(crate) name: Option<String>,

    /// Only what went on at this TIME (RFC 3339, `2026-11-22 09:14`, `09:14`, or as long ago as `2h`) or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,

    /// Only what began at this TIME (RFC 3339, `2026-11-22 09:14`, `09:14`, or as long ago as `2h`) or earlier
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,

    /// Only what touched this session: its id, the beginning of it, or `latest`
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,

    /// Only those with something of this kind
    #[arg(long, value_name = "KIND", value_parser = kinds(), hide_possible_values = true)]
    pub(crate) kind: Option<Kind>,

    /// Only those that are not over
    #[arg(long)]
    pub(crate) open: bool,
}

fn kinds() -> impl clap::builder::TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(Kind::ALL.map(Kind::name)).map(|name| {
        let mut kinds = Kind::ALL.into_iter();
        kinds
            .find(|kind| kind.name() == name)
            .expect("the parser takes these names alone")
    })
}
