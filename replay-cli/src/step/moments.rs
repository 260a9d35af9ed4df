//! The state at any moment of a session, and how to come to it fast.

use std::collections::BTreeMap;

use recount_projections::turn::Item;
use recount_projections::{Breaker, Connection, Projection as _, Session, state_store};
use recount_store::{LogReader, Position, Recorded, Result, Seq, StreamId};

use crate::timeline::{Place, Timeline, last_through};

/// How many events are between two checkpoints that are kept on the way: what a step back folds, where one stands
/// long enough.
const EVERY: u64 = 2048;

/// How many checkpoints are kept.
const CHECKPOINTS_MAX: usize = 128;

/// How many bytes of states are kept, more or less; at least one checkpoint is, however large.
const BYTES_MAX: usize = 128 << 20;

/// From how far away the log is asked whether it has kept a state that is nearer, in positions.
const FAR: u64 = 16_384;

/// A session and its connection just after an event.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Moment {
    /// The last event.
    pub(crate) position: Position,
    /// Where it is in the timeline.
    pub(crate) place: Place,
    /// What the engine decides by.
    pub(crate) session: Session,
    /// Its connection.
    pub(crate) connection: Connection,
    /// The breaker of its connection.
    pub(crate) breaker: Breaker,
}

impl Moment {
    fn apply(&mut self, recorded: &Recorded) {
        self.position = recorded.position;
        match recorded.stream {
            StreamId::Session(_) => {
                self.place.session = recorded.seq;
                self.session.apply(recorded);
            }
            StreamId::Connection(_) => {
                self.place.connection = recorded.seq;
                self.connection.apply(recorded);
                self.breaker.apply(recorded);
            }
            StreamId::Engine => {}
        }
    }

    /// About how many bytes it takes.
    fn bytes(&self) -> usize {
        const MESSAGE: usize = 512;
        let turn = self.session.turn.iter().flat_map(|turn| &turn.runs);
        let said: usize = turn
            .flat_map(|run| &run.items)
            .map(|item| match item {
                Item::Part(part) => part.text.len(),
                Item::Call(call) => {
                    let output = call.outcome.as_ref().map_or(0, |(_, output)| output.len());
                    call.input.len() + output
                }
            })
            .sum();
        said + self.session.queue.bytes() + self.session.queue.messages().len() * MESSAGE
    }
}

/// Moments of one session, from checkpoints.
pub(crate) struct Moments {
    reader: LogReader,
    timeline: Timeline,
    /// The one that was asked for last.
    current: Moment,
    /// Others, to begin from.
    kept: BTreeMap<Position, Moment>,
    bytes: usize,
}

impl Moments {
    /// Of the session of a timeline.
    pub(crate) fn of(reader: &LogReader, timeline: Timeline) -> Self {
        Self {
            reader: reader.clone(),
            timeline,
            current: Moment::default(),
            kept: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// The moment just after the event at a position, which is one of the timeline's.
    ///
    /// # Errors
    ///
    /// Where the log cannot be read.
    pub(crate) fn at(&mut self, position: Position) -> Result<&Moment> {
        if position != self.current.position {
            self.begin(position)?;
            self.fold(position)?;
        }
        Ok(&self.current)
    }

    /// Goes to the nearest state that is known, before the position.
    fn begin(&mut self, position: Position) -> Result<()> {
        let kept = self.kept.range(..=position).next_back();
        let kept = kept.map_or(Position::default(), |(position, _)| *position);
        if self.current.position > position || self.current.position < kept {
            self.current = self.kept.get(&kept).cloned().unwrap_or_default();
        }
        if position.0 - self.current.position.0 < FAR {
            return Ok(());
        }
        let stream = StreamId::Session(self.timeline.session);
        let through = self.timeline.place(&self.reader, position)?.session;
        let near: Option<(Seq, Session)> =
            state_store::kept_through(&self.reader, stream, through)?;
        if let Some((seq, session)) = near
            && seq > self.current.place.session
        {
            self.current = self.with_connection(session)?;
            self.keep();
        }
        Ok(())
    }

    /// The moment of a session's state, with the connection as it then stood.
    fn with_connection(&self, session: Session) -> Result<Moment> {
        // The connection may be older than the session.
        let before = Position(self.timeline.first.0 - 1);
        let position = session.last.max(before);
        let mut moment = Moment::default();
        if let Some(id) = self.timeline.connection {
            let last = last_through(&self.reader, StreamId::Connection(id), position)?;
            (moment.connection, moment.breaker) =
                state_store::load_connection(&self.reader, id, last)?;
            moment.place.connection = last;
        }
        moment.position = position;
        moment.place.session = session.seq;
        moment.session = session;
        Ok(moment)
    }

    /// Folds on to the position, and keeps checkpoints on the way.
    fn fold(&mut self, position: Position) -> Result<()> {
        if self.current.position == Position::default() {
            self.current = self.with_connection(Session::default())?;
        }
        let mut since = 0;
        for recorded in self.timeline.after(&self.reader, self.current.place) {
            let recorded = recorded?;
            if recorded.position > position {
                break;
            }
            self.current.apply(&recorded);
            since += 1;
            if since == EVERY {
                since = 0;
                self.keep();
            }
        }
        Ok(())
    }

    /// Keeps a checkpoint. What is too much goes where it leaves the smallest hole, so that those that stay are spread
    /// over all that was looked at.
    fn keep(&mut self) {
        let moment = self.current.clone();
        self.bytes += moment.bytes();
        if let Some(same) = self.kept.insert(moment.position, moment) {
            self.bytes -= same.bytes();
        }
        while self.kept.len() > CHECKPOINTS_MAX || (self.bytes > BYTES_MAX && self.kept.len() > 1) {
            let positions: Vec<u64> = self.kept.keys().map(|position| position.0).collect();
            let hole = |n: usize| {
                let before = n.checked_sub(1).map_or(0, |before| positions[before]);
                let after = positions.get(n + 1).copied();
                after.unwrap_or(u64::MAX) - before
            };
            let smallest = (0..positions.len()).min_by_key(|n| hole(*n));
            let Some(gone) = smallest.and_then(|n| self.kept.remove(&Position(positions[n])))
            else {
                break;
            };
            self.bytes -= gone.bytes();
        }
    }
}
