//! Frames as received: gathered in memory, durable no later than what they tell of, and kept in chunks.
//!
//! ```text
//! keep ─> Gathering ─> a Run in the entry that is written next ─> settled: chunks in a table of their own
//!                      (before the events drafted from it)         compressed, many frames in a row
//! ```
//!
//! Nobody waits for a frame. It gathers until something is recorded, and goes into the same entry; since
//! a frame is kept before it is translated, no event is ever durable without the frame that told of it.
//!
//! Table `frames`: the number of the first frame, and a [chunk](chunk). The chunks follow one another without
//! gaps, from the number `frames_from` in `meta` (1 where it is not there). Retention deletes whole chunks from
//! the front and moves that number.

mod chunk;
mod gathering;
mod run;

use redb::{AccessGuard, ReadTransaction, ReadableTable as _, WriteTransaction};

use crate::error::Error;
use crate::frame::FramesBefore;
use crate::id::FrameNumber;
use crate::log::index::optional;
use crate::log::storage::Fault;
use crate::log::table;

use chunk::Chunk;

pub(crate) use gathering::Gathering;
pub(crate) use run::Run;

/// Where the frames in the table begin, and the number after the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) from: FrameNumber,
    pub(crate) next: FrameNumber,
}

/// Where the frames in the table begin and end.
pub(crate) fn ends(transaction: &ReadTransaction) -> Result<Ends, Fault> {
    let from = optional(transaction.open_table(table::META))?
        .map(|meta| from(&meta))
        .transpose()?
        .unwrap_or(FrameNumber::FIRST);
    let mut next = from;
    if let Some(frames) = optional(transaction.open_table(table::FRAMES))?
        && let Some((first, bytes)) = frames.last()?
    {
        next = Chunk::parse(FrameNumber(first.value()), bytes.value())?.next();
    }
    Ok(Ends { from, next })
}

/// The frames of the chunk that holds this number, or of the first chunk after it.
pub(crate) fn at(transaction: &ReadTransaction, number: FrameNumber) -> Result<Option<Run>, Fault> {
    let Some((first, bytes)) = row(transaction, number)? else {
        return Ok(None);
    };
    Ok(Some(Chunk::parse(first, bytes.value())?.frames()?))
}

/// The chunk at `expected`, or the first of all where that was dropped meanwhile, proven to be whole; `None`
/// where `expected` is the number after the last of all.
pub(crate) fn verify(
    transaction: &ReadTransaction,
    expected: FrameNumber,
) -> Result<Option<Run>, Fault> {
    let expected = expected.max(ends(transaction)?.from);
    let Some((first, bytes)) = row(transaction, expected)? else {
        return Ok(None);
    };
    if first != expected {
        return Err(corrupt(expected, "it is missing").into());
    }
    Ok(Some(Chunk::parse(first, bytes.value())?.frames()?))
}

/// The bytes of a chunk in the table.
type Row = AccessGuard<'static, &'static [u8]>;

/// The row of the chunk that holds this number, or of the first chunk after it.
fn row(
    transaction: &ReadTransaction,
    number: FrameNumber,
) -> Result<Option<(FrameNumber, Row)>, Fault> {
    let Some(frames) = optional(transaction.open_table(table::FRAMES))? else {
        return Ok(None);
    };
    if let Some(row) = frames.range(..=number.0)?.next_back() {
        let (first, bytes) = row?;
        let first = FrameNumber(first.value());
        if Chunk::parse(first, bytes.value())?.next() > number {
            return Ok(Some((first, bytes)));
        }
    }
    let after = frames.range(number.0..)?.next().transpose()?;
    Ok(after.map(|(first, bytes)| (FrameNumber(first.value()), bytes)))
}

/// Writes frames that are durable elsewhere into the table, cut into chunks.
///
/// # Panics
///
/// Where they do not follow one another.
pub(crate) fn settle<'a>(
    transaction: &WriteTransaction,
    runs: impl IntoIterator<Item = &'a Run>,
) -> Result<(), Fault> {
    let mut frames = transaction.open_table(table::FRAMES)?;
    for (first, bytes) in chunk::cut(runs) {
        let old = frames.insert(first.0, bytes.as_slice())?;
        assert!(old.is_none(), "a chunk of frames is written once");
    }
    Ok(())
}

/// Deletes the chunks that hold nothing but old frames, and gives the number of the first that remains.
pub(crate) fn drop_old(
    transaction: &WriteTransaction,
    old: FramesBefore,
) -> Result<FrameNumber, Fault> {
    let mut remaining = from(&transaction.open_table(table::META)?)?;
    let mut frames = transaction.open_table(table::FRAMES)?;
    loop {
        {
            let Some((first, bytes)) = frames.first()? else {
                break;
            };
            let chunk = Chunk::parse(FrameNumber(first.value()), bytes.value())?;
            if !chunk.is_before(old) {
                break;
            }
            remaining = chunk.next();
        }
        frames.pop_first()?;
    }
    drop(frames);
    transaction
        .open_table(table::META)?
        .insert(table::FRAMES_FROM, remaining.0.to_le_bytes().as_slice())?;
    Ok(remaining)
}

/// The number that the frames in the table begin with.
fn from(
    meta: &impl redb::ReadableTable<&'static str, &'static [u8]>,
) -> Result<FrameNumber, Fault> {
    let Some(row) = meta.get(table::FRAMES_FROM)? else {
        return Ok(FrameNumber::FIRST);
    };
    let bytes = <[u8; 8]>::try_from(row.value())
        .map_err(|_| Fault::Damaged("where the frames begin is no number".to_owned()))?;
    Ok(FrameNumber(u64::from_le_bytes(bytes)))
}

fn corrupt(number: FrameNumber, what: impl Into<String>) -> Error {
    Error::CorruptFrame {
        number,
        what: what.into(),
    }
}

#[cfg(test)]
mod tests;
