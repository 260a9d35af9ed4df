//! Messages that were given up, as people are shown them: what the state knows, and the text that it forgot.

use recount_projections::{GivenUp, Message, Session, SharedSession};
use recount_store::{Event, LogReader, MessageId, Position, SessionId, Timestamp};

use crate::error::Error;

/// A message that was given up and not queued again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The session that it is in.
    pub session: SessionId,
    /// The message.
    pub message: MessageId,
    /// The application's idempotency key.
    pub key: Option<String>,
    /// What the agent was to read; none where it was cut off the log since.
    pub text: Option<String>,
    /// How many attempts to deliver it were begun.
    pub attempts: u32,
    /// Why it was given up, for a person.
    pub reason: String,
    /// When.
    pub at: Timestamp,
    /// Whether the agent may hold it all the same: queued again, it may be answered twice.
    pub may_have_arrived: bool,
}

impl DeadLetter {
    /// The dead letters of a session that stands so, oldest first: for whoever has a log to read and no engine.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where their texts cannot be read.
    pub fn of(log: &LogReader, session: SessionId, state: &Session) -> Result<Vec<Self>, Error> {
        let read = |found| Self::read(log, session, found);
        copied(state).into_iter().map(read).collect()
    }

    /// A dead letter of this session, with its text from the log.
    fn read(
        log: &LogReader,
        session: SessionId,
        (message, given_up): (Message, GivenUp),
    ) -> Result<Self, Error> {
        Ok(Self {
            session,
            message: message.id,
            text: text_at(log, message.queued)?,
            key: message.key,
            attempts: message.attempts,
            reason: message.reason.unwrap_or_default(),
            at: given_up.at,
            may_have_arrived: given_up.unknown,
        })
    }
}

/// The dead letters of one session, oldest first.
pub(super) fn of(
    log: &LogReader,
    session: SessionId,
    state: &SharedSession,
) -> Result<Vec<DeadLetter>, Error> {
    // Copied first: texts are read from the log, and appends wait for whoever looks at the state.
    let read = |found| DeadLetter::read(log, session, found);
    state.with(copied).into_iter().map(read).collect()
}

fn copied(state: &Session) -> Vec<(Message, GivenUp)> {
    let dead_letters = state.queue.dead_letters();
    dead_letters
        .map(|(message, given_up)| (message.clone(), given_up))
        .collect()
}

/// The text of the message that the event at this position queued; none where that was cut off.
///
/// # Errors
///
/// [`Error::Log`] where the log cannot be read.
pub fn text_at(log: &LogReader, position: Position) -> Result<Option<String>, Error> {
    let Some(recorded) = log.read_all(position).next().transpose()? else {
        return Ok(None);
    };
    Ok(match recorded.event {
        Event::MessageQueued { text, .. } if recorded.position == position => Some(text),
        _ => None,
    })
}
