//! A file per verb. Verbs that look back are given a log to read and nothing else; those that keep it small and
//! sound are given the log to write; those that run something are given the directory of the log, and share `engine`.

pub(crate) mod bisect;
pub(crate) mod bundle;
pub(crate) mod close;
pub(crate) mod compact;
pub(crate) mod cut;
pub(crate) mod dead_letters;
pub(crate) mod decisions;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod diff;
mod engine;
pub(crate) mod find;
pub(crate) mod export;
pub(crate) mod fork;
pub(crate) mod frames;
pub(crate) mod import;
pub(crate) mod incidents;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod policy;
pub(crate) mod rebuild;
pub(crate) mod recover;
pub(crate) mod reference;
pub(crate) mod replay;
pub(crate) mod requeue;
pub(crate) mod resolve;
pub(crate) mod retain;
pub(crate) mod run;
pub(crate) mod salvage;
pub(crate) mod sessions;
pub(crate) mod show;
pub(crate) mod sign;
pub(crate) mod step;
pub(crate) mod verify;
pub(crate) mod why;
pub(crate) mod wire;

use std::future::Future;
use std::path::Path;

use recount_projections::{Session, state_store};
use recount_store::{Error, Log, LogReader, SessionId, StreamId, Timestamp};

use crate::failure::Failure;
use crate::output::note;
use crate::query::Mistake;
use crate::render::time;

/// The time now.
fn now() -> Timestamp {
    Timestamp::from_system(std::time::SystemTime::now())
}

/// The bytes of a new id.
fn random() -> Result<[u8; 10], Failure> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes).map_err(|error| Failure::because("cannot make an id", error))?;
    Ok(bytes)
}

/// What to say of a text that is no condition.
fn not_a_condition(mistake: &Mistake) -> Failure {
    Failure::usage(format!("this is no condition: {mistake}")).try_next(mistake.shown())
}

/// The time from which it is told how long ago something was: now, or what `RECOUNT_NOW` says, so that a view of an old
/// log can be compared with itself. Nothing is recorded with it.
pub(crate) fn seen_at() -> Timestamp {
    let said = std::env::var("RECOUNT_NOW").ok();
    said.and_then(|said| time::parse(&said)).unwrap_or_else(now)
}

/// Says so where by the log something is at work, of all sessions or of one, and nobody works on it, since no process
/// writes that log. What is wrong with a log is for the verb to say.
pub(crate) fn hint_at_nobody(reader: &LogReader, only: Option<SessionId>) {
    if let Ok(true) = is_left_alone(reader, only) {
        note("· no engine runs on this log: nobody works on what is open");
        note("  recount recover    carries it to its end");
    }
}

fn is_left_alone(reader: &LogReader, only: Option<SessionId>) -> Result<bool, Error> {
    let directory = reader.path().parent().unwrap_or(Path::new(""));
    if LogReader::writer(directory)?.is_some() {
        return Ok(false);
    }
    for id in state_store::pending(reader)?.sessions.into_keys() {
        if only.is_some_and(|only| only != id) {
            continue;
        }
        let state: Session = state_store::load(reader, StreamId::Session(id))?;
        // What waits for a person says so itself.
        if state.waits().is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Does the work, and closes the log that it changes, if there is one: all that was changed is on the disk then.
pub(crate) fn change(
    log: Option<&Log>,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    engine::runtime()?.block_on(async {
        let done = work.await;
        let closed = match log {
            Some(log) => log.close().await,
            None => Ok(()),
        };
        done?;
        closed.map_err(|error| Failure::because("cannot end cleanly", error))
    })
}
