//! How far a long look at the log has come, for whoever waits for it.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use recount_store::Progress;

/// What takes less needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar on standard error where that is a terminal, once it has taken a while; nothing elsewhere. It is
/// cleared away when this is dropped.
pub(crate) struct Bar {
    /// What is counted.
    unit: &'static str,
    began: Instant,
    /// Once it has taken a while.
    drawn: Option<ProgressBar>,
}

impl Bar {
    /// Begins to wait for events to be gone through.
    pub(crate) fn new() -> Self {
        Self::over("events")
    }

    /// Begins to wait for something else to be gone through.
    pub(crate) fn over(unit: &'static str) -> Self {
        Self {
            unit,
            began: Instant::now(),
            drawn: None,
        }
    }

    /// Shows how far it has come.
    pub(crate) fn show(&mut self, progress: Progress) {
        if self.drawn.is_none() && self.began.elapsed() < PATIENCE {
            return;
        }
        let unit = self.unit;
        let bar = self.drawn.get_or_insert_with(|| {
            let style = ProgressStyle::with_template(&format!(
                "{{msg}} {{wide_bar}} {{percent:>3}} % of {{human_len}} {unit}, {{eta}} left"
            ))
            .expect("a template that never changes");
            ProgressBar::with_draw_target(Some(progress.total), ProgressDrawTarget::stderr())
                .with_style(style)
                .with_elapsed(self.began.elapsed())
                .with_message(progress.doing)
        });
        bar.set_message(progress.doing);
        // The log may grow meanwhile.
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    }
}

/// How many events go by between two looks at how far it has come.
const STRIDE: u64 = 1 << 12;

/// The same events; on the way, how far it has come of about so many.
pub(crate) fn with_bar<T>(
    events: impl Iterator<Item = T>,
    doing: &'static str,
    total: u64,
) -> impl Iterator<Item = T> {
    let mut bar = Bar::new();
    let mut done = 0;
    events.inspect(move |_| {
        done += 1;
        if done % STRIDE == 0 {
            bar.show(Progress { doing, done, total });
        }
    })
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.drawn {
            bar.finish_and_clear();
        }
    }
}
