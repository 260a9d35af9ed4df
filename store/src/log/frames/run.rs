//! Frames that follow one another, encoded: what is written with an entry, and what a chunk compresses.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | the number of the first frame |
//! | 8 | 4 | how many there are |
//! | 12 | 4 | the length of the items |
//! | 16 | n | the items |
//!
//! An item:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | kind: 0 a frame, 1 frames that were skipped |
//! | 1 | 10 | connection |
//! | 11 | 8 | time, microseconds since 1970 |
//! | 19 | 4 | kind 0: how many bytes follow; kind 1: how many frames were skipped |
//! | 23 | n | kind 0: the bytes as received |
//!
//! Numbers are little-endian. Nothing here is smaller than it could be: a chunk is compressed as a whole.

use crate::error::Error;
use crate::frame::{Frame, FrameContent};
use crate::id::{ConnectionId, FrameNumber, Timestamp};

use super::corrupt;

const HEADER: usize = 16;
const ITEM_HEADER: usize = 23;
const RECEIVED: u8 = 0;
const SKIPPED: u8 = 1;

/// Frames that follow one another, from `first` on.
///
/// Invariant: `items` is `count` whole items, so walking over them cannot fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    first: FrameNumber,
    count: u32,
    items: Vec<u8>,
}

impl Run {
    /// No frames yet; the next gets this number.
    pub(crate) fn starting(first: FrameNumber) -> Self {
        Self {
            first,
            count: 0,
            items: Vec::new(),
        }
    }

    /// The frames whose items these are.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptFrame`] where they are not `count` whole items.
    pub(crate) fn of_items(first: FrameNumber, count: u32, items: Vec<u8>) -> Result<Self, Error> {
        let mut rest = items.as_slice();
        for place in 0..u64::from(count) {
            let Some((_, after)) = Item::split(rest) else {
                let number = FrameNumber(first.0.saturating_add(place));
                return Err(corrupt(number, "it is cut short"));
            };
            rest = after;
        }
        if !rest.is_empty() {
            return Err(corrupt(first, "bytes follow the last frame"));
        }
        if first.0 == 0 || first.0.checked_add(u64::from(count)).is_none() {
            return Err(corrupt(first, "there is no such number"));
        }
        Ok(Self {
            first,
            count,
            items,
        })
    }

    /// The number of its first frame.
    pub(crate) fn first(&self) -> FrameNumber {
        self.first
    }

    /// The number after its last frame.
    pub(crate) fn next(&self) -> FrameNumber {
        FrameNumber(self.first.0 + u64::from(self.count))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many frames it has, and frames that were skipped count as one.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The bytes of its items, one after the other.
    pub(crate) fn items(&self) -> &[u8] {
        &self.items
    }

    /// Adds the next frame, and gives its number.
    pub(crate) fn push(&mut self, item: Item<'_>) -> FrameNumber {
        let number = self.next();
        item.encode(&mut self.items);
        self.count += 1;
        number
    }

    /// Its frames.
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame> + '_ {
        let items = Item::all(&self.items);
        (self.first.0..)
            .zip(items)
            .map(|(number, item)| item.frame(FrameNumber(number)))
    }

    /// Appends its bytes, as they stand in an entry.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        let length = u32::try_from(self.items.len()).expect("what waits is bounded");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&self.items);
    }

    /// The run that these bytes begin with, and what follows it.
    ///
    /// # Errors
    ///
    /// [`Error::CorruptFrame`] where they do not begin with one.
    pub(crate) fn split(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let cut = |first| corrupt(first, "frames are cut short");
        let (first, rest) = bytes.split_first_chunk().ok_or(cut(FrameNumber(0)))?;
        let first = FrameNumber(u64::from_le_bytes(*first));
        let (count, rest) = rest.split_first_chunk().ok_or(cut(first))?;
        let (length, rest) = rest.split_first_chunk().ok_or(cut(first))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (items, rest) = rest.split_at_checked(length).ok_or(cut(first))?;
        let run = Self::of_items(first, u32::from_le_bytes(*count), items.to_vec())?;
        Ok((run, rest))
    }

    /// The length of [`Run::encode`].
    pub(crate) fn encoded_len(&self) -> usize {
        HEADER + self.items.len()
    }
}

/// One frame, or frames that were skipped; its number is its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) connection: ConnectionId,
    pub(crate) at: Timestamp,
    pub(crate) content: Content<'a>,
}

/// [`FrameContent`], borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Received(&'a [u8]),
    Skipped(u32),
}

impl<'a> Item<'a> {
    /// The length of its bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        match self.content {
            Content::Received(bytes) => ITEM_HEADER + bytes.len(),
            Content::Skipped(_) => ITEM_HEADER,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, number, bytes) = match self.content {
            Content::Received(bytes) => {
                let length = u32::try_from(bytes.len()).expect("a frame's length is bounded");
                (RECEIVED, length, bytes)
            }
            Content::Skipped(frames) => (SKIPPED, frames, [].as_slice()),
        };
        out.push(kind);
        out.extend_from_slice(&self.connection.to_bytes());
        out.extend_from_slice(&self.at.0.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(bytes);
    }

    /// The item that these bytes begin with, and what follows it; `None` where they do not.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&[kind], rest) = bytes.split_first_chunk()?;
        let (connection, rest) = rest.split_first_chunk()?;
        let (at, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let number = u32::from_le_bytes(*number);
        let (content, rest) = match kind {
            RECEIVED => {
                let (bytes, rest) = rest.split_at_checked(number as usize)?;
                (Content::Received(bytes), rest)
            }
            SKIPPED => (Content::Skipped(number), rest),
            _ => return None,
        };
        let item = Self {
            connection: ConnectionId::from_bytes(*connection),
            at: Timestamp(u64::from_le_bytes(*at)),
            content,
        };
        Some((item, rest))
    }

    /// All items of such bytes, up to the first that is none.
    pub(crate) fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let (item, rest) = Self::split(bytes)?;
            bytes = rest;
            Some(item)
        })
    }

    fn frame(self, number: FrameNumber) -> Frame {
        Frame {
            number,
            connection: self.connection,
            at: self.at,
            content: match self.content {
                Content::Received(bytes) => FrameContent::Received(bytes.to_vec()),
                Content::Skipped(frames) => FrameContent::Skipped(frames),
            },
        }
    }
}
