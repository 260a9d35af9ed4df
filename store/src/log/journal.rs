//! The journal: where an append becomes durable.
//!
//! The tables of the storage want to be written rarely and much at a time. So a commit is first one
//! *entry*, appended to a file and synchronised: one run of bytes and one flush. Now and then all that
//! has gathered is settled into the tables, and its file is used again. There are two files, so that one
//! is written while the other settles.
//!
//! An entry begins at a multiple of 4 KiB, so that no byte that was acknowledged is ever written again
//! with what follows it. All numbers are little-endian.
//!
//! | offset | bytes | field | why |
//! | --- | --- | --- | --- |
//! | 0 | 8 | `recount` and the format of the entry: 1 | to tell an entry from what else may stand there |
//! | 8 | 8 | length of the entry, checksum included, without the zeros that fill its last page | |
//! | 16 | 8 | position of its first record, or of the next one where it has none | its place in the order |
//! | 24 | 8 | number of its first frame, or of the next one where it has none | the same for frames |
//! | 32 | 32 | head: the hash over the whole log before it | an entry follows one state of one log |
//! | 64 | 4 | number of blocks | |
//! | 68 | 4 | length of the frames | |
//! | 72 | n | blocks, each after its length (4) | as they will stand in the tables, or in pieces of that |
//! | | n | frames as received, a [run](super::frames) of them | |
//! | | 32 | checksum: BLAKE3 of all before it, keyed with the log's own key | an entry is there whole or not at all |
//!
//! **What is in the journal** is found by walking: a file is walked from its beginning, over entries that
//! the tables hold already, and on while each entry follows the state that the one before it left. What
//! does not follow is left over from when the file was written the last time, or is torn. A writer makes
//! one entry durable before it writes the next. So what is torn was never acknowledged, nothing comes
//! after it, and it is written over. An entry that *does* come after one that cannot be read proves that
//! the file was damaged later, and then nothing is written at all.
//!
//! The key is in the log's `meta` table and nobody else's: so a text that somebody sends can never look
//! like an entry, wherever in a file it happens to be left over, and a journal serves one log alone.

use std::io;
use std::sync::Arc;

use redb::StorageBackend;

use crate::error::Error;
use crate::id::{FrameNumber, Position};
use crate::limits;
use crate::log::Hash;
use crate::log::block::{Block, Sealed, Tip};
use crate::log::frames::Run;
use crate::log::storage::Fault;

/// Where entries begin and end.
const PAGE: usize = 4096;
const MAGIC: &[u8; 8] = b"recount\x01";
const LENGTH: usize = 8;
const FIRST: usize = 16;
const FIRST_FRAME: usize = 24;
const HEAD: usize = 32;
const BLOCKS: usize = 64;
const FRAMES: usize = 68;
const BODY: usize = 72;
const CHECKSUM_LEN: usize = 32;

/// The secret of one log: what its entries are known by.
pub(crate) type Key = [u8; 32];

/// One of the two files.
pub(crate) type File = Arc<dyn StorageBackend>;

/// How far a log has come: its events, and the frames that were kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) tip: Tip,
    /// The number that the next frame gets.
    pub(crate) next_frame: FrameNumber,
}

impl Mark {
    /// Before anything.
    pub(crate) const START: Self = Self {
        tip: Tip::START,
        next_frame: FrameNumber::FIRST,
    };

    /// What comes next: later states of a log have greater ones.
    pub(crate) fn place(&self) -> (Position, FrameNumber) {
        (self.tip.position.next(), self.next_frame)
    }
}

/// What one commit brought.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Where the log stood before it.
    pub(crate) before: Mark,
    /// Where the log stands after it.
    pub(crate) after: Mark,
    pub(crate) blocks: Vec<Sealed>,
    pub(crate) frames: Option<Run>,
}

/// The writing side.
#[derive(Debug)]
pub(crate) struct Journal {
    files: [File; 2],
    key: Key,
    /// The file that is written.
    active: usize,
    /// Where in it the next entry goes.
    end: u64,
    /// How long each file is.
    reserved: [u64; 2],
    full_at: u64,
    /// The memory that entries are put together in.
    buffer: Vec<u8>,
}

impl Journal {
    /// Goes on at `end`, after what was found; `last` is where its last entry stands.
    ///
    /// That entry is written again and made durable, all others are: its writer may have been killed before
    /// it was, or told that it could not be. After a sync that failed, the system takes for written what it
    /// shows, so another sync alone would do nothing.
    pub(crate) fn resume(
        files: [File; 2],
        key: Key,
        last: Option<Place>,
        end: Place,
        full_at: u64,
    ) -> io::Result<Self> {
        if let Some(last) = last {
            let file = &files[last.file];
            let length = end.offset.min(file.len()?) - last.offset;
            let mut entry = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            file.read(last.offset, &mut entry)?;
            file.write(last.offset, &entry)?;
            file.sync_data()?;
        }
        Ok(Self {
            reserved: [files[0].len()?, files[1].len()?],
            files,
            key,
            active: end.file,
            end: end.offset,
            full_at,
            buffer: Vec::new(),
        })
    }

