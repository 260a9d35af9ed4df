//! Frames that wait for the next entry, in memory and bounded.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::{ConnectionId, FrameNumber, Timestamp};
use crate::limits;

use super::Run;
use super::run::{Content, Item};

/// Frames that wait to be written.
#[derive(Debug)]
pub(crate) struct Gathering {
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    /// Invariant: its items have at most [`limits::FRAMES_WAITING_BYTES_MAX`] bytes, until it is taken.
    run: Run,
    /// What was skipped since the last frame of its connection that was kept: since when, and how many.
    skipped: BTreeMap<ConnectionId, (Timestamp, u32)>,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Its number; `None` where it was skipped.
    pub(crate) number: Option<FrameNumber>,
    /// Whether with this frame so much waits that it should be written. Said once until it is taken.
    pub(crate) is_much: bool,
}

impl Gathering {
    /// Nothing waits; the next frame gets this number.
    pub(crate) fn starting(next: FrameNumber) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                run: Run::starting(next),
                skipped: BTreeMap::new(),
            }),
        }
    }

    /// Keeps a frame until it is written, unless too much waits already: then it is counted as skipped.
    pub(crate) fn keep(&self, connection: ConnectionId, at: Timestamp, bytes: &[u8]) -> Kept {
        let mut waiting = self.lock();
        let item = Item {
            connection,
            at,
            content: Content::Received(bytes),
        };
        let hole = waiting.hole(connection);
        let before = waiting.run.items().len();
        let length = hole.map_or(0, |hole| hole.encoded_len()) + item.encoded_len();
        if before + length > limits::FRAMES_WAITING_BYTES_MAX {
            waiting.skip(connection, at);
            return Kept {
                number: None,
                is_much: false,
            };
        }
        if let Some(hole) = hole {
            waiting.skipped.remove(&connection);
            waiting.run.push(hole);
        }
        let number = waiting.run.push(item);
        let much = limits::FRAMES_COMMIT_BYTES;
        Kept {
            number: Some(number),
            is_much: before < much && before + length >= much,
        }
    }

    /// Counts a frame that is not to be kept.
    pub(crate) fn skip(&self, connection: ConnectionId, at: Timestamp) {
        self.lock().skip(connection, at);
    }

    /// What waits, for the entry that is written next; `None` where nothing does.
    ///
    /// Taken after the appends of that entry: what they tell of is in it, or was in an earlier one.
    pub(crate) fn take(&self) -> Option<Run> {
        let mut waiting = self.lock();
        while let Some((connection, skipped)) = waiting.skipped.pop_first() {
            let hole = Item::hole(connection, skipped);
            waiting.run.push(hole);
        }
        let next = Run::starting(waiting.run.next());
        let run = std::mem::replace(&mut waiting.run, next);
        (!run.is_empty()).then_some(run)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing between two changes of it can panic but running out of memory.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn skip(&mut self, connection: ConnectionId, at: Timestamp) {
        let (_, frames) = self.skipped.entry(connection).or_insert((at, 0));
        *frames = frames.saturating_add(1);
    }

    /// What stands before the next frame of this connection.
    fn hole(&self, connection: ConnectionId) -> Option<Item<'static>> {
        let skipped = self.skipped.get(&connection)?;
        Some(Item::hole(connection, *skipped))
    }
}

impl Item<'static> {
    fn hole(connection: ConnectionId, (at, frames): (Timestamp, u32)) -> Self {
        Self {
            connection,
            at,
            content: Content::Skipped(frames),
        }
    }
}
