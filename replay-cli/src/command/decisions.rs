//! What the rules that run today make of a log's decisions, for `recount verify --decisions` and `recount whatif`.

use std::path::Path;

use recount_engine::decisions::{self, Derived, Difference};
use recount_engine::{Options, Policy};
use recount_store::{Class, Event, LogReader, Recorded, SessionId, StreamId};
use serde_json::{Value, json};

use crate::args;
use crate::failure::Failure;
use crate::front;
use crate::output::Output;
use crate::progress::Bar;
use crate::render::decision::{Row, phrase, table, why};
use crate::render::{text, time};
use crate::timeline::Timeline;

/// Derives the decisions of all streams again, or those of a session and its connection.
///
/// # Errors
///
/// Where the log cannot be read.
pub(super) fn derive(reader: &LogReader, only: Option<SessionId>) -> Result<Derived, Failure> {
    let adapters = Options::new(reader.path()).adapters;
    let streams = only.map(|session| streams(reader, session)).transpose()?;
    let mut bar = Bar::new();
    let tell = |progress| bar.show(progress);
    decisions::derive_telling(reader, streams.as_deref(), &adapters, tell).map_err(failed)
}

/// Says how the decisions stand, and fails where one is not what it would be.
pub(super) fn told(
    reader: &LogReader,
    derived: &Derived,
    output: &mut Output,
) -> Result<(), Failure> {
    let decisions = text::count(derived.decisions, "decision");
    if !derived.unknown_keys.is_empty() {
        let keys = derived.unknown_keys.join(", ");
        output.line(&format!(
            "left aside: {keys}, which another build recorded in its policy and this one does not know"
        ))?;
    }
    let Some(first) = &derived.first_difference else {
        output.line(&format!("decided as today: {decisions}"))?;
        return Ok(());
    };
    let Difference {
        recorded,
        derived: instead,
    } = first;
    let differ = match derived.different {
        1 => "1 differs".to_owned(),
        many => format!("{many} differ"),
    };
    let head = format!("not decided as today: {differ} of {decisions}");
    output.line(&output.look.bad(&head))?;
    output.line(&format!(
        "first: event {} of {}, at {}",
        recorded.seq,
        front::name(recorded.stream),
        time::rfc3339(recorded.at),
    ))?;
    let mut row = |what: &str, says: &str| output.line(&format!("  {what:10}{says}"));
    row("recorded", &phrase(&recorded.event))?;
    for event in instead {
        row("today", &phrase(event))?;
    }
    if instead.is_empty() {
        row("today", "nothing")?;
    }
    row("why", &why_not(recorded, instead))?;
    if let Some(cause) = cause(reader, recorded)? {
        row(
            "follows",
            &format!("{} {}", cause.seq, phrase(&cause.event)),
        )?;
    }
    output.flush()?;
    Err(differs(reader, recorded))
}

/// In which way a decision is not what it would be; or is not there, and another stands in its place.
fn why_not(recorded: &Recorded, instead: &[Event]) -> String {
    let number = recorded.event.type_number();
    let is_other = |event: &Event| event.type_number() != number;
    if recorded.class == Class::Decided && !instead.is_empty() && instead.iter().all(is_other) {
        return "another decision would be made in its place, or before it".to_owned();
    }
    why(recorded, instead)
}

/// The same as JSON.
pub(super) fn told_json(derived: &Derived) -> Value {
    let first = derived.first_difference.as_ref().map(|difference| {
        let Difference { recorded, derived } = difference;
        json!({
            "position": recorded.position,
            "stream": recorded.stream.to_string(),
            "seq": recorded.seq,
            "at": time::rfc3339(recorded.at),
            "cause": recorded.cause,
            "recorded": recorded.event,
            "today": derived,
            "why": why_not(recorded, derived),
        })
    });
    let mut told = json!({
        "decisions": derived.decisions,
        "different": derived.different,
        "first_difference": first,
    });
    if !derived.unknown_keys.is_empty() {
        told["unknown_keys"] = json!(derived.unknown_keys);
    }
    told
}

