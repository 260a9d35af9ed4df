//! Proving that a log is whole.

use std::collections::HashMap;

use redb::ReadTransaction;

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Position, Seq, StreamId};
use crate::limits;
use crate::log::block::{Block, Tip};
use crate::log::index::Index;
use crate::log::reader::{self, Shared};
use crate::log::storage::Fault;
use crate::log::table::{self, Pair, StreamEnd};
use crate::log::{Hash, LogReader, StreamHead};

/// What a log was proven to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The events that were looked at.
    pub events: u64,
    /// The streams that they belong to.
    pub streams: u64,
    /// Those of a type or version that this build does not know: they are whole, and that is all it can say.
    pub unknown: u64,
    /// The position of the log's last event.
    pub head_position: Position,
    /// The hash over the whole log up to it: who notes it elsewhere can prove later that nothing was changed.
    pub head_hash: Hash,
}

/// Proves that a log is whole: everything, or one stream.
///
/// Of everything: positions and numbers have no gaps, each envelope and payload can be read, each stream's
/// chain of hashes and the head over all hold, and the index agrees with the blocks. Of one stream: the
/// same for its events; of the head it says where the log stands, and has not proven it.
///
/// It reads the log once, in short looks, while others may write. It holds about 200 bytes for each stream.
///
/// # Errors
///
/// [`Error::Corrupt`] with the first bad place; [`Error::Read`]; [`Error::Closed`] after the log was closed.
pub fn verify(reader: &LogReader, only: Option<StreamId>) -> Result<Verified> {
    match only {
        None => all(&reader.shared),
        Some(stream) => one(&reader.shared, stream),
    }
}

fn all(shared: &Shared) -> Result<Verified> {
    let mut walk = Walk::default();
    loop {
        let from = walk.tip.position.next();
        shared.storage.view(from, |transaction| {
            walk.blocks(transaction, limits::CHUNK_BLOCKS_MAX, Position(u64::MAX))
        })?;
        if walk.tip.position.next() == from {
            break;
        }
    }
    // What came meanwhile, and the index as it is now, in one look.
    shared.look_up(|index, transaction| {
        walk.blocks(transaction, usize::MAX, index.through())?;
        walk.compare(index, transaction)
    })?;
    Ok(walk.verified(walk.tip))
}

fn one(shared: &Shared, stream: StreamId) -> Result<Verified> {
    let key = stream.to_bytes();
    let mut walk = Walk::default();
    loop {
        let next = walk
            .streams
            .get(&key)
            .map_or(Seq::FIRST, |seen| seen.end.head.seq.next());
        let tip = shared.look_up(|index, transaction| {
            let wanted = index.blocks(transaction, &key, next, limits::CHUNK_BLOCKS_MAX)?;
            let blocks = transaction.open_table(table::BLOCKS)?;
            for position in wanted {
                let Some(bytes) = blocks.get(position.0)? else {
                    return Err(
                        corrupt(position, "the index names a block that is not there").into(),
                    );
                };
                for record in Block::parse(position.0, bytes.value())?.records() {
                    let record = record?;
                    if *record.stream_key() == key && record.seq() >= next {
                        walk.record(record, position)?;
                    }
                }
            }
            let seen = walk.streams.get(&key).map(|seen| seen.end);
            if seen.map_or(Seq::FIRST, |end| end.head.seq.next()) > next {
                return Ok(None);
            }
            let end = index.end(transaction, &key)?;
            if end != seen {
                let last = end.or(seen).map_or(Position(0), |end| end.head.last);
                return Err(corrupt(last, "the index does not agree with the blocks").into());
            }
            Ok(Some(reader::tip(transaction)?))
        })?;
        if let Some(tip) = tip {
            return Ok(walk.verified(tip));
        }
    }
}

/// What was seen up to some block.
#[derive(Default)]
struct Walk {
    tip: Tip,
    streams: HashMap<StreamKey, Seen>,
    events: u64,
    unknown: u64,
}

/// What was seen of one stream.
struct Seen {
    end: StreamEnd,
    last_block: Position,
    /// What the index should say, mixed to a number.
    pairs: Mix,
}

