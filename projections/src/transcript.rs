//! What was said and done in one session, whole.

use recount_store::{Event, MessageId, Recorded};
use serde::{Deserialize, Serialize};

use crate::Projection;
use crate::turn::Turn;

/// All messages and turns of a session, oldest first. As long as the conversation: for looking, not for deciding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transcript {
    /// What the application said: message and text, in the order of queueing.
    pub messages: Vec<(MessageId, String)>,
    /// What the agent did about it, in the order in which it was asked to begin.
    pub turns: Vec<Turn>,
}

impl Transcript {
    /// The turn of this message.
    #[must_use]
    pub fn turn_of(&self, message: MessageId) -> Option<&Turn> {
        self.turns.iter().find(|turn| turn.message == message)
    }
}

impl Projection for Transcript {
    const VERSION: u32 = 3;
    const NAME: &'static str = "transcript";

    fn apply(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::MessageQueued { message, text, .. } => {
                self.messages.push((*message, text.clone()));
            }
            Event::TurnRequested { message, .. } | Event::TurnStarted { message, .. }
                if self.turn_of(*message).is_none() =>
            {
                self.turns.push(Turn::begin(*message, recorded));
            }
            // Everything else moves a turn, below, or nothing.
            _ => {}
        }
        // One turn at a time, and it is the last one.
        if let Some(turn) = self.turns.last_mut() {
            turn.apply(recorded);
        }
    }
}
