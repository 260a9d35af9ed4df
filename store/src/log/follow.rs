//! Reading a log that another process writes, or that nobody writes any more.
//!
//! What has settled is read from the tables, and the rest from the journal, in this order: a writer
//! settles a file before it uses it again, so what was not in the journal any more is in the tables of a
//! later look. A reader therefore looks at the tables once more when it has read the journal.
//!
//! A writer makes an entry durable before it writes the next. So an entry that another one follows is
//! durable. Of the last one a reader cannot know; it waits a moment for the next one, or makes the entry
//! durable by itself, which any process may do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::ReadTransaction;

use crate::error::Error;
use crate::log::journal::{self, Entry, File, Key, Mark, Place};
use crate::log::recent::{self, Generation, View};
use crate::log::storage::{Fault, Storage};
use crate::log::{files, frames};

/// How far a reader has come, and what of it the tables do not hold.
#[derive(Debug)]
pub(crate) struct Follower {
    directory: PathBuf,
    /// `None` until the log has a journal.
    files: Option<[File; 2]>,
    key: Key,
    /// `None` before the first look.
    mark: Option<Mark>,
    /// Where the next entry is, unless a file begins with it: the other one, or the same one if a writer let
    /// go of the log meanwhile.
    place: Place,
    memory: Vec<(usize, Arc<Generation>)>,
    /// An entry that was there and may not be durable.
    unsure: Option<Place>,
}

/// What a look does with an entry that may not be durable yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// Makes it durable.
    Sync,
    /// Leaves it for the next look, if this is the first to see it.
    Leave,
}

impl Follower {
    pub(crate) fn new(directory: &Path, key: Key) -> Self {
        Self {
            directory: directory.to_owned(),
            files: None,
            key,
            mark: None,
            place: Place::default(),
            memory: Vec::new(),
            unsure: None,
        }
    }

    /// The log as it is now.
    pub(crate) fn look(&mut self, storage: &Storage, last: Last) -> Result<View, Fault> {
        if self.files.is_none() {
            self.files = files::open_journal_read_only(&self.directory)?;
        }
        loop {
            let transaction = storage.begin_read()?;
            let settled = settled(&transaction)?;
            let reached = self.advance(settled, storage, last)?;
            if self::settled(&storage.begin_read()?)?.place() <= reached.place() {
                let memory = self.memory.iter().map(|(_, one)| Arc::clone(one)).collect();
                return View::new(transaction, memory);
            }
        }
    }

    /// Reads what the journal holds beyond what is known; gives how far that is.
    fn advance(&mut self, settled: Mark, storage: &Storage, last: Last) -> Result<Mark, Fault> {
        self.memory
            .retain(|(_, generation)| generation.get().after.place() > settled.place());
        let known = self.mark.filter(|mark| mark.place() >= settled.place());
        let mark = known.unwrap_or(settled);
        self.mark = Some(mark);
        let Some(files) = self.files.clone() else {
            return Ok(mark);
        };
        let entries = if known.is_some() {
            self.next(&files, mark)?
        } else {
            self.memory.clear();
            self.locate(&files, settled, storage)?
        };
        self.take(&files, entries, last)
    }

    /// The entries that follow where the last look ended.
    fn next(&self, files: &[File; 2], mut mark: Mark) -> Result<Vec<(Place, Entry, u64)>, Fault> {
        let mut entries = Vec::new();
        let mut place = self.place;
        loop {
            let begin = |file| Place { file, offset: 0 };
            let mut found = None;
            for place in [place, begin(1 - place.file), begin(place.file)] {
                if let Some((entry, next)) =
                    journal::read(&*files[place.file], place.offset, &self.key)?
                    && entry.before == mark
                {
                    found = Some((place, entry, next));
                    break;
                }
            }
            let Some((at, entry, next)) = found else {
                return Ok(entries);
            };
            mark = entry.after;
            place = Place {
                file: at.file,
                offset: next,
            };
            entries.push((at, entry, next));
        }
    }

    /// All entries that follow what is settled, wherever they are.
    ///
    /// Damage is damage if it is found twice: the first time, a writer may just have passed by.
    fn locate(
        &mut self,
        files: &[File; 2],
        settled: Mark,
        storage: &Storage,
    ) -> Result<Vec<(Place, Entry, u64)>, Fault> {
        let mut damage = None;
        loop {
            let mut entries = Vec::new();
            self.place = Place::default();
            let walked = journal::walk(files, &self.key, settled, |place, entry, next| {
                entries.push((place, entry, next));
                Ok(())
            });
            match walked {
                Ok(_) => return Ok(entries),
                // The writer was faster, and the next look finds it.
                Err(_) if self::settled(&storage.begin_read()?)? != settled => {
                    return Ok(Vec::new());
                }
                Err(fault @ (Fault::Damaged(_) | Fault::Ours(Error::Corrupt { .. }))) => {
                    let found = Some(fault.to_string());
                    if damage == found {
                        return Err(fault);
                    }
                    damage = found;
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Takes entries, but for the last one if it has to wait.
    fn take(
        &mut self,
        files: &[File; 2],
        entries: Vec<(Place, Entry, u64)>,
        last: Last,
    ) -> Result<Mark, Fault> {
        let count = entries.len();
        for (index, (place, entry, next)) in entries.into_iter().enumerate() {
            if index + 1 == count {
                if last == Last::Leave && self.unsure != Some(place) {
                    self.unsure = Some(place);
                    break;
                }
                files[place.file].sync_data()?;
            }
            if self
                .memory
                .last()
                .is_none_or(|(file, _)| *file != place.file)
            {
                self.memory
                    .push((place.file, Generation::after(entry.before)));
            }
            self.mark = Some(entry.after);
            self.place = Place {
                file: place.file,
                offset: next,
            };
            let (_, generation) = self.memory.last().expect("one was pushed");
            generation.add(entry)?;
        }
        Ok(self.mark.expect("it was set before"))
    }
}

/// How far the tables have come.
pub(crate) fn settled(transaction: &ReadTransaction) -> Result<Mark, Fault> {
    Ok(Mark {
        tip: recent::tip(transaction)?,
        next_frame: frames::ends(transaction)?.next,
    })
}
