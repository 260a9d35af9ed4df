//! Taking out of damaged files what can still be proven, into a new log.
//!
//! The storage finds its rows by a tree, and a damaged tree leads nowhere, or astray. So nobody asks it: the bytes
//! of the files are gone through, and wherever they could begin a record, its hash says whether they do. In the
//! storage whatever stands there was acknowledged. In the [journal](super::journal) that holds for entries
//! that are whole, and for what a later event builds on: the rest may be what a writer never finished.
//!
//! **What is taken of a stream** is what its chain of hashes proves: from its first record, or from the first that
//! remains where its front was cut, up to the first that is missing or damaged. What stands behind such a hole
//! follows from something that nobody has any more. It is not taken, since the log would say of it what it
//! cannot prove, and whoever folds the stream would go on over the hole; it is told instead.
//!
//! **What becomes of it**: every event keeps its place, and so its hash; for what is lost or was cut off, empty blocks
//! stand, as in a [part of a log](super::import). Heads that were signed before the first of them still hold.
//! Frames are not taken: their numbers count as dropped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;

use crate::codec::{Record, StreamKey};
use crate::error::{Error, Result};
use crate::event::Recorded;
use crate::id::{Position, Seq, StreamId};
use crate::log::{Hash, Import, Piece, Progress, RawEvent, files, journal, table};

/// What a damaged log still held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// How many events were taken.
    pub events: u64,
    /// The streams of which anything was found.
    pub streams: Vec<SalvagedStream>,
    /// Up to here nothing is missing: heads that were signed up to here still hold.
    pub whole_through: Position,
    /// The last position at which an event was found, in the damaged log.
    pub last: Position,
    /// How many events up to there were not found at all, cut off ones aside: of which streams, nobody can say. What
    /// came after it, if anything did, is not counted.
    pub missing: u64,
    /// How many bytes the disk did not give.
    pub unreadable: u64,
}

impl Salvaged {
    /// Whether all that was found was taken, and nothing between it is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing == 0 && self.streams.iter().all(|stream| stream.unproven.is_empty())
    }
}

/// What a damaged log still held of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedStream {
    /// The stream.
    pub stream: StreamId,
    /// The first and the last number that were taken; `None` where nothing could be.
    pub taken: Option<(Seq, Seq)>,
    /// What was found and not taken, as first and last numbers of what stands together.
    pub unproven: Vec<(Seq, Seq)>,
    /// Why not, for a person; empty where nothing was left.
    pub reason: String,
}

/// Takes everything that can be proven out of the damaged log `file`, and makes a new log of it in the directory
/// `into`.
///
/// `file` is a log's file, or the directory of one; the journal beside it is read, too. Nothing of it is changed.
/// `unproven` is given what was found and not taken: as far as it can be read, and nothing to rely on.
///
/// It holds about 100 bytes for each event. It can be killed at any time: the new log is there whole or not at all.
///
/// # Errors
///
/// [`Error::NotALog`] where no event can be proven; [`Error::LogExists`], [`Error::NotADataDirectory`],
/// [`Error::Failed`] or [`Error::Io`] where the new log cannot be made there; [`Error::Io`] where `file` cannot be opened.
pub fn salvage(
    file: &Path,
    into: &Path,
    mut unproven: impl FnMut(Recorded),
    mut report: impl FnMut(Progress),
) -> Result<Salvaged> {
    let (mut search, path) = Search::open(file)?;
    // First, since a long search would be in vain where it cannot be made.
    let new = Import::begin(into)?;
    search.run(&mut report)?;
    let proofs = search.prove();
    for index in proofs.iter().flat_map(|(_, proof)| &proof.unproven) {
        if let Some(recorded) = search.event(*index) {
            unproven(recorded);
        }
    }
    let taken = proofs.iter().flat_map(|(_, proof)| &proof.taken);
    let mut taken: Vec<usize> = taken.copied().collect();
    if taken.is_empty() {
        return Err(Error::NotALog {
            path,
            reason: "no event of a log can be proven in it".to_owned(),
        });
    }
    taken.sort_unstable_by_key(|index| search.found[*index].position);
    let whole_through = search.write(new, &taken, &mut report)?;

    let sure = proofs.iter().flat_map(|(_, proof)| &proof.sure);
    let position = |index: &usize| search.found[*index].position;
    let last = taken.iter().chain(sure.clone()).map(position).max();
    let last = last.unwrap_or_default();
    let cut_off = proofs.iter().filter_map(|(_, proof)| proof.front);
    let cut_off: u64 = cut_off.map(|front| front.0.saturating_sub(1)).sum();
    let events = taken.len() as u64;
    let found = events + sure.count() as u64 + cut_off;
    Ok(Salvaged {
        events,
        streams: proofs
            .iter()
            .map(|(stream, proof)| search.tell(*stream, proof))
            .collect(),
        whole_through,
        last: Position(last),
        missing: last.saturating_sub(found),
        unreadable: search.unreadable,
    })
}

