//! One incident as a report in Markdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use recount_projections::incident::{Ending, Incident, Kind};
use recount_projections::{Message, MessageState, Session};
use recount_store::{Recorded, SessionId, StreamId};

use super::dead_letter::requeue_with;
use super::incidents::{phrase, phrases};
use super::{Look, event, show, text, time};

/// How many events the timeline has: the first, and the last [`EVENTS_LAST`].
const EVENTS_MAX: usize = 40;

/// How many of them are the last ones.
const EVENTS_LAST: usize = 10;

/// How many sessions are told of one by one.
pub(crate) const SESSIONS_MAX: usize = 20;

/// How many messages of a session are told of one by one.
const MESSAGES_MAX: usize = 10;

/// How many messages a person is told what to do with, one by one.
const STEPS_MAX: usize = 3;

/// What a report is made of.
pub(crate) struct Report<'a> {
    pub(crate) incident: &'a Incident,
    /// Its events that are still there, in order.
    pub(crate) events: &'a [Recorded],
    /// How its sessions stand now; of the first [`SESSIONS_MAX`].
    pub(crate) sessions: &'a BTreeMap<SessionId, Session>,
}

impl Report<'_> {
    /// The report. Times are told in the zone of `look`; nothing is coloured.
    pub(crate) fn markdown(&self, look: &Look) -> String {
        let look = &Look {
            colour: false,
            ..look.clone()
        };
        let incident = self.incident;
        let mut out = format!(
            "# Incident {}: {}\n",
            incident.name,
            phrase(incident.kind())
        );
        let mut part = |title: &str, text: String| {
            if !text.is_empty() {
                let _ = write!(out, "\n## {title}\n\n{}\n", text.trim_end());
            }
        };
        part("What happened", self.what_happened(look));
        part("Timeline", self.timeline(look));
        part("Who was touched", self.touched(look));
        part("How it ended", how_it_ended(incident).to_owned());
        part("What to do now", self.what_to_do());
        part("Evidence", self.evidence());
        out
    }

    fn what_happened(&self, look: &Look) -> String {
        let incident = self.incident;
        let mut out = String::new();
        let began = time::full(incident.begin, &look.zone);
        let zone = time::day(incident.begin, &look.zone);
        let zone = zone.rsplit(' ').next().unwrap_or_default().to_owned();
        let _ = writeln!(out, "- **What:** {}", phrases(incident));
        let _ = writeln!(out, "- **Began:** {began} {zone}");
        let _ = match incident.end {
            Some(end) => writeln!(
                out,
                "- **Ended:** {} {zone}, after {}",
                time::full(end, &look.zone),
                time::span(end.since(incident.begin))
            ),
            None => writeln!(out, "- **Ended:** not yet"),
        };
        let _ = match &incident.cause {
            Some(cause) => writeln!(
                out,
                "- **Cause:** {} (event {} of the log)",
                code(&cause.text),
                cause.position
            ),
            None => writeln!(out, "- **Cause:** {}", not_known(incident.kind())),
        };
        for connection in &incident.connections {
            let _ = writeln!(out, "- **Connection:** {}", code(&connection.to_string()));
        }
        out
    }

    fn timeline(&self, look: &Look) -> String {
        let mut out = String::from("```text\n");
        let left_out = self.events.len().saturating_sub(EVENTS_MAX);
        let first = EVENTS_MAX - EVENTS_LAST;
        let mut days = time::Days::default();
        for (n, recorded) in self.events.iter().enumerate() {
            if left_out > 0 && n == first {
                let _ = writeln!(out, "… {left_out} more …");
            }
            if left_out > 0 && (first..first + left_out).contains(&n) {
                continue;
            }
            if let Some(day) = days.next(recorded.at, look) {
                let _ = writeln!(out, "{day}");
            }
            let clock = time::clock(recorded.at, &look.zone);
            let name = event::name(&recorded.event);
            let place = match recorded.stream {
                StreamId::Session(id) => id.to_string(),
                StreamId::Connection(_) => "connection".to_owned(),
                StreamId::Engine => "engine".to_owned(),
            };
            let says = event::summary(&recorded.event);
            let says = text::one_line(&says);
            let line = format!("{clock}  {place:16}  {name:21}  {}", text::clip(&says, 120));
            let _ = writeln!(out, "{}", line.trim_end());
        }
        out.push_str("```");
        out
    }

    fn touched(&self, look: &Look) -> String {
        let mut out = String::new();
        for (id, messages) in self.incident.sessions.iter().take(SESSIONS_MAX) {
            let session = self.sessions.get(id);
            let _ = write!(out, "- session {}", code(&id.to_string()));
            if let Some(session) = session {
                let _ = write!(out, ", now {}", session.status().name());
            }
            out.push('\n');
            for message in messages.iter().take(MESSAGES_MAX) {
                let state = session
                    .and_then(|session| session.queue.get(*message))
                    .map_or_else(
                        || "not there any more".to_owned(),
                        |m| show::state(m.state, look),
                    );
                let _ = writeln!(out, "  - message {}: {state}", code(&message.to_string()));
            }
            if messages.len() > MESSAGES_MAX {
                let _ = writeln!(out, "  - and {} more", messages.len() - MESSAGES_MAX);
            }
        }
        let more = self.incident.sessions.len().saturating_sub(SESSIONS_MAX);
        if more > 0 {
            let _ = writeln!(out, "- and {}", text::count(more as u64, "more session"));
        }
        if self.incident.messages_left_out > 0 {
            let left_out = text::count(self.incident.messages_left_out, "more message");
            let _ = writeln!(out, "- and {left_out}, which are not named");
        }
        out
    }

    fn what_to_do(&self) -> String {
        let incident = self.incident;
        let mut steps: Vec<(String, &str)> = Vec::new();
        let has = |kind| incident.kinds.contains_key(&kind);
        // Where it touched a session first and last.
        let in_session = |recorded: &Recorded| match recorded.stream {
            StreamId::Session(id) => Some((id, recorded.seq)),
            StreamId::Connection(_) | StreamId::Engine => None,
        };
        let first = self.events.iter().find_map(in_session);
        let last = self.events.iter().rev().find_map(in_session);
        let name = incident.name;
        match incident.ending {
            Ending::Waits => steps.extend(self.resolve()),
            Ending::Open => {
                let says = "again, to see how it goes on";
                steps.push((format!("recount incidents {name}"), says));
            }
            Ending::Healed | Ending::Filled | Ending::Settled | Ending::Lost | Ending::GivenUp => {}
        }
        steps.extend(self.requeue());
        if let Some((id, seq)) = last {
            steps.push((format!("recount why {id} {seq}"), "why it came to that"));
        }
        if let Some((id, seq)) = first {
            let from = time::rfc3339(incident.begin);
            for (command, says) in [
                (
                    format!("recount show {id} --at {seq}"),
                    "how the session stood then",
                ),
                (format!("recount show {id}"), "how it stands now"),
                (
                    format!("recount log {id} --since {from}"),
                    "everything from then on, event by event",
                ),
            ] {
                steps.push((command, says));
            }
        }
        if has(Kind::Panic) {
            let says = "proves that the log is whole; then report the mistake";
            steps.push(("recount verify".to_owned(), says));
        }
        if steps.is_empty() {
            let from = time::rfc3339(incident.begin);
            let says = "what went wrong from then on, in all sessions";
            steps.push((format!("recount find --error --since {from}"), says));
        }
        let width = steps.iter().map(|(command, _)| command.len()).max();
        let width = width.unwrap_or_default();
        let mut out = String::from("```sh\n");
        for (command, what) in steps {
            let _ = writeln!(out, "{command:width$}    # {what}");
        }
        out.push_str("```");
        out
    }

    /// What a person decides, where something waits for that.
    fn resolve(&self) -> Vec<(String, &'static str)> {
        let waiting = self
            .messages()
            .filter(|(_, message)| message.state == MessageState::Waiting);
        let words = |(_, message): (_, &Message)| {
            let says = "what is known of what waits, and the words that decide it";
            (format!("recount resolve {}", message.id), says)
        };
        let mut steps: Vec<_> = waiting.take(STEPS_MAX).map(words).collect();
        let says = "carries on with what is decided, and names whatever waits";
        steps.push(("recount recover".to_owned(), says));
        steps
    }

    /// What was given up and can still be done.
    fn requeue(&self) -> Vec<(String, &'static str)> {
        let is_dead = |message: &Message| {
            let given_up = message.given_up.as_ref();
            given_up.is_some_and(|given_up| given_up.again.is_none())
        };
        let dead: Vec<_> = self.messages().filter(|(_, m)| is_dead(m)).collect();
        if dead.is_empty() {
            return Vec::new();
        }
        let sessions: BTreeSet<_> = dead.iter().map(|(id, _)| *id).collect();
        let only = match sessions.first() {
            Some(id) if sessions.len() == 1 => format!(" --session {id}"),
            _ => String::new(),
        };
        let mut steps = vec![(
            format!("recount dead-letters{only}"),
            "what was given up, and whether the agent may have it all the same",
        )];
        let takes_messages = |id| !self.sessions.get(id).is_some_and(|session| session.closed);
        let again = dead.iter().filter(|(id, _)| takes_messages(id));
        let again: Vec<_> = again
            .take(STEPS_MAX)
            .map(|(_, message)| {
                let unknown = message.given_up.is_some_and(|given_up| given_up.unknown);
                let says = if unknown {
                    "queues it again, which may double it"
                } else {
                    "queues it again"
                };
                (requeue_with(message.id, unknown), says)
            })
            .collect();
        if !again.is_empty() {
            steps.extend(again);
            steps.push(("recount recover".to_owned(), "delivers what is queued"));
        }
        steps
    }

    /// The messages that it touched, as they stand now, each with its session; of the sessions that are known here.
    fn messages(&self) -> impl Iterator<Item = (SessionId, &Message)> {
        self.incident.sessions.iter().flat_map(|(id, messages)| {
            let session = self.sessions.get(id);
            let known = messages
                .iter()
                .filter_map(move |message| session.and_then(|session| session.queue.get(*message)));
            known.map(|message| (*id, message))
        })
    }

    fn evidence(&self) -> String {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for position in &self.incident.evidence {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == position.0 => *last = position.0,
                _ => runs.push((position.0, position.0)),
            }
        }
        let run = |(first, last): &(u64, u64)| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}–{last}")
            }
        };
        let runs: Vec<_> = runs.iter().map(run).collect();
        let mut out = format!("Events of the log, by position: {}", runs.join(", "));
        if self.incident.evidence_left_out > 0 {
            let _ = write!(out, ", and {} more", self.incident.evidence_left_out);
        }
        out.push('.');
        out
    }
}

const fn how_it_ended(incident: &Incident) -> &'static str {
    match incident.ending {
        Ending::Healed => "By itself: what was down came back, and what was cut off was done.",
        Ending::Filled => {
            "By itself: what was missing was read later from the agent's own history."
        }
        Ending::Settled => "A person decided how it goes on, and it did.",
        Ending::Lost => {
            "It is over, but something is missing for good: a part of an answer, or what an agent remembered."
        }
        Ending::GivenUp => {
            "Something was given up: a turn failed, a message was not delivered, or an engine ended before its \
             connection was back."
        }
        Ending::Open => "It goes on, as far as the log tells.",
        Ending::Waits => "It waits for a person to decide.",
    }
}

const fn not_known(kind: Kind) -> &'static str {
    match kind {
        Kind::Crash => {
            "not known: an engine that is killed, or loses its power, cannot record that. The system's own log may know"
        }
        Kind::Stall => "not known: the log has the agent's silence, and not its reason",
        _ => "not known",
    }
}

/// Text of others, as Markdown takes it for itself.
fn code(text: &str) -> String {
    format!("`{}`", text::one_line(text).replace('`', "'"))
}
