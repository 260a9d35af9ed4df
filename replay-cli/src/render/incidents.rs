//! The list of incidents, and one as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use recount_projections::incident::{Ending, Incident, Kind};
use recount_store::{MessageId, Position, Recorded, SessionId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Look, event, text, time};

/// One incident, for machines.
#[derive(Debug, Serialize)]
pub(crate) struct Row<'a> {
    incident: String,
    kind: &'static str,
    kinds: BTreeMap<&'static str, u32>,
    begin: String,
    end: Option<String>,
    open: bool,
    ending: &'static str,
    cause: Option<Cause<'a>>,
    connections: Vec<String>,
    sessions: &'a BTreeMap<SessionId, BTreeSet<MessageId>>,
    messages: u64,
    messages_left_out: u64,
    evidence: &'a BTreeSet<Position>,
    evidence_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<Vec<Box<RawValue>>>,
}

#[derive(Debug, Serialize)]
struct Cause<'a> {
    position: Position,
    text: &'a str,
}

impl<'a> Row<'a> {
    /// The row of an incident.
    pub(crate) fn of(incident: &'a Incident) -> Self {
        let kinds = incident.kinds.iter();
        Self {
            incident: incident.name.to_string(),
            kind: incident.kind().name(),
            kinds: kinds.map(|(kind, times)| (kind.name(), *times)).collect(),
            begin: time::rfc3339(incident.begin),
            end: incident.end.map(time::rfc3339),
            open: incident.is_open(),
            ending: incident.ending.name(),
            cause: incident.cause.as_ref().map(|cause| Cause {
                position: cause.position,
                text: &cause.text,
            }),
            connections: incident
                .connections
                .iter()
                .map(ToString::to_string)
                .collect(),
            sessions: &incident.sessions,
            messages: incident.messages(),
            messages_left_out: incident.messages_left_out,
            evidence: &incident.evidence,
            evidence_left_out: incident.evidence_left_out,
            timeline: None,
        }
    }

    /// The same, with its events.
    ///
    /// # Errors
    ///
    /// Where an event has no JSON.
    pub(crate) fn with_timeline(incident: &'a Incident, events: &[Recorded]) -> io::Result<Self> {
        let line = |recorded| Ok(RawValue::from_string(event::json_line(recorded, None)?)?);
        Ok(Self {
            timeline: Some(events.iter().map(line).collect::<io::Result<_>>()?),
            ..Self::of(incident)
        })
    }
}

/// What went wrong, in a word or two.
pub(crate) const fn phrase(kind: Kind) -> &'static str {
    match kind {
        Kind::Crash => "engine crashed",
        Kind::Panic => "task panicked",
        Kind::Exit => "server exited",
        Kind::Connection => "connection lost",
        Kind::Breaker => "breaker opened",
        Kind::Amnesia => "session forgotten",
        Kind::Gap => "gap",
        Kind::Stall => "turn stalled",
        Kind::Interruption => "turn interrupted",
        Kind::Unknown => "outcome unknown",
        Kind::Expiry => "question expired",
        Kind::Failure => "turn failed",
        Kind::DeadLetter => "message given up",
    }
}

/// Everything that went wrong in an incident: `connection lost, turn failed 3 times`.
pub(crate) fn phrases(incident: &Incident) -> String {
    let one = |(kind, times): (&Kind, &u32)| match times {
        1 => phrase(*kind).to_owned(),
        times => format!("{} {times} times", phrase(*kind)),
    };
    let phrases: Vec<_> = incident.kinds.iter().map(one).collect();
    phrases.join(", ")
}

/// How long it took; how long it has gone on is not said, since that depends on who asks when.
pub(crate) fn took(incident: &Incident) -> String {
    match incident.end {
        Some(end) => time::span(end.since(incident.begin)),
        None => String::new(),
    }
}

const fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Healed => "by itself",
        Ending::Filled => "filled in",
        Ending::Settled => "settled",
        Ending::Lost => "with a loss",
        Ending::GivenUp => "given up",
        Ending::Open => "open",
        Ending::Waits => "waits for you",
    }
}

