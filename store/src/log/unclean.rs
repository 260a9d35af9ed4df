//! Reading a file whose writer was killed, without repairing it.
//!
//! redb refuses to open such a file for reading: mending it is a writer's work. But what needs mending
//! is only the record of free pages, which a reader does not use. Its header is one byte of flags: with
//! `two_phase_commit` set, "the primary slot is guaranteed to be valid", says redb's description of the
//! format, and a repair takes that slot unseen. All commits to a log are such ones. So this backend
//! shows the byte without `recovery_required` where `two_phase_commit` is set, and as it is elsewhere;
//! a file of any other program that needs a repair is refused as before. The file itself is not changed.

use std::fs::File;
use std::io;
use std::ops::Bound;

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

/// Where the flags stand in the file.
const FLAGS_OFFSET: u64 = 9;
const RECOVERY_REQUIRED: u8 = 1 << 1;
const TWO_PHASE_COMMIT: u8 = 1 << 2;

/// A file for reading, which shows itself as one that was closed cleanly if it is as good as that.
#[derive(Debug)]
pub(crate) struct UncleanFile(FileBackend);

impl UncleanFile {
    pub(crate) fn new(file: File) -> Result<Self, DatabaseError> {
        FileBackend::new(file).map(Self)
    }
}

impl StorageBackend for UncleanFile {
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)?;
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
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.0.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.query_lock_range(start, end)
    }
}
