//! Bytes on disk for events as they stream: pieces of a few words, gathered for some milliseconds each.
//!
//! All are closed first. Peers keep the payload under its session and number; the log's records hold
//! time, cause and hashes besides. fjall compresses, and is given the time to merge all that it has. Once more
//! the log keeps the frames that the events came from, beside the bytes that were received: one an event.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use recount_store::{ConnectionId, Event, Log, SessionId};

use crate::bench::Bench;
use crate::history::Shape;
use crate::peers::{Fjall, Sqlite};

/// Measures so many events of so many sessions.
///
/// # Panics
///
/// If the disk is full, or a subject fails.
pub fn run(bench: &mut Bench) {
    let shape = Shape {
        sessions: 100,
        each: bench.pick(500, 5000),
        run: 1,
        text_bytes: 12..=60,
    };
    let folder = bench.folder();
    let path = |name: &str| folder.path().join(name);
    bench.say(&format!("size: {} events", shape.events()));
    shape.fill_log(&bench.runtime, &path("log"));
    let closed = on_disk(&path("log"));
    let log = Log::open(path("log")).expect("a log");
    bench.runtime.block_on(async {
        log.compact(|_| {}).await.expect("compacted");
        log.close().await.expect("closed");
    });
    fs::create_dir(path("sqlite")).expect("a folder");
    shape.fill_peer(&mut Sqlite::open(&path("sqlite").join("file")));
    let mut fjall = Fjall::open(&path("fjall"));
    shape.fill_peer(&mut fjall);
    fjall.settle();
    drop(fjall);
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let each = |bytes: u64| bytes as f64 / shape.events() as f64;
    let payloads = shape.payload_bytes() * u64::from(shape.sessions);
    let values = [
        ("recount", each(closed)),
        ("recount, compacted", each(on_disk(&path("log")))),
        ("SQLite", each(on_disk(&path("sqlite")))),
        ("fjall, compressed", each(on_disk(&path("fjall")))),
        ("payloads alone", each(payloads)),
    ];
    let events = u32::try_from(shape.events()).expect("a few million at most");
    bench
        .table
        .less_is_better("size", events, "B/event", &values);

    bench.say("size: with the frames that they came from");
    let mut received = 0;
    shape.fill_log_from(&bench.runtime, &path("frames"), |log, event| {
        let bytes = frame(received, &event.event);
        received += bytes.len() as u64;
        event.frame = log.keep_frame(ConnectionId::from_random(1), event.at, &bytes);
        assert!(event.frame.is_some(), "there is room for it");
    });
    let values = [
        ("recount", each(on_disk(&path("frames")))),
        ("received", each(received)),
    ];
    bench
        .table
        .less_is_better("size, with frames", events, "B/event", &values);
}

/// What an agent sent for an event: JSON with the names of everything in full, and one that is new each time.
fn frame(number: u64, event: &Event) -> Vec<u8> {
    let id = SessionId::from_text(&number.to_string());
    let (part, text) = match event {
        Event::OutputAppended { part, text, .. } => (part.as_str(), text.as_str()),
        other => ("prt_of_no_text", other.type_name()),
    };
    format!(
        r#"{{"id":"evt_2021957710{id}","type":"message.part.delta","properties":{{"sessionID":"ses_dfde6a8e5ffe0i9xzroriJF8Y7","messageID":"msg_20219573d001j0oVMYIHymNhZh","partID":"{part}","field":"text","delta":"{text}"}}}}"#
    )
    .into_bytes()
}

/// What the files of a folder take of the disk: what is allotted, since some have holes and some have more than they use.
pub(crate) fn on_disk(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("its size");
            if metadata.is_dir() {
                on_disk(&entry.path())
            } else {
                // The system counts in 512 bytes, whatever the disk does.
                metadata.blocks() * 512
            }
        })
        .sum()
}
