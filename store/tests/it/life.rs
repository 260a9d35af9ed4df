//! The life of a log on a [disk], and what the log may hold when that ends at some operation.
//!
//! A *life* is lived once, by chance from a seed; each answer of the log is noted with the operations on
//! the disk before and after it. From that follows what is allowed when the power is lost after any
//! number of operations:
//!
//! - every event that was acknowledged, or that anybody had read, is there;
//! - an append that was under way is there whole or not at all, and nothing else is;
//! - events compare equal, field by field, with what was acknowledged; positions and numbers have no gaps;
//! - `verify` finds nothing, streams and their heads follow from the events;
//! - frames are those that were kept, in order, with all that any event names, and all that were kept
//!   before an append that is there;
//! - a snapshot is one that was put, and not ahead of its stream;
//! - an append that is repeated, known by its ids, gives what is there and adds nothing;
//! - the database alone is the whole log once it was closed;
//! - appending, closing and opening again work and change nothing else.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex};

use recount_store::{
    Append, Cause, ConnectionId, Error, Event, EventId, Expected, Frame, FrameContent, FrameNumber,
    Log, NewEvent, Position, Recorded, Select, Seq, Snapshot, StreamHead, StreamId, Tail,
    Timestamp, verify,
};

use crate::chance::Chance;
use crate::disk::{Disk, Fate, File, Trace};
use crate::{said, session};

const PROJECTION: &str = "queue";

/// What happened to a log from one opening on, and what it may hold at each moment.
pub(crate) struct Life {
    pub(crate) trace: Trace,
    /// What it may have held before it was opened and read.
    before: Allowed,
    /// Operations until it was opened and read.
    pub(crate) opened: u64,
    /// How many events it held then.
    kept: usize,
    /// And how many frames.
    frames_kept: usize,
    /// What it held in the end, and then what it refused first, which may be there too.
    events: Arc<Vec<Recorded>>,
    /// What was kept of frames, and what may be lost again with what was refused.
    frames: Vec<Frame>,
    /// In the order of their places.
    appends: Vec<Appended>,
    /// After so many operations, somebody had read so many events.
    read: Vec<(u64, usize)>,
    /// After so many operations, this snapshot was put.
    snapshots: Vec<(u64, StreamId, Snapshot)>,
    /// Why it takes no more writes, if it said so.
    pub(crate) failed: Option<Arc<str>>,
    /// Why it took no more writes when it was closed, if it was opened again since.
    pub(crate) failed_before: Option<Arc<str>>,
    /// Whether something failed while it was dropped, which tells nobody.
    pub(crate) untold: bool,
    /// Why it could not be opened, if it could not: that was the end.
    pub(crate) refused: Option<Error>,
}

#[derive(Debug)]
struct Appended {
    /// Operations before it was called.
    called: u64,
    /// Operations when it had been acknowledged; `None` where it never was.
    acknowledged: Option<u64>,
    /// How many events the log holds up to its last one.
    end: usize,
    /// How many frames had been kept before it was called.
    frames: usize,
}

/// What a log may hold.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    events: Arc<Vec<Recorded>>,
    /// How many of them, and how many frames there are then at least.
    counts: BTreeMap<usize, usize>,
    frames: Vec<Frame>,
    snapshots: Vec<(StreamId, Snapshot)>,
}

impl Allowed {
    /// An empty log.
    pub(crate) fn nothing() -> Self {
        Self {
            events: Arc::default(),
            counts: BTreeMap::from([(0, 0)]),
            frames: Vec::new(),
            snapshots: Vec::new(),
        }
    }

    /// Any number of its appends may be gone from its end: somebody took them.
    pub(crate) fn or_less(mut self, life: &Life) -> Self {
        self.counts = life.appends.iter().map(|append| (append.end, 0)).collect();
        self.counts.insert(0, 0);
        self
    }
}

