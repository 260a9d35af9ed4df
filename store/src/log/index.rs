//! From a stream to its blocks, and to where it stands.
//!
//! What has settled has its index in tables, written in the commit that settled it; what has not has it
//! in memory. Nothing of it is truth: all of it follows from the blocks.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadTransaction, ReadableTable as _, TableError, WriteTransaction};

use crate::codec::StreamKey;
use crate::error::Error;
use crate::id::{EventId, Position, Seq, StreamId, Timestamp};
use crate::limits;
use crate::log::block::Block;
use crate::log::storage::Fault;
use crate::log::table::{self, Cut, Pair, StreamEnd};
use crate::log::{Hash, StreamHead};

/// The index of blocks that follow each other, in memory.
#[derive(Debug, Default)]
pub(crate) struct Index {
    streams: HashMap<StreamKey, Fresh>,
    ids: HashMap<EventId, Position>,
    events: u64,
}

/// What an index knows of one stream.
#[derive(Debug, Default)]
struct Fresh {
    stand: Stand,
    pairs: Vec<Pair>,
}

/// Where a stream stands, by what an index knows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stand {
    /// The position of its first record here.
    first: Position,
    seq: Seq,
    last: Position,
    at: Timestamp,
    hash: Hash,
    cut: Option<Cut>,
}

impl Index {
    /// Notes the records of the block after the last one.
    pub(crate) fn note(&mut self, block: Block<'_>) -> Result<(), Error> {
        for record in block.records() {
            let record = record?;
            let fresh = self.streams.entry(*record.stream_key()).or_default();
            if fresh.pairs.is_empty() {
                fresh.stand.first = record.position();
            }
            if fresh
                .pairs
                .last()
                .is_none_or(|pair| pair.block != block.first())
            {
                fresh.pairs.push(Pair {
                    seq: record.seq(),
                    block: block.first(),
                });
            }
            fresh.stand.seq = record.seq();
            fresh.stand.last = record.position();
            fresh.stand.at = record.at();
            fresh.stand.hash = record.hash();
            if let Some((before, hash)) = record.cut() {
                fresh.stand.cut = Some(Cut {
                    before,
                    hash,
                    at: record.seq(),
                });
            }
            if let Some(id) = record.id() {
                self.ids.entry(id).or_insert(record.position());
            }
            self.events += 1;
        }
        Ok(())
    }

    /// How many events it covers.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Where a stream stands, if it has records here.
    pub(crate) fn stand(&self, stream: &StreamKey) -> Option<Stand> {
        self.streams.get(stream).map(|fresh| fresh.stand)
    }

    /// The streams that have records here, and where they stand.
    pub(crate) fn stands(&self) -> impl Iterator<Item = (&StreamKey, Stand)> {
        let streams = self.streams.iter();
        streams.map(|(stream, fresh)| (stream, fresh.stand))
    }

    /// The number and the hash of the last record of each stream that has some here.
    pub(crate) fn tips(&self) -> HashMap<StreamKey, (Seq, Hash)> {
        let stands = self.stands();
        stands
            .map(|(stream, stand)| (*stream, stand.tip()))
            .collect()
    }

    /// The position of the event with an id, if it is here.
    pub(crate) fn position_of(&self, id: EventId) -> Option<Position> {
        self.ids.get(&id).copied()
    }

    /// Hands a stream's pairs to whoever picks from them; false when no more are wanted.
    pub(crate) fn pick(&self, stream: &StreamKey, picked: &mut Picked) -> bool {
        let pairs = self.streams.get(stream).map(|fresh| &fresh.pairs);
        pairs.into_iter().flatten().all(|pair| picked.take(*pair))
    }

    /// Hands a stream's pairs to whoever picks from them, the last one first; false when no more are wanted.
    pub(crate) fn pick_back(&self, stream: &StreamKey, picked: &mut PickedBack) -> bool {
        let pairs = self.streams.get(stream).map(|fresh| &fresh.pairs);
        let mut pairs = pairs.into_iter().flatten().rev();
        pairs.all(|pair| picked.take(*pair))
    }

    /// Hands on every pair, those of one stream in their order.
    pub(crate) fn pairs(&self, mut each: impl FnMut(&StreamKey, Pair)) {
        for (stream, fresh) in &self.streams {
            fresh.pairs.iter().for_each(|pair| each(stream, *pair));
        }
    }

    /// Hands on every id and the position of its event.
    pub(crate) fn ids(&self, mut each: impl FnMut(EventId, Position)) {
        self.ids
            .iter()
            .for_each(|(id, position)| each(*id, *position));
    }

