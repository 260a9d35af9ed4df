//! `recount show`: how a session stands, or stood.

use recount_projections::{Projection, Turn, state_store};
use recount_store::{LogReader, Position, Result, Seq, SessionId, StreamId, Timestamp};

use crate::args::{self, At};
use crate::failure::Failure;
use crate::front::Cut;
use crate::output::Output;
use crate::render::show::{Standing, Through};
use crate::render::{Look, time};
use crate::timeline;

/// How many messages a person is shown with all that was said and done about them: what is looked for is near the end,
/// and a long session would take as long as it is. A program gets what it asked for.
const MESSAGES_MAX: usize = 20;

/// Shows a session as of its last event, or as of a moment; with its last messages, or with all of them.
pub(crate) fn run(
    reader: &LogReader,
    id: SessionId,
    wanted: &args::Show,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let at = wanted.at;
    let (through, last) = moment(reader, id, at, &output.look)?;
    let most = if wanted.all || json {
        usize::MAX
    } else {
        MESSAGES_MAX
    };
    let most = wanted.last.unwrap_or(most);
    let stream = StreamId::Session(id);
    let head = reader.stream_head(stream)?;
    let events = head.map_or(0, |head| head.seq.0);
    let mut standing = standing(reader, id, (through, last), most)?;
    standing.cut = Cut::of(reader, stream)?;
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

/// The last event of the log, and the last of a session, that had happened by a moment; by now, where none is named.
///
/// # Errors
///
/// Where the session has no event by then, or where nobody knows any more how it stood.
pub(super) fn moment(
    reader: &LogReader,
    id: SessionId,
    at: Option<At>,
    look: &Look,
) -> std::result::Result<(Position, Seq), Failure> {
    let stream = StreamId::Session(id);
    let through = match at {
        Some(At::Number(number)) => {
            let head = reader.stream_head(stream)?;
            let events = head.map_or(0, |head| head.seq.0);
            if number.0 > events {
                return Err(Failure::new(format!(
                    "session {id} has {events} events, and none with number {number}"
                ))
                .try_next(format!("recount log {id}    numbers them")));
            }
            if let Some(cut) = Cut::of(reader, stream)?
                && number < cut.before
            {
                let told = cut.told(look);
                return Err(Failure::new(format!(
                    "of session {id}, {told}: event {number} is one of them"
                ))
                .try_next(format!("recount log {id}    shows what remains")));
            }
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
    let head = reader.stream_head(stream)?;
    if let Some(At::Time(moment)) = at
        && last < head.map_or(Seq::FIRST, |head| head.from)
    {
        let moment = time::rfc3339(moment);
        if let Some(cut) = Cut::of(reader, stream)? {
            let told = cut.told(look);
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
            "session {id} did not exist at {moment}: it was opened at {}",
            time::rfc3339(opened)
        )));
    }
    Ok((through, last))
}

/// Where a session and its connection stood at a moment; with what was said and done about its last messages, at most so
/// many.
fn standing(
    reader: &LogReader,
    id: SessionId,
    (through, last): (Position, Seq),
    most: usize,
) -> Result<Standing> {
    let stream = StreamId::Session(id);
    let mut standing = Standing {
        session: state_store::load_through(reader, stream, last)?,
        ..Standing::default()
    };
    let messages = standing.session.queue.messages();
    let mut from = Seq::FIRST;
    if messages.len() > most {
        standing.earlier = messages.len() - most;
        from = match messages.get(standing.earlier) {
            Some(first) => timeline::last_through(reader, stream, first.queued)?,
            None => last.next(),
        };
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
