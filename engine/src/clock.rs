//! What time it is.

use std::time::SystemTime;

use futures_util::FutureExt;
use recount_store::Timestamp;
use tokio::time::{Instant, timeout_at};

/// Tells the time to the shell; machines are told it. Waiting is tokio's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// A moment, and what tokio's clock said then; `None` asks the system.
    since: Option<(Timestamp, Instant)>,
}

impl Clock {
    /// The clock of this computer.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that reads `now` at this moment and goes on with tokio's: where that is paused, so is this one.
    ///
    /// For tests in virtual time, in which what is waited for and what is read have to agree.
    #[must_use]
    pub fn starting_at(now: Timestamp) -> Self {
        Self {
            since: Some((now, Instant::now())),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.since {
            Some((moment, instant)) => moment.plus(instant.elapsed()),
            None => Timestamp::from_system(SystemTime::now()),
        }
    }
}

/// What `future` gives; `None` where the deadline comes first, or has gone by and it gives nothing at once.
pub(crate) async fn until<F: Future>(deadline: Instant, future: F) -> Option<F::Output> {
    // A timer lets up to a millisecond go by for what is due already.
    if deadline <= Instant::now() {
        return future.now_or_never();
    }
    timeout_at(deadline, future).await.ok()
}
