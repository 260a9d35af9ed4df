//! `recount compact`, `rebuild` and `retain`, killed at any moment: the log is whole, and what is begun again is done.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use recount_store::{
    ConnectionId, Event, Expected, Log, LogReader, MessageId, NewEvent, OutputKind, Placement,
    Position, Recorded, Seq, SessionId, StreamId, Timestamp, Verified, verify,
};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::process::{Running, recount};

/// How many sessions there are; every other one is closed.
const SESSIONS: u8 = 4;

/// How many events each of them has: enough to be worth a snapshot, and several steps of compacting together.
const EVENTS: usize = 2000;

/// At how many moments a verb is killed.
const MOMENTS: u32 = 8;

const fn session(n: u8) -> StreamId {
    StreamId::Session(SessionId::from_bytes([n; 10]))
}

/// What a session said, long enough that many of it fill the log.
fn said(n: usize) -> NewEvent {
    let event = Event::OutputAppended {
        message: MessageId::from_bytes([9; 10]),
        run: 1,
        part: "part".to_owned(),
        kind: OutputKind::Text,
        placement: Placement::End,
        text: format!("{n} ").repeat(1500),
    };
    NewEvent::live(event, Timestamp(n as u64))
}

/// Writes sessions whose events stand between each other's.
fn written(data: &Path) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let log = Log::open(data).unwrap();
    runtime.block_on(async {
        for n in 0..SESSIONS {
            let opened = Event::SessionOpened {
                connection: ConnectionId::from_bytes([4; 10]),
                agent: "opencode".to_owned(),
                directory: "/work".to_owned(),
                model: None,
                title: None,
            };
            append(&log, session(n), vec![NewEvent::live(opened, Timestamp(1))]).await;
        }
        for first in (0..EVENTS).step_by(20) {
            for n in 0..SESSIONS {
                append(&log, session(n), (first..first + 20).map(said).collect()).await;
            }
        }
        for n in (0..SESSIONS).step_by(2) {
            let closed = NewEvent::live(Event::SessionClosed, Timestamp(EVENTS as u64));
            append(&log, session(n), vec![closed]).await;
        }
        log.close().await.unwrap();
    });
}

async fn append(log: &Log, stream: StreamId, events: Vec<NewEvent>) {
    log.append(stream, Expected::Any, events).await.unwrap();
}

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(recount());
    command
        .args(args)
        .env_clear()
        .env("HOME", data)
        .env("RECOUNT_DATA", data);
    command
}

/// Runs a verb to its end; gives how long that took.
fn finish(data: &Path, args: &[&str]) -> Duration {
    let began = Instant::now();
    let finished = Running::spawn(&mut command(data, args)).finish(VERB_TIMEOUT);
    assert!(finished.status.success(), "{args:?}: {finished:#?}");
    began.elapsed()
}

