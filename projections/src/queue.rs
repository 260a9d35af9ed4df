//! The queue of one session: every message, in order, and where it stands.

use std::collections::BTreeMap;

use recount_store::{
    Event, MessageId, Position, Recorded, Refusal, Rerun, Resolution, Timestamp, Verdict,
};
use serde::{Deserialize, Serialize};

use crate::Projection;

/// Where a message stands. One word for its whole life: delivery first, then the turn that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// It waits for its turn, or for its next attempt. From `MessageQueued`.
    Queued,
    /// An attempt was begun, and its outcome is not recorded. From `DeliveryStarted`.
    Sending,
    /// The last attempt certainly did not arrive. From `DeliveryRejected` or `DeliveryResolved`.
    Refused,
    /// Nobody knows whether the last attempt arrived. From `DeliveryUnknown`.
    Unknown,
    /// The agent holds it. From `DeliveryAccepted` or `DeliveryResolved`.
    Accepted,
    /// The agent was, or is being, asked to work on it. From `TurnRequested`.
    Requested,
    /// The agent works on it. From `TurnStarted`.
    Running,
    /// The agent died while it worked on it. From `TurnInterrupted`.
    Interrupted,
    /// A person has to say how it goes on: [`WaitsFor`] says about what. From `RerunDecided` or `UnknownDecided`.
    Waiting,
    /// Answered. From `TurnCompleted`.
    Completed,
    /// Its turn ended without a whole answer. From `TurnFailed`.
    Failed,
    /// Its turn was ended on request. From `TurnAborted`.
    Aborted,
    /// Taken back before it was sent. From `MessageCancelled`.
    Cancelled,
    /// Given up. From `MessageDeadLettered`.
    DeadLettered,
}

impl MessageState {
    /// Whether nothing more will happen to it by itself or by anybody.
    #[must_use]
    pub const fn is_settled(self) -> bool {
        match self {
            Self::Queued
            | Self::Sending
            | Self::Refused
            | Self::Unknown
            | Self::Accepted
            | Self::Requested
            | Self::Running
            | Self::Interrupted
            | Self::Waiting => false,
            Self::Completed
            | Self::Failed
            | Self::Aborted
            | Self::Cancelled
            | Self::DeadLettered => true,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Accepted => "accepted",
            Self::Requested => "requested",
            Self::Running => "running",
            Self::Interrupted => "interrupted",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Cancelled => "cancelled",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// Why a message is `Refused`, as far as the next attempt needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedHow {
    /// It never left.
    NeverSent,
    /// For now; the agent may have said for how long, in milliseconds.
    ForNow(Option<u64>),
    /// For good.
    ForGood,
    /// It was sent and the agent does not hold it, or it was decided to take that for true.
    Absent,
}

/// What a message that is `Waiting` needs a person's word on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// Whether its turn is run again, the agent having died in it.
    Rerun,
    /// Whether its last attempt arrived, which the agent could not tell.
    Outcome,
}

/// How a message was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// When.
    pub at: Timestamp,
    /// Whether the outcome of its last attempt was not known: the agent may hold it.
    pub unknown: bool,
    /// The message that it was queued again as, once it was.
    pub again: Option<MessageId>,
}

/// One message and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The application's idempotency key.
    pub key: Option<String>,
    /// BLAKE3 of its text: what "the same content" means for a repeated key.
    pub content: [u8; 32],
    /// Its text, as long as it may have to be sent; none once it is settled.
    pub text: Option<String>,
    /// Where it stands.
    pub state: MessageState,
    /// How many attempts to deliver it were begun.
    pub attempts: u32,
    /// The identity that the agent knows it by, from the first attempt on.
    pub agent_message: Option<String>,
    /// Why the last attempt was refused, while it is `Refused`.
    pub refused: Option<RefusedHow>,
    /// Whether it was sent and nobody has found out since whether the agent holds it.
    pub unproved: bool,
    /// What a person has to say, while it is `Waiting`.
    pub waits_for: Option<WaitsFor>,
    /// Since when, while it is `Waiting`.
    pub waits_since: Option<Timestamp>,
    /// How it was given up, once it is `DeadLettered`.
    pub given_up: Option<GivenUp>,
    /// Not before: when the next attempt is due, while one is scheduled.
    pub retry_at: Option<Timestamp>,
    /// Whether somebody wanted it ended.
    pub abort_asked: bool,
    /// Whether it is to reach the agent while it works on the message before it.
    pub steered: bool,
    /// The last thing that went wrong with it.
    pub reason: Option<String>,
    /// The event that queued it.
    pub queued: Position,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// The last event that moved it.
    pub moved: Position,
}

/// All messages of one session, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    messages: Vec<Message>,
    by_key: BTreeMap<String, usize>,
    /// Invariant: every message before this index is settled. Keeps [`Queue::head`] from walking a long life.
    settled: usize,
}

