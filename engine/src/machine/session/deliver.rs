//! From the queue to the agent's "heard": one identity, two phases, and what becomes of every outcome.

use std::time::Duration;

use recount_projections::queue::RefusedHow;
use recount_projections::{Message, MessageState, Session, Turn, TurnState};
use recount_store::{Event, MessageId, Provenance, Refusal, Resolution, Timestamp, Verdict};

use super::draft::Draft;
use super::policy::UnknownPolicy;
use super::{Effect, Flight, Looks, SessionMachine, Step, look};
use crate::adapter::{CallError, SessionSpec};
use crate::limits;
use crate::machine::backoff;
use crate::policy::Backoff;

/// Why a person, or a policy, has to say what becomes of a message.
pub(super) const NOT_TOLD: &str = "the agent does not say whether it arrived";

impl SessionMachine {
    pub(super) fn deliver(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
        if message.abort_asked {
            return Self::aborted_unrun(message, state.turn_of(message.id), now);
        }
        if !self.is_up() || self.flight.is_some() {
            return Step::default();
        }
        if let Some(earlier) = self.may_be_at_work(state) {
            return self.wait_for_rest(state, message, earlier, now);
        }
        if state.to_copy().is_some() {
            return self.copy(state, now);
        }
        let attempt = message.attempts + 1;
        let needs_leave = attempt > 1 && !is_proved_absent(message);
        if needs_leave && self.leave != Some((message.id, attempt)) {
            self.flight = Some(Flight::AskingLeave);
            return Step::act(Effect::MayRetry);
        }
        let agent_message = message
            .agent_message
            .clone()
            .unwrap_or_else(|| (self.identity)(message.id, now));
        self.attempting = Some((message.id, attempt));
        self.newest = None;
        self.start_refused = None;
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::DeliveryStarted {
                message: message.id,
                attempt,
                agent_message,
            },
            Provenance::Live,
        );
        draft.step()
    }

    /// What the connection says to one more attempt: all its sessions share a budget, so that many small retries
    /// do not add up to an outage that keeps itself going.
    pub(super) fn may_retry(
        &mut self,
        state: &Session,
        leave: Result<(), Timestamp>,
        now: Timestamp,
    ) -> Step {
        self.flight = None;
        let Some(message) = state.queue.head() else {
            return Step::default();
        };
        let attempt = message.attempts + 1;
        match leave {
            Ok(()) => {
                self.leave = Some((message.id, attempt));
                Step::default()
            }
            Err(at) if message.state == MessageState::Refused => {
                let mut draft = Draft::after(message.moved, now);
                draft.push(
                    Event::RetryScheduled {
                        message: message.id,
                        attempt,
                        at: at.max(now.plus(limits::WAKE_MIN)),
                    },
                    Provenance::Live,
                );
                draft.step()
            }
            Err(_) => Step::default(),
        }
    }

    /// The earlier message whose turn ended without the agent's word, as long as the agent was not seen at rest
    /// since: what is sent to it meanwhile would be mixed into that turn.
    pub(super) fn may_be_at_work<'a>(&self, state: &'a Session) -> Option<&'a Message> {
        state.agent_session.as_ref()?;
        let turn = state.turn.as_ref().filter(|turn| turn.ended_unseen)?;
        let earlier = state.queue.get(turn.message)?;
        (self.rested != Some(earlier.id)).then_some(earlier)
    }

    /// Whether this message waits until the agent was seen at rest.
    pub(super) fn awaits_rest(&self, state: &Session, message: &Message) -> bool {
        let waits = matches!(
            message.state,
            MessageState::Queued | MessageState::Refused | MessageState::Accepted
        );
        waits && self.may_be_at_work(state).is_some()
    }

    /// Looks until the agent rests, for no longer than a turn may take.
    fn wait_for_rest(
        &mut self,
        state: &Session,
        message: &Message,
        earlier: &Message,
        now: Timestamp,
    ) -> Step {
        if let Some(since) = self.working_on {
            let end = since.max(message.queued_at).plus(self.policy.turn_max);
            if end <= now {
                let mut draft = Draft::after(message.moved, now);
                let reason = "the agent does not end its work on an earlier message".to_owned();
                let id = message.id;
                let event = match message.state {
                    MessageState::Accepted => Event::TurnFailed {
                        message: id,
                        run: 0,
                        reason,
                    },
                    _ => Event::MessageDeadLettered {
                        message: id,
                        reason,
                    },
                };
                draft.push(event, Provenance::Live);
                return draft.step();
            }
            self.wake_at(end);
        }
        let due = self.looks.due.unwrap_or(now);
        self.look_when_due(state, earlier, due, now)
    }

    pub(super) fn retry(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
        if message.abort_asked {
            return Self::aborted_unrun(message, state.turn_of(message.id), now);
        }
        if let Some(due) = message.retry_at {
            if due <= now {
                return self.deliver(state, message, now);
            }
            self.wake_at(due);
            return Step::default();
        }
        let attempt = message.attempts + 1;
        let retries = &self.policy.retries;
        let (retry, wanted) = match message.refused {
            Some(RefusedHow::NeverSent) | None => (retries.never_sent, Duration::ZERO),
            Some(RefusedHow::ForNow(millis)) => {
                let wanted = Duration::from_millis(millis.unwrap_or(0));
                (retries.for_now, wanted.min(retries.retry_after_max))
            }
            Some(RefusedHow::ForGood) => (retries.for_good, Duration::ZERO),
            Some(RefusedHow::Absent) => (retries.unknown, Duration::ZERO),
        };
        // One that was looked for has waited for that.
        let pause = if is_proved_absent(message) {
            Duration::ZERO
        } else {
            wanted.max(pause(&retry.backoff, message.id, attempt))
        };
        let mut draft = Draft::after(message.moved, now);
        let event = if message.attempts >= retry.attempts_max {
            Event::MessageDeadLettered {
                message: message.id,
                reason: spent(message),
            }
        } else {
            Event::RetryScheduled {
                message: message.id,
                attempt,
                at: now.plus(pause),
            }
        };
        draft.push(event, Provenance::Live);
        draft.step()
    }

    pub(super) fn send(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
        if self.flight.is_some() {
            return Step::default();
        }
        if self.attempting != Some((message.id, message.attempts)) {
            let reason = "the engine ended before the outcome was known".to_owned();
            let mut draft = Draft::after(message.moved, now);
            let attempt = message.attempts;
            draft.push(
                Event::DeliveryUnknown {
                    message: message.id,
                    attempt,
                    reason,
                },
                Provenance::Inferred,
            );
            return draft.step();
        }
        let Some(delivery) = Self::delivery(state, message) else {
            return self.bind(state, now);
        };
        if let Some(step) = Self::add_context(state, message, now) {
            return step;
        }
        self.flight = Some(Flight::Storing(message.id));
        Step::act(Effect::Store(delivery))
    }

    pub(super) fn bind(&mut self, state: &Session, now: Timestamp) -> Step {
        let Some(spec) = self.spec(state) else {
            return Step::default();
        };
        if let Some(due) = self.search_again
            && now < due
        {
            self.wake_at(due);
            return Step::default();
        }
        self.flight = Some(Flight::Binding);
        if state.bind_requested.is_some() {
            return Step::act(Effect::FindSession(spec));
        }
        let mut draft = Draft::after(state.last, now);
        draft.push(
            Event::AgentSessionRequested {
                marker: self.id.to_string(),
            },
            Provenance::Live,
        );
        draft.step().and(Self::make(state, spec))
    }

    /// What the agent's session is to be like; it can be found again by its title.
    fn spec(&self, state: &Session) -> Option<SessionSpec> {
        let opening = state.opening.as_ref()?;
        let title = opening.title.as_deref().unwrap_or("recount");
        Some(SessionSpec {
            directory: opening.directory.clone(),
            title: format!("{title} [{}]", self.id),
        })
    }

    pub(super) fn bound(
        &mut self,
        state: &Session,
        outcome: Result<Option<String>, CallError>,
        now: Timestamp,
    ) -> Step {
        self.flight = None;
        match outcome {
            Ok(Some(agent_session)) => {
                self.search_again = None;
                let mut draft = Draft::after(state.bind_requested.unwrap_or(state.last), now);
                let event = match state.to_copy() {
                    Some(_) => Event::AgentSessionForked { agent_session },
                    None => Event::AgentSessionBound { agent_session },
                };
                draft.push(event, Provenance::Live);
                draft.step()
            }
            // The agent may still be at what it was asked for: so it was seen with a server that had just started.
            Ok(None) if self.search_again.is_none() => {
                self.search_again = Some(now.plus(self.policy.second_look_after));
                Step::default()
            }
            // It was looked for twice and is not there: what was asked for never came to be.
            Ok(None) => {
                self.search_again = None;
                let Some(spec) = self.spec(state) else {
                    return Step::default();
                };
                self.flight = Some(Flight::Binding);
                Step::act(Self::make(state, spec))
            }
            Err(error) if state.to_copy().is_some() => self.copy_failed(state, &error, now),
            Err(error) => {
                // Whatever became of the session, the message itself has certainly not been sent.
                let refusal = match &error {
                    CallError::NeverSent { .. }
                    | CallError::Unknown { .. }
                    | CallError::NoSuchSession { .. }
                    | CallError::Unsupported { .. } => Refusal::NeverSent,
                    CallError::RefusedForNow { retry_after, .. } => Refusal::ForNow {
                        retry_after: retry_after.map(millis),
                    },
                    CallError::RefusedForGood { .. } => Refusal::ForGood,
                };
                match state.queue.head() {
                    Some(message) => Self::refused(message, refusal, &error, now),
                    None => Step::default(),
                }
            }
        }
    }

    pub(super) fn stored(
        &mut self,
        state: &Session,
        outcome: Result<(), CallError>,
        now: Timestamp,
    ) -> Step {
        let Some(Flight::Storing(message)) = self.flight.take() else {
            return Step::default();
        };
        let Some(message) = state.queue.get(message) else {
            return Step::default();
        };
        let is_head = state.queue.head().is_some_and(|head| head.id == message.id);
        let (id, attempt) = (message.id, message.attempts);
        let mut draft = Draft::after(message.moved, now);
        match outcome {
            Ok(()) => {
                // What was sent beside a turn may be worked on already: that takes a look.
                self.newest = is_head.then_some((id, true));
                draft.push(
                    Event::DeliveryAccepted {
                        message: id,
                        attempt,
                    },
                    Provenance::Live,
                );
                draft.step()
            }
            // Something else answers at that address, as a proxy does in an outage; it may have passed the message on.
            Err(CallError::Unknown { reason } | CallError::Unsupported { reason }) => {
                if is_head {
                    self.looks = Looks {
                        due: Some(now),
                        ..Looks::default()
                    };
                }
                draft.push(
                    Event::DeliveryUnknown {
                        message: id,
                        attempt,
                        reason,
                    },
                    Provenance::Live,
                );
                draft.step().and(Effect::Suspect)
            }
            Err(error @ CallError::NeverSent { .. }) => {
                Self::refused(message, Refusal::NeverSent, &error, now)
            }
            Err(CallError::NoSuchSession { reason }) => {
                let refusal = Refusal::NeverSent;
                if is_head {
                    look::lost(&mut draft, state);
                } else {
                    // And with it the turn beside which it was sent.
                    self.session_lost(&mut draft, state);
                }
                let rejected = Event::DeliveryRejected {
                    message: id,
                    attempt,
                    refusal,
                    reason,
                };
                draft.push(rejected, Provenance::Live);
                draft.step()
            }
            Err(error @ CallError::RefusedForNow { retry_after, .. }) => {
                let retry_after = retry_after.map(millis);
                Self::refused(message, Refusal::ForNow { retry_after }, &error, now)
            }
            Err(error @ CallError::RefusedForGood { .. }) => {
                Self::refused(message, Refusal::ForGood, &error, now)
            }
        }
    }

    fn refused(message: &Message, refusal: Refusal, error: &CallError, now: Timestamp) -> Step {
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::DeliveryRejected {
                message: message.id,
                attempt: message.attempts,
                refusal,
                reason: error.to_string(),
            },
            Provenance::Live,
        );
        draft.step().and(Effect::Suspect)
    }

    pub(super) fn resolve(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
        if state.agent_session.is_none() {
            let mut draft = Draft::after(message.moved, now);
            draft.push(
                Event::DeliveryResolved {
                    message: message.id,
                    attempt: message.attempts,
                    resolution: Resolution::Absent,
                    evidence: "the agent had no session for it yet, so nothing was sent".to_owned(),
                },
                Provenance::Inferred,
            );
            return draft.step();
        }
        let due = self.looks.due.unwrap_or(now);
        self.look_when_due(state, message, due, now)
    }

    /// The agent cannot say whether a message arrived: what becomes of it is a choice.
    pub(super) fn decide_unknown(
        &self,
        message: &Message,
        turn: Option<&Turn>,
        why: &str,
        now: Timestamp,
    ) -> Step {
        if message.abort_asked {
            return Self::aborted_unrun(message, turn, now);
        }
        let (verdict, policy) = match self.policy.unknown {
            UnknownPolicy::Ask => (Verdict::Wait, "ask"),
            UnknownPolicy::Resend => (Verdict::Resend, "resend"),
            UnknownPolicy::DeadLetter => (Verdict::GiveUp, "dead-letter"),
        };
        let mut draft = Draft::after(message.moved, now);
        draft.then(
            Event::UnknownDecided {
                message: message.id,
                attempt: message.attempts,
                verdict,
                reason: format!("{why}; the policy is {policy}"),
            },
            Provenance::Live,
        );
        if verdict == Verdict::GiveUp {
            draft.push(
                Event::MessageDeadLettered {
                    message: message.id,
                    reason: why.to_owned(),
                },
                Provenance::Inferred,
            );
        }
        draft.step()
    }

    /// A person has to say whether a message arrived. Each new opening of the stream is one more chance to hear
    /// it from the agent; an abort or another policy ends the waiting, too.
    pub(super) fn await_outcome(
        &mut self,
        state: &Session,
        message: &Message,
        turn: Option<&Turn>,
        now: Timestamp,
    ) -> Step {
        if message.abort_asked || self.policy.unknown != UnknownPolicy::Ask {
            return self.decide_unknown(message, turn, NOT_TOLD, now);
        }
        match self.looks.due {
            Some(due) => self.look_when_due(state, message, due, now),
            None => Step::default(),
        }
    }

    pub(super) fn request(
        &mut self,
        state: &Session,
        message: &Message,
        turn: Option<&Turn>,
        now: Timestamp,
    ) -> Step {
        // What was sent beside a turn may be worked on already: a look comes first.
        let unproved = message.steered && turn.is_none() && self.is_newest(message).is_none();
        if message.abort_asked && (!unproved || state.agent_session.is_none()) {
            return Self::aborted_unrun(message, turn, now);
        }
        if state.agent_session.is_none() {
            return Self::lost_with_its_session(message, now);
        }
        if turn.is_none()
            && let Some(earlier) = self.may_be_at_work(state)
        {
            return self.wait_for_rest(state, message, earlier, now);
        }
        match self.is_newest(message) {
            Some(true) => {}
            Some(false) => {
                let mut draft = Draft::after(message.moved, now);
                let run = turn.map_or(0, |turn| turn.run().number);
                let reason = look::NOT_THE_NEWEST.to_owned();
                let message = message.id;
                draft.push(
                    Event::TurnFailed {
                        message,
                        run,
                        reason,
                    },
                    Provenance::Inferred,
                );
                return draft.step();
            }
            None => {
                let due = self.looks.due.unwrap_or(now);
                return self.look_when_due(state, message, due, now);
            }
        }
        if !self.is_up() || self.flight.is_some() {
            return Step::default();
        }
        let run = match turn {
            None => 1,
            Some(turn) if turn.state == TurnState::Requested => turn.run().number,
            Some(turn) => turn.run().number + 1,
        };
        if turn.is_none() {
            self.turn_begins();
        }
        self.requests = 0;
        self.request_run(state, message, run, now)
    }

    pub(super) fn request_run(
        &mut self,
        state: &Session,
        message: &Message,
        run: u32,
        now: Timestamp,
    ) -> Step {
        let Some(delivery) = Self::delivery(state, message) else {
            return Step::default();
        };
        self.flight = Some(Flight::Starting);
        self.requests += 1;
        self.looks = Looks::default();
        self.last_activity = now;
        self.aborting = None;
        self.abort_sent = false;
        self.rested = None;
        self.working_on = None;
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::TurnRequested {
                message: message.id,
                run,
            },
            Provenance::Live,
        );
        draft.step().and(Effect::Start(delivery))
    }

    /// What was seen of answers is about the turn before, from here on.
    pub(super) fn turn_begins(&mut self) {
        self.answers_before = std::mem::take(&mut self.answers);
        self.answers = std::mem::take(&mut self.answers_after);
    }

    /// Whether this message is the newest in the agent's session, as far as it is known.
    pub(super) fn is_newest(&self, message: &Message) -> Option<bool> {
        let (known, newest) = self.newest?;
        (known == message.id).then_some(newest)
    }

    /// How long the agent may show no sign after the last request: longer with each, since a busy machine
    /// starts its servers slowly, and asking more often makes it no quicker.
    pub(super) fn request_grace(&self) -> Duration {
        let doublings = self.requests.saturating_sub(1).min(16);
        let grace = self.policy.request_grace.saturating_mul(1 << doublings);
        grace.min(self.policy.request_grace_max)
    }

    pub(super) fn started(&mut self, outcome: Result<(), CallError>, now: Timestamp) -> Step {
        self.flight = None;
        match outcome {
            // "Heard", not "begun": if nothing is seen to begin, a look decides.
            Ok(()) => {
                self.start_refused = None;
                self.look_at(now.plus(self.request_grace()));
                Step::default()
            }
            Err(error) => {
                let mut pause = self.policy.second_look_after;
                match error {
                    CallError::RefusedForGood { reason } => self.start_refused = Some(reason),
                    CallError::RefusedForNow {
                        retry_after: Some(wanted),
                        ..
                    } => pause = pause.max(wanted.min(self.policy.retries.retry_after_max)),
                    _ => {}
                }
                self.look_at(now.plus(pause));
                Step::act(Effect::Suspect)
            }
        }
    }

    /// Somebody wanted an end before the agent was asked to begin: it ends here.
    fn aborted_unrun(message: &Message, turn: Option<&Turn>, now: Timestamp) -> Step {
        let run = turn.map_or(0, |turn| turn.run().number);
        let mut draft = Draft::after(message.moved, now);
        draft.push(
            Event::TurnAborted {
                message: message.id,
                run,
            },
            Provenance::Inferred,
        );
        draft.step()
    }
}

/// Why a message is not tried again.
fn spent(message: &Message) -> String {
    let reason = message.reason.as_deref().unwrap_or("it was refused");
    match (message.refused, message.attempts) {
        (Some(RefusedHow::ForGood), 1) => format!("the agent refused it: {reason}"),
        (_, attempts) => format!("{attempts} attempts failed, the last with: {reason}"),
    }
}

/// The pause before an attempt: the same for the same message and attempt, so that it can be derived again.
pub(super) fn pause(backoff: &Backoff, message: MessageId, attempt: u32) -> Duration {
    let mut seed = [0; 8];
    seed.copy_from_slice(&message.to_bytes()[..8]);
    backoff::delay(backoff, u64::from_le_bytes(seed), attempt.saturating_sub(1))
}

/// Whether the agent has just said that the first attempt did not arrive: it is there and answers, so the next one
/// adds to no outage.
fn is_proved_absent(message: &Message) -> bool {
    message.refused == Some(RefusedHow::Absent) && message.attempts == 1
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
