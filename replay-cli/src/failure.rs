//! How a verb ends when it does not end well: what to say, and the exit code.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use recount_store::{CheckError, Error};

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
    source: Option<Box<dyn StdError + Send + Sync>>,
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
        source: impl StdError + Send + Sync + 'static,
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

    /// The same, with what to do where the log in `directory` is what is wrong.
    #[must_use]
    pub(crate) fn about_the_log_in(self, directory: &Path) -> Self {
        let Self::Failed(report) = &self else {
            return self;
        };
        let directory = directory.display();
        let doctor = format!("recount doctor {directory}");
        let diagnosis = "says what is wrong with it, and what to do";
        let next = match report.of_the_log() {
            Some(Error::Corrupt { .. } | Error::Read { .. }) => {
                let salvage = format!("recount salvage {directory}/log.redb --into NEW-DIR");
                let width = salvage.len();
                format!(
                    "{doctor:width$}    {diagnosis}\n{salvage}    takes out what can still be proven"
                )
            }
            Some(Error::CorruptFrame { .. } | Error::NotALog { .. }) => {
                format!("{doctor}    {diagnosis}")
            }
            _ => return self,
        };
        let next = match &report.next {
            Some(before) => format!("{before}\n{next}"),
            None => next,
        };
        self.try_next(next)
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

    /// What the log said, if that is why.
    fn of_the_log(&self) -> Option<&Error> {
        let mut source = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = source {
            // These show it as their own.
            if let Some(recount_engine::Error::Log(error)) = error.downcast_ref() {
                return Some(error);
            }
            if let Some(CheckError::Log(error)) = error.downcast_ref() {
                return Some(error);
            }
            if let Some(error) = error.downcast_ref() {
                return Some(error);
            }
            source = error.source();
        }
        None
    }

    fn message(&self) -> String {
        let mut message = format!("recount: {}", self.what);
        let mut source = self.source.as_deref().map(|source| source as &dyn StdError);
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

impl From<Error> for Failure {
    /// A failure to read what was opened.
    fn from(error: Error) -> Self {
        Self::because("cannot go on", error)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_chain_of_sources_is_said_once() {
        let error = Error::Io {
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
    fn what_is_wrong_with_a_log_is_told_with_what_to_do() {
        let told = |failure: Failure| {
            let told = failure.about_the_log_in(Path::new("/data")).message();
            told.expect("it is told")
        };
        let damaged = Error::Corrupt {
            position: recount_store::Position(7),
            what: "its hash does not follow".to_owned(),
        };
        let next = [
            "  recount doctor /data                             says what is wrong with it, and what to do",
            "  recount salvage /data/log.redb --into NEW-DIR    takes out what can still be proven",
            "",
        ]
        .join("\n");
        let of_the_store = told(Failure::from(damaged.clone()));
        let expected = format!(
            "recount: cannot go on: the log is damaged at position 7: its hash does not follow\n{next}"
        );
        assert_eq!(of_the_store, expected);
        let of_the_engine = recount_engine::Error::Log(damaged);
        let of_the_engine = told(Failure::because("cannot recover", of_the_engine));
        assert_eq!(
            of_the_engine,
            expected.replace("cannot go on", "cannot recover")
        );
        let another = Failure::new("no such key").try_next("name one");
        assert_eq!(told(another), "recount: no such key\n  name one\n");
    }

    #[test]
    fn a_broken_pipe_is_a_normal_end() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.code(), failure.message()), (0, None));
    }
}
