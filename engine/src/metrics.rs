//! What is counted, for whoever listens through the [`metrics`](https://docs.rs/metrics) facade.
//!
//! Install any recorder of that facade before the engine is started, and these come. Where nobody listens, they
//! cost a look at whether somebody does. Counters count what this process recorded: the log has the rest. Names,
//! labels and values say nothing that an agent or a person said, and no secret.
//!
//! | name | kind | what |
//! | --- | --- | --- |
//! | `recount_messages_queued_total` | counter | messages that were queued |
//! | `recount_messages_settled_total` | counter | messages that came to an end, by `outcome`: `completed`, `failed`, `aborted`, `cancelled`, `dead_lettered` |
//! | `recount_attempts_total` | counter | tries to deliver a message |
//! | `recount_attempts_unknown_total` | counter | tries whose outcome was lost |
//! | `recount_retries_total` | counter | further tries that were scheduled |
//! | `recount_runs_total` | counter | times that an agent was asked to work on a message |
//! | `recount_runs_interrupted_total` | counter | runs that the agent died in |
//! | `recount_questions_total` | counter | questions and requests for permission of agents |
//! | `recount_streams_opened_total` | counter | streams of agents' servers that were opened |
//! | `recount_streams_lost_total` | counter | streams that were lost |
//! | `recount_connects_failed_total` | counter | tries to connect that failed |
//! | `recount_reconnects_scheduled_total` | counter | further tries to connect that were scheduled |
//! | `recount_circuits_opened_total` | counter | times that a breaker opened |
//! | `recount_servers_started_total` | counter | servers that the engine started |
//! | `recount_gaps_found_total` | counter | holes in streams that were found |
//! | `recount_tasks_panicked_total` | counter | tasks of the engine that failed by a mistake of its own |
//! | `recount_frames_total` | counter | frames that came off streams |
//! | `recount_frames_bytes_total` | counter | their bytes |
//! | `recount_updates_missed_total` | counter | updates that subscribers missed, being too slow |
//! | `recount_queue_depth` | gauge | messages that are queued or worked on, in all sessions in memory |
//! | `recount_sessions` | gauge | sessions in memory |
//! | `recount_connections` | gauge | connections that stand |
//! | `recount_circuits_open` | gauge | connections whose breaker is open or half open |
//! | `recount_append_seconds` | histogram | how long it took until a session's events were durable, in seconds |
//! | `recount_call_seconds` | histogram | how long a call to an agent took, in seconds, by `call` |

use std::time::Duration;

use metrics::{Unit, counter, histogram};
use recount_store::Event;

const QUEUED: &str = "recount_messages_queued_total";
const SETTLED: &str = "recount_messages_settled_total";
const UPDATES_MISSED: &str = "recount_updates_missed_total";
const FRAMES: &str = "recount_frames_total";
const FRAMES_BYTES: &str = "recount_frames_bytes_total";

/// Messages that are queued or worked on.
pub(crate) const QUEUE_DEPTH: &str = "recount_queue_depth";
/// Sessions in memory.
pub(crate) const SESSIONS: &str = "recount_sessions";
/// Connections that stand.
pub(crate) const CONNECTIONS: &str = "recount_connections";
/// Connections whose breaker is not closed.
pub(crate) const CIRCUITS_OPEN: &str = "recount_circuits_open";
const APPEND: &str = "recount_append_seconds";
const CALL: &str = "recount_call_seconds";

/// Tells a recorder what there is, once when an engine starts.
pub(crate) fn describe() {
    for line in include_str!("metrics.rs").lines() {
        // The table above is what there is.
        let Some([name, kind, what]) = row(line) else {
            continue;
        };
        let unit = match name {
            APPEND | CALL => Unit::Seconds,
            FRAMES_BYTES => Unit::Bytes,
            _ => Unit::Count,
        };
        match kind {
            "gauge" => metrics::describe_gauge!(name, unit, what),
            "histogram" => metrics::describe_histogram!(name, unit, what),
            _ => metrics::describe_counter!(name, unit, what),
        }
    }
}

