//! Someone changes a log who knows how it is stored: each change is found, and its place is named.
//!
//! The rows are changed through the storage itself, so that nothing below the log can give it away. Who also
//! recomputes every hash makes another log that is whole; that one is found out by a head that was signed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use proptest::prelude::*;
use recount_store::{
    CheckError, Error, EventId, Expected, Hash, Head, Log, LogReader, NewEvent, Position, Recorded,
    Seq, SignedHead, SigningKey, Snapshot, StreamHead, StreamId, Timestamp, check, verify,
};
use redb::{
    Builder, ReadableTable as _, StorageBackend, TableDefinition, TableHandle as _,
    WriteTransaction,
};
use tempfile::TempDir;

use crate::{runtime, said, session};

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
const DERIVED: TableDefinition<&str, u64> = TableDefinition::new("derived");
const HEADS: TableDefinition<&[u8; 11], &[u8; 112]> = TableDefinition::new("stream_heads");
const RUNS: TableDefinition<&[u8; 19], &[u8]> = TableDefinition::new("stream_blocks");
const IDS: TableDefinition<&[u8; 16], u64> = TableDefinition::new("event_ids");
const SNAPSHOTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("snapshots");

/// The bytes of a block before its records: format, count, and the head over the log.
const COUNT: usize = 1;
const HEAD: usize = 5;
const RECORDS: usize = 37;

/// The bytes of a file in memory: thousands of changes need not reach a disk.
#[derive(Debug, Clone)]
struct Bytes(Arc<Mutex<Vec<u8>>>);

impl Bytes {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("no panic")
    }

    fn range(offset: u64, length: usize) -> Range<usize> {
        let start = usize::try_from(offset).expect("small");
        start..start + length
    }
}

impl StorageBackend for Bytes {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len() as u64)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.lock()[Self::range(offset, out.len())]);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.lock().resize(Self::range(len, 0).start, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.lock()[Self::range(offset, data.len())].copy_from_slice(data);
        Ok(())
    }
}

type Blocks = BTreeMap<u64, Vec<u8>>;

/// A log of a few events, closed, and what it holds.
struct Made {
    folder: TempDir,
    file: Vec<u8>,
    seen: Seen,
    signed: SignedHead,
    blocks: Blocks,
}

/// Everything that a reader can be asked.
#[derive(Debug, PartialEq)]
struct Seen {
    head: Head,
    all: Vec<Recorded>,
    streams: Vec<(StreamId, StreamHead)>,
    by_stream: Vec<Vec<Recorded>>,
    snapshots: Vec<Option<Snapshot>>,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

/// An event that fills a block.
fn large() -> NewEvent {
    said("x".repeat(17_000))
}

/// Eleven events of three streams, in six blocks.
fn appends() -> Vec<(StreamId, Vec<NewEvent>)> {
    let mut n = 0;
    [(1, 3), (2, 1), (1, 2), (3, 3), (2, 1), (1, 1)]
        .into_iter()
        .map(|(stream, events)| {
            let events = (0..events).map(|_| {
                n += 1;
                let event = said(format!("event {n}"));
                if n % 4 == 0 {
                    event.with_id(EventId::from_bytes([n; 16]))
                } else {
                    event
                }
            });
            (session(stream), events.collect())
        })
        .collect()
}

/// Makes a log in which each append is a block of its own.
fn make(appends: Vec<(StreamId, Vec<NewEvent>)>) -> Made {
    let folder = tempfile::tempdir().expect("a folder");
    for (stream, events) in appends {
        append(folder.path(), vec![(stream, events)]);
    }
    finish(folder)
}

/// Makes a log at once: what is appended is cut into blocks by its size.
fn make_at_once(appends: Vec<(StreamId, Vec<NewEvent>)>) -> Made {
    let folder = tempfile::tempdir().expect("a folder");
    append(folder.path(), appends);
    finish(folder)
}

fn append(folder: &Path, appends: Vec<(StreamId, Vec<NewEvent>)>) {
    let log = Log::open(folder).expect("a log");
    runtime().block_on(async {
        for (stream, events) in appends {
            log.append(stream, Expected::Any, events)
                .await
                .expect("appended");
        }
        log.close().await.expect("closed");
    });
}

fn finish(folder: TempDir) -> Made {
    let log = Log::open(folder.path()).expect("a log");
    let head = runtime().block_on(async {
        for stream in [1, 2] {
            let snapshot = Snapshot {
                fold_version: 1,
                seq: Seq(1),
                bytes: vec![stream; 5],
            };
            log.put_snapshot(session(stream), "fold", snapshot);
        }
        let head = log.head().expect("a head");
        assert_eq!(verify(&log, None).expect("whole").head, head);
        log.close().await.expect("closed");
        head
    });
    let mut made = Made {
        file: fs::read(folder.path().join("log.redb")).expect("a file"),
        seen: Seen {
            head,
            all: Vec::new(),
            streams: Vec::new(),
            by_stream: Vec::new(),
            snapshots: Vec::new(),
        },
        signed: head.sign(Timestamp(7), &key()),
        blocks: Blocks::new(),
        folder,
    };
    made.seen = seen(&made.reader()).expect("all of it");
    assert_eq!(made.seen.head, head);
    let mut blocks = Blocks::new();
    made.change(|transaction| {
        let table = transaction.open_table(BLOCKS).expect("a table");
        for row in table.iter().expect("rows") {
            let (first, bytes) = row.expect("a row");
            blocks.insert(first.value(), bytes.value().to_vec());
        }
    });
    Made { blocks, ..made }
}

fn seen(reader: &LogReader) -> Result<Seen, Error> {
    let streams = reader.streams()?;
    Ok(Seen {
        head: reader.head()?,
        all: reader.read_all(Position::FIRST).collect::<Result<_, _>>()?,
        by_stream: (0..5)
            .map(|n| reader.read(session(n), Seq::FIRST).collect())
            .collect::<Result<_, _>>()?,
        snapshots: (0..5)
            .map(|n| reader.snapshot(session(n), "fold"))
            .collect::<Result<_, _>>()?,
        streams,
    })
}

impl Made {
    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn reader(&self) -> LogReader {
        LogReader::open(self.path()).expect("a reader")
    }

