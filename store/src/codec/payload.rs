//! The one place that names bincode.
//!
//! The configuration is bincode's old default: integers little-endian at their full width, lengths as
//! eight bytes, variants as four. Other crates that are kept up write and read the same bytes with
//! their own defaults, so leaving bincode is a change of this file.

use bincode::error::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits;

/// Appends the encoding of `value`.
///
/// # Panics
///
/// On a type that cannot say how long it is, which is a mistake in that type.
pub(super) fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    // Writing to memory does not fail; what else can is a map or a sequence of unknown length.
    bincode::serde::encode_into_std_write(value, out, bincode::config::legacy())
        .expect("a type with known lengths can be written to memory");
}

/// The value whose whole encoding `bytes` is, borrowing from it.
///
/// Borrowed texts are checked against the bytes at hand before anything is made of them, so a length
/// that lies costs nothing.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    whole(
        bincode::serde::borrow_decode_from_slice(bytes, bincode::config::legacy()),
        bytes,
    )
}

/// The value whose whole encoding `bytes` is, made of its own memory: at most a snapshot's limit of it.
pub(super) fn decode_owned<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let config = bincode::config::legacy().with_limit::<{ limits::SNAPSHOT_BYTES_MAX }>();
    whole(bincode::serde::decode_from_slice(bytes, config), bytes)
}

fn whole<T>(decoded: Result<(T, usize), DecodeError>, bytes: &[u8]) -> Result<T, String> {
    match decoded {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok((_, used)) => Err(format!("{} bytes too many", bytes.len() - used)),
        Err(DecodeError::Utf8 { .. }) => Err("a text in it is not UTF-8".to_owned()),
        Err(DecodeError::UnexpectedEnd { .. }) => Err("it ends too soon".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
