//! The events of a session with those of its connection between them, in the order of the log.

use recount_projections::state_store;
use recount_store::{
    ConnectionId, Event, LogReader, Position, Recorded, Result, Select, Seq, SessionId, StreamId,
    Tail,
};

use crate::render::show::Standing;

/// Which events belong to a session's timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// The session.
    pub(crate) session: SessionId,
    /// Its connection; none where the log does not name it.
    pub(crate) connection: Option<ConnectionId>,
    /// The session's first event.
    pub(crate) first: Position,
}

impl Timeline {
    /// The timeline of a session that the log has events of.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn of(reader: &LogReader, session: SessionId) -> Result<Self> {
        let first = reader
            .read(StreamId::Session(session), Seq::FIRST)
            .next()
            .transpose()?;
        let connection = match &first {
            Some(Recorded {
                event: Event::SessionOpened { connection, .. },
                ..
            }) => Some(*connection),
            _ => None,
        };
        Ok(Self {
            session,
            connection,
            first: first.map_or(Position::FIRST, |first| first.position),
        })
    }

    /// How its connection stood before its first event; of the session nothing.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn prologue(&self, reader: &LogReader) -> Result<Standing> {
        let mut standing = Standing::default();
        let Some(connection) = self.connection else {
            return Ok(standing);
        };
        let before = Position(self.first.0 - 1);
        let last = last_through(reader, StreamId::Connection(connection), before)?;
        (standing.connection, standing.breaker) =
            state_store::load_connection(reader, connection, last)?;
        Ok(standing)
    }

    /// The events up to a position, in order: from the session's first one to its last, and what comes
    /// after that on its connection if `trailing`.
    pub(crate) fn events(
        &self,
        reader: &LogReader,
        through: Position,
        trailing: bool,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        let first = self.first;
        let bounded = move |event: &Result<Recorded>| {
            event
                .as_ref()
                .map_or(true, |recorded| recorded.position <= through)
        };
        let session = reader
            .read(StreamId::Session(self.session), Seq::FIRST)
            .take_while(bounded);
        let connection = self
            .connection
            .map(|id| reader.read(StreamId::Connection(id), Seq::FIRST))
            .into_iter()
            .flatten()
            .skip_while(move |event| {
                event
                    .as_ref()
                    .is_ok_and(|recorded| recorded.position < first)
            })
            .take_while(bounded);
        merge(session, connection, trailing, |a, b| a < b)
    }

    /// About how many events it has: with those of its connection before its first.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn count(&self, reader: &LogReader) -> Result<u64> {
        let mut count = 0;
        let connection = self.connection.map(StreamId::Connection);
        for stream in [StreamId::Session(self.session)]
            .into_iter()
            .chain(connection)
        {
            let head = reader.stream_head(stream)?;
            count += head.map_or(0, |head| head.seq.0 + 1 - head.from.0);
        }
        Ok(count)
    }

    /// The same events as of now, the last one first.
    pub(crate) fn backwards(
        &self,
        reader: &LogReader,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        let newest = Seq(u64::MAX);
        let mut session = reader
            .read_backwards(StreamId::Session(self.session), newest)
            .peekable();
        let last = match session.peek() {
            Some(Ok(last)) => last.position,
            Some(Err(_)) | None => Position::default(),
        };
        let first = self.first;
        let connection = self
            .connection
            .map(|id| reader.read_backwards(StreamId::Connection(id), newest))
            .into_iter()
            .flatten()
            .skip_while(move |event| event.as_ref().is_ok_and(|event| event.position > last))
            .take_while(move |event| event.as_ref().map_or(true, |event| event.position >= first));
        merge(session, connection, false, |a, b| a > b)
    }

    /// What comes in both streams from a position on.
    pub(crate) fn tail(&self, reader: &LogReader, from: Position) -> Tail {
        let mut streams = vec![StreamId::Session(self.session)];
        streams.extend(self.connection.map(StreamId::Connection));
        reader.tail(Select::Streams(streams), from)
    }
}

/// A place in a timeline: the last events of both streams up to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Of the session.
    pub(crate) session: Seq,
    /// Of its connection.
    pub(crate) connection: Seq,
}

