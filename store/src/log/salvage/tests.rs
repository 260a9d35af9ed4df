//! What is taken out of damaged files: nothing that was not recorded, and all that the law says.

use std::collections::BTreeMap;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::event::{Cause, Event, NewEvent};
use crate::id::{EventId, SessionId, Timestamp};
use crate::log::recent::Go;
use crate::log::{Expected, Log, LogReader, verify_all};

const NAMES: [&str; 3] = ["log.redb", "journal-a", "journal-b"];

/// How many damages each sample takes.
const CASES: u64 = 60;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
}

fn stream(n: u64) -> StreamId {
    match n {
        0 => StreamId::Engine,
        n => StreamId::Session(SessionId::from_bytes([u8::try_from(n).expect("small"); 10])),
    }
}

const STREAMS: u64 = 4;

fn said(n: u64) -> NewEvent {
    // Some are longer than a page, and one than the window sees beyond its end.
    let length = match n % 50 {
        49 => 90_000,
        n if n % 10 == 9 => 6000,
        n => 10 + usize::try_from(n).expect("small"),
    };
    let reason = format!("{n} {}", "x".repeat(length));
    let event = NewEvent::live(Event::StreamLost { reason }, Timestamp(n));
    event.with_id(EventId::from_random(n.into()))
}

async fn append(log: &Log, numbers: Range<u64>) {
    for n in numbers {
        let mut events: Vec<NewEvent> = (0..=n % 5).map(|i| said(10 * n + i)).collect();
        if n > 2 {
            events[0].cause = Cause::At(Position(n));
        }
        if let Some(last) = events.get_mut(1) {
            last.cause = Cause::Sibling(0);
        }
        let appended = log.append(stream(n % STREAMS), Expected::Any, events).await;
        appended.expect("appended");
    }
}

/// The files of a log, with all that it holds.
struct Sample {
    files: [Vec<u8>; 3],
    /// The bytes of each record, by stream, in order.
    records: BTreeMap<StreamKey, Vec<Vec<u8>>>,
    events: Vec<Recorded>,
    /// Where the entries of each file are: none in the storage.
    entries: [Vec<(usize, usize)>; 3],
    /// The row that holds the journal's key.
    key: Vec<u8>,
}

impl Sample {
    /// Of a log that was closed, or one whose writer was killed while its journal held much.
    fn new(closed: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = runtime().block_on(async {
            let log = Log::open(folder.path()).expect("a log");
            append(&log, 0..30).await;
            log.close().await.expect("closed");
            let log = Log::open(folder.path()).expect("a log");
            append(&log, 30..60).await;
            let killed = images(folder.path());
            log.close().await.expect("closed");
            if closed {
                images(folder.path())
            } else {
                killed
            }
        });
        let folder = folder_of(&files);
        let reader = LogReader::open(folder.path()).expect("a log");
        let events: Result<Vec<Recorded>> = reader.read_all(Position::FIRST).collect();
        let mut records: BTreeMap<StreamKey, Vec<Vec<u8>>> = BTreeMap::new();
        let looked = reader.shared.look(|view| {
            view.walk(Position::FIRST, |block| {
                for record in block.records() {
                    let record = record?;
                    let of_it = records.entry(*record.stream_key()).or_default();
                    of_it.push(record.bytes().to_vec());
                }
                Ok(Go::On)
            })
        });
        looked.expect("read");
        let mut key = b"journal_keymagic".to_vec();
        key.extend(table::FORMAT_VALUE.to_le_bytes());
        let at = position(&files[0], &key).expect("it has a key") + key.len();
        key.extend(&files[0][at..at + 32]);
        key.extend(table::MAGIC_VALUE);
        let journal_key = files[0][at..at + 32].try_into().expect("32 bytes");
        let entries = [0, 1, 2].map(|file| {
            if file == 0 {
                return Vec::new();
            }
            let source = Source::open(&folder.path().join(NAMES[file])).expect("a file");
            let entries = source.entries(&[journal_key]).expect("read");
            let place = |(from, to): (u64, u64)| {
                let place = |at| usize::try_from(at).expect("small");
                (place(from), place(to))
            };
            entries.into_iter().map(place).collect()
        });
        Self {
            files,
            records,
            events: events.expect("read"),
            entries,
            key,
        }
    }

