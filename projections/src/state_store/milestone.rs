//! Milestones: snapshots that stay along a stream, so that looking back at any moment of it is quick.
//!
//! The newest snapshot of a stream is replaced by the next; milestones are not. They are kept as any snapshot is, each
//! under a name of its own: `session@3` is the state as the third milestone was passed. Where they are missing, a
//! moment is folded from further back, and nothing but time is lost.

use recount_store::{Log, LogReader, Result, Seq, Snapshot, StreamId, derived};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Kept, fold_on, named, snapshot};
use crate::Projection;

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

/// Whether a state of so many bytes is kept as this milestone.
const fn is_worth(number: u64, bytes: usize) -> bool {
    bytes as u64 >> number.trailing_zeros() <= EVERY * BYTES_PER_EVENT
}

fn name<P: Projection>(number: u64) -> String {
    format!("{}@{number}", P::NAME)
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
