//! One session: deliver the head of its queue, watch its turn, find out what happened when nobody saw.
//!
//! The machine keeps no truth. What is recorded is in the [`Session`] that it is handed each time; what it
//! keeps besides is what this process alone can know: which call is under way, what the stream has shown
//! since it was opened. A restart loses that and nothing else, so recovery is not a second road: the same
//! [`SessionMachine::advance`] looks at the same state and carries on.
//!
//! The shell's loop is: `handle` an input, append the events of the step in one commit, apply them to the
//! state, do the effects, then `advance` until a step is quiet.

mod deliver;
mod fork;
mod steer;
mod watch;
mod observe;
mod order;
mod look;
mod gather;
mod draft;
pub mod policy;
pub(crate) mod stances;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use recount_projections::{Message, MessageState, Session, Turn, WaitsFor};
use recount_store::{
    Event, FrameNumber, MessageId, OutputKind, PermissionAnswer, Provenance, SessionId, Timestamp,
};

use crate::adapter::{
    AgentSession, AnswerOutcome, CallError, Delivery, Observation, Origin, Report, SessionSpec,
};
use draft::Draft;
use fork::Copying;
use gather::Gather;
use policy::{RerunPolicy, SessionPolicy, UnknownPolicy};

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
        /// The frame that it said it in, where that was kept.
        frame: Option<FrameNumber>,
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
    /// Whether a delivery may be tried again: what [`Effect::MayRetry`] asks. Else, when to ask again.
    MayRetry(Result<(), Timestamp>),
    /// A look came back.
    Looked(Result<Report, CallError>),
    /// An abort came back.
    AbortSent(Result<(), CallError>),
    /// The answer to a permission or a question came back.
    Answered {
        /// The agent's name for what it asked.
        question: String,
        /// What the answer met.
        outcome: Result<AnswerOutcome, CallError>,
    },
    /// Time has passed.
    Woke,
}

/// What the shell is to do, through the adapter; each comes back as an [`Input`].
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make a session at the agent. Comes back as [`Input::Bound`].
    CreateSession(SessionSpec),
    /// Make a session at the agent that goes on from a copy of another one. Comes back as [`Input::Bound`].
    ForkSession {
        /// What it is to be like.
        spec: SessionSpec,
        /// What is to be copied.
        origin: Origin,
    },
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
    /// Answer when the agent asks for permission. Comes back as [`Input::Answered`].
    AnswerPermission {
        /// Where.
        session: AgentSession,
        /// The agent's name for what it asked.
        permission: String,
        /// The answer.
        answer: PermissionAnswer,
    },
    /// Answer a question in words. Comes back as [`Input::Answered`].
    AnswerQuestion {
        /// Where.
        session: AgentSession,
        /// The agent's name for what it asked.
        question: String,
        /// The texts for each prompt; `None` refuses it.
        answers: Option<Vec<Vec<String>>>,
    },
    /// Ask the connection, whose sessions share a budget of retries. Comes back as [`Input::MayRetry`].
    MayRetry,
    /// Have the connection looked at: a call failed. Nothing comes back.
    Suspect,
}

/// What is to be recorded, and then done.
pub type Step = super::Step<Effect>;

/// How the agent's identity for a message is made: [`crate::adapter::AgentAdapter::identity`].
pub type Identity = Arc<dyn Fn(MessageId, Timestamp) -> String + Send + Sync>;