    /// Changes rows of the file as it was made.
    fn change(&self, change: impl FnOnce(&WriteTransaction)) {
        let bytes = Bytes(Arc::new(Mutex::new(self.file.clone())));
        let database = Builder::new()
            .create_with_backend(bytes.clone())
            .expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        change(&transaction);
        transaction.commit().expect("a commit");
        drop(database);
        fs::write(self.path().join("log.redb"), &*bytes.lock()).expect("a file");
    }

    /// Puts these blocks into the file; the index stays, or goes.
    fn put(&self, blocks: &Blocks, index: bool) {
        self.change(|transaction| {
            let mut table = transaction.open_table(BLOCKS).expect("a table");
            table.retain(|_, _| false).expect("emptied");
            for (first, bytes) in blocks {
                table.insert(first, bytes.as_slice()).expect("a row");
            }
            if !index {
                drop_index(transaction);
            }
        });
    }

    /// The place that is named where the log is verified, and what is said of it.
    fn found(&self) -> Option<(u64, String)> {
        match LogReader::open(self.path()).and_then(|reader| verify(&reader, None)) {
            Ok(_) => None,
            Err(Error::Corrupt { position, what }) => Some((position.0, what)),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// What is named after one block was changed.
    fn found_in(&self, first: u64, bytes: Vec<u8>) -> Option<(u64, String)> {
        self.put_block(first, bytes);
        self.found()
    }

    fn put_block(&self, first: u64, bytes: Vec<u8>) {
        let mut blocks = self.blocks.clone();
        blocks.insert(first, bytes);
        self.put(&blocks, true);
    }

    fn check(&self) -> Result<Head, CheckError> {
        let trusted = key().public_key();
        check(&self.reader(), &self.signed, Some(&trusted), |_| {}).map(|verified| verified.head)
    }

    /// The bytes of all records, in their order.
    fn records(&self) -> Vec<Vec<u8>> {
        self.blocks
            .values()
            .flat_map(|block| records(block))
            .map(<[u8]>::to_vec)
            .collect()
    }
}

fn drop_index(transaction: &WriteTransaction) {
    let derived: Vec<_> = transaction
        .list_tables()
        .expect("tables")
        .filter(|table| !["meta", "blocks"].contains(&table.name()))
        .collect();
    for table in derived {
        transaction.delete_table(table).expect("deleted");
    }
}

/// The records of a block.
fn records(block: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mut rest = &block[RECORDS..];
    while let Some(length) = rest.first_chunk() {
        let (record, after) = rest.split_at(u32::from_le_bytes(*length) as usize);
        found.push(record);
        rest = after;
    }
    found
}

fn chain(previous: &[u8], bytes: &[u8]) -> [u8; 32] {
    blake3::hash(&[previous, bytes].concat()).into()
}

/// Rows that hold these records, so many in each block; counts and heads are as they should be.
fn blocks_of(records: &[Vec<u8>], cuts: &[usize]) -> Blocks {
    let (mut blocks, mut head, mut first) = (Blocks::new(), [0; 32], 1);
    let (mut rest, mut cuts) = (records, cuts.iter().cycle());
    while !rest.is_empty() {
        let cut = (*cuts.next().expect("a cut")).clamp(1, rest.len());
        let (now, later) = rest.split_at(cut);
        let mut block = vec![1];
        block.extend(u32::try_from(cut).expect("few").to_le_bytes());
        for record in now {
            head = chain(&head, &record[record.len() - 32..]);
        }
        block.extend(head);
        block.extend(now.concat());
        blocks.insert(first, block);
        first += cut as u64;
        rest = later;
    }
    blocks
}

/// Where the flip of a byte of a block is to be seen, by the layout of a block.
fn place(first: u64, before: &[u8], after: &[u8], at: usize) -> u64 {
    let count = |block: &[u8]| u32::from_le_bytes(*block[COUNT..].first_chunk().expect("four"));
    let (held, claimed) = (u64::from(count(before)), u64::from(count(after)));
    match at {
        0 => first,
        // It says that it ends before the last of its records, or after it.
        COUNT..HEAD if claimed == 0 => first,
        COUNT..HEAD if claimed < held => first + claimed - 1,
        COUNT..HEAD => first + held,
        HEAD..RECORDS => first + held - 1,
        _ => {
            let mut end = RECORDS;
            let holds = |record: &&[u8]| {
                end += record.len();
                end > at
            };
            let before = records(before);
            first + before.iter().position(holds).expect("a record") as u64
        }
    }
}

#[test]
fn a_flip_of_any_byte_of_any_block_is_named() {
    let made = make(appends());
    for (first, good) in &made.blocks {
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01 << (at % 8);
            let expected = place(*first, good, &bad, at);
            let found = made.found_in(*first, bad);
            let (position, what) = found.unwrap_or_else(|| panic!("{at} of block {first}"));
            assert_eq!(position, expected, "{at} of block {first}: {what}");
        }
    }
}

#[test]
fn records_and_blocks_that_were_moved_about_are_named() {
    let made = make(appends());
    let good = &made.blocks;
    let whole = |change: &dyn Fn(&mut Blocks)| {
        let mut blocks = good.clone();
        change(&mut blocks);
        made.put(&blocks, true);
        made.found()
    };
    let named = |position, what: &str| Some((position, what.to_owned()));
    let mut keys: Vec<u64> = good.keys().copied().collect();
    assert_eq!(keys, [1, 4, 5, 7, 10, 11]);
    keys.pop();

    for &first in &keys {
        // A block that is gone, that stands in the place of another, or that is there twice.
        let gone = whole(&|blocks| drop(blocks.remove(&first)));
        assert_eq!(gone, named(first, "it is missing"));
        let others = whole(&|blocks| drop(blocks.insert(first, good[&11].clone())));
        assert_eq!(others, named(first, "another record stands in its place"));
    }
    let again = whole(&|blocks| drop(blocks.insert(12, good[&11].clone())));
    assert_eq!(again, named(12, "another record stands in its place"));
    // Hidden behind a block that holds the same positions.
    let hidden = whole(&|blocks| drop(blocks.insert(2, good[&4].clone())));
    assert_eq!(hidden, named(2, "it is there twice"));
    let before = whole(&|blocks| drop(blocks.insert(0, good[&1].clone())));
    assert_eq!(before, named(0, "a block of 3 records"));
    // Of the end the index still knows.
    let end = whole(&|blocks| drop(blocks.remove(&11)));
    let what = "it is missing: the index knows of events up to 11";
    assert_eq!(end, named(11, what));
    let all = whole(&|blocks| blocks.clear());
    let what = "it is missing: the index knows of events up to 11";
    assert_eq!(all, named(1, what));
}

#[test]
fn a_block_that_hides_between_two_looks_is_named() {
    // Verifying looks at so many blocks at once; the last of them holds two events.
    const LOOK: u64 = 256;
    let alone = |_| (session(1), vec![large()]);
    let mut story: Vec<_> = (1..LOOK).map(alone).collect();
    story.push((session(2), vec![said("one"), said("another")]));
    story.push(alone(LOOK + 2));
    let made = make_at_once(story);
    let mut forged = made.records()[usize::try_from(LOOK).expect("small")].clone();
    let text = forged.len() - 33;
    forged[text] ^= 1;
    let mut block = made.blocks[&1][..RECORDS].to_vec();
    block.extend(forged);
    made.put_block(LOOK + 1, block);
    assert_eq!(
        made.found(),
        Some((LOOK + 1, "it is there twice".to_owned()))
    );
}

#[test]
fn a_row_of_the_index_in_the_wrong_place_is_named() {
    // More blocks than one row of the index names: the second row begins with the 241st.
    let made = make_at_once(vec![(session(1), vec![large(); 250])]);
    let mut rows = Vec::new();
    made.change(|transaction| {
        let runs = transaction.open_table(RUNS).expect("runs");
        for row in runs.iter().expect("rows") {
            let (key, value) = row.expect("a row");
            rows.push((*key.value(), value.value().to_vec()));
        }
    });
    let [_, (key, pairs)] = &rows[..] else {
        panic!("two rows: {rows:?}");
    };
    assert_eq!(key[11..], 241_u64.to_be_bytes());
    // Who looks for the 100th event would begin there, and miss the row that names it.
    let mut earlier = *key;
    earlier[11..].copy_from_slice(&2_u64.to_be_bytes());
    made.change(|transaction| replace(transaction, "stream_blocks", key, &earlier, pairs));
    let what = "a row of the index is not where it belongs";
    assert_eq!(made.found(), Some((241, what.to_owned())));
}

#[test]
fn a_hash_that_was_mended_gives_away_what_comes_after() {
    let made = make(appends());
    let good = made.records();
    // The second event of the first stream; the third follows from it.
    let mut forged = good.clone();
    let text = forged[1].len() - 33;
    forged[1][text] ^= 1;
    let previous = good[0][good[0].len() - 32..].to_vec();
    let body = forged[1].len() - 32;
    let hash = chain(&previous, &forged[1][..body]);
    forged[1][body..].copy_from_slice(&hash);
    made.put(&blocks_of(&forged, &[3, 1, 2, 3, 1, 1]), true);
    let what = "its hash does not follow from it and the event before it in its stream";
    assert_eq!(made.found(), Some((3, what.to_owned())));
}

#[test]
fn an_end_that_was_cut_off_is_found_by_a_signed_head_alone() {
    let made = make(appends());
    let records = made.records();
    for kept in 0..records.len() {
        made.put(&blocks_of(&records[..kept], &[1]), false);
        let verified = verify(&made.reader(), None).expect("whole as far as it goes");
        assert_eq!(verified.events, kept as u64);
        match made.check() {
            Err(CheckError::Short { signed, found }) => {
                assert_eq!((signed.0, found.0), (11, kept as u64));
            }
            other => panic!("{kept}: {other:?}"),
        }
    }
    // Where the index was left, it says so too; the signed head says more.
    made.put(&blocks_of(&records[..9], &[1]), true);
    assert!(made.found().is_some());
    let short = made.check();
    assert!(
        matches!(
            short,
            Err(CheckError::Short {
                signed: Position(11),
                found: Position(9)
            })
        ),
        "{short:?}"
    );
}

#[test]
fn a_log_that_was_written_again_is_found_by_a_signed_head_alone() {
    let made = make(appends());
    assert_eq!(made.check().expect("the same log"), made.seen.head);
    for n in 0..6 {
        let mut others = appends();
        others[n].1[0] = said("never happened");
        // It may go on after that, too.
        others.push((session(9), vec![said("more")]));
        let other = make(others);
        assert_eq!(other.found(), None);
        let trusted = key().public_key();
        match check(&other.reader(), &made.signed, Some(&trusted), |_| {}) {
            Err(CheckError::Differs {
                position,
                signed,
                found,
            }) => {
                assert_eq!(position, Position(11));
                assert_eq!(signed, made.seen.head.hash);
                assert_ne!(found, signed);
            }
            proven => panic!("{n}: {proven:?}"),
        }
    }
}

#[test]
fn a_log_that_grew_is_still_the_one_that_was_signed() {
    let made = make(appends());
    let log = Log::open(made.path()).expect("a log");
    runtime().block_on(async {
        log.append(session(5), Expected::NoStream, vec![said("more")])
            .await
            .expect("appended");
        let now = log.head().expect("a head");
        assert_eq!(now.position, Position(12));
        // By the writer's own handle, by another reader, and of a log that stands still.
        let trusted = key().public_key();
        let proven = check(&log, &made.signed, Some(&trusted), |_| {}).expect("proven");
        assert_eq!(proven.head, now);
        assert_eq!(made.check().expect("proven"), now);
        log.close().await.expect("closed");
        assert_eq!(made.check().expect("proven"), now);
        assert_eq!(made.reader().head().expect("a head"), now);
    });
}

#[test]
fn what_was_cut_off_needs_a_later_signed_head() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path()).expect("a log");
    runtime().block_on(async {
        let early = vec![said("a"), said("b"), said("c")];
        log.append(session(1), Expected::Any, early)
            .await
            .expect("appended");
        let sign = || log.head().expect("a head").sign(Timestamp(7), &key());
        let inside = {
            let mut signed = sign();
            signed.head.position = Position(2);
            signed.head.sign(Timestamp(7), &key())
        };
        let at_its_end = sign();
        log.close().await.expect("closed");

        let log = Log::open(folder.path()).expect("a log");
        log.cut(session(1), Seq(4), Timestamp(8))
            .await
            .expect("cut");
        log.close().await.expect("closed");
        let log = Log::open(folder.path()).expect("a log");
        log.compact(|_| {}).await.expect("compacted");
        let now = log.head().expect("a head");
        let proven = |signed| check(&log, &signed, None, |_| {}).map(|verified| verified.head);
        assert_eq!(proven(at_its_end).expect("proven"), now);
        assert_eq!(proven(now.sign(Timestamp(9), &key())).expect("proven"), now);
        let cut_off = proven(inside);
        assert!(
            matches!(
                cut_off,
                Err(CheckError::CutOff {
                    position: Position(2)
                })
            ),
            "{cut_off:?}"
        );
        let mut other = at_its_end.head;
        other.hash.0[0] ^= 1;
        let differs = proven(other.sign(Timestamp(9), &key()));
        assert!(
            matches!(differs, Err(CheckError::Differs { .. })),
            "{differs:?}"
        );
        log.close().await.expect("closed");
    });
}

