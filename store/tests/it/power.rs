//! The power is lost between any two operations on the disk, and what is left is a log.
//!
//! A *life* of a log is made by chance from a seed, on a [disk] that remembers each operation. Then the
//! power is lost after each of them, and of what was not synced nothing survives, or all, or what chance
//! leaves. What is left is opened and lives on for a little; that life is cut short in turn after each
//! of its operations, some of those lives again. After each loss:
//!
//! - every event that was acknowledged, or that anybody had read, is there;
//! - an append that was under way is there whole or not at all, and nothing else is;
//! - events compare equal, field by field, with what was acknowledged; positions and numbers have no gaps;
//! - `verify` finds nothing, streams and their heads follow from the events;
//! - a snapshot is one that was put, and not ahead of its stream;
//! - appending, closing and opening again work and change nothing else.
//!
//! A loss that fails names its place, and `RECOUNT_CRASH_SEED=PLACE` repeats it alone: `7/117.2/5.0` is
//! the life of seed 7, cut after operation 117 with fate 2, whose next life was cut after operation 5
//! with fate 0. The place `7` repeats all losses of that life. `RECOUNT_CRASH_POINTS` says how many
//! losses there are to be.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use recount_store::{
    Error, Expected, Log, NewEvent, Position, Recorded, Select, Seq, Snapshot, StreamHead,
    StreamId, verify,
};

use crate::chance::Chance;
use crate::disk::{Disk, Fate, Trace};
use crate::{said, session};

/// How many losses a run of the tests makes; `RECOUNT_CRASH_POINTS` says otherwise.
const LOSSES: u64 = 12_000;

const PROJECTION: &str = "queue";

#[test]
fn every_loss_of_power_leaves_a_log() {
    if let Ok(place) = std::env::var("RECOUNT_CRASH_SEED") {
        let place: Place = place.parse().expect("a place, as a failure prints it");
        return place.repeat();
    }
    let wanted = match std::env::var("RECOUNT_CRASH_POINTS") {
        Ok(points) => points.parse().expect("a number"),
        Err(_) => LOSSES,
    };
    let losses = AtomicU64::new(0);
    let seeds = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while losses.load(Ordering::Relaxed) < wanted {
                    let place = Place::new(seeds.fetch_add(1, Ordering::Relaxed));
                    losses.fetch_add(place.explore(), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{losses:?} losses of power");
}

#[test]
fn every_loss_of_power_leaves_a_log_of_many_appenders() {
    for seed in 0..4 {
        let life = crowd(seed);
        let mut chance = Chance::new(seed);
        let mut replay = life.trace.replay();
        loop {
            // Threads take turns as they like, so the place alone does not bring this back.
            let fate = Fate::Chance(chance.number());
            revive(&replay.survivors(fate), life.allowed(replay.done));
            if !replay.step() {
                break;
            }
        }
    }
}

/// Where the power was lost: the life, then each loss and the life after it.
#[derive(Clone)]
struct Place {
    seed: u64,
    losses: Vec<(u64, u64)>,
}

impl Place {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            losses: Vec::new(),
        }
    }

    fn then(&self, after: u64, fate: u64) -> Self {
        let mut place = self.clone();
        place.losses.push((after, fate));
        place
    }

    /// Loses the power at each operation of a life; gives how many losses there were.
    fn explore(&self) -> u64 {
        let _here = Here(self);
        let life = alone(self.seed);
        let mut chance = Chance::new(self.seed);
        self.explore_life(&life, &mut chance)
    }

    fn explore_life(&self, life: &Life, chance: &mut Chance) -> u64 {
        let depth = self.losses.len();
        let mut losses = 0;
        let mut replay = life.trace.replay();
        loop {
            let by_chance = 2 + chance.number() % 1_000_000;
            let fates = match depth {
                0 => vec![0, 1, by_chance],
                1 => vec![by_chance],
                _ if chance.percent(20) => vec![by_chance],
                _ => vec![],
            };
            for fate in fates {
                let place = self.then(replay.done, fate);
                let _here = Here(&place);
                let allowed = life.allowed(replay.done);
                let next = revive(&replay.survivors(fate_of(fate)), allowed);
                losses += 1;
                if depth < 2 && chance.percent(2) {
                    losses += place.explore_life(&next, chance);
                }
            }
            if !replay.step() {
                return losses;
            }
        }
    }

    /// Loses the power here alone; in a life that was not cut, everywhere.
    fn repeat(&self) {
        if self.losses.is_empty() {
            self.explore();
            return;
        }
        let mut life = alone(self.seed);
        for (after, fate) in &self.losses {
            let survivors = life.trace.survivors(*after, fate_of(*fate));
            life = revive(&survivors, life.allowed(*after));
        }
    }
}

