//! Proving that a log is whole.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use redb::{ReadTransaction, ReadableTable as _};

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{EventId, FrameNumber, Position, Seq, StreamId};
use crate::key::PublicKey;
use crate::limits;
use crate::log::block::{Block, Item, Tip};
use crate::log::follow::Last;
use crate::log::index::tables;
use crate::log::reader::Shared;
use crate::log::recent::{Go, View};
use crate::log::storage::Fault;
use crate::log::table::{self, Cut, Pair, StreamEnd};
use crate::log::{
    CheckError, Hash, Head, LogReader, Progress, SignedHead, StreamHead, files, frames,
};

/// What a log was proven to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The events that were looked at.
    pub events: u64,
    /// The streams that they belong to.
    pub streams: u64,
    /// Those of a type or version that this build does not know: they are whole, and that is all it can say.
    pub unknown: u64,
    /// The [frames](crate::frame) that have settled and were looked at: of everything alone.
    pub frames: u64,
    /// Where the log stands: who [signs](Head::sign) it and keeps that elsewhere can prove later that
    /// nothing was changed.
    pub head: Head,
}

/// Proves that a log is whole: everything, or one stream.
///
/// Of everything: positions and numbers have no gaps, each envelope and payload can be read, each stream's
/// chain of hashes and the head over all hold, the index agrees with the blocks, and no frame that was kept is
/// missing or changed. Of one stream: the same for its events; of the head it says where the log stands, and
/// has not proven it.
///
/// It reads the log once, in short looks, while others may write. It holds about 200 bytes for each stream.
///
/// # Errors
///
/// [`Error::Corrupt`] with the first bad place, or [`Error::CorruptFrame`] where it is a frame; [`Error::Read`];
/// [`Error::Closed`] after the log was closed.
pub fn verify(reader: &LogReader, only: Option<StreamId>) -> Result<Verified> {
    match only {
        None => verify_all(reader, |_| {}),
        Some(stream) => one(&reader.shared, stream),
    }
}

/// Proves that everything is whole, as [`verify`] does, and tells every few megabytes how far it came.
///
/// # Errors
///
/// As [`verify`].
pub fn verify_all(reader: &LogReader, progress: impl FnMut(Progress)) -> Result<Verified> {
    let mut walk = Walk::default();
    walk.all(&reader.shared, progress)?;
    Ok(walk.verified(walk.tip))
}

/// Proves that a log is whole and is the one that was signed, or has grown out of it.
///
/// It does what [`verify_all`] does, and holds the chain of hashes as it follows from the events against the
/// signed head. Where no `trusted` key is named, see [`SignedHead::verify_signature`] for what that is worth.
///
/// # Errors
///
/// A [`CheckError`]: of the signature before the log is looked at, then of the log, the first bad place first.
pub fn check(
    reader: &LogReader,
    signed: &SignedHead,
    trusted: Option<&PublicKey>,
    progress: impl FnMut(Progress),
) -> Result<Verified, CheckError> {
    signed.verify_signature(trusted)?;
    let Head { position, hash } = signed.head;
    let mut walk = Walk {
        passing: position,
        ..Walk::default()
    };
    let walked = walk.all(&reader.shared, progress);
    let passed = match position {
        Position(0) => Some(Hash::ZERO),
        _ => walk.passed,
    };
    match passed {
        Some(found) if found != hash => Err(CheckError::Differs {
            position,
            signed: hash,
            found,
        }),
        // The blocks are well as far as they go; an index that knows of more bears witness of the same.
        None if walk.at_the_end && walk.tip.position < position => Err(CheckError::Short {
            signed: position,
            found: walk.tip.position,
        }),
        passed => {
            walked?;
            if passed.is_none() {
                return Err(CheckError::CutOff { position });
            }
            Ok(walk.verified(walk.tip))
        }
    }
}

/// The first numbers that remain of streams that were cut.
fn fronts(ends: &BTreeMap<StreamKey, StreamEnd>) -> HashMap<StreamKey, Seq> {
    let cuts = ends
        .iter()
        .filter_map(|(stream, end)| Some((*stream, end.cut?.before)));
    cuts.collect()
}