    /// Writes it into the tables, as what follows on all that they cover, up to `through`.
    ///
    /// `settled` gives the block that holds a block's records from now on.
    pub(crate) fn write(
        &self,
        transaction: &WriteTransaction,
        through: Position,
        settled: impl Fn(Position) -> Position,
    ) -> Result<(), Fault> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        // In the order of keys, rows of one page are written together.
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        let mut heads = transaction.open_table(table::STREAM_HEADS)?;
        for (stream, fresh) in &streams {
            let old = heads
                .get(*stream)?
                .map(|row| StreamEnd::decode(row.value()));
            heads.insert(*stream, &fresh.stand.after(old).encode())?;
        }
        drop(heads);
        let mut runs = transaction.open_table(table::STREAM_BLOCKS)?;
        for (stream, fresh) in streams {
            let mut pairs: Vec<_> = fresh
                .pairs
                .iter()
                .map(|pair| Pair {
                    seq: pair.seq,
                    block: settled(pair.block),
                })
                .collect();
            pairs.dedup_by_key(|pair| pair.block);
            for run in pairs.chunks(limits::INDEX_ROW_ENTRIES_MAX) {
                let key = table::run_key(stream, run[0].seq);
                runs.insert(&key, Pair::encode(run).as_slice())?;
            }
        }
        drop(runs);
        let mut ids = transaction.open_table(table::EVENT_IDS)?;
        for (id, position) in &self.ids {
            ids.insert(&id.to_bytes(), position.0)?;
        }
        drop(ids);
        transaction
            .open_table(table::DERIVED)?
            .insert(table::INDEXED_THROUGH, through.0)?;
        Ok(())
    }
}

impl Stand {
    /// The number and the hash of the stream's last record.
    pub(crate) fn tip(&self) -> (Seq, Hash) {
        (self.seq, self.hash)
    }

    /// Where the stream stands, if `old` is where it stood before what is known here.
    pub(crate) fn after(&self, old: Option<StreamEnd>) -> StreamEnd {
        let cut = self.cut.or(old.and_then(|old| old.cut));
        StreamEnd {
            head: StreamHead {
                seq: self.seq,
                first: old.map_or(self.first, |old| old.head.first),
                last: self.last,
                at: self.at,
                from: cut.map_or(Seq::FIRST, |cut| cut.before),
            },
            hash: self.hash,
            cut,
        }
    }
}

/// Picks from ascending pairs the blocks that hold a stream's records from a number on.
#[derive(Debug)]
pub(crate) struct Picked {
    from: Seq,
    limit: usize,
    /// The last block that begins at or before `from`: it may hold it.
    candidate: Option<Position>,
    blocks: Vec<Position>,
}

impl Picked {
    pub(crate) fn new(from: Seq, limit: usize) -> Self {
        Self {
            from,
            limit,
            candidate: None,
            blocks: Vec::new(),
        }
    }

    /// Takes the next pair; false when no more are wanted.
    fn take(&mut self, pair: Pair) -> bool {
        if pair.seq <= self.from {
            self.candidate = Some(pair.block);
        } else {
            self.blocks.extend(self.candidate.take());
            self.blocks.push(pair.block);
        }
        self.blocks.len() < self.limit
    }

    /// The blocks, in order.
    pub(crate) fn finish(mut self) -> Vec<Position> {
        self.blocks.extend(self.candidate);
        self.blocks
    }
}

/// Picks from descending pairs the blocks that hold a stream's records up to a number.
#[derive(Debug)]
pub(crate) struct PickedBack {
    to: Seq,
    limit: usize,
    blocks: Vec<Position>,
}

impl PickedBack {
    pub(crate) fn new(to: Seq, limit: usize) -> Self {
        Self {
            to,
            limit,
            blocks: Vec::new(),
        }
    }

    /// Takes the pair before; false when no more are wanted.
    fn take(&mut self, pair: Pair) -> bool {
        if pair.seq <= self.to {
            self.blocks.push(pair.block);
        }
        self.blocks.len() < self.limit
    }

    /// The blocks, the last one first.
    pub(crate) fn finish(self) -> Vec<Position> {
        self.blocks
    }
}

/// The index of what has settled.
pub(crate) mod tables {
    use super::*;