    /// Appends an entry, and returns when it is durable.
    pub(crate) fn append(
        &mut self,
        before: Mark,
        blocks: &[Sealed],
        frames: Option<&Run>,
    ) -> io::Result<()> {
        self.put_together(before, blocks, frames);
        let length = self.buffer.len() as u64;
        self.reserve(length)?;
        let file = &self.files[self.active];
        file.write(self.end, &self.buffer)?;
        file.sync_data()?;
        self.end += length;
        // One large append is no reason to hold its memory ever after.
        self.buffer.clear();
        self.buffer.shrink_to(limits::COMMIT_BYTES_MAX);
        Ok(())
    }

    fn put_together(&mut self, before: Mark, blocks: &[Sealed], frames: Option<&Run>) {
        let out = &mut self.buffer;
        out.clear();
        let (first, first_frame) = before.place();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&first.0.to_le_bytes());
        out.extend_from_slice(&first_frame.0.to_le_bytes());
        out.extend_from_slice(&before.tip.hash.0);
        out.extend_from_slice(&length_u32(blocks.len()));
        let frames_len = frames.map_or(0, Run::encoded_len);
        out.extend_from_slice(&length_u32(frames_len));
        for (_, block) in blocks {
            out.extend_from_slice(&length_u32(block.len()));
            out.extend_from_slice(block);
        }
        if let Some(frames) = frames {
            frames.encode(out);
        }
        let length = (out.len() + CHECKSUM_LEN) as u64;
        out[LENGTH..][..8].copy_from_slice(&length.to_le_bytes());
        let checksum = blake3::keyed_hash(&self.key, out);
        out.extend_from_slice(checksum.as_bytes());
        out.resize(out.len().next_multiple_of(PAGE), 0);
    }

    /// Makes room for an entry, and for some after it: a file that grows with each entry would have its
    /// length and its place on the disk written with each.
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let reserved = &mut self.reserved[self.active];
        let entry_end = self.end + length;
        if entry_end <= *reserved {
            return Ok(());
        }
        let file = &self.files[self.active];
        let wanted = entry_end.next_multiple_of(limits::JOURNAL_STEP_BYTES);
        file.set_len(wanted)?;
        let mut at = entry_end.max(*reserved);
        while at < wanted {
            let left = usize::try_from(wanted - at).unwrap_or(usize::MAX);
            let piece = &ZEROS[..left.min(ZEROS.len())];
            file.write(at, piece)?;
            at += piece.len() as u64;
        }
        *reserved = wanted;
        Ok(())
    }

    /// Whether the file that is written should be settled.
    pub(crate) fn is_full(&self) -> bool {
        self.end >= self.full_at
    }

    /// Whether it can be no more than that.
    pub(crate) fn is_overfull(&self) -> bool {
        self.end >= 2 * self.full_at
    }

    /// Goes on at the beginning of the other file, all of which is settled.
    pub(crate) fn switch(&mut self) -> io::Result<()> {
        self.active = 1 - self.active;
        self.end = 0;
        // One large append is no reason to hold its place on the disk ever after.
        let reserved = &mut self.reserved[self.active];
        if *reserved > 4 * self.full_at {
            self.files[self.active].set_len(0)?;
            *reserved = 0;
        }
        Ok(())
    }

    /// Empties both files, all of which is settled.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        for (file, reserved) in self.files.iter().zip(&mut self.reserved) {
            if *reserved > 0 {
                file.set_len(0)?;
                *reserved = 0;
            }
        }
        self.end = 0;
        Ok(())
    }

    /// Lets go of the files.
    pub(crate) fn close(&self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.close())
    }
}

/// A place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) file: usize,
    pub(crate) offset: u64,
}

/// The entries that follow what is settled, in order, each with its place and where it ends; and where
/// the next one goes.
///
/// # Errors
///
/// [`Error::Corrupt`] where something that was acknowledged cannot be read; [`Fault::Io`].
pub(crate) fn walk(
    files: &[File; 2],
    key: &Key,
    settled: Mark,
    mut each: impl FnMut(Place, Entry, u64) -> Result<(), Fault>,
) -> Result<Place, Fault> {
    let mut ends = [0; 2];
    let mut mark = settled;
    let mut end = Place::default();
    for file in in_order(files, key)? {
        let offset = &mut ends[file];
        while let Some((entry, next)) = read(&*files[file], *offset, key)? {
            if entry.before == mark {
                mark = entry.after;
                let place = Place {
                    file,
                    offset: *offset,
                };
                each(place, entry, next)?;
                end = Place { file, offset: next };
            } else if entry.after.place() > settled.place() {
                break;
            }
            *offset = next;
        }
    }
    for (file, from) in files.iter().zip(ends) {
        refuse_damaged(&**file, from, key, mark)?;
    }
    Ok(end)
}

