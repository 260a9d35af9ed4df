//! Looking back over a large log: verbs of the command, each in a process of its own, as a person runs them.
//!
//! Beside them stands what the disk and memory allow, reading the log's file and doing nothing with it, and what people do
//! who keep lines of JSON: `grep` over a file of the same events, as `recount export` writes it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use recount_store::{
    ConnectionId, ConnectionState, Event, Expected, Log, NewEvent, StreamId, Target, Timestamp,
};

use crate::bench::Bench;
use crate::history::{AROUND, ENVELOPE, Shape};
use crate::machine::memory_peak_of;
use crate::measure::{Subject, rounds};

/// The payload of most events.
const PAYLOAD: usize = 256;

/// How often the connection fell: as many lines as a verb finds.
const OUTAGES: u32 = 1000;

/// A word that no text of a session has.
const NEEDLE: &str = "needle";

/// Between one look at how much memory a process has and the next.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Measures a log of so many megabytes.
///
/// # Panics
///
/// If the disk is full, the command cannot be built, or does not find what is there.
pub fn run(bench: &mut Bench) {
    let megabytes = bench.pick(100, 1000);
    bench.say("look: building the command");
    let program = build();
    moment(bench, &program);
    bench.say(&format!("look: making a log of {megabytes} MB"));
    let folder = bench.folder();
    let log = folder.path().join("log");
    fill(bench, &log, megabytes);
    let lines = folder.path().join("lines.jsonl");
    let export = |file: &Path| {
        let mut command = recount(&program, &log, &["export", "--all", "--out"]);
        command.arg(file);
        finish(&mut command);
    };
    export(&lines);

    let verbs: [(&str, &[&str], &str); 4] = [
        ("look, verify", &["verify"], ""),
        (
            "look, find by type",
            &["find", "--json", "--type", "StreamLost"],
            "\"StreamLost\"",
        ),
        (
            "look, find by text",
            &["find", "--json", "--text", NEEDLE],
            NEEDLE,
        ),
        ("look, incidents", &["incidents"], ""),
    ];
    let times = bench.pick(3, 5);
    for (name, words, pattern) in verbs {
        bench.say(name);
        let mut peak = 0;
        let mut subjects = vec![
            Subject::whole("recount", || {
                let found = finish(&mut recount(&program, &log, words));
                peak = found.memory_peak.max(peak);
                if !pattern.is_empty() {
                    assert_eq!(found.lines, OUTAGES as usize, "{name}");
                }
            }),
            Subject::whole("reading the log's files", || read_all(&log)),
        ];
        if !pattern.is_empty() {
            subjects.push(Subject::whole("grep, over lines of JSON", || {
                let mut grep = Command::new("grep");
                let found = finish(grep.args(["-F", "--", pattern]).arg(&lines));
                assert_eq!(found.lines, OUTAGES as usize, "{name}");
            }));
        }
        let measured = rounds(times, &mut subjects);
        drop(subjects);
        bench.table.times(name, megabytes, &measured);
        memory(bench, name, megabytes, peak);
    }
}

/// How one long session stood in its middle: from milestones, without them, and with all that was said until then.
fn moment(bench: &mut Bench, program: &Path) {
    let name = "look, show --at the middle";
    let events = bench.pick(100_000, 1_000_000);
    bench.say(&format!("{name}: making a session of {events} events"));
    let shape = Shape {
        sessions: 1,
        each: events,
        run: 1000,
        text_bytes: 20..=60,
    };
    let folder = bench.folder();
    let [log, bare] = ["log", "bare"].map(|name| folder.path().join(name));
    shape.fill_log(&bench.runtime, &log);
    fs::create_dir(&bare).expect("a folder");
    for entry in fs::read_dir(&log).expect("a folder") {
        let from = entry.expect("an entry").path();
        let to = bare.join(from.file_name().expect("a name"));
        if from.is_file() {
            fs::copy(&from, &to).expect("it is copied");
        }
    }
    // A log that an engine wrote has them from the beginning.
    finish(&mut recount(program, &log, &["rebuild"]));

    let at = (events / 2).to_string();
    let show = |log: &Path, more: &[&str]| {
        let words = [&["show", "latest", "--at", &at], more].concat();
        finish(&mut recount(program, log, &words)).memory_peak
    };
    let mut peak = 0;
    let mut subjects = [
        Subject::whole("recount", || peak = show(&log, &[]).max(peak)),
        Subject::whole("recount, no milestones", || {
            show(&bare, &[]);
        }),
        Subject::whole("recount, --all", || {
            show(&log, &["--all"]);
        }),
    ];
    let measured = rounds(bench.pick(3, 10), &mut subjects);
    drop(subjects);
    bench.table.times(name, events, &measured);
    memory(bench, name, events, peak);
}