#[test]
fn of_nothing_everything_is_proven() {
    let empty = make(Vec::new());
    assert_eq!(empty.seen.head, Head::default());
    assert_eq!(empty.check().expect("proven"), Head::default());
    let made = make(appends());
    let signed = Head::default().sign(Timestamp(7), &key());
    assert!(check(&made.reader(), &signed, None, |_| {}).is_ok());
    let never = Head {
        hash: Hash([1; 32]),
        ..Head::default()
    };
    let differs = check(
        &made.reader(),
        &never.sign(Timestamp(7), &key()),
        None,
        |_| {},
    );
    assert!(
        matches!(differs, Err(CheckError::Differs { .. })),
        "{differs:?}"
    );
}

#[test]
fn the_first_bad_place_is_named_beside_a_signed_head() {
    let made = make(appends());
    let middle = make(appends()[..3].to_vec()).seen.head;
    assert_eq!(middle.position, Position(6));
    let mut bad = made.blocks[&7].clone();
    bad[HEAD] ^= 1;
    made.put_block(7, bad);
    // As signed up to 6, and damaged at 9.
    let found = check(
        &made.reader(),
        &middle.sign(Timestamp(7), &key()),
        None,
        |_| {},
    );
    assert!(
        matches!(
            found,
            Err(CheckError::Log(Error::Corrupt {
                position: Position(9),
                ..
            }))
        ),
        "{found:?}"
    );
    let mut other = middle;
    other.hash.0[0] ^= 1;
    let found = check(
        &made.reader(),
        &other.sign(Timestamp(7), &key()),
        None,
        |_| {},
    );
    assert!(
        matches!(
            found,
            Err(CheckError::Differs {
                position: Position(6),
                ..
            })
        ),
        "{found:?}"
    );
}

