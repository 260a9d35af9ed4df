//! Reading a file whose writer was killed, without repairing it.
//!
//! redb refuses to open such a file for reading: mending it is a writer's work. But what needs mending
//! is only the record of free pages, which a reader does not use. Its header is one byte of flags: with
//! `two_phase_commit` set, "the primary slot is guaranteed to be valid", says redb's description of the
//! format, and a repair takes that slot unseen. All commits to a log are such ones. So this backend
//! shows the byte without `recovery_required` where `two_phase_commit` is set, and as it is elsewhere;
//! a file of any other program that needs a repair is refused as before. The file itself is not changed.
//!
//! After the first read that fails redb refuses all others, without a word about that one. So it is kept here.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Where the flags stand in the file.
const FLAGS_OFFSET: u64 = 9;
const RECOVERY_REQUIRED: u8 = 1 << 1;
const TWO_PHASE_COMMIT: u8 = 1 << 2;

/// A file for reading, which shows itself as one that was closed cleanly if it is as good as that.
#[derive(Debug)]
pub(crate) struct UncleanFile {
    file: FileBackend,
    failed: FirstFailure,
}

/// The first read that failed, if one did.
pub(crate) type FirstFailure = Arc<OnceLock<(io::ErrorKind, String)>>;

impl UncleanFile {
    pub(crate) fn new(file: File) -> Result<Self, DatabaseError> {
        Ok(Self {
            file: FileBackend::new(file)?,
            failed: FirstFailure::default(),
        })
    }

    /// Where the first read that fails will be.
    pub(crate) fn first_failure(&self) -> FirstFailure {
        Arc::clone(&self.failed)
    }
}

impl StorageBackend for UncleanFile {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out).inspect_err(|error| {
            self.failed
                .get_or_init(|| (error.kind(), error.to_string()));
        })?;
        let flags = FLAGS_OFFSET
            .checked_sub(offset)
            .and_then(|at| out.get_mut(usize::try_from(at).ok()?));
        if let Some(flags) = flags
            && *flags & TWO_PHASE_COMMIT != 0
        {
            *flags &= !RECOVERY_REQUIRED;
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
