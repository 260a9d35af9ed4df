//! A disk in memory that does to a log what real ones do: lose power, fail, fill up, shrink, dawdle.
//!
//! It holds the files of one log behind redb's `StorageBackend` and counts the operations on all of
//! them (writes, changes of length, syncs) with one counter. It remembers every operation, so the disk
//! that a loss of power after any of them leaves behind can be made later, as often as one likes:
//!
//! - What was synced is there. A sync speaks for its own file alone.
//! - Each operation since the last sync of its file is there or not, as chance or a [`Fate`] will have
//!   it. Of a write, any of its 512-byte sectors may be there. A later one may survive an earlier one.
//! - After a failed sync nobody knows what it left out: what was unsynced then stays so for ever, even
//!   when a later sync succeeds, while reads go on showing it. Kernels do that.
//!
//! Sectors themselves are whole: a disk that promises less than that needs checksums below redb's.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_store::{Log, Options, Result};
use redb::StorageBackend;

use crate::chance::Chance;

/// What a power failure leaves whole.
const SECTOR: u64 = 512;

/// When a log settles: soon, so that a short life sees it settle several times.
const SETTLE_BYTES: u64 = 48 << 10;

/// A file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum File {
    Database,
    JournalA,
    JournalB,
}

impl File {
    const COUNT: usize = 3;
}

/// What is to go wrong. Operations count from 1 over the life of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power is lost during this operation. It fails, and so does everything after it, reads too.
    Crash { at: u64 },
    /// The first sync from this operation on fails.
    FailedSync { from: u64 },
    /// From this operation on nothing is written that needs room: writes get half way and fail.
    Full { from: u64 },
    /// From this operation on nothing may be changed.
    ReadOnly { from: u64 },
    /// Somebody cuts a file short, right before this operation.
    Shrunk { at: u64, file: File, len: u64 },
}

/// What becomes of unsynced operations when the power is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None of them happened.
    Lost,
    /// All of them happened.
    Applied,
    /// Chance decides for each, by this seed.
    Chance(u64),
}

/// Called before each operation, with its number, and each read: a slow disk sleeps here.
type Pace = Arc<dyn Fn(u64) + Send + Sync>;

/// A disk. A clone is the same disk.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    pace: Option<Pace>,
}

struct State {
    /// What reads see.
    files: [Image; File::COUNT],
    trace: Trace,
    faults: Vec<Fault>,
    /// How many operations failed.
    failures: u64,
    crashed: bool,
}

impl Disk {
    /// A disk with empty files.
    pub(crate) fn new() -> Self {
        Self::holding(Default::default())
    }

    fn holding(files: [Image; File::COUNT]) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                trace: Trace {
                    base: files.clone(),
                    operations: Vec::new(),
                },
                files,
                faults: Vec::new(),
                failures: 0,
                crashed: false,
            })),
            pace: None,
        }
    }

    /// Arranges for a fault.
    pub(crate) fn expect(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// The same disk, at another pace for the files taken from it.
    pub(crate) fn at_pace(&self, pace: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self {
            state: Arc::clone(&self.state),
            pace: Some(Arc::new(pace)),
        }
    }

    /// Loses the power now: no operation is under way, and none will happen.
    pub(crate) fn crash(&self) {
        self.lock().crashed = true;
    }

    /// How many operations there were.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().trace.len()
    }

    /// How many operations failed.
    pub(crate) fn failures(&self) -> u64 {
        self.lock().failures
    }

    /// Whether a fault is arranged for.
    pub(crate) fn may_fail(&self) -> bool {
        !self.lock().faults.is_empty()
    }

    /// Ends all faults. What they did stays done.
    pub(crate) fn mend(&self) {
        self.lock().faults.clear();
    }

    /// Whether reads may fail too.
    pub(crate) fn is_unreadable(&self) -> bool {
        let state = self.lock();
        state.crashed
            || state
                .trace
                .operations
                .iter()
                .any(|o| matches!(o.change, Change::Shrunk(_)))
    }

    /// A disk with nothing of this one but a file.
    pub(crate) fn only(&self, file: File) -> Self {
        let mut files: [Image; File::COUNT] = Default::default();
        files[file as usize] = self.lock().files[file as usize].clone();
        Self::holding(files)
    }

    /// Opens the log that it holds, or makes one.
    pub(crate) fn open(&self) -> Result<Log> {
        let journal = [File::JournalA, File::JournalB]
            .map(|file| Arc::new(self.file(file)) as Arc<dyn StorageBackend>);
        let options = Options {
            settle_bytes: SETTLE_BYTES,
            ..Options::default()
        };
        Log::with_backends(self.file(File::Database), journal, options)
    }

    /// A file, to be used as storage.
    pub(crate) fn file(&self, file: File) -> Backend {
        Backend {
            disk: self.clone(),
            file,
        }
    }

    /// Everything that happened so far.
    pub(crate) fn trace(&self) -> Trace {
        self.lock().trace.clone()
    }

    /// The disk that is left when the power is lost now.
    pub(crate) fn survivors(&self, fate: Fate) -> Self {
        self.trace().survivors(u64::MAX, fate)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics elsewhere leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_pace(&self) {
        if let Some(pace) = &self.pace {
            let next = self.operations() + 1;
            pace(next);
        }
    }

    fn operate(&self, file: File, change: Change) -> io::Result<()> {
        self.keep_pace();
        let mut state = self.lock();
        let done = state.operate(file, change);
        state.failures += u64::from(done.is_err());
        done
    }
}

