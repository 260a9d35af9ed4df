//! What time it is.

use std::time::SystemTime;

use recount_store::Timestamp;

/// Tells the time to the shell; machines are told it. Waiting is tokio's.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    _private: (),
}

impl Clock {
    /// The clock of this computer.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_system(SystemTime::now())
    }
}
