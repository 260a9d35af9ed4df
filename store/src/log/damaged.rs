//! A log whose files were changed from outside: opened, read through, verified, and written.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use redb::{ReadableDatabase as _, ReadableTable as _, StorageBackend};

use crate::event::{Event, NewEvent, Recorded};
use crate::frame::Frame;
use crate::id::{
    ConnectionId, EventId, FrameNumber, Position, Seq, SessionId, StreamId, Timestamp,
};
use crate::log::{Expected, Log, LogReader, Options, Snapshot, table, verify};

/// How large a file may become, so that a length that lies is refused as a full disk would refuse it.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What a page of a file has.
const PAGE: usize = 4096;

/// The files of a log, in the order of [`NAMES`].
type Files = [Vec<u8>; 3];

const NAMES: [&str; 3] = ["log.redb", "journal-a", "journal-b"];

/// A good log, damaged as `bytes` say.
///
/// Where anything may be damaged, it is opened for reading; where the storage's own pages are whole, for
/// writing: redb, when it writes into pages that make no sense, may end the process, and nothing that calls
/// it can help that. No panic leaves the log, nothing hangs, and what is proven to be whole is what was
/// appended, up to some event and some frame.
///
/// # Panics
///
/// Where one of these does not hold.
pub fn open(bytes: &[u8]) {
    let mut damage = Damage(bytes);
    let sample = &SAMPLES[damage.below(SAMPLES.len())];
    let writing = damage.below(2) == 1;
    let places = if writing { &sample.ours } else { &sample.all };
    let mut files = sample.files.clone();
    while !damage.0.is_empty() {
        damage.once(&mut files, places);
    }
    if writing {
        if let Ok(log) = log_in(&files.map(Memory::holding)) {
            read_through(&log, sample);
            runtime().block_on(async {
                let _ = log
                    .append(StreamId::Engine, Expected::Any, vec![said(100_000)])
                    .await;
                let _ = log.close().await;
            });
        }
    } else {
        let folder = Folder::holding(&files);
        if let Ok(reader) = LogReader::open(&folder.0) {
            read_through(&reader, sample);
        }
    }
}

fn read_through(log: &LogReader, sample: &Sample) {
    let _ = log.head();
    let _ = log.streams();
    for stream in streams() {
        let _ = log.snapshot(stream, "state");
        let _ = log.stream_head(stream);
        let read = log.read(stream, Seq::FIRST).take_while(Result::is_ok);
        assert!(read.count() <= sample.events.len(), "{stream} has no end");
        let _ = verify(log, Some(stream));
    }
    let events: Vec<_> = log
        .read_all(Position::FIRST)
        .take(sample.events.len() + 1)
        .collect();
    let frames: Vec<_> = log
        .frames(FrameNumber::FIRST)
        .take(sample.frames.len() + 1)
        .collect();
    if let Ok(verified) = verify(log, None) {
        let events: Result<Vec<Recorded>, _> = events.into_iter().collect();
        let events = events.expect("what is whole can be read");
        assert_eq!(events.len() as u64, verified.events);
        assert_eq!(
            events,
            sample.events[..events.len()],
            "not what was appended"
        );
        let frames: Result<Vec<Frame>, _> = frames.into_iter().collect();
        let frames = frames.expect("what is whole can be read");
        assert_eq!(frames, sample.frames[..frames.len()], "not what was kept");
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
}

/// The log that these files are: its storage, and its journal.
fn log_in(files: &[Memory; 3]) -> crate::Result<Log> {
    let [storage, a, b] = files.clone();
    Log::with_backends(storage, [Arc::new(a), Arc::new(b)], Options::default())
}

// ---- what is damaged

/// A log as its files are, with what it holds.
struct Sample {
    files: Files,
    /// Where something is: pages that are not empty.
    all: Vec<Place>,
    /// Where something of ours is: pages of the journal, and blocks inside of the storage.
    ours: Vec<Place>,
    events: Vec<Recorded>,
    frames: Vec<Frame>,
}

/// One that was closed, and one whose writer was killed.
static SAMPLES: LazyLock<[Sample; 2]> = LazyLock::new(|| [sample(true), sample(false)]);

const SESSION: SessionId = SessionId::from_bytes([1; 10]);
const CONNECTION: ConnectionId = ConnectionId::from_bytes([2; 10]);

fn streams() -> [StreamId; 3] {
    [
        StreamId::Engine,
        StreamId::Session(SESSION),
        StreamId::Connection(CONNECTION),
    ]
}

fn said(n: u64) -> NewEvent {
    let reason = format!("{n} {}", "x".repeat(200));
    NewEvent::live(Event::StreamLost { reason }, Timestamp(n))
        .with_id(EventId::from_random(n.into()))
}

/// Some appends, with frames and snapshots.
async fn append(log: &Log, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let stream = streams()[usize::try_from(n % 3).expect("below three")];
        let mut events: Vec<_> = (0..=n % 7).map(|i| said(10 * n + i)).collect();
        let at = Timestamp(n);
        events[0].frame = log.keep_frame(CONNECTION, at, format!("frame of {n}").as_bytes());
        log.append(stream, Expected::Any, events)
            .await
            .expect("appended");
        let snapshot = Snapshot {
            fold_version: 1,
            seq: Seq(1),
            bytes: vec![7; 100],
        };
        log.put_snapshot(stream, "state", snapshot);
    }
}