impl Life {
    /// A log that was opened and held some of what was allowed.
    fn begun(disk: &Disk, before: Allowed, kept: usize, frames: usize) -> Self {
        Self {
            trace: disk.trace(),
            opened: disk.operations(),
            kept,
            frames_kept: frames,
            frames: before.frames[..frames].to_vec(),
            events: Arc::new(before.events[..kept].to_vec()),
            before,
            appends: Vec::new(),
            read: Vec::new(),
            snapshots: Vec::new(),
            failed: None,
            failed_before: None,
            untold: false,
            refused: None,
        }
    }

    /// What is allowed when the power is lost after so many operations.
    pub(crate) fn allowed(&self, after: u64) -> Allowed {
        if after < self.opened {
            return self.before.clone();
        }
        let acknowledged = self
            .appends
            .iter()
            .filter(|append| append.acknowledged.is_some_and(|when| when <= after))
            .map(|append| append.end);
        let read = self
            .read
            .iter()
            .filter(|(operations, _)| *operations <= after)
            .map(|(_, count)| *count);
        let least = acknowledged.chain(read).max().unwrap_or(self.kept);
        let possible = self
            .appends
            .iter()
            .take_while(|append| append.called < after)
            .map(|append| (append.end, append.frames));
        Allowed {
            events: Arc::clone(&self.events),
            counts: std::iter::once((self.kept, self.frames_kept))
                .chain(possible)
                .filter(|(count, _)| *count >= least)
                .collect(),
            frames: self.frames.clone(),
            snapshots: self
                .snapshots
                .iter()
                .filter(|(operations, ..)| *operations < after)
                .map(|(_, stream, snapshot)| (*stream, snapshot.clone()))
                .chain(self.before.snapshots.iter().cloned())
                .collect(),
        }
    }
}

/// A disk that holds an empty log.
///
/// Making one is not part of any life: a log is made under another name, and given its own when it is whole.
pub(crate) fn new_disk() -> Disk {
    let disk = Disk::new();
    drop(disk.open().expect("a log"));
    disk.survivors(Fate::Lost)
}

/// Opens what a loss of power left, checks it, and lives on for a little.
pub(crate) fn revive(disk: &Disk, before: Allowed) -> Life {
    let log = disk.open().expect("it opens");
    let (kept, frames) = check(&log, &before);
    let mut life = Life::begun(disk, before, kept, frames);

    let mut events = life.events.to_vec();
    let frame = keep_frame(&log, &mut life, b"after");
    let mark = EventId::from_random(events.len() as u128);
    let after = vec![said("after").with_id(mark).from_frame(frame), said("all")];
    let again = vec![(session(1), after)];
    append(disk, &log, &mut life, &mut events, true, again.clone());
    assert_eq!(life.failed, None);
    // Now and then, to be cut short in its turn.
    match life.opened % 6 {
        0 => drop(wait(log.compact(|_| {})).expect("compacted")),
        1 => wait(log.rebuild(|_| {})).expect("rebuilt"),
        _ => {}
    }
    wait(log.close()).expect("closed");
    drop(log);
    life.events = Arc::new(events);
    life.trace = disk.trace();

    let end = life.allowed(u64::MAX);
    // One life in four: opening is what takes the time.
    if life.opened.is_multiple_of(4) {
        let database = disk.survivors(Fate::Lost).only(File::Database);
        check(&database.open().expect("it is all of the log"), &end);
    }
    let log = disk.open().expect("it opens again");
    assert_eq!(repeat(&log, again, &life.events[kept..]), None);
    check(&log, &end);
    life
}

