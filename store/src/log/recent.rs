//! What has not settled yet: the blocks of the journal, in memory, with their index.
//!
//! There are two generations at most, one for each file of the journal: one that is settling, and one
//! that grows. A view of the log takes hold of both together with what the tables are at that moment, so
//! it sees each event once, whatever settles meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{ReadTransaction, ReadableTable as _};

use crate::codec::StreamKey;
use crate::error::{Error, Result};
use crate::id::{EventId, FrameNumber, Position, Seq, Timestamp};
use crate::log::Hash;
use crate::log::block::{Block, Sealed, Tip};
use crate::log::frames::{self, Run};
use crate::log::index::{self, Index, Picked, PickedBack, tables};
use crate::log::journal::{Entry, Mark};
use crate::log::storage::Fault;
use crate::log::table::{self, Pair, StreamEnd};

/// What one file of the journal holds.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Where the log stood before it.
    pub(crate) before: Mark,
    inner: RwLock<Inner>,
}

/// See [`Generation`].
#[derive(Debug)]
pub(crate) struct Inner {
    /// Where the log stands after it.
    pub(crate) after: Mark,
    pub(crate) blocks: Vec<Sealed>,
    pub(crate) index: Index,
    pub(crate) frames: Vec<Arc<Run>>,
}

impl Generation {
    /// One that has nothing yet.
    pub(crate) fn after(mark: Mark) -> Arc<Self> {
        Arc::new(Self {
            before: mark,
            inner: RwLock::new(Inner {
                after: mark,
                blocks: Vec::new(),
                index: Index::default(),
                frames: Vec::new(),
            }),
        })
    }

    /// What it holds. A panic while it was changed leaves it whole up to some block, which is all it claims.
    pub(crate) fn get(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what one commit brought.
    pub(crate) fn add(&self, entry: Entry) -> Result<()> {
        let mut inner = self.change();
        for (first, bytes) in &entry.blocks {
            inner.index.note(Block::parse(first.0, bytes)?)?;
        }
        inner.frames.extend(entry.frames.map(Arc::new));
        inner.blocks.extend(entry.blocks);
        inner.after = entry.after;
        Ok(())
    }

    /// Adds to the index alone, for blocks that the tables hold.
    fn note(&self, block: Block<'_>) -> Result<()> {
        let mut inner = self.change();
        inner.index.note(block)?;
        inner.after.tip = block.tip();
        Ok(())
    }
}

impl Inner {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.frames.is_empty()
    }

    /// The index in `blocks` of the one that holds a position, or of the first after it.
    fn at(&self, position: Position) -> usize {
        let after = self.blocks.partition_point(|(first, _)| *first <= position);
        after.saturating_sub(1)
    }
}

/// The generations of a log that this process writes.
#[derive(Debug)]
pub(crate) struct Recent {
    /// Settling, if one is.
    pub(crate) settling: Option<Arc<Generation>>,
    /// Growing.
    pub(crate) growing: Arc<Generation>,
    /// The ends of streams that settled last: the writer's next appends mostly go to these.
    warm: HashMap<StreamKey, (Seq, Hash)>,
}

impl Recent {
    pub(crate) fn new(settling: Option<Arc<Generation>>, growing: Arc<Generation>) -> Self {
        Self {
            settling,
            growing,
            warm: HashMap::new(),
        }
    }

    /// The generations, the older one first.
    pub(crate) fn generations(&self) -> Vec<Arc<Generation>> {
        self.settling
            .iter()
            .chain([&self.growing])
            .cloned()
            .collect()
    }

    /// What the tables hold at least.
    pub(crate) fn settled_through(&self) -> Position {
        self.settling
            .as_ref()
            .unwrap_or(&self.growing)
            .before
            .tip
            .position
    }

    /// The growing one is to settle, and a new one grows.
    pub(crate) fn rotate(&mut self) -> Arc<Generation> {
        assert!(self.settling.is_none(), "one generation settles at a time");
        let after = self.growing.get().after;
        let full = std::mem::replace(&mut self.growing, Generation::after(after));
        self.settling = Some(Arc::clone(&full));
        full
    }

