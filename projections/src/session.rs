//! Where one session stands: what the engine decides by.

use recount_store::{
    ConnectionId, Event, MessageId, Position, Recorded, Resolution, Seq, SessionId, StreamId,
    Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::Projection;
use crate::queue::{Message, MessageState, Queue};
use crate::turn::{Turn, TurnState};

/// What a session does, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing waits and nothing runs.
    Idle,
    /// A message waits or is on its way.
    Queued,
    /// The agent works.
    Busy,
    /// A person is asked for something: a permission, or whether to run a turn again.
    Waiting,
    /// It was closed.
    Closed,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Queued => "queued",
            Self::Busy => "busy",
            Self::Waiting => "waiting",
            Self::Closed => "closed",
        }
    }
}

/// How a session was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The connection that leads to its agent.
    pub connection: ConnectionId,
    /// The agent's name.
    pub agent: String,
    /// The folder that the agent works in: absolute.
    pub directory: String,
    /// The model, as `PROVIDER/MODEL`.
    pub model: Option<String>,
    /// What the conversation is called.
    pub title: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// Where a session began that goes on from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The other session.
    pub from: SessionId,
    /// The last event of it that belongs to this one, too.
    pub at: Seq,
    /// What the agent is to copy, or has copied; none where it keeps nothing of it, would not, or lost the copy.
    pub origin: Option<Origin>,
    /// Why the agent would not copy it.
    pub refused: Option<String>,
    /// What was said there, for an agent that has no copy; none where nothing was.
    pub context: Option<String>,
    /// The message that the context goes along with, once the agent has a session without it.
    pub added_to: Option<MessageId>,
    /// Whether that message arrived.
    pub arrived: bool,
}

/// What an agent keeps of a conversation: all of a session of its own up to and including its answers to a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The agent's name for its session.
    pub agent_session: String,
    /// The identity that it knows the last message by.
    pub through: String,
}

/// Where one session stands: its queue and the turn of the message at the head of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// How it was opened; none before its first event.
    pub opening: Option<Opening>,
    /// Where it began, if it goes on from another one.
    pub fork: Option<Fork>,
    /// The agent's name for its own session, once there is one.
    pub agent_session: Option<String>,
    /// Where the agent was asked for a session of its own, while no answer is recorded.
    pub bind_requested: Option<Position>,
    /// Whether it was closed. One whose front was cut is, too: what lost its beginning cannot go on.
    pub closed: bool,
    /// Its messages.
    pub queue: Queue,
    /// The turn of the oldest open message, once the agent was asked to begin or began by itself; the last one's
    /// until then.
    pub turn: Option<Turn>,
    /// Questions that turns left open when they ended: an agent may go on listing them.
    pub stale_questions: Vec<String>,
    /// Kinds of frames that were recorded as unrecognised: one of each is enough.
    pub unrecognised: Vec<String>,
    /// The number of its last event: how many it has.
    pub seq: Seq,
    /// The position of its first event.
    pub first: Position,
    /// The position of its last event.
    pub last: Position,
    /// When its last event happened.
    pub last_at: Timestamp,
}

impl Session {
    /// What it does, in one word.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.closed {
            return Status::Closed;
        }
        match self.queue.head().map(|message| message.state) {
            None => Status::Idle,
            Some(MessageState::Waiting) => Status::Waiting,
            Some(_) if self.questions_open() => Status::Waiting,
            Some(
                MessageState::Accepted
                | MessageState::Requested
                | MessageState::Running
                | MessageState::Interrupted,
            ) => Status::Busy,
            Some(_) => Status::Queued,
        }
    }

    /// Whether the agent waits for an answer of a person.
    #[must_use]
    pub fn questions_open(&self) -> bool {
        self.turn.as_ref().is_some_and(|turn| {
            matches!(turn.state, TurnState::Requested | TurnState::Running)
                && turn.open_questions().next().is_some()
        })
    }

    /// The turn of this message, if it is the one at hand.
    #[must_use]
    pub fn turn_of(&self, message: MessageId) -> Option<&Turn> {
        self.turn.as_ref().filter(|turn| turn.message == message)
    }

    /// The oldest open message with the turn that it has, if it has one yet.
    #[must_use]
    pub fn head(&self) -> Option<(&Message, Option<&Turn>)> {
        let message = self.queue.head()?;
        Some((message, self.turn_of(message.id)))
    }
}

impl Session {
    /// What the agent is to copy before anything is sent to it.
    #[must_use]
    pub fn to_copy(&self) -> Option<&Origin> {
        let origin = self.fork.as_ref()?.origin.as_ref()?;
        self.agent_session.is_none().then_some(origin)
    }

