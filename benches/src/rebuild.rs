//! Rebuilding: opening a log, reading one session from the file, decoding and folding each event.
//!
//! The fold is the engine's own. The peers read the same payloads in the same order, and neither decode
//! nor fold: they answer the question of what that costs on top of reading. The log and `SQLite` are opened
//! for each reading; fjall stays open, since opening it takes longer than all else and is a workload of its own.

use std::path::Path;

use criterion::Throughput;
use recount_projections::{Projection as _, Session, state_store};
use recount_store::{Log, LogReader, Seq, Snapshot, StreamId, derived};

use crate::bench::Bench;
use crate::group::{Row, Sink as _};
use crate::history::{ENVELOPE, Shape, stream};
use crate::measure::{Subject, measure};
use crate::part::Part;
use crate::peers::{Bare, Fjall, Sqlite};

/// What comes after the snapshot: as much as the engine lets gather before it makes a new one.
const TAIL: u32 = 1000;

/// Measures one long session, one of many that were appended to in turn, and one that has a snapshot.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    let shape = |sessions, each, run| Shape {
        sessions,
        each,
        run,
        // With what is around them: payloads of about 256 bytes.
        text_bytes: 180..=228,
    };
    let long = shape(1, bench.pick(100_000, 1_000_000), 1000);
    let many = bench.pick(300, 1000);
    let many = shape(many, many, 1);

    let files = Files::fill(bench, "rebuild, alone", &long);
    files.whole(
        bench,
        "rebuild, alone",
        &long,
        |bench, name, n, measured| {
            bench.table.rates(name, n, n, measured);
        },
    );
    files.memory(bench, &long);
    files.snapshot(bench, &long);
    drop(files);

    let files = Files::fill(bench, "rebuild, one of many", &many);
    files.whole(
        bench,
        "rebuild, one of many",
        &many,
        |bench, name, n, measured| {
            bench.table.times(name, n, measured);
        },
    );
}

/// The log and its peers, filled.
struct Files {
    folder: tempfile::TempDir,
    /// The session that is rebuilt.
    wanted: u32,
}

impl Files {
    fn fill(bench: &Bench, name: &str, shape: &Shape) -> Self {
        bench.say(&format!(
            "{name}: making {} x {} events",
            shape.sessions, shape.each
        ));
        let files = Self {
            folder: bench.folder(),
            wanted: shape.sessions / 2,
        };
        shape.fill_log(&bench.runtime, &files.path("log"));
        shape.fill_peer(&mut Sqlite::open(&files.path("sqlite")));
        let mut fjall = Fjall::open(&files.path("fjall"));
        shape.fill_peer(&mut fjall);
        fjall.settle();
        // One session alone, with what the log has around each of its payloads.
        let bytes = shape.payload_bytes() + u64::from(shape.each) * ENVELOPE as u64;
        let bytes = usize::try_from(bytes).expect("it fits into memory");
        Bare::open(&files.path("bare")).commit(&[Row {
            session: files.stream().to_bytes(),
            seq: 1,
            bytes: vec![b'x'; bytes],
        }]);
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn stream(&self) -> StreamId {
        stream(self.wanted)
    }

    /// Rebuilds a session from its first event on.
    fn whole(
        &self,
        bench: &mut Bench,
        name: &str,
        shape: &Shape,
        keep: impl FnOnce(&mut Bench, &str, u32, &[crate::measure::Measured]),
    ) {
        bench.say(&format!("{name}: reading {} events", shape.each));
        let key = self.stream().to_bytes();
        let wanted = (u64::from(shape.each), shape.payload_bytes());
        let ours = || {
            let reader = LogReader::open(self.path("log")).expect("a log");
            let session = fold(&reader, self.stream(), u64::from(shape.each));
            assert_eq!(session.seq.0, wanted.0);
        };
        let reader = LogReader::open(self.path("log")).expect("a log");
        let ours_open = || {
            let session = fold(&reader, self.stream(), u64::from(shape.each));
            assert_eq!(session.seq.0, wanted.0);
        };
        let sqlite = || assert_eq!(Sqlite::open(&self.path("sqlite")).read(&key, 1), wanted);
        let open = Fjall::open(&self.path("fjall"));
        let fjall = || assert_eq!(open.read(&key, 1), wanted);
        let bare = || assert!(Bare::read(&self.path("bare")) > wanted.1);
        let mut group = bench.criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(wanted.0));
        let measured = measure(
            &mut group,
            &shape.each.to_string(),
            &mut [
                Subject::whole("recount", ours),
                Subject::whole("recount, open already", ours_open),
                Subject::whole("SQLite", sqlite),
                Subject::whole("fjall, open already", fjall),
                Subject::whole("bare file, it alone", bare),
            ],
        );
        group.finish();
        keep(bench, name, shape.each, &measured);
    }

