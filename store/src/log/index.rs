//! From a stream to its blocks: tables for what is old, memory for what is new.
//!
//! An ordinary commit does not touch the tables. The writer notes each block here, and writes what it
//! noted with some later commit, when enough has gathered. Whoever opens the log reads the blocks that
//! the tables do not cover, and so has the same index.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadTransaction, ReadableTable as _, TableError, WriteTransaction};

use crate::codec::StreamKey;
use crate::error::Error;
use crate::id::{Position, Seq, StreamId, Timestamp};
use crate::limits;
use crate::log::block::Block;
use crate::log::storage::Fault;
use crate::log::table::{self, Pair, StreamEnd};
use crate::log::{Hash, StreamHead};

/// The index of one open log.
///
/// Invariant: the tables cover all blocks up to `base`, the memory covers those after it up to `through`.
#[derive(Debug, Default)]
pub(crate) struct Index {
    base: Position,
    through: Position,
    /// The bytes of the blocks in memory.
    bytes: u64,
    streams: HashMap<StreamKey, Fresh>,
    /// Ends that the tables took over lately: the writer's next appends mostly go to these streams.
    warm: HashMap<StreamKey, (Seq, Hash)>,
}

/// What memory knows of a stream: its records after `base`.
#[derive(Debug, Clone, Default)]
struct Fresh {
    /// The position of its first record, if that is after `base`; else the tables know it.
    born: Option<Position>,
    seq: Seq,
    last: Position,
    at: Timestamp,
    hash: Hash,
    pairs: Vec<Pair>,
}

impl Index {
    /// What the index covers.
    pub(crate) fn through(&self) -> Position {
        self.through
    }

    /// Whether memory holds so much that the tables should take it over.
    pub(crate) fn lags(&self) -> bool {
        self.through.0 - self.base.0 >= limits::INDEX_LAG_EVENTS_MAX
            || self.bytes >= limits::INDEX_LAG_BYTES_MAX
    }

    /// Whether the tables cover all that memory does.
    pub(crate) fn is_flushed(&self) -> bool {
        self.base == self.through
    }

    /// Reads the blocks that are not covered yet, until memory [lags](Self::lags) if `bounded`.
    ///
    /// Where the tables cover more than they did, as another process wrote them, memory starts from there.
    pub(crate) fn catch_up(
        &mut self,
        transaction: &ReadTransaction,
        bounded: bool,
    ) -> Result<(), Fault> {
        let base = covered(transaction)?;
        if base != self.base {
            *self = Self {
                base,
                through: base,
                ..Self::default()
            };
        }
        let blocks = transaction.open_table(table::BLOCKS)?;
        for entry in blocks.range(self.through.next().0..)? {
            let (first, bytes) = entry?;
            self.note(Block::parse(first.value(), bytes.value())?)?;
            if bounded && self.lags() {
                break;
            }
        }
        Ok(())
    }

