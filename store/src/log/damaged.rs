//! A log whose file was changed from outside: opened, read through, verified, and written.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use crate::event::{Event, NewEvent, Recorded};
use crate::id::{
    ConnectionId, EventId, FrameNumber, Position, Seq, SessionId, StreamId, Timestamp,
};
use crate::log::{Expected, Log, LogReader, Snapshot, verify};

/// How large a file may become, so that a length that lies is refused as a full disk would refuse it.
const FILE_BYTES_MAX: u64 = 32 << 20;

/// What a page of the storage has.
const PAGE: usize = 4096;

/// A good log, damaged as `bytes` say.
///
/// No panic leaves the log, nothing hangs, and what is proven to be whole is what was appended, up to some
/// event.
///
/// # Panics
///
/// Where one of these does not hold.
pub fn open(bytes: &[u8]) {
    let mut damage = Damage(bytes);
    let sample = &SAMPLES[damage.below(SAMPLES.len())];
    let mut image = sample.image.clone();
    while !damage.0.is_empty() {
        damage.once(&mut image, &sample.pages);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let Ok(log) = Log::with_backend(Memory::holding(image)) else {
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
    let read: Vec<_> = read_all(&log).take(sample.events.len() + 2).collect();
    if let Ok(verified) = verify(&log, None) {
        let read: Result<Vec<Recorded>, _> = read.into_iter().collect();
        let read = read.expect("what is whole can be read");
        assert_eq!(read.len() as u64, verified.events);
        assert_eq!(read, sample.events[..read.len()], "whole, but not the same");
    }
    runtime.block_on(async {
        let _ = log
            .append(StreamId::Engine, Expected::Any, vec![said(1)])
            .await;
        let _ = log.close().await;
    });
}

fn read_all(log: &LogReader) -> impl Iterator<Item = crate::Result<Recorded>> + use<> {
    log.read_all(Position::FIRST)
}

// ---- what is damaged

/// A log as its file is, with what it holds.
struct Sample {
    image: Vec<u8>,
    /// The pages that are not empty.
    pages: Vec<usize>,
    events: Vec<Recorded>,
}

/// One that was closed, and one whose writer was killed.
static SAMPLES: LazyLock<[Sample; 2]> = LazyLock::new(|| [sample(true), sample(false)]);

fn streams() -> [StreamId; 3] {
    [
        StreamId::Engine,
        StreamId::Session(SessionId::from_bytes([1; 10])),
        StreamId::Connection(ConnectionId::from_bytes([2; 10])),
    ]
}

fn said(n: u64) -> NewEvent {
    let reason = format!("{n} {}", "x".repeat(200));
    NewEvent::live(Event::StreamLost { reason }, Timestamp(n))
        .with_id(EventId::from_random(n.into()))
        .from_frame(FrameNumber(n))
}

fn sample(closed: bool) -> Sample {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let memory = Memory::holding(Vec::new());
    let image = memory.clone();
    let log = Log::with_backend(memory).expect("a log");
    let (events, killed) = runtime.block_on(async {
        for n in 0..40 {
            let stream = streams()[usize::try_from(n % 3).expect("below three")];
            let few = (0..=n % 7).map(|i| said(10 * n + i));
            log.append(stream, Expected::Any, few.collect())
                .await
                .expect("appended");
            log.put_snapshot(
                stream,
                "state",
                Snapshot {
                    fold_version: 1,
                    seq: Seq(1),
                    bytes: vec![7; 100],
                },
            );
        }
        let events: Result<Vec<_>, _> = read_all(&log).collect();
        let killed = image.bytes().clone();
        log.close().await.expect("closed");
        (events.expect("read"), killed)
    });
    let image = if closed {
        image.bytes().clone()
    } else {
        killed
    };
    let pages = image.chunks(PAGE).enumerate();
    let pages = pages.filter(|(_, page)| page.iter().any(|byte| *byte != 0));
    Sample {
        pages: pages.map(|(number, _)| number).collect(),
        image,
        events,
    }
}

// ---- the damage

/// Bytes that say what is damaged; zeros when they have run out.
struct Damage<'a>(&'a [u8]);

impl<'a> Damage<'a> {
    /// One change. Places are in pages that hold something, since most of a small file is empty.
    fn once(&mut self, image: &mut Vec<u8>, pages: &[usize]) {
        match self.below(6) {
            0 => {
                let (at, length) = (self.place(pages), self.below(32) + 1);
                let bytes = self.take(length);
                write(image, at, bytes);
            }
            1 => {
                let (at, bit) = (self.place(pages), self.below(8));
                if let Some(byte) = image.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            2 => {
                let at = self.place(pages);
                image.truncate(at);
            }
            3 => {
                let (at, length, byte) = (self.place(pages), self.length(), self.byte());
                write(image, at, &vec![byte; length]);
            }
            4 => {
                let (from, to, length) = (self.place(pages), self.place(pages), self.length());
                let bytes = read(image, from, length);
                write(image, to, &bytes);
            }
            _ => {
                let (a, b, length) = (self.place(pages), self.place(pages), self.length());
                let (in_a, in_b) = (read(image, a, length), read(image, b, length));
                write(image, a, &in_b);
                write(image, b, &in_a);
            }
        }
    }

    fn place(&mut self, pages: &[usize]) -> usize {
        let page = pages[self.below(pages.len())];
        page * PAGE + usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % PAGE
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

/// What is there of a range.
fn read(image: &[u8], at: usize, length: usize) -> Vec<u8> {
    let there = image.get(at..).unwrap_or_default();
    there[..length.min(there.len())].to_vec()
}

/// Writes what still lies in the image.
fn write(image: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in image.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
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
            let log = Log::with_backend(Memory::holding(sample.image.clone())).expect("a log");
            let events: Result<Vec<_>, _> = read_all(&log).collect();
            assert_eq!(events.expect("read"), sample.events);
            println!(
                "{} bytes, {} pages, {} events",
                sample.image.len(),
                sample.pages.len(),
                sample.events.len()
            );
        }
        open(&[]);
    }
}