/// The one call under way. One at a time keeps every outcome's meaning plain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Flight {
    AskingLeave,
    Binding,
    /// This message, which need not be the head of the queue: one that steers is sent beside it.
    Storing(MessageId),
    Starting,
    /// For this message.
    Looking(MessageId),
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
#[derive(Clone)]
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
    copying: Copying,
    /// When an agent's session that was looked for and is not there is looked for once more.
    search_again: Option<Timestamp>,
    /// The further attempt that the connection gave leave for.
    leave: Option<(MessageId, u32)>,
    /// How often this opening of the stream saw the agent asked to begin the run: what a server that died
    /// did not hear says nothing of the next one.
    requests: u32,
    /// Why the agent refused to begin, when it did.
    start_refused: Option<String>,
    looks: Looks,
    /// The questions that were open when the last look was begun. One that is not in its report is gone; a later
    /// one may have been asked after the agent was.
    open_before: Vec<String>,
    /// The message whose turn ended unseen, and after which the agent was seen at rest.
    rested: Option<MessageId>,
    /// Since when the agent was seen to work on after such an end.
    working_on: Option<Timestamp>,
    /// Whether this message is the newest in the agent's session, as far as it is known: only such a one may be
    /// worked on. Somebody else may write there too, and so does a message that steers.
    newest: Option<(MessageId, bool)>,
    gather: Gather,
    /// Parts whose beginning this opening of the stream has shown: their deltas follow without a hole.
    opened: HashSet<String>,
    /// What parts are, as far as a look or the stream has shown.
    kinds: HashMap<String, OutputKind>,
    /// The answers to the message at hand that were seen, and those to the one before it, whose frames may be late.
    answers: HashSet<String>,
    answers_before: HashSet<String>,
    /// The answers to the message that steers which were seen while the one before it was still at hand.
    answers_after: HashSet<String>,
    /// The answers that are being written to something else than the message at hand.
    answers_beside: HashSet<String>,
    last_activity: Timestamp,
    /// Since when the turn is to be ended, and whether the agent was told since it was last seen at work.
    aborting: Option<Timestamp>,
    abort_sent: bool,
    answering: HashSet<String>,
    /// Whether this opening of the stream has shown, or the last look has said, that the agent is in the
    /// turn: what is recorded of it may be the belief of an engine that died.
    confirmed: bool,
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
            copying: Copying::default(),
            search_again: None,
            leave: None,
            requests: 0,
            start_refused: None,
            looks: Looks::default(),
            open_before: Vec::new(),
            rested: None,
            working_on: None,
            newest: None,
            gather: Gather::default(),
            opened: HashSet::new(),
            kinds: HashMap::new(),
            answers: HashSet::new(),
            answers_before: HashSet::new(),
            answers_after: HashSet::new(),
            answers_beside: HashSet::new(),
            last_activity: now,
            aborting: None,
            abort_sent: false,
            answering: HashSet::new(),
            confirmed: false,
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

    /// Whether nothing is open, or what is open waits for a person and for nobody else.
    ///
    /// A question counts once it is known to be alive: one that an earlier engine recorded may have died
    /// with its agent.
    #[must_use]
    pub fn is_at_rest(&self, state: &Session) -> bool {
        let Some((message, _)) = state.head() else {
            return true;
        };
        match message.state {
            MessageState::Waiting => match message.waits_for {
                Some(WaitsFor::Outcome) => {
                    self.policy.unknown == UnknownPolicy::Ask && self.flight.is_none()
                }
                Some(WaitsFor::Rerun) | None => self.policy.rerun == RerunPolicy::Ask,
            },
            _ => self.confirmed && self.is_up() && state.questions_open(),
        }
    }

    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }

    fn flush(&mut self, state: &Session, now: Timestamp) -> Step {
        let Some((message, Some(turn))) = state.head() else {
            self.gather.clear();
            return Step::default();
        };
        let Some((event, frame)) = self.gather.flush(message.id, turn.run().number) else {
            return Step::default();
        };
        let mut draft = Draft::after(message.moved, now);
        draft.push(event, Provenance::Live);
        let mut step = draft.step();
        step.told_by(frame);
        step
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
                frame,
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
                let mut step = self.observed(state, observation, frame, from_child, now);
                step.told_by(frame);
                step
            }
            Input::Bound(outcome) => self.bound(state, outcome, now),
            Input::MayRetry(leave) => self.may_retry(state, leave, now),
            Input::Stored(outcome) => self.stored(state, outcome, now),
            Input::Started(outcome) => self.started(outcome, now),
            Input::Looked(outcome) => self.looked(state, outcome, now),
            Input::AbortSent(outcome) => {
                if outcome.is_ok() {
                    self.look_at(now.plus(Duration::from_millis(100)));
                }
                Step::default()
            }
            Input::Answered { question, outcome } => self.answered(state, &question, &outcome, now),
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
        // Somebody may have written into the agent's session meanwhile.
        self.newest = None;
        self.opened.clear();
        self.confirmed = false;
        self.requests = 0;
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

    /// A hole in what the stream shows: what it hid is in the agent's history, or over.
    fn missed(&mut self, now: Timestamp) {
        self.opened.clear();
        self.confirmed = false;
        self.last_activity = self.last_activity.max(now);
        self.look_at(now);
    }

    /// Has the agent asked about the turn at this time, or earlier if that was wanted before.
    fn look_at(&mut self, at: Timestamp) {
        self.looks.due = Some(self.looks.due.map_or(at, |known| known.min(at)));
    }

    /// The head of the queue first, and beside it the message that steers.
    fn next(&mut self, state: &Session, now: Timestamp) -> Step {
        let step = self.carry_on(state, now);
        if step.is_quiet() {
            return self.steer(state, now);
        }
        step
    }

    fn carry_on(&mut self, state: &Session, now: Timestamp) -> Step {
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
                Some(turn) => self.decide_rerun(state, message, turn, now),
                None => Step::default(),
            },
            MessageState::Waiting => match turn {
                _ if message.waits_for == Some(WaitsFor::Outcome) => {
                    self.await_outcome(state, message, turn, now)
                }
                // A person's word comes as a decision of its own. Here only an abort or another policy ends it.
                Some(turn) if message.abort_asked || self.policy.rerun != RerunPolicy::Ask => {
                    self.decide_rerun(state, message, turn, now)
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
        let waits_since = message.queued_at.max(*since);
        let due = waits_since.plus(self.policy.unreachable_patience);
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

    fn look_when_due(
        &mut self,
        state: &Session,
        message: &Message,
        due: Timestamp,
        now: Timestamp,
    ) -> Step {
        let Some(agent_message) = message.agent_message.clone() else {
            return Step::default();
        };
        if !self.is_up() || self.flight.is_some() {
            return Step::default();
        }
        if now < due {
            self.wake_at(due);
            return Step::default();
        }
        let Some(session) = Self::agent_session(state) else {
            return Step::default();
        };
        let turn = state.head().and_then(|(_, turn)| turn);
        let questions = turn.into_iter().flat_map(|turn| &turn.questions);
        let open = questions.filter(|question| !question.settled);
        self.open_before = open.map(|question| question.id.clone()).collect();
        self.looks.due = None;
        self.flight = Some(Flight::Looking(message.id));
        Step::act(Effect::Look {
            session,
            agent_message,
        })
    }

    fn agent_session(state: &Session) -> Option<AgentSession> {
        Some(AgentSession {
            id: state.agent_session.clone()?,
            directory: state.opening.as_ref()?.directory.clone(),
        })
    }

    fn delivery(state: &Session, message: &Message) -> Option<Delivery> {
        let text = message.text.as_deref()?;
        let context = state.context_of(message.id).unwrap_or_default();
        Some(Delivery {
            session: Self::agent_session(state)?,
            agent_message: message.agent_message.clone()?,
            text: format!("{context}{text}"),
            model: state.opening.as_ref()?.model.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