fn fate_of(number: u64) -> Fate {
    match number {
        0 => Fate::Lost,
        1 => Fate::Applied,
        seed => Fate::Chance(seed),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seed)?;
        for (after, fate) in &self.losses {
            write!(f, "/{after}.{fate}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Place {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/');
        let mut place = Self::new(parts.next().unwrap_or_default().parse()?);
        for part in parts {
            let (after, fate) = part.split_once('.').unwrap_or((part, ""));
            place = place.then(after.parse()?, fate.parse()?);
        }
        Ok(place)
    }
}

/// Names a place when what happens there panics.
struct Here<'a>(&'a Place);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to repeat it alone: RECOUNT_CRASH_SEED={}", self.0);
        }
    }
}

/// What happened to a log from one opening to the end of its disk, and what it may hold at each moment.
struct Life {
    trace: Trace,
    /// What it may have held before it was opened and read.
    before: Allowed,
    /// Operations until it was opened and read.
    opened: u64,
    /// What it held in the end.
    events: Arc<Vec<Recorded>>,
    /// How many of them it held from the beginning.
    kept: usize,
    /// In the order of their places.
    appends: Vec<Appended>,
    /// After so many operations, somebody had read so many events.
    read: Vec<(u64, usize)>,
    /// After so many operations, this snapshot was put.
    snapshots: Vec<(u64, StreamId, Snapshot)>,
}

#[derive(Debug)]
struct Appended {
    /// Operations before it was called.
    called: u64,
    /// Operations when it had been acknowledged.
    acknowledged: u64,
    /// How many events the log holds up to its last one.
    end: usize,
}

/// What a log may hold.
#[derive(Debug, Clone)]
struct Allowed {
    events: Arc<Vec<Recorded>>,
    /// How many of them.
    counts: Vec<usize>,
    snapshots: Vec<(StreamId, Snapshot)>,
}

impl Allowed {
    fn nothing() -> Self {
        Self {
            events: Arc::default(),
            counts: vec![0],
            snapshots: Vec::new(),
        }
    }
}

