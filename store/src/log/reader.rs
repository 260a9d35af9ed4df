//! What all handles of an open log share, and reading through it.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::codec::StreamKey;
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::frame::Frame;
use crate::id::{FrameNumber, Position, Seq, StreamId};
use crate::limits;
use crate::log::ahead::Fill;
use crate::log::follow::{Follower, Last};
use crate::log::journal::Mark;
use crate::log::recent::{Generation, Go, Recent, View};
use crate::log::scan::{Chunk, Keep, Range};
use crate::log::storage::{Fault, Storage, guard};
use crate::log::{Head, Select, frames, snapshot};

/// What all handles of an open log share.
pub(crate) struct Shared {
    pub(crate) storage: Storage,
    recent: Source,
    /// Where the log durably stands, from the writer of this process; `None` where another process has it.
    pub(crate) durable: Option<watch::Receiver<Head>>,
    pub(crate) snapshots: snapshot::Waiting,
    pub(crate) gathering: frames::Gathering,
}

/// Where what has not settled is known from.
enum Source {
    /// The writer, which is in this process.
    Writer(Mutex<Recent>),
    /// The journal.
    Journal(Box<Mutex<Follower>>),
}

impl Shared {
    /// Of a log that this process writes.
    pub(crate) fn writing(
        storage: Storage,
        recent: Recent,
        mark: Mark,
        durable: watch::Receiver<Head>,
    ) -> Arc<Self> {
        Arc::new(Self {
            storage,
            recent: Source::Writer(Mutex::new(recent)),
            durable: Some(durable),
            snapshots: snapshot::Waiting::default(),
            gathering: frames::Gathering::starting(mark.next_frame),
        })
    }

    /// Of a log that this process only reads.
    pub(crate) fn reading(storage: Storage, follower: Follower) -> Arc<Self> {
        Arc::new(Self {
            storage,
            recent: Source::Journal(Box::new(Mutex::new(follower))),
            durable: None,
            snapshots: snapshot::Waiting::default(),
            gathering: frames::Gathering::starting(FrameNumber::FIRST),
        })
    }

    /// What has not settled, of a log that this process writes.
    ///
    /// # Panics
    ///
    /// Of another.
    pub(crate) fn recent(&self) -> MutexGuard<'_, Recent> {
        match &self.recent {
            // Nothing between two changes of it can panic.
            Source::Writer(recent) => recent.lock().unwrap_or_else(PoisonError::into_inner),
            Source::Journal(_) => unreachable!("only the writer and its settler ask"),
        }
    }

    /// Looks at the log as it is now. What a look sees stays on disk until it ends, so looks are short.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Read`], or [`Error::Corrupt`] where the file holds what cannot be.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&View) -> Result<T, Fault>) -> Result<T> {
        self.look_for(Position::FIRST, Last::Sync, look)
    }

    /// The same, for the event at a position, which the error names; `last` is for a log of another process.
    pub(crate) fn look_for<T>(
        &self,
        near: Position,
        last: Last,
        look: impl FnOnce(&View) -> Result<T, Fault>,
    ) -> Result<T> {
        guard(|| look(&self.view(last)?)).map_err(|fault| self.storage.first_of(fault).near(near))
    }

    fn view(&self, last: Last) -> Result<View, Fault> {
        match &self.recent {
            Source::Writer(recent) => {
                // Begun under the lock, the look sees in the tables all that memory has given up.
                let recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
                let transaction = self.storage.begin_read()?;
                let memory = recent.generations();
                drop(recent);
                View::new(transaction, memory)
            }
            Source::Journal(follower) => follower
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .look(&self.storage, last),
        }
    }

    /// What has not settled, if that is all that there is from a position on.
    pub(crate) fn recent_from(&self, from: Position) -> Option<Vec<Arc<Generation>>> {
        let Source::Writer(recent) = &self.recent else {
            return None;
        };
        let recent = recent.lock().unwrap_or_else(PoisonError::into_inner);
        (from > recent.settled_through()).then(|| recent.generations())
    }
}

/// Records by position: all from one on, or those of a range that are wanted.
pub(crate) struct All {
    shared: Arc<Shared>,
    range: Range,
}

impl All {
    pub(crate) fn new(shared: Arc<Shared>, from: Position) -> Self {
        let range = Range::new(Select::All, from);
        Self { shared, range }
    }

    pub(crate) fn of_range(
        shared: Arc<Shared>,
        range: RangeInclusive<Position>,
        keep: Box<Keep>,
    ) -> Self {
        let range = Range::of_those(range, keep);
        Self { shared, range }
    }
}

impl Fill for All {
    fn fill(&mut self, chunk: &mut Chunk) -> Result<bool> {
        self.range.fill(&self.shared, Last::Sync, chunk)
    }
}

/// The records of one stream from a number on, to the end of the stream.
pub(crate) struct Stream {
    shared: Arc<Shared>,
    key: StreamKey,
    /// The number that comes next.
    next: Seq,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, stream: StreamId, from: Seq) -> Self {
        Self {
            shared,
            key: stream.to_bytes(),
            next: from.max(Seq::FIRST),
        }
    }
}

