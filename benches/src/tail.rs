//! Following: how much a live log delivers, and how long after its acknowledgement an event is seen.
//!
//! In the same process the limit is a channel of tokio's without any log, which hands out shared
//! pointers. Another process is compared with one that asks `SQLite` as often as a reader asks the log.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use criterion::Throughput;
use recount_store::{Event, Expected, Log, NewEvent, Select, Timestamp};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use crate::bench::Bench;
use crate::group::{Group, Row};
use crate::history::{output, payload, stream};
use crate::measure::{Subject, measure, quantile};
use crate::part::{Part, Who};
use crate::peers::Sqlite;

const PAYLOAD: usize = 256;
/// The events of one append, where much is to be delivered.
const BATCH: u32 = 64;
/// The time between two events, where the delay of each is looked at.
const PACE: Duration = Duration::from_millis(5);
/// What a channel holds for who is slow: more than is ever under way here.
const CHANNEL: usize = 4096;

/// Measures so many subscribers in this process, and one in another.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    for subscribers in [1, 64, 1024] {
        bench.say(&format!("tail: {subscribers} subscribers"));
        delivered(bench, subscribers);
        delays(bench, subscribers);
    }
    bench.say("tail: from another process");
    from_another_process(bench);
}

/// How many events all subscribers get together in a second, each of a row of appends.
fn delivered(bench: &mut Bench, subscribers: u32) {
    let name = "tail, delivered";
    let folder = bench.folder();
    let runtime = &bench.runtime;
    let log = Log::open(folder.path().join("log")).expect("a log");
    let events = || -> Vec<_> {
        (0..BATCH)
            .map(|_| NewEvent::live(output(PAYLOAD), Timestamp(1)))
            .collect()
    };
    let ours = |rounds: u64| {
        runtime.block_on(async {
            let from = log.head().expect("a head").position.next();
            let mut followers = JoinSet::new();
            for _ in 0..subscribers {
                let mut tail = log.tail(Select::All, from);
                followers.spawn(async move {
                    for _ in 0..rounds * u64::from(BATCH) {
                        tail.next().await.expect("it goes on").expect("an event");
                    }
                });
            }
            let begun = Instant::now();
            for _ in 0..rounds {
                log.append(stream(0), Expected::Any, events())
                    .await
                    .expect("appended");
            }
            followers.join_all().await;
            begun.elapsed()
        })
    };
    let channel = |rounds: u64| {
        runtime.block_on(async {
            let sender = broadcast::Sender::<Arc<Event>>::new(CHANNEL);
            let mut followers = JoinSet::new();
            for _ in 0..subscribers {
                let mut receiver = sender.subscribe();
                followers.spawn(async move {
                    for _ in 0..rounds * u64::from(BATCH) {
                        receiver.recv().await.expect("it is not too slow");
                    }
                });
            }
            let begun = Instant::now();
            for _ in 0..rounds {
                while sender.len() + BATCH as usize > CHANNEL {
                    tokio::task::yield_now().await;
                }
                for _ in 0..BATCH {
                    sender
                        .send(Arc::new(output(PAYLOAD)))
                        .expect("they are there");
                }
            }
            followers.join_all().await;
            begun.elapsed()
        })
    };
    let mut group = bench.criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(u64::from(subscribers * BATCH)));
    let measured = measure(
        &mut group,
        &subscribers.to_string(),
        &mut [
            Subject::new("recount", ours),
            Subject::new("channel without a log", channel),
        ],
    );
    group.finish();
    let per = subscribers * BATCH;
    bench.table.rates(name, subscribers, per, &measured);
    runtime.block_on(log.close()).expect("closed");
}

/// When each of some events was acknowledged, and last seen, counted from one moment.
#[derive(Debug)]
struct Moments {
    begun: Instant,
    acknowledged: Vec<AtomicU64>,
    seen: Vec<AtomicU64>,
}

impl Moments {
    fn new(events: usize) -> Arc<Self> {
        let moments = || (0..events).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            begun: Instant::now(),
            acknowledged: moments(),
            seen: moments(),
        })
    }

    fn note(&self, moments: &[AtomicU64], event: usize) {
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        moments[event].fetch_max(now, Ordering::Relaxed);
    }

    /// The milliseconds from acknowledged to last seen; none where it was seen before.
    fn delays(&self) -> Vec<f64> {
        let moments = self.acknowledged.iter().zip(&self.seen);
        moments
            .map(|(acknowledged, seen)| {
                let seen = seen.load(Ordering::Relaxed);
                let delay = seen.saturating_sub(acknowledged.load(Ordering::Relaxed));
                Duration::from_nanos(delay).as_secs_f64() * 1000.0
            })
            .collect()
    }
}

