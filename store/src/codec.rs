//! Events and their bytes.
//!
//! A record is an event with its envelope. What stands where, and why, is in [`crate::format`]; the constants
//! below are its table of a record. All numbers are little-endian and of fixed width, so that a reader can look at
//! any field, or step over the record, without decoding anything.

#[cfg(test)]
mod arbitrary;
mod payload;
mod v1;

use crate::error::{Error, Result};
use crate::event::{Cause, Class, Envelope, Event, NewEvent, Provenance, Recorded};
use crate::id::{EventId, FrameNumber, Position, Seq, StreamId, Timestamp};
use crate::limits;
use crate::log::Hash;

const LENGTH: usize = 0;
const FORMAT: usize = 4;
const TYPE_NUMBER: usize = 5;
const TYPE_VERSION: usize = 7;
const POSITION: usize = 8;
const STREAM: usize = 16;
const SEQ: usize = 27;
const TIME: usize = 35;
const CAUSE: usize = 43;
const CLASS: usize = 51;
const PROVENANCE: usize = 52;
const FLAGS: usize = 53;
/// Where the fields that not every record has begin: those flagged, in the order of their flags.
const OPTIONAL: usize = 54;
const HASH_LEN: usize = 32;

/// In the flags: an id follows.
const HAS_ID: u8 = 1;
/// In the flags: a frame number follows.
const HAS_FRAME: u8 = 2;
const FLAGS_KNOWN: u8 = HAS_ID | HAS_FRAME;

const ID_LEN: usize = 16;
const FRAME_LEN: usize = 8;

/// The format of records that this build writes.
const RECORD_FORMAT: u8 = 1;

#[cfg(any(test, fuzzing))]
pub(crate) use v1::{decode as decode_payload, encode as encode_payload};

/// The name of a stream as records carry it.
pub(crate) type StreamKey = [u8; StreamId::LEN];

/// The state of a projection and other derived data, as bytes.
pub(crate) fn encode_derived<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut out = Vec::new();
    payload::encode(value, &mut out);
    out
}

/// What [`encode_derived`] was given, if the bytes are whole and the type is still the same.
pub(crate) fn decode_derived<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    payload::decode_owned(bytes)
}

/// The records of one append, before they have a place in the log.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    bytes: Vec<u8>,
    /// Records that follow from another of the same append: (own index, its index), ascending.
    siblings: Vec<(usize, usize)>,
}

impl Draft {
    /// Encodes what can be known without the log: all but positions, numbers and hashes.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] where the records are more than one append may carry.
    ///
    /// # Panics
    ///
    /// Where an event names itself or a later one as its cause.
    pub(crate) fn encode(stream: StreamId, events: &[NewEvent]) -> Result<Self> {
        let mut draft = Self::default();
        for (index, new) in events.iter().enumerate() {
            if let Cause::Sibling(sibling) = new.cause {
                assert!(
                    sibling < index,
                    "event {index} of an append cannot follow from event {sibling} of it: a cause comes first",
                );
                draft.siblings.push((index, sibling));
            }
            draft.push(stream, new);
            if draft.bytes.len() > limits::APPEND_BYTES_MAX {
                return Err(Error::TooLarge {
                    bytes: draft.bytes.len(),
                    limit: limits::APPEND_BYTES_MAX,
                });
            }
        }
        Ok(draft)
    }