/// The life of a log with one appender, who waits for each answer: the same seed gives the same operations.
///
/// The disk may fail; then it goes on, and expects to be refused.
pub(crate) fn alone(disk: &Disk, seed: u64, steps: u64) -> Life {
    let mut chance = Chance::new(seed);
    let mut life = Life::begun(disk, Allowed::nothing(), 0, 0);
    let mut events = Vec::new();
    let mut open = match disk.open() {
        Ok(log) => log,
        Err(error) => {
            life.refused = Some(error);
            life.trace = disk.trace();
            return life;
        }
    };
    wait(open.quiet());
    life.opened = disk.operations();
    let mut known = Vec::new();
    // What an upkeep that fails has done is not for this to say.
    let upkeep = !disk.may_fail();
    let mut tail = open.tail(Select::All, Position::FIRST);
    for n in 0..steps {
        let log = &open;
        let stream = stream(chance.below(4));
        match chance.below(100) {
            // Somebody believes something else of the stream.
            0..5 => {
                let wrong = Expected::Exact(Seq(u64::MAX));
                let refused = wait(log.append(stream, wrong, vec![said("no")]));
                match (refused, &life.failed) {
                    (Err(Error::Conflict { .. }), None) => {}
                    (Err(Error::Failed { cause }), Some(failed)) => assert_eq!(cause, *failed),
                    (other, failed) => panic!("{other:?} after {failed:?}"),
                }
            }
            5..15 => {
                let seq = Seq(events_of(&events, stream));
                if seq != Seq(0) {
                    let snapshot = Snapshot {
                        fold_version: 1,
                        seq,
                        bytes: chance.text(100).into_bytes(),
                    };
                    life.snapshots
                        .push((disk.operations(), stream, snapshot.clone()));
                    log.put_snapshot(stream, PROJECTION, snapshot);
                }
            }
            // A log that failed is kept open, to see it refuse.
            15..22 if life.failed.is_none() => {
                if chance.percent(50)
                    && let Err(Error::Failed { cause }) = wait(log.close())
                {
                    life.failed = Some(cause);
                }
                drop((tail, open));
                life.untold |= disk.failures() > 0 && life.failed.is_none();
                open = match disk.open() {
                    Ok(log) => log,
                    Err(error) => {
                        life.refused = Some(error);
                        life.events = Arc::new(events);
                        life.trace = disk.trace();
                        return life;
                    }
                };
                tail = open.tail(Select::All, Position(events.len() as u64 + 1));
                life.failed_before = life.failed.take().or(life.failed_before);
                // What could not be written when it was dropped is lost, and its numbers come again.
                life.frames
                    .truncate(open.frames(FrameNumber::FIRST).count());
            }
            27..30 if upkeep => {
                wait(log.compact(|_| {})).expect("compacted");
            }
            30..32 if upkeep => wait(log.rebuild(|_| {})).expect("rebuilt"),
            32..38 if upkeep => {
                // A tail that had not come so far would step over what is gone.
                drain(&mut tail);
                known.clear();
                let before = Seq(1 + chance.number() % (1 + events_of(&events, stream)));
                let called = disk.operations();
                if let Ok(cut) = wait(log.cut(stream, before, Timestamp(7))) {
                    events.push(cut);
                    life.appends.push(Appended {
                        called,
                        acknowledged: Some(disk.operations()),
                        end: events.len(),
                        frames: life.frames.len(),
                    });
                }
            }
            22..27 if !known.is_empty() && life.failed.is_none() => {
                let (parts, placed): &(_, Vec<_>) = &known[chance.below(known.len())];
                life.failed = repeat(log, Vec::clone(parts), placed);
            }
            size => {
                let mut parts = vec![(stream, batch(size, n, &mut chance))];
                if chance.percent(20) {
                    let other = self::stream(chance.below(4));
                    parts.push((other, batch(0, n + 1000, &mut chance)));
                }
                if chance.percent(30) && life.failed.is_none() {
                    let said = chance.text(500);
                    let frame = keep_frame(log, &mut life, said.as_bytes());
                    let first = &mut parts[0].1[0];
                    *first = first.clone().from_frame(frame);
                }
                let has_id = chance.percent(30);
                if has_id {
                    let first = &mut parts[0].1[0];
                    let id = EventId::from_random(u128::from(chance.number()));
                    *first = first.clone().with_id(id);
                }
                let exact = chance.percent(50);
                let before = events.len();
                append(disk, log, &mut life, &mut events, exact, parts.clone());
                if has_id && life.failed.is_none() {
                    known.push((parts, events[before..].to_vec()));
                }
            }
        }
        // Or the threads of the log would take turns as they like.
        wait(open.quiet());
        if chance.percent(30) && life.failed.is_none() {
            let read = drain(&mut tail);
            assert_eq!(read, events[events.len() - read.len()..]);
            life.read.push((disk.operations(), events.len()));
        }
    }
    life.events = Arc::new(events);
    life.end(disk, &open);
    life
}

