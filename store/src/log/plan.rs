//! One commit as it is put together: who gets which place, and what will be written.

use std::collections::HashMap;
use std::sync::Arc;

use crate::codec::{Draft, Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{EventId, Position, Seq, StreamId};
use crate::log::block::{Builder, Sealed, Tip};
use crate::log::{Expected, Hash};

/// Events for one stream.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) stream: StreamId,
    pub(crate) expected: Expected,
    pub(crate) draft: Draft,
}

/// What becomes of an append.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The events of each part get these places.
    New(Vec<Placed>),
    /// All of it is in the log already: this.
    Repeated(Vec<Recorded>),
}

/// Where the events of a part come to stand: these, and one more for each further event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) first: Position,
    pub(crate) first_seq: Seq,
}

/// The log before the commit.
pub(crate) trait Before {
    /// The number and the hash of a stream's last record; 0 and zeros where it has none.
    fn end(&self, stream: StreamId) -> Result<(Seq, Hash)>;

    /// The event with an id.
    fn position_of(&self, id: EventId) -> Result<Option<Position>>;

    /// So many events from a position on, or as many as there are.
    fn events(&self, from: Position, count: usize) -> Result<Vec<Recorded>>;
}

/// What one commit will write, and where streams stand after it.
pub(crate) struct Plan {
    builder: Builder,
    /// The number and the hash of the last record of each stream that is written to.
    ends: HashMap<StreamKey, (Seq, Hash)>,
    ids: HashMap<EventId, Position>,
}

impl Plan {
    /// Nothing yet, after `tip`.
    pub(crate) fn after(tip: Tip) -> Self {
        Self {
            builder: Builder::after(tip),
            ends: HashMap::new(),
            ids: HashMap::new(),
        }
    }

    /// Where the log will stand, and the blocks.
    pub(crate) fn finish(self) -> (Tip, Vec<Sealed>) {
        let tip = self.builder.tip();
        let blocks = self.builder.finish().into_iter();
        (
            tip,
            blocks
                .map(|(first, bytes)| (first, Arc::from(bytes)))
                .collect(),
        )
    }

    /// Adds an append, all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`], [`Error::IdTaken`], or what `before` says.
    pub(crate) fn add(&mut self, parts: Vec<Part>, before: &impl Before) -> Result<Outcome> {
        if let Some(recorded) = self.repeated(&parts, before)? {
            return Ok(Outcome::Repeated(recorded));
        }
        let mut ends = Vec::with_capacity(parts.len());
        for (index, part) in parts.iter().enumerate() {
            let (end, hash) = self.end(part.stream, before)?;
            // With what earlier parts will add.
            let earlier = parts[..index]
                .iter()
                .filter(|other| other.stream == part.stream);
            let added: usize = earlier.map(|other| other.draft.records().count()).sum();
            let actual = Seq(end.0 + added as u64);
            let expected = match part.expected {
                Expected::Any => actual,
                Expected::NoStream => Seq(0),
                Expected::Exact(seq) => seq,
            };
            if expected != actual {
                return Err(Error::Conflict {
                    stream: part.stream,
                    expected,
                    actual,
                });
            }
            ends.push((end, hash));
        }
        let placed = parts
            .into_iter()
            .zip(ends)
            .map(|(part, end)| self.place(part, end));
        Ok(Outcome::New(placed.collect()))
    }

    /// The number and the hash of a stream's last record after what was added.
    fn end(&self, stream: StreamId, before: &impl Before) -> Result<(Seq, Hash)> {
        match self.ends.get(&stream.to_bytes()) {
            Some(end) => Ok(*end),
            None => before.end(stream),
        }
    }

    fn place(&mut self, part: Part, end: (Seq, Hash)) -> Placed {
        let key = part.stream.to_bytes();
        let (actual, hash) = self.ends.get(&key).copied().unwrap_or(end);
        let placed = Placed {
            first: self.builder.tip().position.next(),
            first_seq: actual.next(),
        };
        let mut last = actual;
        let (builder, ids) = (&mut self.builder, &mut self.ids);
        let mut draft = part.draft;
        let hash = draft.place(placed.first, placed.first_seq, hash, |record| {
            builder.push(record);
            last = record.seq();
            if let Some(id) = record.id() {
                ids.insert(id, record.position());
            }
        });
        self.ends.insert(key, (last, hash));
        placed
    }

    /// The events of an append that is in the log already.
    ///
    /// An append is known by the first id in it. Its events stand next to each other, so the others must
    /// stand around that one.
    fn repeated(&self, parts: &[Part], before: &impl Before) -> Result<Option<Vec<Recorded>>> {
        let records = || parts.iter().flat_map(|part| part.draft.records());
        let mut known = None;
        for (index, record) in records().enumerate() {
            let Some(id) = record.id() else { continue };
            let position = match self.ids.get(&id) {
                Some(position) => Some(*position),
                None => before.position_of(id)?,
            };
            if let Some(position) = position {
                known = Some((index as u64, id, position));
                break;
            }
        }
        let Some((index, id, position)) = known else {
            return Ok(None);
        };
        let taken = Error::IdTaken { id, position };
        let Some(first) = position.0.checked_sub(index).filter(|first| *first > 0) else {
            return Err(taken);
        };
        let count = records().count();
        let mut recorded = before.events(Position(first), count)?;
        for added in self.builder.records_from(Position(first)) {
            if recorded.len() < count {
                recorded.push(added.decode()?);
            }
        }
        let same = recorded.len() == count
            && records()
                .zip(&recorded)
                .all(|(record, recorded)| same(record, recorded));
        if same { Ok(Some(recorded)) } else { Err(taken) }
    }
}

