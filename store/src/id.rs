//! Names and numbers, each a type of its own so that two cannot be swapped.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Crockford's base 32: no `i`, `l`, `o` or `u`, so that an id can be read aloud.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Text that is not an id: an id is 16 characters of Crockford's base 32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: an id is 16 characters of 0-9 and a-z without i, l, o, u")]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
}

fn encode(bytes: [u8; 10]) -> [u8; 16] {
    let mut out = [0; 16];
    for (five, group) in bytes.chunks_exact(5).zip(out.chunks_exact_mut(8)) {
        let bits = five
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for (n, symbol) in group.iter_mut().enumerate() {
            *symbol = ALPHABET[(bits >> (35 - 5 * n) & 31) as usize];
        }
    }
    out
}

fn decode(text: &str) -> Option<[u8; 10]> {
    let symbols: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let mut out = [0; 10];
    for (group, five) in symbols.chunks_exact(8).zip(out.chunks_exact_mut(5)) {
        let mut bits = 0_u64;
        for symbol in group {
            bits = bits << 5 | ALPHABET.iter().position(|known| known == symbol)? as u64;
        }
        five.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(out)
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 80 bits, shown as 16 characters of Crockford's base 32; random, so that a short prefix names one of many.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 10]);

        impl $name {
            /// The id with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 10]) -> Self {
                Self(bytes)
            }

            /// The id made of the low 80 bits of a random number; chance is the caller's.
            #[must_use]
            pub fn from_random(random: u128) -> Self {
                let mut bytes = [0; 10];
                bytes.copy_from_slice(&random.to_be_bytes()[6..]);
                Self(bytes)
            }

            /// The id that belongs to a text: the same text always gives the same id.
            #[must_use]
            pub fn from_text(text: &str) -> Self {
                let hash = blake3::derive_key(concat!("recount 1 ", stringify!($name)), text.as_bytes());
                let mut bytes = [0; 10];
                bytes.copy_from_slice(&hash[..10]);
                Self(bytes)
            }

            /// The bytes of this id.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; 10] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = encode(self.0);
                f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                decode(text).map(Self).ok_or_else(|| ParseIdError { text: text.to_owned() })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 10]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id! {
    /// Names a session: one conversation with one agent.
    SessionId
}
id! {
    /// Names a connection: the link to one agent server, shared by its sessions.
    ConnectionId
}
id! {
    /// Names a message: what the application wants the agent to get.
    MessageId
}

/// Names one event, so that its append can be repeated: given by the application, the same each time.
///
/// 128 bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId([u8; 16]);

impl EventId {
    /// The id with these bytes: a UUID's, say.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The id that is this random number; chance is the caller's.
    #[must_use]
    pub const fn from_random(random: u128) -> Self {
        Self(random.to_be_bytes())
    }

    /// The id that belongs to a text, such as an application's own key: the same text always gives the same id.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let hash = blake3::derive_key("recount 1 EventId", text.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(bytes)
    }

    /// The bytes of this id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:032x}", u128::from_be_bytes(self.0)))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// Text that is not the id of an event: that is 32 hexadecimal digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the id of an event: that is 32 of 0-9 and a-f")]
pub struct ParseEventIdError {
    /// What was given.
    pub text: String,
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, ParseEventIdError> {
        // One text for one id, so that texts can be compared too: no signs, no upper case, nothing left out.
        let digits =
            text.len() == 32 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| digits)
            .map(Self::from_random)
            .ok_or_else(|| ParseEventIdError {
                text: text.to_owned(),
            })
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(serde::de::Error::custom)
        } else {
            <[u8; 16]>::deserialize(deserializer).map(Self)
        }
    }
}

/// The stream that an event belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StreamId {
    /// What happened to the engine itself.
    Engine,
    /// What happened in one session.
    Session(SessionId),
    /// What happened on one connection.
    Connection(ConnectionId),
}

impl StreamId {
    /// The length of [`StreamId::to_bytes`].
    pub const LEN: usize = 11;

