//! How a verb ends when it does not end well: what to say, and the exit code.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

/// The end of a verb that could not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong: exit code 1.
    Failed(Report),
    /// The command line asks for what makes no sense: exit code 2.
    Usage(Report),
    /// Ctrl-C: exit code 130.
    Interrupted,
    /// A signal of this number, after what had to be put right first: the code that a shell gives to such an end.
    Signalled(u8),
    /// Nobody reads the answer any more: a normal end.
    BrokenPipe,
}

/// What a person is told.
#[derive(Debug)]
pub(crate) struct Report {
    what: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    next: Option<String>,
}

impl Failure {
    /// It went wrong: `what` says what could not be done, or what is.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Failed(Report::new(what))
    }

    /// It went wrong because of `source`.
    pub(crate) fn because(
        what: impl Into<String>,
        source: impl Error + Send + Sync + 'static,
    ) -> Self {
        Self::Failed(Report {
            source: Some(Box::new(source)),
            ..Report::new(what)
        })
    }

    /// It was asked for what makes no sense.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::Usage(Report::new(what))
    }

    /// The same, with what to do next.
    #[must_use]
    pub(crate) fn try_next(mut self, next: impl Into<String>) -> Self {
        if let Self::Failed(report) | Self::Usage(report) = &mut self {
            report.next = Some(next.into());
        }
        self
    }

    /// The code that the process ends with.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Interrupted => 130,
            Self::Signalled(number) => 128 + *number,
        }
    }

    /// What to say about it; nothing where nothing is to be said.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::Failed(report) | Self::Usage(report) => Some(report.message()),
            Self::Interrupted | Self::Signalled(_) | Self::BrokenPipe => None,
        }
    }
}

impl Report {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            source: None,
            next: None,
        }
    }

    fn message(&self) -> String {
        let mut message = format!("recount: {}", self.what);
        let mut source = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(error) = source {
            let text = error.to_string();
            // Some errors end with their source already.
            if !message.ends_with(&text) {
                let _ = write!(message, ": {text}");
            }
            source = error.source();
        }
        message.push('\n');
        if let Some(next) = &self.next {
            for line in next.lines() {
                let _ = writeln!(message, "  {line}");
            }
        }
        message
    }
}

/// What helps where a log is damaged.
pub(crate) const SAVE: &str = "\
recount doctor                        says how much of it can still be read
recount salvage DIR --into NEW-DIR    takes out what can still be proven";

impl From<io::Error> for Failure {
    /// A failure to write an answer.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::because("cannot write the answer", error)
        }
    }
}

impl From<recount_store::Error> for Failure {
    /// A failure to read what was opened.
    fn from(error: recount_store::Error) -> Self {
        let damaged = matches!(
            error,
            recount_store::Error::Corrupt { .. } | recount_store::Error::Read { .. }
        );
        let failure = Self::because("cannot go on", error);
        if damaged {
            failure.try_next(SAVE)
        } else {
            failure
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_chain_of_sources_is_said_once() {
        let error = recount_store::Error::Io {
            action: "open",
            path: PathBuf::from("/data"),
            source: Arc::new(io::Error::other("no way")),
        };
        let failure = Failure::because("cannot open the log", error).try_next("try this\nor that");
        assert_eq!(
            failure.message().as_deref(),
            Some(
                "recount: cannot open the log: cannot open /data: no way\n  try this\n  or that\n"
            )
        );
    }

    #[test]
    fn a_broken_pipe_is_a_normal_end() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.message()), (0, None));
    }
}
