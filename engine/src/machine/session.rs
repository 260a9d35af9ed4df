//! One session: deliver the head of its queue, watch its turn, find out what happened when nobody saw.
//!
//! The machine keeps no truth. What is recorded is in the [`Session`] that it is handed each time; what it
//! keeps besides is what this process alone can know: which call is under way, what the stream has shown
//! since it was opened. A restart loses that and nothing else, so recovery is not a second road: the same
//! [`SessionMachine::advance`] looks at the same state and carries on.
//!
//! The shell's loop is: `handle` an input, append the events of the step in one commit, apply them to the
//! state, do the effects, then `advance` until a step is quiet.

mod draft;
mod gather;
mod look;
mod observe;
pub mod policy;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use recount_projections::{Message, MessageState, Session, Turn, queue::RefusedHow};
use recount_store::{
    Event, MessageId, OutputKind, PermissionAnswer, Provenance, Refusal, Rerun, Resolution,
    SessionId, Timestamp,
};

use crate::adapter::{
    AgentSession, CallError, Delivery, Observation, PermissionOutcome, Report, SessionSpec,
};
use crate::machine::backoff;
use draft::Draft;
use gather::Gather;
use policy::{RerunPolicy, SessionPolicy};

/// Everything that can wake a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The connection stands; `epoch` counts its openings in this process.
    Linked {
        /// The count, from 1.
        epoch: u64,
    },
    /// The connection does not stand.
    Unlinked {
        /// Whether its breaker has opened: enough was tried for now.
        circuit_open: bool,
        /// The last error.
        reason: Option<String>,
    },
    /// The agent said something.
    Observed {
        /// In which opening of the stream.
        epoch: u64,
        /// What it said.
        observation: Observation,
        /// Whether a sub-agent's session said it.
        from_child: bool,
    },
    /// An agent's session was made or looked for; `None` where none was found.
    Bound(Result<Option<String>, CallError>),
    /// The first phase of a delivery came back.
    Stored(Result<(), CallError>),
    /// The second phase came back.
    Started(Result<(), CallError>),
    /// A look came back.
    Looked(Result<Report, CallError>),
    /// An abort came back.
    AbortSent(Result<(), CallError>),
    /// The answer to a question came back.
    Answered {
        /// The question.
        permission: String,
        /// What the answer met.
        outcome: Result<PermissionOutcome, CallError>,
    },
    /// Time has passed.
    Woke,
}

/// What the shell is to do, through the adapter; each comes back as an [`Input`].
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make a session at the agent. Comes back as [`Input::Bound`].
    CreateSession(SessionSpec),
    /// Find the session that may have been made. Comes back as [`Input::Bound`].
    FindSession(SessionSpec),
    /// First phase. Comes back as [`Input::Stored`].
    Store(Delivery),
    /// Second phase. Comes back as [`Input::Started`].
    Start(Delivery),
    /// Look. Comes back as [`Input::Looked`].
    Look {
        /// Where.
        session: AgentSession,
        /// For what.
        agent_message: String,
    },
    /// End the turn. Comes back as [`Input::AbortSent`].
    Abort(AgentSession),
    /// Answer a question. Comes back as [`Input::Answered`].
    Answer {
        /// Where.
        session: AgentSession,
        /// The question.
        permission: String,
        /// The answer.
        answer: PermissionAnswer,
    },
    /// Have the connection looked at: a call failed. Nothing comes back.
    Suspect,
}

/// What is to be recorded, and then done.
pub type Step = super::Step<Effect>;

/// How the agent's identity for a message is made: [`crate::adapter::AgentAdapter::identity`].
pub type Identity = Arc<dyn Fn(MessageId, Timestamp) -> String + Send + Sync>;

/// The one call under way. One at a time keeps every outcome's meaning plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    Binding,
    Storing,
    Starting,
    Looking,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Link {
    Down {
        circuit_open_since: Option<Timestamp>,
        reason: Option<String>,
    },
    Up,
}

