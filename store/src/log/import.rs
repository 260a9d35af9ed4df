//! A new log from the pieces of an [excerpt](super::excerpt), whole or not at all.

use std::path::Path;

use crate::error::{Error, Result};
use crate::id::Position;
use crate::log::block::{self, Builder};
use crate::log::excerpt::{Links, Piece};
use crate::log::files::NewFile;
use crate::log::storage::Fault;
use crate::log::{Head, compact, table};

/// The bytes that gather before they are written: enough that a commit is worth it.
const STEP_BYTES: usize = 8 << 20;

/// A log that is being made of pieces. It is there once it is [finished](Self::finish); dropped before, it leaves
/// nothing behind.
pub struct Import {
    file: NewFile,
    links: Links,
    builder: Builder,
    blocks: Vec<(Position, Vec<u8>)>,
    /// The bytes that were added since the last write.
    bytes: usize,
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Import").field(&self.links.tip()).finish()
    }
}

impl Import {
    /// Begins a log in `directory`, which may be missing, and must hold nothing but a policy file.
    ///
    /// # Errors
    ///
    /// [`Error::LogExists`] where there is a log already, [`Error::NotADataDirectory`] where there is something
    /// else, [`Error::Io`] where the system refuses.
    pub fn begin(directory: impl AsRef<Path>) -> Result<Self> {
        let links = Links::default();
        Ok(Self {
            file: NewFile::begin(directory.as_ref())?,
            builder: Builder::after(links.tip()),
            links,
            blocks: Vec::new(),
            bytes: 0,
        })
    }

    /// Adds what comes next.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it does not follow from what was added before: nothing can be added any more then.
    /// [`Error::Failed`] where it could not be written.
    pub fn add(&mut self, piece: &Piece) -> Result<()> {
        match piece {
            Piece::Event(event) => {
                self.links.event(event.record())?;
                self.builder.push(event.record());
                self.bytes += event.as_bytes().len();
            }
            Piece::Gone { events, head } => {
                let first = self.links.tip().position.next();
                self.links.gone(*events, *head)?;
                self.seal();
                self.blocks.push((first, block::empty(*events, *head)));
            }
        }
        if self.bytes >= STEP_BYTES {
            self.write()?;
        }
        Ok(())
    }

    /// Puts the log in its place; gives where it stands.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where something that a piece announced never came, [`Error::Failed`] where it could not be
    /// written, [`Error::LogExists`] where somebody else was faster.
    pub fn finish(mut self) -> Result<Head> {
        self.write()?;
        let linked = std::mem::take(&mut self.links).finish()?;
        let rows = [
            (table::LEFT_OUT, linked.left_out),
            // Events name frames that did not come along; new ones are not to be taken for them.
            (table::FRAMES_FROM, linked.next_frame.0),
        ];
        change(&self.file, |transaction| {
            let mut meta = transaction.open_table(table::META)?;
            for (name, number) in rows.into_iter().filter(|(_, number)| *number > 0) {
                meta.insert(name, number.to_le_bytes().as_slice())?;
            }
            Ok(())
        })?;
        compact::index_settled(self.file.storage(), &mut |_| {})?;
        self.file.put_in_place()?;
        Ok(linked.head)
    }

    /// Ends the block that is being filled.
    fn seal(&mut self) {
        let next = Builder::after(self.links.tip());
        let blocks = std::mem::replace(&mut self.builder, next).finish();
        self.blocks.extend(blocks);
    }

    fn write(&mut self) -> Result<()> {
        self.seal();
        self.bytes = 0;
        let blocks = std::mem::take(&mut self.blocks);
        change(&self.file, |transaction| {
            let mut table = transaction.open_table(table::BLOCKS)?;
            for (first, bytes) in &blocks {
                table.insert(first.0, bytes.as_slice())?;
            }
            Ok(())
        })
    }
}

fn change(
    file: &NewFile,
    change: impl FnOnce(&redb::WriteTransaction) -> Result<(), Fault>,
) -> Result<()> {
    file.storage().change(change).map_err(|fault| match fault {
        Fault::Ours(error) => error,
        fault => Error::Failed {
            cause: fault.to_string().into(),
        },
    })
}
