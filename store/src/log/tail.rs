//! Following a log: what is there, then what comes.
//!
//! A tail knows one thing, the position that it has not looked at yet, and reads the log from there
//! whenever the log has moved. There is no second way by which events come, so the seam between what
//! was there and what comes can neither lose nor repeat any.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::Position;
use crate::limits;
use crate::log::follow::Last;
use crate::log::reader::Shared;
use crate::log::recent::View;
use crate::log::scan::Scan;
use crate::log::{Head, Select};

/// Events as they come.
///
/// Each tail reads for itself: one that is slow holds back neither the writer nor other tails.
pub struct Tail {
    shared: Arc<Shared>,
    scan: Scan,
    /// Moves with the log, where this process writes it.
    durable: Option<watch::Receiver<Head>>,
    over: bool,
}

impl Tail {
    pub(crate) fn new(shared: Arc<Shared>, select: Select, from: Position) -> Self {
        Self {
            scan: Scan::new(select, from),
            durable: shared.durable.clone(),
            shared,
            over: false,
        }
    }

    /// The next event, waiting for it; `None` when the log was closed. Dropping the future loses nothing.
    ///
    /// A log that this process writes wakes its tails. One that another process writes is asked every few
    /// milliseconds, and never ends: its writer may come back. After an error there is nothing more.
    ///
    /// Reading happens on the calling thread: tens of microseconds for each block that is not in memory.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Corrupt`], as for reading.
    ///
    /// # Panics
    ///
    /// On a log that another process writes, outside of a tokio runtime with its timer.
    pub async fn next(&mut self) -> Option<Result<Recorded>> {
        loop {
            if let Some(found) = self.try_next() {
                return Some(found);
            }
            if self.over {
                return None;
            }
            // Nothing is held across this wait but the position, so it can be dropped.
            match &mut self.durable {
                Some(durable) => {
                    let next = self.scan.next_position();
                    // The writer is gone when the other end is; what it made durable was seen above.
                    if durable
                        .wait_for(|durable| durable.position >= next)
                        .await
                        .is_err()
                    {
                        self.over = true;
                        return None;
                    }
                }
                None => tokio::time::sleep(limits::FOLLOW_INTERVAL).await,
            }
        }
    }

    /// How many events of the log it has not looked at: how far it lags behind.
    ///
    /// A tail misses nothing, however slow it is; what it has not taken is in the log. One that is to show
    /// the present can see here that it shows the past, and begin another at the end instead.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Corrupt`], where another process writes the log.
    pub fn behind(&self) -> Result<u64> {
        let end = match &self.durable {
            Some(durable) => durable.borrow().position,
            None => self.shared.look(View::tip)?.position,
        };
        Ok((end.0 + 1).saturating_sub(self.scan.next_position().0) + self.scan.waiting())
    }

    /// The next event if there is one now.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Corrupt`], as for reading.
    pub fn try_next(&mut self) -> Option<Result<Recorded>> {
        if self.over {
            return None;
        }
        match self.scan.next(&self.shared, Last::Leave) {
            // The log was closed: this is the end, not an error.
            Some(Err(Error::Closed)) => {
                self.over = true;
                None
            }
            found => {
                self.over = matches!(found, Some(Err(_)));
                found
            }
        }
    }
}
