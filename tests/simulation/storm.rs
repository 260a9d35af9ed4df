//! How long things go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// How long servers die. Clones are the same storm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Storm(Arc<(AtomicBool, Notify)>);

impl Storm {
    pub(crate) fn end(&self) {
        self.0.0.store(true, Ordering::Relaxed);
        self.0.1.notify_waiters();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Resolves at its end, where that is still to come.
    pub(crate) async fn over(&self) {
        self.0.1.notified().await;
    }
}