/// Adds the most memory that a verb was seen with.
fn memory(bench: &mut Bench, name: &str, n: u32, peak: u64) {
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let mib = peak as f64 / f64::from(1 << 20);
    let name = format!("{name}, memory");
    let values = [("recount, at most", mib)];
    bench.table.less_is_better(&name, n, "MiB", &values);
}

/// The command as it is shipped, in the folder of builds that this program is in.
fn build() -> PathBuf {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "recount"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.expect("cargo runs").success(), "it is built");
    // This program is in `deps` there.
    let program = std::env::current_exe().expect("a program knows itself");
    let release = program.ancestors().nth(2).expect("cargo built it");
    release.join("recount")
}

/// Sessions that stream, and a connection of theirs that falls now and then.
fn fill(bench: &Bench, path: &Path, megabytes: u32) {
    let sessions = 100;
    let events = megabytes as usize * 1_000_000 / (PAYLOAD + ENVELOPE);
    let shape = Shape {
        sessions,
        each: u32::try_from(events).expect("some million") / sessions,
        run: 16,
        text_bytes: PAYLOAD - AROUND..=PAYLOAD - AROUND,
    };
    shape.fill_log(&bench.runtime, path);
    // The one that the sessions name.
    let connection = StreamId::Connection(ConnectionId::from_random(1));
    let opened = Event::ConnectionOpened {
        agent: "opencode".to_owned(),
        target: Target::Url("http://127.0.0.1:4096".to_owned()),
    };
    bench.runtime.block_on(async {
        let log = Log::open(path).expect("a log");
        let outages = (1..=u64::from(OUTAGES)).flat_map(outage);
        let events: Vec<_> = std::iter::once(NewEvent::live(opened, Timestamp(1)))
            .chain(outages)
            .collect();
        for events in events.chunks(100) {
            log.append(connection, Expected::Any, events.to_vec())
                .await
                .expect("appended");
        }
        log.close().await.expect("closed");
    });
}

/// A stream that is lost and opened again, some minutes after the one before.
fn outage(n: u64) -> impl Iterator<Item = NewEvent> {
    const MINUTE: u64 = 60_000_000;
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let (connected, connecting, disconnected) = (
        ConnectionState::Connected,
        ConnectionState::Connecting,
        ConnectionState::Disconnected,
    );
    [
        Event::StreamLost {
            reason: format!("it broke off at the {NEEDLE}"),
        },
        changed(connected, disconnected),
        Event::ReconnectScheduled {
            attempt: 1,
            at: Timestamp(n * 10 * MINUTE + 1_000_000),
        },
        changed(disconnected, connecting),
        Event::StreamOpened,
        changed(connecting, connected),
    ]
    .into_iter()
    .map(move |event| NewEvent::live(event, Timestamp(n * 10 * MINUTE)))
}

fn recount(program: &Path, log: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--data").arg(log).args(words);
    command
}

/// What came of a process.
struct Finished {
    lines: usize,
    /// The most bytes of memory that it was seen with.
    memory_peak: u64,
}

/// Runs it to its end, which is a good one.
fn finish(command: &mut Command) -> Finished {
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let output = child.stdout.take().expect("it is piped");
    let reading = thread::spawn(move || {
        let (mut output, mut line, mut lines) = (BufReader::new(output), Vec::new(), 0);
        while output.read_until(b'\n', &mut line).expect("it is read") > 0 {
            line.clear();
            lines += 1;
        }
        lines
    });
    let mut memory_peak = 0;
    while !reading.is_finished() {
        memory_peak = memory_peak_of(child.id()).max(memory_peak);
        thread::sleep(LOOK_INTERVAL);
    }
    let status = child.wait().expect("it ends");
    assert!(
        status.success(),
        "{command:?} ended with {status} after {:?}",
        begun.elapsed()
    );
    Finished {
        lines: reading.join().expect("it does not panic"),
        memory_peak,
    }
}

/// Reads all files of a folder, a megabyte at a time.
fn read_all(folder: &Path) {
    let mut buffer = vec![0; 1 << 20];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            let mut file = File::open(path).expect("it is there");
            while file.read(&mut buffer).expect("it is read") > 0 {}
        }
    }
}