    /// The settling one is in the tables; these are the ends of its streams.
    pub(crate) fn settled(&mut self, ends: HashMap<StreamKey, (Seq, Hash)>) {
        self.settling = None;
        self.warm = ends;
    }

    /// The number and the hash of a stream's last record, if memory knows them.
    pub(crate) fn end(&self, stream: &StreamKey) -> Option<(Seq, Hash)> {
        let newest = |generation: &Arc<Generation>| {
            let stand = generation.get().index.stand(stream)?;
            Some(stand.tip())
        };
        newest(&self.growing)
            .or_else(|| self.settling.as_ref().and_then(newest))
            .or_else(|| self.warm.get(stream).copied())
    }
}

/// The log as it was at one moment.
///
/// It keeps pages of the storage from being used again, so it is short-lived.
pub(crate) struct View {
    pub(crate) transaction: ReadTransaction,
    /// Whether the tables have an index.
    is_indexed: bool,
    /// What the tables do not hold, in order.
    memory: Vec<Arc<Generation>>,
}

impl View {
    /// `memory` must hold all that the tables, as `transaction` sees them, do not.
    pub(crate) fn new(
        transaction: ReadTransaction,
        mut memory: Vec<Arc<Generation>>,
    ) -> Result<Self, Fault> {
        let indexed = tables::through(&transaction)?;
        let settled = tip(&transaction)?;
        // One that settles is in the tables a moment before it is given up here. Its blocks are joined
        // there, so it must not be seen twice.
        memory.retain(|generation| generation.before.tip.position >= settled.position);
        let mut view = Self {
            is_indexed: indexed > Position(0),
            transaction,
            memory,
        };
        if indexed < settled.position {
            view.complete_index(indexed, settled.position)?;
        }
        Ok(view)
    }

    /// Notes in memory what the index in the tables lacks: somebody deleted it, as they may, and nobody
    /// wrote the log since.
    fn complete_index(&mut self, indexed: Position, settled: Position) -> Result<(), Fault> {
        let missing = Generation::after(Mark::START);
        let blocks = self.transaction.open_table(table::BLOCKS)?;
        let mut through = indexed;
        for entry in blocks.range(indexed.next().0..)? {
            let (first, bytes) = entry?;
            let block = Block::parse(first.value(), bytes.value())?;
            through = block.following(through)?;
            missing.note(block)?;
        }
        if through != settled {
            return Err(index::ends_nowhere(through).into());
        }
        self.memory.insert(0, missing);
        Ok(())
    }

    /// Where the log stands.
    pub(crate) fn tip(&self) -> Result<Tip, Fault> {
        match self.memory.last() {
            Some(newest) => Ok(newest.get().after.tip),
            None => tip(&self.transaction),
        }
    }

    /// Where a stream stands; `None` where it has no records.
    pub(crate) fn end(&self, stream: &StreamKey) -> Result<Option<StreamEnd>, Fault> {
        let mut end = if self.is_indexed {
            tables::end(&self.transaction, stream)?
        } else {
            None
        };
        for generation in &self.memory {
            if let Some(stand) = generation.get().index.stand(stream) {
                end = Some(stand.after(end));
            }
        }
        Ok(end)
    }

    /// All streams and where they stand, in the order of their names.
    pub(crate) fn ends(&self) -> Result<BTreeMap<StreamKey, StreamEnd>, Fault> {
        let mut ends = if self.is_indexed {
            tables::ends(&self.transaction)?
        } else {
            BTreeMap::new()
        };
        for generation in &self.memory {
            for (stream, stand) in generation.get().index.stands() {
                let end = stand.after(ends.get(stream).copied());
                ends.insert(*stream, end);
            }
        }
        Ok(ends)
    }

    /// The position of the event with an id.
    pub(crate) fn position_of(&self, id: EventId) -> Result<Option<Position>, Fault> {
        let in_memory = |generation: &Arc<Generation>| generation.get().index.position_of(id);
        match self.memory.iter().find_map(in_memory) {
            Some(position) => Ok(Some(position)),
            None if !self.is_indexed => Ok(None),
            None => tables::position_of(&self.transaction, id),
        }
    }

