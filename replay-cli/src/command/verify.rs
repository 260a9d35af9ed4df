//! `recount verify`: that the log is whole.

use recount_store::log::{Verified, verify};
use recount_store::{Error, LogReader, SessionId, StreamId};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;
use crate::render::text;
use crate::timeline::Timeline;

/// Proves that everything is whole, or one session and its connection.
pub(crate) fn run(
    reader: &LogReader,
    only: Option<SessionId>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    match check(reader, only) {
        Ok(verified) if json => {
            // Of a few streams nothing is proven about the whole.
            let head = only
                .is_none()
                .then_some((verified.head_position, verified.head_hash));
            output.json(&json!({
                "ok": true,
                "events": verified.events,
                "streams": verified.streams,
                "unknown": verified.unknown,
                "frames": only.is_none().then_some(verified.frames),
                "position": head.map(|(position, _)| position),
                "head": head.map(|(_, hash)| hash.to_string()),
            }))?;
        }
        Ok(verified) => {
            output.line(&told(&verified))?;
            if only.is_none() {
                let Verified {
                    head_position,
                    head_hash,
                    ..
                } = verified;
                output.line(&format!("head {head_hash} at position {head_position}"))?;
            }
        }
        Err(Error::Corrupt { position, what }) => {
            if json {
                output.json(&json!({"ok": false, "position": position, "what": what}))?;
            } else {
                output.line(&output.look.bad("not whole"))?;
            }
            output.flush()?;
            return Err(Failure::because(
                "the log is not whole",
                Error::Corrupt { position, what },
            )
            .try_next("what comes before it can still be read: recount log ID"));
        }
        Err(Error::CorruptFrame { number, what }) => {
            if json {
                output.json(&json!({"ok": false, "frame": number, "what": what}))?;
            } else {
                output.line(&output.look.bad("not whole"))?;
            }
            output.flush()?;
            return Err(Failure::because(
                "the log is not whole",
                Error::CorruptFrame { number, what },
            )
            .try_next("all events are, and do not need the frames"));
        }
        Err(error) => return Err(Failure::because("cannot verify the log", error)),
    }
    Ok(())
}

fn check(reader: &LogReader, only: Option<SessionId>) -> Result<Verified, Error> {
    let Some(session) = only else {
        return verify(reader, None);
    };
    let mut sum = verify(reader, Some(StreamId::Session(session)))?;
    if let Some(connection) = Timeline::of(reader, session)?.connection {
        let link = verify(reader, Some(StreamId::Connection(connection)))?;
        sum.events += link.events;
        sum.streams += link.streams;
        sum.unknown += link.unknown;
    }
    Ok(sum)
}

fn told(verified: &Verified) -> String {
    let unknown = match verified.unknown {
        0 => String::new(),
        1 => ", 1 of them of a newer release".to_owned(),
        many => format!(", {many} of them of a newer release"),
    };
    let frames = match verified.frames {
        0 => String::new(),
        some => format!("; {}", text::count(some, "frame")),
    };
    format!(
        "whole: {} in {}{unknown}{frames}",
        text::count(verified.events, "event"),
        text::count(verified.streams, "stream")
    )
}