/// What to say where a decision is not what it would be.
pub(super) fn differs(reader: &LogReader, recorded: &Recorded) -> Failure {
    let session = match recorded.stream {
        StreamId::Session(id) => Some(id),
        StreamId::Connection(_) | StreamId::Engine => None,
    };
    let next = match session.or_else(|| crate::pick::session(reader, "latest").ok()) {
        Some(id) => format!("recount log {id}    shows it among the events around it"),
        None => "recount sessions".to_owned(),
    };
    Failure::new("the log holds a decision that today's rules would not make: another build wrote it, or it was changed")
        .try_next(next)
}

/// Prints what another policy would have decided, beside what was decided.
pub(crate) fn what_if(
    reader: &LogReader,
    id: SessionId,
    wanted: &args::WhatIf,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let (origin, text) = read(&wanted.policy)?;
    let change = |policy: &Policy| policy.clone().with_toml(&origin, &text);
    let adapters = Options::new(reader.path()).adapters;
    let streams = streams(reader, id)?;
    let mut bar = Bar::new();
    let tell = |progress| bar.show(progress);
    let differences = decisions::what_if(reader, Some(&streams), &adapters, change, tell);
    drop(bar);
    let differences = differences.map_err(failed)?;
    let mut differences = differences.into_iter().peekable();
    let timeline = Timeline::of(reader, id)?;
    let through = reader.head()?.position;
    let mut rows = Vec::new();
    for recorded in timeline.events(reader, through, false) {
        let recorded = recorded?;
        let here = |difference: &Difference| difference.recorded.position == recorded.position;
        let would = differences.next_if(here).map(|other| other.derived);
        if would.is_some() || (recorded.class == Class::Decided && !wanted.different) {
            rows.push(Row { recorded, would });
        }
    }
    let first = rows.iter().position(|row| row.would.is_some());
    if json {
        for (n, row) in rows.iter().enumerate() {
            let line = row.json(first == Some(n)).map_err(std::io::Error::from)?;
            output.line(&line)?;
        }
        return Ok(());
    }
    if !rows.is_empty() {
        output.line(&table(&rows, &format!("UNDER {origin}"), &output.look))?;
    }
    let others = rows.iter().filter(|row| row.would.is_some()).count();
    let Some(first) = first.map(|first| &rows[first].recorded) else {
        output.line("nothing would be decided otherwise")?;
        return Ok(());
    };
    let others = text::count(others as u64, "decision");
    output.line(&format!(
        "\n{others} would be otherwise, the first (>) at {}.\n\
         From there on the world would have gone another way: each later row answers what really happened,\n\
         not what would have.",
        time::rfc3339(first.at)
    ))?;
    Ok(())
}

/// A policy file's name and its text.
fn read(file: &Path) -> Result<(String, String), Failure> {
    let cannot = |error| {
        let what = format!("cannot read the policy {}", file.display());
        Failure::because(what, error).try_next("recount policy > FILE    writes one to change")
    };
    if file == Path::new("-") {
        let text = std::io::read_to_string(std::io::stdin()).map_err(cannot)?;
        return Ok(("standard input".to_owned(), text));
    }
    let text = std::fs::read_to_string(file).map_err(cannot)?;
    Ok((file.display().to_string(), text))
}

/// A session's stream and its connection's.
fn streams(reader: &LogReader, session: SessionId) -> Result<Vec<StreamId>, Failure> {
    let mut streams = vec![StreamId::Session(session)];
    let connection = Timeline::of(reader, session)?.connection;
    streams.extend(connection.map(StreamId::Connection));
    Ok(streams)
}

/// The event that one follows from.
fn cause(reader: &LogReader, recorded: &Recorded) -> Result<Option<Recorded>, Failure> {
    let Some(position) = recorded.cause else {
        return Ok(None);
    };
    let cause = reader.read_all(position).next().transpose()?;
    Ok(cause.filter(|cause| cause.position == position))
}

fn failed(error: recount_engine::Error) -> Failure {
    match error {
        recount_engine::Error::Log(error) => error.into(),
        recount_engine::Error::Policy(error) => Failure::because("cannot use the policy", error)
            .try_next("recount policy    prints every key with its value and what it is for"),
        error => Failure::because("cannot derive the decisions", error),
    }
}
