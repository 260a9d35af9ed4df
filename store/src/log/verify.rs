//! Proving that a log is whole.

use std::collections::{BTreeMap, HashMap};

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{FrameNumber, Position, Seq, StreamId};
use crate::limits;
use crate::log::block::{Block, Item, Tip};
use crate::log::follow::Last;
use crate::log::reader::Shared;
use crate::log::recent::{self, Go, View};
use crate::log::storage::Fault;
use crate::log::table::{Cut, Pair, StreamEnd};
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
    /// The [frames](crate::frame) that have settled and were looked at: of everything alone.
    pub frames: u64,
    /// The position of the log's last event.
    pub head_position: Position,
    /// The hash over the whole log up to it: who notes it elsewhere can prove later that nothing was changed.
    pub head_hash: Hash,
}

/// Proves that a log is whole: everything, or one stream.
///
/// Of everything: positions and numbers have no gaps, each envelope and payload can be read, each stream's
/// chain of hashes and the head over all hold, the index agrees with the blocks, and no frame that was kept is
/// missing or changed. Of one stream: the same for its events; of the head it says where the log stands, and
/// has not proven it.
///
/// It reads the log once, in short looks, while others may write. It holds about 200 bytes for each stream.
///
/// # Errors
///
/// [`Error::Corrupt`] with the first bad place, or [`Error::CorruptFrame`] where it is a frame; [`Error::Read`];
/// [`Error::Closed`] after the log was closed.
pub fn verify(reader: &LogReader, only: Option<StreamId>) -> Result<Verified> {
    match only {
        None => all(&reader.shared),
        Some(stream) => one(&reader.shared, stream),
    }
}

fn all(shared: &Shared) -> Result<Verified> {
    loop {
        if let Some(verified) = all_once(shared)? {
            return Ok(verified);
        }
    }
}

/// `None` where a stream was cut meanwhile, and it has to be looked at again.
fn all_once(shared: &Shared) -> Result<Option<Verified>> {
    let mut walk = Walk {
        fronts: shared.look(|view| Ok(fronts(&view.ends()?)))?,
        ..Walk::default()
    };
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
    let compared = shared.look_for(near, Last::Sync, |view| {
        walk.blocks(view, usize::MAX)?;
        walk.compare(view)
    })?;
    if !compared {
        return Ok(None);
    }
    Ok(Some(Verified {
        frames: verify_frames(shared)?,
        ..walk.verified(walk.tip)
    }))
}

/// The first numbers that remain of streams that were cut.
fn fronts(ends: &BTreeMap<StreamKey, StreamEnd>) -> HashMap<StreamKey, Seq> {
    let cuts = ends
        .iter()
        .filter_map(|(stream, end)| Some((*stream, end.cut?.before)));
    cuts.collect()
}

