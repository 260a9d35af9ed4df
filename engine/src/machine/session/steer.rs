//! A message that steers: it reaches the agent while the agent works on the one before it.
//!
//! An agent that can be steered reads between two steps of a run what it was sent meanwhile, and answers the newest
//! message from there on. So such a message is stored beside the turn at hand, and nothing is started: what comes of it is
//! found once it is the head of the queue, by the same look that serves any message. If the run had ended before, it
//! is started like one that was queued.
//!
//! It is sent beside a turn once. Where that does not succeed it waits until it is the head, so that retries, unknown
//! outcomes and lost sessions stay matters of one message at a time.

use recount_projections::{Message, MessageState, Session, Turn};
use recount_store::{Event, Provenance, Timestamp};

use super::draft::Draft;
use super::{Looks, SessionMachine, Step};
use crate::adapter::{Activity, Observation, Report};

impl SessionMachine {
    /// Sends the message that steers, where the agent works on the one before it.
    pub(super) fn steer(&mut self, state: &Session, now: Timestamp) -> Step {
        let (Some((head, Some(turn))), Some(message)) = (state.head(), state.queue.steering())
        else {
            return Step::default();
        };
        if state.agent_session.is_none() {
            return Step::default();
        }
        let ours = self.attempting == Some((message.id, message.attempts));
        match message.state {
            MessageState::Sending if ours => self.send(state, message, now),
            MessageState::Queued if is_open(head, turn) => {
                if self.looks.last < message.queued_at && self.looks.due.is_none() {
                    // One that died unseen is to be run again, which nothing newer may stand in the way of.
                    self.look_when_due(state, head, now, now)
                } else if self.confirmed && self.answers_now(turn) {
                    self.deliver(state, message, now)
                } else {
                    Step::default()
                }
            }
            _ => Step::default(),
        }
    }

    /// Whether an answer of the run at hand was seen. Before it has begun one, an agent would answer the newer
    /// message alone.
    fn answers_now(&self, turn: &Turn) -> bool {
        let mut answers = self.answers.iter();
        answers.any(|answer| !turn.dead_answers.contains(answer))
    }

    /// Whether this is, or may be, about the message that steers and not about the turn at hand.
    pub(super) fn is_ahead(
        &mut self,
        state: &Session,
        turn: &Turn,
        observation: &Observation,
    ) -> bool {
        let Some(steering) = sent(state) else {
            return false;
        };
        let known = |call: &Option<String>| {
            let call = call.as_ref();
            call.is_none_or(|call| turn.run().call(call).is_some())
        };
        match observation {
            Observation::AnswerUpdated(answer)
                if steering.agent_message.as_ref() == Some(&answer.parent) =>
            {
                self.answers_after.insert(answer.id.clone());
                true
            }
            Observation::PartOpened { answer, .. }
            | Observation::PartEnded { answer, .. }
            | Observation::Tool { answer, .. } => {
                !self.answers.contains(answer) && !self.is_past(turn, answer)
            }
            Observation::PermissionAsked(permission) => {
                !self.answers_after.is_empty() || !known(&permission.call)
            }
            Observation::QuestionAsked(question) => {
                !self.answers_after.is_empty() || !known(&question.call)
            }
            Observation::Retrying { .. } | Observation::Error { .. } => {
                !self.answers_after.is_empty()
            }
            _ => false,
        }
    }

    /// The run that went on before has taken the message up: its turn is at hand without having been asked for.
    pub(super) fn taken_up(&mut self, message: &Message, report: &Report, now: Timestamp) -> Step {
        self.turn_begins();
        self.looks = Looks {
            due: Some(now),
            last: now,
            ..Looks::default()
        };
        self.last_activity = self.last_activity.max(now);
        self.rested = None;
        self.working_on = None;
        let seen = if report.activity == Activity::Idle {
            Provenance::Backfilled
        } else {
            Provenance::Live
        };
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::TurnStarted {
                message: message.id,
                run: 1,
            },
            seen,
        );
        draft.step()
    }
}

/// Whether the message that steers may be in the agent's session: the one before it is not the newest there then.
pub(super) fn may_be_overtaken(state: &Session) -> bool {
    state.agent_session.is_some()
        && sent(state).is_some_and(|message| message.state != MessageState::Refused)
}

/// The message that steers, once it was sent.
fn sent(state: &Session) -> Option<&Message> {
    let steering = state.queue.steering();
    steering.filter(|message| message.attempts > 0)
}

/// Whether a turn goes on that nobody wants ended.
fn is_open(head: &Message, turn: &Turn) -> bool {
    head.state == MessageState::Running && !head.abort_asked && turn.stalled.is_none()
}
