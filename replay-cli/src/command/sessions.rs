//! `recount sessions`: what there is.

use std::path::Path;

use recount_projections::{Session, state_store};
use recount_store::{Error, LogReader, StreamHead, StreamId};

use crate::failure::Failure;
use crate::front::Cut;
use crate::output::{Output, note};
use crate::render::event;
use crate::render::sessions::{Row, table};
use crate::{directory, pick};

/// Lists the sessions of a log, newest first; says how to begin where there are none.
pub(crate) fn run(reader: &LogReader, json: bool, output: &mut Output) -> Result<(), Failure> {
    let sessions = pick::newest_first(reader)?;
    if sessions.is_empty() {
        say_empty(&format!("no sessions in {} yet", reader.path().display()));
    }
    let mut rows = Vec::new();
    for (id, head) in sessions {
        let stream = StreamId::Session(id);
        let session: Session = state_store::load(reader, stream)?;
        let last = last_event(reader, stream, head)?;
        let row = Row::new(id, &session, last, Cut::of(reader, stream)?);
        if json {
            output.json(&row)?;
        } else {
            rows.push(row);
        }
    }
    if !rows.is_empty() {
        let table = table(&rows, super::seen_at(), &output.look);
        output.line(&table)?;
    }
    Ok(())
}

/// Opens the log in `directory`; where there is none yet, says how to begin.
pub(crate) fn open(directory: &Path) -> Result<Option<LogReader>, Failure> {
    let opened = directory::open_if_any(directory)?;
    Ok(opened.map_err(|none| say_empty(&none)).ok())
}

fn say_empty(what: &str) {
    note(&format!("recount: {what}"));
    for line in directory::BEGIN.lines() {
        note(&format!("  {line}"));
    }
}

fn last_event(reader: &LogReader, stream: StreamId, head: StreamHead) -> Result<String, Error> {
    let last = reader.read(stream, head.seq).next().transpose()?;
    Ok(last
        .map(|last| event::name(&last.event))
        .unwrap_or_default())
}