    /// How many events of each stream the law promises, of these files: those before the first record that is neither
    /// whole anywhere in the storage nor in an entry of the journal that is whole.
    fn promised(&self, files: &[Vec<u8>; 3]) -> BTreeMap<StreamKey, usize> {
        let has_key = position(&files[0], &self.key).is_some();
        let entries = (1..3).flat_map(|file| {
            let whole = self.entries[file].iter();
            whole.filter_map(move |(from, to)| {
                let (from, to) = (*from, (*to).min(self.files[file].len()));
                let was = &self.files[file][from..to];
                (files[file].get(from..to) == Some(was)).then_some(was)
            })
        });
        let entries: Vec<&[u8]> = entries.filter(|_| has_key).collect();
        let is_there = |record: &&Vec<u8>| {
            position(&files[0], record).is_some()
                || entries
                    .iter()
                    .any(|entry| position(entry, record).is_some())
        };
        let promised = self.records.iter();
        promised
            .map(|(stream, records)| (*stream, records.iter().take_while(is_there).count()))
            .collect()
    }
}

fn images(folder: &Path) -> [Vec<u8>; 3] {
    NAMES.map(|name| fs::read(folder.join(name)).expect("a file"))
}

fn folder_of(files: &[Vec<u8>; 3]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in NAMES.iter().zip(files) {
        fs::write(folder.path().join(name), bytes).expect("a file");
    }
    folder
}

fn position(all: &[u8], part: &[u8]) -> Option<usize> {
    let first = *part.first()?;
    let mut from = 0;
    loop {
        let at = from + all[from..].iter().position(|byte| *byte == first)?;
        if all[at..].starts_with(part) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// Salvages these files; gives what was told, and the events of the new log, which is proven to be whole.
fn salvaged(files: &[Vec<u8>; 3]) -> Result<(Salvaged, Vec<Recorded>, Vec<Recorded>)> {
    let (folder, target) = (folder_of(files), tempfile::tempdir().expect("a folder"));
    let into = target.path().join("new");
    let mut unproven = Vec::new();
    let told = salvage(
        folder.path(),
        &into,
        |recorded| unproven.push(recorded),
        |_| {},
    )?;
    assert_eq!(images(folder.path()), *files, "it was only read");
    let reader = LogReader::open(&into).expect("a log");
    let verified = verify_all(&reader, |_| {}).expect("it is whole");
    assert_eq!(verified.events, told.events);
    let events: Result<Vec<Recorded>> = reader.read_all(Position::FIRST).collect();
    Ok((told, events.expect("read"), unproven))
}

/// Each stream's events are the beginning of what was recorded, as long as the law promises or longer.
fn check(sample: &Sample, files: &[Vec<u8>; 3], seed: u64) {
    let promised = sample.promised(files);
    let (told, events, unproven) = match salvaged(files) {
        Ok(found) => found,
        Err(Error::NotALog { .. }) => {
            assert!(promised.values().all(|count| *count == 0), "seed {seed}");
            return;
        }
        Err(error) => panic!("seed {seed}: {error}"),
    };
    for (key, promised) in promised {
        let of_it = |recorded: &&Recorded| recorded.stream.to_bytes() == key;
        let was: Vec<Recorded> = sample.events.iter().filter(of_it).cloned().collect();
        let is: Vec<Recorded> = events.iter().filter(of_it).cloned().collect();
        assert_eq!(is, was[..is.len()], "seed {seed}: not what was recorded");
        assert!(
            is.len() >= promised,
            "seed {seed}: {} of {promised} events were taken",
            is.len()
        );
        // What is told as not proven stands behind that.
        let taken = is.len() as u64;
        let mut behind = unproven.iter().filter(of_it);
        assert!(behind.all(|one| one.seq.0 > taken), "seed {seed}");
    }
    let same = events.iter().zip(1..);
    let same = same.take_while(|(recorded, place)| recorded.position.0 == *place);
    assert_eq!(told.whole_through.0, same.count() as u64, "seed {seed}");
}

/// Numbers from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("smaller than a usize")
    }

    /// Where something is in the files.
    fn place(&mut self, files: &[Vec<u8>; 3]) -> Option<(usize, usize)> {
        for _ in 0..1000 {
            let file = self.below(3);
            if files[file].is_empty() {
                continue;
            }
            let at = self.below(files[file].len());
            let page = at / PAGE * PAGE;
            let end = files[file].len().min(page + PAGE);
            if files[file][page..end].iter().any(|byte| *byte != 0) {
                return Some((file, at));
            }
        }
        None
    }

    fn damage(&mut self, files: &mut [Vec<u8>; 3]) {
        let Some((file, at)) = self.place(files) else {
            return;
        };
        let (page, end) = (at / PAGE * PAGE, files[file].len());
        let page = page..end.min(page + PAGE);
        match self.below(6) {
            0 => files[file][at] ^= 1 << self.below(8),
            1 => files[file][page].fill(0),
            2 => {
                let pages = page.start..end.min(page.start + PAGE * (1 + self.below(16)));
                for byte in &mut files[file][pages] {
                    *byte = u8::try_from(self.below(256)).expect("a byte");
                }
            }
            3 => files[file].truncate(at),
            4 => {
                let other = page.start / 2 / PAGE * PAGE;
                let copy = files[file][page.clone()].to_vec();
                files[file][other..other + copy.len()].copy_from_slice(&copy);
            }
            _ => {
                let length = 1 + self.below(64);
                files[file][at..end.min(at + length)].fill(0xff);
            }
        }
    }
}

