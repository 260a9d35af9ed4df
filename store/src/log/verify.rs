//! Proving that a log is whole.

use std::collections::HashMap;

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Position, Seq, StreamId};
use crate::limits;
use crate::log::block::{Block, Tip};
use crate::log::follow::Last;
use crate::log::reader::Shared;
use crate::log::recent::{self, Go, View};
use crate::log::storage::Fault;
use crate::log::table::{Pair, StreamEnd};
use crate::log::{Hash, LogReader, StreamHead, frames};

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
        shared.look_for(from, Last::Sync, |view| {
            walk.blocks(view, limits::CHUNK_BLOCKS_MAX)
        })?;
        if walk.tip.position.next() == from {
            break;
        }
    }
    // What came meanwhile, and the index as it is now, in one look.
    let near = walk.tip.position.next();
    shared.look_for(near, Last::Sync, |view| {
        walk.blocks(view, usize::MAX)?;
        walk.compare(view)
    })?;
    verify_frames(shared)?;
    Ok(walk.verified(walk.tip))
}

fn verify_frames(shared: &Shared) -> Result<()> {
    let mut next = shared.look(|view| Ok(frames::ends(&view.transaction)?.from))?;
    while let Some(after) = shared.look(|view| frames::verify(&view.transaction, next))? {
        next = after;
    }
    Ok(())
}

fn one(shared: &Shared, stream: StreamId) -> Result<Verified> {
    let key = stream.to_bytes();
    let mut walk = Walk::default();
    loop {
        let next = walk
            .streams
            .get(&key)
            .map_or(Seq::FIRST, |end| end.head.seq.next());
        let tip = shared.look(|view| {
            let wanted = view.blocks_of(&key, next, limits::CHUNK_BLOCKS_MAX)?;
            view.visit(&wanted, |block| {
                for record in block.records() {
                    let record = record?;
                    if *record.stream_key() == key && record.seq() >= next {
                        walk.record(record)?;
                    }
                }
                Ok(Go::On)
            })?;
            let seen = walk.streams.get(&key).copied();
            if seen.map_or(Seq::FIRST, |end| end.head.seq.next()) > next {
                return Ok(None);
            }
            let end = view.end(&key)?;
            if end != seen {
                let last = end.or(seen).map_or(Position(0), |end| end.head.last);
                return Err(corrupt(last, "the index does not agree with the blocks").into());
            }
            Ok(Some(view.tip()?))
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
    streams: HashMap<StreamKey, StreamEnd>,
    /// What the index should say of each stream: the block that held it last, and all of them mixed to a number.
    pairs: HashMap<StreamKey, (Position, Mix)>,
    /// Up to where the pairs go. What has not settled will be cut anew, and has none yet.
    paired: Position,
    events: u64,
    unknown: u64,
}

impl Walk {
    /// Walks over some of the blocks that come next.
    fn blocks(&mut self, view: &View, limit: usize) -> Result<(), Fault> {
        let from = self.tip.position.next();
        let settled = recent::tip(&view.transaction)?.position;
        let mut walked = 0;
        view.walk(from, |block| {
            // The first one of a walk may be the last one that was there.
            if block.last() < from {
                return Ok(Go::On);
            }
            self.block(block)?;
            if block.last() <= settled && block.first() == self.paired.next() {
                self.pair(block)?;
            }
            walked += 1;
            Ok(if walked == limit { Go::Stop } else { Go::On })
        })
    }

    /// Notes what the index should say of a block that has settled.
    fn pair(&mut self, block: Block<'_>) -> Result<()> {
        for record in block.records() {
            let record = record?;
            let (last, mix) = self.pairs.entry(*record.stream_key()).or_default();
            if *last != block.first() {
                *last = block.first();
                mix.add(Pair {
                    seq: record.seq(),
                    block: block.first(),
                });
            }
        }
        self.paired = block.last();
        Ok(())
    }

    fn block(&mut self, block: Block<'_>) -> Result<()> {
        let expected = self.tip.position.next();
        if block.first() > expected {
            return Err(corrupt(expected, "it is missing"));
        }
        for record in block.records() {
            let record = record?;
            // What settles between two looks is cut anew, so the end of one may be in the middle of a block.
            if record.position() < expected {
                continue;
            }
            self.record(record)?;
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

    fn record(&mut self, record: Record<'_>) -> Result<()> {
        let bad = |what: &str| corrupt(record.position(), what);
        let before = self.streams.get(record.stream_key());
        let (seq, hash) = before.map_or((Seq(0), Hash::ZERO), |end| (end.head.seq, end.hash));
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

        let end = StreamEnd {
            head: StreamHead {
                seq: record.seq(),
                first: before.map_or(record.position(), |end| end.head.first),
                last: record.position(),
                at: record.at(),
            },
            hash: record.hash(),
        };
        self.streams.insert(*record.stream_key(), end);
        Ok(())
    }

    /// Compares the index with what was seen.
    fn compare(&mut self, view: &View) -> Result<(), Fault> {
        // What settled while we walked.
        let settled = recent::tip(&view.transaction)?.position;
        view.walk(self.paired.next(), |block| {
            if block.last() > settled {
                return Ok(Go::Stop);
            }
            if block.first() > self.paired {
                self.pair(block)?;
            }
            Ok(Go::On)
        })?;
        let mut mixes: HashMap<StreamKey, Mix> = HashMap::new();
        view.pairs(|stream, pair| {
            if pair.block <= settled {
                mixes.entry(*stream).or_default().add(pair);
            }
        })?;
        let ends = view.ends()?;
        let disagreement = self
            .streams
            .iter()
            .filter(|(key, end)| {
                let pairs = self.pairs.get(*key).map(|(_, mix)| mix);
                ends.get(*key) != Some(*end) || mixes.get(*key) != pairs
            })
            .map(|(_, end)| end.head.first)
            .min();
        if let Some(first) = disagreement {
            return Err(corrupt(
                first,
                "the index does not agree with the blocks of its stream",
            )
            .into());
        }
        if ends.len() != self.streams.len() || mixes.len() != self.pairs.len() {
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