impl Queue {
    /// All messages, oldest first.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The oldest message that is not settled: the only one that may be worked on.
    #[must_use]
    pub fn head(&self) -> Option<&Message> {
        self.open().next()
    }

    /// The messages that are not settled, oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Message> {
        self.messages[self.settled..]
            .iter()
            .filter(|message| !message.state.is_settled())
    }

    /// The message behind the head where it is to steer: the only one that may be sent while another is worked on.
    #[must_use]
    pub fn steering(&self) -> Option<&Message> {
        self.open().nth(1).filter(|message| message.steered)
    }

    /// The bytes of text that wait to be sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = self.open().filter_map(|message| message.text.as_ref());
        texts.map(String::len).sum()
    }

    /// The messages that were given up and not queued again, oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = (&Message, GivenUp)> {
        let given_up = self.messages.iter().filter_map(|m| Some((m, m.given_up?)));
        given_up.filter(|(_, given_up)| given_up.again.is_none())
    }

    /// The message with this id.
    #[must_use]
    pub fn get(&self, id: MessageId) -> Option<&Message> {
        self.messages.iter().rev().find(|message| message.id == id)
    }

    /// The message that was queued with this idempotency key.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<&Message> {
        self.by_key.get(key).map(|index| &self.messages[*index])
    }

    /// Moves a message; one that this log never queued is passed over, and one that is settled stays as it is.
    fn update(&mut self, id: MessageId, position: Position, change: impl FnOnce(&mut Message)) {
        let Some(message) = self
            .messages
            .iter_mut()
            .rev()
            .find(|message| message.id == id && !message.state.is_settled())
        else {
            return;
        };
        message.moved = position;
        change(message);
        if message.state != MessageState::Waiting {
            message.waits_for = None;
            message.waits_since = None;
        }
        if message.state.is_settled() {
            message.text = None;
            while self
                .messages
                .get(self.settled)
                .is_some_and(|m| m.state.is_settled())
            {
                self.settled += 1;
            }
        }
    }
}

impl Queue {
    fn wait(&mut self, id: MessageId, recorded: &Recorded, waits_for: WaitsFor) {
        self.update(id, recorded.position, |message| {
            message.state = MessageState::Waiting;
            message.waits_for = Some(waits_for);
            message.waits_since.get_or_insert(recorded.at);
        });
    }

    /// The one thing that still happens to a settled message: it stays given up, and lives on as another.
    fn requeued(&mut self, id: MessageId, again: MessageId) {
        let mut messages = self.messages.iter_mut().rev();
        if let Some(message) = messages.find(|message| message.id == id)
            && let Some(given_up) = &mut message.given_up
        {
            given_up.again = Some(again);
        }
    }
}

impl Projection for Queue {
    const VERSION: u32 = 4;
    const NAME: &'static str = "queue";