fn sample(closed: bool) -> Sample {
    let memory = [(); 3].map(|()| Memory::holding(Vec::new()));
    let images = || memory.each_ref().map(|file| file.bytes().clone());
    let (events, frames, files) = runtime().block_on(async {
        let log = log_in(&memory).expect("a log");
        append(&log, 0..20).await;
        log.close().await.expect("closed");
        // What comes now is in the journal alone, until this is closed too.
        let log = log_in(&memory).expect("a log");
        append(&log, 20..40).await;
        let events: Result<Vec<_>, _> = log.read_all(Position::FIRST).collect();
        let frames: Result<Vec<_>, _> = log.frames(FrameNumber::FIRST).collect();
        let killed = images();
        log.close().await.expect("closed");
        let files = if closed { images() } else { killed };
        (events.expect("read"), frames.expect("read"), files)
    });
    let pages = (0..).zip(&files).flat_map(|(file, image)| {
        let pages = image.chunks(PAGE).enumerate();
        let some = pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        some.map(move |(number, page)| Place {
            file,
            from: number * PAGE,
            to: number * PAGE + page.len(),
        })
    });
    let all: Vec<_> = pages.collect();
    let journal = all.iter().copied().filter(|place| place.file != 0);
    let ours = journal.chain(blocks(&files[0])).collect();
    Sample {
        files,
        all,
        ours,
        events,
        frames,
    }
}

/// Where the blocks are in the file of a storage.
fn blocks(image: &[u8]) -> Vec<Place> {
    let database = redb::Builder::new()
        .create_with_backend(Memory::holding(image.to_vec()))
        .expect("a database");
    let transaction = database.begin_read().expect("a transaction");
    let blocks = transaction.open_table(table::BLOCKS).expect("a table");
    let place = |bytes: &[u8]| {
        let found = image.windows(bytes.len()).position(|there| there == bytes);
        let from = found.expect("it is written as it is");
        Place {
            file: 0,
            from,
            to: from + bytes.len(),
        }
    };
    let rows = blocks.iter().expect("read");
    rows.map(|row| place(row.expect("read").1.value()))
        .collect()
}

// ---- the damage

/// Bytes that say what is damaged; zeros when they have run out.
struct Damage<'a>(&'a [u8]);