    /// The position up to which the tables are complete; 0 where they are not there.
    pub(crate) fn through(transaction: &ReadTransaction) -> Result<Position, Fault> {
        let through = match optional(transaction.open_table(table::DERIVED))? {
            Some(derived) => derived
                .get(table::INDEXED_THROUGH)?
                .map_or(0, |row| row.value()),
            None => 0,
        };
        let tables_are_there = optional(transaction.open_table(table::STREAM_HEADS))?.is_some()
            && optional(transaction.open_table(table::STREAM_BLOCKS))?.is_some()
            && optional(transaction.open_table(table::EVENT_IDS))?.is_some();
        Ok(Position(if tables_are_there { through } else { 0 }))
    }

    /// Makes the tables anew, with nothing in them.
    pub(crate) fn clear(transaction: &WriteTransaction) -> Result<(), Fault> {
        transaction.delete_table(table::DERIVED)?;
        transaction.delete_table(table::STREAM_HEADS)?;
        transaction.delete_table(table::STREAM_BLOCKS)?;
        transaction.delete_table(table::EVENT_IDS)?;
        transaction
            .open_table(table::DERIVED)?
            .insert(table::INDEXED_THROUGH, 0)?;
        transaction.open_table(table::STREAM_HEADS)?;
        transaction.open_table(table::STREAM_BLOCKS)?;
        transaction.open_table(table::EVENT_IDS)?;
        Ok(())
    }

    /// Forgets the blocks that hold nothing of a stream but what it was cut of.
    pub(crate) fn trim(
        transaction: &WriteTransaction,
        stream: &StreamKey,
        before: Seq,
    ) -> Result<(), Fault> {
        let mut runs = transaction.open_table(table::STREAM_BLOCKS)?;
        let least = table::run_key(stream, Seq(0));
        let most = table::run_key(stream, before);
        // The last row that begins at or before what remains may hold its block.
        let mut old = Vec::new();
        for row in runs.range::<&table::RunKey>(&least..=&most)? {
            let (key, pairs) = row?;
            old.push((*key.value(), pairs.value().to_vec()));
        }
        let Some((_, run)) = old.last() else {
            return Ok(());
        };
        let pairs: Vec<_> = Pair::decode(run).collect();
        let holder = pairs.partition_point(|pair| pair.seq <= before);
        let Some(remaining) = pairs.get(holder.saturating_sub(1)..) else {
            return Ok(());
        };
        let mut remaining = remaining.to_vec();
        let Some(first) = remaining.first_mut() else {
            return Ok(());
        };
        first.seq = before;
        let block = first.block;
        for (key, _) in &old {
            runs.remove(key)?;
        }
        runs.insert(
            &table::run_key(stream, before),
            Pair::encode(&remaining).as_slice(),
        )?;
        drop(runs);
        let first = position_in(transaction, block, stream, before)?;
        let mut heads = transaction.open_table(table::STREAM_HEADS)?;
        let end = heads.get(stream)?.map(|row| StreamEnd::decode(row.value()));
        if let Some(mut end) = end {
            end.head.first = first;
            heads.insert(stream, &end.encode())?;
        }
        Ok(())
    }

    /// The position of a stream's record that a block holds.
    fn position_in(
        transaction: &WriteTransaction,
        block: Position,
        stream: &StreamKey,
        seq: Seq,
    ) -> Result<Position, Fault> {
        let blocks = transaction.open_table(table::BLOCKS)?;
        if let Some(bytes) = blocks.get(block.0)? {
            for record in Block::parse(block.0, bytes.value())?.records() {
                let record = record?;
                if record.stream_key() == stream && record.seq() == seq {
                    return Ok(record.position());
                }
            }
        }
        Err(Error::Corrupt {
            position: block,
            what: "the index names a block that does not hold what it should".to_owned(),
        }
        .into())
    }

    /// Where a stream stands; `None` where it has no records.
    pub(crate) fn end(
        transaction: &ReadTransaction,
        stream: &StreamKey,
    ) -> Result<Option<StreamEnd>, Fault> {
        match optional(transaction.open_table(table::STREAM_HEADS))? {
            Some(heads) => Ok(heads.get(stream)?.map(|row| StreamEnd::decode(row.value()))),
            None => Ok(None),
        }
    }

    /// All streams and where they stand, in the order of their names.
    pub(crate) fn ends(
        transaction: &ReadTransaction,
    ) -> Result<BTreeMap<StreamKey, StreamEnd>, Fault> {
        let mut ends = BTreeMap::new();
        if let Some(heads) = optional(transaction.open_table(table::STREAM_HEADS))? {
            for row in heads.iter()? {
                let (stream, end) = row?;
                ends.insert(*stream.value(), StreamEnd::decode(end.value()));
            }
        }
        Ok(ends)
    }

