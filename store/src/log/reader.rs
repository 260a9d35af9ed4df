//! What all handles of an open log share, and reading through it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{ReadTransaction, ReadableTable as _};
use tokio::sync::watch;

use crate::codec::StreamKey;
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{Position, Seq, StreamId};
use crate::limits;
use crate::log::block::{Block, Tip};
use crate::log::index::Index;
use crate::log::scan::{Chunk, Scan};
use crate::log::snapshot;
use crate::log::storage::{Fault, Storage};
use crate::log::{Head, Select, table};

/// What all handles of an open log share.
pub(crate) struct Shared {
    pub(crate) storage: Storage,
    index: Mutex<Index>,
    /// Where the log durably stands, from the writer of this process; `None` where another process has it.
    pub(crate) durable: Option<watch::Receiver<Head>>,
    pub(crate) snapshots: snapshot::Waiting,
}

impl Shared {
    pub(crate) fn new(
        storage: Storage,
        index: Index,
        durable: Option<watch::Receiver<Head>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            storage,
            index: Mutex::new(index),
            durable,
            snapshots: snapshot::Waiting::default(),
        })
    }

    /// The index, locked. A panic while it was held leaves it whole up to some block, which is all it claims.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks something up in the index and the storage together.
    ///
    /// The look begins while the index is locked, so that the tables hold at least what memory has given up.
    pub(crate) fn look_up<T>(
        &self,
        look: impl FnOnce(&Index, &ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T> {
        let mut index = self.index();
        let near = index.through();
        self.storage.view(near, |transaction| {
            if self.durable.is_none() {
                index.catch_up(transaction, false)?;
            }
            look(&index, transaction)
        })
    }
}

/// The end of the log, by its last block.
pub(crate) fn tip(transaction: &ReadTransaction) -> Result<Tip, Fault> {
    let blocks = transaction.open_table(table::BLOCKS)?;
    let Some((first, bytes)) = blocks.last()? else {
        return Ok(Tip::default());
    };
    Ok(Block::parse(first.value(), bytes.value())?.tip())
}

/// All events from a position on, to the end of the log.
pub(crate) struct ReadAll {
    shared: Arc<Shared>,
    scan: Scan,
    over: bool,
}

impl ReadAll {
    pub(crate) fn new(shared: Arc<Shared>, from: Position) -> Self {
        Self {
            shared,
            scan: Scan::new(Select::All, from),
            over: false,
        }
    }
}

impl Iterator for ReadAll {
    type Item = Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.scan.next(&self.shared);
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// The events of one stream from a number on, to the end of the stream.
pub(crate) struct ReadStream {
    shared: Arc<Shared>,
    key: StreamKey,
    /// The number that comes next.
    next: Seq,
    chunk: Chunk,
    over: bool,
}

impl ReadStream {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, from: Seq) -> Self {
        Self {
            shared,
            key: stream.to_bytes(),
            next: from.max(Seq::FIRST),
            chunk: Chunk::default(),
            over: false,
        }
    }

    /// Copies what comes next; false where nothing does.
    fn fill(&mut self) -> Result<bool> {
        self.chunk.clear();
        let Self {
            shared,
            key,
            next,
            chunk,
            ..
        } = self;
        let before = *next;
        let wanted = shared.look_up(|index, transaction| {
            index.blocks(transaction, key, before, limits::CHUNK_BLOCKS_MAX)
        })?;
        let Some(first) = wanted.first() else {
            return Ok(false);
        };
        let looked = shared.storage.view(*first, |transaction| {
            let blocks = transaction.open_table(table::BLOCKS)?;
            for position in &wanted {
                let Some(bytes) = blocks.get(position.0)? else {
                    return Err(corrupt(
                        *position,
                        "the index names a block that is not there",
                    ));
                };
                for record in Block::parse(position.0, bytes.value())?.records() {
                    let record = record?;
                    if record.stream_key() != key || record.seq() < before {
                        continue;
                    }
                    if record.seq() != *next {
                        return Err(corrupt(
                            record.position(),
                            "a number of its stream is missing",
                        ));
                    }
                    chunk.push(record);
                    *next = next.next();
                }
                if chunk.is_full() {
                    break;
                }
            }
            Ok(())
        });
        // As in a scan: what stands before a bad place is given first.
        let moved = *next > before;
        looked
            .map(|()| moved)
            .or_else(|error| if moved { Ok(true) } else { Err(error) })
    }
}

impl Iterator for ReadStream {
    type Item = Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            if let Some(record) = self.chunk.next() {
                let decoded = record.decode();
                self.over = decoded.is_err();
                return Some(decoded);
            }
            match self.fill() {
                Ok(filled) => self.over = !filled,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

fn corrupt(position: Position, what: &str) -> Fault {
    Error::Corrupt {
        position,
        what: what.to_owned(),
    }
    .into()
}
