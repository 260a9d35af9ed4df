//! What happened in a world, in order: for whoever has to understand a run that failed.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use recount_store::Timestamp;

use tokio::time::Instant;

/// Clones write the same trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    began: Instant,
    epoch: Timestamp,
    /// Whether anybody will read it: most worlds are told of by their seed alone.
    read: bool,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// When, in milliseconds from the beginning; who; what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line(u128, &'static str, String);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(millis, who, what) = self;
        let (seconds, rest) = (millis / 1000, millis % 1000);
        write!(f, "{seconds:>6}.{rest:03} {who:<8} {what}")
    }
}

impl Trace {
    /// A trace whose world begins now, at `epoch` by its own clock.
    pub(crate) fn new(epoch: Timestamp, read: bool) -> Self {
        Self {
            began: Instant::now(),
            epoch,
            read,
            lines: Arc::default(),
        }
    }

    pub(crate) fn say(&self, who: &'static str, what: impl Into<String>) {
        self.write(self.began.elapsed(), who, what.into());
    }

    /// Says what happened at a time that the world's clock told.
    pub(crate) fn say_at(&self, at: Timestamp, who: &'static str, what: String) {
        self.write(at.since(self.epoch), who, what);
    }

    /// What time it is in the world.
    pub(crate) fn now(&self) -> Timestamp {
        self.epoch.plus(self.began.elapsed())
    }

    /// Whether anybody will read it.
    pub(crate) fn is_read(&self) -> bool {
        self.read
    }

    fn write(&self, since: Duration, who: &'static str, what: String) {
        if !self.read {
            return;
        }
        self.lines
            .lock()
            .unwrap()
            .push(Line(since.as_millis(), who, what));
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }
}
