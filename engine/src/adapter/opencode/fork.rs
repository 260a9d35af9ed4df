//! Copying a session up to one of its messages.
//!
//! A server is told the first message that is not copied. It does not say what it copied: where it does not hold that
//! message it copies everything, and a message that came a moment ago is copied with the others. So the history is read
//! before and the copy after it, and the copy gets its title, by which it is found again, when it holds what it should.

use super::calls::Calls;
use super::history::{self, History, Message, Page};
use crate::adapter::{AgentSession, CallError, Endpoint, Origin, SessionSpec};

pub(super) async fn fork_session(
    calls: &Calls,
    endpoint: &Endpoint,
    spec: &SessionSpec,
    origin: &Origin,
) -> Result<String, CallError> {
    let session = |id: &str| AgentSession {
        id: id.to_owned(),
        directory: spec.directory.clone(),
    };
    let history = |session| History {
        calls,
        endpoint,
        session,
    };
    let source = session(&origin.agent_session);
    let page = history(&source).back(|_| false).await?;
    let end = end_of(&page, &origin.through).map_err(|why| CallError::RefusedForGood {
        reason: format!("the session {} cannot be copied: {why}", source.id),
    })?;
    let before = page.messages.get(end).and_then(Message::user);
    let count = u32::try_from(end).unwrap_or(u32::MAX);
    let copy = calls.copy_session(endpoint, &source, before, count).await?;
    let copy = session(&copy);
    let claimed = claim(history(&copy), &page.messages[..end], &spec.title).await;
    claimed.map_err(|error| match error {
        // It says nothing of the session that was copied.
        CallError::NoSuchSession { reason } => CallError::Unknown { reason },
        other => other,
    })?;
    Ok(copy.id)
}

/// Gives the copy its title, where it holds such messages as these.
async fn claim(copy: History<'_>, expected: &[Message], title: &str) -> Result<(), CallError> {
    let Page { messages, before } = copy.back(|_| false).await?;
    let is_user = |message: &Message| message.user().is_some();
    let same = before.is_none()
        && messages
            .iter()
            .map(is_user)
            .eq(expected.iter().map(is_user));
    if !same {
        return Err(CallError::Unknown {
            reason: format!(
                "the copy {} holds other messages than it should: {} instead of {}",
                copy.session.id,
                messages.len(),
                expected.len()
            ),
        });
    }
    let History {
        calls,
        endpoint,
        session,
    } = copy;
    calls.rename_session(endpoint, session, title).await
}

/// How many messages of a session are those up to `through` with its answers; or why that cannot be said.
fn end_of(page: &Page, through: &str) -> Result<usize, String> {
    let Page { messages, before } = page;
    if before.is_some() {
        let read = messages.len();
        return Err(format!("it holds more than {read} messages"));
    }
    let Some(turn) = history::turn(messages, through) else {
        return Err(format!("it has no message {through}"));
    };
    match history::answers(messages, &turn).last() {
        Some((at, late)) if at >= turn.end => {
            let late = &late.answer.id;
            Err(format!(
                "{late}, an answer to {through}, came after the next message"
            ))
        }
        _ => Ok(turn.end),
    }
}