    fn apply(&mut self, recorded: &Recorded) {
        use MessageState as State;
        let at = recorded.position;
        let mut go = |id: MessageId, state: State| {
            self.update(id, at, |message| message.state = state);
        };
        match &recorded.event {
            Event::MessageQueued { message, key, text } => {
                if let Some(key) = key {
                    self.by_key.insert(key.clone(), self.messages.len());
                }
                self.messages.push(Message {
                    id: *message,
                    key: key.clone(),
                    content: content_hash(text),
                    text: Some(text.clone()),
                    state: State::Queued,
                    attempts: 0,
                    agent_message: None,
                    refused: None,
                    unproved: false,
                    waits_for: None,
                    waits_since: None,
                    given_up: None,
                    retry_at: None,
                    abort_asked: false,
                    steered: false,
                    reason: None,
                    queued: at,
                    queued_at: recorded.at,
                    moved: at,
                });
            }
            Event::DeliveryStarted {
                message,
                attempt,
                agent_message,
            } => {
                self.update(*message, at, |m| {
                    m.state = State::Sending;
                    m.attempts = *attempt;
                    m.agent_message = Some(agent_message.clone());
                    m.refused = None;
                    m.retry_at = None;
                });
            }
            Event::DeliveryAccepted { message, .. } => {
                self.update(*message, at, |m| {
                    m.state = State::Accepted;
                    m.unproved = false;
                });
            }
            Event::DeliveryRejected {
                message,
                refusal,
                reason,
                ..
            } => {
                self.update(*message, at, |m| {
                    m.state = State::Refused;
                    m.refused = Some(match refusal {
                        Refusal::NeverSent => RefusedHow::NeverSent,
                        Refusal::ForNow { retry_after } => RefusedHow::ForNow(*retry_after),
                        Refusal::ForGood => RefusedHow::ForGood,
                    });
                    m.reason = Some(reason.clone());
                });
            }
            Event::DeliveryUnknown {
                message, reason, ..
            } => {
                self.update(*message, at, |m| {
                    m.state = State::Unknown;
                    m.unproved = true;
                    m.reason = Some(reason.clone());
                });
            }
            Event::DeliveryResolved {
                message,
                resolution,
                ..
            } => {
                self.update(*message, at, |m| {
                    m.unproved = false;
                    match resolution {
                        Resolution::Stored => m.state = State::Accepted,
                        Resolution::Absent => {
                            m.state = State::Refused;
                            m.refused = Some(RefusedHow::Absent);
                        }
                    }
                });
            }
            Event::RetryScheduled {
                message, at: due, ..
            } => {
                self.update(*message, at, |m| m.retry_at = Some(*due));
            }
            Event::TurnRequested { message, .. } => go(*message, State::Requested),
            Event::TurnStarted { message, .. } => go(*message, State::Running),
            Event::TurnInterrupted { message, .. } => go(*message, State::Interrupted),
            Event::RerunDecided { message, rerun, .. } => match rerun {
                Rerun::Run => go(*message, State::Accepted),
                Rerun::Wait => self.wait(*message, recorded, WaitsFor::Rerun),
                // Stays where it is: the failure of the turn follows in the same commit.
                Rerun::GiveUp => {}
            },
            Event::UnknownDecided {
                message, verdict, ..
            } => match verdict {
                Verdict::Wait => self.wait(*message, recorded, WaitsFor::Outcome),
                Verdict::Resend => self.update(*message, at, |m| {
                    m.state = State::Refused;
                    m.refused = Some(RefusedHow::Absent);
                }),
                Verdict::Arrived => self.update(*message, at, |m| {
                    m.state = State::Accepted;
                    m.unproved = false;
                }),
                // Stays where it is: that it is given up follows in the same commit.
                Verdict::GiveUp => {}
            },
            Event::TurnCompleted { message, .. } => go(*message, State::Completed),
            Event::TurnFailed {
                message, reason, ..
            } => {
                self.update(*message, at, |m| {
                    m.state = State::Failed;
                    m.reason = Some(reason.clone());
                });
            }
            Event::TurnAborted { message, .. } => go(*message, State::Aborted),
            Event::MessageCancelled { message } => go(*message, State::Cancelled),
            Event::MessageDeadLettered { message, reason } => {
                self.update(*message, at, |m| {
                    m.given_up = Some(GivenUp {
                        at: recorded.at,
                        unknown: m.unproved || m.state == State::Sending,
                        again: None,
                    });
                    m.state = State::DeadLettered;
                    m.reason = Some(reason.clone());
                });
            }
            Event::MessageRequeued { message, again } => self.requeued(*message, *again),
            Event::MessageSteered { message } => {
                self.update(*message, at, |m| m.steered = true);
            }
            Event::TurnAbortAsked { message } => {
                self.update(*message, at, |m| m.abort_asked = true);
            }
            Event::SessionOpened { .. }
            | Event::PermissionAnswered { .. }
            | Event::SessionClosed
            | Event::SessionForked { .. }
            | Event::AgentSessionForked { .. }
            | Event::AgentForkRefused { .. }
            | Event::ContextAdded { .. }
            | Event::AgentSessionBound { .. }
            | Event::AgentSessionLost { .. }
            | Event::OutputAppended { .. }
            | Event::OutputReplaced { .. }
            | Event::OutputOrdered { .. }
            | Event::ToolCallStarted { .. }
            | Event::ToolCallEnded { .. }
            | Event::PermissionAsked { .. }
            | Event::PermissionSettled { .. }
            | Event::AgentRetried { .. }
            | Event::AgentErrorReported { .. }
            | Event::FrameUnrecognised { .. }
            | Event::AgentSessionRequested { .. }
            | Event::TurnStalled { .. }
            | Event::ConnectionOpened { .. }
            | Event::ServerSpawned { .. }
            | Event::ServerReady { .. }
            | Event::ServerExited { .. }
            | Event::ConnectFailed { .. }
            | Event::StreamOpened
            | Event::StreamLost { .. }
            | Event::ProbeFailed { .. }
            | Event::ProbeRecovered
            | Event::GapFound { .. }
            | Event::GapFilled { .. }
            | Event::ConnectionChanged { .. }
            | Event::ServerStartDecided { .. }
            | Event::ServerStopDecided { .. }
            | Event::ReconnectScheduled { .. }
            | Event::CircuitOpened { .. }
            | Event::CircuitHalfOpened
            | Event::CircuitClosed
            | Event::EngineStarted { .. }
            | Event::RecoveryStarted { .. }
            | Event::RecoveryFinished { .. }
            | Event::EngineStopped
            | Event::StreamCut { .. }
            | Event::QuestionAnswered { .. }
            | Event::QuestionAsked { .. }
            | Event::QuestionSettled { .. }
            | Event::QuestionExpired { .. }
            | Event::CapabilitiesFound { .. }
            | Event::PolicyAdopted { .. }
            | Event::TaskPanicked { .. }
            | Event::Unknown { .. } => {}
        }
    }
}

/// What "the same content" means for a repeated idempotency key.
#[must_use]
pub fn content_hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}