impl State {
    fn operate(&mut self, file: File, change: Change) -> io::Result<()> {
        if self.crashed {
            return Err(power_lost());
        }
        let number = self.trace.len() + 1;
        for fault in self.faults.clone() {
            match fault {
                Fault::Crash { at } if number >= at => {
                    self.crashed = true;
                    // It was under way: a write may be there in part. A sync was not done.
                    if !matches!(change, Change::Sync) {
                        self.record(file, change);
                    }
                    return Err(power_lost());
                }
                Fault::FailedSync { from } if number >= from && matches!(change, Change::Sync) => {
                    self.faults.retain(|other| *other != fault);
                    self.record(file, Change::FailedSync);
                    return Err(io::Error::other("the sync failed"));
                }
                Fault::Full { from } if number >= from => {
                    let len = self.files[file as usize].len;
                    match change {
                        // The room of what is there is there, but for file systems that write elsewhere.
                        Change::Write { offset, bytes } => {
                            let half = bytes.len() / 2;
                            let bytes = Arc::from(&bytes[..half]);
                            self.record(file, Change::Write { offset, bytes });
                            return Err(io::ErrorKind::StorageFull.into());
                        }
                        Change::SetLen(wanted) if wanted > len => {
                            return Err(io::ErrorKind::StorageFull.into());
                        }
                        _ => {}
                    }
                }
                Fault::ReadOnly { from } if number >= from => {
                    return Err(io::ErrorKind::ReadOnlyFilesystem.into());
                }
                Fault::Shrunk {
                    at,
                    file: which,
                    len,
                } if number >= at => {
                    self.faults.retain(|other| *other != fault);
                    self.record(which, Change::Shrunk(len));
                }
                _ => {}
            }
        }
        self.record(file, change);
        Ok(())
    }

    fn record(&mut self, file: File, change: Change) {
        change.apply(&mut self.files[file as usize]);
        self.trace.operations.push(Operation { file, change });
    }
}

fn power_lost() -> io::Error {
    io::Error::other("the power is lost")
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Disk({} operations)", self.operations())
    }
}

