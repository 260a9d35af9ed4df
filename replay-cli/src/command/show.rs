//! `recount show`: how a session stands, or stood.

use recount_projections::Projection;
use recount_store::{LogReader, Position, Recorded, Result, Seq, SessionId, StreamId, Timestamp};

use crate::args::At;
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::Output;
use crate::render::show::{Standing, Through};
use crate::render::time;

/// Shows a session as of its last event, or as of a moment.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    at: Option<At>,
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
    let mut standing = fold(reader, id, at)?;
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

/// Folds a session, and its connection up to the same moment.
pub(crate) fn fold(reader: &LogReader, id: SessionId, at: Option<At>) -> Result<Standing> {
    let mut standing = Standing::default();
    for recorded in reader.read(StreamId::Session(id), Seq::FIRST) {
        let recorded = recorded?;
        let beyond = match at {
            Some(At::Number(number)) => recorded.seq > number,
            Some(At::Time(moment)) => recorded.at > moment,
            None => false,
        };
        if beyond {
            break;
        }
        standing.session.apply(&recorded);
        standing.transcript.apply(&recorded);
    }
    let Some(opening) = &standing.session.opening else {
        return Ok(standing);
    };
    let last: Position = standing.session.last;
    let connection = StreamId::Connection(opening.connection);
    let within = |recorded: &Recorded| match at {
        Some(At::Number(_)) => recorded.position <= last,
        Some(At::Time(moment)) => recorded.at <= moment,
        None => true,
    };
    for recorded in reader.read(connection, Seq::FIRST) {
        let recorded = recorded?;
        if !within(&recorded) {
            break;
        }
        standing.connection.apply(&recorded);
        standing.breaker.apply(&recorded);
    }
    Ok(standing)
}
