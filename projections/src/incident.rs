//! What went wrong: a fold over the whole log that groups what belongs together into incidents.
//!
//! An incident is what a person would tell in one go: "the server died, the link was down for twelve seconds, one turn
//! had to run again". It begins with something of a [`Kind`], and is over when nothing of it is open any more and
//! nothing else came for [`SETTLE`]. A failed probe that recovers, a refusal that is tried again, a link that is
//! closed on purpose are no incidents.
//!
//! # What belongs together
//!
//! What takes time is a *thread*: a link that is down, a delivery whose outcome is unknown, a turn that was interrupted
//! or fell silent, a hole in an answer, a gap in a stream, a recovery. Something that goes wrong belongs to an
//! incident, by the first of these rules that finds one:
//!
//! 1. **by thread**: one of the same link or message is open there;
//! 2. **by cause**: in a session, the log says that it follows from an event of that incident;
//! 3. **by session**: something else went wrong in the same session, less than [`SETTLE`] ago;
//! 4. **by connection**: the link of its session is down, or came back less than [`SETTLE`] ago;
//! 5. **by engine**: an engine crashed, and the next one recovers, or did so less than [`SETTLE`] ago.
//!
//! Else it begins one of its own. And a link that falls takes in what began on it within [`SETTLE`] before and is still
//! open: a call often notices first.
//!
//! # What is in memory
//!
//! The incidents that are not over, the open messages of the log, and a little for each session and connection. What is
//! over is given out by [`Incidents::take`]. Each incident has bounds of its own ([`EVIDENCE_MAX`], [`MESSAGES_MAX`]),
//! and says what it left out.

mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use recount_store::{ConnectionId, MessageId, Position, SessionId, Timestamp};

pub use fold::Incidents;

/// How long it has to be quiet before an incident is over: a link that falls again sooner had not come back, and what
/// a fall left behind is found sooner.
pub const SETTLE: Duration = Duration::from_secs(60);

/// How many events an incident names: the first, and the last [`EVIDENCE_LAST`] of the rest.
pub const EVIDENCE_MAX: usize = 200;

/// How many of the named events are the last ones.
pub const EVIDENCE_LAST: usize = 50;

/// How many messages an incident names.
pub const MESSAGES_MAX: usize = 1000;

/// Something that goes wrong. The most telling comes first: an incident is called by the first kind that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An engine ended without saying so, and another one found that out.
    Crash,
    /// A part of the engine failed by a mistake of its own.
    Panic,
    /// A server ended that nobody stopped.
    Exit,
    /// A connection was lost, or could not be made.
    Connection,
    /// A breaker opened: no try was made for a while.
    Breaker,
    /// An agent forgot a session, with all that was said in it.
    Amnesia,
    /// Something that an agent sent never arrived.
    Gap,
    /// A turn fell silent, or took too long, and was ended.
    Stall,
    /// An agent died in the middle of a turn.
    Interruption,
    /// Nobody knew whether a message had arrived.
    Unknown,
    /// A question of an agent's waited for too long, and was refused.
    Expiry,
    /// A turn ended without a whole answer.
    Failure,
    /// A message was given up.
    DeadLetter,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Crash,
        Self::Panic,
        Self::Exit,
        Self::Connection,
        Self::Breaker,
        Self::Amnesia,
        Self::Gap,
        Self::Stall,
        Self::Interruption,
        Self::Unknown,
        Self::Expiry,
        Self::Failure,
        Self::DeadLetter,
    ];

    /// The word for it, as the command takes and prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Panic => "panic",
            Self::Exit => "exit",
            Self::Connection => "connection",
            Self::Breaker => "breaker",
            Self::Amnesia => "amnesia",
            Self::Gap => "gap",
            Self::Stall => "stall",
            Self::Interruption => "interruption",
            Self::Unknown => "unknown",
            Self::Expiry => "expiry",
            Self::Failure => "failure",
            Self::DeadLetter => "dead-letter",
        }
    }
}

/// How an incident ended, or that it did not. The worst of its threads says it; each is worse than those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Ending {
    /// By itself: what was down came back, what was interrupted was done.
    #[default]
    Healed,
    /// What was missing was read from the agent's own history.
    Filled,
    /// A person decided, and then it went on.
    Settled,
    /// Something is missing for good.
    Lost,
    /// A turn failed, or a message was given up, or an engine ended before a link was back.
    GivenUp,
    /// It goes on.
    Open,
    /// It goes on until a person decides.
    Waits,
}

impl Ending {
    /// The word for it, as the command prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Healed => "healed",
            Self::Filled => "filled",
            Self::Settled => "settled",
            Self::Lost => "lost",
            Self::GivenUp => "given-up",
            Self::Open => "open",
            Self::Waits => "waits",
        }
    }
}

/// What an incident comes from, as far as the log knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The event that says so.
    pub position: Position,
    /// What it says, for a person.
    pub text: String,
}

/// The name of an incident: the position of its first event, as `i1042`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(pub Position);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("i{}", self.0))
    }
}

/// Things that went wrong and belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Its name. It stays, unless it turns out to belong to an incident that began before.
    pub name: Name,
    /// When it began: for the crash of an engine, the last time that this one was heard of.
    pub begin: Timestamp,
    /// When it ended; `None` where it goes on.
    pub end: Option<Timestamp>,
    /// How it ended, or that it did not.
    pub ending: Ending,
    /// What went wrong, and how often.
    pub kinds: BTreeMap<Kind, u32>,
    /// What it comes from; `None` where the log does not know.
    pub cause: Option<Cause>,
    /// The connections that it is about.
    pub connections: BTreeSet<ConnectionId>,
    /// The sessions that it touched, with their messages: what went wrong with, and what was under way meanwhile.
    pub sessions: BTreeMap<SessionId, BTreeSet<MessageId>>,
    /// How many messages were left out of `sessions`.
    pub messages_left_out: u64,
    /// The events that show it, by their positions.
    pub evidence: BTreeSet<Position>,
    /// How many events were left out of `evidence`.
    pub evidence_left_out: u64,
}

impl Incident {
    /// The kind that it is called by.
    ///
    /// # Panics
    ///
    /// Never: an incident has a kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        *self.kinds.keys().next().expect("an incident has a kind")
    }

    /// How many messages it touched.
    #[must_use]
    pub fn messages(&self) -> u64 {
        let named: usize = self.sessions.values().map(BTreeSet::len).sum();
        named as u64 + self.messages_left_out
    }

    /// Whether it goes on.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.end.is_none()
    }
}

#[cfg(test)]
mod tests;