#[test]
fn what_is_derived_is_found_or_does_no_harm() {
    let made = make(appends());
    // What a row of some table says, changed in each byte of its key and of its value.
    let flips = |length: usize| (0..length).map(|at| (at, 1_u8 << (at % 8)));
    let harmless = |what: &str| {
        let Ok(reader) = LogReader::open(made.path()) else {
            return;
        };
        if made.found().is_none() {
            let now = seen(&reader).expect("all of it");
            let snapshots = now.snapshots.clone();
            assert_eq!(
                Seen {
                    snapshots: made.seen.snapshots.clone(),
                    ..now
                },
                made.seen,
                "{what}"
            );
            // A snapshot may be lost, and is never another.
            for (now, before) in snapshots.iter().zip(&made.seen.snapshots) {
                assert!(now.is_none() || now == before, "{what}");
            }
        }
    };
    let mut rows: Vec<(&str, Vec<u8>, Vec<u8>)> = Vec::new();
    made.change(|transaction| {
        for row in transaction
            .open_table(HEADS)
            .expect("heads")
            .iter()
            .expect("rows")
        {
            let (key, value) = row.expect("a row");
            rows.push(("stream_heads", key.value().to_vec(), value.value().to_vec()));
        }
        for row in transaction
            .open_table(RUNS)
            .expect("runs")
            .iter()
            .expect("rows")
        {
            let (key, value) = row.expect("a row");
            rows.push((
                "stream_blocks",
                key.value().to_vec(),
                value.value().to_vec(),
            ));
        }
        for row in transaction
            .open_table(IDS)
            .expect("ids")
            .iter()
            .expect("rows")
        {
            let (key, value) = row.expect("a row");
            let value = value.value().to_le_bytes().to_vec();
            rows.push(("event_ids", key.value().to_vec(), value));
        }
        let snapshots = transaction.open_table(SNAPSHOTS).expect("snapshots");
        for row in snapshots.iter().expect("rows") {
            let (key, value) = row.expect("a row");
            rows.push(("snapshots", key.value().to_vec(), value.value().to_vec()));
        }
    });
    // Streams, a run for each time that a stream settled, ids, snapshots.
    assert_eq!(rows.len(), 3 + 6 + 2 + 2);
    for (table, key, value) in &rows {
        let changes = flips(key.len())
            .map(|(at, bit)| (at, bit, true))
            .chain(flips(value.len()).map(|(at, bit)| (at, bit, false)));
        for (at, bit, of_key) in changes {
            let (mut new_key, mut new_value) = (key.clone(), value.clone());
            let bytes = if of_key { &mut new_key } else { &mut new_value };
            bytes[at] ^= bit;
            made.change(|transaction| replace(transaction, table, key, &new_key, &new_value));
            harmless(&format!("byte {at} of {table}, key {of_key}"));
        }
        // Gone, cut short, or too long.
        made.change(|transaction| remove(transaction, table, key));
        harmless(table);
        // Whoever appends by an id believes its row.
        assert!(*table != "event_ids" || made.found().is_some());
        if ["stream_blocks", "snapshots"].contains(table) {
            let longer = [&value[..], b"x"].concat();
            for value in [&value[..value.len() - 1], &[], &longer] {
                made.change(|transaction| replace(transaction, table, key, key, value));
                harmless(table);
            }
        }
    }
    for through in (0..14).chain([u64::MAX]) {
        made.change(|transaction| {
            let mut derived = transaction.open_table(DERIVED).expect("a table");
            derived.insert("indexed_through", through).expect("a row");
        });
        harmless("indexed_through");
        assert_eq!(
            made.found().is_none(),
            [0, 11].contains(&through),
            "{through}"
        );
    }
}