fn verify_frames(shared: &Shared) -> Result<u64> {
    let mut next = FrameNumber::FIRST;
    let mut count = 0;
    while let Some(run) = shared.look(|view| frames::verify(&view.transaction, next))? {
        count += u64::from(run.count());
        next = run.next();
    }
    Ok(count)
}

fn one(shared: &Shared, stream: StreamId) -> Result<Verified> {
    let key = stream.to_bytes();
    let mut walk = Walk::default();
    loop {
        let next = walk
            .streams
            .get(&key)
            .map_or(Seq::FIRST, |end| end.head.seq.next());
        let tip = shared.look(|view| {
            let wanted = view.blocks_of(&key, next, limits::CHUNK_BLOCKS_MAX)?;
            view.visit(&wanted, |block| {
                for record in block.records() {
                    let record = record?;
                    if *record.stream_key() == key && record.seq() >= next {
                        walk.record(Some(view), record)?;
                    }
                }
                Ok(Go::On)
            })?;
            let seen = walk.streams.get(&key).copied();
            if seen.map_or(Seq::FIRST, |end| end.head.seq.next()) > next {
                return Ok(None);
            }
            let end = view.end(&key)?;
            if end != seen {
                let last = end.or(seen).map_or(Position(0), |end| end.head.last);
                return Err(corrupt(last, "the index does not agree with the blocks").into());
            }
            Ok(Some(view.tip()?))
        })?;
        if let Some(tip) = tip {
            return Ok(walk.verified(tip));
        }
    }
}

/// What was seen up to some block.
#[derive(Default)]
struct Walk {
    tip: Tip,
    streams: HashMap<StreamKey, StreamEnd>,
    /// The rows of blocks that were walked: the key of the last one, and the position that it ends with.
    row: Option<u64>,
    settled: Position,
    /// Whether all was walked that there is.
    at_the_end: bool,
    /// The position whose head is wanted, and the hash there once it was passed.
    passing: Position,
    passed: Option<Hash>,
    /// What the index should say of each stream: the row that held it last, and all of them mixed to a number.
    /// What has not settled will be cut anew, and is not in here.
    pairs: HashMap<StreamKey, (Position, Mix)>,
    /// What the index should say of the ids in rows.
    ids: Ids,
    events: u64,
    unknown: u64,
    frames: u64,
    /// Where streams were cut, if the index cannot say.
    cuts: HashMap<StreamKey, Cut>,
    /// The first numbers that remain, of streams that are cut: what comes before has no pairs.
    fronts: HashMap<StreamKey, Seq>,
    /// The records that are gone from the blocks.
    gone: u64,
    /// The numbers that are gone from the streams.
    missing: u64,
}

/// How the index compares with what was seen.
enum Compared {
    Agrees,
    /// A stream was cut meanwhile: all has to be looked at again.
    WasCut,
    /// It has these ids, which are others.
    OtherIds(Ids),
}

/// Where streams were cut, by the records that say so, as far as they can be read.
fn cuts(transaction: &ReadTransaction) -> Result<HashMap<StreamKey, Cut>, Fault> {
    let mut cuts = HashMap::new();
    for row in transaction.open_table(table::BLOCKS)?.iter()? {
        let (first, bytes) = row?;
        let Ok(block) = Block::parse(first.value(), bytes.value()) else {
            break;
        };
        for record in block.records().map_while(Result::ok) {
            cuts.extend(cut_by(record).map(|cut| (*record.stream_key(), cut)));
        }
    }
    Ok(cuts)
}

/// The cut that a record is.
fn cut_by(record: Record<'_>) -> Option<Cut> {
    record.cut().map(|(before, hash)| Cut {
        before,
        hash,
        at: record.seq(),
    })
}

/// Walks over some rows, with the index or without.
type RowsOf<'a> =
    &'a mut dyn FnMut(Option<&View>, &ReadTransaction) -> Result<Option<Position>, Fault>;

