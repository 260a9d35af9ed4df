//! Milestones: snapshots that stay along a stream, so that looking back at any moment of it is quick.
//!
//! The newest snapshot of a stream is replaced by the next; milestones are not. They are kept as any snapshot is, each
//! under a name of its own: `session@3` is the state as the third milestone was passed. Where they are missing, a
//! moment is folded from further back, and nothing but time is lost.

use recount_store::{
    ConnectionId, Log, LogReader, Recorded, Result, Seq, Snapshot, StreamId, derived,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Kept, fold_on, named, snapshot};
use crate::{Breaker, Connection, Projection};

/// How many events are between two milestones: what looking back folds at most, while states are small.
const EVERY: u64 = 1 << 15;

/// How many bytes of a milestone an event is worth: a state that has become large is kept at every second, fourth,
/// eighth milestone alone, so that all of them together stay a small part of the log.
const BYTES_PER_EVENT: u64 = 32;

/// Which milestones of one stream were passed.
#[derive(Debug, Default)]
pub(super) struct Milestones {
    /// The number of the last one.
    passed: u64,
}

impl Milestones {
    /// As they stand where a stream has come to this event.
    pub(super) const fn at(seq: Seq) -> Self {
        Self {
            passed: seq.0 / EVERY,
        }
    }

    /// Keeps the state after the event of this number, if one was passed with it.
    pub(super) fn pass<P: Projection + Serialize>(
        &mut self,
        log: &Log,
        stream: StreamId,
        seq: Seq,
        state: &P,
    ) {
        let number = seq.0 / EVERY;
        if number <= self.passed {
            return;
        }
        self.passed = number;
        let bytes = derived::encode(state);
        if is_worth(number, bytes.len()) {
            let snapshot = Snapshot {
                fold_version: P::VERSION,
                seq,
                bytes,
            };
            log.put_snapshot(stream, &name::<P>(number), snapshot);
        }
    }
}

/// Keeps all milestones of a connection and of its breaker.
///
/// # Errors
///
/// Where the log cannot be read.
pub(super) fn keep_of_connection(log: &Log, stream: StreamId) -> Result<()> {
    let (mut connection, mut breaker) = (Connection::default(), Breaker::default());
    for recorded in log.read(stream, Seq::FIRST) {
        let recorded = [recorded?];
        connection.apply(&recorded[0]);
        breaker.apply(&recorded[0]);
        keep_milestone(log, stream, &recorded, &connection);
        keep_milestone(log, stream, &recorded, &breaker);
    }
    Ok(())
}

/// Whether a state of so many bytes is kept as this milestone.
const fn is_worth(number: u64, bytes: usize) -> bool {
    bytes as u64 >> number.trailing_zeros() <= EVERY * BYTES_PER_EVENT
}

fn name<P: Projection>(number: u64) -> String {
    format!("{}@{number}", P::NAME)
}

/// Keeps a state as a milestone of its stream, if one was passed with these events; it is the state after the last of
/// them. For states that are not in a store: those of connections.
pub fn keep_milestone<P: Projection + Serialize>(
    log: &Log,
    stream: StreamId,
    events: &[Recorded],
    state: &P,
) {
    if let (Some(first), Some(last)) = (events.first(), events.last()) {
        let mut milestones = Milestones::at(Seq(first.seq.0.saturating_sub(1)));
        milestones.pass(log, stream, last.seq, state);
    }
}

/// The state of a stream after the event of this number: from the last snapshot or milestone before it, and the
/// events after that. Of a shorter stream, the state at its end.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn load_through<P: Projection + DeserializeOwned>(
    reader: &LogReader,
    stream: StreamId,
    through: Seq,
) -> Result<P> {
    let kept = last_kept(reader, stream, through)?.unwrap_or_default();
    fold_on(reader, stream, kept, through)
}

/// A connection and its breaker after the event of this number, as [`load_through`] gives them: the events after what
/// was kept are read once for both.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn load_connection(
    reader: &LogReader,
    id: ConnectionId,
    through: Seq,
) -> Result<(Connection, Breaker)> {
    let stream = StreamId::Connection(id);
    let mut connection: Kept<Connection> = last_kept(reader, stream, through)?.unwrap_or_default();
    let mut breaker: Kept<Breaker> = last_kept(reader, stream, through)?.unwrap_or_default();
    for recorded in reader.read(stream, connection.seq.min(breaker.seq).next()) {
        let recorded = recorded?;
        if recorded.seq > through {
            break;
        }
        if recorded.seq > connection.seq {
            connection.state.apply(&recorded);
        }
        if recorded.seq > breaker.seq {
            breaker.state.apply(&recorded);
        }
    }
    Ok((connection.state, breaker.state))
}

/// The last snapshot or milestone of a stream up to the event of this number, with the number of its own last event;
/// none where none was kept.
///
/// # Errors
///
/// Where the log cannot be read.
pub fn kept_through<P: Projection + DeserializeOwned>(
    reader: &LogReader,
    stream: StreamId,
    through: Seq,
) -> Result<Option<(Seq, P)>> {
    let kept = last_kept(reader, stream, through)?;
    Ok(kept.map(|kept| (kept.seq, kept.state)))
}