fn remove(transaction: &WriteTransaction, table: &str, key: &[u8]) {
    match table {
        "stream_heads" => {
            let mut table = transaction.open_table(HEADS).expect("heads");
            table.remove(&array::<11>(key)).expect("gone");
        }
        "stream_blocks" => {
            let mut table = transaction.open_table(RUNS).expect("runs");
            table.remove(&array::<19>(key)).expect("gone");
        }
        "event_ids" => {
            let mut table = transaction.open_table(IDS).expect("ids");
            table.remove(&array::<16>(key)).expect("gone");
        }
        _ => {
            let mut table = transaction.open_table(SNAPSHOTS).expect("snapshots");
            table.remove(key).expect("gone");
        }
    }
}

fn replace(transaction: &WriteTransaction, table: &str, old: &[u8], key: &[u8], value: &[u8]) {
    remove(transaction, table, old);
    match table {
        "stream_heads" => {
            let mut table = transaction.open_table(HEADS).expect("heads");
            table.insert(&array(key), &array(value)).expect("a row");
        }
        "stream_blocks" => {
            let mut table = transaction.open_table(RUNS).expect("runs");
            table.insert(&array(key), value).expect("a row");
        }
        "event_ids" => {
            let mut table = transaction.open_table(IDS).expect("ids");
            let position = u64::from_le_bytes(array(value));
            table.insert(&array(key), position).expect("a row");
        }
        _ => {
            let mut table = transaction.open_table(SNAPSHOTS).expect("snapshots");
            table.insert(key, value).expect("a row");
        }
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as long as before")
}

/// A writer was killed, and someone changes what it left in the journal.
#[test]
fn a_flip_of_any_byte_of_a_journal_is_named_or_cuts_off_the_last_entry() {
    const PAGE: usize = 4096;
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path()).expect("a log");
    // The files as they are after the last answer: that is what a kill leaves.
    let left = tempfile::tempdir().expect("a folder");
    let (all, head) = runtime().block_on(async {
        for (stream, events) in appends() {
            log.append(stream, Expected::Any, events)
                .await
                .expect("appended");
        }
        for name in ["log.redb", "journal-a", "journal-b"] {
            fs::copy(folder.path().join(name), left.path().join(name)).expect("a copy");
        }
        let all: Result<Vec<_>, _> = log.read_all(Position::FIRST).collect();
        (all.expect("all of it"), log.head().expect("a head"))
    });
    let signed = head.sign(Timestamp(7), &key());
    let path = left.path().join("journal-a");
    let good = fs::read(&path).expect("a file");

    // Where each entry begins, how many bytes it has, and its first event.
    let entries: Vec<(usize, usize, u64)> = [1, 4, 5, 7, 10, 11]
        .into_iter()
        .enumerate()
        .map(|(n, first)| {
            let length = array(&good[n * PAGE + 8..][..8]);
            let length = usize::try_from(u64::from_le_bytes(length)).expect("small");
            (n * PAGE, length, first)
        })
        .collect();
    let read = || -> Result<Vec<Recorded>, Error> {
        let reader = LogReader::open(left.path())?;
        verify(&reader, None)?;
        reader.read_all(Position::FIRST).collect()
    };
    assert_eq!(read().expect("whole"), all);

    for (begin, length, first) in entries {
        let inside = (0..length).step_by(5);
        let padding = (length..PAGE).step_by(211);
        for at in inside.chain(padding) {
            let mut bad = good.clone();
            bad[begin + at] ^= 1 << (at % 8);
            fs::write(&path, &bad).expect("a file");
            match read() {
                // Between entries there is nothing.
                Ok(read) if at >= length => assert_eq!(read, all, "{at} after {first}"),
                // Nothing after it proves that it ever was whole: but a head that was signed does.
                Ok(read) => {
                    assert_eq!((first, &read[..]), (11, &all[..10]), "{at} of {first}");
                    let reader = LogReader::open(left.path()).expect("a reader");
                    let short = check(&reader, &signed, None, |_| {});
                    assert!(
                        matches!(
                            short,
                            Err(CheckError::Short {
                                signed: Position(11),
                                found: Position(10)
                            })
                        ),
                        "{short:?}"
                    );
                }
                Err(Error::Corrupt { position, what }) => {
                    assert_eq!(position, Position(first), "{at}: {what}");
                    assert!(what.contains("journal"), "{what}");
                    assert!(at < length && first < 11);
                }
                Err(other) => panic!("{at} of {first}: {other:?}"),
            }
        }
    }
    // Who writes finds the same, and changes nothing.
    let mut bad = good;
    bad[2 * PAGE + 100] ^= 1;
    fs::write(&path, &bad).expect("a file");
    let refused = Log::open(left.path()).expect_err("damaged");
    assert!(
        matches!(
            refused,
            Error::Corrupt {
                position: Position(5),
                ..
            }
        ),
        "{refused:?}"
    );
    assert!(fs::read(&path).expect("a file") == bad);
}

