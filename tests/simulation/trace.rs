//! What happened in a world, in order: for whoever has to understand a run that failed.

use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// Clones write the same trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    began: Instant,
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
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            lines: Arc::default(),
        }
    }

    pub(crate) fn say(&self, who: &'static str, what: impl Into<String>) {
        let millis = self.began.elapsed().as_millis();
        self.lines
            .lock()
            .unwrap()
            .push(Line(millis, who, what.into()));
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }
}
