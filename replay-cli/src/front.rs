//! Fronts of streams: what was cut off one, and what may be.

use recount_projections::{Session, state_store};
use recount_store::{Error, Event, LogReader, Recorded, Result, Seq, StreamId, Timestamp};
use serde::Serialize;

use crate::args::At;
use crate::failure::Failure;
use crate::render::{Look, event, text, time};

/// That the front of a stream was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The number of the first event that remains.
    pub(crate) before: Seq,
    /// When it was cut.
    pub(crate) at: Timestamp,
}

impl Cut {
    /// The last cut of a stream; none where it has all of its events.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn of(reader: &LogReader, stream: StreamId) -> Result<Option<Self>> {
        let head = reader.stream_head(stream)?;
        if head.is_none_or(|head| head.from == Seq::FIRST) {
            return Ok(None);
        }
        for recorded in reader.read_backwards(stream, Seq(u64::MAX)) {
            if let Recorded {
                event: Event::StreamCut { before, .. },
                at,
                ..
            } = recorded?
            {
                return Ok(Some(Self { before, at }));
            }
        }
        Ok(None)
    }

    /// What a person is told.
    pub(crate) fn told(&self, look: &Look) -> String {
        let at = time::full(self.at, &look.zone);
        format!("{} on {at}", event::cut(self.before))
    }
}

impl Serialize for Cut {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct View {
            before: Seq,
            at: String,
        }
        let view = View {
            before: self.before,
            at: time::rfc3339(self.at),
        };
        view.serialize(serializer)
    }
}

/// The front of a stream, which is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Front {
    /// The stream.
    pub(crate) stream: StreamId,
    /// The first event that goes.
    pub(crate) from: Seq,
    /// The first that stays.
    pub(crate) before: Seq,
    /// When the first that goes happened.
    pub(crate) begin: Timestamp,
    /// When the last that goes happened.
    pub(crate) end: Timestamp,
}

impl Front {
    /// The front of a stream up to an event; of a stream that has one.
    ///
    /// # Errors
    ///
    /// [`Error::NothingToCut`] where nothing is before it, or it is beyond the end.
    pub(crate) fn before(reader: &LogReader, stream: StreamId, before: Seq) -> Result<Self> {
        let head = reader.stream_head(stream)?;
        let (last, from) = head.map_or((Seq(0), Seq::FIRST), |head| (head.seq, head.from));
        if before <= from || before > last.next() {
            return Err(Error::NothingToCut {
                stream,
                before,
                from,
                last,
            });
        }
        let at = |seq: Seq| -> Result<Timestamp> {
            let event = reader.read(stream, seq).next().transpose()?;
            Ok(event.map_or(Timestamp::default(), |event| event.at))
        };
        Ok(Self {
            stream,
            from,
            before,
            begin: at(from)?,
            end: at(Seq(before.0 - 1))?,
        })
    }

    /// All of a stream; none where only the event that says so is left of it already.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn all(reader: &LogReader, stream: StreamId) -> Result<Option<Self>> {
        let Some(head) = reader.stream_head(stream)? else {
            return Ok(None);
        };
        if head.from == head.seq && Cut::of(reader, stream)?.is_some() {
            return Ok(None);
        }
        Self::before(reader, stream, head.seq.next()).map(Some)
    }

    /// What of a stream is older than a time, up to the first event that is not; none where nothing is.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn older(
        reader: &LogReader,
        stream: StreamId,
        time: Timestamp,
    ) -> Result<Option<Self>> {
        let mut before = None;
        for recorded in reader.read(stream, Seq::FIRST) {
            let recorded = recorded?;
            if recorded.at >= time {
                break;
            }
            before = Some(recorded.seq.next());
        }
        before
            .map(|before| Self::before(reader, stream, before))
            .transpose()
    }

    /// The same, or less of it: not beyond `before`. None where nothing is left then.
    pub(crate) fn up_to(self, reader: &LogReader, before: Seq) -> Result<Option<Self>> {
        if before >= self.before {
            return Ok(Some(self));
        }
        if before <= self.from {
            return Ok(None);
        }
        Self::before(reader, self.stream, before).map(Some)
    }

    /// How many events go.
    pub(crate) const fn events(&self) -> u64 {
        self.before.0 - self.from.0
    }

    /// What a person is told of it.
    pub(crate) fn told(&self, look: &Look) -> String {
        let last = Seq(self.before.0 - 1);
        let numbers = if self.from == last {
            format!("number {last}")
        } else {
            format!("numbers {} to {last}", self.from)
        };
        let stream = name(self.stream);
        let (begin, end) = (
            time::full(self.begin, &look.zone),
            time::full(self.end, &look.zone),
        );
        let events = text::count(self.events(), "event");
        format!("{events} of {stream}, {numbers}, {begin} to {end}")
    }

    /// As JSON.
    pub(crate) fn view(&self) -> serde_json::Value {
        serde_json::json!({
            "stream": self.stream.to_string(),
            "events": self.events(),
            "from": self.from,
            "before": self.before,
            "begin": time::rfc3339(self.begin),
            "end": time::rfc3339(self.end),
        })
    }
}