    /// The blocks that hold a stream's records from a number on, in order, at most about `limit` of them.
    pub(crate) fn blocks_of(
        &self,
        stream: &StreamKey,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<Position>, Fault> {
        let mut picked = Picked::new(from, limit);
        if !self.is_indexed || tables::pick(&self.transaction, stream, &mut picked)? {
            for generation in &self.memory {
                if !generation.get().index.pick(stream, &mut picked) {
                    break;
                }
            }
        }
        Ok(picked.finish())
    }

    /// The blocks that hold a stream's records up to a number, the last one first, at most `limit` of them.
    pub(crate) fn blocks_back(
        &self,
        stream: &StreamKey,
        to: Seq,
        limit: usize,
    ) -> Result<Vec<Position>, Fault> {
        let mut picked = PickedBack::new(to, limit);
        for generation in self.memory.iter().rev() {
            if !generation.get().index.pick_back(stream, &mut picked) {
                return Ok(picked.finish());
            }
        }
        if self.is_indexed {
            tables::pick_back(&self.transaction, stream, &mut picked)?;
        }
        Ok(picked.finish())
    }

    /// Hands on every pair of the index, those of one stream in their order.
    pub(crate) fn pairs(&self, mut each: impl FnMut(&StreamKey, Pair)) -> Result<(), Fault> {
        if self.is_indexed {
            tables::pairs(&self.transaction, &mut each)?;
        }
        for generation in &self.memory {
            generation.get().index.pairs(&mut each);
        }
        Ok(())
    }

    /// Hands on every id of the index and the position of its event.
    pub(crate) fn ids(&self, mut each: impl FnMut(EventId, Position)) -> Result<(), Fault> {
        if self.is_indexed {
            tables::ids(&self.transaction, &mut each)?;
        }
        for generation in &self.memory {
            generation.get().index.ids(&mut each);
        }
        Ok(())
    }

    /// Looks at the blocks whose first positions are given.
    pub(crate) fn visit(
        &self,
        wanted: &[Position],
        mut each: impl FnMut(Block<'_>) -> Result<Go, Fault>,
    ) -> Result<(), Fault> {
        let blocks = self.transaction.open_table(table::BLOCKS)?;
        for &first in wanted {
            let go = if let Some(bytes) = self.in_memory(first) {
                each(Block::parse(first.0, &bytes)?)?
            } else if let Some(bytes) = blocks.get(first.0)? {
                each(Block::parse(first.0, bytes.value())?)?
            } else {
                return Err(Error::Corrupt {
                    position: first,
                    what: "the index names a block that is not there".to_owned(),
                }
                .into());
            };
            if go == Go::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Looks at blocks in order, from the one that holds a position, or the first after it.
    pub(crate) fn walk(
        &self,
        from: Position,
        mut each: impl FnMut(Block<'_>) -> Result<Go, Fault>,
    ) -> Result<(), Fault> {
        let remembered = self.memory.iter().find_map(|generation| {
            let inner = generation.get();
            let (first, _) = inner.blocks.first()?;
            Some(*first)
        });
        if remembered.is_none_or(|first| from < first) {
            let blocks = self.transaction.open_table(table::BLOCKS)?;
            let start = match blocks.range(..=from.0)?.next_back() {
                Some(entry) => entry?.0.value(),
                None => 0,
            };
            for entry in blocks.range(start..)? {
                let (first, bytes) = entry?;
                if each(Block::parse(first.value(), bytes.value())?)? == Go::Stop {
                    return Ok(());
                }
            }
        }
        walk_memory(&self.memory, from, each)
    }

    /// Looks at blocks that have not settled, from the one that holds a position, or the first after it.
    pub(crate) fn walk_memory(
        &self,
        from: Position,
        each: impl FnMut(Block<'_>) -> Result<Go, Fault>,
    ) -> Result<(), Fault> {
        walk_memory(&self.memory, from, each)
    }

    /// Looks at blocks in descending order, from the one that holds a position, or the last before it.
    pub(crate) fn walk_back(
        &self,
        from: Position,
        mut each: impl FnMut(Block<'_>) -> Result<Go, Fault>,
    ) -> Result<(), Fault> {
        for generation in self.memory.iter().rev() {
            let mut end = {
                let blocks = &generation.get().blocks;
                blocks.partition_point(|(first, _)| *first <= from)
            };
            while end > 0 {
                end -= 1;
                let (first, bytes) = generation.get().blocks[end].clone();
                if each(Block::parse(first.0, &bytes)?)? == Go::Stop {
                    return Ok(());
                }
            }
        }
        let blocks = self.transaction.open_table(table::BLOCKS)?;
        for entry in blocks.range(..=from.0)?.rev() {
            let (first, bytes) = entry?;
            if each(Block::parse(first.value(), bytes.value())?)? == Go::Stop {
                break;
            }
        }
        Ok(())
    }

    /// The first position at or after which events are as young as a time, as far as times ascend.
    ///
    /// Searches by halves, so it looks at few blocks of many.
    pub(crate) fn position_at(&self, time: Timestamp) -> Result<Position, Fault> {
        let (mut low, mut high) = (Position::FIRST, self.tip()?.position.next());
        while low < high {
            let middle = Position(low.0 + (high.0 - low.0) / 2);
            match self.first_from(middle)? {
                Some((position, at)) if at < time => low = position.next(),
                _ => high = middle,
            }
        }
        Ok(low)
    }

    /// The first event from a position on that is not gone, and its time.
    fn first_from(&self, from: Position) -> Result<Option<(Position, Timestamp)>, Fault> {
        let mut first = None;
        self.walk(from, |block| {
            for record in block.records() {
                let record = record?;
                if record.position() >= from {
                    first = Some((record.position(), record.at()));
                    return Ok(Go::Stop);
                }
            }
            Ok(Go::On)
        })?;
        Ok(first)
    }

    /// The frames of the chunk or the commit that holds this number, or of the first after it.
    pub(crate) fn frames_at(&self, number: FrameNumber) -> Result<Option<Arc<Run>>, Fault> {
        if let Some(run) = frames::at(&self.transaction, number)? {
            return Ok(Some(Arc::new(run)));
        }
        let in_memory = |generation: &Arc<Generation>| {
            let inner = generation.get();
            let at = inner.frames.partition_point(|run| run.next() <= number);
            inner.frames.get(at).cloned()
        };
        Ok(self.memory.iter().find_map(in_memory))
    }

    fn in_memory(&self, first: Position) -> Option<Arc<[u8]>> {
        self.memory.iter().find_map(|generation| {
            let inner = generation.get();
            let at = inner
                .blocks
                .binary_search_by_key(&first, |(first, _)| *first)
                .ok()?;
            Some(Arc::clone(&inner.blocks[at].1))
        })
    }
}

/// Looks at blocks in memory in order, from the one that holds a position, or the first after it.
///
/// Blocks are shared, so the writer does not wait for whoever looks at them.
pub(crate) fn walk_memory(
    memory: &[Arc<Generation>],
    from: Position,
    mut each: impl FnMut(Block<'_>) -> Result<Go, Fault>,
) -> Result<(), Fault> {
    for generation in memory {
        let mut next = generation.get().at(from);
        loop {
            let some: Vec<Sealed> = {
                let inner = generation.get();
                inner.blocks.iter().skip(next).take(64).cloned().collect()
            };
            if some.is_empty() {
                break;
            }
            next += some.len();
            for (first, bytes) in &some {
                if each(Block::parse(first.0, bytes)?)? == Go::Stop {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Go {
    On,
    Stop,
}

/// The end of what has settled, by its last block.
pub(crate) fn tip(transaction: &ReadTransaction) -> Result<Tip, Fault> {
    let blocks = transaction.open_table(table::BLOCKS)?;
    let Some((first, bytes)) = blocks.last()? else {
        return Ok(Tip::START);
    };
    Ok(Block::parse(first.value(), bytes.value())?.tip())
}