impl Fill for Stream {
    fn fill(&mut self, chunk: &mut Chunk) -> Result<bool> {
        let Self { shared, key, next } = self;
        let before = *next;
        let looked = shared.look(|view| {
            let from = view.end(key)?.map_or(Seq::FIRST, |end| end.head.from);
            *next = before.max(from);
            let before = *next;
            let wanted = view.blocks_of(key, before, limits::CHUNK_BLOCKS_MAX)?;
            view.visit(&wanted, |block| {
                for record in block.records() {
                    let record = record?;
                    if record.stream_key() != key || record.seq() < before {
                        continue;
                    }
                    if record.seq() != *next {
                        let what = "a number of its stream is missing";
                        return Err(corrupt(record.position(), what));
                    }
                    chunk.push(record);
                    *next = next.next();
                }
                Ok(if chunk.is_full() { Go::Stop } else { Go::On })
            })
        });
        // As in a scan: what stands before a bad place is given first.
        let moved = !chunk.is_empty();
        looked
            .map(|()| moved)
            .or_else(|error| if moved { Ok(true) } else { Err(error) })
    }
}

/// Events from one on down to the first.
pub(crate) struct ReadBack {
    shared: Arc<Shared>,
    way: Way,
    /// What was read, in order.
    waiting: Vec<Recorded>,
    over: bool,
}

/// Which events are read backwards, and which of them comes next.
enum Way {
    Stream { key: StreamKey, next: Seq },
    All { next: Position },
}

impl ReadBack {
    pub(crate) fn stream(shared: Arc<Shared>, stream: StreamId, from: Seq) -> Self {
        let key = stream.to_bytes();
        Self::new(shared, Way::Stream { key, next: from })
    }

    pub(crate) fn all(shared: Arc<Shared>, from: Position) -> Self {
        Self::new(shared, Way::All { next: from })
    }

    fn new(shared: Arc<Shared>, way: Way) -> Self {
        Self {
            shared,
            way,
            waiting: Vec::new(),
            over: false,
        }
    }

    /// Reads a few blocks; false where nothing is left.
    fn fill(&mut self) -> Result<bool> {
        let mut chunks = Vec::new();
        let more = match &mut self.way {
            Way::Stream { key, next } => self.shared.look(|view| {
                let Some(end) = view.end(key)? else {
                    return Ok(false);
                };
                let to = (*next).min(end.head.seq);
                let wanted = view.blocks_back(key, to, limits::BACK_BLOCKS_MAX)?;
                view.visit(&wanted, |block| {
                    chunks.push(Chunk::of(block, |record| {
                        record.stream_key() == key && (end.head.from..=to).contains(&record.seq())
                    })?);
                    Ok(Go::On)
                })?;
                let read: u64 = chunks.iter().map(Chunk::records).sum();
                *next = Seq(to.0.saturating_sub(read));
                Ok(read > 0)
            })?,
            Way::All { next } => self.shared.look(|view| {
                let to = *next;
                view.walk_back(to, |block| {
                    chunks.push(Chunk::of(block, |record| record.position() <= to)?);
                    *next = Position(block.first().0 - 1);
                    let enough = chunks.len() == limits::BACK_BLOCKS_MAX;
                    Ok(if enough { Go::Stop } else { Go::On })
                })?;
                Ok(!chunks.is_empty())
            })?,
        };
        for mut chunk in chunks.into_iter().rev() {
            while let Some(record) = chunk.next() {
                self.waiting.push(record.decode()?);
            }
        }
        if let Way::Stream { next, .. } = self.way
            && !self.waiting.is_empty()
        {
            let numbers = (next.0 + 1..).zip(&self.waiting);
            if let Some((_, wrong)) = { numbers }.find(|(seq, event)| event.seq.0 != *seq) {
                let what = "a number of its stream is missing";
                return Err(corrupt(wrong.position, what).near(wrong.position));
            }
        }
        Ok(more)
    }
}

impl Iterator for ReadBack {
    type Item = Result<Recorded>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.waiting.is_empty() && !self.over {
            match self.fill() {
                Ok(more) => self.over = !more,
                Err(error) => {
                    self.over = true;
                    self.waiting.clear();
                    return Some(Err(error));
                }
            }
        }
        self.waiting.pop().map(Ok)
    }
}

/// Frames from a number on, to the last.
pub(crate) struct ReadFrames {
    shared: Arc<Shared>,
    next: FrameNumber,
    waiting: std::vec::IntoIter<Frame>,
    over: bool,
}

impl ReadFrames {
    pub(crate) fn new(shared: Arc<Shared>, from: FrameNumber) -> Self {
        Self {
            shared,
            next: from.max(FrameNumber::FIRST),
            waiting: Vec::new().into_iter(),
            over: false,
        }
    }
}

impl Iterator for ReadFrames {
    type Item = Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            if let Some(frame) = self.waiting.next() {
                return Some(Ok(frame));
            }
            match self.shared.look(|view| view.frames_at(self.next)) {
                Ok(None) => self.over = true,
                Ok(Some(run)) => {
                    let from = self.next;
                    let frames = run.frames().filter(|frame| frame.number >= from);
                    self.waiting = frames.collect::<Vec<_>>().into_iter();
                    self.next = run.next();
                }
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