/// When the agent is to be asked about the turn, and what came of it so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Looks {
    due: Option<Timestamp>,
    /// How many in a row found the agent idle and the turn unfinished.
    idle: u32,
    /// How many in a row failed.
    failures: u32,
    /// When the last one came back.
    last: Timestamp,
}

/// What one process knows of a session beyond its record.
pub struct SessionMachine {
    id: SessionId,
    policy: SessionPolicy,
    identity: Identity,
    link: Link,
    epoch: u64,
    inbox: VecDeque<Input>,
    flight: Option<Flight>,
    /// The attempt that this process began: one that it did not begin has an unknown outcome.
    attempting: Option<(MessageId, u32)>,
    /// Why the agent refused to begin, when it did.
    start_refused: Option<String>,
    looks: Looks,
    /// The questions that were open when the last look was begun. One that is not in its report is gone; a later
    /// one may have been asked after the agent was.
    open_before: Vec<String>,
    /// Whether the message is the newest in the agent's session, as far as it is known: only such a one may be
    /// worked on. Somebody else may write there too.
    newest: Option<bool>,
    gather: Gather,
    /// Parts whose beginning this opening of the stream has shown: their deltas follow without a hole.
    opened: HashSet<String>,
    /// What parts are, as far as a look or the stream has shown.
    kinds: HashMap<String, OutputKind>,
    /// The answers to the message at hand that were seen, and those to the one before it, whose frames may be late.
    answers: HashSet<String>,
    answers_before: HashSet<String>,
    last_activity: Timestamp,
    /// Since when the turn is to be ended, and whether the agent was told since it was last seen at work.
    aborting: Option<Timestamp>,
    abort_sent: bool,
    answering: HashSet<String>,
    wake: Option<Timestamp>,
}

impl SessionMachine {
    /// A machine for this session, that has seen nothing yet.
    #[must_use]
    pub fn new(id: SessionId, policy: SessionPolicy, identity: Identity, now: Timestamp) -> Self {
        Self {
            id,
            policy,
            identity,
            link: Link::Down {
                circuit_open_since: None,
                reason: None,
            },
            epoch: 0,
            inbox: VecDeque::new(),
            flight: None,
            attempting: None,
            start_refused: None,
            looks: Looks::default(),
            open_before: Vec::new(),
            newest: None,
            gather: Gather::default(),
            opened: HashSet::new(),
            kinds: HashMap::new(),
            answers: HashSet::new(),
            answers_before: HashSet::new(),
            last_activity: now,
            aborting: None,
            abort_sent: false,
            answering: HashSet::new(),
            wake: None,
        }
    }

    /// Takes an input, and says what follows from it.
    #[must_use]
    pub fn handle(&mut self, state: &Session, input: Input, now: Timestamp) -> Step {
        self.inbox.push_back(input);
        self.advance(state, now)
    }

    /// What is to be done next. Asked again after each step, until a step is quiet.
    #[must_use]
    pub fn advance(&mut self, state: &Session, now: Timestamp) -> Step {
        self.wake = None;
        while let Some(input) = self.inbox.pop_front() {
            // What was gathered comes first: whatever the input leads to, it happened after it.
            if !self.gather.is_empty() && !self.gather.goes_on_with(&input) {
                let step = self.flush(state, now);
                if !step.is_quiet() {
                    self.inbox.push_front(input);
                    return step;
                }
            }
            let step = self.take(state, input, now);
            if !step.is_quiet() {
                return step;
            }
        }
        if let Some(due) = self.gather.due(&self.policy) {
            if due <= now {
                return self.flush(state, now);
            }
            self.wake_at(due);
        }
        let mut step = self.next(state, now);
        step.wake_at = self.wake;
        step
    }

