//! From what a person types to the session, the connection or the message that it means.

use std::cmp::Reverse;
use std::fmt::Display;

use recount_projections::{Session, state_store};
use recount_store::{
    ConnectionId, Error, LogReader, MessageId, Seq, SessionId, StreamHead, StreamId,
};

use crate::failure::Failure;
use crate::render::time;

/// The newest of all.
const LATEST: &str = "latest";

/// How many candidates an error lists.
const LISTED_MAX: usize = 5;

/// What can be picked.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    noun: &'static str,
    /// The command that shows all of them.
    list: &'static str,
    /// What to do where there is none.
    begin: &'static str,
}

const SESSIONS: Kind = Kind {
    noun: "session",
    list: "recount sessions",
    begin: crate::directory::BEGIN,
};

const CONNECTIONS: Kind = Kind {
    noun: "connection",
    list: "recount frames",
    begin: crate::directory::BEGIN,
};

/// Messages that were given up.
pub(crate) const DEAD_LETTERS: Kind = Kind {
    noun: "dead letter",
    list: "recount dead-letters",
    begin: "recount show ID    shows a session's messages and where they stand",
};

/// Messages that wait for a person.
pub(crate) const WAITING: Kind = Kind {
    noun: "waiting message",
    list: "recount recover",
    begin: "recount show ID    shows a session's messages and where they stand",
};

/// A message that may be meant.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The message.
    pub(crate) message: MessageId,
    /// The session that it is in.
    pub(crate) session: SessionId,
    /// What to know it by.
    pub(crate) about: String,
}

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
    pick(&SESSIONS, &newest_first(reader)?, text, last_event)
}

/// The connection that `text` means: `latest`, an id, or the beginning of one.
///
/// # Errors
///
/// Where it means none, or more than one.
pub(crate) fn connection(reader: &LogReader, text: &str) -> Result<ConnectionId, Failure> {
    pick(&CONNECTIONS, &connections(reader)?, text, last_event)
}

/// All connections of a log, newest first.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn connections(reader: &LogReader) -> Result<Vec<(ConnectionId, StreamHead)>, Error> {
    newest(reader, |stream| match stream {
        StreamId::Connection(id) => Some(id),
        StreamId::Engine | StreamId::Session(_) => None,
    })
}

/// The message that `text` means: one of the candidates by `latest`, which is the first of them, by its id or the
/// beginning of it; or else any message of the log by the same, so that the answer can be where that one stands.
///
/// # Errors
///
/// Where it means none, or more than one.
pub(crate) fn message(
    reader: &LogReader,
    kind: Kind,
    candidates: &[Candidate],
    text: &str,
) -> Result<(SessionId, MessageId), Failure> {
    let named = |candidate: &Candidate| (candidate.message, candidate.clone());
    let mut all: Vec<_> = candidates.iter().map(named).collect();
    if let Err(NotOne::Unknown { .. }) = choose(kind.noun, &all, text)
        && text != LATEST
    {
        let others = messages(reader)?;
        if let Err(NotOne::Ambiguous { .. }) | Ok(_) = choose(kind.noun, &others, text) {
            all = others;
        }
    }
    let about =
        |candidate: &Candidate| format!("session {}, {}", candidate.session, candidate.about);
    let message = pick(&kind, &all, text, about)?;
    let found = all.iter().find(|(known, _)| *known == message);
    let (_, candidate) = found.expect("it was picked among them");
    Ok((candidate.session, message))
}

/// All messages of all sessions.
fn messages(reader: &LogReader) -> Result<Vec<(MessageId, Candidate)>, Failure> {
    let mut found = Vec::new();
    for (session, _) in newest_first(reader)? {
        let state: Session = state_store::load(reader, StreamId::Session(session))?;
        found.extend(state.queue.messages().iter().rev().map(|known| {
            let candidate = Candidate {
                message: known.id,
                session,
                about: known.state.name().to_owned(),
            };
            (known.id, candidate)
        }));
    }
    Ok(found)
}

fn last_event(head: &StreamHead) -> String {
    format!("last event {}", time::rfc3339(head.at))
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

fn pick<T: Copy + Display, D>(
    kind: &Kind,
    all: &[(T, D)],
    text: &str,
    about: impl Fn(&D) -> String,
) -> Result<T, Failure> {
    choose(kind.noun, all, text).map_err(|none| {
        let candidates: Vec<&(T, D)> = match &none {
            NotOne::Ambiguous { candidates, .. } => candidates.iter().map(|n| &all[*n]).collect(),
            NotOne::Unknown { .. } => all.iter().collect(),
        };
        let failure = Failure::because(format!("which {}", kind.noun), none);
        if candidates.is_empty() {
            return failure.try_next(kind.begin);
        }
        let mut next: Vec<String> = candidates
            .iter()
            .take(LISTED_MAX)
            .map(|(id, known)| format!("{id}    {}", about(known)))
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
    #[error("{}", if *.any { format!("no {noun} is called {text:?}; there are:") } else { format!("there is no {noun}") })]
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
fn choose<T: Copy + Display, D>(
    noun: &'static str,
    all: &[(T, D)],
    text: &str,
) -> Result<T, NotOne> {
    let unknown = || NotOne::Unknown {
        noun,
        text: text.to_owned(),
        any: !all.is_empty(),
    };
    if text == LATEST {
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
        let error = choose::<SessionId, ()>("session", &[], "latest")
            .expect_err("it is unknown")
            .to_string();
        assert_eq!(error, "there is no session");
    }
}
