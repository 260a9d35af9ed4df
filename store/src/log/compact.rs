//! Giving space back: taking out of the blocks what streams were cut of, and making anew what is derived.
//!
//! It goes in steps, each of them a commit after which the log is whole. Killed between two, it is as if it
//! had not come so far: what it takes out could not be read any more before. First the index forgets the
//! blocks that hold nothing else of a stream, and states that were kept before the cut go; then the blocks lose the records. Appends go on meanwhile,
//! into the journal, until it is full.

use std::cmp::Ordering;
use std::collections::HashMap;

use redb::{ReadTransaction, ReadableTable as _, WriteTransaction};

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::id::{EventId, Position, Seq};
use crate::limits;
use crate::log::block::{self, Block};
use crate::log::index::{self, Index, tables};
use crate::log::storage::{Fault, Storage};
use crate::log::{recent, snapshot, table};

/// How far something that takes long has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing: a verb in the present, `thinning blocks`.
    pub doing: &'static str,
    /// How many events of the log it has done that with.
    pub done: u64,
    /// How many there are.
    pub total: u64,
}

/// What compacting gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The events that were taken out of the blocks.
    pub events: u64,
    /// The bytes that the file took on the disk before.
    pub bytes_before: u64,
    /// The bytes that it takes now.
    pub bytes_after: u64,
}

/// Told how far it has come, now and then.
pub(crate) type Report<'a> = &'a mut dyn FnMut(Progress);

/// Takes out of the settled blocks what streams were cut of, and makes the file shorter.
pub(crate) fn compact(storage: &Storage, report: Report<'_>) -> Result<Compacted> {
    let failed = |fault: Fault| fault.near(Position::FIRST);
    let bytes_before = storage.bytes_on_disk().map_err(failed)?;
    let events = thin(storage, report)?;
    storage.shrink().map_err(failed)?;
    Ok(Compacted {
        events,
        bytes_before,
        bytes_after: storage.bytes_on_disk().map_err(failed)?,
    })
}

/// Takes out of the settled blocks what streams were cut of; gives how many events that were.
fn thin(storage: &Storage, report: Report<'_>) -> Result<u64> {
    let (cut, total) = view(storage, |transaction| {
        let ends = tables::ends(transaction)?.into_iter();
        let cut: Vec<_> = ends
            .filter_map(|(stream, end)| Some((stream, end.cut?)))
            .collect();
        Ok((cut, recent::tip(transaction)?.position.0))
    })?;
    if cut.is_empty() {
        return Ok(0);
    }
    change(storage, |transaction| {
        cut.iter().try_for_each(|(stream, cut)| {
            tables::trim(transaction, stream, cut.before)?;
            snapshot::drop_cut(transaction, stream, cut.at)
        })
    })?;
    let cuts: HashMap<StreamKey, Seq> = cut
        .into_iter()
        .map(|(stream, cut)| (stream, cut.before))
        .collect();
    let (mut next, mut events) = (Position::FIRST, 0);
    while next.0 <= total {
        let step = change(storage, |transaction| thin_step(transaction, next, &cuts))?;
        if step.next == next {
            break;
        }
        next = step.next;
        events += step.events;
        report(Progress {
            doing: "thinning blocks",
            done: next.0 - 1,
            total,
        });
    }
    Ok(events)
}

/// What a step did.
struct Step {
    /// Where the next one begins; where this one did, if there was nothing more.
    next: Position,
    events: u64,
}

/// Thins some blocks, those that come next.
fn thin_step(
    transaction: &WriteTransaction,
    from: Position,
    cuts: &HashMap<StreamKey, Seq>,
) -> Result<Step, Fault> {
    let is_gone = |record: Record<'_>| {
        let before = cuts.get(record.stream_key());
        before.is_some_and(|before| record.seq() < *before)
    };
    let mut blocks = transaction.open_table(table::BLOCKS)?;
    let mut changes = Changes::default();
    let mut ids: Vec<EventId> = Vec::new();
    let mut step = Step {
        next: from,
        events: 0,
    };
    if let Some(entry) = blocks.range(..from.0)?.next_back() {
        let (first, bytes) = entry?;
        changes.pass(Block::parse(first.value(), bytes.value())?)?;
    }
    for entry in blocks.range(from.0..)?.take(limits::COMPACT_BLOCKS) {
        let (first, bytes) = entry?;
        let block = Block::parse(first.value(), bytes.value())?;
        step.next = block.last().next();
        for record in block.records() {
            let record = record?;
            if is_gone(record) {
                step.events += 1;
                ids.extend(record.id());
            }
        }
        match block.without(is_gone)? {
            Some(thinned) => changes.put(block.first(), thinned)?,
            None => changes.pass(block)?,
        }
    }
    for (first, bytes) in changes.rows {
        match bytes {
            Some(bytes) => drop(blocks.insert(first.0, bytes.as_slice())?),
            None => drop(blocks.remove(first.0)?),
        }
    }
    // One table is open at a time, see `Storage::change`.
    drop(blocks);
    if !ids.is_empty() {
        let mut known = transaction.open_table(table::EVENT_IDS)?;
        for id in ids {
            known.remove(&id.to_bytes())?;
        }
    }
    Ok(step)
}