impl Walk {
    /// Walks over everything, and compares the index with it.
    fn all(&mut self, shared: &Shared, mut progress: impl FnMut(Progress)) -> Result<()> {
        let mut suspicion = None;
        loop {
            *self = Self {
                passing: self.passing,
                ..Self::default()
            };
            match shared.look(|view| Ok(fronts(&view.ends()?))) {
                Ok(fronts) => self.fronts = fronts,
                Err(error) => {
                    // What keeps the index from being read may be a block; then the first bad one is named.
                    self.cuts = shared.storage.view(Position::FIRST, cuts)?;
                    self.all_rows(&mut progress, |near, walk| {
                        let rows = |transaction: &_| walk(None, transaction);
                        shared.storage.view(near, rows)
                    })?;
                    return Err(error);
                }
            }
            self.all_rows(&mut progress, |near, walk| {
                shared.look_for(near, Last::Sync, |view| walk(Some(view), &view.transaction))
            })?;
            // What came meanwhile, what has not settled, and the index as it is now, in one look.
            let near = self.tip.position.next();
            let compared = shared.look_for(near, Last::Sync, |view| {
                self.rows(Some(view), &view.transaction, usize::MAX)?;
                view.walk_memory(self.tip.position.next(), |block| {
                    self.block(Some(view), block)?;
                    Ok(Go::On)
                })?;
                self.at_the_end = true;
                self.compare(view)
            })?;
            match compared {
                Compared::Agrees => {
                    progress(self.progress(self.tip.position));
                    self.frames = verify_frames(shared)?;
                    return Ok(());
                }
                Compared::WasCut => {}
                // What is compacted while we walk loses its ids. A lie stays as it is.
                Compared::OtherIds(ids) if suspicion != Some((self.ids, ids)) => {
                    suspicion = Some((self.ids, ids));
                }
                Compared::OtherIds(_) => {
                    let what = "the index does not agree with the ids of the events";
                    return Err(corrupt(self.settled, what));
                }
            }
        }
    }