/// What looks like a record in the files.
#[derive(Debug, Clone, Copy)]
struct Found {
    stream: StreamKey,
    seq: Seq,
    position: u64,
    hash: Hash,
    /// Which file it is in, where, and how long it is.
    source: usize,
    offset: u64,
    length: usize,
    /// Whether it was acknowledged, if it is a record.
    acknowledged: bool,
}

/// A record that cuts its stream.
#[derive(Debug, Clone, Copy)]
struct Marker {
    seq: Seq,
    own: Hash,
    /// The first number that remains, and the hash that it follows.
    before: Seq,
    hash: Hash,
}

impl Marker {
    /// Whether it is one of these, which are in the order of their numbers.
    fn is_among(&self, indices: &[usize], found: &[Found]) -> bool {
        let place = indices.binary_search_by_key(&self.seq, |index| found[*index].seq);
        place.is_ok_and(|place| found[indices[place]].hash == self.own)
    }
}

/// What of one stream can be proven.
#[derive(Debug, Default)]
struct Proof {
    taken: Vec<usize>,
    /// Where its front was cut: the first number that remains.
    front: Option<Seq>,
    /// What can be read behind a hole.
    unproven: Vec<usize>,
    /// Those of them that another one follows, or that follow another one: they are records for sure.
    sure: Vec<usize>,
    /// Whether it ends since two different events claim the next place.
    forked: bool,
    /// Whether it ends before an event that is whole, and may never have been acknowledged.
    unfinished: bool,
}

/// The bytes of a damaged log, and what looks like records in them.
struct Search {
    sources: Vec<Source>,
    found: Vec<Found>,
    markers: HashMap<StreamKey, Vec<Marker>>,
    /// What may be the key of the journal: an entry that it fits proves it.
    keys: Vec<journal::Key>,
    unreadable: u64,
}

/// How much of a file is read at once, and how much of what follows is seen with it.
const WINDOW: usize = 4 << 20;
const OVERLAP: usize = 64 << 10;
const PAGE: usize = 4096;
/// After how many events it is told how far it has come.
const REPORTED_EVERY: usize = 4096;

impl Search {
    /// The files of a log; and the path of its storage.
    fn open(file: &Path) -> Result<(Self, PathBuf)> {
        let paths = files::of_log(file);
        let mut sources = vec![Source::open(&paths[0])?];
        for path in &paths[1..] {
            // A log that was closed, or a copy, may have none.
            if path.exists() {
                sources.push(Source::open(path)?);
            }
        }
        let [path, ..] = paths;
        let search = Self {
            sources,
            found: Vec::new(),
            markers: HashMap::new(),
            keys: Vec::new(),
            unreadable: 0,
        };
        Ok((search, path))
    }

