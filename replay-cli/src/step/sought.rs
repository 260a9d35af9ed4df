//! What one may look for in a timeline.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use recount_store::{ConnectionState, Event, Recorded, Rerun};

use crate::find::went_wrong;
use crate::render::event;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Towards the end.
    On,
    /// Towards the beginning.
    Back,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sought {
    /// Something is to be tried again.
    Retry,
    /// Something went wrong.
    Error,
    /// The link to the agent fell.
    Disconnect,
    /// The agent asks for permission, or has a question.
    Permission,
    /// The agent is asked to begin a turn.
    Turn,
    /// These words, in small letters, are in its line.
    Words(String),
}

impl Sought {
    /// The words for it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Retry => "retry".to_owned(),
            Self::Error => "error".to_owned(),
            Self::Disconnect => "disconnect".to_owned(),
            Self::Permission => "permission".to_owned(),
            Self::Turn => "turn".to_owned(),
            Self::Words(words) => format!("{words:?}"),
        }
    }
}

/// Looks at events, many of them.
#[derive(Debug)]
pub(crate) struct Look {
    sought: Sought,
    /// Names of types, in small letters: it takes longer to make one than to look at an event.
    names: HashMap<Discriminant<Event>, String>,
}

impl Look {
    /// Looks for this.
    pub(crate) fn for_(sought: Sought) -> Self {
        Self {
            sought,
            names: HashMap::new(),
        }
    }

    /// What is looked for.
    pub(crate) const fn sought(&self) -> &Sought {
        &self.sought
    }

    /// Whether this event is one of those.
    pub(crate) fn finds(&mut self, recorded: &Recorded) -> bool {
        let event = &recorded.event;
        match &self.sought {
            Sought::Retry => matches!(
                event,
                Event::RetryScheduled { .. }
                    | Event::ReconnectScheduled { .. }
                    | Event::AgentRetried { .. }
                    | Event::RerunDecided {
                        rerun: Rerun::Run,
                        ..
                    }
            ),
            Sought::Error => went_wrong(event),
            Sought::Disconnect => matches!(
                event,
                Event::StreamLost { .. }
                    | Event::ConnectionChanged {
                        from: ConnectionState::Connected,
                        ..
                    }
            ),
            Sought::Permission => matches!(
                event,
                Event::PermissionAsked { .. } | Event::QuestionAsked { .. }
            ),
            Sought::Turn => matches!(event, Event::TurnRequested { .. }),
            Sought::Words(words) => {
                let name = || event::name(event).to_lowercase();
                let in_name = if let Event::Unknown { .. } = event {
                    name().contains(words)
                } else {
                    let names = self.names.entry(discriminant(event));
                    names.or_insert_with(name).contains(words)
                };
                in_name || event::summary(event).to_lowercase().contains(words)
            }
        }
    }
}