    /// The bytes of this name in the log: the kind (0 engine, 1 session, 2 connection), then the id or zeros.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, id) = match self {
            Self::Engine => (0, [0; 10]),
            Self::Session(id) => (1, id.to_bytes()),
            Self::Connection(id) => (2, id.to_bytes()),
        };
        let mut bytes = [kind; Self::LEN];
        bytes[1..].copy_from_slice(&id);
        bytes
    }

    /// The name with these bytes; `None` where the kind is none that this build knows.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Option<Self> {
        let [kind, id @ ..] = bytes;
        match kind {
            0 if id == [0; 10] => Some(Self::Engine),
            1 => Some(Self::Session(SessionId::from_bytes(id))),
            2 => Some(Self::Connection(ConnectionId::from_bytes(id))),
            _ => None,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Session(id) => write!(f, "session/{id}"),
            Self::Connection(id) => write!(f, "connection/{id}"),
        }
    }
}

/// Where an event stands in the whole log: 1 for the first, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// The position of the first event.
    pub const FIRST: Self = Self(1);

    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of an event in its stream: 1 for the first, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The number of the first event of a stream.
    pub const FIRST: Self = Self(1);

    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of the frames as received: 1 for the first, without gaps over the whole log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct FrameNumber(pub u64);

impl FrameNumber {
    /// The number of the first frame.
    pub const FIRST: Self = Self(1);

    /// The one after.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for FrameNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment: microseconds since 1970-01-01T00:00:00Z, by the clock of the machine that recorded it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment that a reading of the system's clock names; times before 1970 become 1970.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// The moment `after` this one, at the latest the last one that can be named.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero where it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// Milliseconds since 1970, as agents count.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// The moment at these milliseconds since 1970.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_show() {
        for random in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = SessionId::from_random(random);
            assert_eq!(id.to_string().len(), 16);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!(
            SessionId::from_bytes([0xff; 10]).to_string(),
            "zzzzzzzzzzzzzzzz"
        );
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "abc",
            "ilouilouilouilou",
            "0123456789abcdefg",
            "ÄÄÄÄÄÄÄÄ",
        ] {
            assert_eq!(
                text.parse::<MessageId>(),
                Err(ParseIdError {
                    text: text.to_owned()
                })
            );
        }
    }

    #[test]
    fn ids_of_events_read_back_what_they_show() {
        for random in [0, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = EventId::from_random(random);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(EventId::from_bytes(id.to_bytes()), id);
            let json = serde_json::to_string(&id).expect("it can be shown");
            assert_eq!(json, format!("\"{id}\""));
            assert_eq!(
                serde_json::from_str::<EventId>(&json).expect("it reads back"),
                id
            );
        }
        assert_eq!(
            EventId::from_bytes(*b"0123456789abcdef").to_string(),
            "30313233343536373839616263646566"
        );
        assert_eq!(EventId::from_text("a"), EventId::from_text("a"));
        assert_ne!(EventId::from_text("a"), EventId::from_text("b"));
        for text in [
            "",
            "0",
            "+0000000000000000000000000000001",
            "0000000000000000000000000000000A",
            "000000000000000000000000000000000",
            "ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ",
        ] {
            assert_eq!(
                text.parse::<EventId>(),
                Err(ParseEventIdError {
                    text: text.to_owned()
                })
            );
        }
    }

    #[test]
    fn the_same_text_gives_the_same_id_and_kinds_differ() {
        assert_eq!(SessionId::from_text("a"), SessionId::from_text("a"));
        assert_ne!(SessionId::from_text("a"), SessionId::from_text("b"));
        assert_ne!(
            SessionId::from_text("a").to_bytes(),
            MessageId::from_text("a").to_bytes()
        );
    }

    #[test]
    fn stream_names_read_back() {
        let id = [7; 10];
        for stream in [
            StreamId::Engine,
            StreamId::Session(SessionId::from_bytes(id)),
            StreamId::Connection(ConnectionId::from_bytes(id)),
        ] {
            assert_eq!(StreamId::from_bytes(stream.to_bytes()), Some(stream));
        }
        assert_eq!(StreamId::from_bytes([9; StreamId::LEN]), None);
    }
}