/// How long after its acknowledgement the last subscriber sees an event.
fn delays(bench: &mut Bench, subscribers: u32) {
    let events = bench.pick(100, 400);
    let folder = bench.folder();
    let runtime = &bench.runtime;
    let log = Log::open(folder.path().join("log")).expect("a log");
    let ours = runtime.block_on(async {
        let moments = Moments::new(events);
        let mut followers = JoinSet::new();
        for _ in 0..subscribers {
            let mut tail = log.tail(Select::All, log.head().expect("a head").position.next());
            let moments = Arc::clone(&moments);
            followers.spawn(async move {
                for event in 0..moments.seen.len() {
                    tail.next().await.expect("it goes on").expect("an event");
                    moments.note(&moments.seen, event);
                }
            });
        }
        for event in 0..events {
            tokio::time::sleep(PACE).await;
            let new = vec![NewEvent::live(output(PAYLOAD), Timestamp(1))];
            log.append(stream(0), Expected::Any, new)
                .await
                .expect("appended");
            moments.note(&moments.acknowledged, event);
        }
        followers.join_all().await;
        moments.delays()
    });
    runtime.block_on(log.close()).expect("closed");
    let channel = runtime.block_on(async {
        let moments = Moments::new(events);
        let sender = broadcast::Sender::<Arc<Event>>::new(CHANNEL);
        let mut followers = JoinSet::new();
        for _ in 0..subscribers {
            let mut receiver = sender.subscribe();
            let moments = Arc::clone(&moments);
            followers.spawn(async move {
                for event in 0..moments.seen.len() {
                    receiver.recv().await.expect("it is not too slow");
                    moments.note(&moments.seen, event);
                }
            });
        }
        for event in 0..events {
            tokio::time::sleep(PACE).await;
            moments.note(&moments.acknowledged, event);
            sender
                .send(Arc::new(output(PAYLOAD)))
                .expect("they are there");
        }
        followers.join_all().await;
        moments.delays()
    });
    keep_delays(
        bench,
        "tail, last to see it",
        subscribers,
        &[("recount", ours), ("channel without a log", channel)],
    );
}

/// How long after its acknowledgement a process that only reads sees an event.
fn from_another_process(bench: &mut Bench) {
    let events = bench.pick(100, 400);
    let folder = bench.folder();
    let runtime = &bench.runtime;
    let path = folder.path().join("log");
    let log = Log::open(&path).expect("a log");
    let ours = follow(runtime, Who::Recount, &path, events, async || {
        let event = vec![NewEvent::live(output(PAYLOAD), Timestamp(1))];
        let recorded = log.append(stream(0), Expected::Any, event).await;
        recorded.expect("appended")[0].position.0
    });
    runtime.block_on(log.close()).expect("closed");
    let path = folder.path().join("sqlite");
    let sqlite = Group::start(Sqlite::open(&path));
    let position = AtomicU64::new(0);
    let polled = follow(runtime, Who::Sqlite, &path, events, async || {
        let seq = position.fetch_add(1, Ordering::Relaxed) + 1;
        let row = Row {
            session: stream(0).to_bytes(),
            seq,
            bytes: payload(&output(PAYLOAD)),
        };
        sqlite.append(row).await;
        seq
    });
    keep_delays(
        bench,
        "tail, another process",
        1,
        &[("recount", ours), ("SQLite, asked every 10 ms", polled)],
    );
}

/// The delays, in milliseconds, of so many events that `append` appends, giving their positions.
fn follow(
    runtime: &Runtime,
    who: Who,
    path: &Path,
    events: usize,
    append: impl AsyncFn() -> u64,
) -> Vec<f64> {
    let part = Part::Follow {
        who,
        events: events as u64,
    };
    let mut child = part.start(path);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = move || lines.next().expect("it speaks").expect("a line");
    assert_eq!(line(), "ready");
    let mut acknowledged = HashMap::new();
    runtime.block_on(async {
        for event in 0..events {
            // At all phases of the other's rhythm.
            let pause = PACE + Duration::from_micros(event as u64 * 1777 % 10_000);
            tokio::time::sleep(pause).await;
            let position = append().await;
            acknowledged.insert(position, Timestamp::from_system(SystemTime::now()));
        }
    });
    let delays = (0..events)
        .map(|_| {
            let line = line();
            let (position, seen) = line.split_once(' ').expect("two numbers");
            let position: u64 = position.parse().expect("a number");
            let seen = Timestamp(seen.parse().expect("a number"));
            seen.since(acknowledged[&position]).as_secs_f64() * 1000.0
        })
        .collect();
    child.wait().expect("it ends");
    delays
}

/// Keeps the median and the 99th percentile, the log's first.
fn keep_delays(bench: &mut Bench, name: &str, n: u32, delays: &[(&str, Vec<f64>)]) {
    for (share, word) in [(0.5, "median"), (0.99, "99 of 100")] {
        let values: Vec<_> = delays
            .iter()
            .map(|(subject, delays)| (*subject, quantile(delays.iter().copied(), share)))
            .collect();
        bench
            .table
            .less_is_better(&format!("{name}, {word}"), n, "ms", &values);
    }
}
