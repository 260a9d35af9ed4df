//! Every table of the log's file: its keys, its values, and how long a row lives.
//!
//! | table | key | value | lifetime |
//! | --- | --- | --- | --- |
//! | `meta` | name | bytes | made with the file |
//! | `blocks` | position of the first record | [block](super::block) | for ever; written once, and thinned where fronts of streams were cut |
//! | `frames` | number of the first frame | [chunk](super::frames) | until it is old; written once, never changed |
//! | `derived` | name | number | rewritten with the index |
//! | `event_ids` | id of an event (16) | its position | derived; written with the index, never changed |
//! | `stream_heads` | stream (11) | [`StreamEnd`]: where the stream stands | derived; rewritten with the index |
//! | `stream_blocks` | stream (11), first number (8, big-endian) | (number, block's position) pairs, 16 bytes each | derived; written with the index, never changed |
//! | `snapshots` | stream (11), name of the projection | checksum (32), fold version (4), number (8), state | derived; replaced by the next |
//!
//! Only `meta` and `blocks` are the log, and `frames` are kept beside it. All else can be deleted while
//! nobody has the file open, and is made again from the blocks. What was appended lately is in the
//! [journal](super::journal) and comes here when it settles, much at a time: anything keyed by stream
//! writes a page for each stream that it touches, which is too much for a single commit.

use redb::TableDefinition;

use crate::codec::StreamKey;
use crate::id::{Position, Seq, StreamId, Timestamp};
use crate::log::{Hash, StreamHead};

pub(crate) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
pub(crate) const BLOCKS: TableDefinition<u64, &[u8]> = TableDefinition::new("blocks");
pub(crate) const FRAMES: TableDefinition<u64, &[u8]> = TableDefinition::new("frames");
pub(crate) const DERIVED: TableDefinition<&str, u64> = TableDefinition::new("derived");
pub(crate) const STREAM_HEADS: TableDefinition<&StreamKey, &[u8; StreamEnd::LEN]> =
    TableDefinition::new("stream_heads");
pub(crate) const STREAM_BLOCKS: TableDefinition<&RunKey, &[u8]> =
    TableDefinition::new("stream_blocks");
pub(crate) const EVENT_IDS: TableDefinition<&[u8; 16], u64> = TableDefinition::new("event_ids");
pub(crate) const SNAPSHOTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("snapshots");

/// In `meta`: says whose file it is.
pub(crate) const MAGIC: &str = "magic";
/// The value of [`MAGIC`].
pub(crate) const MAGIC_VALUE: &[u8] = b"recount log";
/// In `meta`: the format of the whole file, four bytes little-endian.
pub(crate) const FORMAT: &str = "format";
/// The value of [`FORMAT`] that this build writes, and the newest that it reads.
pub(crate) const FORMAT_VALUE: u32 = 1;
/// In `meta`: the key that entries of the journal are known by, 32 bytes of chance.
pub(crate) const JOURNAL_KEY: &str = "journal_key";
/// In `meta`: the number of the first frame that is kept, eight bytes little-endian; absent while it is 1.
pub(crate) const FRAMES_FROM: &str = "frames_from";
/// In `meta`: how many events are gone that no stream was cut of, eight bytes little-endian; absent while it is 0.
pub(crate) const LEFT_OUT: &str = "left_out";
/// In `derived`: the index covers all blocks up to this position, which ends a block.
pub(crate) const INDEXED_THROUGH: &str = "indexed_through";

/// Where a run of pairs in `stream_blocks` begins.
pub(crate) type RunKey = [u8; StreamId::LEN + 8];

/// The key of the run that begins with `seq`. Big-endian, so that the order of keys is that of numbers.
pub(crate) fn run_key(stream: &StreamKey, seq: Seq) -> RunKey {
    let mut key = [0; StreamId::LEN + 8];
    key[..StreamId::LEN].copy_from_slice(stream);
    key[StreamId::LEN..].copy_from_slice(&seq.0.to_be_bytes());
    key
}

/// The key of a snapshot.
pub(crate) fn snapshot_key(stream: StreamId, projection: &str) -> Vec<u8> {
    [&stream.to_bytes(), projection.as_bytes()].concat()
}