fn cases() -> u64 {
    let wanted = std::env::var("RECOUNT_SALVAGE_CASES").ok();
    wanted.and_then(|cases| cases.parse().ok()).unwrap_or(CASES)
}

fn damaged_anywhere(closed: bool) {
    let sample = Sample::new(closed);
    for seed in 0..cases() {
        let mut chance = Chance(seed);
        let mut files = sample.files.clone();
        for _ in 0..=chance.below(3) {
            chance.damage(&mut files);
        }
        check(&sample, &files, seed);
    }
}

#[test]
fn all_that_the_law_promises_is_taken_of_a_closed_log_and_nothing_else() {
    damaged_anywhere(true);
}

#[test]
fn all_that_the_law_promises_is_taken_of_a_killed_log_and_nothing_else() {
    damaged_anywhere(false);
}

#[test]
fn of_what_is_not_damaged_everything_is_taken_and_stays_the_same() {
    for closed in [true, false] {
        let sample = Sample::new(closed);
        let (told, events, unproven) = salvaged(&sample.files).expect("it is a log");
        assert_eq!(events, sample.events);
        assert_eq!(told.whole_through.0, sample.events.len() as u64);
        assert_eq!((told.whole_through, unproven), (told.last, Vec::new()));
        assert!(told.is_whole(), "{told:?}");
    }
}

#[test]
fn without_its_tables_everything_is_found_all_the_same() {
    let sample = Sample::new(true);
    let mut files = sample.files.clone();
    // The header of the storage, and what leads to its tables.
    files[0][..PAGE].fill(0);
    assert!(LogReader::open(folder_of(&files).path()).is_err());
    let (told, events, _) = salvaged(&files).expect("it is a log");
    assert_eq!(events, sample.events);
    assert!(told.is_whole(), "{told:?}");
}

#[test]
fn a_hole_ends_its_stream_and_is_told() {
    let sample = Sample::new(true);
    let key = stream(1).to_bytes();
    let fifth = &sample.records[&key][4];
    let mut files = sample.files.clone();
    while let Some(at) = position(&files[0], fifth) {
        files[0][at + 60] ^= 1;
    }
    let (told, events, unproven) = salvaged(&files).expect("it is a log");
    let count = sample.records[&key].len() as u64;
    let found = told.streams.iter().find(|found| found.stream == stream(1));
    let expected = SalvagedStream {
        stream: stream(1),
        taken: Some((Seq(1), Seq(4))),
        unproven: vec![(Seq(5), Seq(count))],
        reason: "event 5 is missing or damaged, and what follows it cannot be proven without it"
            .to_owned(),
    };
    assert_eq!(found, Some(&expected));
    assert_eq!(
        events.len() as u64,
        sample.events.len() as u64 - (count - 4)
    );
    assert_eq!(unproven.len() as u64, count - 4);
    assert!(!told.is_whole());
}

