//! Where the log is.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use etcetera::base_strategy::{BaseStrategy, choose_native_strategy};
use recount_store::{Error, Log, LogReader};

use crate::failure::Failure;

/// The policy file of a data directory.
pub(crate) const POLICY: &str = "recount.toml";

/// The data directory: the one that was named, else `recount` in the platform's data folder.
///
/// # Errors
///
/// Where none was named and there is no home.
pub(crate) fn find(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match named {
        Some(path) if path.as_os_str().is_empty() => {
            Err(Failure::usage("the name of the data directory is empty")
                .try_next("name one with --data DIR or RECOUNT_DATA"))
        }
        Some(path) => Ok(path),
        None => {
            let platform = choose_native_strategy().map_err(|error| {
                Failure::because("cannot find the platform's data folder", error)
                    .try_next("name a data directory with --data DIR or RECOUNT_DATA")
            })?;
            Ok(platform.data_dir().join("recount"))
        }
    }
}

/// Opens the log in `directory` to look at it.
///
/// # Errors
///
/// Where there is none, or none that can be read.
pub(crate) fn open(directory: &Path) -> Result<LogReader, Failure> {
    LogReader::open(directory).map_err(|error| cannot_open(not_ours(directory, error)))
}

/// Opens the log in `directory` to change it.
///
/// # Errors
///
/// Where there is none, or another process writes it.
pub(crate) fn open_to_write(directory: &Path) -> Result<Log, Failure> {
    // Where there is none, none is made.
    drop(open(directory)?);
    Log::open(directory).map_err(cannot_open)
}

/// Opens the log in `directory` if there is one; where there is nothing yet, gives what to say about it.
///
/// # Errors
///
/// Where there is something that cannot be read, or that is somebody else's.
pub(crate) fn open_if_any(directory: &Path) -> Result<Result<LogReader, String>, Failure> {
    match LogReader::open(directory).map_err(|error| not_ours(directory, error)) {
        Ok(reader) => Ok(Ok(reader)),
        Err(error @ Error::NoLog { .. }) => Ok(Err(error.to_string())),
        Err(error) => Err(cannot_open(error)),
    }
}

/// A directory without a log that holds other things is somebody else's, as the writer sees it.
pub(crate) fn not_ours(directory: &Path, error: Error) -> Error {
    let Error::NoLog { path } = error else {
        return error;
    };
    let ours = |name: &str| ["servers", POLICY].contains(&name) || name.starts_with("log.redb");
    let entries = directory.read_dir().into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !ours(name))
        .collect();
    names.sort_unstable();
    match names.into_iter().next() {
        Some(found) => Error::NotADataDirectory { path, found },
        None => Error::NoLog { path },
    }
}

/// What to say where a log cannot be opened.
pub(crate) fn cannot_open(error: Error) -> Failure {
    let next = match &error {
        Error::NoLog { .. } => Some(BEGIN),
        Error::Locked { .. } => Some(MEANWHILE),
        Error::Io { source, .. } if source.kind() == ErrorKind::NotADirectory => Some(OF_THE_FILE),
        _ => None,
    };
    let failure = Failure::because("cannot open the log", error);
    match next {
        Some(next) => failure.try_next(next),
        None => failure,
    }
}

/// What to do where a file was named, and a directory was meant.
pub(crate) const OF_THE_FILE: &str =
    "name the directory that holds log.redb: --data DIR, or RECOUNT_DATA";

/// What to do where another process writes the log.
const MEANWHILE: &str = "\
end that process, if it is to end, and run this again
recount sessions, show, log, dead-letters, doctor    look at it meanwhile";

/// How to get from nothing to something.
pub(crate) const BEGIN: &str = "\
recount demo           shows all of it at work
recount run MESSAGE    begins a session
--data DIR             or RECOUNT_DATA names another data directory";