    /// Goes through all bytes.
    fn run(&mut self, report: &mut impl FnMut(Progress)) -> Result<()> {
        let total = self.sources.iter().map(|source| source.length).sum();
        let mut done = 0;
        for source in 0..self.sources.len() {
            // The storage comes first, and holds the key.
            let whole = match source {
                0 => vec![(0, u64::MAX)],
                _ => self.sources[source].entries(&self.keys)?,
            };
            let mut offset = 0;
            let mut bytes = Vec::new();
            while offset < self.sources[source].length {
                self.unreadable += self.sources[source].window(offset, &mut bytes);
                self.look(source, offset, &bytes, &whole);
                offset += WINDOW as u64;
                let through = offset.min(self.sources[source].length);
                report(Progress {
                    doing: "reading",
                    done: done + through,
                    total,
                });
            }
            done += self.sources[source].length;
        }
        // Of copies the acknowledged one first.
        self.found
            .sort_unstable_by_key(|f| (f.stream, f.seq, f.hash.0, !f.acknowledged));
        Ok(())
    }

    /// Notes what could be a record, or the key, in a window.
    fn look(&mut self, source: usize, offset: u64, bytes: &[u8], whole: &[(u64, u64)]) {
        let mut long = Vec::new();
        for at in 0..bytes.len().min(WINDOW) {
            let here = &bytes[at..];
            self.keys.extend(journal_key(&bytes[..at], here));
            let Some(length) = Record::may_begin(here) else {
                continue;
            };
            let offset = offset + at as u64;
            if offset + length as u64 > self.sources[source].length {
                continue;
            }
            let mut record = here.get(..length);
            if record.is_none() {
                long.resize(length, 0);
                let read = self.sources[source].read(offset, &mut long);
                record = read.is_ok().then_some(&long);
            }
            let Some((record, _)) = record.and_then(Record::split) else {
                continue;
            };
            if let Some((before, hash)) = record.cut() {
                let (seq, own) = (record.seq(), record.hash());
                let marker = Marker {
                    seq,
                    own,
                    before,
                    hash,
                };
                let markers = self.markers.entry(*record.stream_key()).or_default();
                markers.push(marker);
            }
            let end = offset + length as u64;
            self.found.push(Found {
                stream: *record.stream_key(),
                seq: record.seq(),
                position: record.position().0,
                hash: record.hash(),
                source,
                offset,
                length,
                acknowledged: whole.iter().any(|(from, to)| *from <= offset && end <= *to),
            });
        }
    }

