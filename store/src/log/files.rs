//! The data directory: finding the log in it, making one, and leaving alone what is not ours.
//!
//! Nothing is ever overwritten. What is there is first opened for reading, which changes no byte of it,
//! and only a file that proves to be a log is opened for writing. A new log is made whole under a name
//! of its own and then linked to its place, so that whoever finds a log finds a whole one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::backends::FileBackend;
use redb::{ReadTransaction, ReadableTable as _, StorageBackend as _};

use crate::error::{Error, Result};
use crate::event::Event;
use crate::id::{Position, Seq, StreamId};
use crate::limits;
use crate::log::journal::{self, Key};
use crate::log::storage::{Fault, Storage, guard};
use crate::log::{Holder, LogReader, table};

/// The log's file in its directory.
const LOG: &str = "log.redb";
/// The two files of its journal.
const JOURNAL: [&str; 2] = ["journal-a", "journal-b"];
/// How the names of files begin that are to become the log.
const UNFINISHED: &str = "log.redb.new-";
/// What else is kept in the directory: by the engine, and its policy by whoever runs it.
const OURS: &[&str] = &["servers", "recount.toml"];

/// Opens the log of a directory for writing, making both where they are missing.
pub(crate) fn open(directory: &Path) -> Result<Storage> {
    make_directory(directory)?;
    let path = directory.join(LOG);
    if !exists(&path)? {
        create(directory)?;
    }
    // For reading first: a file that is no log is not to be changed by finding that out.
    drop(open_read_only(directory)?);
    let storage = Storage::open(&path).map_err(|fault| match fault {
        Fault::Locked => Error::Locked {
            holder: holder(directory),
            path,
        },
        // It was read as a log just now.
        fault @ Fault::Damaged(_) => fault.near(Position::FIRST),
        fault => refused(path, fault),
    })?;
    // Of processes that were killed while they made a log. One that is alive finds this log instead.
    for name in names(directory)? {
        if name.starts_with(UNFINISHED) {
            let _ = fs::remove_file(directory.join(name));
        }
    }
    Ok(storage)
}

/// Opens the log of a directory for reading.
pub(crate) fn open_read_only(directory: &Path) -> Result<Storage> {
    let path = directory.join(LOG);
    if !exists(&path)? {
        return Err(Error::NoLog {
            path: directory.to_owned(),
        });
    }
    let metadata = fs::metadata(&path).map_err(io_error("look at", &path))?;
    let not_a_log = |reason: &str| Error::NotALog {
        path: path.clone(),
        reason: reason.to_owned(),
    };
    if !metadata.is_file() {
        return Err(not_a_log("it is not a file"));
    }
    if metadata.len() == 0 {
        return Err(not_a_log("it is empty"));
    }
    let storage = Storage::open_read_only(&path).map_err(|fault| refused(path.clone(), fault))?;
    let looked = guard(|| {
        let transaction = storage.begin_read()?;
        let format = format(&transaction)?;
        Ok((transaction, format))
    });
    match looked {
        Ok((transaction, Some(table::FORMAT_VALUE))) => {
            // A file that was cut short may still have its beginning. What the end says is not asked here.
            guard(|| Ok(transaction.open_table(table::BLOCKS)?.last().map(drop)?))
                .map_err(|fault| fault.near(Position::FIRST))?;
            Ok(storage)
        }
        Ok((_, Some(found))) => Err(Error::NewerLog {
            path,
            found,
            known: table::FORMAT_VALUE,
        }),
        Ok((_, None)) => Err(not_a_log("it is a database of something else")),
        Err(Fault::Damaged(what)) => Err(not_a_log(&what)),
        Err(fault) => Err(fault.near(Position::FIRST)),
    }
}

/// Opens the journal of a directory for writing, making its files where they are missing.
pub(crate) fn open_journal(directory: &Path) -> Result<[journal::File; 2]> {
    let open = |name: &str| -> Result<journal::File> {
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(io_error("open", &path))?;
        backend(file, path)
    };
    let files = [open(JOURNAL[0])?, open(JOURNAL[1])?];
    // An entry is no safer than the name of its file.
    sync_directory(directory)?;
    Ok(files)
}