impl Life {
    /// Closes the log at the end of a life, which tells of a failure if there was one.
    fn end(&mut self, disk: &Disk, log: &Log) {
        if let Some(failed) = &self.failed {
            // What failed is not shown: nobody may act on it.
            let acknowledged = self.appends.iter().filter(|a| a.acknowledged.is_some());
            let count = acknowledged
                .map(|append| append.end)
                .max()
                .unwrap_or(self.kept);
            assert_eq!(log.head().expect("a head").position, Position(count as u64));
            match log.read_all(Position::FIRST).collect::<Result<Vec<_>, _>>() {
                Ok(read) => assert_eq!(read, self.events[..count]),
                Err(error) => assert!(disk.is_unreadable(), "{error} after {failed}"),
            }
        }
        match (wait(log.close()), &self.failed) {
            (Ok(()), None) => {}
            (Err(Error::Failed { cause }), None) => self.failed = Some(cause),
            (Err(Error::Failed { cause }), Some(failed)) => assert_eq!(cause, *failed),
            (other, failed) => panic!("{other:?} after {failed:?}"),
        }
        self.trace = disk.trace();
    }
}

/// Appends, and notes how that went.
fn append(
    disk: &Disk,
    log: &Log,
    life: &mut Life,
    events: &mut Vec<Recorded>,
    exact: bool,
    parts: Vec<(StreamId, Vec<NewEvent>)>,
) {
    let start = events.len();
    let mut after = events.clone();
    let mut appends = Vec::new();
    for (stream, batch) in parts {
        let ended = events_of(&after, stream);
        let expected = match (exact, ended) {
            (false, _) => Expected::Any,
            (true, 0) => Expected::NoStream,
            (true, ended) => Expected::Exact(Seq(ended)),
        };
        after.extend(place(&batch, stream, after.len() as u64, ended));
        appends.push(Append {
            stream,
            expected,
            events: batch,
        });
    }
    let frames = life.frames.len();
    let called = disk.operations();
    let answer = wait(log.append_all(appends));
    let acknowledged = match (answer, &life.failed) {
        (Ok(recorded), None) => {
            assert_eq!(recorded.concat(), after[start..]);
            Some(disk.operations())
        }
        (Err(Error::Failed { cause }), Some(failed)) => {
            assert_eq!(cause, *failed);
            return;
        }
        (Err(Error::Failed { cause }), None) => {
            life.failed = Some(cause);
            None
        }
        (other, failed) => panic!("{other:?} after {failed:?}"),
    };
    life.appends.push(Appended {
        called,
        acknowledged,
        end: after.len(),
        frames,
    });
    *events = after;
}

/// Appends what is there already, and expects to be told so, whatever is expected of the stream; or why
/// the log takes no more writes.
fn repeat(
    log: &Log,
    parts: Vec<(StreamId, Vec<NewEvent>)>,
    placed: &[Recorded],
) -> Option<Arc<str>> {
    let appends = parts
        .into_iter()
        .map(|(stream, events)| Append {
            stream,
            expected: Expected::NoStream,
            events,
        })
        .collect();
    match wait(log.append_all(appends)) {
        Ok(again) => {
            assert_eq!(again.concat(), placed);
            None
        }
        Err(Error::Failed { cause }) => Some(cause),
        Err(error) => panic!("{error:?}"),
    }
}

fn keep_frame(log: &Log, life: &mut Life, bytes: &[u8]) -> FrameNumber {
    let frame = Frame {
        number: FrameNumber(life.frames.len() as u64 + 1),
        connection: ConnectionId::from_bytes([7; 10]),
        at: Timestamp(life.frames.len() as u64),
        content: FrameContent::Received(bytes.to_vec()),
    };
    let number = log.keep_frame(frame.connection, frame.at, bytes);
    assert_eq!(number, Some(frame.number));
    life.frames.push(frame);
    life.frames[life.frames.len() - 1].number
}

