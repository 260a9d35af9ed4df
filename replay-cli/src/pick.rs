//! From what a person types to the session or the connection that it means.

use std::cmp::Reverse;
use std::fmt::Display;

use recount_store::{ConnectionId, Error, LogReader, Seq, SessionId, StreamHead, StreamId};

use crate::failure::Failure;
use crate::render::time;

/// How many candidates an error lists.
const LISTED_MAX: usize = 5;

/// What can be picked.
struct Kind {
    noun: &'static str,
    /// The command that shows all of them.
    list: &'static str,
}

const SESSIONS: Kind = Kind {
    noun: "session",
    list: "recount sessions",
};

const CONNECTIONS: Kind = Kind {
    noun: "connection",
    list: "recount frames",
};

/// All sessions of a log, newest first: by the position of their first event. Those whose front was cut come last,
/// since it is not known any more when they began.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn newest_first(reader: &LogReader) -> Result<Vec<(SessionId, StreamHead)>, Error> {
    newest(reader, |stream| match stream {
        StreamId::Session(id) => Some(id),
        StreamId::Engine | StreamId::Connection(_) => None,
    })
}

/// The stream that `text` means: the engine's, a connection's as `recount log --json` names it, or else a session's.
///
/// # Errors
///
/// Where it means none, or more than one.
pub(crate) fn stream(reader: &LogReader, text: &str) -> Result<StreamId, Failure> {
    if text.starts_with("connection/") {
        return connection(reader, text).map(StreamId::Connection);
    }
    if text != StreamId::Engine.to_string() {
        return session(reader, text).map(StreamId::Session);
    }
    match reader.stream_head(StreamId::Engine)? {
        Some(_) => Ok(StreamId::Engine),
        None => Err(Failure::new("no engine has begun on this log yet")),
    }
}

/// The session that `text` means: `latest`, an id, or the beginning of one.
///
/// # Errors
///
/// Where it means none, or more than one.
pub(crate) fn session(reader: &LogReader, text: &str) -> Result<SessionId, Failure> {
    pick(&SESSIONS, &newest_first(reader)?, text)
}

/// The connection that `text` means: `latest`, an id, or the beginning of one.
///
/// # Errors
///
/// Where it means none, or more than one.
pub(crate) fn connection(reader: &LogReader, text: &str) -> Result<ConnectionId, Failure> {
    let connections = newest(reader, |stream| match stream {
        StreamId::Connection(id) => Some(id),
        StreamId::Engine | StreamId::Session(_) => None,
    })?;
    pick(&CONNECTIONS, &connections, text)
}

fn newest<T>(
    reader: &LogReader,
    of_kind: impl Fn(StreamId) -> Option<T>,
) -> Result<Vec<(T, StreamHead)>, Error> {
    let streams = reader.streams()?.into_iter();
    let mut found: Vec<_> = streams
        .filter_map(|(stream, head)| Some((of_kind(stream)?, head)))
        .collect();
    found.sort_by_key(|(_, head)| (head.from > Seq::FIRST, Reverse(head.first)));
    Ok(found)
}

fn pick<T: Copy + Display>(kind: &Kind, all: &[(T, StreamHead)], text: &str) -> Result<T, Failure> {
    choose(kind.noun, all, text).map_err(|none| {
        let candidates: Vec<_> = match &none {
            NotOne::Ambiguous { candidates, .. } => candidates.iter().map(|n| all[*n]).collect(),
            NotOne::Unknown { .. } => all.to_vec(),
        };
        let failure = Failure::because(format!("which {}", kind.noun), none);
        if candidates.is_empty() {
            return failure.try_next(crate::directory::BEGIN);
        }
        let mut next: Vec<String> = candidates
            .iter()
            .take(LISTED_MAX)
            .map(|(id, head)| format!("{id}    last event {}", time::rfc3339(head.at)))
            .collect();
        if candidates.len() > LISTED_MAX {
            let more = candidates.len() - LISTED_MAX;
            next.push(format!("and {more} more: {}", kind.list));
        }
        failure.try_next(next.join("\n"))
    })
}

/// Why a text does not mean exactly one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NotOne {
    #[error("no {noun} is called {text:?}{}", if *.any { "; there are:" } else { ", and there are none yet" })]
    Unknown {
        noun: &'static str,
        text: String,
        any: bool,
    },
    #[error("{text:?} begins the names of {} {noun}s:", candidates.len())]
    Ambiguous {
        noun: &'static str,
        text: String,
        /// Their places among all.
        candidates: Vec<usize>,
    },
}

/// Chooses among all of a kind, which come newest first.
fn choose<T: Copy + Display>(
    noun: &'static str,
    all: &[(T, StreamHead)],
    text: &str,
) -> Result<T, NotOne> {
    let unknown = || NotOne::Unknown {
        noun,
        text: text.to_owned(),
        any: !all.is_empty(),
    };
    if text == "latest" {
        return all.first().map(|(id, _)| *id).ok_or_else(unknown);
    }
    // As `log --json` prints its stream, and as people read it aloud.
    let of_stream = text
        .strip_prefix(noun)
        .and_then(|text| text.strip_prefix('/'));
    let prefix = of_stream.unwrap_or(text).to_ascii_lowercase();
    if prefix.is_empty() {
        return Err(unknown());
    }
    let candidates: Vec<_> = (0..all.len())
        .filter(|n| all[*n].0.to_string().starts_with(&prefix))
        .collect();
    match *candidates {
        [] => Err(unknown()),
        [only] => Ok(all[only].0),
        _ => Err(NotOne::Ambiguous {
            noun,
            text: text.to_owned(),
            candidates,
        }),
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{Position, Timestamp};

    use super::*;

    fn sessions(names: &[&str]) -> Vec<(SessionId, StreamHead)> {
        let head = StreamHead {
            seq: Seq(1),
            first: Position(1),
            last: Position(1),
            at: Timestamp(0),
            from: Seq(1),
        };
        let parse = |name: &&str| (name.parse().expect("an id"), head);
        names.iter().map(parse).collect()
    }

    #[test]
    fn a_unique_beginning_will_do() {
        let sessions = sessions(&["abcd000000000000", "abce000000000000", "7000000000000000"]);
        let chosen = |text| choose("session", &sessions, text).map(|id| id.to_string());
        assert_eq!(chosen("latest").as_deref(), Ok("abcd000000000000"));
        for text in ["7", "7000000000000000", "session/70"] {
            assert_eq!(chosen(text).as_deref(), Ok("7000000000000000"), "{text}");
        }
        assert_eq!(chosen("ABCE").as_deref(), Ok("abce000000000000"));
    }

    #[test]
    fn an_ambiguous_one_is_not_guessed() {
        let sessions = sessions(&["abcd000000000000", "abce000000000000"]);
        let Err(error) = choose("session", &sessions, "abc") else {
            panic!("it is ambiguous");
        };
        assert_eq!(error.to_string(), "\"abc\" begins the names of 2 sessions:");
    }

    #[test]
    fn an_unknown_one_is_not_guessed() {
        let some = sessions(&["abcd000000000000"]);
        for text in ["x", "abcd0000000000000", "", "session/"] {
            let error = choose("session", &some, text)
                .expect_err("it is unknown")
                .to_string();
            assert_eq!(error, format!("no session is called {text:?}; there are:"));
        }
        let error = choose::<SessionId>("session", &[], "latest")
            .expect_err("it is unknown")
            .to_string();
        assert_eq!(
            error,
            "no session is called \"latest\", and there are none yet"
        );
    }
}
