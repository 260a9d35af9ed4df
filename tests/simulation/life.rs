//! One life of the engine, from its start to its death, and the moment of that.
//!
//! Disk and network count what the engine does to them with one counter. When it gets to the number at which
//! the engine is to die, it is dead at once: that operation does not happen, and nothing after it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Done,
    /// The engine dies in the middle of it.
    Last,
    /// There is nobody to do it.
    Never,
}

/// Clones are the same life.
#[derive(Debug, Clone)]
pub(crate) struct Life(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    operations: AtomicU64,
    /// The operation at which it ends.
    last: u64,
    dead: AtomicBool,
    died: Notify,
}

impl Life {
    /// A life that ends at its operation of this number, if it gets so far.
    pub(crate) fn until(last: u64) -> Self {
        Self(Arc::new(Inner {
            operations: AtomicU64::new(0),
            last,
            dead: AtomicBool::new(false),
            died: Notify::new(),
        }))
    }

    /// Counts an operation, and says what becomes of it.
    pub(crate) fn operate(&self) -> Operation {
        if self.is_dead() {
            return Operation::Never;
        }
        if self.0.operations.fetch_add(1, Ordering::Relaxed) + 1 < self.0.last {
            return Operation::Done;
        }
        self.kill();
        Operation::Last
    }

    pub(crate) fn kill(&self) {
        self.0.dead.store(true, Ordering::Relaxed);
        self.0.died.notify_one();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Resolves when it is dead. One task may wait.
    pub(crate) async fn died(&self) {
        self.0.died.notified().await;
    }
}