/// A file of a disk, as storage.
#[derive(Debug)]
pub(crate) struct Backend {
    disk: Disk,
    file: File,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.lock();
        if state.crashed {
            return Err(power_lost());
        }
        Ok(state.files[self.file as usize].len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.keep_pace();
        let state = self.disk.lock();
        if state.crashed {
            return Err(power_lost());
        }
        state.files[self.file as usize].read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate(self.file, Change::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operate(self.file, Change::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let bytes = Arc::from(data);
        self.disk
            .operate(self.file, Change::Write { offset, bytes })
    }
}

/// What a disk held once, and what happened to it since.
#[derive(Clone)]
pub(crate) struct Trace {
    base: [Image; File::COUNT],
    operations: Vec<Operation>,
}

#[derive(Clone)]
struct Operation {
    file: File,
    change: Change,
}

#[derive(Clone)]
enum Change {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen(u64),
    /// From outside, and at once: it needs no sync.
    Shrunk(u64),
    Sync,
    FailedSync,
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Self::Write { offset, bytes } => image.write(*offset, bytes),
            Self::SetLen(len) => image.set_len(*len),
            Self::Shrunk(len) => image.set_len(image.len.min(*len)),
            Self::Sync | Self::FailedSync => {}
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "write {offset} {}", bytes.len()),
            Self::SetLen(len) => write!(f, "length {len}"),
            Self::Shrunk(len) => write!(f, "shrunk {len}"),
            Self::Sync => f.write_str("sync"),
            Self::FailedSync => f.write_str("failed sync"),
        }
    }
}

impl Trace {
    /// What happened, without what was written.
    pub(crate) fn operations(&self) -> Vec<(File, String)> {
        self.operations
            .iter()
            .map(|operation| (operation.file, operation.change.to_string()))
            .collect()
    }

    pub(crate) fn len(&self) -> u64 {
        self.operations.len() as u64
    }

    /// The numbers of the operations that are syncs.
    pub(crate) fn syncs(&self) -> Vec<u64> {
        (1..)
            .zip(&self.operations)
            .filter(|(_, operation)| matches!(operation.change, Change::Sync))
            .map(|(number, _)| number)
            .collect()
    }

    /// The disk that is left when the power is lost after so many operations.
    pub(crate) fn survivors(&self, after: u64, fate: Fate) -> Disk {
        let mut replay = self.replay();
        while replay.done < after && replay.step() {}
        replay.survivors(fate)
    }

    /// Goes through the operations one by one, to lose the power between any two of them.
    pub(crate) fn replay(&self) -> Replay<'_> {
        Replay {
            files: self.base.clone().map(|durable| Unsettled {
                durable,
                loose: Vec::new(),
            }),
            rest: &self.operations,
            done: 0,
        }
    }
}

/// A trace up to some operation.
pub(crate) struct Replay<'a> {
    files: [Unsettled; File::COUNT],
    rest: &'a [Operation],
    /// How many operations it is past.
    pub(crate) done: u64,
}

/// A file as far as its syncs vouch for it.
struct Unsettled {
    durable: Image,
    loose: Vec<Loose>,
}

/// An operation after one that no sync vouches for.
struct Loose {
    change: Change,
    holds: Holds,
}

/// Whether an operation survives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    /// The next sync will say so.
    NotYet,
    /// A sync failed, and no other will ever say.
    Never,
}

impl Replay<'_> {
    /// Goes past the next operation; false where there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some((operation, rest)) = self.rest.split_first() else {
            return false;
        };
        self.rest = rest;
        self.done += 1;
        self.files[operation.file as usize].take(&operation.change);
        true
    }

    /// The disk that is left when the power is lost here.
    pub(crate) fn survivors(&self, fate: Fate) -> Disk {
        let mut chance = match fate {
            Fate::Chance(seed) => Chance::new(seed),
            _ => Chance::new(0),
        };
        // Some losses take almost all, some almost nothing: either finds what the middle does not.
        let odds = Odds {
            lost: chance.pick(&[2, 20, 50, 90]),
            torn: chance.pick(&[0, 30, 80]),
        };
        let files = std::array::from_fn(|n| self.files[n].survivor(fate, odds, &mut chance));
        Disk::holding(files)
    }
}

/// Out of a hundred: how many operations are lost, and how many of the other writes are torn.
#[derive(Clone, Copy)]
struct Odds {
    lost: usize,
    torn: usize,
}