    /// Looks at a record that was found; `None` where the disk does not give it.
    fn record<T>(&self, index: usize, look: impl FnOnce(Record<'_>) -> T) -> Option<T> {
        let found = self.found[index];
        let mut bytes = vec![0; found.length];
        let source = &self.sources[found.source];
        source.read(found.offset, &mut bytes).ok()?;
        let (record, _) = Record::split(&bytes)?;
        Some(look(record))
    }

    /// An event that was found; `None` where it cannot be read.
    fn event(&self, index: usize) -> Option<Recorded> {
        self.record(index, |record| record.decode().ok())?
    }

    /// What can be proven of each stream.
    fn prove(&self) -> Vec<(StreamId, Proof)> {
        let mut proofs = Vec::new();
        let mut start = 0;
        for found in self.found.chunk_by(|a, b| a.stream == b.stream) {
            let key = found[0].stream;
            let proof = self.prove_stream(&key, start..start + found.len());
            if let Some(stream) = StreamId::from_bytes(key)
                && !(proof.taken.is_empty() && proof.unproven.is_empty())
            {
                proofs.push((stream, proof));
            }
            start += found.len();
        }
        proofs
    }

    /// What can be proven of one stream, whose records these are, by number.
    fn prove_stream(&self, stream: &StreamKey, all: Range<usize>) -> Proof {
        let markers = self.markers.get(stream).map_or(&[][..], Vec::as_slice);
        let tree = self.tree(markers, all.clone());
        let mut proof = tree.longest(markers);
        let proven = markers.iter();
        let proven = proven.filter(|marker| marker.is_among(&proof.taken, &self.found));
        if let Some(front) = proven.max_by_key(|marker| marker.before) {
            proof.front = Some(front.before);
            proof
                .taken
                .retain(|index| self.found[*index].seq >= front.before);
        }
        let through = match proof.taken.last() {
            Some(last) => self.found[*last].seq,
            None => Seq(0),
        };
        let behind = all.filter(|index| self.found[*index].seq > through);
        let mut told = None;
        for index in behind {
            let name = Some((self.found[index].seq, self.found[index].hash));
            // Copies are told of once.
            if name == told {
                continue;
            }
            let last = proof.taken.last();
            proof.unfinished |= last.is_some_and(|last| tree.follows(index, *last));
            if tree.is_linked(index) {
                proof.sure.push(index);
            } else if self.event(index).is_none() {
                continue;
            }
            proof.unproven.push(index);
            told = name;
        }
        proof
    }

    /// The records of one stream, each with what it comes after.
    fn tree(&self, markers: &[Marker], all: Range<usize>) -> Tree<'_> {
        let mut tree = Tree::of(&self.found[all.clone()], all.start);
        let mut before = all.start..all.start;
        let mut start = all.start;
        for same in self.found[all].chunk_by(|a, b| a.seq == b.seq) {
            let here = start..start + same.len();
            if before.is_empty() || self.found[before.start].seq.next() != same[0].seq {
                before = start..start;
            }
            let mut known = None;
            for index in here.clone() {
                // A copy of one that is a record adds nothing.
                let hash = Some(self.found[index].hash);
                let origin = if known == hash {
                    Origin::Nothing
                } else {
                    self.origin(index, before.clone(), markers)
                };
                if origin != Origin::Nothing {
                    known = hash;
                }
                tree.push(origin);
            }
            before = here.clone();
            start = here.end;
        }
        tree.anchor();
        tree
    }

    /// What a record comes after: one of these, or what was cut off, or nothing.
    fn origin(&self, index: usize, before: Range<usize>, markers: &[Marker]) -> Origin {
        let seq = self.found[index].seq;
        let origin = self.record(index, |record| {
            let mut before = before;
            if let Some(parent) = before.find(|parent| record.follows(self.found[*parent].hash)) {
                return Origin::Follows(parent);
            }
            if seq == Seq::FIRST && record.follows(Hash::ZERO) {
                return Origin::First;
            }
            let mut cuts = markers.iter();
            match cuts.position(|marker| marker.before == seq && record.follows(marker.hash)) {
                Some(marker) => Origin::AfterCut(marker),
                None => Origin::Nothing,
            }
        });
        origin.unwrap_or(Origin::Nothing)
    }

    /// Makes a log of what was taken, in its order; gives up to where nothing is missing.
    fn write(
        &self,
        mut new: Import,
        taken: &[usize],
        report: &mut impl FnMut(Progress),
    ) -> Result<Position> {
        let mut whole_through = Position(0);
        let mut next = Position::FIRST;
        for (number, index) in taken.iter().enumerate() {
            let position = Position(self.found[*index].position);
            while next < position {
                let events = u32::try_from(position.0 - next.0).unwrap_or(u32::MAX);
                // Nobody knows the head there, and what comes next follows from any.
                let head = Hash::ZERO;
                new.add(&Piece::Gone { events, head })?;
                next.0 += u64::from(events);
            }
            let raw = self.record(*index, RawEvent::of);
            let raw = raw.ok_or_else(|| Error::Read {
                reason: "the file changed while it was read".to_owned(),
            })?;
            new.add(&Piece::Event(raw))?;
            if whole_through.next() == next {
                whole_through = next;
            }
            next = next.next();
            if number % REPORTED_EVERY == 0 {
                report(Progress {
                    doing: "writing",
                    done: number as u64,
                    total: taken.len() as u64,
                });
            }
        }
        new.finish()?;
        Ok(whole_through)
    }

