//! What is done with bytes that nobody vouches for, and what must hold then.
//!
//! Each function takes any bytes and panics where a promise is broken. The fuzzer in `fuzz/` looks for such
//! bytes; the tests below go through those that it kept.

#![allow(
    clippy::missing_panics_doc,
    reason = "a panic is how each of them says what it found"
)]

use crate::codec::{self, Draft, Record};
use crate::event::{Cause, NewEvent, Recorded};
use crate::log::block::Block;

pub use crate::log::damaged::open;

/// A record, and a block: after eight bytes of the position that it is stored at.
pub fn envelope(bytes: &[u8]) {
    let mut rest = bytes;
    while let Some((record, after)) = Record::split(rest) {
        assert_eq!(record.bytes().len() + after.len(), rest.len());
        read_record(record);
        rest = after;
    }
    if let Some((first, bytes)) = bytes.split_first_chunk()
        && let Ok(block) = Block::parse(u64::from_le_bytes(*first), bytes)
    {
        // Some may be gone, so they do not follow one another.
        let mut next = block.first();
        for record in block.records() {
            let Ok(record) = record else { return };
            assert!((next..=block.last()).contains(&record.position()));
            next = record.position().next();
            read_record(record);
        }
        // It is whole. What is left of it, should some of its records go, is too, and leads to the same head.
        let is_gone = |record: Record<'_>| record.seq().0.is_multiple_of(2);
        if let Ok(Some(thinned)) = block.without(is_gone) {
            let left = Block::parse(block.first().0, &thinned).expect("a block");
            assert_eq!(left.tip(), block.tip());
            for record in left.records() {
                assert!(!is_gone(record.expect("it was whole")));
            }
        }
    }
}

/// Looks at all of a record. What can be read is written again as the same bytes.
fn read_record(record: Record<'_>) {
    let Ok(recorded) = record.decode() else {
        return;
    };
    assert_eq!(
        (recorded.position, recorded.seq, recorded.at),
        (record.position(), record.seq(), record.at())
    );
    assert_eq!((recorded.id, recorded.frame), (record.id(), record.frame()));
    // The class of an event that is appended is that of its type; `verify` refuses another.
    if recorded.class == recorded.event.class() {
        let before_hash = |record: Record<'_>| {
            let bytes = record.bytes();
            bytes[..bytes.len() - record.hash().0.len()].to_vec()
        };
        let mut again = Vec::new();
        Draft::encode(recorded.stream, &[new_event(&recorded)])
            .expect("it was not too large")
            .place(recorded.position, recorded.seq, record.hash(), |record| {
                again = before_hash(record);
            });
        assert_eq!(again, before_hash(record));
    }
}

fn new_event(recorded: &Recorded) -> NewEvent {
    NewEvent {
        event: recorded.event.clone(),
        at: recorded.at,
        cause: recorded.cause.map_or(Cause::None, Cause::At),
        provenance: recorded.provenance,
        id: recorded.id,
        frame: recorded.frame,
    }
}

/// The payload of an event: two bytes of its type's number, then the payload. What can be read is written
/// again as the same bytes.
pub fn payload(bytes: &[u8]) {
    let Some((number, payload)) = bytes.split_first_chunk() else {
        return;
    };
    let number = u16::from_le_bytes(*number);
    if let Some(Ok(event)) = codec::decode_payload(number, payload) {
        assert_eq!(event.type_number(), number);
        let mut again = Vec::new();
        codec::encode_payload(&event, &mut again);
        assert_eq!(again, payload);
        // It can be shown.
        serde_json::to_string(&event).expect("every event has its JSON");
    }
}

/// Derived data, such as snapshots: made of types like those that projections have.
pub fn derived(bytes: &[u8]) {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct State {
        name: Option<String>,
        lists: Vec<Vec<u16>>,
        choice: Result<bool, char>,
        by_key: std::collections::BTreeMap<String, (u64, crate::StreamId)>,
    }
    if let Ok(state) = codec::decode_derived::<State>(bytes) {
        let again = codec::encode_derived(&state);
        // A map may have come in another order, or with a key twice.
        assert!(again.len() <= bytes.len());
        assert_eq!(codec::decode_derived(&again), Ok(state));
    }
    if let Ok(list) = codec::decode_derived::<Vec<Option<String>>>(bytes) {
        assert_eq!(codec::encode_derived(&list), bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Goes through what the fuzzer kept.
    fn replay(target: &str, run: fn(&[u8])) {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&kept).expect("a folder") {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).expect("a file");
            // A failure names the file.
            println!("{}", path.display());
            run(&bytes);
            count += 1;
        }
        assert!(count > 0, "nothing is kept in {}", kept.display());
    }

    #[test]
    fn no_envelope_is_a_danger() {
        replay("envelope", envelope);
    }

    #[test]
    fn no_payload_is_a_danger() {
        replay("payload", payload);
    }

    #[test]
    fn no_derived_data_is_a_danger() {
        replay("derived", derived);
    }

    #[test]
    fn no_damaged_log_is_a_danger() {
        replay("open", open);
    }
}
