//! A value that many wait for: as tokio's `watch`, but those who wait are woken in the order in which they wait.
//!
//! Tokio's own wakes them in a random order. Which session begins first when a connection stands would then be
//! chance that no seed controls, and no run of a simulation could be had again.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A value, and who may change it and who is told.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

#[derive(Debug)]
struct Shared<T> {
    kept: Mutex<Kept<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    /// Counts changes.
    version: u64,
    /// Whether the sender is gone.
    closed: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Kept<T>> {
        // No change is made in two steps.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes the value. When it is dropped, nobody will any more.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    /// A value that nobody looks at yet.
    pub(crate) fn new(value: T) -> Self {
        let kept = Mutex::new(Kept {
            value,
            version: 0,
            closed: false,
        });
        let changed = Notify::new();
        Self {
            shared: Arc::new(Shared { kept, changed }),
        }
    }

    /// Somebody more to look, to whom the value as it is now is not new.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver {
            shared: Arc::clone(&self.shared),
            seen: self.shared.lock().version,
        }
    }

    /// Changes the value where `change` says that it did.
    pub(crate) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut kept = self.shared.lock();
        if change(&mut kept.value) {
            kept.version += 1;
            drop(kept);
            self.shared.changed.notify_waiters();
        }
    }

    /// Changes the value.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|kept| {
            change(kept);
            true
        });
    }

    /// Puts another value in its place.
    pub(crate) fn send_replace(&self, value: T) {
        self.send_modify(|kept| *kept = value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_waiters();
    }
}

/// The sender is gone: the value stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// Looks at the value, and waits for it to change.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version that was looked at last.
    seen: u64,
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            seen: self.seen,
        }
    }
}

/// The value, which cannot change as long as this is held.
pub struct Ref<'a, T>(MutexGuard<'a, Kept<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Receiver<T> {
    /// The value now.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.lock())
    }

    /// The value now; [`Receiver::changed`] waits for another.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let kept = self.shared.lock();
        self.seen = kept.version;
        Ref(kept)
    }

    /// Resolves once the value is another than the one that was looked at. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Closed`] where it never will be.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Asked for before the look, so that a change between the two is not missed.
            let changed = self.shared.changed.notified();
            {
                let kept = self.shared.lock();
                if kept.version != self.seen {
                    self.seen = kept.version;
                    return Ok(());
                }
                if kept.closed {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Resolves once `wanted` says yes to the value, and gives it.
    ///
    /// # Errors
    ///
    /// [`Closed`] where it never will.
    pub async fn wait_for(
        &mut self,
        mut wanted: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Closed> {
        loop {
            if wanted(&self.borrow_and_update()) {
                return Ok(self.borrow());
            }
            self.changed().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_wait() {
        let (sender, receiver) = channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                let (mut receiver, woken) = (receiver.clone(), Arc::clone(&woken));
                tokio::spawn(async move {
                    receiver.changed().await.expect("a change");
                    woken.lock().expect("a list").push(n);
                    receiver.changed().await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send_replace(1);
        while woken.lock().expect("a list").len() < 50 {
            tokio::task::yield_now().await;
        }
        assert!(woken.lock().expect("a list").is_sorted());
        drop(sender);
        for task in tasks {
            assert_eq!(task.await.expect("it ends"), Err(Closed));
        }
    }

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_missed_and_none_is_seen_twice() {
        let (sender, mut receiver) = channel("a");
        sender.send_replace("b");
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow(), "b");
        sender.send_if_modified(|_| false);
        sender.send_replace("c");
        assert_eq!(*receiver.borrow_and_update(), "c");
        drop(sender);
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(
            receiver.wait_for(|value| *value == "c").await.as_deref(),
            Ok(&"c")
        );
        assert!(receiver.wait_for(|value| *value == "d").await.is_err());
    }
}