    fn tell(&self, stream: StreamId, proof: &Proof) -> SalvagedStream {
        let seq = |index: &usize| self.found[*index].seq;
        let taken = proof.taken.first().zip(proof.taken.last());
        let mut unproven: Vec<(Seq, Seq)> = Vec::new();
        for seq in proof.unproven.iter().map(seq) {
            match unproven.last_mut() {
                Some((_, last)) if *last == seq => {}
                Some((_, last)) if last.next() == seq => *last = seq,
                _ => unproven.push((seq, seq)),
            }
        }
        let front = proof.front.unwrap_or(Seq::FIRST);
        let next = proof.taken.last().map_or(front, |last| seq(last).next());
        let reason = if proof.forked {
            format!("two different events claim to be event {next}")
        } else if unproven.is_empty() {
            String::new()
        } else if proof.unfinished {
            format!(
                "event {next} stands in an entry of the journal that is not whole: nobody knows whether it was acknowledged"
            )
        } else {
            format!(
                "event {next} is missing or damaged, and what follows it cannot be proven without it"
            )
        };
        SalvagedStream {
            stream,
            taken: taken.map(|(first, last)| (seq(first), seq(last))),
            unproven,
            reason,
        }
    }
}

/// What a record of a stream comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nothing: it is the first of its stream.
    First,
    /// What was cut off, by the word of this marker.
    AfterCut(usize),
    /// Another record.
    Follows(usize),
    /// Something that nobody has.
    Nothing,
}

/// The records of one stream, each with what it comes after. There is one way through it, unless somebody made up another.
struct Tree<'a> {
    found: &'a [Found],
    /// The index of the first of them among all.
    start: usize,
    origins: Vec<Origin>,
    has_child: Vec<bool>,
    /// Whether it, or one that follows from it, was acknowledged.
    anchored: Vec<bool>,
}

impl<'a> Tree<'a> {
    fn of(found: &'a [Found], start: usize) -> Self {
        Self {
            found,
            start,
            origins: Vec::with_capacity(found.len()),
            has_child: vec![false; found.len()],
            anchored: Vec::new(),
        }
    }

    fn push(&mut self, origin: Origin) {
        if let Origin::Follows(parent) = origin {
            self.has_child[parent - self.start] = true;
        }
        self.origins.push(origin);
    }

    /// Finds out what was acknowledged: what follows from an event vouches for it.
    fn anchor(&mut self) {
        self.anchored = self.found.iter().map(|found| found.acknowledged).collect();
        for place in (0..self.origins.len()).rev() {
            if let Origin::Follows(parent) = self.origins[place] {
                self.anchored[parent - self.start] |= self.anchored[place];
            }
        }
    }

    /// Whether one follows the other.
    fn follows(&self, index: usize, other: usize) -> bool {
        self.origins[index - self.start] == Origin::Follows(other)
    }

    /// Whether it follows another one, or another one follows it.
    fn is_linked(&self, index: usize) -> bool {
        let place = index - self.start;
        self.has_child[place] || matches!(self.origins[place], Origin::Follows(_))
    }

    /// What is proven from the stream's front on, that front being as late as a marker proves.
    fn longest(&self, markers: &[Marker]) -> Proof {
        let mut best: Option<(Seq, Proof)> = None;
        for (place, origin) in self.origins.iter().enumerate() {
            let (front, marker) = match origin {
                Origin::First => (Seq::FIRST, None),
                Origin::AfterCut(marker) => (markers[*marker].before, Some(markers[*marker])),
                Origin::Follows(_) | Origin::Nothing => continue,
            };
            if !self.anchored[place] {
                continue;
            }
            let proof = self.path(place);
            let of_all: Vec<usize> = proof.taken.iter().map(|index| index - self.start).collect();
            if marker.is_some_and(|marker| !marker.is_among(&of_all, self.found)) {
                continue;
            }
            match &best {
                // Two beginnings: nobody can say which is the one.
                Some((known, _)) if *known == front => {
                    return Proof {
                        forked: true,
                        ..Proof::default()
                    };
                }
                Some((known, _)) if *known > front => {}
                _ => best = Some((front, proof)),
            }
        }
        best.map(|(_, proof)| proof).unwrap_or_default()
    }

