//! How many homes there may be at once, since each runs a server: 300 to 800 MB, and busy as it starts.

use std::sync::{Condvar, Mutex, PoisonError};

const AT_ONCE: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// The right to run a server; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Slot(());

impl Slot {
    /// Waits for one. A test that holds one must not wait for another.
    pub(super) fn take() -> Self {
        let taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = GIVEN_BACK
            .wait_while(taken, |taken| *taken >= AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        GIVEN_BACK.notify_one();
    }
}