    /// What the agent reads before the text of this message.
    #[must_use]
    pub fn context_of(&self, message: MessageId) -> Option<&str> {
        let fork = self.fork.as_ref()?;
        let added = fork.added_to == Some(message);
        fork.context.as_deref().filter(|_| added)
    }

    /// Whether what was said before still has to go along with this message.
    #[must_use]
    pub fn lacks_context(&self, message: MessageId) -> bool {
        self.fork.as_ref().is_some_and(|fork| {
            let has = fork.arrived || fork.added_to == Some(message);
            fork.origin.is_none() && fork.context.is_some() && !has
        })
    }

    fn arrived(&mut self, message: MessageId) {
        if let Some(fork) = &mut self.fork {
            fork.arrived |= fork.added_to == Some(message);
        }
    }

    /// Whether the run of the turn before may have taken this message up, and nobody has seen it.
    fn may_be_taken_up(&self, message: MessageId) -> bool {
        let sent = |message: &Message| {
            let state = message.state;
            let proved = matches!(state, MessageState::Queued | MessageState::Refused);
            message.steered && !proved && !state.is_settled()
        };
        self.turn_of(message).is_none() && self.queue.get(message).is_some_and(sent)
    }
}

impl Projection for Session {
    const VERSION: u32 = 7;
    const NAME: &'static str = "session";

    fn apply(&mut self, recorded: &Recorded) {
        if !matches!(recorded.stream, StreamId::Session(_)) {
            return;
        }
        if self.first == Position::default() {
            self.first = recorded.position;
        }
        self.seq = recorded.seq;
        self.last = recorded.position;
        self.last_at = recorded.at;
        match &recorded.event {
            Event::SessionOpened {
                connection,
                agent,
                directory,
                model,
                title,
            } => {
                self.opening = Some(Opening {
                    connection: *connection,
                    agent: agent.clone(),
                    directory: directory.clone(),
                    model: model.clone(),
                    title: title.clone(),
                    at: recorded.at,
                });
            }
            Event::SessionForked {
                from,
                at,
                agent_session,
                through,
                context,
            } => {
                let origin = agent_session.clone().zip(through.clone());
                self.fork = Some(Fork {
                    from: *from,
                    at: *at,
                    origin: origin.map(|(agent_session, through)| Origin {
                        agent_session,
                        through,
                    }),
                    refused: None,
                    context: context.clone(),
                    added_to: None,
                    arrived: false,
                });
            }
            Event::SessionClosed | Event::StreamCut { .. } => self.closed = true,
            Event::AgentSessionRequested { .. } => self.bind_requested = Some(recorded.position),
            Event::AgentSessionBound { agent_session }
            | Event::AgentSessionForked { agent_session } => {
                self.agent_session = Some(agent_session.clone());
                self.bind_requested = None;
            }
            Event::AgentSessionLost { .. } => {
                self.agent_session = None;
                if let Some(fork) = &mut self.fork {
                    // A copy that is made now would be newer than messages that have their identity already.
                    fork.origin = None;
                    fork.added_to = None;
                    fork.arrived = false;
                }
            }
            Event::AgentForkRefused { reason } => {
                self.bind_requested = None;
                if let Some(fork) = &mut self.fork {
                    fork.origin = None;
                    fork.refused = Some(reason.clone());
                }
            }
            Event::ContextAdded { message } => {
                if let Some(fork) = &mut self.fork {
                    fork.added_to = Some(*message);
                }
            }
            Event::DeliveryAccepted { message, .. }
            | Event::DeliveryResolved {
                message,
                resolution: Resolution::Stored,
                ..
            } => self.arrived(*message),
            Event::FrameUnrecognised { kind, .. } => self.unrecognised.push(kind.clone()),
            Event::TurnRequested { message, .. } | Event::TurnStarted { message, .. }
                if self.turn_of(*message).is_none() =>
            {
                let ended = self.turn.replace(Turn::begin(*message, recorded));
                let questions = ended.into_iter().flat_map(|turn| turn.questions);
                let open = questions.filter(|question| !question.settled);
                self.stale_questions
                    .extend(open.map(|question| question.id));
                self.arrived(*message);
            }
            Event::TurnFailed { message, .. }
            | Event::TurnAborted { message, .. }
            | Event::MessageDeadLettered { message, .. }
                if self.may_be_taken_up(*message) =>
            {
                if let Some(turn) = &mut self.turn {
                    turn.ended_unseen = true;
                }
            }
            // Everything else moves the queue or the turn, below, or nothing.
            _ => {}
        }
        self.queue.apply(recorded);
        if let Some(turn) = &mut self.turn {
            turn.apply(recorded);
        }
    }
}
