//! A log that was changed from outside is found out; nothing panics, nothing lies.

use std::fs;
use std::path::Path;

use recount_store::{Error, Expected, Log, LogReader, Position, Recorded, Seq, Verified, verify};
use redb::{ConcurrencyMode, TableDefinition, TableHandle as _};

use crate::{runtime, said, session, text};

const EVENTS: u64 = 400;

/// Makes a log in a folder; each event carries a text that can be found in the file.
fn make(folder: &Path) -> Verified {
    let log = Log::open(folder).expect("a log");
    runtime().block_on(async {
        for n in 0..EVENTS / 4 {
            let events =
                (0..4).map(|i| said(format!("marker-{:04}-{}", n * 4 + i, "x".repeat(300))));
            let stream = session(u8::try_from(n % 5).expect("small"));
            log.append(stream, Expected::Any, events.collect())
                .await
                .expect("appended");
        }
        let verified = verify(&log, None).expect("whole");
        log.close().await.expect("closed");
        verified
    })
}

/// Opens a damaged copy in every way that there is; what cannot be opened was found out.
fn found_out(folder: &Path) -> Option<Error> {
    let reader = match LogReader::open(folder) {
        Ok(reader) => reader,
        Err(error) => return Some(error),
    };
    let everything: Result<Vec<_>, _> = reader.read_all(Position::FIRST).collect();
    if let Ok(events) = &everything {
        assert!(events.len() as u64 <= EVENTS);
    }
    for n in 0..5 {
        reader.read(session(n), Seq::FIRST).for_each(drop);
    }
    let _ = reader.streams();
    verify(&reader, None).err()
}

/// All that a reader can be asked for events.
fn events(folder: &Path) -> Vec<Recorded> {
    let reader = LogReader::open(folder).expect("it could be opened");
    let all = reader.read_all(Position::FIRST);
    let by_stream = (0..5).flat_map(|n| reader.read(session(n), Seq::FIRST));
    all.chain(by_stream)
        .collect::<Result<_, _>>()
        .expect("it was whole")
}

#[test]
fn a_changed_byte_of_an_event_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    make(folder.path());
    let path = folder.path().join("log.redb");
    let good = fs::read(&path).expect("a file");
    for n in [0, 1, 57, 200, EVENTS - 1] {
        let marker = format!("marker-{n:04}");
        let mut bytes = good.clone();
        // The storage copies pages as it goes, so the text may be there more than once.
        let mut found = 0;
        for at in 0..bytes.len() - marker.len() {
            if bytes[at..].starts_with(marker.as_bytes()) {
                bytes[at + 20] ^= 1;
                found += 1;
            }
        }
        assert!(found > 0);
        fs::write(&path, bytes).expect("a file");
        match found_out(folder.path()) {
            Some(Error::Corrupt { position, what }) => {
                assert_eq!(position, Position(n + 1), "{what}");
                assert!(what.contains("hash"), "{what}");
            }
            other => panic!("{n}: {other:?}"),
        }
    }
}

#[test]
fn a_changed_byte_anywhere_does_no_harm_or_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = make(folder.path());
    let path = folder.path().join("log.redb");
    let good = fs::read(&path).expect("a file");
    let used = good
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("it is not empty");
    // A step that meets every offset within a page, over the whole file.
    let step = (used / 150) | 1;
    let read = events(folder.path());
    let mut harmless = 0;
    for at in (0..used).step_by(step) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x41;
        fs::write(&path, &bytes).expect("a file");
        if found_out(folder.path()).is_none() {
            harmless += 1;
            let reader = LogReader::open(folder.path()).expect("it could be opened");
            assert_eq!(verify(&reader, None).expect("whole"), whole, "at {at}");
            assert!(events(folder.path()) == read, "at {at}");
        }
    }
    assert!(harmless < 150, "nothing was found");
}

#[test]
fn a_damaged_log_is_opened_for_writing_or_refused_but_never_ends_the_process() {
    let folder = tempfile::tempdir().expect("a folder");
    make(folder.path());
    let path = folder.path().join("log.redb");
    let good = fs::read(&path).expect("a file");
    let used = good
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("it is not empty");
    for at in (0..used).step_by((used / 30) | 1).chain(0..24) {
        let mut bytes = good.clone();
        for byte in bytes.iter_mut().skip(at).take(64) {
            *byte = !*byte;
        }
        fs::write(&path, &bytes).expect("a file");
        if let Ok(log) = Log::open(folder.path()) {
            runtime().block_on(async {
                let _ = log
                    .append(session(1), Expected::Any, vec![said("more")])
                    .await;
                let _ = log.close().await;
            });
        }
    }
}

#[test]
fn derived_tables_can_be_deleted() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = make(folder.path());
    for names in [
        &["derived", "stream_heads", "stream_blocks", "snapshots"][..],
        &["derived"],
        &["stream_heads"],
        &["stream_blocks"],
    ] {
        let database = redb::Builder::new()
            .set_concurrency_mode(ConcurrencyMode::SingleWriter)
            .open(folder.path().join("log.redb"))
            .expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        let there: Vec<_> = transaction.list_tables().expect("tables").collect();
        for table in there {
            if names.contains(&table.name()) {
                transaction.delete_table(table).expect("deleted");
            }
        }
        transaction.commit().expect("a commit");
        drop(database);

        let reader = LogReader::open(folder.path()).expect("a reader");
        assert_eq!(verify(&reader, None).expect("whole"), whole);
        let log = Log::open(folder.path()).expect("a log");
        assert_eq!(verify(&log, None).expect("whole"), whole);
        let first = log
            .read(session(3), Seq::FIRST)
            .next()
            .expect("an event")
            .expect("an event");
        assert!(text(&first).starts_with("marker-0012"));
        drop(log);
        assert_eq!(verify(&reader, None).expect("whole"), whole);
    }
}

#[test]
fn an_index_that_lies_is_found() {
    const HEADS: TableDefinition<&[u8; 11], &[u8; 112]> = TableDefinition::new("stream_heads");
    let folder = tempfile::tempdir().expect("a folder");
    make(folder.path());
    let database = redb::Builder::new()
        .set_concurrency_mode(ConcurrencyMode::SingleWriter)
        .open(folder.path().join("log.redb"))
        .expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    transaction
        .open_table(HEADS)
        .expect("a table")
        .insert(&session(77).to_bytes(), &[1; 112])
        .expect("a row");
    transaction.commit().expect("a commit");
    drop(database);
    match found_out(folder.path()) {
        Some(Error::Corrupt { what, .. }) => assert!(what.contains("index"), "{what}"),
        other => panic!("{other:?}"),
    }
}
