//! `recount close`: the end of a session.

use recount_engine::SessionPolicy;
use recount_engine::command::{Command, decide};
use recount_projections::{Session, state_store};
use recount_store::{Expected, Log, SessionId, StreamId};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Closes a session that has nothing open.
pub(crate) async fn run(
    log: &Log,
    id: SessionId,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let stream = StreamId::Session(id);
    let session: Session = state_store::load(log, stream)?;
    if session.queue.head().is_some() {
        let status = session.status().name();
        return Err(Failure::new(format!(
            "session {id} is {status}: what is open in it comes first"
        ))
        .try_next("recount recover    carries it to its end"));
    }
    // Nothing is queued by closing, so any bounds do.
    let bounds = SessionPolicy::default().bounds(false);
    let (events, _) = decide(&session, Command::Close, bounds, super::now())
        .map_err(|_| Failure::new(format!("session {id} is closed already")))?;
    log.append(stream, Expected::Exact(session.seq), events)
        .await
        .map_err(|error| Failure::because("cannot close the session", error))?;
    if json {
        output.json(&json!({"session": id, "closed": true}))?;
    } else {
        output.line(&format!("closed: session {id}"))?;
    }
    Ok(())
}
