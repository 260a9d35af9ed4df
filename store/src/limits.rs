//! Every bound of the log, each with its reason.

use std::time::Duration;

/// The bytes of one append's records: what one session may hold in memory for one call.
pub const APPEND_BYTES_MAX: usize = 64 << 20;

/// The chunks that are read before a thread reads ahead: a megabyte, which takes longer than starting one.
pub(crate) const AHEAD_AFTER_CHUNKS: u32 = 4;

/// The chunks that wait for whoever reads, beside the one that is filled and the one that is read.
pub(crate) const AHEAD_CHUNKS: usize = 1;

/// The threads of this process that read ahead: who comes after them reads for itself.
pub(crate) const AHEAD_THREADS_MAX: usize = 8;

/// The bytes of all appends that wait: callers beyond it wait before they are queued.
pub(crate) const QUEUE_BYTES_MAX: usize = 128 << 20;

/// The appends that wait in the queue: more would only wait longer, and hold memory.
pub(crate) const QUEUE_APPENDS_MAX: usize = 4096;

/// The bytes that one commit takes: beyond it the gain is gone and the first to wait waits too long.
pub(crate) const COMMIT_BYTES_MAX: usize = 8 << 20;

/// The bytes of a block with more than one record. With what the storage adds it fills four pages of 4 KiB:
/// larger blocks are quicker to read through, smaller ones when one stream of many is picked out.
pub(crate) const BLOCK_BYTES_MAX: usize = 16_300;

/// The bytes of a file of the journal before it settles: what opening has to read again, and what memory
/// holds, twice. Tens of milliseconds.
pub(crate) const JOURNAL_BYTES: u64 = 8 << 20;

/// By how much a file of the journal grows at once.
pub(crate) const JOURNAL_STEP_BYTES: u64 = 512 << 10;

/// The events of the index that one commit writes when all of it is made anew.
pub(crate) const INDEX_STEP_EVENTS: u64 = 65_536;

/// The blocks that one step of compacting thins: 16 MiB of what memory holds and one commit writes.
pub(crate) const COMPACT_BLOCKS: usize = if cfg!(test) { 4 } else { 1024 };

/// The entries of one index row: with its key it fills a page of the storage.
pub(crate) const INDEX_ROW_ENTRIES_MAX: usize = 240;

/// The bytes that a reader gathers under one look at the storage: a few blocks.
pub(crate) const CHUNK_BYTES_MAX: usize = 256 << 10;

/// The blocks that a reader visits under one look at the storage: a look pins what it sees.
pub(crate) const CHUNK_BLOCKS_MAX: usize = 256;

/// The blocks that a reader who goes backwards takes at once: they are decoded before the first is given.
pub(crate) const BACK_BLOCKS_MAX: usize = 8;

/// The bytes of a snapshot's state; a larger one is not kept, since reading it would cost more than folding.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// The bytes of snapshots that wait for a commit; beyond it they are written at once.
pub(crate) const SNAPSHOT_LAG_BYTES_MAX: usize = 4 << 20;

/// The bytes of snapshots that may wait at all; beyond it new ones are dropped until the writer comes by.
pub(crate) const SNAPSHOT_WAITING_BYTES_MAX: usize = 64 << 20;

/// The bytes of frames that wait to be written: beyond it they are counted and not kept, since a disk that is
/// slower than the agents must not take all memory. A longer frame is never kept.
pub const FRAMES_WAITING_BYTES_MAX: usize = 16 << 20;

/// The bytes of waiting frames that are worth a commit of their own: fewer wait for the next event.
pub(crate) const FRAMES_COMMIT_BYTES: usize = 256 << 10;

/// The bytes of a chunk with more than one frame, before compression: larger ones hardly compress better, and
/// a chunk is read whole.
pub(crate) const FRAMES_CHUNK_BYTES_MAX: usize = 256 << 10;

/// The frames of a chunk: what is read for one of them.
pub(crate) const FRAMES_CHUNK_COUNT_MAX: u32 = 1024;

/// The memory that the storage may use for its pages: hot ends of tables, not the log.
pub(crate) const CACHE_BYTES: usize = 16 << 20;

/// How often a log written by another process is asked whether it moved. What is there at one look and not
/// known to be durable waits for the next, so twice this is what a reader is behind: below what a person notices.
pub(crate) const FOLLOW_INTERVAL: Duration = Duration::from_millis(5);

/// The events of the engine's stream that are searched for who holds the log: one start writes a few.
pub(crate) const HOLDER_LOOKBACK: u64 = 64;