/// Whether a record without a place says the same as an event of the log.
fn same(record: Record<'_>, recorded: &Recorded) -> bool {
    record.id() == recorded.id
        && *record.stream_key() == recorded.stream.to_bytes()
        && record.decode().is_ok_and(|new| new.event == recorded.event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, NewEvent};
    use crate::id::Timestamp;

    /// A log with nothing in it.
    struct Empty;

    impl Before for Empty {
        fn end(&self, _: StreamId) -> Result<(Seq, Hash)> {
            Ok((Seq(0), Hash::ZERO))
        }

        fn position_of(&self, _: EventId) -> Result<Option<Position>> {
            Ok(None)
        }

        fn events(&self, _: Position, _: usize) -> Result<Vec<Recorded>> {
            Ok(Vec::new())
        }
    }

    fn said(text: &str, id: Option<u8>) -> NewEvent {
        let reason = text.to_owned();
        let event = NewEvent::live(Event::StreamLost { reason }, Timestamp(1));
        match id {
            Some(id) => event.with_id(EventId::from_bytes([id; 16])),
            None => event,
        }
    }

    fn part(stream: StreamId, expected: Expected, events: &[NewEvent]) -> Part {
        Part {
            stream,
            expected,
            draft: Draft::encode(stream, events).expect("it is small"),
        }
    }

    fn session(n: u8) -> StreamId {
        StreamId::Session(crate::id::SessionId::from_bytes([n; 10]))
    }

    fn places(outcome: Result<Outcome>) -> Result<Vec<(u64, u64)>, String> {
        match outcome {
            Ok(Outcome::New(parts)) => Ok(parts
                .iter()
                .map(|part| (part.first.0, part.first_seq.0))
                .collect()),
            Ok(Outcome::Repeated(events)) => Err(format!(
                "again {:?}",
                events
                    .iter()
                    .map(|event| (event.position.0, event.seq.0))
                    .collect::<Vec<_>>()
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_batch_is_checked_against_itself_and_a_conflict_takes_no_place() {
        let mut plan = Plan::after(Tip::default());
        let mut add = |expected, events: usize| {
            let events = vec![said("", None); events];
            places(plan.add(vec![part(StreamId::Engine, expected, &events)], &Empty))
        };
        assert_eq!(add(Expected::NoStream, 2), Ok(vec![(1, 1)]));
        let conflict = Err("engine has 2 events, not 1".to_owned());
        assert_eq!(add(Expected::Exact(Seq(1)), 5), conflict);
        assert_eq!(add(Expected::Exact(Seq(2)), 1), Ok(vec![(3, 3)]));
        assert_eq!(add(Expected::Any, 1), Ok(vec![(4, 4)]));
        let conflict = Err("engine has 4 events, not 0".to_owned());
        assert_eq!(add(Expected::NoStream, 1), conflict);
    }

    #[test]
    fn an_append_to_several_streams_is_added_whole_or_not_at_all() {
        let mut plan = Plan::after(Tip::default());
        let two = [said("a", None), said("b", None)];
        let parts = vec![
            part(session(1), Expected::NoStream, &two),
            part(session(2), Expected::NoStream, &two[..1]),
            part(session(1), Expected::Exact(Seq(2)), &two[..1]),
        ];
        assert_eq!(
            places(plan.add(parts, &Empty)),
            Ok(vec![(1, 1), (3, 1), (4, 3)])
        );
        let parts = vec![
            part(session(2), Expected::Exact(Seq(1)), &two),
            part(session(1), Expected::Exact(Seq(2)), &two),
        ];
        let conflict = format!("{} has 3 events, not 2", session(1));
        assert_eq!(places(plan.add(parts, &Empty)), Err(conflict));
        let parts = vec![part(session(2), Expected::Exact(Seq(1)), &two)];
        assert_eq!(places(plan.add(parts, &Empty)), Ok(vec![(5, 2)]));
        assert_eq!(plan.finish().0.position, Position(6));
    }

    #[test]
    fn what_is_repeated_is_given_again_and_takes_no_place() {
        let mut plan = Plan::after(Tip::default());
        let mut add = |expected, events: &[NewEvent]| {
            places(plan.add(vec![part(session(1), expected, events)], &Empty))
        };
        let append = [said("a", None), said("b", Some(7)), said("c", None)];
        assert_eq!(add(Expected::NoStream, &append), Ok(vec![(1, 1)]));
        let again = Err("again [(1, 1), (2, 2), (3, 3)]".to_owned());
        assert_eq!(add(Expected::NoStream, &append), again);
        let taken = Err(Error::IdTaken {
            id: EventId::from_bytes([7; 16]),
            position: Position(2),
        }
        .to_string());
        assert_eq!(
            add(Expected::Any, &append[1..2]),
            Err("again [(2, 2)]".to_owned())
        );
        assert_eq!(add(Expected::Any, &[said("B", Some(7))]), taken);
        assert_eq!(
            add(Expected::Any, &[said("x", Some(8)), said("b", Some(7))]),
            taken
        );
        assert_eq!(
            add(Expected::Any, &[said("b", Some(7)), said("d", Some(9))]),
            taken
        );
        assert_eq!(add(Expected::Any, &[said("d", Some(9))]), Ok(vec![(4, 4)]));
    }
}
