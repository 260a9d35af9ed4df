//! A disk in memory that fails, fills up, and loses what was not synchronised.
//!
//! What disks do to a log is the matter of the store's own tests, after each single operation. This one is
//! there for what follows: an engine whose log failed, or that finds less after a death than it had seen.

use std::io;
use std::sync::{Arc, Mutex};

use recount_store::{Log, Options, Result};
use redb::StorageBackend;

use crate::dice::Dice;
use crate::life::{Life, Operation};
use crate::trace::Trace;

/// When a log settles: soon, so that a short life sees it settle.
const SETTLE_BYTES: u64 = 64 << 10;

/// What a loss of power leaves whole.
const SECTOR: usize = 512;

/// Clones are the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: [File; 3],
    dice: Dice,
    trace: Trace,
    /// What goes wrong in this life of the engine, and from which operation on.
    fault: Option<(Fault, u64)>,
    operations: u64,
}

/// What goes wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One synchronisation fails.
    Sync,
    /// Nothing that needs room is written any more.
    Full,
}

/// A file of the log.
#[derive(Debug, Default)]
struct File {
    /// What reads see.
    seen: Vec<u8>,
    /// What the last synchronisation left.
    durable: Vec<u8>,
    /// What was done since.
    loose: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write(usize, Arc<[u8]>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, new) => {
                let end = at + new.len();
                if bytes.len() < end {
                    set_length(bytes, end);
                }
                bytes[*at..end].copy_from_slice(new);
            }
            Self::Length(length) => set_length(bytes, *length),
        }
    }
}

/// As `resize`, which takes each byte by itself where it is not optimised.
fn set_length(bytes: &mut Vec<u8>, length: usize) {
    match length.checked_sub(bytes.len()) {
        Some(more) => bytes.append(&mut vec![0; more]),
        None => bytes.truncate(length),
    }
}

impl Disk {
    pub(crate) fn new(dice: Dice, trace: Trace) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: Default::default(),
            dice,
            trace,
            fault: None,
            operations: 0,
        })))
    }

    /// Opens the log on it, for one life of the engine. So many of a thousand appends are slow.
    pub(crate) fn open(&self, life: &Life, fault: Option<(Fault, u64)>, slow: u32) -> Result<Log> {
        {
            let mut state = self.0.lock().unwrap();
            state.fault = fault;
            state.operations = 0;
        }
        let file = |file| Backend {
            disk: self.clone(),
            life: life.clone(),
            file,
        };
        let journal = [1, 2].map(|n| Arc::new(file(n)) as Arc<dyn StorageBackend>);
        let options = Options {
            settle_bytes: SETTLE_BYTES,
            ..Options::default()
        };
        let (dice, life) = (self.0.lock().unwrap().dice.clone(), life.clone());
        Log::without_threads(file(0), journal, options, move || {
            let waits = !life.is_dead() && dice.permille(slow);
            dice.millis(1, 1000) * u32::from(waits)
        })
    }

    /// The files as whoever opens them next finds them: the log's, and the two of its journal.
    pub(crate) fn files(&self) -> [Vec<u8>; 3] {
        let state = self.0.lock().unwrap();
        state.files.each_ref().map(|file| file.seen.clone())
    }

    /// The power is lost: of what was not synchronised, anything may be gone, and a write in part.
    pub(crate) fn lose_power(&self) {
        let state = &mut *self.0.lock().unwrap();
        let lost = state.dice.pick(&[0, 20, 50, 90, 100]);
        let torn = state.dice.pick(&[0, 30, 80]);
        for file in &mut state.files {
            for change in file.loose.drain(..) {
                match &change {
                    _ if state.dice.percent(lost) => {}
                    Change::Write(at, new) if state.dice.percent(torn) => {
                        for (n, sector) in new.chunks(SECTOR).enumerate() {
                            if state.dice.percent(50) {
                                let part = Change::Write(at + n * SECTOR, sector.into());
                                part.apply(&mut file.durable);
                            }
                        }
                    }
                    change => change.apply(&mut file.durable),
                }
            }
            file.seen.clone_from(&file.durable);
        }
        state.trace.say("disk", "loses power");
    }
}

/// A file, as one life of the engine sees it.
#[derive(Debug)]
struct Backend {
    disk: Disk,
    life: Life,
    file: usize,
}

impl Backend {
    fn change(&self, change: Change) -> io::Result<()> {
        let alive = self.life.operate() == Operation::Done;
        let mut state = self.disk.0.lock().unwrap();
        let state = &mut *state;
        state.operations += 1;
        let grows = match &change {
            Change::Write(at, new) => at + new.len() > state.files[self.file].seen.len(),
            Change::Length(length) => *length > state.files[self.file].seen.len(),
        };
        if alive
            && grows
            && let Some((Fault::Full, from)) = state.fault
            && state.operations >= from
        {
            state.trace.say("disk", "is full");
            return Err(io::ErrorKind::StorageFull.into());
        }
        if alive {
            let file = &mut state.files[self.file];
            change.apply(&mut file.seen);
            file.loose.push(change);
            return Ok(());
        }
        Err(dead())
    }
}

fn dead() -> io::Error {
    io::Error::other("there is nobody to do this")
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().unwrap().files[self.file].seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.life.is_dead() {
            return Err(dead());
        }
        let state = self.disk.0.lock().unwrap();
        let at = usize::try_from(offset).expect("a small file");
        let bytes = state.files[self.file].seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).expect("a small file");
        self.change(Change::Length(length))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("a small file");
        self.change(Change::Write(at, data.into()))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.life.operate() != Operation::Done {
            return Err(dead());
        }
        let mut state = self.disk.0.lock().unwrap();
        let state = &mut *state;
        state.operations += 1;
        if let Some((Fault::Sync, from)) = state.fault
            && state.operations >= from
        {
            state.fault = None;
            state.trace.say("disk", "fails to synchronise");
            return Err(io::Error::other("the disk failed to synchronise"));
        }
        let file = &mut state.files[self.file];
        for change in file.loose.drain(..) {
            change.apply(&mut file.durable);
        }
        Ok(())
    }
}
