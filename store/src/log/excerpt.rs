//! A part of a log that still proves itself: some streams, and the heads over what is between.
//!
//! A record's hash covers its position, so a record keeps its hash only where it keeps its place. An excerpt is
//! therefore the log as it would be if all else had been cut off and taken out: events at their positions, and
//! for what is gone between them how many they were, and the head after them. The chain of each stream holds as
//! it did; the heads are taken at their word, as those of empty blocks are.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::{Event, Recorded};
use crate::id::{FrameNumber, Position, Seq, StreamId};
use crate::limits;
use crate::log::block::{Block, Item, Tip};
use crate::log::follow::Last;
use crate::log::reader::Shared;
use crate::log::recent::{Go, View};
use crate::log::storage::Fault;
use crate::log::{Hash, Head, Progress, Select};

/// An event as the bytes that the log holds: its envelope, its payload and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// Invariant: exactly one record.
    bytes: Vec<u8>,
}

impl RawEvent {
    /// The event with these bytes; `None` where they are not exactly one record.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        let (_, rest) = Record::split(&bytes)?;
        rest.is_empty().then_some(Self { bytes })
    }

    /// Its bytes, as [`mod@crate::format`] describes a record.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The event, read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it cannot be.
    pub fn decode(&self) -> Result<Recorded> {
        self.record().decode()
    }

    /// The hash at its end.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.record().hash()
    }

    /// Whether its hash follows from it and the hash of the event before it in its stream.
    #[must_use]
    pub fn follows(&self, previous: Hash) -> bool {
        self.record().follows(previous)
    }

    pub(crate) fn record(&self) -> Record<'_> {
        let (record, _) = Record::split(&self.bytes).expect("exactly one record");
        record
    }

    pub(crate) fn of(record: Record<'_>) -> Self {
        Self {
            bytes: record.bytes().to_vec(),
        }
    }
}

/// What an excerpt is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// An event, at the position after what was before.
    Event(RawEvent),
    /// Events that stood here and are not in the excerpt.
    Gone {
        /// How many.
        events: u32,
        /// The head over the whole log after the last of them.
        head: Hash,
    },
}

/// The pieces of an excerpt in order, each checked to follow from those before it. Ends with an event, or after the
/// first error.
///
/// Memory is bounded by a few blocks.
pub struct Excerpt {
    shared: Arc<Shared>,
    /// The streams; `None` for all.
    wanted: Option<HashSet<StreamKey>>,
    /// The first numbers that remain, of streams that were cut.
    fronts: HashMap<StreamKey, Seq>,
    /// The last position.
    through: Position,
    /// Where the walk over the log stands.
    tip: Tip,
    links: Links,
    ready: VecDeque<Piece>,
    /// Events that were passed over since the last piece.
    gone: u32,
    over: bool,
}

impl std::fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Excerpt").field(&self.through).finish()
    }
}

impl Excerpt {
    pub(crate) fn new(shared: Arc<Shared>, select: Select) -> Result<Self> {
        let ends = shared.look(View::ends)?;
        let wanted: Option<HashSet<StreamKey>> = match select {
            Select::All => None,
            Select::Streams(streams) => Some(streams.into_iter().map(StreamId::to_bytes).collect()),
        };
        let is_wanted = |key: &StreamKey| wanted.as_ref().is_none_or(|all| all.contains(key));
        let ends: Vec<_> = ends.iter().filter(|(key, _)| is_wanted(key)).collect();
        let through = ends.iter().map(|(_, end)| end.head.last).max();
        let fronts = ends
            .iter()
            .filter_map(|(key, end)| Some((**key, end.cut?.before)))
            .collect();
        Ok(Self {
            shared,
            wanted,
            fronts,
            through: through.unwrap_or_default(),
            tip: Tip::START,
            links: Links::default(),
            ready: VecDeque::new(),
            gone: 0,
            over: false,
        })
    }

