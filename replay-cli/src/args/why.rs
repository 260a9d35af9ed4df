//! What `recount why` can be asked for.

use std::str::FromStr;

use clap::Args;
use recount_store::{Event, Seq};

use super::Session;

/// Tell why something happened: the chain of its causes
///
/// Each event names the one that it followed from. This goes back from one to what began it: a command of an application,
/// or an observation of the world. Under each decision stands what the engine knew when it made it, folded from the events
/// just before: where the message, its turn, the connection and the breaker stood, and the policy that was in force.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  recount why latest last:MessageDeadLettered
  recount why latest ~12                   event 12 of its connection, as `recount log` numbers it
  recount why 7kq3 45 --effects            and all that followed from it, as a tree
  recount why latest last --json | jq -c '[.seq, .type, .knew]'

With --json, a line for each event: the one that was asked about first, then its causes (`\"is\": \"cause\"`, nearest \
first), all of them, then what followed from it (`\"is\": \"effect\"`) in the order of the tree, with its `depth` there.")]
pub(crate) struct Why {
    #[command(flatten)]
    pub(crate) session: Session,

    /// Its number in the session, or in its connection with a ~ before it; `last`; or the last of a type: `last:TYPE`
    #[arg(value_name = "EVENT")]
    pub(crate) event: Which,

    /// All causes, however many: else, of a long chain, the nearest ones and the one that began it
    #[arg(long)]
    pub(crate) all: bool,

    /// What followed from it, too, wherever in the log
    #[arg(long)]
    pub(crate) effects: bool,
}

/// An event of a session or of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one with this number in the session.
    Number(Seq),
    /// The one with this number in its connection.
    OfConnection(Seq),
    /// The last of the session; of this type, if one is named, of either.
    Last(Option<&'static str>),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "last" {
            return Ok(Self::Last(None));
        }
        if let Some(name) = text.strip_prefix("last:") {
            let mut names = Event::TYPE_NAMES.iter();
            return match names.find(|known| known.eq_ignore_ascii_case(name)) {
                Some(known) => Ok(Self::Last(Some(known))),
                None => Err(format!("there is no type of event called {name:?}")),
            };
        }
        let (digits, of): (_, fn(Seq) -> Self) = match text.strip_prefix('~') {
            Some(digits) => (digits, Self::OfConnection),
            None => (text, Self::Number),
        };
        let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
        match digits.parse().ok().filter(|_| is_number) {
            Some(0) => Err("events are numbered from 1".to_owned()),
            Some(number) => Ok(of(Seq(number))),
            None => Err("not an event like 12, ~12, last or last:TurnFailed".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_named_in_four_ways() {
        assert_eq!("12".parse(), Ok(Which::Number(Seq(12))));
        assert_eq!("~12".parse(), Ok(Which::OfConnection(Seq(12))));
        assert_eq!("last".parse(), Ok(Which::Last(None)));
        assert_eq!(
            "last:turnfailed".parse(),
            Ok(Which::Last(Some("TurnFailed")))
        );
        for bad in [
            "",
            "0",
            "~0",
            "~",
            "+3",
            "-3",
            "last:",
            "last:Nothing",
            "first",
        ] {
            assert!(bad.parse::<Which>().is_err(), "{bad}");
        }
    }
}