#[test]
fn a_log_that_denies_what_it_is_is_refused() {
    let made = make(appends());
    let mut rows = Vec::new();
    made.change(|transaction| {
        let meta = transaction.open_table(META).expect("a table");
        for row in meta.iter().expect("rows") {
            let (key, value) = row.expect("a row");
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
    });
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["format", "journal_key", "magic"]);
    let refused = |what: &str| {
        for error in [
            LogReader::open(made.path()).expect_err(what),
            Log::open(made.path()).expect_err(what),
        ] {
            let expected = match &error {
                Error::NotALog { .. } | Error::NewerLog { .. } => true,
                Error::Corrupt { what, .. } => what.contains("journal"),
                _ => false,
            };
            assert!(expected, "{what}: {error:?}");
        }
    };
    for (key, value) in &rows {
        for at in 0..value.len() {
            let mut value = value.clone();
            value[at] ^= 1 << (at % 8);
            made.change(|transaction| {
                let mut meta = transaction.open_table(META).expect("a table");
                meta.insert(key.as_str(), value.as_slice()).expect("a row");
            });
            if key == "journal_key" {
                // No journal is there to be read with it.
                assert_eq!(seen(&made.reader()).expect("all of it"), made.seen);
            } else {
                refused(key);
            }
        }
        made.change(|transaction| {
            let mut meta = transaction.open_table(META).expect("a table");
            meta.remove(key.as_str()).expect("gone");
        });
        refused(key);
    }
    made.change(|transaction| assert!(transaction.delete_table(META).expect("gone")));
    refused("meta");
    made.change(|transaction| assert!(transaction.delete_table(BLOCKS).expect("gone")));
    let found = LogReader::open(made.path()).and_then(|reader| verify(&reader, None));
    assert!(found.is_err(), "{found:?}");
}