fn copy(from: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir(&to).unwrap();
    fs::set_permissions(&to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    to
}

/// What a log holds, for readers.
#[derive(Debug, PartialEq)]
struct Held {
    streams: Vec<(StreamId, Seq, Seq)>,
    events: Vec<Recorded>,
}

fn held(data: &Path) -> Held {
    let reader = LogReader::open(data).unwrap();
    let streams = reader.streams().unwrap();
    let events = streams.iter().flat_map(|(stream, _)| {
        let events = reader.read(*stream, Seq::FIRST);
        events.collect::<Result<Vec<_>, _>>().unwrap()
    });
    let events = events.collect();
    let stands = streams.iter().map(|(id, head)| (*id, head.from, head.seq));
    Held {
        streams: stands.collect(),
        events,
    }
}

fn verified(data: &Path) -> Verified {
    verify(&LogReader::open(data).unwrap(), None).unwrap()
}

/// Kills a verb at moments of its life, each on a copy of the log, and looks at what it leaves. `same` says whether
/// that is as it should be; the verb is then run to its end, and the log is to hold what one does that was not killed.
fn killed(data: &Path, args: &[&str], same: impl Fn(&Held)) {
    let folder = data.parent().unwrap();
    let whole = copy(data, folder.join("whole"));
    let long = finish(&whole, args);
    let (done, proven) = (held(&whole), verified(&whole));
    same(&done);
    let mut cut_short = 0;
    for moment in 0..MOMENTS {
        let copy = copy(data, folder.join(format!("copy-{moment}")));
        let mut running = Running::spawn(&mut command(&copy, args));
        std::thread::sleep(long * moment / MOMENTS);
        running.kill_9();
        cut_short += u32::from(running.finish(VERB_TIMEOUT).status.code().is_none());
        // First as it was left, by who only reads; then by who opens it to write.
        verified(&copy);
        same(&held(&copy));
        drop(Log::open(&copy).unwrap());
        same(&held(&copy));
        finish(&copy, args);
        let after = verified(&copy);
        assert_eq!(after.streams, proven.streams, "{moment}");
        assert!(held(&copy).streams == done.streams, "{moment}");
        fs::remove_dir_all(copy).unwrap();
    }
    assert!(cut_short > 0, "it was always over before it was killed");
}

#[test]
fn compacting_can_be_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    written(&data);
    for n in (0..SESSIONS).step_by(2) {
        let id = session(n).to_string();
        finish(&data, &["cut", &id, "--all"]);
    }
    let before = held(&data);
    // Each that was cut is one event; the others are whole.
    let halves = usize::from(SESSIONS / 2);
    assert_eq!(before.events.len(), halves * (EVENTS + 1) + halves);
    killed(&data, &["compact"], |held| {
        assert!(*held == before, "{:?}", held.streams);
    });
    let bytes = |data: &Path| fs::metadata(data.join("log.redb")).unwrap().len();
    assert!(bytes(&folder.path().join("whole")) < bytes(&data));
}

#[test]
fn rebuilding_can_be_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    written(&data);
    finish(&data, &["cut", &session(0).to_string(), "--before", "500"]);
    let before = held(&data);
    killed(&data, &["rebuild"], |held| {
        assert!(*held == before, "{:?}", held.streams);
    });
    // Looking back is quick at once: each long session has a snapshot, as new as its last event.
    let reader = LogReader::open(folder.path().join("whole")).unwrap();
    for n in 0..SESSIONS {
        let snapshot = reader.snapshot(session(n), "session").unwrap();
        let head = reader.stream_head(session(n)).unwrap().unwrap();
        assert_eq!(snapshot.map(|snapshot| snapshot.seq), Some(head.seq));
    }
    let pending = reader.snapshot(StreamId::Engine, "pending").unwrap();
    let Position(last) = reader.head().unwrap().position;
    assert_eq!(pending.map(|pending| pending.seq), Some(Seq(last)));
}

#[test]
fn retaining_can_be_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    written(&data);
    let before = held(&data);
    let open = |held: &Held| -> Vec<Recorded> {
        let is_open =
            |event: &&Recorded| (0..SESSIONS).any(|n| n % 2 == 1 && event.stream == session(n));
        held.events.iter().filter(is_open).cloned().collect()
    };
    let untouched = open(&before);
    killed(
        &data,
        &["retain", "--older-than", "1d", "--compact"],
        |held| {
            assert!(open(held) == untouched);
            for n in (0..SESSIONS).step_by(2) {
                // Whole, or nothing but the event that says that it is gone.
                let mut events = held
                    .events
                    .iter()
                    .filter(|event| event.stream == session(n));
                let first = events.next().unwrap();
                let rest = events.count();
                match first.event {
                    Event::StreamCut { before, .. } => assert_eq!((before, rest), (first.seq, 0)),
                    _ => assert_eq!((first.seq, rest), (Seq::FIRST, EVENTS + 1)),
                }
            }
        },
    );
}
