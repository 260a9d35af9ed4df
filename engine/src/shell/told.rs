//! What the engine tells of itself while it runs: metrics, and `tracing` events inside the spans of its tasks.
//!
//! Spans are named `session`, `connection` and `call`; every call to an agent is made inside one, and they name the
//! session, the connection, the message, its attempt and its run. Levels: `info` is what begins and ends, `debug` each
//! event, `trace` each frame. Told are types, numbers and ids. What a person or an agent said is in the log alone, where
//! its owner can guard it; secrets are in neither.

use recount_projections::Session;
use recount_store::{Event, Recorded};
use tracing::{Span, debug, info, info_span};

use crate::machine::session::Effect;
use crate::metrics;

/// Tells of an event that is durable now.
pub(super) fn recorded(recorded: &Recorded) {
    metrics::count(&recorded.event);
    let (seq, position) = (recorded.seq.0, recorded.position.0);
    let event = recorded.event.type_name();
    match &recorded.event {
        Event::EngineStarted { .. }
        | Event::EngineStopped
        | Event::PolicyAdopted { .. }
        | Event::RecoveryStarted { .. }
        | Event::RecoveryFinished { .. }
        | Event::SessionOpened { .. }
        | Event::SessionClosed
        | Event::ServerSpawned { .. }
        | Event::ServerExited { .. }
        | Event::CircuitOpened { .. }
        | Event::CircuitClosed
        | Event::TaskPanicked { .. } => info!(event, seq, position, "recorded"),
        Event::ConnectionChanged { from, to } => {
            info!(event, seq, position, ?from, ?to, "recorded");
        }
        _ => debug!(event, seq, position, "recorded"),
    }
}

/// The name of a call to an agent.
pub(super) const fn call(effect: &Effect) -> &'static str {
    match effect {
        Effect::CreateSession(_) => "create_session",
        Effect::ForkSession { .. } => "fork_session",
        Effect::FindSession(_) => "find_session",
        Effect::Store(_) => "store_message",
        Effect::Start(_) => "start_turn",
        Effect::Look { .. } => "look_up",
        Effect::Abort(_) => "abort",
        Effect::AnswerPermission { .. } => "answer_permission",
        Effect::AnswerQuestion { .. } => "answer_question",
        Effect::MayRetry => "may_retry",
        Effect::Suspect => "suspect",
    }
}

/// The span of a call to an agent, inside its session's: about the message at the head of the queue.
pub(super) fn call_span(call: &'static str, state: &Session) -> Span {
    let Some((message, turn)) = state.head() else {
        return info_span!("call", call);
    };
    info_span!(
        "call",
        call,
        message_id = %message.id,
        attempt = message.attempts,
        run = turn.map_or(0, |turn| turn.runs.len()),
    )
}
