//! A log whose file was changed from outside: opened, read through, verified, and written.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::event::{Event, NewEvent, Recorded};
use crate::frame::Frame;
use crate::id::{
    ConnectionId, EventId, FrameNumber, Position, Seq, SessionId, StreamId, Timestamp,
};
use crate::log::{Expected, Log, Options, Snapshot, verify};

/// How large a file may become, so that a length that lies is refused as a full disk would refuse it.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What a page of a file has.
const PAGE: usize = 4096;

/// A good log, damaged as `bytes` say.
///
/// No panic leaves the log, nothing hangs, and what is proven to be whole is what was appended, up to some
/// event and some frame.
///
/// # Panics
///
/// Where one of these does not hold.
pub fn open(bytes: &[u8]) {
    let mut damage = Damage(bytes);
    let sample = &SAMPLES[damage.below(SAMPLES.len())];
    let mut files = sample.files.clone();
    while !damage.0.is_empty() {
        damage.once(&mut files, &sample.pages);
    }
    let Ok(log) = log_in(&files.map(Memory::holding)) else {
        return;
    };
    let _ = log.head();
    let _ = log.streams();
    for stream in streams() {
        let _ = log.snapshot(stream, "state");
        let _ = log.stream_head(stream);
        let read = log.read(stream, Seq::FIRST).take_while(Result::is_ok);
        assert!(read.count() <= sample.events.len(), "{stream} has no end");
        let _ = verify(&log, Some(stream));
    }
    let events: Vec<_> = log
        .read_all(Position::FIRST)
        .take(sample.events.len() + 1)
        .collect();
    let frames: Vec<_> = log
        .frames(FrameNumber::FIRST)
        .take(sample.frames.len() + 1)
        .collect();
    if let Ok(verified) = verify(&log, None) {
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
    runtime().block_on(async {
        let _ = log
            .append(StreamId::Engine, Expected::Any, vec![said(100_000)])
            .await;
        let _ = log.close().await;
    });
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
    files: [Vec<u8>; 3],
    /// The pages that are not empty: the file, and the offset in it.
    pages: Vec<(usize, usize)>,
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
    let mut pages = Vec::new();
    for (file, image) in files.iter().enumerate() {
        for (number, page) in image.chunks(PAGE).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                pages.push((file, number * PAGE));
            }
        }
    }
    Sample {
        files,
        pages,
        events,
        frames,
    }
}

// ---- the damage

/// Bytes that say what is damaged; zeros when they have run out.
struct Damage<'a>(&'a [u8]);

impl<'a> Damage<'a> {
    /// One change. Places are in pages that hold something, since most of a small file is empty.
    fn once(&mut self, files: &mut [Vec<u8>; 3], pages: &[(usize, usize)]) {
        match self.below(6) {
            0 => {
                let (at, length) = (self.place(pages), self.below(32) + 1);
                let bytes = self.take(length);
                at.write(files, bytes);
            }
            1 => {
                let (at, bit) = (self.place(pages), self.below(8));
                if let Some(byte) = files[at.file].get_mut(at.offset) {
                    *byte ^= 1 << bit;
                }
            }
            2 => {
                let at = self.place(pages);
                files[at.file].truncate(at.offset);
            }
            3 => {
                let (at, length, byte) = (self.place(pages), self.length(), self.byte());
                at.write(files, &vec![byte; length]);
            }
            4 => {
                let (from, to, length) = (self.place(pages), self.place(pages), self.length());
                let bytes = from.read(files, length);
                to.write(files, &bytes);
            }
            _ => {
                let (a, b, length) = (self.place(pages), self.place(pages), self.length());
                let (in_a, in_b) = (a.read(files, length), b.read(files, length));
                a.write(files, &in_b);
                b.write(files, &in_a);
            }
        }
    }

    fn place(&mut self, pages: &[(usize, usize)]) -> Place {
        let (file, page) = pages[self.below(pages.len())];
        let within = usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % PAGE;
        Place {
            file,
            offset: page + within,
        }
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

/// A place in the files of a log; they may have become shorter.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    offset: usize,
}

impl Place {
    /// What is there of so many bytes.
    fn read(self, files: &[Vec<u8>; 3], length: usize) -> Vec<u8> {
        let there = files[self.file].get(self.offset..).unwrap_or_default();
        there[..length.min(there.len())].to_vec()
    }

    /// Writes what fits.
    fn write(self, files: &mut [Vec<u8>; 3], bytes: &[u8]) {
        let there = files[self.file].iter_mut().skip(self.offset);
        for (place, byte) in there.zip(bytes) {
            *place = *byte;
        }
    }
}

// ---- a file in memory

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
