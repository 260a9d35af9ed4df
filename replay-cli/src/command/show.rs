//! `recount show`: how a session stands, or stood.

use recount_projections::{Projection, Turn, state_store};
use recount_store::{LogReader, Position, Result, Seq, SessionId, StreamId, Timestamp};

use crate::args::At;
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::Output;
use crate::render::show::{Standing, Through};
use crate::render::time;
use crate::timeline;

/// How many messages are shown with all that was said and done about them: what a person looks for is near the end,
/// and a long session would take as long as it is.
const MESSAGES_MAX: usize = 20;

/// Shows a session as of its last event, or as of a moment; with its last messages, or with all of them.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    at: Option<At>,
    all: bool,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let head = reader.stream_head(StreamId::Session(id))?;
    let events = head.map_or(0, |head| head.seq.0);
    if let Some(At::Number(Seq(number))) = at
        && number > events
    {
        let what = format!("session {id} has {events} events, and none with number {number}");
        return Err(Failure::new(what).try_next(format!("recount log {id}    numbers them")));
    }
    let stream = StreamId::Session(id);
    let cut = Cut::of(reader, stream)?;
    if let (Some(At::Number(number)), Some(cut)) = (at, cut)
        && number < cut.before
    {
        let told = cut.told(&output.look);
        return Err(Failure::new(format!(
            "of session {id}, {told}: event {number} is one of them"
        ))
        .try_next(format!("recount log {id}    shows what remains")));
    }
    let mut standing = standing(reader, id, at, all)?;
    standing.cut = cut;
    if let Some(At::Time(moment)) = at
        && standing.session.seq == Seq::default()
    {
        if let Some(cut) = cut {
            let (moment, told) = (time::rfc3339(moment), cut.told(&output.look));
            return Err(Failure::new(format!(
                "how session {id} stood at {moment} is not known any more: {told}"
            ))
            .try_next(format!("recount log {id}    shows what remains")));
        }
        let first = reader.read(stream, Seq::FIRST).next();
        let opened = first
            .transpose()?
            .map_or(Timestamp::default(), |first| first.at);
        return Err(Failure::new(format!(
            "session {id} did not exist at {}: it was opened at {}",
            time::rfc3339(moment),
            time::rfc3339(opened)
        )));
    }
    if json {
        output.json(&standing.view(id))?;
    } else {
        let moment = match at {
            Some(At::Time(moment)) => Some(moment),
            Some(At::Number(_)) | None => None,
        };
        let text = standing.text(
            id,
            Through { events, moment },
            super::seen_at(),
            &output.look,
        );
        output.line(&text)?;
    }
    Ok(())
}

/// Where a session and its connection stood at a moment, or stand now; with what was said and done about its last
/// messages, or about all of them.
fn standing(reader: &LogReader, id: SessionId, at: Option<At>, all: bool) -> Result<Standing> {
    let stream = StreamId::Session(id);
    let through = match at {
        Some(At::Number(number)) => {
            let event = reader.read(stream, number).next().transpose()?;
            event.map_or(Position::default(), |event| event.position)
        }
        Some(At::Time(Timestamp(moment))) => {
            let after = reader.position_at(Timestamp(moment.saturating_add(1)))?;
            Position(after.0.saturating_sub(1))
        }
        None => reader.head()?.position,
    };
    let last = timeline::last_through(reader, stream, through)?;
    let mut standing = Standing {
        session: state_store::load_through(reader, stream, last)?,
        ..Standing::default()
    };
    let messages = standing.session.queue.messages();
    let mut from = Seq::FIRST;
    if !all && messages.len() > MESSAGES_MAX {
        standing.earlier = messages.len() - MESSAGES_MAX;
        let queued = messages[standing.earlier].queued;
        from = timeline::last_through(reader, stream, queued)?;
    }
    for recorded in reader.read(stream, from) {
        let recorded = recorded?;
        if recorded.seq > last {
            break;
        }
        standing.transcript.apply(&recorded);
    }
    // A message that was queued earlier may have been worked on later.
    let earlier = &messages[..standing.earlier];
    let is_earlier = |turn: &Turn| earlier.iter().any(|message| message.id == turn.message);
    standing.transcript.turns.retain(|turn| !is_earlier(turn));
    if let Some(opening) = &standing.session.opening {
        let id = opening.connection;
        let last = timeline::last_through(reader, StreamId::Connection(id), through)?;
        (standing.connection, standing.breaker) = state_store::load_connection(reader, id, last)?;
    }
    Ok(standing)
}