#[test]
fn streams_whose_front_was_cut_keep_their_numbers() {
    for compacted in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let events = runtime().block_on(async {
            let log = Log::open(folder.path()).expect("a log");
            append(&log, 0..30).await;
            let cut = log.cut(stream(1), Seq(9), Timestamp(1)).await;
            cut.expect("cut");
            let cut = log.cut(stream(2), Seq(4), Timestamp(1)).await;
            cut.expect("cut");
            append(&log, 30..40).await;
            if compacted {
                log.compact(|_| {}).await.expect("compacted");
            }
            let events: Vec<Recorded> = (0..STREAMS)
                .flat_map(|n| log.read(stream(n), Seq::FIRST))
                .collect::<Result<_>>()
                .expect("read");
            log.close().await.expect("closed");
            events
        });
        let target = tempfile::tempdir().expect("a folder");
        let into = target.path().join("new");
        let told = salvage(folder.path(), &into, |_| {}, |_| {}).expect("it is a log");
        assert!(told.is_whole(), "{told:?}");
        let reader = LogReader::open(&into).expect("a log");
        verify_all(&reader, |_| {}).expect("it is whole");
        let is: Vec<Recorded> = (0..STREAMS)
            .flat_map(|n| reader.read(stream(n), Seq::FIRST))
            .collect::<Result<_>>()
            .expect("read");
        assert_eq!(is, events);
        // It goes on.
        runtime().block_on(async {
            let log = Log::open(&into).expect("a log");
            append(&log, 50..60).await;
            verify_all(&log, |_| {}).expect("it is whole");
            log.close().await.expect("closed");
        });
    }
}

#[test]
fn the_key_of_the_journal_is_found_whatever_stands_beside_it() {
    let key = [7; 32];
    for (names, frames_from, left_out) in [
        ("formatjournal_keymagic", 0, 0),
        ("formatframes_fromjournal_keymagic", 8, 0),
        ("formatjournal_keyleft_outmagic", 0, 8),
        ("formatframes_fromjournal_keyleft_outmagic", 8, 8),
    ] {
        let values = [
            &[1; 4][..],
            &[2; 8][..frames_from],
            &key,
            &[3; 8][..left_out],
        ];
        let row = [names.as_bytes(), &values.concat(), table::MAGIC_VALUE].concat();
        let at = position(&row, b"journal_key").expect("it is there");
        assert_eq!(journal_key(&row[..at], &row[at..]), Some(key), "{names}");
    }
}

#[test]
fn what_was_salvaged_can_be_salvaged_again() {
    let sample = Sample::new(false);
    let mut files = sample.files.clone();
    // So that something is left out, and numbers of frames are.
    let third = &sample.records[&stream(2).to_bytes()][2];
    for file in &mut files {
        while let Some(at) = position(file, third) {
            file[at + 60] ^= 1;
        }
    }
    let (folder, target) = (folder_of(&files), tempfile::tempdir().expect("a folder"));
    let (once, twice) = (target.path().join("once"), target.path().join("twice"));
    salvage(folder.path(), &once, |_| {}, |_| {}).expect("it is a log");
    let events = |from: &Path| -> Vec<Recorded> {
        let reader = LogReader::open(from).expect("a log");
        let read: Result<_> = reader.read_all(Position::FIRST).collect();
        read.expect("read")
    };
    // Its journal holds something, too.
    let told = runtime().block_on(async {
        let log = Log::open(&once).expect("a log");
        append(&log, 70..80).await;
        let told = salvage(&once, &twice, |_| {}, |_| {}).expect("it is a log");
        log.close().await.expect("closed");
        told
    });
    assert_eq!(events(&twice), events(&once));
    assert!(told.streams.iter().all(|found| found.unproven.is_empty()));
}

#[test]
fn what_holds_no_log_and_where_one_is_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("letter");
    fs::write(
        &file,
        b"journal_keymagic, recount log, and nothing else".repeat(1000),
    )
    .expect("a file");
    let into = folder.path().join("new");
    let refused = salvage(&file, &into, |_| {}, |_| {});
    assert!(matches!(refused, Err(Error::NotALog { .. })), "{refused:?}");
    assert!(!into.exists(), "nothing is made of nothing");

    let sample = Sample::new(true);
    let there = folder_of(&sample.files);
    let refused = salvage(there.path(), there.path(), |_| {}, |_| {});
    assert!(
        matches!(refused, Err(Error::LogExists { .. })),
        "{refused:?}"
    );
    assert_eq!(images(there.path()), sample.files);
}
