//! Rebuilding: opening a log, reading one session from the file, decoding and folding each event.
//!
//! The fold counts bytes of text. The peers read as many bytes in the same order and decode nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use recount_store::{Event, Expected, Log, LogReader, NewEvent, Seq, StreamId, Timestamp};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::append::{event, runtime, stream};
use crate::group::{Row, Sink as _};
use crate::peers::{Bare, Sqlite};
use crate::table::Table;
use crate::{Plan, Subject, measure};

/// Measures one long session, and one of many that were appended to in turn.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(plan: &Plan, criterion: &mut Criterion, folder: &Path, table: &mut Table) {
    let runtime = runtime();
    let workloads = [
        ("rebuild, alone", 1, plan.pick(100_000, 1_000_000)),
        (
            "rebuild, one of many",
            plan.pick(300, 1000),
            plan.pick(300, 1000),
        ),
    ];
    for (name, sessions, each) in workloads {
        if plan.wants(name) {
            let folder = folder.join(name);
            workload(
                criterion,
                &runtime,
                &folder,
                name,
                &Shape { sessions, each },
                table,
            );
        }
    }
}

/// Who is in the log: so many sessions of so many events, one event of each in turn.
struct Shape {
    sessions: u32,
    each: u32,
}

fn workload(
    criterion: &mut Criterion,
    runtime: &Runtime,
    folder: &Path,
    name: &'static str,
    shape: &Shape,
    table: &mut Table,
) {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut group = criterion.benchmark_group(name);
    let (log, sqlite, bare) = (
        folder.join("log"),
        folder.join("sqlite"),
        folder.join("bare"),
    );
    let wanted = stream(shape.sessions / 2);
    fill(runtime, shape, &log, &sqlite, &bare);
    let ours = |times| {
        repeat(times, || {
            let reader = LogReader::open(&log).expect("a log");
            assert_eq!(fold(&reader, wanted).0, shape.each);
        })
    };
    let bytes = u64::from(shape.each) * 256;
    let theirs = |times| {
        repeat(times, || {
            let read = Sqlite::open(&sqlite).count_bytes(&wanted.to_bytes());
            assert_eq!(read as u64, bytes);
        })
    };
    let least = |times| {
        repeat(times, || {
            assert_eq!(Bare::count_bytes(&bare) as u64, bytes);
        })
    };
    group.throughput(Throughput::Elements(u64::from(shape.each)));
    let measured = measure(
        &mut group,
        &shape.each.to_string(),
        &mut [
            Subject::new("recount", ours),
            Subject::new("sqlite, not decoding", theirs),
            Subject::new("bare file, that alone", least),
        ],
    );
    group.finish();
    let unit = if shape.sessions == 1 {
        "events/s"
    } else {
        "ms"
    };
    table.add(name, shape.each, unit, shape.each, &measured);
    std::fs::remove_dir_all(folder).expect("the folder goes away");
}

/// The events and the bytes of text of a session.
fn fold(reader: &LogReader, stream: StreamId) -> (u32, usize) {
    reader
        .read(stream, Seq::FIRST)
        .fold((0, 0), |(events, bytes), recorded| {
            match recorded.expect("an event").event {
                Event::OutputAppended { text, .. } => (events + 1, bytes + text.len()),
                _ => (events + 1, bytes),
            }
        })
}

fn repeat(times: u64, mut work: impl FnMut()) -> Duration {
    let begun = Instant::now();
    for _ in 0..times {
        work();
    }
    begun.elapsed()
}

/// Makes the same history in the log and in the peers; the bare file holds one session alone.
fn fill(runtime: &Runtime, shape: &Shape, log: &Path, sqlite: &Path, bare: &Path) {
    runtime.block_on(async {
        let log = Log::open(log).expect("a log");
        if shape.sessions == 1 {
            for _ in 0..shape.each / 1000 {
                let events = (0..1000)
                    .map(|_| NewEvent::live(event(), Timestamp(1)))
                    .collect();
                log.append(stream(0), Expected::Any, events)
                    .await
                    .expect("appended");
            }
        } else {
            for _ in 0..shape.each {
                let mut turn = JoinSet::new();
                for n in 0..shape.sessions {
                    let log = log.clone();
                    turn.spawn(async move {
                        let event = vec![NewEvent::live(event(), Timestamp(1))];
                        log.append(stream(n), Expected::Any, event)
                            .await
                            .expect("appended");
                    });
                }
                turn.join_all().await;
            }
        }
        log.close().await.expect("closed");
    });
    let (mut sqlite, mut bare) = (Sqlite::open(sqlite), Bare::open(bare));
    let row = |session: u32, seq: u32| Row {
        session: stream(session).to_bytes(),
        seq: u64::from(seq),
        bytes: vec![b'x'; 256],
    };
    // Some ten thousand rows a commit: enough to be quick, and no burden on memory.
    let turns = (10_000 / shape.sessions).max(1);
    for first in (1..=shape.each).step_by(turns as usize) {
        let seqs = first..=(first + turns - 1).min(shape.each);
        bare.commit(&seqs.clone().map(|seq| row(0, seq)).collect::<Vec<_>>());
        let in_turn =
            seqs.flat_map(|seq| (0..shape.sessions).map(move |session| row(session, seq)));
        sqlite.commit(&in_turn.collect::<Vec<_>>());
    }
}
