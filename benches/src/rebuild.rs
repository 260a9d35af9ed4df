//! Rebuilding: opening a log, reading one session from the file, decoding and folding each event.
//!
//! The fold counts bytes of text. The peers read as many bytes in the same order and decode nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::Criterion;
use recount_store::{Event, Expected, Log, LogReader, NewEvent, Seq, StreamId, Timestamp};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::append::{event, runtime, stream};
use crate::group::{Row, Sink as _};
use crate::peers::{Bare, Sqlite};
use crate::table::Table;
use crate::{Scale, measure};

/// Measures one long session, and one of many that were appended to in turn.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(criterion: &mut Criterion, scale: Scale, folder: &Path, table: &mut Table) {
    let runtime = runtime();
    let events = scale.pick(100_000, 1_000_000);
    let long = Shape {
        sessions: 1,
        each: events,
    };
    workload(
        criterion,
        &runtime,
        &folder.join("long"),
        "rebuild long",
        &long,
        table,
    );
    let (sessions, each) = (scale.pick(300, 1000), scale.pick(300, 1000));
    let turns = Shape { sessions, each };
    workload(
        criterion,
        &runtime,
        &folder.join("turns"),
        "rebuild one of many",
        &turns,
        table,
    );
}

/// Who is in the log: so many sessions of so many events, one event of each in turn.
struct Shape {
    sessions: u64,
    each: u64,
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
    let wanted = shape.sessions / 2;
    let mut filled = false;
    // Filled by the first that is measured at all, as the command line may ask for none.
    let mut fill_once = || {
        if !std::mem::replace(&mut filled, true) {
            fill(runtime, shape, &log, &sqlite, &bare);
        }
    };
    let ours = measure(&mut group, "recount", |times| {
        fill_once();
        repeat(times, || {
            let reader = LogReader::open(&log).expect("a log");
            assert_eq!(fold(&reader, stream(wanted)).0, shape.each);
        })
    });
    let theirs = measure(&mut group, "sqlite", |times| {
        fill_once();
        repeat(times, || {
            let bytes = Sqlite::open(&sqlite).count_bytes(&stream(wanted).to_bytes());
            assert_eq!(bytes as u64, shape.each * 256);
        })
    });
    let least = measure(&mut group, "bare", |times| {
        fill_once();
        repeat(times, || {
            assert_eq!(Bare::count_bytes(&bare) as u64, shape.each * 256);
        })
    });
    group.finish();

    let subjects = [
        ("recount", ours),
        ("sqlite, not decoding", theirs),
        ("bare file, that alone", least),
    ];
    let unit = if shape.sessions == 1 {
        "events/s"
    } else {
        "ms"
    };
    table.add(name, shape.each, unit, shape.each, &subjects);
    std::fs::remove_dir_all(folder).expect("the folder goes away");
}

/// The events and the bytes of text of a session.
fn fold(reader: &LogReader, stream: StreamId) -> (u64, usize) {
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
    for chunk in (1..=shape.each).collect::<Vec<_>>().chunks(1000) {
        let rows = |n: u64| {
            chunk.iter().map(move |seq| Row {
                session: stream(n).to_bytes(),
                seq: *seq,
                bytes: vec![b'x'; 256],
            })
        };
        bare.commit(&rows(0).collect::<Vec<_>>());
        let mut all: Vec<_> = (0..shape.sessions).flat_map(rows).collect();
        all.sort_by_key(|row| row.seq);
        sqlite.commit(&all);
    }
}
