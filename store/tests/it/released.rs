//! Logs that releases wrote: what they hold is what it was, for ever.
//!
//! For each release there is a folder in `store/tests/released`: a log that was closed, with an event of
//! every type, ids, frames, cut streams and compacted blocks; one whose writer was killed, so that much of it
//! is in the journal; and what both were read as then. The files are compressed, since most of them is zeros.
//!
//! A new release adds a folder: `RECOUNT_RELEASE=0.2.0 cargo test -p recount-store --test it -- --ignored
//! write_a_release`. A folder that is there is never written again.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use recount_store::{
    ConnectionId, Event, Expected, Frame, FrameContent, FrameNumber, Log, LogReader, NewEvent,
    Options, Position, Recorded, Select, Seq, Snapshot, StreamId, Timestamp, verify,
};
use serde_json::json;

use crate::{format, runtime, said, session};

const FILES: [&str; 3] = ["log.redb", "journal-a", "journal-b"];

fn released() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released")
}

#[test]
fn what_a_release_wrote_is_read_as_it_was() {
    let mut releases = 0;
    for release in fs::read_dir(released()).expect("a folder") {
        let release = release.expect("an entry").path();
        for name in ["closed", "killed"] {
            let folder = tempfile::tempdir().expect("a folder");
            for file in FILES {
                let packed =
                    fs::read(release.join(name).join(format!("{file}.zst"))).expect("a file");
                let bytes = zstd::decode_all(packed.as_slice()).expect("it unpacks");
                fs::write(folder.path().join(file), bytes).expect("a file");
            }
            let expected =
                fs::read_to_string(release.join(name).join("read.jsonl")).expect("a text");
            let reader = LogReader::open(folder.path()).expect("a log");
            assert_eq!(read(&reader), expected, "{name} of {}", release.display());
            drop(reader);
            goes_on(folder.path(), &expected);
        }
        releases += 1;
    }
    assert!(releases > 0);
}

/// A log of an earlier release can be written, and nothing of what it holds changes by that.
fn goes_on(folder: &Path, expected: &str) {
    let log = Log::open(folder).expect("a log");
    assert_eq!(read(&log), expected);
    runtime().block_on(async {
        log.rebuild(|_| {}).await.expect("rebuilt");
        let head = log
            .stream_head(session(1))
            .expect("a head")
            .expect("a stream");
        log.append(session(1), Expected::Exact(head.seq), vec![said("on")])
            .await
            .expect("appended");
        verify(&log, None).expect("whole");
        log.close().await.expect("closed");
    });
}

/// All that a log holds, line by line.
fn read(log: &LogReader) -> String {
    let mut lines = String::new();
    let mut line = |value: serde_json::Value| writeln!(lines, "{value}").expect("memory");
    for event in log.read_all(Position::FIRST) {
        let event: Recorded = event.expect("an event");
        line(json!({
            "position": event.position, "stream": event.stream.to_string(), "seq": event.seq,
            "at": event.at, "cause": event.cause, "class": event.class.name(),
            "provenance": event.provenance.name(), "id": event.id.map(|id| id.to_string()),
            "frame": event.frame, "type": event.event.type_name(), "event": event.event,
        }));
    }
    for (stream, head) in log.streams().expect("streams") {
        line(json!({
            "stream": stream.to_string(), "events": head.seq, "from": head.from, "last": head.last,
            "readable": log.read(stream, Seq::FIRST).map(|event| event.expect("an event").seq).collect::<Vec<_>>(),
        }));
    }
    for frame in log.frames(FrameNumber::FIRST) {
        let Frame {
            number,
            connection,
            at,
            content,
        } = frame.expect("a frame");
        line(json!({
            "frame": number, "connection": connection.to_string(), "at": at,
            "content": match content {
                FrameContent::Received(bytes) => json!(String::from_utf8(bytes).expect("a text")),
                FrameContent::Skipped(count) => json!(count),
            },
        }));
    }
    let verified = verify(log, None).expect("whole");
    line(json!({
        "head": verified.head.hash.to_string(), "position": verified.head.position,
        "events": verified.events, "unknown": verified.unknown,
    }));
    lines
}

/// Writes the folder of a release, which must not be there.
#[test]
#[ignore = "writes into the sources, once for each release"]
fn write_a_release() {
    let release = std::env::var("RECOUNT_RELEASE").expect("RECOUNT_RELEASE names the release");
    let release = released().join(release);
    assert!(
        !release.exists(),
        "what a release wrote is never written again"
    );
    for (name, is_closed) in [("closed", true), ("killed", false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Log::open_with(
            folder.path(),
            Options {
                settle_bytes: 64 << 10,
                ..Options::default()
            },
        )
        .expect("a log");
        runtime().block_on(fill(&log));
        if is_closed {
            runtime().block_on(log.close()).expect("closed");
        }
        let into = release.join(name);
        fs::create_dir_all(&into).expect("a folder");
        for file in FILES {
            let bytes = fs::read(folder.path().join(file)).expect("a file");
            let packed = zstd::encode_all(bytes.as_slice(), 19).expect("packed");
            fs::write(into.join(format!("{file}.zst")), packed).expect("a file");
        }
        let reader = LogReader::open(folder.path()).expect("a reader");
        fs::write(into.join("read.jsonl"), read(&reader)).expect("a text");
    }
}

async fn fill(log: &Log) {
    let connection = ConnectionId::from_text("agent");
    for (n, (new, _)) in (0..).zip(format::events(0)) {
        if !matches!(
            &new.event,
            Event::Unknown {
                type_number: 700,
                ..
            }
        ) {
            let frame = log.keep_frame(connection, Timestamp(n), format!("frame {n}").as_bytes());
            let new = NewEvent { frame, ..new };
            let stream = format::streams()[usize::try_from(n % 3).expect("small")];
            log.append(stream, Expected::Any, vec![new])
                .await
                .expect("appended");
        }
    }
    for n in 1..4 {
        let many = (0..100).map(|i| said(format!("{n} {i} {}", "x".repeat(200))));
        log.append(session(n), Expected::NoStream, many.collect())
            .await
            .expect("appended");
    }
    log.put_snapshot(
        session(1),
        "fold",
        Snapshot {
            fold_version: 1,
            seq: Seq(100),
            bytes: vec![1, 2, 3],
        },
    );
    log.cut(session(2), Seq(101), Timestamp(5))
        .await
        .expect("cut");
    log.cut(session(3), Seq(40), Timestamp(6))
        .await
        .expect("cut");
    log.compact(|_| {}).await.expect("compacted");
    // Cut and not compacted, and not settled.
    log.cut(session(3), Seq(60), Timestamp(7))
        .await
        .expect("cut");
    let mut tail = log.tail(Select::Streams(vec![StreamId::Engine]), Position::FIRST);
    assert!(tail.try_next().is_some());
    for n in 0..5 {
        log.append(session(1), Expected::Any, vec![said(format!("late {n}"))])
            .await
            .expect("appended");
    }
}
