//! A chunk: many frames in one value of the storage, compressed together.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | format of the chunk: 1 |
//! | 1 | 4 | number of frames, at least 1 |
//! | 5 | 4 | length of their items before compression |
//! | 9 | 8 | the latest time among them |
//! | 17 | 32 | checksum: BLAKE3 over the number of the first frame (8), the 17 bytes before, and those after |
//! | 49 | n | the [items](super::run), as one zstd stream |
//!
//! Frames of a stream say the same words over and over, so many together take a tenth of their bytes.
//! A chunk cannot be read in part: it is as large as is read at once with pleasure, and no larger.
//!
//! What a reader allocates is bounded before it decompresses, and nothing is decompressed that was not
//! written here, by the checksum.

use crate::error::Error;
use crate::frame::FramesBefore;
use crate::id::{FrameNumber, Timestamp};
use crate::limits;

use super::run::Item;
use super::{Run, corrupt};

const FORMAT: u8 = 1;
const CHECKSUM: usize = 17;
const STREAM: usize = 49;

/// How hard zstd tries. On recorded streams higher levels take more time and save nothing, or lose: at 3, a
/// chunk of this size is a quarter larger where the text is long.
const LEVEL: i32 = 1;

/// A chunk as it is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    first: FrameNumber,
    count: u32,
    raw_length: usize,
    latest: Timestamp,
    bytes: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// The chunk that the storage holds at `first`; its frames are looked at when they are asked for.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptFrame`] where its header cannot be.
    pub(crate) fn parse(first: FrameNumber, bytes: &'a [u8]) -> Result<Self, Error> {
        if bytes.len() < STREAM {
            return Err(corrupt(first, "a chunk is cut short"));
        }
        if bytes[0] != FORMAT {
            let what = format!("a chunk has format {}, not {FORMAT}", bytes[0]);
            return Err(corrupt(first, what));
        }
        let count = u32::from_le_bytes(field(bytes, 1));
        let raw_length = u32::from_le_bytes(field(bytes, 5)) as usize;
        if count == 0 || first.0 == 0 || first.0.checked_add(u64::from(count)).is_none() {
            return Err(corrupt(first, format!("a chunk of {count} frames")));
        }
        if raw_length > limits::FRAMES_WAITING_BYTES_MAX {
            return Err(corrupt(first, format!("a chunk of {raw_length} bytes")));
        }
        Ok(Self {
            first,
            count,
            raw_length,
            latest: Timestamp(u64::from_le_bytes(field(bytes, 9))),
            bytes,
        })
    }

    /// The number after its last frame.
    pub(crate) fn next(&self) -> FrameNumber {
        FrameNumber(self.first.0 + u64::from(self.count))
    }

    /// Whether all of its frames are old.
    pub(crate) fn is_before(&self, old: FramesBefore) -> bool {
        match old {
            FramesBefore::Number(number) => self.next() <= number,
            FramesBefore::Time(time) => self.latest < time,
        }
    }

    /// Its frames, proven to be what was written.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptFrame`] where they are not.
    pub(crate) fn frames(&self) -> Result<Run, Error> {
        let bad = |what: &str| corrupt(self.first, what);
        if self.bytes[CHECKSUM..STREAM] != checksum(self.first, self.bytes) {
            return Err(bad("the checksum of its chunk is not that of its bytes"));
        }
        let items = zstd::bulk::decompress(&self.bytes[STREAM..], self.raw_length)
            .map_err(|error| corrupt(self.first, format!("its chunk cannot be read: {error}")))?;
        if items.len() != self.raw_length {
            return Err(bad("its chunk has another length than it says"));
        }
        Run::of_items(self.first, self.count, items)
    }
}

/// The frames of runs that follow one another as chunks, each with the number of its first frame.
///
/// # Panics
///
/// Where the runs do not follow one another.
pub(crate) fn cut<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Vec<(FrameNumber, Vec<u8>)> {
    let mut chunks = Vec::new();
    let mut open: Option<Run> = None;
    for run in runs {
        let open = open.get_or_insert_with(|| Run::starting(run.first()));
        assert_eq!(open.next(), run.first(), "frames follow one another");
        for item in Item::all(run.items()) {
            let length = open.items().len() + item.encoded_len();
            let is_full = length > limits::FRAMES_CHUNK_BYTES_MAX
                || open.count() == limits::FRAMES_CHUNK_COUNT_MAX;
            if is_full && !open.is_empty() {
                let next = Run::starting(open.next());
                chunks.push(encode(&std::mem::replace(open, next)));
            }
            open.push(item);
        }
    }
    chunks.extend(
        open.filter(|open| !open.is_empty())
            .map(|open| encode(&open)),
    );
    chunks
}

fn encode(run: &Run) -> (FrameNumber, Vec<u8>) {
    let raw_length = u32::try_from(run.items().len()).expect("what waits is bounded");
    let latest = Item::all(run.items())
        .map(|item| item.at.0)
        .max()
        .unwrap_or(0);
    let stream = zstd::bulk::compress(run.items(), LEVEL)
        .expect("compressing into memory fails only where there is none");

    let mut bytes = Vec::with_capacity(STREAM + stream.len());
    bytes.push(FORMAT);
    bytes.extend_from_slice(&run.count().to_le_bytes());
    bytes.extend_from_slice(&raw_length.to_le_bytes());
    bytes.extend_from_slice(&latest.to_le_bytes());
    bytes.extend_from_slice(&[0; STREAM - CHECKSUM]);
    bytes.extend_from_slice(&stream);
    let checksum = checksum(run.first(), &bytes);
    bytes[CHECKSUM..STREAM].copy_from_slice(&checksum);
    (run.first(), bytes)
}

/// The checksum of a chunk. The number is in it, so that no chunk can stand in another's place.
fn checksum(first: FrameNumber, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&first.0.to_le_bytes());
    hasher.update(&bytes[..CHECKSUM]);
    hasher.update(&bytes[STREAM..]);
    *hasher.finalize().as_bytes()
}

/// The field at `offset` of a header whose length was checked.
fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    *bytes[offset..].first_chunk().expect("it is in the header")
}
