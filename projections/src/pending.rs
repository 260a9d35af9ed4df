//! What is open, over the whole log: what a restart needs to find without reading every session.

use std::collections::{BTreeMap, BTreeSet};

use recount_store::{ConnectionId, Event, MessageId, Position, Recorded, SessionId, StreamId};
use serde::{Deserialize, Serialize};

use crate::Projection;

/// The sessions with open messages and with dead letters, and the connections whose server may still run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The open messages of each session that has any.
    pub sessions: BTreeMap<SessionId, BTreeSet<MessageId>>,
    /// The messages of each session that were given up and not queued again. Not open: nothing is done about them
    /// before somebody asks for it.
    pub dead_letters: BTreeMap<SessionId, BTreeSet<MessageId>>,
    /// The connections for which a server was started and not seen to end.
    pub servers: BTreeSet<ConnectionId>,
    /// The last event that is in here.
    pub position: Position,
}

impl Pending {
    fn give_up(&mut self, session: SessionId, message: MessageId) {
        if take(&mut self.sessions, session, message) {
            let dead_letters = self.dead_letters.entry(session).or_default();
            dead_letters.insert(message);
        }
    }
}

/// Takes a message out, and says whether it was there; a session without any is not kept.
fn take(
    messages: &mut BTreeMap<SessionId, BTreeSet<MessageId>>,
    session: SessionId,
    message: MessageId,
) -> bool {
    let Some(known) = messages.get_mut(&session) else {
        return false;
    };
    let was_there = known.remove(&message);
    if known.is_empty() {
        messages.remove(&session);
    }
    was_there
}

impl Projection for Pending {
    const VERSION: u32 = 2;
    const NAME: &'static str = "pending";

    fn apply(&mut self, recorded: &Recorded) {
        self.position = recorded.position;
        match (&recorded.event, recorded.stream) {
            (Event::MessageQueued { message, .. }, StreamId::Session(session)) => {
                self.sessions.entry(session).or_default().insert(*message);
            }
            (Event::MessageDeadLettered { message, .. }, StreamId::Session(session)) => {
                self.give_up(session, *message);
            }
            (Event::MessageRequeued { message, .. }, StreamId::Session(session)) => {
                take(&mut self.dead_letters, session, *message);
            }
            // A session that lost its beginning cannot go on, and so neither can what is in it.
            (Event::StreamCut { .. }, StreamId::Session(session)) => {
                self.dead_letters.remove(&session);
            }
            (
                Event::MessageCancelled { message }
                | Event::TurnCompleted { message, .. }
                | Event::TurnFailed { message, .. }
                | Event::TurnAborted { message, .. },
                StreamId::Session(session),
            ) => {
                take(&mut self.sessions, session, *message);
            }
            (Event::ServerStartDecided { .. }, StreamId::Connection(connection)) => {
                self.servers.insert(connection);
            }
            (Event::ServerExited { .. }, StreamId::Connection(connection)) => {
                self.servers.remove(&connection);
            }
            // Whatever else happened, it opened nothing and settled nothing.
            _ => {}
        }
    }
}