    /// Walks over all rows, some of them under each look.
    fn all_rows(
        &mut self,
        progress: &mut impl FnMut(Progress),
        look: impl Fn(Position, RowsOf<'_>) -> Result<Option<Position>>,
    ) -> Result<()> {
        loop {
            let near = self.tip.position.next();
            let last = look(near, &mut |view, transaction| {
                self.rows(view, transaction, limits::CHUNK_BLOCKS_MAX)
            })?;
            progress(self.progress(last.unwrap_or_default()));
            if last.is_none_or(|last| last <= self.settled) {
                return Ok(());
            }
        }
    }

    fn progress(&self, last: Position) -> Progress {
        let done = self.tip.position.0;
        Progress {
            doing: "verifying",
            done,
            total: done.max(last.0),
        }
    }

    /// Walks over some of the rows that come next; gives where the last of all rows is, if there is any.
    fn rows(
        &mut self,
        view: Option<&View>,
        transaction: &ReadTransaction,
        limit: usize,
    ) -> Result<Option<Position>, Fault> {
        let rows = transaction.open_table(table::BLOCKS)?;
        let last = rows.last()?.map(|(first, _)| Position(first.value()));
        // What was compacted since the last look may have become part of an empty block before.
        if let Some((first, bytes)) = rows.range(..=self.settled.0)?.next_back().transpose()? {
            let block = Block::parse(first.value(), bytes.value())?;
            if block.is_empty() && block.last() > self.settled {
                self.block(view, block)?;
                self.settled = block.last();
            }
        }
        // From the last row's own key: one that is hidden behind it is to be found, too.
        let after = self.row.map_or(Bound::Unbounded, Bound::Excluded);
        for row in rows.range::<u64>((after, Bound::Unbounded))?.take(limit) {
            let (first, bytes) = row?;
            self.row(view, Block::parse(first.value(), bytes.value())?)?;
            self.row = Some(first.value());
        }
        Ok(last)
    }

    /// Walks over a row, which begins where the one before it ends.
    fn row(&mut self, view: Option<&View>, block: Block<'_>) -> Result<(), Fault> {
        let expected = self.settled.next();
        if block.first() < expected {
            return Err(corrupt(block.first(), "it is there twice").into());
        }
        if block.first() > expected {
            return Err(corrupt(expected, "it is missing").into());
        }
        self.block(view, block)?;
        for record in block.records() {
            let record = record?;
            if let Some(id) = record.id() {
                self.ids.add(id, record.position());
            }
            let front = self.fronts.get(record.stream_key());
            if front.is_some_and(|front| record.seq() < *front) {
                continue;
            }
            let (last, mix) = self.pairs.entry(*record.stream_key()).or_default();
            if *last != block.first() {
                *last = block.first();
                mix.add(Pair {
                    seq: record.seq(),
                    block: block.first(),
                });
            }
        }
        self.settled = block.last();
        Ok(())
    }

    /// Walks over a block, or over the part of it that is new.
    fn block(&mut self, view: Option<&View>, block: Block<'_>) -> Result<(), Fault> {
        let Some(known) = block.known(self.tip.position)? else {
            return Ok(());
        };
        if block.is_empty() {
            // Its head is taken as it says: what comes after it must follow from that.
            self.gone += block.last().0 - self.tip.position.0;
            self.reach(block.tip());
            return Ok(());
        }
        for item in block.items().skip(known) {
            let hash = match item? {
                Item::Record(record) => {
                    self.record(view, record)?;
                    record.hash()
                }
                Item::Gone(hash) => {
                    self.gone += 1;
                    hash
                }
            };
            self.reach(self.tip.after(hash));
        }
        if self.tip != block.tip() {
            let what = "the head over the log does not follow from its events";
            return Err(corrupt(block.last(), what).into());
        }
        Ok(())
    }

    fn reach(&mut self, tip: Tip) {
        self.tip = tip;
        if tip.position == self.passing {
            self.passed = Some(tip.hash);
        }
    }

    fn record(&mut self, view: Option<&View>, record: Record<'_>) -> Result<(), Fault> {
        let bad = |what: &str| Fault::from(corrupt(record.position(), what));
        let before = self.streams.get(record.stream_key());
        let (seq, hash) = before.map_or((Seq(0), Hash::ZERO), |end| (end.head.seq, end.hash));
        if record.seq() <= seq {
            return Err(bad(
                "its number is not the one after the last of its stream",
            ));
        }
        // What is missing must have been cut off; then the first that remains follows what the cut names.
        let missing = record.seq().0 - seq.0 - 1;
        let follows = if missing == 0 {
            Some(hash)
        } else {
            let cut = match view {
                Some(view) => view.end(record.stream_key())?.and_then(|end| end.cut),
                None => self.cuts.get(record.stream_key()).copied(),
            };
            let cut = cut.filter(|cut| record.seq() <= cut.before);
            let cut =
                cut.ok_or_else(|| bad("its number is not the one after the last of its stream"))?;
            (record.seq() == cut.before).then_some(cut.hash)
        };
        if follows.is_some_and(|hash| !record.follows(hash)) {
            return Err(bad(
                "its hash does not follow from it and the event before it in its stream",
            ));
        }
        self.missing += missing;
        let recorded = record.decode()?;
        if matches!(recorded.event, Event::Unknown { .. }) {
            self.unknown += 1;
        } else if recorded.class != recorded.event.class() {
            return Err(bad("its class is not that of its type"));
        }
        let cut = cut_by(record).or(before.and_then(|end| end.cut));
        self.events += 1;

        let end = StreamEnd {
            head: StreamHead {
                seq: record.seq(),
                first: before.map_or(record.position(), |end| end.head.first),
                last: record.position(),
                at: record.at(),
                from: cut.map_or(Seq::FIRST, |cut| cut.before),
            },
            hash: record.hash(),
            cut,
        };
        self.streams.insert(*record.stream_key(), end);
        Ok(())
    }

    /// Compares the index with what was seen.
    fn compare(&self, view: &View) -> Result<Compared, Fault> {
        let indexed = tables::through(&view.transaction)?;
        if indexed > self.settled {
            let what = format!("it is missing: the index knows of events up to {indexed}");
            return Err(corrupt(self.settled.next(), &what).into());
        }
        let ends = view.ends()?;
        if fronts(&ends) != self.fronts {
            return Ok(Compared::WasCut);
        }
        let mut ids = Ids::default();
        view.ids(|id, position| {
            if position <= self.settled {
                ids.add(id, position);
            }
        })?;
        if ids != self.ids {
            return Ok(Compared::OtherIds(ids));
        }
        let mut mixes: HashMap<StreamKey, Mixing> = HashMap::new();
        view.pairs(|stream, pair| {
            let front = self.fronts.get(stream).copied().unwrap_or(Seq::FIRST);
            if pair.block <= self.settled {
                mixes.entry(*stream).or_default().add(pair, front);
            } else if pair.seq <= front {
                // All that settled of this stream was cut off.
                mixes.remove(stream);
            }
        })?;
        let mixes: HashMap<StreamKey, Mix> = mixes
            .into_iter()
            .map(|(stream, mixing)| (stream, mixing.finish()))
            .collect();
        let disagreement = self
            .streams
            .iter()
            .filter(|(key, end)| {
                let pairs = self.pairs.get(*key).map(|(_, mix)| mix);
                !agrees(ends.get(*key), end, self.fronts.contains_key(*key))
                    || mixes.get(*key) != pairs
            })
            .map(|(_, end)| end.head.first)
            .min();
        if let Some(first) = disagreement {
            return Err(corrupt(
                first,
                "the index does not agree with the blocks of its stream",
            )
            .into());
        }
        if ends.len() != self.streams.len() || mixes.len() != self.pairs.len() {
            let what = "the index names a stream that has no events";
            return Err(corrupt(self.tip.position, what).into());
        }
        let left_out = files::left_out(&view.transaction)?;
        if self.gone != self.missing.saturating_add(left_out) {
            let what = format!(
                "{} events are gone, and {} were cut off or left out",
                self.gone,
                self.missing.saturating_add(left_out)
            );
            return Err(corrupt(self.tip.position, &what).into());
        }
        Ok(Compared::Agrees)
    }

    fn verified(&self, tip: Tip) -> Verified {
        Verified {
            events: self.events,
            streams: self.streams.len() as u64,
            unknown: self.unknown,
            frames: self.frames,
            head: tip.into(),
        }
    }
}

/// The pairs of a stream in their order, mixed to a number: to compare them without holding them.
///
/// Against mistakes, not against malice: an index can be made again, and proves nothing by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Mix(u64);

impl Mix {
    fn add(&mut self, pair: Pair) {
        // An odd number with its bits well spread, so that each step can be undone and none is lost.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        for number in [pair.seq.0, pair.block.0] {
            self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(SPREAD);
        }
    }
}

