//! What conditions may name: the members of what `recount show --json` and `recount log --json` print.

use recount_projections::MessageState;

/// What kind of value stands somewhere.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Shape {
    /// A text, or null.
    Text,
    /// One of these words, or null.
    Words(&'static [&'static str]),
    /// A number, or null.
    Number,
    /// True or false.
    Flag,
    /// A time, or null.
    Time,
    /// These members, or null.
    Object(&'static [(&'static str, Shape)]),
    /// Any number of these.
    List(&'static Shape),
    /// What only an agent knows, or what is different for each type of event.
    Any,
}

use Shape::{Any, Flag, List, Number, Object, Text, Time, Words};

impl Shape {
    /// What a member is; none where there is no such member.
    pub(crate) fn member(&self, name: &str) -> Option<&'static Shape> {
        match self {
            Object(members) => {
                let mut members = members.iter();
                members
                    .find(|(own, _)| *own == name)
                    .map(|(_, shape)| shape)
            }
            Any => Some(&Any),
            _ => None,
        }
    }

    /// What is meant where one of a kind is asked for: of a list, what is in it.
    pub(crate) fn each(&'static self) -> &'static Shape {
        match self {
            List(item) => item.each(),
            other => other,
        }
    }

    /// What people call it.
    pub(crate) const fn noun(&self) -> &'static str {
        match self {
            Text => "a text",
            Words(_) => "a word",
            Number => "a number",
            Flag => "true or false",
            Time => "a time",
            Object(_) => "an object",
            List(_) => "a list",
            Any => "anything",
        }
    }
}

/// How a session stands, as `recount show --json` prints it.
pub(crate) const SESSION: Shape = Object(&[
    ("session", Text),
    ("agent", Text),
    (
        "status",
        Words(&["idle", "queued", "busy", "waiting", "closed"]),
    ),
    ("directory", Text),
    ("model", Text),
    ("title", Text),
    ("agent_session", Text),
    ("fork", FORK),
    ("opened_at", Time),
    ("at", Time),
    ("events", Number),
    ("cut", Object(&[("before", Number), ("at", Time)])),
    ("earlier", Number),
    (
        "queue",
        Object(&[
            ("open", Number),
            ("bytes", Number),
            ("dead_letters", Number),
        ]),
    ),
    ("messages", List(&MESSAGE)),
    ("turns", List(&TURN)),
    ("connection", CONNECTION),
    ("breaker", Words(&BREAKER_STATES)),
]);

const FORK: Shape = Object(&[
    ("from", Text),
    ("at", Number),
    ("by", Words(&["copy", "text"])),
    ("refused", Text),
    ("added_to", Text),
]);

/// The words for where a message stands.
pub(crate) const MESSAGE_STATES: [&str; 14] = [
    MessageState::Queued.name(),
    MessageState::Sending.name(),
    MessageState::Refused.name(),
    MessageState::Unknown.name(),
    MessageState::Accepted.name(),
    MessageState::Requested.name(),
    MessageState::Running.name(),
    MessageState::Interrupted.name(),
    MessageState::Waiting.name(),
    MessageState::Completed.name(),
    MessageState::Failed.name(),
    MessageState::Aborted.name(),
    MessageState::Cancelled.name(),
    MessageState::DeadLettered.name(),
];

/// The words for where a connection stands.
pub(crate) const CONNECTION_STATES: [&str; 3] = ["disconnected", "connecting", "connected"];

/// The words for where a breaker stands.
pub(crate) const BREAKER_STATES: [&str; 3] = ["closed", "open", "half_open"];

const MESSAGE: Shape = Object(&[
    ("id", Text),
    ("key", Text),
    ("state", Words(&MESSAGE_STATES)),
    ("attempts", Number),
    ("text", Text),
    ("agent_message", Text),
    ("reason", Text),
    ("retry_at", Time),
    ("waits_for", Words(&["rerun", "outcome"])),
    ("may_have_arrived", Flag),
    ("queued_again_as", Text),
    ("abort_asked", Flag),
]);

const TURN: Shape = Object(&[
    ("message", Text),
    (
        "state",
        Words(&[
            "requested",
            "running",
            "interrupted",
            "waiting",
            "completed",
            "failed",
            "aborted",
        ]),
    ),
    ("text", Text),
    ("ending", Text),
    ("stalled", Text),
    ("agent_error", Text),
    ("begun_at", Time),
    ("runs", List(&RUN)),
    ("questions", List(&QUESTION)),
]);

const RUN: Shape = Object(&[
    ("run", Number),
    ("started", Flag),
    ("text", Text),
    ("parts", List(&PART)),
    ("tools", List(&TOOL)),
]);

const PART: Shape = Object(&[
    ("id", Text),
    ("kind", Words(&["text", "reasoning"])),
    ("text", Text),
    ("after_hole", Text),
    ("withdrawn", Text),
]);

const TOOL: Shape = Object(&[
    ("id", Text),
    ("tool", Text),
    ("input", Any),
    ("outcome", Words(&["completed", "failed", "lost"])),
    ("output", Text),
]);

const QUESTION: Shape = Object(&[
    ("id", Text),
    ("asks", Any),
    ("asked_at", Time),
    ("answer", Any),
    ("expired", Text),
    ("settled", Flag),
]);

const CONNECTION: Shape = Object(&[
    ("id", Text),
    ("state", Words(&CONNECTION_STATES)),
    ("attempt", Number),
    ("target", Any),
    ("since", Time),
    ("next_try", Time),
    ("last_error", Text),
    ("url", Text),
    ("version", Text),
    ("pid", Number),
    ("gaps", List(&Text)),
]);

/// An event, as `recount find --json` prints it.
pub(crate) const EVENT: Shape = Object(&[
    ("position", Number),
    ("stream", Text),
    ("session", Text),
    ("seq", Number),
    ("at", Time),
    ("cause", Number),
    ("class", Words(&["asked", "observed", "decided"])),
    ("provenance", Words(&["live", "backfilled", "inferred"])),
    ("id", Text),
    ("frame", Number),
    ("type", Words(recount_store::Event::TYPE_NAMES)),
    ("data", Any),
]);