impl Timeline {
    /// The place of a position.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn place(&self, reader: &LogReader, at: Position) -> Result<Place> {
        let connection = match self.connection {
            Some(id) => last_through(reader, StreamId::Connection(id), at)?,
            None => Seq::default(),
        };
        let session = last_through(reader, StreamId::Session(self.session), at)?;
        Ok(Place {
            session,
            connection,
        })
    }

    /// The events after a place, in order.
    pub(crate) fn after(
        &self,
        reader: &LogReader,
        place: Place,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        let first = self.first;
        let session = reader.read(StreamId::Session(self.session), place.session.next());
        let connection = self
            .connection
            .map(|id| reader.read(StreamId::Connection(id), place.connection.next()))
            .into_iter()
            .flatten()
            .skip_while(move |event| event.as_ref().is_ok_and(|event| event.position < first));
        merge(session, connection, true, |a, b| a < b)
    }

    /// The events up to a place, the last one first.
    pub(crate) fn before(
        &self,
        reader: &LogReader,
        place: Place,
    ) -> impl Iterator<Item = Result<Recorded>> + use<> {
        let first = self.first;
        // There is no event of number 0 to begin with.
        let back = |stream, from: Seq| {
            let some = from >= Seq::FIRST;
            let events = some.then(|| reader.read_backwards(stream, from));
            events.into_iter().flatten()
        };
        let session = back(StreamId::Session(self.session), place.session);
        let connection = self
            .connection
            .map(|id| back(StreamId::Connection(id), place.connection))
            .into_iter()
            .flatten()
            .take_while(move |event| event.as_ref().map_or(true, |event| event.position >= first));
        merge(session, connection, true, |a, b| a > b)
    }
}

/// The number of the last event of a stream up to a position, found by halves.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn last_through(reader: &LogReader, stream: StreamId, at: Position) -> Result<Seq> {
    let Some(head) = reader.stream_head(stream)? else {
        return Ok(Seq::default());
    };
    if head.last <= at {
        return Ok(head.seq);
    }
    let (mut low, mut high) = (head.from.0 - 1, head.seq.0);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let event = reader.read(stream, Seq(middle)).next().transpose()?;
        match event {
            Some(event) if event.position <= at => low = middle,
            _ => high = middle - 1,
        }
    }
    Ok(Seq(low))
}

/// Whether a server ended because the engine had decided so: then nothing went wrong.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn stop_was_decided(reader: &LogReader, recorded: &Recorded) -> Result<bool> {
    let (Event::ServerExited { .. }, Some(cause)) = (&recorded.event, recorded.cause) else {
        return Ok(false);
    };
    let cause = reader.read_range(cause..=cause, |_| true).next();
    let decided = cause.transpose()?.map(|cause| cause.event);
    Ok(matches!(decided, Some(Event::ServerStopDecided { .. })))
}

/// Both in the order of their positions, as `precedes` says it; ends with `leading` unless `trailing`.
fn merge(
    leading: impl Iterator<Item = Result<Recorded>>,
    other: impl Iterator<Item = Result<Recorded>>,
    trailing: bool,
    precedes: fn(Position, Position) -> bool,
) -> impl Iterator<Item = Result<Recorded>> {
    let (mut leading, mut other) = (leading.peekable(), other.peekable());
    std::iter::from_fn(move || match (leading.peek(), other.peek()) {
        (Some(Ok(a)), Some(Ok(b))) if precedes(b.position, a.position) => other.next(),
        (Some(Ok(_)), Some(Err(_))) => other.next(),
        (Some(_), _) => leading.next(),
        (None, _) if trailing => other.next(),
        (None, _) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::fixture;

    fn merged(leading: &[u64], other: &[u64], trailing: bool) -> Vec<u64> {
        let events = |positions: &[u64]| -> Vec<_> {
            let event = |n: &u64| Ok(fixture::session_event(*n, Event::SessionClosed));
            positions.iter().map(event).collect()
        };
        merge(
            events(leading).into_iter(),
            events(other).into_iter(),
            trailing,
            |a, b| a < b,
        )
        .map(|event| event.expect("all can be read").position.0)
        .collect()
    }

    #[test]
    fn events_come_in_the_order_of_the_log() {
        assert_eq!(merged(&[1, 4, 5], &[2, 3, 7], false), [1, 2, 3, 4, 5]);
        assert_eq!(merged(&[1, 4, 5], &[2, 3, 7], true), [1, 2, 3, 4, 5, 7]);
        assert_eq!(merged(&[], &[2], false), [0; 0]);
    }
}