/// What people call a stream.
pub(crate) fn name(stream: StreamId) -> String {
    match stream {
        StreamId::Engine => "the engine".to_owned(),
        StreamId::Session(id) => format!("session {id}"),
        StreamId::Connection(id) => format!("connection {id}"),
    }
}

/// What a person wants to go of a stream, if nothing speaks against it.
///
/// # Errors
///
/// Where there is nothing like that, or the engine still needs it.
pub(crate) fn wanted(
    reader: &LogReader,
    stream: StreamId,
    before: Option<At>,
) -> Result<Front, Failure> {
    let last = last_that_stays(reader, stream)?;
    let name = name(stream);
    let front = match before {
        None => Front::all(reader, stream)?.ok_or_else(|| {
            Failure::new(format!(
                "{name} was cut already: nothing else is left of it"
            ))
        })?,
        Some(At::Number(before)) => {
            Front::before(reader, stream, before).map_err(|error| match error {
                Error::NothingToCut { .. } => Failure::because("nothing was cut", error),
                error => error.into(),
            })?
        }
        Some(At::Time(time)) => Front::older(reader, stream, time)?.ok_or_else(|| {
            let time = time::rfc3339(time);
            Failure::new(format!("nothing of {name} is older than {time}"))
        })?,
    };
    match last {
        Some(last) if front.before > last => {
            let failure = Failure::new(format!(
                "{name} cannot be cut beyond event {last}: its last start and its last policy stay, since they say who writes the log, and how"
            ));
            Err(if last > front.from {
                failure.try_next(format!("recount cut {stream} --before {last}"))
            } else {
                failure
            })
        }
        _ => Ok(front),
    }
}

/// The event of a stream that must stay, if any must.
///
/// # Errors
///
/// Where all of them must.
fn last_that_stays(reader: &LogReader, stream: StreamId) -> Result<Option<Seq>, Failure> {
    match stream {
        StreamId::Engine => Ok(Some(first_of_engine(reader)?)),
        StreamId::Connection(id) => Err(Failure::new(format!(
            "connection {id} cannot be cut: the engine folds from its first event on where it leads, what server runs and whether it may be tried"
        ))
        .try_next("recount cut SESSION --all    sessions are what takes space, once they are closed")),
        StreamId::Session(id) => {
            let session: Session = state_store::load(reader, stream)?;
            let open = session.queue.open().count() as u64;
            if !session.closed {
                return Err(Failure::new(format!(
                    "session {id} is not closed: what the engine does next follows from its first event on, so a part of it could not go on"
                ))
                .try_next(format!("recount close {id}    closes it for good; then it can be cut")));
            }
            if open > 0 {
                let messages = text::count(open, "message");
                return Err(Failure::new(format!(
                    "session {id} is closed, but has {messages} open"
                ))
                .try_next("recount recover    carries what is open to its end"));
            }
            Ok(None)
        }
    }
}

/// Whether all of a session can go: nothing follows from it any more.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn is_over(reader: &LogReader, stream: StreamId) -> Result<bool> {
    let session: Session = state_store::load(reader, stream)?;
    Ok(session.closed && session.queue.open().next().is_none())
}

/// The first of the engine's own events that stays: its last start, since who wants the log that is in use is told
/// by it who uses it, and its last policy, since decisions follow from it. The last event where there is no start.
///
/// # Errors
///
/// Where the log cannot be read.
pub(crate) fn first_of_engine(reader: &LogReader) -> Result<Seq> {
    let (mut end, mut start, mut policy) = (Seq::FIRST, None, None);
    for recorded in reader.read_backwards(StreamId::Engine, Seq(u64::MAX)) {
        let recorded = recorded?;
        end = end.max(recorded.seq);
        match recorded.event {
            Event::EngineStarted { .. } => start = start.or(Some(recorded.seq)),
            Event::PolicyAdopted { .. } => policy = policy.or(Some(recorded.seq)),
            _ => {}
        }
        if start.is_some() && policy.is_some() {
            break;
        }
    }
    let start = start.unwrap_or(end);
    Ok(policy.map_or(start, |policy| start.min(policy)))
}
