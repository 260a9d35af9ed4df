//! How far a long look at the log has come, for whoever waits for it.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use recount_store::Position;

/// What takes less needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar on standard error where that is a terminal, once it has taken a while; nothing elsewhere. It is
/// cleared away when this is dropped.
pub(crate) struct Progress {
    what: &'static str,
    began: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to do something with all events.
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            began: Instant::now(),
            bar: None,
        }
    }

    /// All events up to `position` are done, of those up to `last`.
    pub(crate) fn reach(&mut self, position: Position, last: Position) {
        if self.bar.is_none() && self.began.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "{msg} {wide_bar} {percent:>3} % of {human_len} events, {eta} left",
            )
            .expect("a template that never changes");
            ProgressBar::with_draw_target(Some(last.0), ProgressDrawTarget::stderr())
                .with_style(style)
                .with_elapsed(self.began.elapsed())
                .with_message(self.what)
        });
        // The log may have grown meanwhile.
        bar.set_length(last.0);
        bar.set_position(position.0);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