    fn push(&mut self, stream: StreamId, new: &NewEvent) {
        let out = &mut self.bytes;
        let start = out.len();
        let type_version = match new.event {
            Event::Unknown { type_version, .. } => type_version,
            _ => v1::VERSION,
        };
        let cause = match new.cause {
            Cause::At(position) => position.0,
            Cause::None | Cause::Sibling(_) => 0,
        };
        out.extend_from_slice(&[0; 4]);
        out.push(RECORD_FORMAT);
        out.extend_from_slice(&new.event.type_number().to_le_bytes());
        out.push(type_version);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&stream.to_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&new.at.0.to_le_bytes());
        out.extend_from_slice(&cause.to_le_bytes());
        out.push(class_byte(new.event.class()));
        out.push(provenance_byte(new.provenance));
        out.push(flags(new.id, new.frame));
        debug_assert_eq!(out.len() - start, OPTIONAL);
        if let Some(id) = new.id {
            out.extend_from_slice(&id.to_bytes());
        }
        if let Some(frame) = new.frame {
            out.extend_from_slice(&frame.0.to_le_bytes());
        }
        v1::encode(&new.event, out);
        out.extend_from_slice(&[0; HASH_LEN]);
        // A record beyond four bytes of length is beyond the limit of an append, and refused as such.
        let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        out[start + LENGTH..][..4].copy_from_slice(&length.to_le_bytes());
    }

    /// The bytes of all records.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The records as they are now, without a place.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (record, after) = Record::split(rest)?;
            rest = after;
            Some(record)
        })
    }

    /// Gives each record its place, one position and one number after the other, and hands it on.
    ///
    /// Returns the hash of the last.
    pub(crate) fn place(
        &mut self,
        first: Position,
        first_seq: Seq,
        mut previous: Hash,
        mut record: impl FnMut(Record<'_>),
    ) -> Hash {
        let mut siblings = self.siblings.iter().peekable();
        let mut rest = self.bytes.as_mut_slice();
        for index in 0.. {
            if rest.is_empty() {
                break;
            }
            // The lengths are ours, written a moment ago.
            let (bytes, after) = rest.split_at_mut(u32_at(rest, LENGTH) as usize);
            rest = after;
            put_u64(bytes, POSITION, first.0 + index);
            put_u64(bytes, SEQ, first_seq.0 + index);
            if let Some((_, sibling)) = siblings.next_if(|(own, _)| *own as u64 == index) {
                put_u64(bytes, CAUSE, first.0 + *sibling as u64);
            }
            let (before, hash) = bytes.split_at_mut(bytes.len() - HASH_LEN);
            previous = chain(previous, before);
            hash.copy_from_slice(&previous.0);
            record(Record { bytes });
        }
        previous
    }
}

