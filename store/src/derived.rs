//! Skeleton.
use serde::{Serialize, de::DeserializeOwned};
/// Encodes.
pub fn encode<T: Serialize>(_: &T) -> Result<Vec<u8>, String> {
    todo!()
}
/// Decodes.
pub fn decode<T: DeserializeOwned>(_: &[u8]) -> Result<T, String> {
    todo!()
}
