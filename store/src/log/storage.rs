//! The storage under a log: one redb file, looked at in transactions, and what its errors mean.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{
    Builder, CompactionError, ConcurrencyMode, Database, DatabaseError, ReadOnlyDatabase,
    ReadTransaction, ReadableDatabase as _, StorageBackend, StorageError, WriteTransaction,
};

use crate::error::{Error, Result};
use crate::id::Position;
use crate::limits;
use crate::log::unclean::{FirstFailure, UncleanFile};

/// A log's file, open.
pub(crate) struct Storage {
    path: PathBuf,
    handle: Handle,
}

enum Handle {
    /// Ours to write; `None` once it was closed.
    Writer(RwLock<Option<Database>>),
    /// Another process may be writing it.
    Reader(ReadOnlyDatabase, FirstFailure),
}

impl Storage {
    /// Opens a file for writing; it must be a database already.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let database = guard(|| Ok(builder(ConcurrencyMode::SingleWriter).open(path)?))?;
        Ok(Self::writer(path.to_owned(), database))
    }

    /// Makes a database of a file that is empty.
    pub(crate) fn create(path: &Path, file: File) -> Result<Self, Fault> {
        let builder = builder(ConcurrencyMode::SingleWriter);
        let database = guard(|| Ok(builder.create_with_backend(FileBackend::new(file)?)?))?;
        Ok(Self::writer(path.to_owned(), database))
    }

    /// Opens a file for reading, without changing a byte of it; its last writer may have been killed.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, Fault> {
        let handle = guard(|| {
            let file = UncleanFile::new(File::open(path).map_err(StorageError::Io)?)?;
            let failed = file.first_failure();
            let builder = builder(ConcurrencyMode::SingleWriter);
            let database = builder.open_read_only_with_backend(file)?;
            Ok(Handle::Reader(database, failed))
        })?;
        Ok(Self {
            path: path.to_owned(),
            handle,
        })
    }

    /// Opens or makes a database in a backend that no other process shares.
    pub(crate) fn with_backend(backend: impl StorageBackend) -> Result<Self, Fault> {
        let builder = builder(ConcurrencyMode::ExclusiveWriter);
        let database = guard(|| Ok(builder.create_with_backend(backend)?))?;
        Ok(Self::writer(PathBuf::from("(memory)"), database))
    }

    fn writer(path: PathBuf, database: Database) -> Self {
        Self {
            path,
            handle: Handle::Writer(RwLock::new(Some(database))),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at the storage as it is now. What a look sees stays on disk until it ends, so looks are short.
    ///
    /// `near` says which event was wanted, for the error.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Read`], or [`Error::Corrupt`] where the file holds what cannot be.
    pub(crate) fn view<T>(
        &self,
        near: Position,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T> {
        guard(|| look(&self.begin_read()?)).map_err(|fault| self.first_of(fault).near(near))
    }

    /// What a fault of a look is: where it only says that an earlier read failed, what that one said.
    pub(crate) fn first_of(&self, fault: Fault) -> Fault {
        match (&fault, &self.handle) {
            (Fault::Earlier, Handle::Reader(_, failed)) => match failed.get() {
                Some((kind, what)) => {
                    redb::Error::Io(std::io::Error::new(*kind, what.clone())).into()
                }
                None => fault,
            },
            _ => fault,
        }
    }

    /// Begins a look; what it sees stays on disk until it ends.
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, Fault> {
        Ok(match &self.handle {
            Handle::Reader(database, _) => database.begin_read()?,
            // The lock is held for this call alone: closing does not wait for looks, it ends them.
            Handle::Writer(database) => database
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .ok_or(Error::Closed)?
                .begin_read()?,
        })
    }

    /// Changes the storage, all or nothing, and returns when that is durable.
    ///
    /// A change has one table open at a time: should redb panic on a damaged one while it opens it, it would panic
    /// again on closing another, and two panics at once end the process.
    ///
    /// Quick repair is on: it saves the walk over the whole file that opening after a crash would need.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Handle::Writer(database) = &self.handle else {
            unreachable!("only the log's writer changes the storage, and it opens it for writing");
        };
        guard(|| {
            let mut transaction = database
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .as_ref()
                .ok_or(Error::Closed)?
                .begin_write()?;
            transaction.set_quick_repair(true);
            let changed = change(&transaction)?;
            transaction.commit()?;
            Ok(changed)
        })
    }

    /// The bytes that the file takes on the disk; 0 in memory.
    ///
    /// The storage makes a file twice as long when it needs room, and what is not written takes none.
    pub(crate) fn bytes_on_disk(&self) -> Result<u64, Fault> {
        match std::fs::metadata(&self.path) {
            #[cfg(unix)]
            Ok(metadata) => Ok(std::os::unix::fs::MetadataExt::blocks(&metadata) * 512),
            #[cfg(not(unix))]
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the file as short as it can be; false where somebody looks at it, and it has to stay.
    ///
    /// Safe against being killed. What opening would have to walk over then is saved by the change after it.
    pub(crate) fn shrink(&self) -> Result<bool, Fault> {
        let Handle::Writer(database) = &self.handle else {
            unreachable!("only the log's writer changes the storage, and it opens it for writing");
        };
        let shrunk = guard(|| {
            let mut database = database.write().unwrap_or_else(PoisonError::into_inner);
            match database.as_mut().ok_or(Error::Closed)?.compact() {
                Ok(_) => Ok(true),
                Err(CompactionError::TransactionInProgress) => Ok(false),
                Err(error) => Err(redb::Error::from(error).into()),
            }
        })?;
        self.change(|_| Ok(()))?;
        Ok(shrunk)
    }

    /// Lets go of the file. Looks that are under way end with [`Error::Closed`].
    pub(crate) fn close(&self) -> Result<(), Fault> {
        let Handle::Writer(database) = &self.handle else {
            return Ok(());
        };
        let database = database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        guard(|| match database {
            Some(database) => Ok(database.close()?),
            None => Ok(()),
        })
    }
}

impl Drop for Storage {
    /// As closing does: after a panic in redb that was caught, dropping its database may panic once more.
    fn drop(&mut self) {
        let _ = self.close();
    }
}

fn builder(mode: ConcurrencyMode) -> Builder {
    let mut builder = Builder::new();
    builder
        .set_concurrency_mode(mode)
        .set_cache_size(limits::CACHE_BYTES);
    builder
}

/// Runs what calls into redb, and makes a panic inside it an error.
///
/// redb trusts the pages of a file; on one that was damaged from outside it may panic instead of giving
/// an error. Everything that opens or reads passes here, so a damaged file never ends the process. Its
/// locks may be poisoned after that; it then answers with errors, which is all that is asked of it.
pub(crate) fn guard<T>(run: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Fault::Damaged(format!("reading it went wrong: {what}")))
    })
}