    /// The way from here on, as long as there is one.
    fn path(&self, from: usize) -> Proof {
        let mut proof = Proof::default();
        let mut here = from;
        loop {
            proof.taken.push(self.start + here);
            let next = self.found[here].seq.next();
            let rest = here + 1..self.origins.len();
            let children = rest.take_while(|place| self.found[*place].seq <= next);
            let mut children = children.filter(|place| {
                self.origins[*place] == Origin::Follows(self.start + here) && self.anchored[*place]
            });
            match (children.next(), children.next()) {
                (Some(child), None) => here = child,
                (None, _) => return proof,
                (Some(_), Some(_)) => {
                    proof.forked = true;
                    return proof;
                }
            }
        }
    }
}

/// The key of a log's journal, where the row of the storage's `meta` table begins that holds it: the names of its
/// rows stand there in their order, and then their values.
fn journal_key(before: &[u8], here: &[u8]) -> Option<journal::Key> {
    const FORMAT_LEN: usize = 4;
    let number_len = |is_there: bool| if is_there { 8 } else { 0 };
    let names = here.strip_prefix(table::JOURNAL_KEY.as_bytes())?;
    let left_out = names.strip_prefix(table::LEFT_OUT.as_bytes());
    let values = left_out.unwrap_or(names);
    let values = values.strip_prefix(table::MAGIC.as_bytes())?;
    let frames_from = before.ends_with(table::FRAMES_FROM.as_bytes());
    let values = values.get(FORMAT_LEN + number_len(frames_from)..)?;
    let (key, values) = values.split_first_chunk()?;
    let magic = values.get(number_len(left_out.is_some())..)?;
    magic.starts_with(table::MAGIC_VALUE).then_some(*key)
}

/// A file of the damaged log.
struct Source {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let error = |source| files::io_error("open", path)(source);
        let file = File::open(path).map_err(error)?;
        let length = file.metadata().map_err(error)?.len();
        Ok(Self {
            file,
            path: path.to_owned(),
            length,
        })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.try_read(offset, out)
            .map_err(files::io_error("read", &self.path))
    }

    fn try_read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(out)
    }

    /// Reads a window with what follows it; pages that the disk does not give are zeros, and their bytes counted.
    fn window(&self, offset: u64, out: &mut Vec<u8>) -> u64 {
        let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
        out.clear();
        out.resize(left.min(WINDOW + OVERLAP), 0);
        if self.try_read(offset, out).is_ok() {
            return 0;
        }
        let mut unreadable = 0;
        for (number, page) in out.chunks_mut(PAGE).enumerate() {
            let at = (number * PAGE) as u64;
            if self.try_read(offset + at, page).is_err() {
                page.fill(0);
                if at < WINDOW as u64 {
                    unreadable += page.len() as u64;
                }
            }
        }
        unreadable
    }

    /// Where the entries of a journal are that are whole.
    fn entries(&self, keys: &[journal::Key]) -> Result<Vec<(u64, u64)>> {
        let error = |source| files::io_error("open", &self.path)(source);
        let file = File::open(&self.path).map_err(error)?;
        let backend = FileBackend::new(file).map_err(|error| Error::Read {
            reason: error.to_string(),
        })?;
        let mut whole = Vec::new();
        let mut offset = 0;
        while offset < self.length {
            let entry = keys.iter().find_map(|key| {
                let read = journal::read(&backend, offset, key);
                read.ok().flatten().map(|(_, next)| next)
            });
            let next = entry.unwrap_or(offset + PAGE as u64);
            if entry.is_some() {
                whole.push((offset, next));
            }
            offset = next;
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests;
