//! A block: the records of one commit, or a part of them, in one value of the storage.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | format of the block: 1, or 2 or 3 where records are gone |
//! | 1 | 4 | number of records, at least 1 |
//! | 5 | 32 | head: the hash over the whole log up to the last of these records |
//! | 37 | n | the records, one after the other, in the order of their positions |
//!
//! The head is a chain: for each record, BLAKE3 over the head before it (32 zeros before the first)
//! and the record's own hash. It does not depend on how records are cut into blocks.
//!
//! Where records are gone, because the fronts of their streams were cut, the block is *thinned*: its format
//! is 2, and a record that is gone is 36 bytes: the number 36 (4), where a record has its length, and the
//! record's hash. The positions of the others do not change, and the head still follows. A block of which
//! nothing is left is *empty*: its format is 3, and it has no items at all; empty blocks that follow each
//! other are one.
//!
//! Many records share a value because the storage writes whole pages: one row per record costs several
//! times as much where many wait for one commit.

use std::borrow::Cow;
use std::sync::Arc;

use crate::codec::{self, Record};
use crate::error::{Error, Result};
use crate::id::Position;
use crate::limits;
use crate::log::Hash;

/// Where the whole log stands after some record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tip {
    /// The position of that record; 0 before the first.
    pub(crate) position: Position,
    /// The hash over the whole log up to it.
    pub(crate) hash: Hash,
}

impl Tip {
    /// Before the first record.
    pub(crate) const START: Self = Self {
        position: Position(0),
        hash: Hash::ZERO,
    };

    /// Where the log stands after the next record, which has this hash.
    pub(crate) fn after(self, hash: Hash) -> Self {
        Self {
            position: self.position.next(),
            hash: codec::chain(self.hash, &hash.0),
        }
    }
}

/// A block that is whole: the position of its first record, and its bytes.
pub(crate) type Sealed = (Position, Arc<[u8]>);

const WHOLE: u8 = 1;
const THINNED: u8 = 2;
const EMPTY: u8 = 3;
/// The bytes of a record that is gone.
const GONE_LEN: u32 = 36;
const COUNT: usize = 1;
const HEAD: usize = 5;
const RECORDS: usize = 37;

