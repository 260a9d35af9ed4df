//! What the engine knew when it decided: the part of the folds that its rules look at, just before.

use std::fmt::Write as _;

use recount_projections::queue::RefusedHow;
use recount_projections::{Message, breaker};
use recount_store::{Event, Recorded, StreamId};
use serde_json::{Value, json};

use crate::render::event::connection_state;
use crate::render::show::{Standing, breaker_name};
use crate::render::{text, time};

/// What was known before one decision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Known {
    /// What it was about, and how that stood: as a line, and as JSON.
    facts: Vec<(&'static str, String, Value)>,
    /// The keys of the policy that it went by, and what they said; null where the log names no policy.
    policy: Vec<(&'static str, Value)>,
}

impl Known {
    /// As lines for a person.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let facts = self.facts.iter();
        let facts = facts.map(|(what, told, _)| format!("knew: {what} {told}"));
        let policy = self.policy.iter();
        facts.chain(policy.map(|(key, value)| match value {
            Value::Null => format!("policy: {key} as it is by default"),
            value => format!("policy: {key} = {value}"),
        }))
    }

    /// As JSON.
    pub(crate) fn view(&self) -> Value {
        let facts = self.facts.iter();
        let mut view: serde_json::Map<String, Value> = facts
            .map(|(what, _, value)| ((*what).to_owned(), value.clone()))
            .collect();
        let policy: serde_json::Map<String, Value> = self
            .policy
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect();
        view.insert("policy".to_owned(), policy.into());
        view.into()
    }
}

/// What was known before a decision, by how all stood before it and the policy that was in force.
pub(crate) fn of(decided: &Recorded, before: &Standing, policy: Option<&Value>) -> Known {
    let mut facts = Vec::new();
    let message = decided.event.message();
    let message = message.and_then(|id| before.session.queue.get(id));
    if let StreamId::Session(_) = decided.stream {
        if let Some(message) = message {
            facts.push(of_message(message));
            if let Some(turn) = before.session.turn_of(message.id) {
                facts.push(of_turn(turn));
            }
        }
        facts.push(of_connection(before));
    } else {
        facts.push(of_connection(before));
        facts.push(of_breaker(before));
    }
    let keys = keys(&decided.event, message).iter();
    let in_force = |key: &str| {
        let mut value = policy?;
        for name in key.split('.') {
            value = value.get(name)?;
        }
        Some(value.clone())
    };
    Known {
        facts,
        policy: keys
            .map(|key| (*key, in_force(key).unwrap_or_default()))
            .collect(),
    }
}

type Fact = (&'static str, String, Value);

fn of_message(message: &Message) -> Fact {
    let attempts = text::count(u64::from(message.attempts), "attempt");
    let mut told = format!("{}, {attempts}", message.state.name());
    if message.unproved {
        told.push_str(", it may have arrived");
    }
    if message.abort_asked {
        told.push_str(", somebody wants it ended");
    }
    if let Some(at) = message.retry_at {
        let _ = write!(told, ", not before {}", time::rfc3339(at));
    }
    if let Some(reason) = &message.reason {
        let _ = write!(told, ", last: {reason}");
    }
    let value = json!({
        "id": message.id,
        "state": message.state,
        "attempts": message.attempts,
        "may_have_arrived": message.unproved,
        "abort_asked": message.abort_asked,
        "retry_at": message.retry_at.map(time::rfc3339),
        "reason": message.reason,
    });
    ("message", told, value)
}

fn of_turn(turn: &recount_projections::Turn) -> Fact {
    let run = turn.runs.last();
    let number = run.map_or(0, |run| run.number);
    let tools: Vec<&str> = run
        .iter()
        .flat_map(|run| run.calls())
        .map(|call| call.tool.as_str())
        .collect();
    let questions = turn.open_questions().count();
    let state = json!(turn.state);
    let mut told = format!("{}, run {number}", state.as_str().unwrap_or_default());
    if !tools.is_empty() {
        let _ = write!(told, ", tools had begun: {}", tools.join(", "));
    }
    if questions > 0 {
        let _ = write!(told, ", {} open", text::count(questions as u64, "question"));
    }
    let value = json!({
        "state": state,
        "run": number,
        "tools": tools,
        "questions_open": questions,
    });
    ("turn", told, value)
}

fn of_connection(standing: &Standing) -> Fact {
    let connection = &standing.connection;
    let mut told = connection_state(connection.state).to_owned();
    if connection.failures > 0 {
        let failed = tries_failed(connection.failures);
        let _ = write!(told, ", {failed} since one held");
    }
    if connection.probe_failing.is_some() {
        told.push_str(", its server answers no probe");
    }
    if let Some(error) = &connection.last_error {
        let _ = write!(told, ", last error: {error}");
    }
    let value = json!({
        "state": connection.state,
        "failures": connection.failures,
        "probe_failing": connection.probe_failing.is_some(),
        "last_error": connection.last_error,
        "next_try": connection.next_try.map(time::rfc3339),
    });
    ("connection", told, value)
}

fn tries_failed(failures: u32) -> String {
    match failures {
        1 => "1 try failed".to_owned(),
        failures => format!("{failures} tries failed"),
    }
}

fn of_breaker(standing: &Standing) -> Fact {
    let breaker = &standing.breaker;
    let failed = breaker
        .recent
        .iter()
        .filter(|outcome| outcome.failed)
        .count();
    let mut told = breaker_name(breaker.state).to_owned();
    if !breaker.recent.is_empty() {
        let recent = breaker.recent.len();
        let _ = write!(
            told,
            ", of the last {recent} tries and streams {failed} failed"
        );
    }
    if breaker.openings > 0 {
        let times = text::count(u64::from(breaker.openings), "time");
        let _ = write!(told, ", opened {times} since one held");
    }
    let until = match breaker.state {
        breaker::State::Open { until } => Some(time::rfc3339(until)),
        breaker::State::Closed | breaker::State::HalfOpen => None,
    };
    let value = json!({
        "state": breaker_name(breaker.state),
        "until": until,
        "failures": breaker.failures,
        "openings": breaker.openings,
        "recent": breaker.recent.len(),
        "recent_failed": failed,
    });
    ("breaker", told, value)
}

/// The keys of the policy that a decision goes by.
fn keys(event: &Event, message: Option<&Message>) -> &'static [&'static str] {
    match event {
        Event::RetryScheduled { .. } | Event::MessageDeadLettered { .. } => {
            match message.and_then(|message| message.refused) {
                Some(RefusedHow::NeverSent) => &["session.retries.never_sent"],
                Some(RefusedHow::ForNow(_)) => {
                    &["session.retries.for_now", "session.retries.retry_after_max"]
                }
                Some(RefusedHow::ForGood) => &["session.retries.for_good"],
                Some(RefusedHow::Absent) | None => &["session.retries.unknown"],
            }
        }
        Event::RerunDecided { .. } => &["session.rerun", "session.runs_max"],
        Event::UnknownDecided { .. } => &["session.unknown"],
        Event::TurnStalled { .. } => &["session.silence_max", "session.turn_max"],
        Event::QuestionExpired { .. } => &["session.question_patience"],
        Event::ReconnectScheduled { .. } => &["connection.backoff"],
        Event::CircuitOpened { .. } => &[
            "connection.circuit_failures",
            "connection.circuit_window",
            "connection.circuit_volume",
            "connection.circuit_failed_percent",
            "connection.circuit",
        ],
        _ => &[],
    }
}