/// Blocks as they are to be, in order; empty ones that follow each other become one.
#[derive(Default)]
struct Changes {
    /// The bytes of a block, or that it goes.
    rows: Vec<(Position, Option<Vec<u8>>)>,
    /// The last block, if it is empty.
    empty: Option<(Position, Vec<u8>)>,
}

impl Changes {
    /// A block that stays as it is, unless it is empty and so is the one before it.
    fn pass(&mut self, block: Block<'_>) -> Result<(), Fault> {
        if block.is_empty() && !self.join(block)? {
            self.empty = Some((block.first(), block.all_bytes().to_vec()));
        } else if !block.is_empty() {
            self.empty = None;
        }
        Ok(())
    }

    /// A block that becomes another.
    fn put(&mut self, first: Position, bytes: Vec<u8>) -> Result<(), Fault> {
        let block = Block::parse(first.0, &bytes)?;
        if block.is_empty() && self.join(block)? {
            return Ok(());
        }
        self.empty = block.is_empty().then(|| (first, bytes.clone()));
        self.rows.push((first, Some(bytes)));
        Ok(())
    }

    /// Lets the last block, if it is empty, take this one in.
    fn join(&mut self, block: Block<'_>) -> Result<bool, Fault> {
        let Some((first, bytes)) = &self.empty else {
            return Ok(false);
        };
        let first = *first;
        let Some(joined) = block::join_empty(Block::parse(first.0, bytes)?, block) else {
            return Ok(false);
        };
        self.rows.push((block.first(), None));
        // A later row of the same block is what counts.
        self.rows.push((first, Some(joined.clone())));
        self.empty = Some((first, joined));
        Ok(true)
    }
}

/// Drops all that is derived.
pub(crate) fn drop_derived(storage: &Storage) -> Result<()> {
    change(storage, |transaction| {
        transaction.delete_table(table::SNAPSHOTS)?;
        tables::clear(transaction)
    })
}

/// Writes what the index of the settled blocks lacks: it was deleted, as it may be.
pub(crate) fn index_settled(storage: &Storage, report: Report<'_>) -> Result<()> {
    loop {
        let (done, total) = view(storage, |transaction| {
            let through = tables::through(transaction)?;
            Ok((through, recent::tip(transaction)?.position))
        })?;
        report(Progress {
            doing: "indexing",
            done: done.0,
            total: total.0,
        });
        match done.cmp(&total) {
            Ordering::Equal => return Ok(()),
            Ordering::Greater => return Err(index::ends_nowhere(done)),
            Ordering::Less => {}
        }
        index_step(storage).map_err(|fault| fault.near(done.next()))?;
    }
}

/// Writes the index of some of the settled blocks, those that come next.
fn index_step(storage: &Storage) -> Result<(), Fault> {
    let mut index = Index::default();
    let (from, through) = {
        let transaction = storage.begin_read()?;
        let from = tables::through(&transaction)?;
        let mut through = from;
        let blocks = transaction.open_table(table::BLOCKS)?;
        for entry in blocks.range(from.next().0..)? {
            let (first, bytes) = entry?;
            let block = Block::parse(first.value(), bytes.value())?;
            through = block.following(through)?;
            index.note(block)?;
            if index.events() >= limits::INDEX_STEP_EVENTS {
                break;
            }
        }
        if through == from {
            return Err(index::ends_nowhere(from).into());
        }
        (from, through)
    };
    storage.change(|transaction| {
        if from == Position(0) {
            // Whatever is there belongs to an index that was given up.
            tables::clear(transaction)?;
        }
        index.write(transaction, through, |block| block)
    })
}

fn view<T>(
    storage: &Storage,
    look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
) -> Result<T> {
    storage.view(Position::FIRST, look)
}

/// A change that may fail without harm: what it was to do is done again by whoever asks again.
fn change<T>(
    storage: &Storage,
    change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
) -> Result<T> {
    storage.change(change).map_err(|fault| match fault {
        Fault::Ours(error) => error,
        fault => Error::Failed {
            cause: fault.to_string().into(),
        },
    })
}
