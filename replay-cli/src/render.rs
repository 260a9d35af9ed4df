//! Views as text and as JSON. Nothing here reads a log, a clock or the environment.

pub(crate) mod answer;
pub(crate) mod dead_letter;
pub(crate) mod decision;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod incidents;
pub(crate) mod report;
pub(crate) mod scene;
pub(crate) mod sessions;
pub(crate) mod show;
pub(crate) mod text;
pub(crate) mod time;
pub(crate) mod waits;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

/// How texts are to look where they go.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Whether colours may be used. Everything must be clear without them.
    pub(crate) colour: bool,
    /// How many columns a line may have; `None` where nobody counts.
    pub(crate) width: Option<usize>,
    /// In which zone times are told.
    pub(crate) zone: TimeZone,
}

impl Look {
    /// The same, where so many columns of a line are for something else.
    pub(crate) fn beside(&self, columns: usize) -> Self {
        Self {
            width: self.width.map(|width| width.saturating_sub(columns)),
            ..self.clone()
        }
    }

    /// What is less important.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    /// What the eye should find.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    /// What went well.
    pub(crate) fn good(&self, text: &str) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    /// What a person may have to look at.
    pub(crate) fn warn(&self, text: &str) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    /// What went wrong.
    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint(AnsiColor::Red.on_default(), text)
    }

    fn paint(&self, style: Style, text: &str) -> String {
        if self.colour && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