impl Walk {
    /// Walks over some of the blocks that come next, up to the one that ends at `through`.
    fn blocks(
        &mut self,
        transaction: &ReadTransaction,
        limit: usize,
        through: Position,
    ) -> Result<(), Fault> {
        let blocks = transaction.open_table(table::BLOCKS)?;
        for entry in blocks.range(self.tip.position.next().0..)?.take(limit) {
            let (first, bytes) = entry?;
            if first.value() > through.0 {
                break;
            }
            self.block(&Block::parse(first.value(), bytes.value())?)?;
        }
        Ok(())
    }

    fn block(&mut self, block: &Block<'_>) -> Result<()> {
        let expected = self.tip.position.next();
        if block.first() != expected {
            return Err(corrupt(expected, "it is missing"));
        }
        for record in block.records() {
            let record = record?;
            self.record(record, block.first())?;
            self.tip = self.tip.after(record);
        }
        if self.tip != block.tip() {
            return Err(corrupt(
                block.last(),
                "the head over the log does not follow from its events",
            ));
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, block: Position) -> Result<()> {
        let bad = |what: &str| corrupt(record.position(), what);
        let before = self.streams.get(record.stream_key());
        let (seq, hash) = before.map_or((Seq(0), Hash::ZERO), |seen| {
            (seen.end.head.seq, seen.end.hash)
        });
        if !record.follows(hash) {
            return Err(bad(
                "its hash does not follow from it and the event before it in its stream",
            ));
        }
        if record.seq() != seq.next() {
            return Err(bad(
                "its number is not the one after the last of its stream",
            ));
        }
        let recorded = record.decode()?;
        if matches!(recorded.event, Event::Unknown { .. }) {
            self.unknown += 1;
        } else if recorded.class != recorded.event.class() {
            return Err(bad("its class is not that of its type"));
        }
        self.events += 1;

        let mut pairs = before.map_or(Mix::default(), |seen| seen.pairs);
        if before.is_none_or(|seen| seen.last_block != block) {
            pairs.add(Pair {
                seq: record.seq(),
                block,
            });
        }
        let end = StreamEnd {
            head: StreamHead {
                seq: record.seq(),
                first: before.map_or(record.position(), |seen| seen.end.head.first),
                last: record.position(),
                at: record.at(),
            },
            hash: record.hash(),
        };
        let seen = Seen {
            end,
            last_block: block,
            pairs,
        };
        self.streams.insert(*record.stream_key(), seen);
        Ok(())
    }

    /// Compares the index with what was seen.
    fn compare(&self, index: &Index, transaction: &ReadTransaction) -> Result<(), Fault> {
        let ends = index.ends(transaction)?;
        let mut mixes: HashMap<StreamKey, Mix> = HashMap::new();
        index.pairs(transaction, |stream, pair| {
            mixes.entry(*stream).or_default().add(pair);
        })?;
        let disagreement = self
            .streams
            .iter()
            .filter(|(key, seen)| {
                ends.get(*key) != Some(&seen.end) || mixes.get(*key) != Some(&seen.pairs)
            })
            .map(|(_, seen)| seen.end.head.first)
            .min();
        if let Some(first) = disagreement {
            return Err(corrupt(
                first,
                "the index does not agree with the blocks of its stream",
            )
            .into());
        }
        if ends.len() != self.streams.len() || mixes.len() != self.streams.len() {
            let what = "the index names a stream that has no events";
            return Err(corrupt(self.tip.position, what).into());
        }
        Ok(())
    }

    fn verified(&self, tip: Tip) -> Verified {
        Verified {
            events: self.events,
            streams: self.streams.len() as u64,
            unknown: self.unknown,
            head_position: tip.position,
            head_hash: tip.hash,
        }
    }
}

/// The pairs of a stream in their order, mixed to a number: to compare them without holding them.
///
/// Against mistakes, not against malice: an index can be made again, and proves nothing by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mix(u64);

impl Mix {
    fn add(&mut self, pair: Pair) {
        // An odd number with its bits well spread, so that each step can be undone and none is lost.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        for number in [pair.seq.0, pair.block.0] {
            self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(SPREAD);
        }
    }
}

fn corrupt(position: Position, what: &str) -> Error {
    Error::Corrupt {
        position,
        what: what.to_owned(),
    }
}
