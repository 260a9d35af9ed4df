//! The agent's session of one that was forked: a copy of the old one where the agent makes it, else a new one that
//! is told what was said.

use recount_projections::{Message, Session};
use recount_store::{Event, Provenance, Timestamp};

use super::deliver::pause;
use super::draft::Draft;
use super::{Effect, SessionMachine, Step};
use crate::adapter::{CallError, SessionSpec};

/// What was tried to get a copy, by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Copying {
    pub(super) failures: u32,
    pub(super) due: Option<Timestamp>,
}

impl SessionMachine {
    /// Has the agent copy the old session before a message gets its identity: what is copied gets new ones, and an
    /// agent goes by their order.
    pub(super) fn copy(&mut self, state: &Session, now: Timestamp) -> Step {
        if let Some(due) = self.copying.due
            && now < due
        {
            self.wake_at(due);
            return Step::default();
        }
        self.copying.due = None;
        self.bind(state, now)
    }

    /// The call that makes the agent's session, whichever it is.
    pub(super) fn make(state: &Session, spec: SessionSpec) -> Effect {
        match state.to_copy() {
            None => Effect::CreateSession(spec),
            Some(origin) => Effect::ForkSession {
                spec,
                origin: origin.clone(),
            },
        }
    }

    /// No copy came of it. What may be otherwise the next time is tried again, as often as what is unknown is.
    pub(super) fn copy_failed(
        &mut self,
        state: &Session,
        error: &CallError,
        now: Timestamp,
    ) -> Step {
        let Some(message) = state.queue.head() else {
            return Step::default();
        };
        self.copying.failures += 1;
        let retry = self.policy.retries.unknown;
        let passes = match error {
            CallError::NeverSent { .. }
            | CallError::RefusedForNow { .. }
            | CallError::Unknown { .. } => true,
            CallError::RefusedForGood { .. }
            | CallError::NoSuchSession { .. }
            | CallError::Unsupported { .. } => false,
        };
        if passes && self.copying.failures < retry.attempts_max {
            let next = self.copying.failures + 1;
            let mut pause = pause(&retry.backoff, message.id, next);
            if let CallError::RefusedForNow {
                retry_after: Some(wanted),
                ..
            } = error
            {
                pause = pause.max((*wanted).min(self.policy.retries.retry_after_max));
            }
            self.copying.due = Some(now.plus(pause));
            return Step::act(Effect::Suspect);
        }
        let mut draft = Draft::after(state.bind_requested.unwrap_or(state.last), now);
        let reason = error.to_string();
        draft.push(Event::AgentForkRefused { reason }, Provenance::Live);
        draft.step()
    }

    /// Has what was said before go along with a message, where the agent has no copy of it.
    pub(super) fn add_context(state: &Session, message: &Message, now: Timestamp) -> Option<Step> {
        if !state.lacks_context(message.id) {
            return None;
        }
        let mut draft = Draft::after(message.moved, now);
        let message = message.id;
        draft.push(Event::ContextAdded { message }, Provenance::Live);
        Some(draft.step())
    }
}