/// What is wrong with a file of which the end is missing.
const CUT_SHORT: &str = "its file is cut short";

/// What can go wrong while the storage is used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The storage is in use by another writer.
    Locked,
    /// The operating system refused.
    Io(Arc<std::io::Error>),
    /// The file holds what cannot be.
    Damaged(String),
    /// An earlier read or write failed, and said why; the storage does nothing more.
    Earlier,
    /// Anything else that the storage says.
    Other(String),
    /// An error that has its final form.
    Ours(Error),
}

impl Fault {
    /// The error that it is for whoever wanted the event at `position`.
    pub(crate) fn near(self, position: Position) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Damaged(what) => Error::Corrupt { position, what },
            other => Error::Read {
                reason: other.to_string(),
            },
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Locked => f.write_str("another process writes it"),
            Self::Io(error) => error.fmt(f),
            Self::Damaged(what) | Self::Other(what) => f.write_str(what),
            Self::Earlier => f.write_str("an earlier read or write of its file failed"),
            Self::Ours(error) => error.fmt(f),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::Locked,
            redb::Error::DatabaseClosed => Self::Ours(Error::Closed),
            // The file ends before a page that it should hold.
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Self::Damaged(CUT_SHORT.to_owned())
            }
            // This is how redb says that a file does not begin as one of its own.
            redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(Arc::new(error)),
            redb::Error::PreviousIo => Self::Earlier,
            // What redb says where a file is shorter than its header has it, with its own words for that.
            redb::Error::Corrupted(what) if what.starts_with("File truncated") => {
                Self::Damaged(CUT_SHORT.to_owned())
            }
            redb::Error::Corrupted(_)
            | redb::Error::RepairAborted
            | redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_) => Self::Damaged(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

macro_rules! through_redb_error {
    ($($error:ty),*) => {
        $(
            impl From<$error> for Fault {
                fn from(error: $error) -> Self {
                    redb::Error::from(error).into()
                }
            }
        )*
    };
}
through_redb_error!(
    DatabaseError,
    StorageError,
    redb::TransactionError,
    redb::TableError,
    redb::CommitError
);