impl Unsettled {
    fn take(&mut self, change: &Change) {
        let become_of = |loose: &mut Vec<Loose>, holds| {
            for loose in loose
                .iter_mut()
                .filter(|loose| loose.holds == Holds::NotYet)
            {
                loose.holds = holds;
            }
        };
        match change {
            Change::Sync => become_of(&mut self.loose, Holds::Yes),
            Change::FailedSync => become_of(&mut self.loose, Holds::Never),
            Change::Write { .. } | Change::SetLen(_) | Change::Shrunk(_) => {
                self.loose.push(Loose {
                    change: change.clone(),
                    holds: match change {
                        Change::Shrunk(_) => Holds::Yes,
                        _ => Holds::NotYet,
                    },
                });
            }
        }
        // What stands behind one that may be lost waits for it, since their order matters.
        let settled = self
            .loose
            .iter()
            .take_while(|loose| loose.holds == Holds::Yes);
        let settled = settled.count();
        for loose in self.loose.drain(..settled) {
            loose.change.apply(&mut self.durable);
        }
    }

    fn survivor(&self, fate: Fate, odds: Odds, chance: &mut Chance) -> Image {
        let mut image = self.durable.clone();
        for loose in &self.loose {
            match fate {
                _ if loose.holds == Holds::Yes => loose.change.apply(&mut image),
                Fate::Applied => loose.change.apply(&mut image),
                Fate::Lost => {}
                Fate::Chance(_) if chance.percent(odds.lost) => {}
                Fate::Chance(_) => match &loose.change {
                    Change::Write { offset, bytes } if chance.percent(odds.torn) => {
                        for (offset, sector) in sectors(*offset, bytes) {
                            if chance.percent(50) {
                                image.write(offset, sector);
                            }
                        }
                    }
                    whole => whole.apply(&mut image),
                },
            }
        }
        image
    }
}

/// The pieces of a write that lie in different sectors.
fn sectors(mut offset: u64, mut bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let room = usize::try_from(SECTOR - offset % SECTOR).expect("small");
        let (sector, rest) = bytes.split_at(room.min(bytes.len()));
        let at = offset;
        offset += sector.len() as u64;
        bytes = rest;
        Some((at, sector))
    })
}

/// The bytes of a file. A clone shares its pages until one of the two changes them.
#[derive(Clone, Default)]
struct Image {
    len: u64,
    /// `None` where nothing was written: zeros.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

const PAGE: usize = 4096;

impl Image {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, piece) in pieces(offset, out.len()) {
            match &self.pages[page] {
                Some(bytes) => out[piece].copy_from_slice(&bytes[within]),
                None => out[piece].fill(0),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        if end > self.len {
            self.set_len(end);
        }
        for (page, within, piece) in pieces(offset, data.len()) {
            if self.pages[page].is_none() && data[piece.clone()].iter().all(|byte| *byte == 0) {
                continue;
            }
            let bytes = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[within].copy_from_slice(&data[piece]);
        }
    }

    fn set_len(&mut self, len: u64) {
        let whole = usize::try_from(len).expect("it fits in memory");
        // What is cut off reads as zeros if the file grows again.
        if let Some(Some(last)) = self.pages.get_mut(whole / PAGE)
            && len < self.len
        {
            Arc::make_mut(last)[whole % PAGE..].fill(0);
        }
        self.pages.resize(whole.div_ceil(PAGE), None);
        self.len = len;
    }
}

/// Cuts a range of a file at pages: each page, the range in it, and the range in the caller's bytes.
fn pieces(
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (usize, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let start = usize::try_from(offset).expect("it fits in memory");
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let within = (start + at) % PAGE;
        let size = (PAGE - within).min(len - at);
        let piece = at..at + size;
        let page = (start + at) / PAGE;
        at += size;
        Some((page, within..within + size, piece))
    })
}

/// The whole of a file, for the tests below.
fn contents(disk: &Disk) -> Vec<u8> {
    let file = disk.file(File::Database);
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
    file.read(0, &mut bytes).expect("read");
    bytes
}

#[test]
fn a_file_is_bytes() {
    let disk = Disk::new();
    let file = disk.file(File::Database);
    file.write(5000, &[1; 5000]).expect("written");
    file.write(4090, &[2; 10]).expect("written");
    file.set_len(9000).expect("cut");
    file.set_len(9500).expect("grown");
    let mut expected = vec![0; 9500];
    expected[5000..9000].fill(1);
    expected[4090..4100].fill(2);
    assert_eq!(contents(&disk), expected);
    let end = file.read(9499, &mut [0; 2]).expect_err("beyond the end");
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(disk.operations(), 4);
}