/// A block as it is read.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    first: Position,
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Block<'a> {
    /// The block that the storage holds at `first`; its records are looked at as they are asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where its header cannot be.
    pub(crate) fn parse(first: u64, bytes: &'a [u8]) -> Result<Self> {
        let corrupt = |what: String| Error::Corrupt {
            position: Position(first),
            what,
        };
        if bytes.len() < RECORDS {
            return Err(corrupt("a block is cut short".to_owned()));
        }
        if !(WHOLE..=EMPTY).contains(&bytes[0]) {
            return Err(corrupt(format!(
                "a block has format {}, not {WHOLE} to {EMPTY}",
                bytes[0]
            )));
        }
        let count = bytes[COUNT..]
            .first_chunk()
            .map_or(0, |count| u32::from_le_bytes(*count));
        if count == 0 || first == 0 || first.checked_add(u64::from(count)).is_none() {
            return Err(corrupt(format!("a block of {count} records")));
        }
        Ok(Self {
            first: Position(first),
            count,
            bytes,
        })
    }

    /// The position of its first record.
    pub(crate) fn first(&self) -> Position {
        self.first
    }

    /// The position of its last record.
    pub(crate) fn last(&self) -> Position {
        Position(self.first.0 + u64::from(self.count) - 1)
    }

    /// The position of its last record, if its first one follows on `through`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it does not.
    pub(crate) fn following(&self, through: Position) -> Result<Position> {
        if self.first == through.next() {
            return Ok(self.last());
        }
        Err(Error::Corrupt {
            position: through.next(),
            what: "no block begins there".to_owned(),
        })
    }

    /// How many of its positions are known to whoever read up to `through`, which it may go back behind: what settles
    /// between two looks is cut anew. None where all are.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where positions are missing before it.
    pub(crate) fn known(&self, through: Position) -> Result<Option<usize>> {
        let expected = through.next();
        if self.first > expected {
            return Err(Error::Corrupt {
                position: expected,
                what: "it is missing".to_owned(),
            });
        }
        let known = usize::try_from(expected.0 - self.first.0).unwrap_or(usize::MAX);
        Ok((self.last() >= expected).then_some(known))
    }

    /// Where the log stood after its last record.
    pub(crate) fn tip(&self) -> Tip {
        let mut hash = [0; 32];
        hash.copy_from_slice(&self.bytes[HEAD..RECORDS]);
        Tip {
            position: self.last(),
            hash: Hash(hash),
        }
    }

    /// All its bytes.
    pub(crate) fn all_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of its records.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        &self.bytes[RECORDS..]
    }

    /// Whether it is whole: nothing of it is gone.
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes[0] == WHOLE
    }

    /// Its records, each checked to stand where it belongs; ends after the first error.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<Record<'a>>> + use<'a> {
        self.items().filter_map(|item| match item {
            Ok(Item::Record(record)) => Some(Ok(record)),
            Ok(Item::Gone(_)) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// What stands at each of its positions, in order; ends after the first error. Nothing of an empty block.
    pub(crate) fn items(&self) -> impl Iterator<Item = Result<Item<'a>>> + use<'a> {
        let (mut expected, last) = (self.first, self.last());
        if self.bytes[0] == EMPTY {
            expected = last.next();
        }
        let mut rest = self.bytes();
        let format = self.bytes[0];
        std::iter::from_fn(move || {
            let corrupt = |position, what: &str| Error::Corrupt {
                position,
                what: what.to_owned(),
            };
            if expected > last {
                let surplus = !std::mem::take(&mut rest).is_empty();
                return surplus
                    .then(|| Err(corrupt(last, "bytes follow the last record of a block")));
            }
            let position = expected;
            let gone = split_gone(rest).filter(|_| format == THINNED);
            let found = match gone.or_else(|| split_record(rest)) {
                None => Err(corrupt(position, "a record is cut short")),
                Some((Item::Record(record), _)) if record.position() != position => {
                    Err(corrupt(position, "another record stands in its place"))
                }
                Some((item, after)) => {
                    rest = after;
                    Ok(item)
                }
            };
            expected = position.next();
            if found.is_err() {
                expected = last.next();
                rest = &[];
            }
            Some(found)
        })
    }

    /// The block without the records that are gone; `None` where it has none of them.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it cannot be read.
    pub(crate) fn without(&self, is_gone: impl Fn(Record<'_>) -> bool) -> Result<Option<Vec<u8>>> {
        let mut thinned = self.bytes[..RECORDS].to_vec();
        let (mut kept, mut dropped) = (0_u32, 0_u32);
        for item in self.items() {
            let hash = match item? {
                Item::Record(record) if is_gone(record) => {
                    dropped += 1;
                    record.hash()
                }
                Item::Record(record) => {
                    thinned.extend_from_slice(record.bytes());
                    kept += 1;
                    continue;
                }
                Item::Gone(hash) => hash,
            };
            thinned.extend_from_slice(&GONE_LEN.to_le_bytes());
            thinned.extend_from_slice(&hash.0);
        }
        if dropped == 0 {
            return Ok(None);
        }
        thinned[0] = THINNED;
        if kept == 0 {
            thinned.truncate(RECORDS);
            thinned[0] = EMPTY;
        }
        Ok(Some(thinned))
    }

    /// Whether nothing of it is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes[0] == EMPTY
    }
}

/// What stands at a position.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item<'a> {
    Record(Record<'a>),
    /// A record was there, with this hash.
    Gone(Hash),
}

fn split_record(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (record, rest) = Record::split(bytes)?;
    Some((Item::Record(record), rest))
}

fn split_gone(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    if u32::from_le_bytes(*length) != GONE_LEN {
        return None;
    }
    let (hash, rest) = rest.split_first_chunk()?;
    Some((Item::Gone(Hash(*hash)), rest))
}

/// The block of so many records that are all gone, after which the log stood at `head`.
pub(crate) fn empty(count: u32, head: Hash) -> Vec<u8> {
    let mut bytes = vec![EMPTY];
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&head.0);
    bytes
}

