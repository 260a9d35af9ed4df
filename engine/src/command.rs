//! What an application can ask of a session, and what is answered: pure.

use recount_projections::{Message, MessageState, Session, queue::content_hash};
use recount_store::{Cause, Event, MessageId, NewEvent, PermissionAnswer, Rerun, Timestamp};

use crate::limits;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Queue a message. Safe to repeat with the same key and the same text.
    Queue {
        /// The id that it shall have, if it is new.
        message: MessageId,
        /// The application's idempotency key.
        key: Option<String>,
        /// What the agent is to read.
        text: String,
    },
    /// Take a message back that was not sent.
    Cancel {
        /// The message.
        message: MessageId,
    },
    /// End the work on the oldest open message.
    Abort,
    /// Answer a question of the agent's.
    Answer {
        /// The agent's name for the question; `None` is the oldest open one.
        permission: Option<String>,
        /// The answer.
        answer: PermissionAnswer,
    },
    /// Say what becomes of a turn that waits for a person.
    Rerun {
        /// Whether it is run again; else it has failed.
        run: bool,
    },
    /// Close the session. Nothing can be queued any more.
    Close,
}

/// What the asker gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The message that was meant.
    pub message: Option<MessageId>,
    /// Whether this call changed anything: not where a repeated key named a message that is there.
    pub new: bool,
}

/// Why a command was refused. An answer to the asker: nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The session is closed.
    #[error("the session is closed: open another one")]
    Closed,
    /// There is nothing to say.
    #[error("the message is empty: there is nothing to send")]
    Empty,
    /// The message is too long.
    #[error(
        "the message has {bytes} bytes; at most {limit} are taken: put long material into a file that the agent can read"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// Too many messages wait.
    #[error("{depth} messages wait already, which is the limit: wait for some of them")]
    QueueFull {
        /// How many.
        depth: usize,
    },
    /// The key was used for another text.
    #[error("the key {key:?} was used before for another text: a key names one message for ever")]
    KeyConflict {
        /// The key.
        key: String,
    },
    /// No such message.
    #[error("the session has no message {message}")]
    UnknownMessage {
        /// The id.
        message: MessageId,
    },
    /// The message cannot be taken back.
    #[error("the message is {}: only one that was not sent can be cancelled; abort its turn instead", state.name())]
    AlreadySent {
        /// Where it stands.
        state: MessageState,
    },
    /// Nothing is open.
    #[error("nothing is open in this session")]
    NothingOpen,
    /// The agent asks nothing, or not that.
    #[error("the agent asks for no such permission")]
    NoSuchQuestion,
    /// No turn waits for a person.
    #[error("no turn waits for a person's word in this session")]
    NotWaiting,
}

/// What a command leads to.
pub type Decision = Result<(Vec<NewEvent>, Receipt), Rejection>;

/// What follows from a command, given where the session stands.
///
/// # Errors
///
/// A [`Rejection`] where the session's state does not allow it.
pub fn decide(
    state: &Session,
    command: Command,
    queue_depth_max: usize,
    now: Timestamp,
) -> Decision {
    if state.closed {
        return Err(Rejection::Closed);
    }
    match command {
        Command::Queue { message, key, text } => {
            queue(state, message, key, text, queue_depth_max, now)
        }
        Command::Cancel { message } => {
            let known = state
                .queue
                .get(message)
                .ok_or(Rejection::UnknownMessage { message })?;
            match known.state {
                MessageState::Queued => Ok(about(known, Event::MessageCancelled { message }, now)),
                MessageState::Cancelled => Ok(unchanged(known)),
                state => Err(Rejection::AlreadySent { state }),
            }
        }
        Command::Abort => {
            let known = state.queue.head().ok_or(Rejection::NothingOpen)?;
            if known.abort_asked {
                return Ok(unchanged(known));
            }
            Ok(about(
                known,
                Event::TurnAbortAsked { message: known.id },
                now,
            ))
        }
        Command::Answer { permission, answer } => {
            let (known, turn) = state.head().ok_or(Rejection::NothingOpen)?;
            let question = turn
                .into_iter()
                .flat_map(recount_projections::Turn::open_questions)
                .find(|question| permission.as_ref().is_none_or(|id| *id == question.id))
                .ok_or(Rejection::NoSuchQuestion)?;
            let permission = question.id.clone();
            let event = Event::PermissionAnswered {
                message: known.id,
                permission,
                answer,
            };
            Ok(about(known, event, now))
        }
        Command::Rerun { run } => {
            let (known, turn) = state.head().ok_or(Rejection::NothingOpen)?;
            let (MessageState::Waiting, Some(turn)) = (known.state, turn) else {
                return Err(Rejection::NotWaiting);
            };
            Ok(rerun(known, turn.run().number, run, now))
        }
        Command::Close => {
            let event = NewEvent::live(Event::SessionClosed, now).because(Cause::At(state.last));
            Ok((
                vec![event],
                Receipt {
                    message: None,
                    new: true,
                },
            ))
        }
    }
}

fn queue(
    state: &Session,
    message: MessageId,
    key: Option<String>,
    text: String,
    queue_depth_max: usize,
    now: Timestamp,
) -> Decision {
    if text.trim().is_empty() {
        return Err(Rejection::Empty);
    }
    if text.len() > limits::MESSAGE_BYTES_MAX {
        return Err(Rejection::TooLong {
            bytes: text.len(),
            limit: limits::MESSAGE_BYTES_MAX,
        });
    }
    if let Some(key) = &key
        && let Some(known) = state.queue.by_key(key)
    {
        return if known.content == content_hash(&text) {
            Ok(unchanged(known))
        } else {
            Err(Rejection::KeyConflict { key: key.clone() })
        };
    }
    let depth = state.queue.open().count();
    if depth >= queue_depth_max {
        return Err(Rejection::QueueFull { depth });
    }
    let event = NewEvent::live(Event::MessageQueued { message, key, text }, now);
    Ok((
        vec![event],
        Receipt {
            message: Some(message),
            new: true,
        },
    ))
}

fn about(known: &Message, event: Event, now: Timestamp) -> (Vec<NewEvent>, Receipt) {
    let event = NewEvent::live(event, now).because(Cause::At(known.moved));
    (
        vec![event],
        Receipt {
            message: Some(known.id),
            new: true,
        },
    )
}

fn unchanged(known: &Message) -> (Vec<NewEvent>, Receipt) {
    (
        Vec::new(),
        Receipt {
            message: Some(known.id),
            new: false,
        },
    )
}

fn rerun(known: &Message, run: u32, again: bool, now: Timestamp) -> (Vec<NewEvent>, Receipt) {
    let message = known.id;
    let rerun = if again { Rerun::Run } else { Rerun::GiveUp };
    let reason = "a person's word".to_owned();
    let (mut events, receipt) = about(
        known,
        Event::RerunDecided {
            message,
            run,
            rerun,
            reason,
        },
        now,
    );
    if !again {
        let reason = "the agent died in it, and a person gave it up".to_owned();
        let failed = Event::TurnFailed {
            message,
            run,
            reason,
        };
        events.push(NewEvent::live(failed, now).because(Cause::Sibling(0)));
    }
    (events, receipt)
}