    /// Changes the rule for turns that the agent died in.
    pub fn set_rerun(&mut self, rerun: RerunPolicy) {
        self.policy.rerun = rerun;
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    fn flush(&mut self, state: &Session, now: Timestamp) -> Step {
        let Some((message, Some(turn))) = state.head() else {
            self.gather.clear();
            return Step::default();
        };
        let mut draft = Draft::after(message.moved, now);
        if let Some(event) = self.gather.flush(message.id, turn.run().number) {
            draft.push(event, Provenance::Live);
        }
        draft.step()
    }

    fn take(&mut self, state: &Session, input: Input, now: Timestamp) -> Step {
        match input {
            Input::Linked { epoch } => {
                self.linked(epoch, now);
                Step::default()
            }
            Input::Unlinked {
                circuit_open,
                reason,
            } => {
                let known = match self.link {
                    Link::Down {
                        circuit_open_since, ..
                    } => circuit_open_since,
                    Link::Up => None,
                };
                // A probe that is let through now and then is no connection: the patience goes on.
                let circuit_open_since = known.or_else(|| circuit_open.then_some(now));
                self.link = Link::Down {
                    circuit_open_since,
                    reason,
                };
                Step::default()
            }
            Input::Observed {
                epoch,
                observation,
                from_child,
            } => {
                // What an older opening of the stream said last may arrive late. The look that a new one brings
                // finds it, in its place.
                if epoch < self.epoch {
                    return Step::default();
                }
                if epoch > self.epoch {
                    self.linked(epoch, now);
                }
                self.last_activity = self.last_activity.max(now);
                self.observed(state, observation, from_child, now)
            }
            Input::Bound(outcome) => self.bound(state, outcome, now),
            Input::Stored(outcome) => self.stored(state, outcome, now),
            Input::Started(outcome) => self.started(outcome, now),
            Input::Looked(outcome) => self.looked(state, outcome, now),
            Input::AbortSent(outcome) => {
                if outcome.is_ok() {
                    self.look_at(now.plus(Duration::from_millis(100)));
                }
                Step::default()
            }
            Input::Answered {
                permission,
                outcome,
            } => self.answered(state, permission, &outcome, now),
            Input::Woke => Step::default(),
        }
    }

    /// A new opening of the stream: whatever was in the old one may have gone on unseen.
    fn linked(&mut self, epoch: u64, now: Timestamp) {
        self.link = Link::Up;
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        self.opened.clear();
        self.kinds.clear();
        self.answering.clear();
        self.aborting = None;
        self.abort_sent = false;
        self.looks = Looks {
            due: Some(now),
            ..Looks::default()
        };
        self.last_activity = now;
    }

    /// Has the agent asked about the turn at this time, or earlier if that was wanted before.
    fn look_at(&mut self, at: Timestamp) {
        self.looks.due = Some(self.looks.due.map_or(at, |known| known.min(at)));
    }

    fn next(&mut self, state: &Session, now: Timestamp) -> Step {
        let Some((message, turn)) = state.head() else {
            return Step::default();
        };
        if let Some(step) = self.give_up_unreachable(message, turn, now) {
            return step;
        }
        match message.state {
            MessageState::Queued => self.deliver(state, message, now),
            MessageState::Refused => self.retry(state, message, now),
            MessageState::Sending => self.send(state, message, now),
            MessageState::Unknown => self.resolve(state, message, now),
            MessageState::Accepted => self.request(state, message, turn, now),
            MessageState::Requested | MessageState::Running => match turn {
                Some(turn) => self.watch(state, message, turn, now),
                None => Step::default(),
            },
            MessageState::Interrupted => match turn {
                Some(turn) => self.decide_rerun(message, turn, now),
                None => Step::default(),
            },
            MessageState::Waiting => match turn {
                // A person's word comes as a decision of its own. Here only an abort or another policy ends it.
                Some(turn) if message.abort_asked || self.policy.rerun != RerunPolicy::Ask => {
                    self.decide_rerun(message, turn, now)
                }
                _ => Step::default(),
            },
            MessageState::Completed
            | MessageState::Failed
            | MessageState::Aborted
            | MessageState::Cancelled
            | MessageState::DeadLettered => Step::default(),
        }
    }

    fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// Ends what waits for a connection whose breaker has been open for too long.
    fn give_up_unreachable(
        &mut self,
        message: &Message,
        turn: Option<&Turn>,
        now: Timestamp,
    ) -> Option<Step> {
        let Link::Down {
            circuit_open_since: Some(since),
            reason,
        } = &self.link
        else {
            return None;
        };
        if self.flight.is_some() || message.state == MessageState::Waiting {
            return None;
        }
        let due = since.plus(self.policy.unreachable_patience);
        if now < due {
            self.wake_at(due);
            return None;
        }
        let why = reason.as_deref().unwrap_or("no connection can be made");
        let mut draft = Draft::after(message.moved, now);
        let event = match message.state {
            MessageState::Queued | MessageState::Refused => Event::MessageDeadLettered {
                message: message.id,
                reason: format!("the agent cannot be reached: {why}"),
            },
            MessageState::Sending | MessageState::Unknown => Event::MessageDeadLettered {
                message: message.id,
                reason: format!(
                    "whether it arrived cannot be found out, since the agent cannot be reached: {why}"
                ),
            },
            _ => Event::TurnFailed {
                message: message.id,
                run: turn.map_or(0, |turn| turn.run().number),
                reason: format!(
                    "how it ended cannot be found out, since the agent cannot be reached: {why}"
                ),
            },
        };
        draft.push(event, Provenance::Inferred);
        Some(draft.step())
    }

    fn deliver(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
        if message.abort_asked {
            return Self::aborted_unrun(message, state.turn_of(message.id), now);
        }
        if !self.is_up() || self.flight.is_some() {
            return Step::default();
        }
        let attempt = message.attempts + 1;
        let agent_message = message
            .agent_message
            .clone()
            .unwrap_or_else(|| (self.identity)(message.id, now));
        self.attempting = Some((message.id, attempt));
        self.newest = None;
        self.start_refused = None;
        if message.attempts == 0 {
            self.answers_before = std::mem::take(&mut self.answers);
        }
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

    fn retry(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
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
        let pause = match message.refused {
            Some(RefusedHow::Absent) => Some(Duration::ZERO),
            Some(RefusedHow::ForGood) => None,
            Some(RefusedHow::ForNow(Some(millis))) => {
                let wanted = Duration::from_millis(millis).min(self.policy.agent_retry_max);
                Some(wanted.max(self.pause(message.id, attempt)))
            }
            Some(RefusedHow::ForNow(None) | RefusedHow::NeverSent) | None => {
                Some(self.pause(message.id, attempt))
            }
        };
        let reason = message.reason.as_deref().unwrap_or("it was refused");
        let mut draft = Draft::after(message.moved, now);
        let event = match pause {
            None => Event::MessageDeadLettered {
                message: message.id,
                reason: format!("the agent refused it: {reason}"),
            },
            Some(_) if message.attempts >= self.policy.attempts_max => Event::MessageDeadLettered {
                message: message.id,
                reason: format!(
                    "{} attempts failed, the last with: {reason}",
                    message.attempts
                ),
            },
            Some(pause) => Event::RetryScheduled {
                message: message.id,
                attempt,
                at: now.plus(pause),
            },
        };
        draft.push(event, Provenance::Live);
        draft.step()
    }

    /// The pause before an attempt: the same for the same message and attempt, so that it can be derived again.
    fn pause(&self, message: MessageId, attempt: u32) -> Duration {
        let mut seed = [0; 8];
        seed.copy_from_slice(&message.to_bytes()[..8]);
        backoff::delay(
            &self.policy.backoff,
            u64::from_le_bytes(seed),
            attempt.saturating_sub(1),
        )
    }

    fn send(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
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
        self.flight = Some(Flight::Storing);
        Step::act(Effect::Store(delivery))
    }

    fn bind(&mut self, state: &Session, now: Timestamp) -> Step {
        let Some(opening) = &state.opening else {
            return Step::default();
        };
        let title = opening.title.as_deref().unwrap_or("recount");
        let spec = SessionSpec {
            directory: opening.directory.clone(),
            title: format!("{title} [{}]", self.id),
        };
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
        draft.step().and(Effect::CreateSession(spec))
    }

    fn bound(
        &mut self,
        state: &Session,
        outcome: Result<Option<String>, CallError>,
        now: Timestamp,
    ) -> Step {
        self.flight = None;
        match outcome {
            Ok(Some(agent_session)) => {
                let mut draft = Draft::after(state.bind_requested.unwrap_or(state.last), now);
                draft.push(Event::AgentSessionBound { agent_session }, Provenance::Live);
                draft.step()
            }
            // It was looked for and is not there: what was asked for never came to be.
            Ok(None) => {
                let Some(opening) = &state.opening else {
                    return Step::default();
                };
                let title = opening.title.as_deref().unwrap_or("recount");
                self.flight = Some(Flight::Binding);
                Step::act(Effect::CreateSession(SessionSpec {
                    directory: opening.directory.clone(),
                    title: format!("{title} [{}]", self.id),
                }))
            }
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
                Self::refused(state, refusal, &error, now)
            }
        }
    }

    fn stored(&mut self, state: &Session, outcome: Result<(), CallError>, now: Timestamp) -> Step {
        self.flight = None;
        let Some((message, _)) = state.head() else {
            return Step::default();
        };
        let (id, attempt) = (message.id, message.attempts);
        let mut draft = Draft::after(message.moved, now);
        match outcome {
            Ok(()) => {
                self.newest = Some(true);
                draft.push(
                    Event::DeliveryAccepted {
                        message: id,
                        attempt,
                    },
                    Provenance::Live,
                );
                draft.step()
            }
            Err(CallError::Unknown { reason }) => {
                self.looks = Looks {
                    due: Some(now),
                    ..Looks::default()
                };
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
                Self::refused(state, Refusal::NeverSent, &error, now)
            }
            Err(CallError::NoSuchSession { reason }) => {
                let refusal = Refusal::NeverSent;
                look::lost(&mut draft, state);
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
                Self::refused(state, Refusal::ForNow { retry_after }, &error, now)
            }
            Err(error @ CallError::RefusedForGood { .. }) => {
                Self::refused(state, Refusal::ForGood, &error, now)
            }
            // Something else answers at that address, as a proxy does in an outage.
            Err(error @ CallError::Unsupported { .. }) => {
                Self::refused(state, Refusal::ForNow { retry_after: None }, &error, now)
            }
        }
    }

    fn refused(state: &Session, refusal: Refusal, error: &CallError, now: Timestamp) -> Step {
        let Some((message, _)) = state.head() else {
            return Step::default();
        };
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

    fn resolve(&mut self, state: &Session, message: &Message, now: Timestamp) -> Step {
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

    fn look_when_due(
        &mut self,
        state: &Session,
        message: &Message,
        due: Timestamp,
        now: Timestamp,
    ) -> Step {
        if !self.is_up() || self.flight.is_some() {
            return Step::default();
        }
        if now < due {
            self.wake_at(due);
            return Step::default();
        }
        let (Some(session), Some(agent_message)) =
            (Self::agent_session(state), message.agent_message.clone())
        else {
            return Step::default();
        };
        let questions = state
            .turn_of(message.id)
            .into_iter()
            .flat_map(|t| &t.questions);
        let open = questions.filter(|question| !question.settled);
        self.open_before = open.map(|question| question.id.clone()).collect();
        self.looks.due = None;
        self.flight = Some(Flight::Looking);
        Step::act(Effect::Look {
            session,
            agent_message,
        })
    }

    fn request(
        &mut self,
        state: &Session,
        message: &Message,
        turn: Option<&Turn>,
        now: Timestamp,
    ) -> Step {
        if message.abort_asked {
            return Self::aborted_unrun(message, turn, now);
        }
        if state.agent_session.is_none() {
            return Self::forgotten(message, now);
        }
        match self.newest {
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
            Some(turn) if turn.state == recount_projections::TurnState::Requested => {
                turn.run().number
            }
            Some(turn) => turn.run().number + 1,
        };
        self.request_run(state, message, run, now)
    }

    fn request_run(
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
        self.looks = Looks::default();
        self.last_activity = now;
        self.aborting = None;
        self.abort_sent = false;
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

    fn started(&mut self, outcome: Result<(), CallError>, now: Timestamp) -> Step {
        self.flight = None;
        match outcome {
            // "Heard", not "begun": if nothing is seen to begin, a look decides.
            Ok(()) => {
                self.start_refused = None;
                self.look_at(now.plus(self.policy.request_grace));
                Step::default()
            }
            Err(error) => {
                let mut pause = self.policy.second_look_after;
                match error {
                    CallError::RefusedForGood { reason } => self.start_refused = Some(reason),
                    CallError::RefusedForNow {
                        retry_after: Some(wanted),
                        ..
                    } => pause = pause.max(wanted.min(self.policy.agent_retry_max)),
                    _ => {}
                }
                self.look_at(now.plus(pause));
                Step::act(Effect::Suspect)
            }
        }
    }

    /// A turn that was asked for: answer questions, end it where it must end, look where nothing was seen.
    fn watch(&mut self, state: &Session, message: &Message, turn: &Turn, now: Timestamp) -> Step {
        if !self.is_up() {
            return Step::default();
        }
        if let Some(step) = self.answer_questions(state, turn, now) {
            return step;
        }
        if self.flight == Some(Flight::Starting) {
            return Step::default();
        }
        if message.abort_asked || turn.stalled.is_some() {
            if let Some(step) = self.abort(state, message, turn, now) {
                return step;
            }
        } else if let Some(step) = self.stall(message, turn, now) {
            return step;
        }
        let due = self.looks.due.unwrap_or_else(|| {
            let seen = self.last_activity.max(self.looks.last);
            seen.plus(self.policy.look_every)
        });
        self.look_when_due(state, message, due, now)
    }

    fn answer_questions(&mut self, state: &Session, turn: &Turn, now: Timestamp) -> Option<Step> {
        let session = Self::agent_session(state)?;
        let (question, answer) = turn.questions.iter().find_map(|question| {
            let answer = question.answer.filter(|_| !question.settled)?;
            (!self.answering.contains(&question.id)).then_some((question, answer))
        })?;
        self.answering.insert(question.id.clone());
        // While the question was open the agent's silence was ours.
        self.last_activity = self.last_activity.max(now);
        let permission = question.id.clone();
        Some(Step::act(Effect::Answer {
            session,
            permission,
            answer: answer.into(),
        }))
    }

    fn answered(
        &mut self,
        state: &Session,
        permission: String,
        outcome: &Result<PermissionOutcome, CallError>,
        now: Timestamp,
    ) -> Step {
        let Some((message, Some(turn))) = state.head() else {
            return Step::default();
        };
        match outcome {
            Ok(PermissionOutcome::Taken | PermissionOutcome::Gone) => {
                let mut draft = Draft::after(message.moved, now);
                observe::settle(&mut draft, turn, permission, Provenance::Live);
                draft.step()
            }
            // Stays in `answering`: the next opening of the stream, or a look, tries again.
            Err(_) => {
                self.look_at(now.plus(self.policy.second_look_after));
                Step::act(Effect::Suspect)
            }
        }
    }

    fn abort(
        &mut self,
        state: &Session,
        message: &Message,
        turn: &Turn,
        now: Timestamp,
    ) -> Option<Step> {
        let since = *self.aborting.get_or_insert(now);
        let due = since.plus(self.policy.abort_patience);
        if now < due {
            self.wake_at(due);
            if std::mem::replace(&mut self.abort_sent, true) {
                return None;
            }
            self.look_at(now.plus(self.policy.second_look_after));
            return Self::agent_session(state).map(|session| Step::act(Effect::Abort(session)));
        }
        if !self.gather.is_empty() {
            return Some(self.flush(state, now));
        }
        let mut draft = Draft::after(message.moved, now);
        draft.push(look::ended_on_request(message, turn), Provenance::Inferred);
        Some(draft.step())
    }

    fn stall(&mut self, message: &Message, turn: &Turn, now: Timestamp) -> Option<Step> {
        let whole = turn.begun_at.plus(self.policy.turn_max);
        let silent = self.last_activity.plus(self.policy.silence_max);
        let asks = turn.open_questions().next().is_some();
        let reason = if now >= whole {
            format!("the turn took longer than {:?}", self.policy.turn_max)
        } else if now >= silent && !asks {
            format!(
                "nothing came from the agent for {:?}",
                self.policy.silence_max
            )
        } else {
            self.wake_at(whole);
            if !asks {
                self.wake_at(silent);
            }
            return None;
        };
        Some(Self::stalled(message, turn, reason, now))
    }

    fn stalled(message: &Message, turn: &Turn, reason: String, now: Timestamp) -> Step {
        let mut draft = Draft::after(message.moved, now);
        let run = turn.run().number;
        draft.push(
            Event::TurnStalled {
                message: message.id,
                run,
                reason,
            },
            Provenance::Live,
        );
        draft.step()
    }

    fn decide_rerun(&mut self, message: &Message, turn: &Turn, now: Timestamp) -> Step {
        let run = turn.run().number;
        let mut draft = Draft::after(message.moved, now);
        if message.abort_asked || turn.stalled.is_some() {
            draft.push(look::ended_on_request(message, turn), Provenance::Inferred);
            return draft.step();
        }
        let (rerun, reason) = self.choose_rerun(turn);
        if rerun == Rerun::Wait {
            // A person may take days, and may work in the agent's session meanwhile.
            self.newest = None;
        }
        draft.then(
            Event::RerunDecided {
                message: message.id,
                run,
                rerun,
                reason: reason.clone(),
            },
            Provenance::Live,
        );
        if rerun == Rerun::GiveUp {
            let reason = format!("the agent died in it, and it is not run again: {reason}");
            draft.push(
                Event::TurnFailed {
                    message: message.id,
                    run,
                    reason,
                },
                Provenance::Inferred,
            );
        }
        draft.step()
    }

    fn choose_rerun(&self, turn: &Turn) -> (Rerun, String) {
        let tools: Vec<&str> = turn.tools_begun().collect();
        if turn.run().number >= self.policy.runs_max {
            return (
                Rerun::GiveUp,
                format!("the agent died in all {} runs", self.policy.runs_max),
            );
        }
        if self.newest == Some(false) {
            return (Rerun::GiveUp, look::NOT_THE_NEWEST.to_owned());
        }
        match self.policy.rerun {
            RerunPolicy::Never => (Rerun::GiveUp, "the policy is never".to_owned()),
            RerunPolicy::Auto => (Rerun::Run, "the policy is auto".to_owned()),
            RerunPolicy::Ask if tools.is_empty() => (Rerun::Run, "no tool had begun".to_owned()),
            RerunPolicy::Ask => (
                Rerun::Wait,
                format!(
                    "tools had begun and may have done work: {}",
                    tools.join(", ")
                ),
            ),
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

    fn agent_session(state: &Session) -> Option<AgentSession> {
        Some(AgentSession {
            id: state.agent_session.clone()?,
            directory: state.opening.as_ref()?.directory.clone(),
        })
    }

    fn delivery(state: &Session, message: &Message) -> Option<Delivery> {
        Some(Delivery {
            session: Self::agent_session(state)?,
            agent_message: message.agent_message.clone()?,
            text: message.text.clone()?,
            model: state.opening.as_ref()?.model.clone(),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