/// Mixes pairs of the index as they would be if it knew nothing of what a stream was cut of: it may.
#[derive(Debug, Default)]
struct Mixing {
    /// The last pair that begins at or before the first number that remains: its block holds that one.
    front: Option<Pair>,
    mix: Mix,
}

impl Mixing {
    fn add(&mut self, pair: Pair, front: Seq) {
        if pair.seq <= front {
            self.front = Some(Pair { seq: front, ..pair });
        } else {
            self.flush();
            self.mix.add(pair);
        }
    }

    fn flush(&mut self) {
        if let Some(front) = self.front.take() {
            self.mix.add(front);
        }
    }

    fn finish(mut self) -> Mix {
        self.flush();
        self.mix
    }
}

/// Ids and their positions in any order, mixed to a number and counted; as [`Mix`], against mistakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ids {
    count: u64,
    sum: u64,
}

impl Ids {
    fn add(&mut self, id: EventId, position: Position) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&id.to_bytes());
        hasher.update(&position.0.to_le_bytes());
        let mut mixed = [0; 8];
        hasher.finalize_xof().fill(&mut mixed);
        self.count += 1;
        self.sum = self.sum.wrapping_add(u64::from_le_bytes(mixed));
    }
}

/// Whether the index says of a stream what its blocks do.
///
/// Compacting takes what was cut off out of the index first and out of the blocks later. In between, and
/// where it was killed there, the index names a later first event of such a stream than the blocks hold.
fn agrees(index: Option<&StreamEnd>, blocks: &StreamEnd, is_cut: bool) -> bool {
    let Some(mut index) = index.copied() else {
        return false;
    };
    if is_cut && index.head.first > blocks.head.first && index.head.first <= blocks.head.last {
        index.head.first = blocks.head.first;
    }
    index == *blocks
}

fn corrupt(position: Position, what: &str) -> Error {
    Error::Corrupt {
        position,
        what: what.to_owned(),
    }
}