    /// How far it has come: among the events of the log, not among its own.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            doing: "exporting",
            done: self.tip.position.0,
            total: self.through.0,
        }
    }

    /// Takes in some blocks, those that come next.
    fn fill(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let next = self.tip.position.next();
        let (mut visited, mut bytes) = (0, 0);
        shared.look_for(next, Last::Sync, |view| {
            view.walk(next, |block| {
                self.take(block)?;
                visited += 1;
                bytes += block.all_bytes().len();
                let enough = visited >= limits::CHUNK_BLOCKS_MAX
                    || bytes >= limits::CHUNK_BYTES_MAX
                    || self.tip.position >= self.through;
                Ok(if enough { Go::Stop } else { Go::On })
            })
        })?;
        if self.tip.position < next {
            return Err(corrupt(next, "it is missing"));
        }
        Ok(())
    }

    /// Takes in a block, or the part of it that is new.
    fn take(&mut self, block: Block<'_>) -> Result<(), Fault> {
        let Some(known) = block.known(self.tip.position)? else {
            return Ok(());
        };
        if block.is_empty() {
            let events = block.last().0 - self.tip.position.0;
            // A block counts its records in 32 bits.
            self.pass(u32::try_from(events).unwrap_or(u32::MAX), block.tip())?;
            return Ok(());
        }
        for item in block.items().skip(known) {
            match item? {
                Item::Record(record) if self.wants(record) => self.event(record)?,
                Item::Record(record) => self.pass(1, self.tip.after(record.hash()))?,
                Item::Gone(hash) => self.pass(1, self.tip.after(hash))?,
            }
        }
        if self.tip != block.tip() {
            let what = "the head over the log does not follow from its events";
            return Err(corrupt(block.last(), what).into());
        }
        Ok(())
    }

    fn wants(&self, record: Record<'_>) -> bool {
        let key = record.stream_key();
        let front = self.fronts.get(key).copied().unwrap_or_default();
        self.wanted.as_ref().is_none_or(|all| all.contains(key))
            && record.seq() >= front
            && record.position() <= self.through
    }

    fn event(&mut self, record: Record<'_>) -> Result<()> {
        self.flush()?;
        self.links.event(record)?;
        self.tip = self.tip.after(record.hash());
        self.ready.push_back(Piece::Event(RawEvent::of(record)));
        Ok(())
    }

    /// Passes over events that are not wanted, or not there any more.
    fn pass(&mut self, events: u32, tip: Tip) -> Result<()> {
        if self.gone.checked_add(events).is_none() {
            self.flush()?;
        }
        self.gone += events;
        self.tip = tip;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let events = std::mem::take(&mut self.gone);
        if events > 0 {
            let head = self.tip.hash;
            self.links.gone(events, head)?;
            self.ready.push_back(Piece::Gone { events, head });
        }
        Ok(())
    }
}

impl Iterator for Excerpt {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            if let Some(piece) = self.ready.pop_front() {
                return Some(Ok(piece));
            }
            let filled = if self.tip.position < self.through {
                self.fill()
            } else {
                self.over = true;
                std::mem::take(&mut self.links).finish().map(drop)
            };
            if let Err(error) = filled {
                self.over = true;
                return Some(Err(error));
            }
        }
        None
    }
}

/// Follows the chains of hashes through the pieces of a log.
#[derive(Default)]
pub(crate) struct Links {
    tip: Tip,
    streams: HashMap<StreamKey, Link>,
    gone: u64,
    missing: u64,
    next_frame: FrameNumber,
}

/// What is known of a stream.
struct Link {
    /// The first record, where it is not the stream's first: what it follows is named by a cut, which comes later.
    front: Option<RawEvent>,
    seq: Seq,
    hash: Hash,
    /// The last cut: the number that remains first, and the hash that it follows.
    cut: Option<(Seq, Hash)>,
}

/// What follows from all pieces together.
pub(crate) struct Linked {
    /// Where the log stands.
    pub(crate) head: Head,
    /// How many events are gone that no stream was cut of.
    pub(crate) left_out: u64,
    /// The number after the last frame that an event names; 0 where none does.
    pub(crate) next_frame: FrameNumber,
}

