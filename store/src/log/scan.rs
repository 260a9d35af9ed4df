//! Going over the log by position: in looks that are short, into chunks that are small.
//!
//! A look copies the records that are wanted, a few blocks of them, and ends; they are decoded one by
//! one as they are asked for. So whoever reads slowly holds one chunk of memory, and nothing of the file.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::{Envelope, Recorded};
use crate::id::{Position, StreamId};
use crate::limits;
use crate::log::Select;
use crate::log::block::Block;
use crate::log::follow::Last;
use crate::log::reader::Shared;
use crate::log::recent::{Go, walk_memory};
use crate::log::storage::guard;

/// Records that were copied and are to be decoded.
#[derive(Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    read: usize,
}

impl Chunk {
    /// The records of a block that are wanted.
    pub(crate) fn of(block: Block<'_>, wanted: impl Fn(Record<'_>) -> bool) -> Result<Self> {
        let mut chunk = Self::default();
        for record in block.records() {
            let record = record?;
            if wanted(record) {
                chunk.push(record);
            }
        }
        Ok(chunk)
    }

    /// How many records are left in it.
    pub(crate) fn records(&self) -> u64 {
        let mut rest = &self.bytes[self.read..];
        let mut count = 0;
        while let Some((_, after)) = Record::split(rest) {
            rest = after;
            count += 1;
        }
        count
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        // One large record is no reason to hold its memory ever after.
        self.bytes.shrink_to(2 * limits::CHUNK_BYTES_MAX);
        self.read = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= limits::CHUNK_BYTES_MAX
    }

    pub(crate) fn push(&mut self, record: Record<'_>) {
        self.bytes.extend_from_slice(record.bytes());
    }

    pub(crate) fn next(&mut self) -> Option<Record<'_>> {
        // What was pushed were whole records.
        let (record, _) = Record::split(&self.bytes[self.read..])?;
        self.read += record.bytes().len();
        Some(record)
    }
}

/// Which records of a block are wanted.
enum Wanted {
    All,
    Streams(HashSet<StreamKey>),
    If(Box<Keep>),
}

/// Whether a record is wanted, by its envelope.
pub(crate) type Keep = dyn Fn(&Envelope) -> bool + Send;

/// Events by position, as they are asked for.
pub(crate) struct Scan {
    range: Range,
    chunk: Chunk,
}

impl Scan {
    pub(crate) fn new(select: Select, from: Position) -> Self {
        Self {
            range: Range::new(select, from),
            chunk: Chunk::default(),
        }
    }

    /// The first position that was not looked at.
    pub(crate) fn next_position(&self) -> Position {
        self.range.next
    }

    /// How many records were copied and not given yet.
    pub(crate) fn waiting(&self) -> u64 {
        self.chunk.records()
    }

    /// The next event, looking at the storage when the chunk is used up; `None` where there is none now.
    pub(crate) fn next(&mut self, shared: &Shared, last: Last) -> Option<Result<Recorded>> {
        loop {
            if let Some(record) = self.chunk.next() {
                return Some(record.decode());
            }
            self.chunk.clear();
            match self.range.fill(shared, last, &mut self.chunk) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Which records come next, by position.
pub(crate) struct Range {
    wanted: Wanted,
    /// The first position that was not looked at.
    next: Position,
    /// Nothing after this is wanted.
    through: Position,
}

impl Range {
    pub(crate) fn new(select: Select, from: Position) -> Self {
        Self {
            wanted: match select {
                Select::All => Wanted::All,
                Select::Streams(streams) => {
                    Wanted::Streams(streams.into_iter().map(StreamId::to_bytes).collect())
                }
            },
            next: from.max(Position::FIRST),
            through: Position(u64::MAX),
        }
    }

    /// Of the records from one position through another, those whose envelopes are wanted.
    pub(crate) fn of_those(range: RangeInclusive<Position>, keep: Box<Keep>) -> Self {
        Self {
            wanted: Wanted::If(keep),
            through: *range.end(),
            ..Self::new(Select::All, *range.start())
        }
    }

    /// Copies what comes next; false where nothing does.
    pub(crate) fn fill(&mut self, shared: &Shared, last: Last, chunk: &mut Chunk) -> Result<bool> {
        if self.next > self.through {
            return Ok(false);
        }
        let mut visited = 0;
        let before = self.next;
        let each = |block: Block<'_>| {
            visited += 1;
            if block.last() >= self.next {
                self.take(&block, chunk)?;
            }
            let enough = chunk.is_full() || visited == limits::CHUNK_BLOCKS_MAX;
            Ok(if enough { Go::Stop } else { Go::On })
        };
        // Who follows what this process writes needs nothing but memory.
        let looked = match shared.recent_from(before) {
            Some(memory) => {
                guard(|| walk_memory(&memory, before, each)).map_err(|fault| fault.near(before))
            }
            None => shared.look_for(before, last, |view| view.walk(before, each)),
        };
        // What stands before a bad place is given first; the next look begins at the bad place.
        let moved = self.next > before;
        looked
            .map(|()| moved)
            .or_else(|error| if moved { Ok(true) } else { Err(error) })
    }

    /// Copies what is wanted of a block.
    fn take(&mut self, block: &Block<'_>, chunk: &mut Chunk) -> Result<()> {
        if block.first() > self.next {
            return Err(Error::Corrupt {
                position: self.next,
                what: "no block holds it".to_owned(),
            });
        }
        for record in block.records() {
            let record = record?;
            let wanted = match &self.wanted {
                Wanted::All => true,
                Wanted::Streams(streams) => streams.contains(record.stream_key()),
                Wanted::If(keep) => record.position() <= self.through && keep(&record.envelope()),
            };
            if record.position() >= self.next {
                if wanted {
                    chunk.push(record);
                }
                self.next = record.position().next();
            }
        }
        // What is gone at its end counts, too.
        self.next = block.last().next();
        Ok(())
    }
}