/// Opens the journal of a directory for reading; `None` where it has none yet.
pub(crate) fn open_journal_read_only(directory: &Path) -> Result<Option<[journal::File; 2]>> {
    let open = |name: &str| -> Result<Option<journal::File>> {
        let path = directory.join(name);
        match File::open(&path) {
            Ok(file) => backend(file, path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open", &path)(error)),
        }
    };
    let [a, b] = JOURNAL;
    Ok(open(a)?.zip(open(b)?).map(|(a, b)| [a, b]))
}

fn backend(file: File, path: PathBuf) -> Result<journal::File> {
    match FileBackend::new(file) {
        Ok(backend) => Ok(Arc::new(backend)),
        Err(error) => Err(refused(path, error.into())),
    }
}

/// Writes what makes an empty database a log; its journal will be known by `key`.
pub(crate) fn initialise(storage: &Storage, key: &Key) -> Result<(), Fault> {
    storage.change(|transaction| {
        let mut meta = transaction.open_table(table::META)?;
        meta.insert(table::MAGIC, table::MAGIC_VALUE)?;
        meta.insert(table::FORMAT, table::FORMAT_VALUE.to_le_bytes().as_slice())?;
        meta.insert(table::JOURNAL_KEY, key.as_slice())?;
        drop(meta);
        transaction.open_table(table::BLOCKS)?;
        Ok(())
    })
}

/// Whether a database is a log already.
pub(crate) fn is_initialised(storage: &Storage) -> Result<bool, Fault> {
    guard(|| Ok(format(&storage.begin_read()?)?.is_some()))
}

/// What the entries of a log's journal are known by.
pub(crate) fn journal_key(transaction: &ReadTransaction) -> Result<Key, Fault> {
    let meta = transaction.open_table(table::META)?;
    let row = meta.get(table::JOURNAL_KEY)?;
    row.and_then(|row| row.value().try_into().ok())
        .ok_or_else(|| Fault::Damaged("it does not say what its journal is known by".to_owned()))
}

/// How many events are gone that no stream was cut of: they were left out when the log was imported.
pub(crate) fn left_out(transaction: &ReadTransaction) -> Result<u64, Fault> {
    let meta = transaction.open_table(table::META)?;
    let Some(row) = meta.get(table::LEFT_OUT)? else {
        return Ok(0);
    };
    let bytes = <[u8; 8]>::try_from(row.value())
        .map_err(|_| Fault::Damaged("how many events were left out is no number".to_owned()))?;
    Ok(u64::from_le_bytes(bytes))
}

/// A new key for a journal.
pub(crate) fn new_key() -> Result<Key, Fault> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| Fault::Other(error.to_string()))?;
    Ok(key)
}

/// The format of a log; `None` where the database is none.
fn format(transaction: &ReadTransaction) -> Result<Option<u32>, Fault> {
    let meta = match transaction.open_table(table::META) {
        Ok(meta) => meta,
        Err(redb::TableError::Storage(error)) => return Err(error.into()),
        // Not there, or of another kind: somebody else's.
        Err(_) => return Ok(None),
    };
    if meta
        .get(table::MAGIC)?
        .is_none_or(|row| row.value() != table::MAGIC_VALUE)
    {
        return Ok(None);
    }
    let format = meta.get(table::FORMAT)?;
    Ok(format.and_then(|row| row.value().try_into().map(u32::from_le_bytes).ok()))
}

/// Makes the directory and those above it, and makes that durable: a log is no safer than its name.
fn make_directory(directory: &Path) -> Result<()> {
    let missing = directory.ancestors().take_while(|path| !path.exists());
    let parents: Vec<_> = missing.filter_map(Path::parent).collect();
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .map_err(io_error("create the directory", directory))?;
    parents.into_iter().try_for_each(sync_directory)
}

fn sync_directory(directory: &Path) -> Result<()> {
    // The parent of a path of one name is the empty path, which means here.
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("sync the directory", directory))
}

/// The files of a log, which is named by its own file or by its directory: the storage, then the journal.
pub(crate) fn of_log(named: &Path) -> [PathBuf; 3] {
    let file = if named.is_dir() {
        named.join(LOG)
    } else {
        named.to_owned()
    };
    let [a, b] = JOURNAL.map(|name| file.with_file_name(name));
    [file, a, b]
}

/// Makes a log where there is none; if another process is faster, its log is the log.
fn create(directory: &Path) -> Result<()> {
    match NewFile::create(directory)?.put_in_place() {
        Err(Error::LogExists { .. }) => Ok(()),
        put => put,
    }
}

/// A log that is being made, under a name of its own until it is put in its place. Dropped before, it leaves
/// nothing behind.
pub(crate) struct NewFile {
    directory: PathBuf,
    /// Whether the directory was made for it.
    is_first: bool,
    path: PathBuf,
    storage: Storage,
}

