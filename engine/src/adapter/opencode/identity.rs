//! The ids that OpenCode knows our messages by, in its own format.
//!
//! ```text
//! msg_ [12 hex: (milliseconds * 4096 + counter) mod 2^48] [14 base62]
//! prt_ the same                                           its one part
//! ```
//!
//! The counter carries the microseconds, so that later ids sort after earlier ones within a
//! millisecond too; the 14 places hold all 80 bits of our id, so that they are unique over all
//! sessions. The 48 bits wrap every 795 days (last on 2026-08-14); the versions that are taken order
//! by time first and do not mind.

use recount_store::{MessageId, Timestamp};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The id of a message that is first sent at `now`.
pub(super) fn message(message: MessageId, now: Timestamp) -> String {
    let micros = now.0 % 1000;
    let time = (now.as_millis().wrapping_mul(4096) + micros * 4) & ((1 << 48) - 1);
    let mut number = message
        .to_bytes()
        .iter()
        .fold(0u128, |number, &byte| (number << 8) | u128::from(byte));
    let mut places = [b'0'; 14];
    for place in places.iter_mut().rev() {
        *place = BASE62[(number % 62) as usize];
        number /= 62;
    }
    let places: String = places.into_iter().map(char::from).collect();
    format!("msg_{time:012x}{places}")
}

/// The id of a message's one part: sent again, it is written over and not added.
pub(super) fn part(message: &str) -> String {
    format!("prt_{}", message.strip_prefix("msg_").unwrap_or(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_has_the_agents_own_format() {
        // A recorded id and its time: msg_201e1df2f001… was made at 1795327909679.
        let id = message(
            MessageId::from_bytes([0xff; 10]),
            Timestamp(1_795_327_909_679_250),
        );
        assert_eq!(id, "msg_201e1df2f3e862iEp5bu9VZbsV");
        assert_eq!(id.len(), 30);
        assert_eq!(part(&id), format!("prt_{}", &id[4..]));
    }

    proptest! {
        #[test]
        fn later_ids_sort_after_earlier_ones(
            a in any::<[u8; 10]>(),
            b in any::<[u8; 10]>(),
            now in 1_795_000_000_000_000_u64..1_850_000_000_000_000,
            later in 1_u64..5_000_000,
        ) {
            let first = message(MessageId::from_bytes(a), Timestamp(now));
            let second = message(MessageId::from_bytes(b), Timestamp(now + later));
            prop_assert!(first < second);
            prop_assert_eq!(first.clone(), message(MessageId::from_bytes(a), Timestamp(now)));
            let other = message(MessageId::from_bytes(b), Timestamp(now));
            prop_assert_eq!(a == b, first == other);
        }
    }
}