fn verify_frames(shared: &Shared) -> Result<u64> {
    let mut next = FrameNumber::FIRST;
    let mut count = 0;
    while let Some(run) = shared.look(|view| frames::verify(&view.transaction, next))? {
        count += u64::from(run.count());
        next = run.next();
    }
    Ok(count)
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
                        walk.record(view, record)?;
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
    /// The first numbers that remain, of streams that are cut: what comes before has no pairs.
    fronts: HashMap<StreamKey, Seq>,
    /// The records that are gone from the blocks.
    gone: u64,
    /// The numbers that are gone from the streams.
    missing: u64,
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
            self.block(view, block)?;
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
            let front = self.fronts.get(record.stream_key());
            if front.is_some_and(|front| record.seq() < *front) {
                continue;
            }
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

    fn block(&mut self, view: &View, block: Block<'_>) -> Result<(), Fault> {
        let expected = self.tip.position.next();
        if block.first() > expected {
            return Err(corrupt(expected, "it is missing").into());
        }
        if block.is_empty() {
            // Its head is taken as it says: what comes after it must follow from that.
            self.gone += block.last().0 - self.tip.position.0;
            self.tip = block.tip();
            return Ok(());
        }
        // What settles between two looks is cut anew, so the end of one may be in the middle of a block.
        let known = expected.0 - block.first().0;
        for item in block
            .items()
            .skip(usize::try_from(known).unwrap_or(usize::MAX))
        {
            let hash = match item? {
                Item::Record(record) => {
                    self.record(view, record)?;
                    record.hash()
                }
                Item::Gone(hash) => {
                    self.gone += 1;
                    hash
                }
            };
            self.tip = self.tip.after(hash);
        }
        if self.tip != block.tip() {
            let what = "the head over the log does not follow from its events";
            return Err(corrupt(block.last(), what).into());
        }
        Ok(())
    }

    fn record(&mut self, view: &View, record: Record<'_>) -> Result<(), Fault> {
        let bad = |what: &str| Fault::from(corrupt(record.position(), what));
        let before = self.streams.get(record.stream_key());
        let (seq, hash) = before.map_or((Seq(0), Hash::ZERO), |end| (end.head.seq, end.hash));
        if record.seq() <= seq {
            return Err(bad(
                "its number is not the one after the last of its stream",
            ));
        }
        // What is missing must have been cut off; then the first that remains follows what the cut names.
        let missing = record.seq().0 - seq.0 - 1;
        let follows = if missing == 0 {
            Some(hash)
        } else {
            let end = view.end(record.stream_key())?;
            let cut = end.and_then(|end| end.cut);
            let cut = cut.filter(|cut| record.seq() <= cut.before);
            let cut =
                cut.ok_or_else(|| bad("its number is not the one after the last of its stream"))?;
            (record.seq() == cut.before).then_some(cut.hash)
        };
        if follows.is_some_and(|hash| !record.follows(hash)) {
            return Err(bad(
                "its hash does not follow from it and the event before it in its stream",
            ));
        }
        self.missing += missing;
        let recorded = record.decode()?;
        if matches!(recorded.event, Event::Unknown { .. }) {
            self.unknown += 1;
        } else if recorded.class != recorded.event.class() {
            return Err(bad("its class is not that of its type"));
        }
        let cut = record.cut().map(|(before, hash)| Cut {
            before,
            hash,
            at: record.seq(),
        });
        let cut = cut.or(before.and_then(|end| end.cut));
        self.events += 1;

        let end = StreamEnd {
            head: StreamHead {
                seq: record.seq(),
                first: before.map_or(record.position(), |end| end.head.first),
                last: record.position(),
                at: record.at(),
                from: cut.map_or(Seq::FIRST, |cut| cut.before),
            },
            hash: record.hash(),
            cut,
        };
        self.streams.insert(*record.stream_key(), end);
        Ok(())
    }

    /// Compares the index with what was seen; false where a stream was cut meanwhile.
    fn compare(&mut self, view: &View) -> Result<bool, Fault> {
        let ends = view.ends()?;
        if fronts(&ends) != self.fronts {
            return Ok(false);
        }
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
        let mut mixes: HashMap<StreamKey, Mixing> = HashMap::new();
        view.pairs(|stream, pair| {
            let front = self.fronts.get(stream).copied().unwrap_or(Seq::FIRST);
            if pair.block <= settled {
                mixes.entry(*stream).or_default().add(pair, front);
            } else if pair.seq <= front {
                // All that settled of this stream was cut off.
                mixes.remove(stream);
            }
        })?;
        let mixes: HashMap<StreamKey, Mix> = mixes
            .into_iter()
            .map(|(stream, mixing)| (stream, mixing.finish()))
            .collect();
        let disagreement = self
            .streams
            .iter()
            .filter(|(key, end)| {
                let pairs = self.pairs.get(*key).map(|(_, mix)| mix);
                !agrees(ends.get(*key), end, self.fronts.contains_key(*key))
                    || mixes.get(*key) != pairs
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
        if self.gone != self.missing {
            let what = format!(
                "{} events are gone, and {} were cut off",
                self.gone, self.missing
            );
            return Err(corrupt(self.tip.position, &what).into());
        }
        Ok(true)
    }

    fn verified(&self, tip: Tip) -> Verified {
        Verified {
            events: self.events,
            streams: self.streams.len() as u64,
            unknown: self.unknown,
            frames: 0,
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

/// Mixes pairs of the index as they would be if it knew nothing of what a stream was cut of: it may.
#[derive(Debug, Default)]
struct Mixing {
    /// The last pair that begins at or before the first number that remains: its block holds that one.
    front: Option<Pair>,
    mix: Mix,
}

impl Mixing {
    fn add(&mut self, pair: Pair, front: Seq) {
        if pair.seq <= front {
            self.front = Some(Pair { seq: front, ..pair });
        } else {
            self.flush();
            self.mix.add(pair);
        }
    }

    fn flush(&mut self) {
        if let Some(front) = self.front.take() {
            self.mix.add(front);
        }
    }

    fn finish(mut self) -> Mix {
        self.flush();
        self.mix
    }
}

/// Whether the index says of a stream what its blocks do.
///
/// Compacting takes what was cut off out of the index first and out of the blocks later. In between, and
/// where it was killed there, the index names a later first event of such a stream than the blocks hold.
fn agrees(index: Option<&StreamEnd>, blocks: &StreamEnd, is_cut: bool) -> bool {
    let Some(mut index) = index.copied() else {
        return false;
    };
    if is_cut && index.head.first > blocks.head.first && index.head.first <= blocks.head.last {
        index.head.first = blocks.head.first;
    }
    index == *blocks
}

fn corrupt(position: Position, what: &str) -> Error {
    Error::Corrupt {
        position,
        what: what.to_owned(),
    }
}