/// What somebody does to the records of a log.
#[derive(Debug, Clone)]
enum Change {
    Drop(usize),
    Swap(usize, usize),
    Repeat(usize, usize),
    Flip(usize, usize),
    Cut(usize),
}

impl Change {
    fn make(&self, records: &mut Vec<Vec<u8>>) {
        let n = records.len();
        match *self {
            _ if n == 0 => {}
            Self::Drop(at) => drop(records.remove(at % n)),
            Self::Swap(a, b) => records.swap(a % n, b % n),
            Self::Repeat(from, to) => records.insert(to % (n + 1), records[from % n].clone()),
            Self::Flip(at, byte) => {
                let record = &mut records[at % n];
                // Not in the length, which says where the next one begins.
                let byte = 4 + byte % (record.len() - 4);
                record[byte] ^= 1 << (byte % 8);
            }
            Self::Cut(at) => records.truncate(at % n),
        }
    }
}

fn changes() -> impl Strategy<Value = Change> {
    let any = any::<usize>;
    prop_oneof![
        any().prop_map(Change::Drop),
        (any(), any()).prop_map(|(a, b)| Change::Swap(a, b)),
        (any(), any()).prop_map(|(a, b)| Change::Repeat(a, b)),
        (any(), any()).prop_map(|(a, b)| Change::Flip(a, b)),
        any().prop_map(Change::Cut),
    ]
}