impl Life {
    /// What is allowed when the power is lost after so many operations.
    fn allowed(&self, after: u64) -> Allowed {
        if after < self.opened {
            return self.before.clone();
        }
        let acknowledged = self
            .appends
            .iter()
            .filter(|append| append.acknowledged <= after)
            .map(|append| append.end);
        let read = self
            .read
            .iter()
            .filter(|(operations, _)| *operations <= after)
            .map(|(_, count)| *count);
        let least = acknowledged.chain(read).max().unwrap_or(self.kept);
        let most = self
            .appends
            .iter()
            .take_while(|append| append.called < after)
            .map(|append| append.end);
        Allowed {
            events: Arc::clone(&self.events),
            counts: std::iter::once(self.kept)
                .chain(most)
                .filter(|count| *count >= least)
                .collect(),
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

/// Opens what a loss of power left, checks it, and lives on for a little.
fn revive(disk: &Disk, before: Allowed) -> Life {
    let log = disk.open().expect("it opens");
    let kept = check(&log, &before);
    let opened = disk.operations();
    let mut events = before.events[..kept].to_vec();

    let stream = session(1);
    let ended = log.stream_head(stream).expect("read").map(|head| head.seq);
    let expected = ended.map_or(Expected::NoStream, Expected::Exact);
    let called = disk.operations();
    let after = vec![said("after"), said("all")];
    let placed = wait(log.append(stream, expected, after)).expect("appended");
    let acknowledged = disk.operations();
    events.extend(placed);
    let events = Arc::new(events);
    wait(log.close()).expect("closed");

    let end = Allowed {
        events: Arc::clone(&events),
        counts: vec![events.len()],
        snapshots: before.snapshots.clone(),
    };
    let log = disk.open().expect("it opens again");
    check(&log, &end);
    drop(log);
    Life {
        trace: disk.trace(),
        before,
        opened,
        kept,
        appends: vec![Appended {
            called,
            acknowledged,
            end: events.len(),
        }],
        events,
        read: Vec::new(),
        snapshots: Vec::new(),
    }
}

/// Checks that a log is one of those allowed; gives how many events it holds.
fn check(log: &Log, allowed: &Allowed) -> usize {
    let found: Vec<_> = log
        .read_all(Position::FIRST)
        .map(|recorded| recorded.expect("an event"))
        .collect();
    let count = found.len();
    assert!(
        allowed.counts.contains(&count),
        "it holds {count} events, and not one of {:?}",
        allowed.counts
    );
    // Positions and numbers were checked when these were acknowledged.
    if found != allowed.events[..count] {
        let strange = found
            .iter()
            .zip(allowed.events.iter())
            .find(|(found, expected)| found != expected);
        panic!("another event stands there: {strange:?}");
    }
    let head = log.head().expect("a head").position;
    assert_eq!(head, Position(count as u64));

    let streams = streams_of(&found);
    let heads: Vec<_> = streams
        .iter()
        .map(|(name, head, _)| (*name, *head))
        .collect();
    assert_eq!(log.streams().expect("streams"), heads);
    for (stream, head, events) in &streams {
        let from = Seq(head.seq.0 / 2);
        let read: Vec<_> = log
            .read(*stream, from)
            .map(|recorded| recorded.expect("an event"))
            .collect();
        assert_eq!(
            read.iter().collect::<Vec<_>>(),
            events[usize::try_from(from.0.max(1) - 1).expect("small")..]
        );
        if let Some(snapshot) = log.snapshot(*stream, PROJECTION).expect("read") {
            assert!(snapshot.seq <= head.seq, "a snapshot of what never was");
            let put = (*stream, snapshot);
            assert!(allowed.snapshots.contains(&put), "nobody put {put:?}");
        }
    }
    let verified = verify(log, None).expect("whole");
    assert_eq!(
        (verified.events, verified.streams, verified.unknown),
        (count as u64, streams.len() as u64, 0)
    );
    count
}

/// Each stream with its head and its events, in the order of names.
fn streams_of(events: &[Recorded]) -> Vec<(StreamId, StreamHead, Vec<&Recorded>)> {
    let mut streams = std::collections::BTreeMap::<_, Vec<_>>::new();
    for recorded in events {
        streams
            .entry(recorded.stream.to_bytes())
            .or_default()
            .push(recorded);
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
            };
            (first.stream, head, events)
        })
        .collect()
}

/// A disk that holds an empty log: making one is not to survive a crash, since it happens under another name.
fn new_disk() -> Disk {
    let disk = Disk::new();
    drop(disk.open().expect("a log"));
    disk.survivors(Fate::Lost)
}

/// The life of a log with one appender, who waits for each answer: the same seed gives the same operations.
fn alone(seed: u64) -> Life {
    let disk = new_disk();
    let mut chance = Chance::new(seed);
    let mut log = disk.open().expect("a log");
    let opened = disk.operations();
    let mut tail = log.tail(Select::All, Position::FIRST);
    let mut events = Vec::new();
    let mut appends = Vec::new();
    let mut read = Vec::new();
    let mut snapshots = Vec::new();
    for n in 0..24 {
        let stream = stream(chance.below(4));
        let ended = log.stream_head(stream).expect("read").map(|head| head.seq);
        match chance.below(100) {
            // Somebody believes something else of the stream.
            0..5 => {
                let wrong = Expected::Exact(Seq(ended.map_or(0, |seq| seq.0) + 1));
                let refused = wait(log.append(stream, wrong, vec![said("no")]));
                assert!(matches!(refused, Err(Error::Conflict { .. })));
            }
            5..15 => {
                if let Some(seq) = ended {
                    let snapshot = Snapshot {
                        fold_version: 1,
                        seq,
                        bytes: chance.text(100).into_bytes(),
                    };
                    snapshots.push((disk.operations(), stream, snapshot.clone()));
                    log.put_snapshot(stream, PROJECTION, snapshot);
                }
            }
            15..22 => {
                if chance.percent(50) {
                    wait(log.close()).expect("closed");
                }
                drop((tail, log));
                log = disk.open().expect("a log");
                tail = log.tail(Select::All, Position(events.len() as u64 + 1));
            }
            size => {
                let batch = batch(size, n, &mut chance);
                let expected = match (chance.below(2), ended) {
                    (0, _) => Expected::Any,
                    (_, None) => Expected::NoStream,
                    (_, Some(seq)) => Expected::Exact(seq),
                };
                let called = disk.operations();
                events.extend(wait(log.append(stream, expected, batch)).expect("appended"));
                appends.push(Appended {
                    called,
                    acknowledged: disk.operations(),
                    end: events.len(),
                });
            }
        }
        if chance.percent(30) {
            let seen: Vec<_> = std::iter::from_fn(|| tail.try_next())
                .map(|recorded| recorded.expect("an event"))
                .collect();
            assert_eq!(seen, events[events.len() - seen.len()..]);
            read.push((disk.operations(), events.len()));
        }
    }
    wait(log.close()).expect("closed");
    Life {
        trace: disk.trace(),
        before: Allowed::nothing(),
        opened,
        events: Arc::new(events),
        kept: 0,
        appends,
        read,
        snapshots,
    }
}

/// The life of a log with several appenders and a tail, all at once.
fn crowd(seed: u64) -> Life {
    let disk = new_disk();
    let log = disk.open().expect("a log");
    let opened = disk.operations();
    let appended = Arc::new(Mutex::new(Vec::new()));
    let runtime = crate::runtime();
    let read = runtime.block_on(async {
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
    let appends = appended
        .into_iter()
        .map(|(called, acknowledged, placed)| {
            events.extend(placed);
            Appended {
                called,
                acknowledged,
                end: events.len(),
            }
        })
        .collect();
    Life {
        trace: disk.trace(),
        before: Allowed::nothing(),
        opened,
        events: Arc::new(events),
        kept: 0,
        appends,
        read,
        snapshots: Vec::new(),
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

/// Waits on this thread: a test of one operation after the other needs no other.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}
