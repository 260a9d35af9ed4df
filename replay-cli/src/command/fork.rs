//! `recount fork`: a session that goes on from where another one stood.

use recount_engine::adapter::capability;
use recount_engine::fork::Beginning;
use recount_projections::{Connection, state_store};
use recount_store::{Expected, Log, MessageId, SessionId, StreamId};
use serde::Serialize;

use super::show;
use crate::args;
use crate::failure::Failure;
use crate::output::{Output, note};
use crate::pick;
use crate::render::text;

/// What the agent goes on from, as far as it can be told before it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum By {
    Copy,
    Text,
    Nothing,
}

#[derive(Debug, Serialize)]
struct Forked {
    session: SessionId,
    from: SessionId,
    at: u64,
    messages: usize,
    by: By,
    agent_session: Option<String>,
    through: Option<String>,
    context_bytes: usize,
    left_open: Option<MessageId>,
}

/// Records a new session, and leaves sending something in it to others.
pub(crate) async fn run(
    log: &Log,
    asked: &args::Fork,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let from = pick::session(log, &asked.session.id)?;
    let at = show::moment(log, from, asked.at, &output.look)?.1;
    let beginning = Beginning::of(log, from, Some(at))
        .map_err(|error| Failure::because("cannot go on from there", error))?;
    let connection = StreamId::Connection(beginning.opening().connection);
    let connection: Connection = state_store::load(log, connection)?;
    let session = SessionId::from_bytes(super::random()?);
    let events = beginning.events(asked.model.clone(), asked.title.clone(), super::now());
    log.append(StreamId::Session(session), Expected::NoStream, events)
        .await
        .map_err(|error| Failure::because("cannot record the new session", error))?;

    let context = beginning.context();
    let origin = beginning.origin();
    let cannot = connection
        .capabilities
        .is_some_and(|known| !known.words.iter().any(|word| word == capability::FORK));
    let by = match (&origin, &context) {
        (Some(_), _) if !cannot => By::Copy,
        (_, Some(_)) => By::Text,
        (_, None) => By::Nothing,
    };
    let (agent_session, through) = origin
        .map(|origin| (origin.agent_session, origin.through))
        .unzip();
    let forked = Forked {
        session,
        from,
        at: at.0,
        messages: beginning.messages(),
        by,
        agent_session,
        through,
        context_bytes: context.map_or(0, |context| context.len()),
        left_open: beginning.left_open().map(|message| message.id),
    };
    if json {
        output.json(&forked)?;
        return Ok(());
    }
    let messages = text::count(forked.messages as u64, "message");
    output.line(&format!(
        "session {session} goes on from {from} as of event {at}, with {messages}"
    ))?;
    output.flush()?;
    if let Some(message) = forked.left_open {
        note(&format!(
            "· message {message} had no end by then, and is no part of it"
        ));
    }
    note(&match (by, &forked.agent_session) {
        (By::Copy, Some(agent_session)) => format!(
            "· by a copy: the agent is asked to copy {agent_session} when the first message is sent"
        ),
        (By::Text, _) => format!(
            "· by text: the agent has no copy of it, so what was said ({}) goes along with the first message",
            text::bytes(forked.context_bytes as u64)
        ),
        _ => "· nothing was said by then: the agent begins anew".to_owned(),
    });
    note(&format!(
        "  recount run --session {session} \"…\"    sends the first message"
    ));
    Ok(())
}