/// What an append comes to be where the log holds `position` events, and the stream `seq`.
fn place(batch: &[NewEvent], stream: StreamId, position: u64, seq: u64) -> Vec<Recorded> {
    (1..)
        .zip(batch)
        .map(|(n, new)| {
            assert_eq!(new.cause, Cause::None);
            Recorded {
                position: Position(position + n),
                stream,
                seq: Seq(seq + n),
                at: new.at,
                cause: None,
                class: new.event.class(),
                provenance: new.provenance,
                id: new.id,
                frame: new.frame,
                event: new.event.clone(),
            }
        })
        .collect()
}

fn events_of(events: &[Recorded], stream: StreamId) -> u64 {
    let last = events.iter().rfind(|recorded| recorded.stream == stream);
    last.map_or(0, |recorded| recorded.seq.0)
}

fn drain(tail: &mut Tail) -> Vec<Recorded> {
    std::iter::from_fn(|| tail.try_next())
        .map(|recorded| recorded.expect("an event"))
        .collect()
}

/// The life of a log with several appenders and a tail, all at once.
pub(crate) fn crowd(disk: &Disk, seed: u64) -> Life {
    let log = disk.open().expect("a log");
    let mut life = Life::begun(disk, Allowed::nothing(), 0, 0);
    let appended = Arc::new(Mutex::new(Vec::new()));
    life.read = crate::runtime().block_on(async {
        let mut tail = log.tail(Select::All, Position::FIRST);
        let follower = tokio::spawn({
            let disk = disk.clone();
            async move {
                let mut read = Vec::new();
                while let Some(recorded) = tail.next().await {
                    let position = recorded.expect("an event").position;
                    read.push((disk.operations(), read.len() + 1));
                    assert_eq!(position, Position(read.len() as u64));
                }
                read
            }
        });
        let appenders: Vec<_> = (0..4)
            .map(|n| {
                let (disk, log, appended) = (disk.clone(), log.clone(), Arc::clone(&appended));
                let mut chance = Chance::new(seed * 100 + n);
                tokio::spawn(async move {
                    for round in 0..8 {
                        let size = chance.below(100);
                        let batch = batch(size, round, &mut chance);
                        let stream = stream(chance.below(4));
                        let called = disk.operations();
                        let placed = log.append(stream, Expected::Any, batch).await;
                        let placed = placed.expect("appended");
                        let acknowledged = disk.operations();
                        let mut appended = appended.lock().expect("no panic");
                        appended.push((called, acknowledged, placed));
                    }
                })
            })
            .collect();
        for appender in appenders {
            appender.await.expect("no panic");
        }
        log.close().await.expect("closed");
        follower.await.expect("no panic")
    });
    let mut appended = std::mem::take(&mut *appended.lock().expect("no panic"));
    appended.sort_by_key(|(.., placed)| placed[0].position);
    let mut events = Vec::new();
    for (called, acknowledged, placed) in appended {
        events.extend(placed);
        life.appends.push(Appended {
            called,
            acknowledged: Some(acknowledged),
            end: events.len(),
            frames: 0,
        });
    }
    life.events = Arc::new(events);
    life.trace = disk.trace();
    life
}

