//! `recount requeue`: a message that was given up is queued again.

use std::path::Path;

use recount_engine::Rejection;
use recount_engine::command::{Command, decide};
use recount_engine::shell::dead_letter;
use recount_projections::{Session, state_store};
use recount_store::{Expected, Log, LogReader, MessageId, StreamId};
use serde_json::json;

use super::{dead_letters, engine};
use crate::args::Requeue;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::pick::{self, Candidate};

/// Queues a dead letter again, and leaves sending it to who recovers.
pub(crate) async fn run(
    log: &Log,
    data: &Path,
    asked: &Requeue,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let candidates = given_up(log)?;
    let (session, message) = pick::message(log, pick::DEAD_LETTERS, &candidates, &asked.message)?;

    let stream = StreamId::Session(session);
    let state: Session = state_store::load(log, stream)?;
    let text = match state.queue.get(message) {
        Some(known) => dead_letter::text_at(log, known.queued)
            .map_err(|error| Failure::because("cannot read the message", error))?,
        None => None,
    };
    let command = Command::Requeue {
        message,
        again: MessageId::from_bytes(super::random()?),
        text: text.unwrap_or_default(),
        even_if_it_may_double: asked.even_if_it_may_double,
    };
    let bounds = engine::policy(data, None)?.session.bounds(false);
    let decided = decide(&state, command, bounds, super::now());
    let (events, receipt) = decided.map_err(|rejection| {
        let next = match &rejection {
            Rejection::MayDouble { .. } => {
                format!(
                    "recount requeue {message} --even-if-it-may-double    queues it all the same"
                )
            }
            _ => format!("recount show {session}    shows where it stands"),
        };
        Failure::because("cannot queue it again", rejection).try_next(next)
    })?;
    if receipt.new {
        log.append(stream, Expected::Exact(state.seq), events)
            .await
            .map_err(|error| Failure::because("cannot queue it again", error))?;
    }
    let again = receipt.message.unwrap_or(message);
    if json {
        output.json(&json!({
            "session": session,
            "message": message,
            "again": again,
            "new": receipt.new,
        }))?;
        return Ok(());
    }
    let already = if receipt.new { "" } else { " already" };
    output.line(&format!(
        "queued again{already} as message {again} of session {session}"
    ))?;
    output.flush()?;
    if receipt.new {
        note("  recount recover    sends it");
    }
    Ok(())
}

/// The messages that were given up, the last one first.
pub(crate) fn given_up(reader: &LogReader) -> Result<Vec<Candidate>, Failure> {
    let letters = dead_letters::newest_first(reader, None)?;
    let candidates = letters.into_iter().map(|(letter, _)| Candidate {
        message: letter.message,
        session: letter.session,
        about: letter.reason,
    });
    Ok(candidates.collect())
}
