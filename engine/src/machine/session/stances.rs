//! What a session's machine decides where a log stands, for whatever the log does not tell.
//!
//! A decision follows from the fold, the time, and a little that only the process knew: that the link stood, that
//! looks had failed. The fold and the time are recorded. Each [`Stance`] is one way in which the rest may have been,
//! and the machine that decides in it is the one that runs.

use recount_projections::{MessageState, Session};
use recount_store::{Event, NewEvent, Recorded, SessionId, Timestamp};

use super::draft::Draft;
use super::policy::SessionPolicy;
use super::{Identity, Link, SessionMachine};
use crate::adapter::CallError;

/// What the log tells of a decision's moment beside the fold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment<'a> {
    /// What was recorded then: it tells until when the budget's answer was.
    pub(crate) first: &'a Event,
    /// When.
    pub(crate) now: Timestamp,
    /// When a frame of the agent's last led to an event: the agent was heard then, or a little before.
    pub(crate) heard: Timestamp,
}

/// What the process may have known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    /// The link stands, and nothing else is to be waited for.
    Ready,
    /// Somebody else had written into the agent's session.
    Overtaken,
    /// Nothing came from the agent since a frame last led to an event.
    Silent,
    /// The breaker was open since before the message was queued.
    Unreachable,
    /// Looks had failed as often as they may.
    Blind,
    /// The agent worked on an earlier message for as long as a turn may take.
    Occupied,
    /// A run was asked for once more, since nothing was seen of it.
    Unheard,
    /// The agent said when it would ask its model again.
    Postponed,
    /// The connection's budget had no retry left.
    Overdrawn,
}

impl Stance {
    /// All of them, the usual ones first.
    pub(crate) const ALL: [Self; 9] = [
        Self::Ready,
        Self::Silent,
        Self::Overtaken,
        Self::Unheard,
        Self::Postponed,
        Self::Blind,
        Self::Unreachable,
        Self::Occupied,
        Self::Overdrawn,
    ];

    /// The events that the machine would record in this stance, given where the session stands.
    pub(crate) fn decide(
        self,
        policy: &SessionPolicy,
        identity: &Identity,
        state: &Session,
        id: SessionId,
        Moment { first, now, heard }: Moment<'_>,
    ) -> Vec<NewEvent> {
        let mut machine = SessionMachine::new(id, policy.clone(), Identity::clone(identity), now);
        let Some((message, turn)) = state.head() else {
            return Vec::new();
        };
        machine.link = Link::Up;
        machine.newest = Some((message.id, true));
        machine.attempting = Some((message.id, message.attempts));
        machine.leave = Some((message.id, message.attempts + 1));
        machine.rested = state.turn.as_ref().map(|turn| turn.message);
        // Its questions are alive, and answers to them on their way.
        machine.confirmed = true;
        let questions = turn.into_iter().flat_map(|turn| &turn.questions);
        machine.answering = questions.map(|question| question.id.clone()).collect();
        // Nothing is looked at: what a look finds is observed, and recorded as such.
        machine.looks.due = Some(Timestamp(u64::MAX));
        // An answer was seen, so a message that steers may be sent.
        machine.answers.insert(String::new());
        let step = match self {
            Self::Ready => machine.next(state, now),
            Self::Overtaken => {
                machine.newest = Some((message.id, false));
                machine.next(state, now)
            }
            Self::Silent => {
                let gathered = u64::try_from(policy.gather.as_micros()).unwrap_or(u64::MAX);
                machine.last_activity = Timestamp(heard.0.saturating_sub(gathered));
                machine.next(state, now)
            }
            Self::Unreachable => {
                machine.link = Link::Down {
                    circuit_open_since: Some(message.queued_at),
                    reason: None,
                };
                machine.next(state, now)
            }
            // Before it is sent a message is looked at only where an earlier one may be worked on.
            Self::Blind
                if matches!(message.state, MessageState::Queued | MessageState::Refused)
                    && !state.turn.as_ref().is_some_and(|turn| turn.ended_unseen) =>
            {
                return Vec::new();
            }
            Self::Blind => {
                machine.looks.failures = policy.looks_max.saturating_sub(1);
                let reason = String::new();
                machine.looked(state, Err(CallError::Unknown { reason }), now)
            }
            Self::Occupied => {
                machine.rested = None;
                machine.working_on = Some(Timestamp(0));
                machine.next(state, now)
            }
            Self::Unheard => match turn {
                Some(turn) if message.state == MessageState::Requested => {
                    machine.request_run(state, message, turn.run().number, now)
                }
                _ => return Vec::new(),
            },
            Self::Postponed => {
                let mut draft = Draft::after(message.moved, now);
                if let Some(turn) = turn
                    && let Some((attempt, next)) = turn.agent_retry
                {
                    machine.agent_retries(&mut draft, turn, (attempt, String::new(), next), now);
                }
                draft.step()
            }
            Self::Overdrawn => match (first, message.retry_at) {
                (Event::RetryScheduled { at, .. }, Some(due)) if due <= now && now < *at => {
                    machine.may_retry(state, Err(*at), now)
                }
                _ => return Vec::new(),
            },
        };
        step.events
    }
}

/// Whether this only follows from a decision that the log lacks: an outcome of an attempt or of a run that was never begun,
/// an agent's session that was never asked for.
pub(crate) fn answers_nothing(state: &Session, recorded: &Recorded) -> bool {
    match &recorded.event {
        Event::AgentSessionBound { .. }
        | Event::AgentSessionForked { .. }
        | Event::AgentForkRefused { .. } => state.bind_requested.is_none(),
        Event::DeliveryAccepted { message, .. } if state.lacks_context(*message) => true,
        Event::DeliveryAccepted { message, attempt }
        | Event::DeliveryRejected {
            message, attempt, ..
        }
        | Event::DeliveryUnknown {
            message, attempt, ..
        }
        | Event::DeliveryResolved {
            message, attempt, ..
        } => {
            let known = state.queue.get(*message);
            known.is_some_and(|known| known.attempts < *attempt)
        }
        // The run that went on before may take up a message that steers, without having been asked to; and a look may find
        // that somebody else had the agent work on what it holds.
        Event::TurnStarted { message, .. }
            if recorded.frame.is_none()
                || state.queue.get(*message).is_some_and(|known| known.steered) =>
        {
            false
        }
        Event::TurnStarted { message, run }
        | Event::TurnCompleted { message, run, .. }
        | Event::TurnFailed { message, run, .. }
        | Event::TurnAborted { message, run }
        | Event::TurnInterrupted { message, run, .. } => {
            let begun = state.turn_of(*message).map_or(0, |turn| turn.run().number);
            begun < *run
        }
        _ => false,
    }
}

/// What the machine has to decide next, whatever it knows besides: nothing may be recorded before it but what
/// somebody asked, or another engine found.
pub(crate) fn owed(
    policy: &SessionPolicy,
    identity: &Identity,
    state: &Session,
    id: SessionId,
    moment: Moment<'_>,
) -> Vec<NewEvent> {
    let owes =
        |state: MessageState| matches!(state, MessageState::Refused | MessageState::Interrupted);
    match state.head() {
        Some((message, _)) if owes(message.state) && message.retry_at.is_none() => {
            Stance::Ready.decide(policy, identity, state, id, moment)
        }
        _ => Vec::new(),
    }
}