    /// Notes the block after the last one.
    pub(crate) fn note(&mut self, block: Block<'_>) -> Result<(), Error> {
        if block.first() != self.through.next() {
            return Err(Error::Corrupt {
                position: self.through.next(),
                what: "no block begins there".to_owned(),
            });
        }
        for record in block.records() {
            let record = record?;
            let fresh = self.streams.entry(*record.stream_key()).or_default();
            if record.seq() == Seq::FIRST {
                fresh.born = Some(record.position());
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
            fresh.seq = record.seq();
            fresh.last = record.position();
            fresh.at = record.at();
            fresh.hash = record.hash();
        }
        self.bytes += block.bytes().len() as u64;
        self.through = block.last();
        Ok(())
    }

    /// The number and the hash of a stream's last record, if memory knows them.
    pub(crate) fn end_in_memory(&self, stream: &StreamKey) -> Option<(Seq, Hash)> {
        match self.streams.get(stream) {
            Some(fresh) => Some((fresh.seq, fresh.hash)),
            None => self.warm.get(stream).copied(),
        }
    }

    /// Where a stream stands; `None` where it has no records.
    pub(crate) fn end(
        &self,
        transaction: &ReadTransaction,
        stream: &StreamKey,
    ) -> Result<Option<StreamEnd>, Fault> {
        let fresh = self.streams.get(stream);
        if let Some(fresh) = fresh
            && let Some(born) = fresh.born
        {
            return Ok(Some(fresh.end(born)));
        }
        let old = match optional(transaction.open_table(table::STREAM_HEADS))? {
            Some(heads) if self.base > Position(0) => {
                heads.get(stream)?.map(|row| StreamEnd::decode(row.value()))
            }
            _ => None,
        };
        match (fresh, old) {
            (None, old) => Ok(old),
            (Some(fresh), Some(old)) => Ok(Some(fresh.end(old.head.first))),
            (Some(fresh), None) => Err(fresh.orphan()),
        }
    }

    /// All streams and where they stand, in the order of their names.
    pub(crate) fn ends(
        &self,
        transaction: &ReadTransaction,
    ) -> Result<BTreeMap<StreamKey, StreamEnd>, Fault> {
        let mut ends = BTreeMap::new();
        if self.base > Position(0)
            && let Some(heads) = optional(transaction.open_table(table::STREAM_HEADS))?
        {
            for row in heads.iter()? {
                let (stream, end) = row?;
                ends.insert(*stream.value(), StreamEnd::decode(end.value()));
            }
        }
        for (stream, fresh) in &self.streams {
            let first = fresh
                .born
                .or_else(|| ends.get(stream).map(|old| old.head.first))
                .ok_or_else(|| fresh.orphan())?;
            ends.insert(*stream, fresh.end(first));
        }
        Ok(ends)
    }

    /// The blocks that hold a stream's records from a number on, in order, at most `limit` of them.
    pub(crate) fn blocks(
        &self,
        transaction: &ReadTransaction,
        stream: &StreamKey,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<Position>, Fault> {
        let mut found = Pairs {
            from,
            limit,
            candidate: None,
            blocks: Vec::new(),
        };
        if self.base > Position(0)
            && let Some(runs) = optional(transaction.open_table(table::STREAM_BLOCKS))?
        {
            let least = table::run_key(stream, Seq(0));
            let (wanted, most) = (
                table::run_key(stream, from),
                table::run_key(stream, Seq(u64::MAX)),
            );
            // The run that begins at or before the wanted number may hold it.
            let start = match runs.range::<&table::RunKey>(&least..=&wanted)?.next_back() {
                Some(row) => *row?.0.value(),
                None => least,
            };
            for row in runs.range::<&table::RunKey>(&start..=&most)? {
                let (_, pairs) = row?;
                if !Pair::decode(pairs.value()).all(|pair| found.take(pair)) {
                    return Ok(found.blocks);
                }
            }
        }
        let fresh = self.streams.get(stream);
        for pair in fresh.into_iter().flat_map(|fresh| &fresh.pairs) {
            if !found.take(*pair) {
                return Ok(found.blocks);
            }
        }
        found.blocks.extend(found.candidate);
        Ok(found.blocks)
    }

    /// Hands on every pair of the index, those of one stream in their order; each row is checked to be one.
    pub(crate) fn pairs(
        &self,
        transaction: &ReadTransaction,
        mut each: impl FnMut(&StreamKey, Pair),
    ) -> Result<(), Fault> {
        if self.base > Position(0)
            && let Some(runs) = optional(transaction.open_table(table::STREAM_BLOCKS))?
        {
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
        for (stream, fresh) in &self.streams {
            fresh.pairs.iter().for_each(|pair| each(stream, *pair));
        }
        Ok(())
    }

    /// What the tables lack.
    pub(crate) fn unflushed(&self) -> Rows {
        let mut streams: Vec<_> = self
            .streams
            .iter()
            .map(|(stream, fresh)| (*stream, fresh.clone()))
            .collect();
        // In the order of keys, rows of one page are written together.
        streams.sort_unstable_by_key(|(stream, _)| *stream);
        Rows {
            base: self.base,
            through: self.through,
            streams,
        }
    }

    /// Forgets what the tables hold now, but for the ends of streams.
    pub(crate) fn flushed(&mut self, rows: &Rows) {
        debug_assert_eq!(self.base, rows.base);
        self.base = rows.through;
        self.warm = rows
            .streams
            .iter()
            .map(|(stream, fresh)| (*stream, (fresh.seq, fresh.hash)))
            .collect();
        if self.through == rows.through {
            self.streams.clear();
            self.bytes = 0;
        } else {
            unreachable!("the one writer notes and flushes in turn");
        }
    }
}

/// Rows of the index that are to be written.
pub(crate) struct Rows {
    base: Position,
    through: Position,
    streams: Vec<(StreamKey, Fresh)>,
}

impl Rows {
    /// Writes them.
    pub(crate) fn write(&self, transaction: &WriteTransaction) -> Result<(), Fault> {
        if self.base == Position(0) {
            // Whatever is there belongs to an index that was given up.
            transaction.delete_table(table::STREAM_HEADS)?;
            transaction.delete_table(table::STREAM_BLOCKS)?;
        }
        let mut heads = transaction.open_table(table::STREAM_HEADS)?;
        let mut runs = transaction.open_table(table::STREAM_BLOCKS)?;
        for (stream, fresh) in &self.streams {
            let first = match fresh.born {
                Some(born) => born,
                None => heads
                    .get(stream)?
                    .map(|row| StreamEnd::decode(row.value()).head.first)
                    .ok_or_else(|| fresh.orphan())?,
            };
            heads.insert(stream, &fresh.end(first).encode())?;
            for run in fresh.pairs.chunks(limits::INDEX_ROW_ENTRIES_MAX) {
                let key = table::run_key(stream, run[0].seq);
                runs.insert(&key, Pair::encode(run).as_slice())?;
            }
        }
        transaction
            .open_table(table::DERIVED)?
            .insert(table::INDEXED_THROUGH, self.through.0)?;
        Ok(())
    }
}

impl Fresh {
    fn end(&self, first: Position) -> StreamEnd {
        StreamEnd {
            head: StreamHead {
                seq: self.seq,
                first,
                last: self.last,
                at: self.at,
            },
            hash: self.hash,
        }
    }

    /// Its first record is neither in memory nor in the tables.
    fn orphan(&self) -> Fault {
        Error::Corrupt {
            position: self.last,
            what: "the beginning of its stream is missing".to_owned(),
        }
        .into()
    }
}

/// Picks from ascending pairs the blocks that matter.
struct Pairs {
    from: Seq,
    limit: usize,
    /// The last pair that begins at or before `from`: its block may hold it.
    candidate: Option<Position>,
    blocks: Vec<Position>,
}

impl Pairs {
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
}

/// The position up to which the tables are complete; 0 where they are not there.
fn covered(transaction: &ReadTransaction) -> Result<Position, Fault> {
    let covered = match optional(transaction.open_table(table::DERIVED))? {
        Some(derived) => derived
            .get(table::INDEXED_THROUGH)?
            .map_or(0, |row| row.value()),
        None => 0,
    };
    let tables_are_there = optional(transaction.open_table(table::STREAM_HEADS))?.is_some()
        && optional(transaction.open_table(table::STREAM_BLOCKS))?.is_some();
    Ok(Position(if tables_are_there { covered } else { 0 }))
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