/// The files in the order in which they were written, by their first entries.
fn in_order(files: &[File; 2], key: &Key) -> Result<[usize; 2], Fault> {
    let first = |file: usize| -> Result<_, Fault> {
        Ok(read(&*files[file], 0, key)?.map(|(entry, _)| entry.before.place()))
    };
    // One that does not begin with an entry has nothing, and comes last.
    Ok(match (first(0)?, first(1)?) {
        (Some(a), Some(b)) if b < a => [1, 0],
        (None, Some(_)) => [1, 0],
        _ => [0, 1],
    })
}

/// The entry at a place and where the next one would begin, if a whole one stands there.
pub(crate) fn read(
    file: &dyn StorageBackend,
    offset: u64,
    key: &Key,
) -> Result<Option<(Entry, u64)>, Fault> {
    let Some(header) = header(file, offset)? else {
        return Ok(None);
    };
    let length = u64_at(&header, LENGTH);
    // Within the file, so memory is bounded by what is there.
    let Ok(in_memory) = usize::try_from(length) else {
        return Ok(None);
    };
    let mut bytes = vec![0; in_memory];
    if !read_exact(file, offset, &mut bytes)? {
        return Ok(None);
    }
    let (body, checksum) = bytes.split_at(in_memory - CHECKSUM_LEN);
    if blake3::keyed_hash(key, body).as_bytes() != checksum {
        return Ok(None);
    }
    let entry = parse(body).map_err(|what| Fault::Damaged(format!("a journal's entry: {what}")))?;
    Ok(Some((
        entry,
        (offset + length).next_multiple_of(PAGE as u64),
    )))
}

/// The header of what may be an entry.
fn header(file: &dyn StorageBackend, offset: u64) -> Result<Option<[u8; BODY]>, Fault> {
    let left = file.len()?.saturating_sub(offset);
    if left < (BODY + CHECKSUM_LEN) as u64 {
        return Ok(None);
    }
    let mut header = [0; BODY];
    if !read_exact(file, offset, &mut header)? {
        return Ok(None);
    }
    let length = u64_at(&header, LENGTH);
    let possible =
        header.starts_with(MAGIC) && length >= (BODY + CHECKSUM_LEN) as u64 && length <= left;
    Ok(possible.then_some(header))
}

/// Reads bytes; false where they are not there any more, because a writer made the file shorter meanwhile.
fn read_exact(file: &dyn StorageBackend, offset: u64, out: &mut [u8]) -> Result<bool, Fault> {
    match file.read(offset, out) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a writer wrote and a checksum confirmed.
fn parse(bytes: &[u8]) -> Result<Entry, String> {
    let mut hash = [0; 32];
    hash.copy_from_slice(&bytes[HEAD..][..32]);
    let first = u64_at(bytes, FIRST);
    let before = Mark {
        tip: Tip {
            position: Position(first.checked_sub(1).ok_or("it has no place")?),
            hash: Hash(hash),
        },
        next_frame: FrameNumber(u64_at(bytes, FIRST_FRAME)),
    };
    let mut after = before;
    let mut rest = &bytes[BODY..];
    let mut blocks = Vec::new();
    for _ in 0..u32_at(bytes, BLOCKS) {
        let cut = "a block is cut short";
        let (length, after_length) = rest.split_first_chunk().ok_or(cut)?;
        let (block, next) = after_length
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or(cut)?;
        rest = next;
        let first = after.tip.position.next();
        let parsed = Block::parse(first.0, block).map_err(|error| error.to_string())?;
        after.tip = parsed.tip();
        blocks.push((first, Arc::from(block)));
    }
    if rest.len() != u32_at(bytes, FRAMES) as usize {
        return Err("its frames are not as long as it says".to_owned());
    }
    let mut frames = None;
    if !rest.is_empty() {
        let (run, rest) = Run::split(rest).map_err(|error| error.to_string())?;
        if !rest.is_empty() || run.first() != before.next_frame {
            return Err("its frames are not the ones that follow".to_owned());
        }
        after.next_frame = run.next();
        frames = Some(run);
    }
    Ok(Entry {
        before,
        after,
        blocks,
        frames,
    })
}

/// Fails where an entry stands that comes after `mark`: then what `mark` ends with is not the end.
fn refuse_damaged(
    file: &dyn StorageBackend,
    from: u64,
    key: &Key,
    mark: Mark,
) -> Result<(), Fault> {
    let length = file.len()?;
    let mut offset = from;
    while offset < length {
        if let Some(header) = header(file, offset)?
            && (
                Position(u64_at(&header, FIRST)),
                FrameNumber(u64_at(&header, FIRST_FRAME)),
            ) >= mark.place()
            && let Some((entry, _)) = read(file, offset, key)?
            && entry.before.place() > mark.place()
        {
            let found = entry.before.tip.position.next();
            return Err(Error::Corrupt {
                position: mark.tip.position.next(),
                what: format!("the journal cannot be read there, and holds event {found} after it"),
            }
            .into());
        }
        offset += PAGE as u64;
    }
    Ok(())
}

fn length_u32(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("limits keep a commit far below 4 GiB")
        .to_le_bytes()
}

/// The number at `offset`, which the caller knows to be there.
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("eight bytes"))
}

/// The number at `offset`, which the caller knows to be there.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("four bytes"))
}