/// Checks that a log is one of those allowed; gives how many events and frames it ever held.
pub(crate) fn check(log: &Log, allowed: &Allowed) -> (usize, usize) {
    let position = log.head().expect("a head").position.0;
    let count = usize::try_from(position).expect("small");
    assert!(
        allowed.counts.contains_key(&count),
        "it holds {count} events, and not one of {:?}",
        allowed.counts
    );
    let ever = &allowed.events[..count];
    let streams = streams_of(ever);
    let cuts: HashMap<_, _> = streams
        .iter()
        .map(|(stream, head, _)| (*stream, head.from))
        .collect();

    // What was cut off may be there until it is compacted.
    let mut found = log
        .read_all(Position::FIRST)
        .map(|recorded| recorded.expect("an event"))
        .peekable();
    let mut there = 0;
    for expected in ever {
        if found.peek() == Some(expected) {
            found.next();
            there += 1;
        } else if expected.seq >= cuts[&expected.stream] {
            panic!("{:?} stands in the place of {expected:?}", found.next());
        }
    }
    assert_eq!(found.next(), None, "nobody appended this");

    let found = log.streams().expect("streams");
    let mut heads = found.iter();
    for (stream, expected, events) in &streams {
        let (name, head) = heads.next().expect("a stream");
        let expected = StreamHead {
            // Somewhere among those that were cut off, or the first that was not.
            first: head.first,
            ..*expected
        };
        assert_eq!((name, head), (stream, &expected));
        // From the middle, which has to be found first.
        let from = Seq(head.seq.0.div_ceil(2));
        let read: Vec<_> = log
            .read(*stream, from)
            .map(|recorded| recorded.expect("an event"))
            .collect();
        let from = from.max(head.from);
        let expected = &events[usize::try_from(from.0 - 1).expect("small")..];
        assert!(read.iter().eq(expected.iter().copied()), "of {stream}");
        if let Some(snapshot) = log.snapshot(*stream, PROJECTION).expect("read") {
            assert!(snapshot.seq <= head.seq, "a snapshot of what never was");
            let put = (*stream, snapshot);
            assert!(allowed.snapshots.contains(&put), "nobody put {put:?}");
        }
    }
    assert_eq!(heads.next(), None, "a stream of nothing");
    let verified = verify(log, None).expect("whole");
    assert_eq!(
        (verified.events, verified.streams, verified.unknown),
        (there, streams.len() as u64, 0)
    );
    (count, check_frames(log, allowed, ever))
}

fn check_frames(log: &Log, allowed: &Allowed, events: &[Recorded]) -> usize {
    let frames: Vec<_> = log
        .frames(FrameNumber::FIRST)
        .map(|frame| frame.expect("a frame"))
        .collect();
    let count = frames.len();
    assert!(count <= allowed.frames.len(), "frames that nobody kept");
    assert_eq!(frames, allowed.frames[..count]);
    let named = events.iter().filter_map(|recorded| recorded.frame).max();
    let named = named.map_or(0, |number| number.0);
    let kept = allowed.counts[&events.len()] as u64;
    assert!(
        count as u64 >= named.max(kept),
        "{count} frames, not {named} and {kept}"
    );
    count
}

/// Each stream with its head and its events, in the order of names.
fn streams_of(events: &[Recorded]) -> Vec<(StreamId, StreamHead, Vec<&Recorded>)> {
    let mut streams = BTreeMap::<_, Vec<_>>::new();
    for recorded in events {
        let name = recorded.stream.to_bytes();
        streams.entry(name).or_default().push(recorded);
    }
    streams
        .into_values()
        .map(|events| {
            let (first, last) = (events[0], events[events.len() - 1]);
            let head = StreamHead {
                seq: last.seq,
                first: first.position,
                last: last.position,
                at: last.at,
                from: events
                    .iter()
                    .rev()
                    .find_map(|event| cut(event))
                    .unwrap_or(Seq::FIRST),
            };
            (first.stream, head, events)
        })
        .collect()
}

/// The first number that remains, if this event says so.
fn cut(recorded: &Recorded) -> Option<Seq> {
    match recorded.event {
        Event::StreamCut { before, .. } => Some(before),
        _ => None,
    }
}

fn stream(n: usize) -> StreamId {
    match n {
        0 => StreamId::Engine,
        n => session(u8::try_from(n).expect("small")),
    }
}

/// The events of one append: mostly one that is small, or several, now and then some that fill blocks.
fn batch(size: usize, n: u64, chance: &mut Chance) -> Vec<NewEvent> {
    let (count, length) = match size {
        0..70 => (1, chance.below(300)),
        70..90 => (2 + chance.below(6), chance.below(300)),
        90..96 => (3 + chance.below(3), 9_000),
        _ => (1 + chance.below(2), 40_000),
    };
    (0..count)
        .map(|i| said(format!("{n}.{i} {}", chance.text(length))))
        .collect()
}

/// Waits on this thread: a test of one step after the other needs no other.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}
