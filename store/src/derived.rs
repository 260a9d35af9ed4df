//! Derived data as bytes: what can be folded again from the log at any time.
//!
//! Meant for the state of a projection in a [`Snapshot`](crate::Snapshot). These bytes are no part of
//! the log's format: whoever changes the type raises its fold version, and old bytes are thrown away.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec;

/// Bytes that cannot be read as the type that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("derived data cannot be read: {reason}")]
pub struct Unreadable {
    /// What is wrong with them.
    pub reason: String,
}

/// The bytes of `value`.
///
/// # Panics
///
/// On a type whose `Serialize` fails, or that gives a sequence or a map without its length.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    codec::encode_derived(value)
}

/// The value that `bytes` were made of.
///
/// The type must be the same as it was, field by field; it cannot be one that asks serde what comes
/// next (`untagged`, `flatten`, `serde_json::Value`).
///
/// # Errors
///
/// [`Unreadable`] where the bytes are not, from the first to the last, a value of that type.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    codec::decode_derived(bytes).map_err(|reason| Unreadable { reason })
}