#[test]
fn what_is_synced_survives_and_the_rest_may() {
    let disk = Disk::new();
    let file = disk.file(File::Database);
    file.write(0, &[1; 2048]).expect("written");
    file.sync_data().expect("synced");
    file.write(0, &[2; 2048]).expect("written");
    file.write(2048, &[3; 512]).expect("written");

    assert_eq!(contents(&disk.survivors(Fate::Lost)), [1; 2048]);
    let all = [[2; 2048].as_slice(), &[3; 512]].concat();
    assert_eq!(contents(&disk.survivors(Fate::Applied)), all);
    let mut seen = std::collections::HashSet::new();
    for seed in 0..2000 {
        let survivors = contents(&disk.survivors(Fate::Chance(seed)));
        assert_eq!(survivors, contents(&disk.survivors(Fate::Chance(seed))));
        for sector in survivors.chunks(512) {
            assert!(
                [1, 2, 3].iter().any(|n| sector == [*n; 512]),
                "a sector is whole"
            );
        }
        seen.insert(
            survivors
                .chunks(512)
                .map(|sector| sector[0])
                .collect::<Vec<_>>(),
        );
    }
    // Each of four sectors old or new, the fifth there or not: every way happens.
    assert_eq!(seen.len(), 32);
    assert_eq!(
        contents(&disk.trace().survivors(1, Fate::Applied)),
        [1; 2048]
    );
    assert_eq!(contents(&disk.trace().survivors(1, Fate::Lost)), b"");
}

#[test]
fn after_a_failed_sync_nobody_knows() {
    let disk = Disk::new();
    let file = disk.file(File::Database);
    file.write(0, &[1; 512]).expect("written");
    disk.expect(Fault::FailedSync { from: 0 });
    file.sync_data().expect_err("it fails");
    file.write(512, &[2; 512]).expect("written");
    file.sync_data().expect("the next one succeeds");
    let all = [[1; 512], [2; 512]].concat();
    assert_eq!(contents(&disk), all, "reads show everything");
    let lost = [[0; 512], [2; 512]].concat();
    assert_eq!(contents(&disk.survivors(Fate::Lost)), lost);
    assert_eq!(contents(&disk.survivors(Fate::Applied)), all);
}

#[test]
fn faults_come_when_they_are_due() {
    let kind = |result: io::Result<()>| result.map_err(|error| error.kind());
    let disk = Disk::new();
    let file = disk.file(File::Database);
    file.write(0, &[1; 1024]).expect("written");
    disk.expect(Fault::Shrunk {
        at: 2,
        file: File::Database,
        len: 512,
    });
    file.write(0, &[2; 256]).expect("written");
    let shrunk = [[2; 256], [1; 256]].concat();
    assert_eq!(contents(&disk), shrunk);

    disk.expect(Fault::Full { from: 4 });
    let full = Err(io::ErrorKind::StorageFull);
    assert_eq!(kind(file.write(0, &[3; 256])), full);
    assert_eq!(kind(file.set_len(4096)), full);
    assert_eq!(kind(file.set_len(256)), Ok(()));
    assert_eq!(contents(&disk), [[3; 128], [2; 128]].concat());

    disk.expect(Fault::ReadOnly { from: 0 });
    let read_only = Err(io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(file.set_len(256)), read_only);
    assert_eq!(kind(file.sync_data()), read_only);
    assert_eq!(contents(&disk).len(), 256);

    let disk = disk.survivors(Fate::Applied);
    let file = disk.file(File::Database);
    disk.expect(Fault::Crash { at: 1 });
    file.write(0, &[4; 256]).expect_err("the power is lost");
    file.read(0, &mut [0]).expect_err("the power is lost");
    assert_eq!(contents(&disk.survivors(Fate::Applied)), [4; 256]);
    assert_eq!(
        contents(&disk.survivors(Fate::Lost)),
        [[3; 128], [2; 128]].concat()
    );
}
