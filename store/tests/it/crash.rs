//! A process is killed while it appends; another one looks at what it left, and at what it is doing.
//!
//! The process is this test binary again, told by its environment to play one of the parts below.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recount_store::{
    Error, Event, Expected, Log, LogReader, NewEvent, Position, Select, Seq, StreamId, Timestamp,
    verify,
};

use crate::{runtime, said, session, text};

const DIRECTORY: &str = "RECOUNT_TEST_DIRECTORY";

/// Starts a part in a process of its own.
fn start(part: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args([
            &format!("crash::{part}"),
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this binary starts again")
}

/// The lines that a part announces: `said NUMBER`.
fn announced(line: &str) -> Option<u64> {
    line.trim().strip_prefix("said ")?.parse().ok()
}

/// A part: appends pairs of events from several tasks, and announces each pair once it is acknowledged.
#[test]
#[ignore = "a part that other tests start"]
fn append_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    runtime().block_on(async {
        let log = Log::open(directory).expect("a log");
        let started = Event::EngineStarted {
            version: "0".to_owned(),
            pid: std::process::id(),
        };
        let started = vec![NewEvent::live(started, Timestamp(1))];
        log.append(StreamId::Engine, Expected::Any, started)
            .await
            .expect("appended");
        let before = log.head().expect("a head").position.0;
        let appenders: Vec<_> = (0..8_u8)
            .map(|n| {
                let log = log.clone();
                tokio::spawn(async move {
                    for round in 0.. {
                        let number = before * 1_000_000 + u64::from(n) * 100_000 + round;
                        let pair = vec![said(format!("{number} a")), said(format!("{number} b"))];
                        log.append(session(n), Expected::Any, pair)
                            .await
                            .expect("appended");
                        // One call writes the line whole.
                        std::io::stdout()
                            .write_all(format!("said {number}\n").as_bytes())
                            .expect("somebody listens");
                    }
                })
            })
            .collect();
        for appender in appenders {
            appender.await.expect("it never ends");
        }
    });
}

/// A part: opens a log, and is killed at whatever it does then.
#[test]
#[ignore = "a part that other tests start"]
fn open_until_killed() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let _log = Log::open(directory).expect("a log");
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = Vec::new();
    for round in 1..=4_usize {
        let mut child = start("append_until_killed", folder.path());
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let wanted = acknowledged.len() + 150 * round;
        while acknowledged.len() < wanted {
            let line = lines.next().expect("it is alive").expect("text");
            acknowledged.extend(announced(&line));
        }
        child.kill().expect("killed");
        child.wait().expect("dead");
        // What it had announced before it died counts too, but for a torn last line.
        acknowledged.extend(
            lines
                .map_while(Result::ok)
                .filter_map(|line| announced(&line)),
        );

        let reader = LogReader::open(folder.path()).expect("a reader needs no repair");
        check(&reader, &acknowledged);
        let begun = Instant::now();
        let log = Log::open(folder.path()).expect("the log opens again");
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "opening walks no file"
        );
        check(&log, &acknowledged);
        check(&reader, &acknowledged);
    }
}

/// All that was acknowledged is there, whole and in the order of its stream.
fn check(reader: &LogReader, acknowledged: &[u64]) {
    let verified = verify(reader, None).expect("whole");
    assert_eq!(
        verified.head.position,
        reader.head().expect("a head").position
    );
    let mut found = Vec::new();
    for n in 0..8 {
        let events: Vec<_> = reader
            .read(session(n), Seq::FIRST)
            .map(|recorded| text(&recorded.expect("an event")).to_owned())
            .collect();
        let pairs: Vec<u64> = events
            .chunks(2)
            .map(|pair| {
                let number = pair[0].strip_suffix(" a").expect("the first of a pair");
                assert_eq!(pair[1], format!("{number} b"));
                number.parse().expect("a number")
            })
            .collect();
        assert!(pairs.is_sorted());
        found.extend(pairs);
    }
    found.sort_unstable();
    for number in acknowledged {
        assert!(
            found.binary_search(number).is_ok(),
            "{number} was acknowledged"
        );
    }
}

#[test]
fn another_process_is_followed_refused_and_outlived() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = start("append_until_killed", folder.path());
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let appends = lines.any(|line| announced(&line.expect("text")).is_some());
    assert!(appends, "it appends");

    match Log::open(folder.path()) {
        Err(Error::Locked { holder, .. }) => assert_eq!(holder, Some(child.id())),
        other => panic!("two writers: {other:?}"),
    }
    let reader = LogReader::open(folder.path()).expect("a reader");
    let followed = runtime().block_on(async {
        let mut tail = reader.tail(Select::All, Position::FIRST);
        for position in 1..2000 {
            let recorded = tail.next().await.expect("open").expect("an event");
            assert_eq!(recorded.position, Position(position));
        }
        verify(&reader, None).expect("whole while it moves");
        tail
    });
    child.kill().expect("killed");
    child.wait().expect("dead");

    // The same reader goes on with what the next writer brings.
    let log = Log::open(folder.path()).expect("the log is free");
    let head = log.head().expect("a head").position;
    runtime().block_on(async {
        let mut followed = followed;
        log.append(session(200), Expected::NoStream, vec![said("after")])
            .await
            .expect("appended");
        let mut last = followed.next().await.expect("open").expect("an event");
        while last.position <= head {
            let next = followed.next().await.expect("open").expect("an event");
            assert_eq!(next.position, last.position.next());
            last = next;
        }
        assert_eq!(text(&last), "after");
        log.close().await.expect("closed");
    });
    assert_eq!(reader.head().expect("a head").position, head.next());
    assert_eq!(
        verify(&reader, Some(session(200))).expect("whole").events,
        1
    );
}

#[test]
fn a_creation_that_was_killed_harms_nobody() {
    for delay in 0..24 {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("data");
        let mut child = start("open_until_killed", &directory);
        // Between starting a process and a whole log lie a few milliseconds: kill all along them.
        std::thread::sleep(Duration::from_micros(delay * 700));
        child.kill().expect("killed");
        child.wait().expect("dead");
        let log = Log::open(&directory).expect("a log");
        assert_eq!(verify(&log, None).expect("whole").events, 0);
        let left: Vec<_> = std::fs::read_dir(&directory)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name.to_string_lossy().starts_with("log.redb."))
            .collect();
        // A leftover beside a whole log is harmless; it is cleared by whoever makes one.
        assert!(left.len() <= 1, "{left:?}");
    }
}