    /// How much memory a process needs for it at most, beyond what it has when it begins.
    fn memory(&self, bench: &mut Bench, shape: &Shape) {
        bench.say("rebuild, memory: in a process of its own");
        let grown = |fold| {
            let part = Part::Rebuild {
                session: self.wanted,
                fold,
            };
            let output = part
                .start(&self.path("log"))
                .wait_with_output()
                .expect("it ends");
            let line = String::from_utf8(output.stdout).expect("a line");
            let (events, bytes) = line.trim().split_once(' ').expect("two numbers");
            assert_eq!(events.parse(), Ok(shape.each));
            bytes.parse().expect("a number")
        };
        let values = [
            ("recount, decoding", mib(grown(false))),
            ("recount, folding", mib(grown(true))),
            ("all payloads", mib(shape.payload_bytes())),
        ];
        bench
            .table
            .less_is_better("rebuild, memory", shape.each, "MiB", &values);
    }

    /// Loads the same session from a snapshot and what comes after it.
    fn snapshot(&self, bench: &mut Bench, shape: &Shape) {
        let name = "rebuild, from snapshot";
        bench.say(name);
        let before = u64::from(shape.each - TAIL);
        put_snapshot(bench, &self.path("log"), self.stream(), before);
        let key = self.stream().to_bytes();
        let ours = || {
            let reader = LogReader::open(self.path("log")).expect("a log");
            let session: Session = state_store::load(&reader, self.stream()).expect("it is read");
            assert_eq!(session.seq, Seq(u64::from(shape.each)));
        };
        let sqlite = || {
            let (events, _) = Sqlite::open(&self.path("sqlite")).read(&key, before + 1);
            assert_eq!(events, u64::from(TAIL));
        };
        let open = Fjall::open(&self.path("fjall"));
        let fjall = || {
            let (events, _) = open.read(&key, before + 1);
            assert_eq!(events, u64::from(TAIL));
        };
        let mut group = bench.criterion.benchmark_group(name);
        let measured = measure(
            &mut group,
            &shape.each.to_string(),
            &mut [
                Subject::whole("recount", ours),
                Subject::whole("SQLite, those alone", sqlite),
                Subject::whole("fjall, those alone", fjall),
            ],
        );
        group.finish();
        bench.table.times(name, shape.each, &measured);
    }
}

/// The session after so many events.
fn fold(reader: &LogReader, stream: StreamId, events: u64) -> Session {
    let mut session = Session::default();
    let events = usize::try_from(events).expect("it fits");
    for recorded in reader.read(stream, Seq::FIRST).take(events) {
        session.apply(&recorded.expect("an event"));
    }
    session
}

fn put_snapshot(bench: &Bench, path: &Path, stream: StreamId, events: u64) {
    let log = Log::open(path).expect("a log");
    let snapshot = Snapshot {
        fold_version: Session::VERSION,
        seq: Seq(events),
        bytes: derived::encode(&fold(&log, stream, events)),
    };
    log.put_snapshot(stream, Session::NAME, snapshot);
    bench.runtime.block_on(log.close()).expect("closed");
}

#[expect(clippy::cast_precision_loss, reason = "for a person to read")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