fn last_kept<P: Projection + DeserializeOwned>(
    reader: &LogReader,
    stream: StreamId,
    through: Seq,
) -> Result<Option<Kept<P>>> {
    let within = |kept: &Kept<P>| kept.seq <= through;
    if let Some(newest) = snapshot(reader, stream)?.filter(within) {
        return Ok(Some(newest));
    }
    let last = reader.stream_head(stream)?.map_or(Seq(0), |head| head.seq);
    for number in (1..=through.min(last).0 / EVERY).rev() {
        if let Some(kept) = named(reader, stream, &name::<P>(number))?.filter(within) {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use recount_store::{
        Event, Expected, MessageId, NewEvent, OutputKind, Placement, SessionId, Timestamp,
    };

    use super::*;
    use crate::{Session, StateStore};

    fn turn(number: u64) -> impl Iterator<Item = Event> {
        let message = MessageId::from_random(u128::from(number));
        let queued = Event::MessageQueued {
            message,
            key: None,
            text: "hello".to_owned(),
        };
        let said = move |n| Event::OutputAppended {
            message,
            run: 1,
            part: "p".to_owned(),
            kind: OutputKind::Text,
            placement: Placement::End,
            text: format!("{n} "),
        };
        let completed = Event::TurnCompleted {
            message,
            run: 1,
            finish: "stop".to_owned(),
        };
        [queued, Event::TurnRequested { message, run: 1 }]
            .into_iter()
            .chain((0..497).map(said))
            .chain([completed])
    }

    #[tokio::test]
    async fn any_moment_is_the_fold_of_what_was_before_it() {
        let id = SessionId::from_bytes([7; 10]);
        let stream = StreamId::Session(id);
        let states = StateStore::new(Log::in_memory().expect("a log"), 1);
        for number in 0..150 {
            let events = turn(number).map(|event| NewEvent::live(event, Timestamp(number)));
            let appended = states.append(id, Expected::Any, events.collect()).await;
            appended.expect("it is recorded");
        }
        let log = states.log();
        let kept = |number| {
            let kept = log.snapshot(stream, &name::<Session>(number));
            kept.expect("it can be read").map(|kept| kept.seq)
        };
        // Each as its first append passed it: they come by five hundred.
        assert_eq!(
            [0, 1, 2, 3].map(kept),
            [None, Some(Seq(33_000)), Some(Seq(66_000)), None]
        );
        let moments = [1, 32_768, 33_000, 33_001, 65_999, 66_000, 74_999, 75_000];
        for through in moments.map(Seq) {
            let mut folded = Session::default();
            for recorded in log.read(stream, Seq::FIRST) {
                let recorded = recorded.expect("it can be read");
                if recorded.seq <= through {
                    folded.apply(&recorded);
                }
            }
            let loaded: Session = load_through(log, stream, through).expect("it can be read");
            assert_eq!(loaded, folded, "{through}");
        }
        // Beyond the end is the end.
        let end: Session = load_through(log, stream, Seq(u64::MAX)).expect("it can be read");
        assert_eq!(end.seq, Seq(75_000));
    }

    #[tokio::test]
    async fn milestones_of_a_connection_are_kept_as_they_are_passed_and_anew() {
        let id = ConnectionId::from_bytes([7; 10]);
        let stream = StreamId::Connection(id);
        let (log, anew) = (Log::in_memory(), Log::in_memory());
        let (log, anew) = (log.expect("a log"), anew.expect("a log"));
        let (mut connection, mut breaker) = (Connection::default(), Breaker::default());
        for attempt in 0..14_u32 {
            let events = (0..2_500).map(|n| {
                let reason = format!("{n}");
                NewEvent::live(Event::ConnectFailed { attempt, reason }, Timestamp(n))
            });
            let events: Vec<_> = events.collect();
            let again = anew.append(stream, Expected::Any, events.clone()).await;
            again.expect("it is recorded");
            let events = log.append(stream, Expected::Any, events).await;
            let events = events.expect("it is recorded");
            for recorded in &events {
                connection.apply(recorded);
                breaker.apply(recorded);
            }
            keep_milestone(&log, stream, &events, &connection);
            keep_milestone(&log, stream, &events, &breaker);
        }
        keep_of_connection(&anew, stream).expect("it can be read");
        for (log, passed) in [(&log, 35_000), (&anew, 32_768)] {
            let kept: Option<(Seq, Connection)> =
                kept_through(log, stream, Seq(u64::MAX)).expect("it can be read");
            let (seq, _) = kept.expect("one was passed");
            assert_eq!(seq, Seq(passed));
            let load = |through| load_connection(log, id, through).expect("it can be read");
            assert_eq!(load(Seq(u64::MAX)), (connection.clone(), breaker.clone()));
            let (early, _) = load(Seq(3));
            assert_eq!(early.last_error.as_deref(), Some("2"));
        }
    }

    #[test]
    fn milestones_of_what_is_large_are_seldom() {
        const MIB: usize = 1 << 20;
        let kept = |bytes| (1..=8).filter(move |number| is_worth(*number, bytes));
        assert_eq!(kept(MIB).count(), 8);
        assert_eq!(kept(MIB + 2).collect::<Vec<_>>(), [2, 4, 6, 8]);
        assert_eq!(kept(4 * MIB).collect::<Vec<_>>(), [4, 8]);
        assert_eq!(kept(9 * MIB).count(), 0);
    }
}
