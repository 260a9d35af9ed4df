//! From what a person types to the session that it means.

use recount_store::{LogReader, SessionId, StreamHead, StreamId};

use crate::failure::Failure;
use crate::render::time;

/// How many sessions an error lists.
const LISTED_MAX: usize = 5;

/// All sessions of a log, newest first: by the position of their first event.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn newest_first(
    reader: &LogReader,
) -> Result<Vec<(SessionId, StreamHead)>, recount_store::Error> {
    let mut sessions: Vec<_> = reader
        .streams()?
        .into_iter()
        .filter_map(|(stream, head)| match stream {
            StreamId::Session(id) => Some((id, head)),
            StreamId::Engine | StreamId::Connection(_) => None,
        })
        .collect();
    sessions.sort_by_key(|(_, head)| std::cmp::Reverse(head.first));
    Ok(sessions)
}

/// The session that `text` means: `latest`, an id, or the beginning of one.
///
/// # Errors
///
/// Where it means none, or more than one.
pub(crate) fn session(reader: &LogReader, text: &str) -> Result<SessionId, Failure> {
    let sessions = newest_first(reader)?;
    choose(&sessions, text).map_err(|none| {
        let candidates = match &none {
            NoSession::Ambiguous { candidates, .. } => candidates.clone(),
            NoSession::Unknown { .. } => sessions,
        };
        let failure = Failure::because("which session", none);
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
            next.push(format!("and {more} more: recount sessions"));
        }
        failure.try_next(next.join("\n"))
    })
}

/// Why a text means no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NoSession {
    #[error("no session is called {text:?}{}", if *.any { "; there are:" } else { ", and there are none yet" })]
    Unknown { text: String, any: bool },
    #[error("{text:?} begins the names of {} sessions:", candidates.len())]
    Ambiguous {
        text: String,
        candidates: Vec<(SessionId, StreamHead)>,
    },
}

/// Chooses among sessions, which come newest first.
fn choose(sessions: &[(SessionId, StreamHead)], text: &str) -> Result<SessionId, NoSession> {
    let unknown = || NoSession::Unknown {
        text: text.to_owned(),
        any: !sessions.is_empty(),
    };
    if text == "latest" {
        return sessions.first().map(|(id, _)| *id).ok_or_else(unknown);
    }
    // As `log --json` prints its stream, and as people read it aloud.
    let prefix = text.strip_prefix("session/").unwrap_or(text);
    let prefix = prefix.to_ascii_lowercase();
    if prefix.is_empty() {
        return Err(unknown());
    }
    let mut candidates: Vec<_> = sessions
        .iter()
        .filter(|(id, _)| id.to_string().starts_with(&prefix))
        .copied()
        .collect();
    match candidates.len() {
        0 => Err(unknown()),
        1 => Ok(candidates.remove(0).0),
        _ => Err(NoSession::Ambiguous {
            text: text.to_owned(),
            candidates,
        }),
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{Position, Seq, Timestamp};

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
        let chosen = |text| choose(&sessions, text).map(|id| id.to_string());
        assert_eq!(chosen("latest").as_deref(), Ok("abcd000000000000"));
        for text in ["7", "7000000000000000", "session/70"] {
            assert_eq!(chosen(text).as_deref(), Ok("7000000000000000"), "{text}");
        }
        assert_eq!(chosen("ABCE").as_deref(), Ok("abce000000000000"));
    }

    #[test]
    fn an_ambiguous_one_is_not_guessed() {
        let sessions = sessions(&["abcd000000000000", "abce000000000000"]);
        let Err(error) = choose(&sessions, "abc") else {
            panic!("it is ambiguous");
        };
        assert_eq!(error.to_string(), "\"abc\" begins the names of 2 sessions:");
    }

    #[test]
    fn an_unknown_one_is_not_guessed() {
        let some = sessions(&["abcd000000000000"]);
        for text in ["x", "abcd0000000000000", "", "session/"] {
            let error = choose(&some, text).expect_err("it is unknown").to_string();
            assert_eq!(error, format!("no session is called {text:?}; there are:"));
        }
        let error = choose(&[], "latest")
            .expect_err("it is unknown")
            .to_string();
        assert_eq!(
            error,
            "no session is called \"latest\", and there are none yet"
        );
    }
}