impl Links {
    /// Where the pieces have led.
    pub(crate) fn tip(&self) -> Tip {
        self.tip
    }

    /// The next piece is this event.
    pub(crate) fn event(&mut self, record: Record<'_>) -> Result<()> {
        let position = self.tip.position.next();
        let bad = |what: &str| corrupt(position, what);
        let recorded = record.decode()?;
        // A log comes nowhere near; whoever adds one to what a stranger wrote is safe then.
        let numbers = [
            position.0,
            record.seq().0,
            record.frame().map_or(0, |frame| frame.0),
        ];
        if numbers.into_iter().any(|number| number > NUMBER_MAX) {
            return Err(bad("its numbers are larger than any log's"));
        }
        if record.position() != position {
            return Err(bad("another event stands in its place"));
        }
        if !matches!(recorded.event, Event::Unknown { .. })
            && recorded.class != recorded.event.class()
        {
            return Err(bad("its class is not that of its type"));
        }
        let seq = record.seq();
        let cut = record.cut();
        if let Some(link) = self.streams.get_mut(record.stream_key()) {
            if seq != link.seq.next() {
                return Err(bad(
                    "its number is not the one after the last of its stream",
                ));
            }
            if !record.follows(link.hash) {
                return Err(bad(DOES_NOT_FOLLOW));
            }
            link.seq = seq;
            link.hash = record.hash();
            link.cut = cut.or(link.cut);
        } else {
            if seq == Seq(0) || seq == Seq::FIRST && !record.follows(Hash::ZERO) {
                return Err(bad(DOES_NOT_FOLLOW));
            }
            self.missing = self.missing.saturating_add(seq.0 - 1);
            let link = Link {
                front: (seq > Seq::FIRST).then(|| RawEvent::of(record)),
                seq,
                hash: record.hash(),
                cut,
            };
            self.streams.insert(*record.stream_key(), link);
        }
        if let Some(frame) = record.frame() {
            self.next_frame = self.next_frame.max(frame.next());
        }
        self.tip = self.tip.after(record.hash());
        Ok(())
    }

    /// The next pieces are gone.
    pub(crate) fn gone(&mut self, events: u32, head: Hash) -> Result<()> {
        let last = self.tip.position.0 + u64::from(events);
        if events == 0 || last > NUMBER_MAX {
            return Err(corrupt(self.tip.position, "so many events cannot be gone"));
        }
        self.gone += u64::from(events);
        self.tip = Tip {
            position: Position(last),
            hash: head,
        };
        Ok(())
    }

    /// Nothing comes any more.
    pub(crate) fn finish(self) -> Result<Linked> {
        for link in self.streams.values() {
            let first = link.front.as_ref().map(RawEvent::record);
            let front = first.map_or(Seq::FIRST, Record::seq);
            let (before, hash) = link.cut.unwrap_or((Seq::FIRST, Hash::ZERO));
            let position = first.map_or(self.tip.position, Record::position);
            if before != front {
                let what = "its stream does not begin where its front was cut";
                return Err(corrupt(position, what));
            }
            if first.is_some_and(|first| !first.follows(hash)) {
                return Err(corrupt(position, DOES_NOT_FOLLOW));
            }
        }
        let left_out = self.gone.checked_sub(self.missing).ok_or_else(|| {
            let what = "more events were cut off than are gone";
            corrupt(self.tip.position, what)
        })?;
        Ok(Linked {
            head: self.tip.into(),
            left_out,
            next_frame: self.next_frame,
        })
    }
}

/// More than any log has of anything.
const NUMBER_MAX: u64 = u64::MAX / 2;

const DOES_NOT_FOLLOW: &str =
    "its hash does not follow from it and the event before it in its stream";

fn corrupt(position: Position, what: &str) -> Error {
    Error::Corrupt {
        position,
        what: what.to_owned(),
    }
}
