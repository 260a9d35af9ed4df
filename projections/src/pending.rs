//! What is open, over the whole log: what a restart needs to find without reading every session.

use std::collections::{BTreeMap, BTreeSet};

use recount_store::{ConnectionId, Event, MessageId, Position, Recorded, SessionId, StreamId};
use serde::{Deserialize, Serialize};

use crate::Projection;

/// The sessions with open messages, and the connections whose server may still run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The open messages of each session that has any.
    pub sessions: BTreeMap<SessionId, BTreeSet<MessageId>>,
    /// The connections for which a server was started and not seen to end.
    pub servers: BTreeSet<ConnectionId>,
    /// The last event that is in here.
    pub position: Position,
}

impl Pending {
    fn settle(&mut self, session: SessionId, message: MessageId) {
        if let Some(open) = self.sessions.get_mut(&session) {
            open.remove(&message);
            if open.is_empty() {
                self.sessions.remove(&session);
            }
        }
    }
}

impl Projection for Pending {
    const VERSION: u32 = 1;
    const NAME: &'static str = "pending";

    fn apply(&mut self, recorded: &Recorded) {
        self.position = recorded.position;
        match (&recorded.event, recorded.stream) {
            (Event::MessageQueued { message, .. }, StreamId::Session(session)) => {
                self.sessions.entry(session).or_default().insert(*message);
            }
            (
                Event::MessageCancelled { message }
                | Event::MessageDeadLettered { message, .. }
                | Event::TurnCompleted { message, .. }
                | Event::TurnFailed { message, .. }
                | Event::TurnAborted { message, .. },
                StreamId::Session(session),
            ) => self.settle(session, *message),
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