/// From this width on the table says who was touched; below, the room is for what happened.
const TOUCHED_WIDTH_MIN: usize = 100;

/// The column that says so.
const TOUCHED: usize = 3;

/// The incidents as a table with aligned columns, in the order in which they come.
pub(crate) fn table(incidents: &[Incident], look: &Look) -> String {
    const HEAD: [&str; 6] = ["NAME", "BEGAN", "TOOK", "TOUCHED", "ENDED", "WHAT"];
    let cells: Vec<[String; 6]> = incidents.iter().map(|i| cells(i, look)).collect();
    let mut widths = HEAD.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(text::width(cell));
        }
    }
    let narrow = look.width.is_some_and(|width| width < TOUCHED_WIDTH_MIN);
    let line = |cells: &[String; 6]| {
        let mut line = String::new();
        for (n, (cell, width)) in cells[..5].iter().zip(widths).enumerate() {
            if narrow && n == TOUCHED {
                continue;
            }
            let pad = width - text::width(cell);
            // Durations stand at the right.
            let (before, after) = if n == 2 { (pad, 0) } else { (0, pad) };
            let _ = write!(line, "{:before$}{cell}{:after$}  ", "", "");
        }
        let what = match look.width {
            // Below some width there is no sense in it; the terminal wraps.
            Some(width) => text::clip(&cells[5], width.saturating_sub(text::width(&line)).max(20)),
            None => (&cells[5]).into(),
        };
        line.push_str(&what);
        line.trim_end().to_owned()
    };
    let mut out = look.dim(&line(&HEAD.map(str::to_owned)));
    for (incident, cells) in incidents.iter().zip(&cells) {
        out.push('\n');
        let line = line(cells);
        out.push_str(&match incident.ending {
            Ending::Waits | Ending::Open => look.warn(&line),
            Ending::GivenUp | Ending::Lost => look.bad(&line),
            Ending::Healed | Ending::Filled | Ending::Settled => line,
        });
    }
    out
}

fn cells(incident: &Incident, look: &Look) -> [String; 6] {
    let sessions = incident.sessions.len() as u64;
    let touched = match (sessions, incident.messages()) {
        (0, _) => String::new(),
        (sessions, 0) => text::count(sessions, "session"),
        (1, messages) => text::count(messages, "message"),
        (sessions, messages) => {
            let messages = text::count(messages, "message");
            format!("{messages} in {sessions} sessions")
        }
    };
    let mut what = phrases(incident);
    match &incident.cause {
        Some(cause) => {
            let _ = write!(what, ": {}", text::one_line(&cause.text));
        }
        None => what.push_str(": cause not known"),
    }
    [
        incident.name.to_string(),
        time::full(incident.begin, &look.zone),
        took(incident),
        touched,
        ended(incident.ending).to_owned(),
        what,
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use recount_projections::incident::Name;

    use super::*;
    use crate::render::fixture::{at, message, plain, session};

    #[test]
    fn a_narrow_table_has_room_for_what_happened() {
        let incident = Incident {
            name: Name(Position(4791)),
            begin: at(3),
            end: None,
            ending: Ending::Open,
            kinds: [(Kind::Connection, 1), (Kind::Breaker, 45)].into(),
            cause: None,
            connections: BTreeSet::new(),
            sessions: [(session(), [message()].into())].into(),
            messages_left_out: 0,
            evidence: [Position(4791)].into(),
            evidence_left_out: 0,
        };
        let at_width = |width| {
            let look = Look {
                width: Some(width),
                ..plain()
            };
            table(std::slice::from_ref(&incident), &look)
        };
        expect![[r#"
            NAME   BEGAN                TOOK  ENDED  WHAT
            i4791  2026-11-22 09:14:06        open   connection lost, breaker opened 45 tim…"#]]
        .assert_eq(&at_width(80));
        expect![[r#"
            NAME   BEGAN                TOOK  TOUCHED    ENDED  WHAT
            i4791  2026-11-22 09:14:06        1 message  open   connection lost, breaker opened 45 times: cause…"#]].assert_eq(&at_width(100));
    }
}
