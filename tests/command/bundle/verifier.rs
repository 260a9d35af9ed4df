//! Checks a bundle by what `docs/export.md` and `store/FORMAT.md` say, and nothing else.

use std::collections::HashMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::Value;

type Hash = [u8; 32];

/// Proves a bundle by the key that must have signed; gives the lines of the events that it shows.
pub(crate) fn verify(bundle: &str, public_key: &str) -> Result<Vec<String>, String> {
    let mut lines = bundle.lines();
    let first = json(lines.next().ok_or("no first line")?)?;
    if first["kind"] != "recount bundle v1" || first["log_format"] != 1 {
        return Err("no bundle".to_owned());
    }
    let mut position = first["position"].as_u64().ok_or("no position")?;
    let mut head = hash(&first["head"])?;
    // By stream: the number of its last event, and its hash.
    let mut streams: HashMap<String, (Option<u64>, Hash)> = HashMap::new();
    for stream in first["streams"].as_array().ok_or("no streams")? {
        let name = stream["stream"].as_str().ok_or("no name")?;
        streams.insert(name.to_owned(), (None, hash(&stream["after"])?));
    }
    let mut shown = Vec::new();
    for text in lines.by_ref() {
        let line = json(text)?;
        if let Some(others) = line["other"].as_array() {
            for other in others {
                head = chain(&head, &hash(other)?);
                position += 1;
            }
            continue;
        }
        if line["kind"] == "recount head v1" {
            let is_last = lines.next().is_none();
            if !is_last || line["position"] != position || hash(&line["hash"])? != head {
                return Err("the signed head is another one".to_owned());
            }
            signature(&line, public_key)?;
            return Ok(shown);
        }
        position += 1;
        if line["position"] != position {
            return Err(format!("position {position} is missing"));
        }
        let name = line["stream"].as_str().ok_or("no stream")?.to_owned();
        let seq = line["seq"].as_u64().ok_or("no number")?;
        let (last, previous) = *streams.get(&name).ok_or("a stranger's event")?;
        match last {
            Some(last) if seq == last + 1 => {}
            None if (seq == 1) == (previous == [0; 32]) => {}
            _ => return Err(format!("{name} misses an event before {seq}")),
        }
        let own = if line["withheld"].is_null() {
            let record = line["record"].as_str().ok_or("no record")?;
            let record = BASE64_STANDARD
                .decode(record)
                .map_err(|error| error.to_string())?;
            shown.push(text.to_owned());
            self::record(&record, position, &name, seq, &previous)?
        } else {
            hash(&line["withheld"])?
        };
        streams.insert(name, (Some(seq), own));
        head = chain(&head, &own);
    }
    Err("no signed head".to_owned())
}

/// Checks a record, and gives its hash.
fn record(
    bytes: &[u8],
    position: u64,
    stream: &str,
    seq: u64,
    previous: &Hash,
) -> Result<Hash, String> {
    let u64_at = |at: usize| {
        let bytes: Option<[u8; 8]> = bytes
            .get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes)
    };
    let length = bytes
        .first_chunk()
        .map(|length| u32::from_le_bytes(*length));
    if bytes.len() < 54 + 32 || length != u32::try_from(bytes.len()).ok() || bytes[4] != 1 {
        return Err("no record".to_owned());
    }
    let named = match bytes[16] {
        0 => "engine".to_owned(),
        1 => format!("session/{}", base_32(&bytes[17..27])),
        2 => format!("connection/{}", base_32(&bytes[17..27])),
        _ => return Err("no stream".to_owned()),
    };
    if u64_at(8) != Some(position) || u64_at(27) != Some(seq) || named != stream {
        return Err("the record is of another event".to_owned());
    }
    let (before, own) = bytes.split_at(bytes.len() - 32);
    if chain(previous, before) != own {
        return Err(format!("the hash of {seq} in {stream} does not follow"));
    }
    own.try_into().map_err(|_| "no hash".to_owned())
}

fn signature(signed: &Value, public_key: &str) -> Result<(), String> {
    let number = |name: &str| signed[name].as_u64().ok_or("no number");
    let mut message = b"recount head v1\0".to_vec();
    let format = u32::try_from(number("log_format")?).map_err(|_| "no format")?;
    message.extend(format.to_le_bytes());
    message.extend(number("position")?.to_le_bytes());
    message.extend(hash(&signed["hash"])?);
    message.extend(number("at_us")?.to_le_bytes());
    if signed["public_key"] != public_key {
        return Err("somebody else signed".to_owned());
    }
    let key: Hash = bytes(public_key)?.try_into().map_err(|_| "no key")?;
    let key = VerifyingKey::from_bytes(&key).map_err(|error| error.to_string())?;
    let signature = bytes(signed["signature"].as_str().ok_or("no signature")?)?;
    let signature = Signature::from_slice(&signature).map_err(|error| error.to_string())?;
    key.verify_strict(&message, &signature)
        .map_err(|error| error.to_string())
}

fn chain(previous: &Hash, bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous).update(bytes);
    hasher.finalize().into()
}

fn json(line: &str) -> Result<Value, String> {
    serde_json::from_str(line).map_err(|error| error.to_string())
}

fn hash(value: &Value) -> Result<Hash, String> {
    let digits = value.as_str().ok_or("no hash")?;
    bytes(digits)?.try_into().map_err(|_| "no hash".to_owned())
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|error| error.to_string())?;
            u8::from_str_radix(pair, 16).map_err(|error| error.to_string())
        })
        .collect()
}

/// An id as people are shown it: 5 bits a character, the highest first.
fn base_32(bytes: &[u8]) -> String {
    let alphabet = b"0123456789abcdefghjkmnpqrstvwxyz";
    let bit = |n: usize| usize::from(bytes[n / 8] >> (7 - n % 8) & 1);
    (0..bytes.len() * 8 / 5)
        .map(|n| (0..5).fold(0, |value, at| value << 1 | bit(5 * n + at)))
        .map(|value| char::from(alphabet[value]))
        .collect()
}