/// Empty blocks that follow each other, as one, if they are and it can be.
pub(crate) fn join_empty(first: Block<'_>, second: Block<'_>) -> Option<Vec<u8>> {
    if !first.is_empty() || !second.is_empty() || first.last().next() != second.first() {
        return None;
    }
    let count = first.count.checked_add(second.count)?;
    let mut joined = second.bytes.to_vec();
    joined[COUNT..HEAD].copy_from_slice(&count.to_le_bytes());
    Some(joined)
}

/// Joins blocks that follow each other, as long as one block has room for them.
///
/// # Errors
///
/// [`Error::Corrupt`] where one of them cannot be read.
pub(crate) fn join(blocks: &[Sealed]) -> Result<Vec<(Position, Cow<'_, [u8]>)>> {
    let mut joined: Vec<(Position, Cow<'_, [u8]>)> = Vec::with_capacity(blocks.len());
    for (first, bytes) in blocks {
        let block = Block::parse(first.0, bytes)?;
        match joined.last_mut() {
            Some((before, room))
                if block.is_whole()
                    && room.len() + block.bytes().len() <= limits::BLOCK_BYTES_MAX =>
            {
                let count = block.last().0 - before.0 + 1;
                let room = room.to_mut();
                // The head is that of the last record.
                room[COUNT..RECORDS].copy_from_slice(&bytes[COUNT..RECORDS]);
                put_count(room, count);
                room.extend_from_slice(block.bytes());
            }
            _ => joined.push((*first, Cow::Borrowed(bytes))),
        }
    }
    Ok(joined)
}

fn put_count(block: &mut [u8], count: u64) {
    let count = u32::try_from(count).expect("each record has bytes, and a block few");
    block[COUNT..HEAD].copy_from_slice(&count.to_le_bytes());
}

/// The blocks of one commit as they fill.
pub(crate) struct Builder {
    tip: Tip,
    done: Vec<(Position, Vec<u8>)>,
    open: Vec<u8>,
    count: u32,
}

impl Builder {
    /// Blocks for what comes after `tip`.
    pub(crate) fn after(tip: Tip) -> Self {
        Self {
            tip,
            done: Vec::new(),
            open: Vec::new(),
            count: 0,
        }
    }

    /// Where the log will stand after the last record.
    pub(crate) fn tip(&self) -> Tip {
        self.tip
    }

    /// The records that were added, from a position on.
    pub(crate) fn records_from(&self, from: Position) -> impl Iterator<Item = Record<'_>> {
        let whole = self.done.iter().map(|(_, bytes)| bytes.as_slice());
        let records = whole.chain([self.open.as_slice()]).flat_map(|block| {
            let mut rest = block.get(RECORDS..).unwrap_or_default();
            std::iter::from_fn(move || {
                let (record, after) = Record::split(rest)?;
                rest = after;
                Some(record)
            })
        });
        records.filter(move |record| record.position() >= from)
    }

    /// Adds the record of the next position.
    pub(crate) fn push(&mut self, record: Record<'_>) {
        let bytes = record.bytes();
        if self.count > 0 && self.open.len() + bytes.len() > limits::BLOCK_BYTES_MAX {
            self.seal();
        }
        if self.open.is_empty() {
            self.open.resize(RECORDS, 0);
        }
        self.open.extend_from_slice(bytes);
        self.count += 1;
        self.tip = self.tip.after(record.hash());
    }

    /// The finished blocks, each with the position of its first record.
    pub(crate) fn finish(mut self) -> Vec<(Position, Vec<u8>)> {
        if self.count > 0 {
            self.seal();
        }
        self.done
    }

    fn seal(&mut self) {
        let mut bytes = std::mem::take(&mut self.open);
        bytes[0] = WHOLE;
        bytes[COUNT..HEAD].copy_from_slice(&self.count.to_le_bytes());
        bytes[HEAD..RECORDS].copy_from_slice(&self.tip.hash.0);
        let first = Position(self.tip.position.0 + 1 - u64::from(self.count));
        self.done.push((first, bytes));
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Draft;
    use crate::event::{Event, NewEvent};
    use crate::id::{Seq, StreamId, Timestamp};

    fn blocks(texts: &[usize]) -> Vec<(Position, Vec<u8>)> {
        let events: Vec<_> = texts
            .iter()
            .map(|length| {
                let reason = "x".repeat(*length);
                NewEvent::live(Event::StreamLost { reason }, Timestamp(1))
            })
            .collect();
        let mut builder = Builder::after(Tip::default());
        Draft::encode(StreamId::Engine, &events)
            .expect("it is small")
            .place(Position::FIRST, Seq::FIRST, Hash::ZERO, |record| {
                builder.push(record);
            });
        builder.finish()
    }

    fn positions(block: (Position, &[u8])) -> Vec<Result<u64, String>> {
        let block = Block::parse(block.0.0, block.1).expect("a header");
        block
            .records()
            .map(|record| match record {
                Ok(record) => Ok(record.position().0),
                Err(error) => Err(error.to_string()),
            })
            .collect()
    }

    #[test]
    fn records_are_cut_into_blocks_and_read_back() {
        let most = limits::BLOCK_BYTES_MAX * 2 / 3;
        let blocks = blocks(&[10, most, most, 10, 2 * most, 10]);
        let read: Vec<Vec<_>> = blocks
            .iter()
            .map(|(first, bytes)| positions((*first, bytes)))
            .collect();
        assert_eq!(
            read,
            [
                vec![Ok(1), Ok(2)],
                vec![Ok(3), Ok(4)],
                vec![Ok(5)],
                vec![Ok(6)]
            ]
        );
    }

    #[test]
    fn the_head_does_not_depend_on_the_cut() {
        let head = |texts: &[usize]| {
            let blocks = blocks(texts);
            let (first, bytes) = blocks.last().expect("a block");
            Block::parse(first.0, bytes).expect("a header").tip()
        };
        let one_by_one = {
            let blocks = blocks(&[10, 20]);
            let block = Block::parse(1, &blocks[0].1).expect("a header");
            block.records().fold(Hash::ZERO, |head, record| {
                codec::chain(head, &record.expect("a record").hash().0)
            })
        };
        assert_eq!(head(&[10, 20]).hash, one_by_one);
        assert_eq!(head(&[10, 20]).position, Position(2));
    }

    #[test]
    fn what_cannot_be_is_said_once() {
        let blocks = blocks(&[10, 10]);
        let (first, bytes) = &blocks[0];
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(
            positions((*first, cut)),
            [
                Ok(1),
                Err("the log is damaged at position 2: a record is cut short".to_owned())
            ]
        );
        let long = [bytes.as_slice(), b"x"].concat();
        assert_eq!(
            positions((*first, &long))[2],
            Err(
                "the log is damaged at position 2: bytes follow the last record of a block"
                    .to_owned()
            )
        );
        assert_eq!(
            positions((Position(7), bytes)),
            [Err(
                "the log is damaged at position 7: another record stands in its place".to_owned()
            )]
        );
        assert!(Block::parse(1, &[]).is_err());
        assert!(Block::parse(1, &[0; 40]).is_err());
        assert!(Block::parse(u64::MAX, bytes).is_err());
    }
}
