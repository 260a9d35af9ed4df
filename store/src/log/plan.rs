//! One commit as it is put together: who gets which place, and what will be written.

use std::collections::HashMap;

use crate::codec::{Draft, StreamKey};
use crate::error::{Error, Result};
use crate::id::{Position, Seq, StreamId};
use crate::log::block::{Builder, Tip};
use crate::log::{Expected, Hash};

/// Where the events of an append came to stand: these, and one more for each further event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) first: Position,
    pub(crate) first_seq: Seq,
}

/// What one commit will write, and where streams stand after it.
pub(crate) struct Plan {
    builder: Builder,
    /// The number and the hash of the last record of each stream that is written to.
    ends: HashMap<StreamKey, (Seq, Hash)>,
}

impl Plan {
    /// Nothing yet, after `tip`.
    pub(crate) fn after(tip: Tip) -> Self {
        Self {
            builder: Builder::after(tip),
            ends: HashMap::new(),
        }
    }

    /// Where a stream will end, if this commit writes to it.
    pub(crate) fn end(&self, stream: &StreamKey) -> Option<(Seq, Hash)> {
        self.ends.get(stream).copied()
    }

    /// Where the log will stand, and the blocks, each with the position of its first record.
    pub(crate) fn finish(self) -> (Tip, Vec<(Position, Vec<u8>)>) {
        (self.builder.tip(), self.builder.finish())
    }

    /// Adds an append to a stream that ends with `end`, unless it expects another.
    pub(crate) fn add(
        &mut self,
        stream: StreamId,
        expected: Expected,
        mut draft: Draft,
        end: (Seq, Hash),
    ) -> Result<Placed> {
        let (actual, hash) = end;
        let expected = match expected {
            Expected::Any => actual,
            Expected::NoStream => Seq(0),
            Expected::Exact(seq) => seq,
        };
        if expected != actual {
            return Err(Error::Conflict {
                stream,
                expected,
                actual,
            });
        }
        let placed = Placed {
            first: self.builder.tip().position.next(),
            first_seq: actual.next(),
        };
        let mut last = actual;
        let builder = &mut self.builder;
        let hash = draft.place(placed.first, placed.first_seq, hash, |record| {
            builder.push(record);
            last = record.seq();
        });
        self.ends.insert(stream.to_bytes(), (last, hash));
        Ok(placed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, NewEvent};
    use crate::id::Timestamp;

    fn draft(events: usize) -> Draft {
        let event = NewEvent::live(Event::StreamOpened, Timestamp(1));
        Draft::encode(StreamId::Engine, &vec![event; events]).expect("it is small")
    }

    #[test]
    fn a_batch_is_checked_against_itself_and_a_conflict_takes_no_place() {
        let mut plan = Plan::after(Tip::default());
        let key = StreamId::Engine.to_bytes();
        let mut add = |expected, events| {
            let end = plan.end(&key).unwrap_or((Seq(0), Hash::ZERO));
            plan.add(StreamId::Engine, expected, draft(events), end)
                .map(|placed| (placed.first.0, placed.first_seq.0))
                .map_err(|error| error.to_string())
        };
        assert_eq!(add(Expected::NoStream, 2), Ok((1, 1)));
        let conflict = Err("engine has 2 events, not 1".to_owned());
        assert_eq!(add(Expected::Exact(Seq(1)), 5), conflict);
        assert_eq!(add(Expected::Exact(Seq(2)), 1), Ok((3, 3)));
        assert_eq!(add(Expected::Any, 1), Ok((4, 4)));
        let (tip, blocks) = plan.finish();
        assert_eq!((tip.position, blocks.len()), (Position(4), 1));
    }
}
