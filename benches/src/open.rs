//! Opening after a kill: until an append is acknowledged, and until an event was read.
//!
//! Before each opening a process opens the files, appends, and is killed while it does. So each opening
//! finds what a kill leaves; sometimes little and sometimes much waits to be taken in. It is killed once
//! for each subject and each question, since whoever opens first has repaired for whoever comes next.

use std::path::Path;
use std::time::{Duration, Instant};

use recount_store::{Expected, Log, LogReader, NewEvent, Timestamp};

use crate::bench::Bench;
use crate::group::{Row, Sink};
use crate::history::{AROUND, ENVELOPE, Shape, output, payload, stream};
use crate::measure::{Measured, Subject, rounds};
use crate::part::{Part, SESSIONS, Who};
use crate::peers::{Fjall, Sqlite};

/// The payload of each event.
const PAYLOAD: usize = 256;

/// Measures logs of so many megabytes.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    for megabytes in bench.pick([20, 100], [100, 1000]) {
        workload(bench, megabytes);
    }
}

fn workload(bench: &mut Bench, megabytes: u32) {
    bench.say(&format!("open: making files of {megabytes} MB"));
    let folder = bench.folder();
    let path = |name: &str| folder.path().join(name);
    let (log, sqlite, fjall) = (path("log"), path("sqlite"), path("fjall"));
    let events = megabytes as usize * 1_000_000 / (PAYLOAD + ENVELOPE);
    let shape = Shape {
        sessions: SESSIONS,
        each: u32::try_from(events).expect("some ten thousand") / SESSIONS,
        run: 16,
        text_bytes: PAYLOAD - AROUND..=PAYLOAD - AROUND,
    };
    shape.fill_log(&bench.runtime, &log);
    shape.fill_peer(&mut Sqlite::open(&sqlite));
    shape.fill_peer(&mut Fjall::open(&fjall));

    let times = bench.pick(3, 10);
    bench.say(&format!("open: killing writers of {megabytes} MB"));
    let runtime = &bench.runtime;
    let appended = rounds(
        times,
        &mut [
            killed("recount", Who::Recount, &log, || {
                let begun = Instant::now();
                let log = Log::open(&log).expect("a log");
                let event = vec![NewEvent::live(output(PAYLOAD), Timestamp(1))];
                runtime
                    .block_on(log.append(stream(0), Expected::Any, event))
                    .expect("appended");
                let took = begun.elapsed();
                runtime.block_on(log.close()).expect("closed");
                took
            }),
            killed("SQLite", Who::Sqlite, &sqlite, || {
                first_append(|| Sqlite::open(&sqlite))
            }),
            killed("fjall", Who::Fjall, &fjall, || {
                first_append(|| Fjall::open(&fjall))
            }),
        ],
    );
    keep(bench, "open, first append", megabytes, &appended);

    let key = stream(SESSIONS - 1).to_bytes();
    let read = rounds(
        times,
        &mut [
            killed("recount", Who::Recount, &log, || {
                let begun = Instant::now();
                let reader = LogReader::open(&log).expect("a log");
                let stream = stream(SESSIONS - 1);
                let head = reader.stream_head(stream).expect("it is read");
                let last = head.expect("it has events").seq;
                assert_eq!(reader.read(stream, last).count(), 1);
                begun.elapsed()
            }),
            killed("SQLite", Who::Sqlite, &sqlite, || {
                first_read(|| Sqlite::open(&sqlite), |peer| peer.last(&key))
            }),
            killed("fjall", Who::Fjall, &fjall, || {
                first_read(|| Fjall::open(&fjall), |peer| peer.last(&key))
            }),
        ],
    );
    keep(bench, "open, first read", megabytes, &read);
}

fn keep(bench: &mut Bench, name: &str, megabytes: u32, measured: &[Measured]) {
    bench.table.times(name, megabytes, measured);
    let [ours, ..] = measured else {
        unreachable!("the log is measured first");
    };
    let worst = Measured {
        name: "recount, at worst",
        seconds: ours.worst,
        ratio: ours.worst / ours.seconds,
        ..*ours
    };
    bench.table.times(name, megabytes, &[worst]);
}

/// A subject whose writer is killed before it is measured.
fn killed<'a>(
    name: &'static str,
    who: Who,
    path: &'a Path,
    mut open: impl FnMut() -> Duration + 'a,
) -> Subject<'a> {
    let mut round = 0;
    Subject::new(name, move |_| {
        round += 1;
        kill_a_writer(who, path, round);
        open()
    })
}

/// Lets a process append, more and less from round to round, and kills it while it goes on.
fn kill_a_writer(who: Who, path: &Path, round: u64) {
    let part = Part::Append {
        who,
        events: 1000 + round * 23_456 % 50_000,
        // Above all that is there; the clock tells rounds and questions apart.
        first: 1 + Timestamp::from_system(std::time::SystemTime::now()).0,
    };
    part.kill_when_ready(path);
}

fn first_append<S: Sink>(open: impl FnOnce() -> S) -> Duration {
    let begun = Instant::now();
    let mut peer = open();
    peer.commit(&[Row {
        session: stream(0).to_bytes(),
        seq: Timestamp::from_system(std::time::SystemTime::now()).0,
        bytes: payload(&output(PAYLOAD)),
    }]);
    begun.elapsed()
}

/// Closing is not counted: what was left may be taken in then, at leisure.
fn first_read<S>(open: impl FnOnce() -> S, read: impl FnOnce(&S) -> u64) -> Duration {
    let begun = Instant::now();
    let peer = open();
    assert_eq!(read(&peer), PAYLOAD as u64);
    begun.elapsed()
}