/// Records may be cut into blocks as one likes, and every header and the index be made to fit: the first
/// record that is not the one that was written is named, and one that is not there is missed.
#[test]
fn the_first_record_that_is_not_what_was_written_is_named() {
    let made = make(appends());
    let good = made.records();
    let cases = (
        prop::collection::vec(changes(), 0..4),
        prop::collection::vec(1..5_usize, 1..4),
    );
    let config = ProptestConfig::with_cases(200);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&cases, |(changes, cuts)| {
            let mut records = good.clone();
            for change in &changes {
                change.make(&mut records);
            }
            made.put(&blocks_of(&records, &cuts), false);
            let different = records
                .iter()
                .enumerate()
                .find(|(n, record)| good.get(*n) != Some(*record));
            let expected = different.map(|(n, _)| n as u64 + 1);
            let found = made.found().map(|(position, _)| position);
            prop_assert_eq!(found, expected, "{:?}", changes);
            match (made.check(), expected) {
                (Ok(head), None) => prop_assert_eq!(head, made.seen.head),
                (Err(CheckError::Short { found, .. }), None) => {
                    prop_assert_eq!(found.0, records.len() as u64);
                    prop_assert!(records.len() < good.len());
                }
                (Err(CheckError::Log(Error::Corrupt { position, .. })), Some(expected)) => {
                    prop_assert_eq!(position.0, expected);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            Ok(())
        })
        .expect("every change is found");
}
