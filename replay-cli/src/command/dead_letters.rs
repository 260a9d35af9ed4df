//! `recount dead-letters`: what was given up.

use std::cmp::Reverse;

use recount_engine::DeadLetter;
use recount_projections::{Session, state_store};
use recount_store::{LogReader, SessionId, StreamId};

use crate::failure::Failure;
use crate::output::{Output, note};
use crate::render::dead_letter::Row;

/// Lists the messages that were given up and not queued again: of one session, or of all.
pub(crate) fn run(
    reader: &LogReader,
    only: Option<SessionId>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let found = newest_first(reader, only)?;
    if found.is_empty() {
        note("recount: no dead letters");
    }
    for (letter, closed) in found {
        let row = Row::new(letter, closed);
        if json {
            output.json(&row)?;
        } else {
            let told = row.told(&output.look);
            output.line(&told)?;
        }
    }
    Ok(())
}

/// The dead letters of one session, or of all, each with whether its session is closed.
pub(super) fn newest_first(
    reader: &LogReader,
    only: Option<SessionId>,
) -> Result<Vec<(DeadLetter, bool)>, Failure> {
    let sessions: Vec<SessionId> = match only {
        Some(session) => vec![session],
        None => state_store::pending(reader)?
            .dead_letters
            .into_keys()
            .collect(),
    };
    let mut found = Vec::new();
    for id in sessions {
        let state: Session = state_store::load(reader, StreamId::Session(id))?;
        let letters = DeadLetter::of(reader, id, &state)
            .map_err(|error| Failure::because("cannot read the dead letters", error))?;
        found.extend(letters.into_iter().map(|letter| (letter, state.closed)));
    }
    found.sort_by_key(|(letter, _)| Reverse(letter.at));
    Ok(found)
}