impl NewFile {
    /// Begins a log in a directory that may be missing, and must not have one.
    pub(crate) fn begin(directory: &Path) -> Result<Self> {
        let is_first = !exists(directory)?;
        make_directory(directory)?;
        if exists(&directory.join(LOG))? {
            return Err(Error::LogExists {
                path: directory.to_owned(),
            });
        }
        let mut new = Self::create(directory)?;
        new.is_first = is_first;
        Ok(new)
    }

    fn create(directory: &Path) -> Result<Self> {
        let foreign = names(directory)?.into_iter().find(|name| {
            name != LOG && !name.starts_with(UNFINISHED) && !OURS.contains(&name.as_str())
        });
        if let Some(found) = foreign {
            return Err(Error::NotADataDirectory {
                path: directory.to_owned(),
                found,
            });
        }
        let (path, storage) = create_unfinished(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            is_first: false,
            path,
            storage,
        })
    }

    /// The log as it is so far.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Gives it its name, which nobody else may have taken meanwhile.
    pub(crate) fn put_in_place(&self) -> Result<()> {
        self.storage
            .close()
            .map_err(|fault| refused(self.path.clone(), fault))?;
        let path = self.directory.join(LOG);
        // Linking fails where the name is taken. Renaming would not.
        if let Err(error) = fs::hard_link(&self.path, &path) {
            // Another process that was faster may have cleared our file away.
            return Err(if exists(&path)? {
                Error::LogExists {
                    path: self.directory.clone(),
                }
            } else {
                io_error("create", &path)(error)
            });
        }
        sync_directory(&self.directory)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = self.storage.close();
        let _ = fs::remove_file(&self.path);
        if self.is_first {
            // Fails where it has a log now.
            let _ = fs::remove_dir(&self.directory);
        }
    }
}

/// Makes a whole, empty log under a name that nobody else uses.
fn create_unfinished(directory: &Path) -> Result<(PathBuf, Storage)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let (path, file) = loop {
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{UNFINISHED}{}-{counter}", std::process::id());
        let path = directory.join(name);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(file) => break (path, file),
            // A process that was killed had the same id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("create", &path)(error)),
        }
    };
    let made = Storage::create(&path, file).and_then(|storage| {
        initialise(&storage, &new_key()?)?;
        Ok(storage)
    });
    match made {
        Ok(storage) => Ok((path, storage)),
        Err(fault) => {
            let _ = fs::remove_file(&path);
            Err(refused(path, fault))
        }
    }
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(io_error("list", directory))?;
    names.sort_unstable();
    Ok(names)
}

fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

/// The byte that whoever writes a database holds locked, far behind its end, in the way of `ConcurrencyMode::SingleWriter`.
const WRITER_BYTE: u64 = (1 << 62) + 1;

/// The process that writes the log of a directory now, if one does. Nothing is changed, and nobody is kept waiting.
pub(crate) fn writer(directory: &Path) -> Result<Option<Holder>> {
    let path = directory.join(LOG);
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let backend = FileBackend::new(file).map_err(|error| refused(path.clone(), error.into()))?;
    let byte = Bound::Included(WRITER_BYTE);
    let locked = backend
        .query_lock_range(byte, byte)
        .map_err(|error| Error::Read {
            reason: error.to_string(),
        })?;
    Ok(locked.then(|| Holder {
        pid: holder(directory),
    }))
}

/// The process that opened the log last, by the log's own word.
fn holder(directory: &Path) -> Option<u32> {
    let reader = LogReader::open(directory).ok()?;
    let head = reader.stream_head(StreamId::Engine).ok()??;
    let from = Seq(head.seq.0.saturating_sub(limits::HOLDER_LOOKBACK) + 1);
    reader
        .read(StreamId::Engine, from)
        .map_while(Result::ok)
        .filter_map(|recorded| match recorded.event {
            Event::EngineStarted { pid, .. } => Some(pid),
            _ => None,
        })
        .last()
}

/// What it means that a file cannot be opened as a database.
fn refused(path: PathBuf, fault: Fault) -> Error {
    match fault {
        Fault::Ours(error) => error,
        Fault::Locked => Error::Locked { path, holder: None },
        Fault::Io(source) => Error::Io {
            action: "open",
            path,
            source,
        },
        fault @ (Fault::Damaged(_) | Fault::Other(_) | Fault::Earlier) => Error::NotALog {
            path,
            reason: fault.to_string(),
        },
    }
}

/// What it means that the system refused to do something to a file.
pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source: Arc::new(source),
    }
}
