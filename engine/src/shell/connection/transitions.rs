//! Whoever wants to know what happens to connections, as it is recorded.

use std::sync::Arc;

use recount_store::Recorded;
use tokio::sync::broadcast;

use crate::error::Error;
use crate::limits;

/// All who listen. None of them can make a connection wait: who is slow misses some, and is told so.
#[derive(Debug, Clone)]
pub(in crate::shell) struct Audience(broadcast::Sender<Arc<Recorded>>);

impl Audience {
    pub(in crate::shell) fn new() -> Self {
        Self(broadcast::Sender::new(limits::TRANSITIONS_LAG_MAX))
    }

    pub(in crate::shell) fn listen(&self) -> Transitions {
        Transitions(self.0.subscribe())
    }

    /// Tells what was recorded.
    pub(in crate::shell) fn tell(&self, events: Vec<Recorded>) {
        if self.0.receiver_count() == 0 {
            return;
        }
        for recorded in events {
            // The last of them may have left meanwhile.
            let _ = self.0.send(Arc::new(recorded));
        }
    }
}

/// The events of all connections, each as soon as it is durable.
#[derive(Debug)]
pub struct Transitions(broadcast::Receiver<Arc<Recorded>>);

impl Transitions {
    /// The next event; its stream says of which connection. `None` once the engine has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Lagged`] once, with the count, where this subscriber was too slow and missed some; the log has
    /// them.
    pub async fn next(&mut self) -> Result<Option<Arc<Recorded>>, Error> {
        match self.0.recv().await {
            Ok(recorded) => Ok(Some(recorded)),
            Err(broadcast::error::RecvError::Closed) => Ok(None),
            Err(broadcast::error::RecvError::Lagged(missed)) => Err(Error::Lagged { missed }),
        }
    }
}