/// One record in a block: its envelope can be looked at field by field.
///
/// Invariant: `bytes` is as long as its length field says, and long enough for the envelope with the
/// fields that its flags announce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// The first record of `bytes` and what follows it; `None` where they do not begin with a whole record.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let length = u32::from_le_bytes(*bytes.first_chunk()?) as usize;
        let (bytes, rest) = bytes.split_at_checked(length)?;
        let before_payload = OPTIONAL + optional_len(*bytes.get(FLAGS)?);
        (length >= before_payload + HASH_LEN).then_some((Self { bytes }, rest))
    }

    /// How long the record would be that begins here, if one does: a guess from the fields of its envelope, for
    /// whoever looks for records among other bytes.
    pub(crate) fn may_begin(bytes: &[u8]) -> Option<usize> {
        let envelope = bytes.get(..OPTIONAL)?;
        // What differs most often first: this is asked of every byte of a file.
        if envelope[FORMAT] != RECORD_FORMAT
            || envelope[CLASS] > 2
            || envelope[PROVENANCE] > 2
            || envelope[FLAGS] & !FLAGS_KNOWN != 0
        {
            return None;
        }
        let length = u32_at(envelope, LENGTH) as usize;
        let least = OPTIONAL + optional_len(envelope[FLAGS]) + HASH_LEN;
        let (position, seq) = (u64_at(envelope, POSITION), u64_at(envelope, SEQ));
        let possible = (least..=limits::APPEND_BYTES_MAX).contains(&length)
            && (1..=position).contains(&seq)
            && StreamId::from_bytes(*envelope[STREAM..].first_chunk()?).is_some();
        possible.then_some(length)
    }

    /// All its bytes.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn position(self) -> Position {
        Position(u64_at(self.bytes, POSITION))
    }

    pub(crate) fn stream_key(self) -> &'a StreamKey {
        // Invariant: a record is at least as long as its envelope.
        self.bytes[STREAM..]
            .first_chunk()
            .expect("an envelope holds a stream")
    }

    pub(crate) fn seq(self) -> Seq {
        Seq(u64_at(self.bytes, SEQ))
    }

    pub(crate) fn at(self) -> Timestamp {
        Timestamp(u64_at(self.bytes, TIME))
    }

    pub(crate) fn cause(self) -> Option<Position> {
        Some(Position(u64_at(self.bytes, CAUSE))).filter(|cause| cause.0 != 0)
    }

    pub(crate) fn type_number(self) -> u16 {
        u16::from_le_bytes([self.bytes[TYPE_NUMBER], self.bytes[TYPE_NUMBER + 1]])
    }

    pub(crate) fn id(self) -> Option<EventId> {
        let id = || *self.bytes[OPTIONAL..].first_chunk().expect("an id");
        self.has(HAS_ID).then(|| EventId::from_bytes(id()))
    }

    pub(crate) fn frame(self) -> Option<FrameNumber> {
        let at = OPTIONAL + optional_len(self.bytes[FLAGS] & HAS_ID);
        self.has(HAS_FRAME)
            .then(|| FrameNumber(u64_at(self.bytes, at)))
    }

    pub(crate) fn payload(self) -> &'a [u8] {
        let start = OPTIONAL + optional_len(self.bytes[FLAGS]);
        &self.bytes[start..self.bytes.len() - HASH_LEN]
    }

    fn has(self, flag: u8) -> bool {
        self.bytes[FLAGS] & flag != 0
    }

    pub(crate) fn hash(self) -> Hash {
        let mut hash = [0; HASH_LEN];
        hash.copy_from_slice(&self.bytes[self.bytes.len() - HASH_LEN..]);
        Hash(hash)
    }

    /// Where it cuts its stream, if it does: the number that remains first, and the hash that this one follows.
    pub(crate) fn cut(self) -> Option<(Seq, Hash)> {
        if self.type_number() != v1::STREAM_CUT {
            return None;
        }
        match self.decode().ok()?.event {
            Event::StreamCut { before, hash } => Some((before, hash)),
            _ => None,
        }
    }

    /// Whether its hash follows from its bytes and the hash of the record before it in its stream.
    pub(crate) fn follows(self, previous: Hash) -> bool {
        self.hash() == chain(previous, &self.bytes[..self.bytes.len() - HASH_LEN])
    }

    /// What it says of itself without its payload.
    pub(crate) fn envelope(self) -> Envelope {
        Envelope {
            position: self.position(),
            stream: StreamId::from_bytes(*self.stream_key()),
            at: self.at(),
            cause: self.cause(),
            type_number: self.type_number(),
        }
    }

    /// The event, its payload read.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where a field or the payload cannot be.
    pub(crate) fn decode(self) -> Result<Recorded> {
        self.try_decode().map_err(|what| Error::Corrupt {
            position: self.position(),
            what,
        })
    }

    fn try_decode(self) -> Result<Recorded, String> {
        let format = self.bytes[FORMAT];
        if format != RECORD_FORMAT {
            return Err(format!(
                "the record has format {format}, not {RECORD_FORMAT}"
            ));
        }
        let flags = self.bytes[FLAGS];
        if flags & !FLAGS_KNOWN != 0 {
            return Err(format!("its flags cannot be {flags:#010b}"));
        }
        let type_number = self.type_number();
        let type_version = self.bytes[TYPE_VERSION];
        let payload = self.payload();
        let known = match type_version {
            v1::VERSION => v1::decode(type_number, payload),
            _ => None,
        };
        let event = match known {
            Some(event) => event.map_err(|why| {
                format!("the payload of type {type_number} cannot be read: {why}")
            })?,
            None => Event::Unknown {
                type_number,
                type_version,
                payload: payload.to_vec(),
            },
        };
        Ok(Recorded {
            position: self.position(),
            stream: StreamId::from_bytes(*self.stream_key())
                .ok_or("its stream is of no known kind")?,
            seq: self.seq(),
            at: self.at(),
            cause: self.cause(),
            class: match self.bytes[CLASS] {
                0 => Class::Asked,
                1 => Class::Observed,
                2 => Class::Decided,
                class => return Err(format!("there is no class {class}")),
            },
            provenance: match self.bytes[PROVENANCE] {
                0 => Provenance::Live,
                1 => Provenance::Backfilled,
                2 => Provenance::Inferred,
                provenance => return Err(format!("there is no provenance {provenance}")),
            },
            id: self.id(),
            frame: self.frame(),
            event,
        })
    }
}

/// The next hash of a chain.
pub(crate) fn chain(previous: Hash, bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&previous.0).update(bytes);
    Hash(hasher.finalize().into())
}

const fn class_byte(class: Class) -> u8 {
    match class {
        Class::Asked => 0,
        Class::Observed => 1,
        Class::Decided => 2,
    }
}

const fn provenance_byte(provenance: Provenance) -> u8 {
    match provenance {
        Provenance::Live => 0,
        Provenance::Backfilled => 1,
        Provenance::Inferred => 2,
    }
}

const fn flags(id: Option<EventId>, frame: Option<FrameNumber>) -> u8 {
    (if id.is_some() { HAS_ID } else { 0 }) | (if frame.is_some() { HAS_FRAME } else { 0 })
}

/// The bytes of the fields that `flags` announce.
const fn optional_len(flags: u8) -> usize {
    (if flags & HAS_ID == 0 { 0 } else { ID_LEN })
        + (if flags & HAS_FRAME == 0 { 0 } else { FRAME_LEN })
}

/// The number at `offset`, which the caller knows to be there.
fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("eight bytes"))
}

/// The number at `offset`, which the caller knows to be there.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("four bytes"))
}

fn put_u64(bytes: &mut [u8], offset: usize, number: u64) {
    bytes[offset..][..8].copy_from_slice(&number.to_le_bytes());
}

#[cfg(test)]
mod tests;
