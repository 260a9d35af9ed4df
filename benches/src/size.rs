//! Bytes on disk for events as they stream: pieces of a few words, gathered for some milliseconds each.
//!
//! All are closed first. Peers keep the payload under its session and number; the log's records hold
//! time, cause and hashes besides. fjall compresses, and is given the time to merge all that it has.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

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
        ("recount", each(on_disk(&path("log")))),
        ("SQLite", each(on_disk(&path("sqlite")))),
        ("fjall, compressed", each(on_disk(&path("fjall")))),
        ("payloads alone", each(payloads)),
    ];
    let events = u32::try_from(shape.events()).expect("a few million at most");
    bench
        .table
        .less_is_better("size", events, "B/event", &values);
}

/// What the files of a folder take of the disk: what is allotted, since some have holes and some have more than they use.
fn on_disk(folder: &Path) -> u64 {
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