/// The cells of a row of the table.
fn row(line: &'static str) -> Option<[&'static str; 3]> {
    let row = line.strip_prefix("//! | `")?.strip_suffix(" |")?;
    let (name, rest) = row.split_once("` | ")?;
    let (kind, what) = rest.split_once(" | ")?;
    Some([name, kind, what])
}

/// Counts what was recorded.
pub(crate) fn count(event: &Event) {
    match event {
        Event::MessageQueued { .. } | Event::MessageRequeued { .. } => {
            counter!(QUEUED).increment(1);
        }
        Event::TurnCompleted { .. } => counter!(SETTLED, "outcome" => "completed").increment(1),
        Event::TurnFailed { .. } => counter!(SETTLED, "outcome" => "failed").increment(1),
        Event::TurnAborted { .. } => counter!(SETTLED, "outcome" => "aborted").increment(1),
        Event::MessageCancelled { .. } => counter!(SETTLED, "outcome" => "cancelled").increment(1),
        Event::MessageDeadLettered { .. } => {
            counter!(SETTLED, "outcome" => "dead_lettered").increment(1);
        }
        Event::DeliveryStarted { .. } => counter!("recount_attempts_total").increment(1),
        Event::DeliveryUnknown { .. } => counter!("recount_attempts_unknown_total").increment(1),
        Event::RetryScheduled { .. } => counter!("recount_retries_total").increment(1),
        Event::TurnRequested { .. } => counter!("recount_runs_total").increment(1),
        Event::TurnInterrupted { .. } => counter!("recount_runs_interrupted_total").increment(1),
        Event::PermissionAsked { .. } | Event::QuestionAsked { .. } => {
            counter!("recount_questions_total").increment(1);
        }
        Event::StreamOpened => counter!("recount_streams_opened_total").increment(1),
        Event::StreamLost { .. } => counter!("recount_streams_lost_total").increment(1),
        Event::ConnectFailed { .. } => counter!("recount_connects_failed_total").increment(1),
        Event::ReconnectScheduled { .. } => {
            counter!("recount_reconnects_scheduled_total").increment(1);
        }
        Event::CircuitOpened { .. } => counter!("recount_circuits_opened_total").increment(1),
        Event::ServerSpawned { .. } => counter!("recount_servers_started_total").increment(1),
        Event::GapFound { .. } => counter!("recount_gaps_found_total").increment(1),
        Event::TaskPanicked { .. } => counter!("recount_tasks_panicked_total").increment(1),
        // What is left either follows from these, or is told by a gauge.
        _ => {}
    }
}

/// Counts a frame that came off a stream.
pub(crate) fn frame(bytes: usize) {
    counter!(FRAMES).increment(1);
    counter!(FRAMES_BYTES).increment(bytes as u64);
}

/// That an append took so long.
pub(crate) fn appended(took: Duration) {
    histogram!(APPEND).record(took);
}

/// That this call to an agent took so long.
pub(crate) fn called(call: &'static str, took: Duration) {
    histogram!(CALL, "call" => call).record(took);
}

/// Counts what a subscriber missed.
pub(crate) fn missed(updates: u64) {
    counter!(UPDATES_MISSED).increment(updates);
}

/// One task's part of a gauge, which is the sum of all parts; given back when the task ends.
pub(crate) struct Share {
    gauge: &'static str,
    part: u32,
}

impl Share {
    /// A part of this gauge: nothing, at first.
    pub(crate) const fn of(gauge: &'static str) -> Self {
        Self { gauge, part: 0 }
    }

    /// Makes the part this large.
    pub(crate) fn set(&mut self, part: usize) {
        let part = u32::try_from(part).unwrap_or(u32::MAX);
        let old = std::mem::replace(&mut self.part, part);
        // Looked up anew each time: whoever listens may have come since.
        if old != part {
            metrics::gauge!(self.gauge).increment(f64::from(part) - f64::from(old));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests;
