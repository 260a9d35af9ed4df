//! `recount resolve`: a person's word on what waits for one.

use std::cmp::Reverse;

use recount_engine::SessionPolicy;
use recount_engine::Word as Outcome;
use recount_engine::command::{Command, decide, explain};
use recount_projections::{Session, WaitsFor, state_store};
use recount_store::{Expected, Log, LogReader, MessageId, SessionId, StreamId};
use serde_json::json;

use crate::args::{Resolve, Word};
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::pick::{self, Candidate};
use crate::render::text;
use crate::render::waits::Waits;

/// Shows what waits, and records a person's word on it if there is one; then there is a log to write.
pub(crate) async fn run(
    reader: &LogReader,
    log: Option<&Log>,
    asked: &Resolve,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let candidates = waiting(reader)?;
    let (session, message) = pick::message(reader, pick::WAITING, &candidates, &asked.message)?;
    let stream = StreamId::Session(session);
    let state: Session = state_store::load(reader, stream)?;
    let waits = waits(session, message, &state)?;
    if !json {
        output.line(&format!("session {session} message {message}"))?;
        output.text(&waits.known())?;
    }
    if let (Some(word), Some(log)) = (asked.word, log) {
        let command = command(&waits, word)?;
        // Nothing is queued by a word, so any bounds do.
        let bounds = SessionPolicy::default().bounds(false);
        let decided = decide(&state, command, bounds, super::now());
        let (mut events, _) =
            decided.map_err(|rejection| Failure::because("cannot settle it", rejection))?;
        if let Some(because) = &asked.because {
            explain(&mut events, because);
        }
        log.append(stream, Expected::Exact(state.seq), events)
            .await
            .map_err(|error| Failure::because("cannot settle it", error))?;
    }
    let word = asked.word.map(Word::name);
    if json {
        output.json(&json!({ "waits": waits, "word": word, "because": asked.because }))?;
        return Ok(());
    }
    let Some(word) = word else {
        output.text(&waits.commands())?;
        return Ok(());
    };
    output.line(&match &asked.because {
        Some(because) => format!("recorded: {word}: {}", text::one_line(because)),
        None => format!("recorded: {word}"),
    })?;
    output.flush()?;
    note("  recount recover    carries on with it");
    Ok(())
}

/// The messages that wait for a person, the one that waits since last first.
pub(crate) fn waiting(reader: &LogReader) -> Result<Vec<Candidate>, Failure> {
    let mut found = Vec::new();
    for id in state_store::pending(reader)?.sessions.into_keys() {
        let state: Session = state_store::load(reader, StreamId::Session(id))?;
        if let Some(waits) = state.waits() {
            let candidate = Candidate {
                message: waits.message.id,
                session: id,
                about: match waits.decision {
                    Some(WaitsFor::Rerun) => "whether its turn is run again".to_owned(),
                    Some(WaitsFor::Outcome) => "whether it arrived".to_owned(),
                    None => "the agent asks something".to_owned(),
                },
            };
            found.push((waits.since, candidate));
        }
    }
    found.sort_by_key(|(since, _)| Reverse(*since));
    Ok(found.into_iter().map(|(_, candidate)| candidate).collect())
}

/// What waits about this message.
fn waits(id: SessionId, message: MessageId, state: &Session) -> Result<Waits, Failure> {
    if let Some(waits) = Waits::of(id, state).filter(|waits| waits.message == message) {
        return Ok(waits);
    }
    let stands = state
        .queue
        .get(message)
        .map_or("unknown", |m| m.state.name());
    let what = format!("message {message} is {stands}: nothing about it waits for a person");
    Err(Failure::new(what).try_next(format!("recount show {id}    shows where it stands")))
}

/// What the word asks for, if it fits what waits.
fn command(waits: &Waits, word: Word) -> Result<Command, Failure> {
    let outcome = |word| Command::Resolve { word };
    match (waits.decision, word) {
        (Some(WaitsFor::Outcome), Word::Arrived) => Ok(outcome(Outcome::Arrived)),
        (Some(WaitsFor::Outcome), Word::Resend) => Ok(outcome(Outcome::Resend)),
        (Some(WaitsFor::Outcome), Word::DeadLetter) => Ok(outcome(Outcome::GiveUp)),
        (Some(WaitsFor::Rerun), Word::Rerun) => Ok(Command::Rerun { run: true }),
        (Some(WaitsFor::Rerun), Word::GiveUp) => Ok(Command::Rerun { run: false }),
        (waits_for, word) => {
            let what = match waits_for {
                Some(WaitsFor::Outcome) => "it waits for a word on whether it arrived",
                Some(WaitsFor::Rerun) => "it waits for a word on whether its turn is run again",
                None => "the agent asks something, and only an answer settles that",
            };
            let what = format!("{:?} does not fit: {what}", word.name());
            Err(Failure::usage(what).try_next(waits.commands().replace("  ", "").trim_end()))
        }
    }
}
