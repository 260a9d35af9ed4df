//! Proving that a log is whole.

use std::collections::HashMap;
use std::ops::Bound;

use redb::ReadTransaction;

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Position, Seq, StreamId};
use crate::key::PublicKey;
use crate::limits;
use crate::log::block::{Block, Tip};
use crate::log::index::Index;
use crate::log::reader::{self, Shared};
use crate::log::storage::Fault;
use crate::log::table::{self, Pair, StreamEnd};
use crate::log::{CheckError, Hash, Head, LogReader, SignedHead, StreamHead};

/// What a log was proven to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The events that were looked at.
    pub events: u64,
    /// The streams that they belong to.
    pub streams: u64,
    /// Those of a type or version that this build does not know: they are whole, and that is all it can say.
    pub unknown: u64,
    /// Where the log stands: who [signs](Head::sign) it and keeps that elsewhere can prove later that
    /// nothing was changed.
    pub head: Head,
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
        None => verify_all(reader, |_| {}),
        Some(stream) => one(&reader.shared, stream),
    }
}

/// Proves that everything is whole, as [`verify`] does, and tells the position reached every few megabytes.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_all(reader: &LogReader, progress: impl FnMut(Position)) -> Result<Verified> {
    let mut walk = Walk::default();
    walk.all(&reader.shared, progress)?;
    Ok(walk.verified(walk.tip))
}

/// Proves that a log is whole and is the one that was signed, or has grown out of it.
///
/// It does what [`verify_all`] does, and holds the chain of hashes as it follows from the events against the
/// signed head. Where no `trusted` key is named, see [`SignedHead::verify_signature`] for what that is worth.
///
/// # Errors
///
/// A [`CheckError`]: of the signature before the log is looked at, then of the log, the first bad place first.
pub fn check(
    reader: &LogReader,
    signed: &SignedHead,
    trusted: Option<&PublicKey>,
    progress: impl FnMut(Position),
) -> Result<Verified, CheckError> {
    signed.verify_signature(trusted)?;
    let Head { position, hash } = signed.head;
    let mut walk = Walk {
        passing: position,
        ..Walk::default()
    };
    let walked = walk.all(&reader.shared, progress);
    let passed = match position {
        Position(0) => Some(Hash::ZERO),
        _ => walk.passed,
    };
    match passed {
        Some(found) if found != hash => Err(CheckError::Differs {
            position,
            signed: hash,
            found,
        }),
        // The blocks are well as far as they go; an index that knows of more bears witness of the same.
        None if walk.at_the_end => Err(CheckError::Short {
            signed: position,
            found: walk.tip.position,
        }),
        _ => {
            walked?;
            Ok(walk.verified(walk.tip))
        }
    }
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
    /// The key of the last block.
    last_block: Option<u64>,
    /// Whether there was no block after it.
    at_the_end: bool,
    /// The position whose head is wanted, and the hash there once it was passed.
    passing: Position,
    passed: Option<Hash>,
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
    /// Walks over all blocks, and compares the index with them.
    fn all(&mut self, shared: &Shared, mut progress: impl FnMut(Position)) -> Result<()> {
        while !self.at_the_end {
            // A block that was committed a moment ago may not be in the index yet.
            let through = match &shared.durable {
                Some(durable) => durable.borrow().position,
                None => Position(u64::MAX),
            };
            shared
                .storage
                .view(self.tip.position.next(), |transaction| {
                    self.blocks(transaction, limits::CHUNK_BLOCKS_MAX, through)
                })?;
            progress(self.tip.position);
        }
        // What came meanwhile, and the index as it is now, in one look.
        shared.look_up(|index, transaction| {
            self.blocks(transaction, usize::MAX, index.through())?;
            self.compare(index, transaction)
        })
    }

    /// Walks over some of the blocks that come next, up to the one that ends at `through`.
    fn blocks(
        &mut self,
        transaction: &ReadTransaction,
        limit: usize,
        through: Position,
    ) -> Result<(), Fault> {
        let blocks = transaction.open_table(table::BLOCKS)?;
        // From the last block's own key: one that is hidden behind it is to be found, too.
        let after = self.last_block.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = blocks.range::<u64>((after, Bound::Unbounded))?;
        for entry in rest.by_ref().take(limit) {
            let (first, bytes) = entry?;
            if first.value() > through.0 {
                self.at_the_end = true;
                return Ok(());
            }
            self.block(&Block::parse(first.value(), bytes.value())?)?;
            self.last_block = Some(first.value());
        }
        self.at_the_end = rest.next().is_none();
        Ok(())
    }

    fn block(&mut self, block: &Block<'_>) -> Result<()> {
        let expected = self.tip.position.next();
        if block.first() < expected {
            return Err(corrupt(block.first(), "it is there twice"));
        }
        if block.first() > expected {
            return Err(corrupt(expected, "it is missing"));
        }
        for record in block.records() {
            let record = record?;
            self.record(record, block.first())?;
            self.tip = self.tip.after(record);
            if record.position() == self.passing {
                self.passed = Some(self.tip.hash);
            }
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
        if index.through() > self.tip.position {
            let what = format!(
                "it is missing: the index knows of events up to {}",
                index.through()
            );
            return Err(corrupt(self.tip.position.next(), &what).into());
        }
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
            head: tip.into(),
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