impl<'a> Damage<'a> {
    /// One change, within some of `places`.
    fn once(&mut self, files: &mut Files, places: &[Place]) {
        match self.below(6) {
            0 => {
                let (at, length) = (self.place(places), self.below(32) + 1);
                let bytes = self.take(length);
                at.write(files, bytes);
            }
            1 => {
                let (at, bit) = (self.place(places), self.below(8));
                let flipped: Vec<u8> = at.read(files, 1).iter().map(|b| b ^ 1 << bit).collect();
                at.write(files, &flipped);
            }
            2 => {
                let at = self.place(places);
                // Of a file that is ours to damage from its first page on.
                let whole = |place: &Place| place.file == at.file && place.from == 0;
                if places.iter().any(whole) {
                    files[at.file].truncate(at.from);
                }
            }
            3 => {
                let (at, length, byte) = (self.place(places), self.length(), self.byte());
                at.write(files, &vec![byte; length]);
            }
            4 => {
                let (from, to, length) = (self.place(places), self.place(places), self.length());
                let bytes = from.read(files, length);
                to.write(files, &bytes);
            }
            _ => {
                let (a, b, length) = (self.place(places), self.place(places), self.length());
                let (in_a, in_b) = (a.read(files, length), b.read(files, length));
                a.write(files, &in_b);
                b.write(files, &in_a);
            }
        }
    }

    /// The rest of one of `places`, from somewhere in it.
    fn place(&mut self, places: &[Place]) -> Place {
        let mut place = places[self.below(places.len())];
        let within = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        place.from += within % (place.to - place.from);
        place
    }

    /// Some bytes, or some pages.
    fn length(&mut self) -> usize {
        match self.byte() {
            pages @ 252.. => usize::from(pages - 251) * PAGE,
            bytes => usize::from(bytes),
        }
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }
}

/// Some bytes in the files of a log; the file may have become shorter.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    from: usize,
    to: usize,
}

impl Place {
    /// Up to `length` of its bytes, those that are there.
    fn range(self, files: &Files, length: usize) -> Range<usize> {
        let end = files[self.file].len();
        self.from.min(end)..self.to.min(self.from + length).min(end)
    }

    fn read(self, files: &Files, length: usize) -> Vec<u8> {
        files[self.file][self.range(files, length)].to_vec()
    }

    /// Writes what fits.
    fn write(self, files: &mut Files, bytes: &[u8]) {
        let range = self.range(files, bytes.len());
        let fitting = &bytes[..range.len()];
        files[self.file][range].copy_from_slice(fitting);
    }
}

// ---- files

/// A folder that is there as long as this.
struct Folder(PathBuf);

impl Folder {
    fn holding(files: &Files) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("recount-damaged-{}-{counter}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).expect("a folder");
        for (name, bytes) in NAMES.iter().zip(files) {
            std::fs::write(folder.join(name), bytes).expect("a file");
        }
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file that its maker can look at.
#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

/// The range of a file, if it is there.
fn range(at: u64, length: usize, file: &[u8]) -> io::Result<std::ops::Range<usize>> {
    usize::try_from(at)
        .ok()
        .and_then(|at| Some(at..at.checked_add(length)?))
        .filter(|range| range.end <= file.len())
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

impl StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.bytes();
        out.copy_from_slice(&file[range(offset, out.len(), &file)?]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes()
            .resize(usize::try_from(len).expect("it is small"), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut file = self.bytes();
        let range = range(offset, data.len(), &file)?;
        file[range].copy_from_slice(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_not_damaged_is_whole() {
        for sample in &*SAMPLES {
            let log = log_in(&sample.files.clone().map(Memory::holding)).expect("a log");
            verify(&log, None).expect("whole");
            let events: Result<Vec<_>, _> = log.read_all(Position::FIRST).collect();
            assert_eq!(events.expect("read"), sample.events);
            let frames: Result<Vec<_>, _> = log.frames(FrameNumber::FIRST).collect();
            assert_eq!(frames.expect("read"), sample.frames);
            assert_eq!(sample.frames.len(), 40);
        }
    }
}