    /// The position of the event with an id.
    pub(crate) fn position_of(
        transaction: &ReadTransaction,
        id: EventId,
    ) -> Result<Option<Position>, Fault> {
        match optional(transaction.open_table(table::EVENT_IDS))? {
            Some(ids) => Ok(ids.get(&id.to_bytes())?.map(|row| Position(row.value()))),
            None => Ok(None),
        }
    }

    /// Hands a stream's pairs to whoever picks from them; false when no more are wanted.
    pub(crate) fn pick(
        transaction: &ReadTransaction,
        stream: &StreamKey,
        picked: &mut Picked,
    ) -> Result<bool, Fault> {
        let Some(runs) = optional(transaction.open_table(table::STREAM_BLOCKS))? else {
            return Ok(true);
        };
        let least = table::run_key(stream, Seq(0));
        let (wanted, most) = (
            table::run_key(stream, picked.from),
            table::run_key(stream, Seq(u64::MAX)),
        );
        // The run that begins at or before the wanted number may hold it.
        let start = match runs.range::<&table::RunKey>(&least..=&wanted)?.next_back() {
            Some(row) => *row?.0.value(),
            None => least,
        };
        for row in runs.range::<&table::RunKey>(&start..=&most)? {
            let (_, pairs) = row?;
            if !Pair::decode(pairs.value()).all(|pair| picked.take(pair)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands a stream's pairs to whoever picks from them, the last one first.
    pub(crate) fn pick_back(
        transaction: &ReadTransaction,
        stream: &StreamKey,
        picked: &mut PickedBack,
    ) -> Result<(), Fault> {
        let Some(runs) = optional(transaction.open_table(table::STREAM_BLOCKS))? else {
            return Ok(());
        };
        let least = table::run_key(stream, Seq(0));
        let most = table::run_key(stream, picked.to);
        for row in runs.range::<&table::RunKey>(&least..=&most)?.rev() {
            let (_, pairs) = row?;
            let pairs: Vec<_> = Pair::decode(pairs.value()).collect();
            if !pairs.into_iter().rev().all(|pair| picked.take(pair)) {
                break;
            }
        }
        Ok(())
    }

    /// Hands on every pair, those of one stream in their order; each row is checked to be one.
    pub(crate) fn pairs(
        transaction: &ReadTransaction,
        mut each: impl FnMut(&StreamKey, Pair),
    ) -> Result<(), Fault> {
        if let Some(runs) = optional(transaction.open_table(table::STREAM_BLOCKS))? {
            for row in runs.iter()? {
                let (key, pairs) = row?;
                // The type of the key has settled that it is longer than a stream's name.
                let stream = key.value().first_chunk().expect("a stream");
                let first = Pair::decode(pairs.value()).next();
                if first.map(|pair| table::run_key(stream, pair.seq)) != Some(*key.value())
                    || pairs.value().len() % 16 != 0
                {
                    return Err(Error::Corrupt {
                        position: first.map_or(Position(0), |pair| pair.block),
                        what: "a row of the index is not where it belongs".to_owned(),
                    }
                    .into());
                }
                Pair::decode(pairs.value()).for_each(|pair| each(stream, pair));
            }
        }
        Ok(())
    }

    /// Hands on every id and the position of its event.
    pub(crate) fn ids(
        transaction: &ReadTransaction,
        mut each: impl FnMut(EventId, Position),
    ) -> Result<(), Fault> {
        if let Some(ids) = optional(transaction.open_table(table::EVENT_IDS))? {
            for row in ids.iter()? {
                let (id, position) = row?;
                each(EventId::from_bytes(*id.value()), Position(position.value()));
            }
        }
        Ok(())
    }
}

/// The index says that it covers what no block ends with.
pub(crate) fn ends_nowhere(through: Position) -> Error {
    Error::Corrupt {
        position: through,
        what: "the index ends there, and no block does".to_owned(),
    }
}

/// A derived table may be missing: somebody deleted it, as they may.
pub(crate) fn optional<T>(table: Result<T, TableError>) -> Result<Option<T>, Fault> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The stream that a row belongs to.
pub(crate) fn stream_of(key: StreamKey) -> Result<StreamId, Fault> {
    StreamId::from_bytes(key)
        .ok_or_else(|| Fault::Damaged("the index names a stream of no known kind".to_owned()))
}