/// A block that holds records of a stream: the number of the first of them, and the block's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) seq: Seq,
    pub(crate) block: Position,
}

impl Pair {
    /// The bytes of pairs, one after the other.
    pub(crate) fn encode(pairs: &[Self]) -> Vec<u8> {
        pairs
            .iter()
            .flat_map(|pair| [pair.seq.0.to_le_bytes(), pair.block.0.to_le_bytes()])
            .flatten()
            .collect()
    }

    /// The pairs of such bytes.
    pub(crate) fn decode(bytes: &[u8]) -> impl Iterator<Item = Self> {
        let (pairs, _) = bytes.as_chunks::<16>();
        pairs.iter().map(|pair| Self {
            seq: Seq(number(pair, 0)),
            block: Position(number(pair, 8)),
        })
    }
}

/// Where a stream stands, with the hash that its next record follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamEnd {
    pub(crate) head: StreamHead,
    pub(crate) hash: Hash,
    pub(crate) cut: Option<Cut>,
}

/// What the front of a stream was cut at, by the last event that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// The number that remains first.
    pub(crate) before: Seq,
    /// The hash of the record before that one.
    pub(crate) hash: Hash,
    /// The number of the event that says so.
    pub(crate) at: Seq,
}

impl StreamEnd {
    /// Number, first and last position, time, and hash; and of a cut, or zeros: what remains first, the
    /// number of the event that says so, and the hash.
    pub(crate) const LEN: usize = 112;

    pub(crate) fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let StreamHead {
            seq,
            first,
            last,
            at,
            from: _,
        } = self.head;
        for (field, number) in bytes
            .chunks_exact_mut(8)
            .zip([seq.0, first.0, last.0, at.0])
        {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes[32..64].copy_from_slice(&self.hash.0);
        if let Some(cut) = self.cut {
            bytes[64..72].copy_from_slice(&cut.before.0.to_le_bytes());
            bytes[72..80].copy_from_slice(&cut.at.0.to_le_bytes());
            bytes[80..].copy_from_slice(&cut.hash.0);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Self {
        let hash = |at: usize| Hash(*bytes[at..].first_chunk().expect("32 bytes"));
        let cut = Some(Cut {
            before: Seq(number(bytes, 64)),
            hash: hash(80),
            at: Seq(number(bytes, 72)),
        });
        let cut = cut.filter(|cut| cut.before > Seq(0));
        Self {
            head: StreamHead {
                seq: Seq(number(bytes, 0)),
                first: Position(number(bytes, 8)),
                last: Position(number(bytes, 16)),
                at: Timestamp(number(bytes, 24)),
                from: cut.map_or(Seq::FIRST, |cut| cut.before),
            },
            hash: hash(32),
            cut,
        }
    }
}

/// The number at `offset` of a row whose width its type has settled.
fn number(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back() {
        let end = StreamEnd {
            head: StreamHead {
                seq: Seq(1),
                first: Position(2),
                last: Position(3),
                at: Timestamp(4),
                from: Seq::FIRST,
            },
            hash: Hash([5; 32]),
            cut: None,
        };
        assert_eq!(StreamEnd::decode(&end.encode()), end);
        let mut cut = end;
        cut.head.from = Seq(6);
        cut.cut = Some(Cut {
            before: Seq(6),
            hash: Hash([7; 32]),
            at: Seq(8),
        });
        assert_eq!(StreamEnd::decode(&cut.encode()), cut);
        let pairs = [1, 2, 3].map(|n| Pair {
            seq: Seq(n),
            block: Position(n * 10),
        });
        assert_eq!(
            Pair::decode(&Pair::encode(&pairs)).collect::<Vec<_>>(),
            pairs
        );
    }

    #[test]
    fn runs_sort_by_stream_then_number() {
        let (a, b) = ([1; 11], [2; 11]);
        let keys = [
            run_key(&a, Seq(1)),
            run_key(&a, Seq(255)),
            run_key(&a, Seq(256)),
            run_key(&a, Seq(u64::MAX)),
            run_key(&b, Seq(1)),
        ];
        assert!(keys.is_sorted());
    }
}
