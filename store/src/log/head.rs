//! Where the whole log stands, and the same signed.
//!
//! The hash of a head covers every event up to its position, so who keeps a head elsewhere can prove
//! later that none of them was changed, taken out or put in. A signature says besides whose word that is.
//! What no chain can show by itself is that its end is missing: that takes a head that was kept.
//!
//! What is signed, with numbers in little-endian order:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 16 | `recount head v1` and a zero: no signature for anything else can be taken for this one |
//! | 16 | 4 | format of the log |
//! | 20 | 8 | position |
//! | 28 | 32 | hash |
//! | 60 | 8 | time of signing: microseconds since 1970, by the signer's clock |
//!
//! The signature is ed25519 (RFC 8032) over these 68 bytes. As JSON, with bytes as lower-case hexadecimal
//! digits; none of these members is ever renamed or left out:
//!
//! ```json
//! {"kind": "recount head v1", "log_format": 1, "position": 24, "hash": "…64 digits…",
//!  "at_us": 1795338843000000, "public_key": "…64 digits…", "signature": "…128 digits…"}
//! ```

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::hex;
use crate::id::{Position, Timestamp};
use crate::key::{PublicKey, Signature, SigningKey};
use crate::log::block::Tip;
use crate::log::{Hash, table};

/// Where the whole log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// The position of the last durable event; 0 where there is none.
    pub position: Position,
    /// The hash over the whole log up to it.
    pub hash: Hash,
}

impl From<Tip> for Head {
    fn from(Tip { position, hash }: Tip) -> Self {
        Self { position, hash }
    }
}

impl Head {
    /// Where the log stands after the next event, which has this hash.
    #[must_use]
    pub fn after(self, hash: Hash) -> Self {
        let Self {
            position,
            hash: before,
        } = self;
        let tip = Tip {
            position,
            hash: before,
        };
        tip.after(hash).into()
    }

    /// Signs that the log stood here at some time.
    #[must_use]
    pub fn sign(self, at: Timestamp, key: &SigningKey) -> SignedHead {
        let log_format = table::FORMAT_VALUE;
        SignedHead {
            log_format,
            head: self,
            at,
            public_key: key.public_key(),
            signature: key.sign(&message(log_format, self, at)),
        }
    }
}

/// Someone's word that a log stood somewhere. Reads and writes itself as JSON through serde.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct SignedHead {
    /// The format of the log.
    pub log_format: u32,
    /// Where the log stood.
    pub head: Head,
    /// When it was signed, by the signer's clock.
    pub at: Timestamp,
    /// Who signed, by their own word.
    pub public_key: PublicKey,
    /// The signature over all of that.
    pub signature: Signature,
}

impl SignedHead {
    /// Proves that the owner of the key signed exactly this.
    ///
    /// Without a `trusted` key that is the key in the signed head: anybody can sign with one of their own, so
    /// it proves no more than that nothing was garbled.
    ///
    /// # Errors
    ///
    /// [`CheckError::NewerFormat`], [`CheckError::OtherKey`], [`CheckError::BadSignature`].
    pub fn verify_signature(&self, trusted: Option<&PublicKey>) -> Result<(), CheckError> {
        if self.log_format > table::FORMAT_VALUE {
            return Err(CheckError::NewerFormat {
                found: self.log_format,
                known: table::FORMAT_VALUE,
            });
        }
        let signer = self.public_key;
        if let Some(&trusted) = trusted
            && trusted != signer
        {
            return Err(CheckError::OtherKey { trusted, signer });
        }
        let message = message(self.log_format, self.head, self.at);
        if !signer.has_signed(&message, &self.signature) {
            return Err(CheckError::BadSignature { signer });
        }
        Ok(())
    }
}

/// Why a log is not proven by a signed head.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckError {
    /// The signed head is of a log that only a newer release reads.
    #[error(
        "the signed head is of a log of format {found}, and this release reads up to {known}: use a newer one"
    )]
    NewerFormat {
        /// The format that it names.
        found: u32,
        /// The newest that this build reads.
        known: u32,
    },
    /// Somebody else signed it.
    #[error("it was signed with the key {signer}, not with {trusted}")]
    OtherKey {
        /// The key that should have signed.
        trusted: PublicKey,
        /// The key that did, by its own word.
        signer: PublicKey,
    },
    /// The signed head was changed after it was signed, or never was.
    #[error("the signature is not one by the key {signer} over this: one of them was changed")]
    BadSignature {
        /// The key that it names.
        signer: PublicKey,
    },
    /// The log is whole as far as it goes, and ends before the head that was signed.
    #[error(
        "events are missing at the end: the log ends at position {found}, and was signed up to {signed}"
    )]
    Short {
        /// The position that was signed.
        signed: Position,
        /// The position of the log's last event.
        found: Position,
    },
    /// The log is whole, and what was signed was cut off and taken out of it: a later signed head is needed.
    #[error(
        "what was signed up to position {position} was cut off since, and taken out of the log"
    )]
    CutOff {
        /// The position that was signed.
        position: Position,
    },
    /// The chain of the log leads elsewhere: it was written again with other events, or is another log.
    #[error(
        "an event at or before position {position} is not the one that was signed: the hash there is {found}, and was {signed}"
    )]
    Differs {
        /// The position that was signed.
        position: Position,
        /// The hash that was signed.
        signed: Hash,
        /// The hash that follows from the log's events.
        found: Hash,
    },
    /// The log is not whole by its own word, or could not be read.
    #[error(transparent)]
    Log(#[from] Error),
}

/// The bytes that are signed; the table above says which.
fn message(log_format: u32, head: Head, at: Timestamp) -> [u8; 68] {
    let mut bytes = [0; 68];
    bytes[..15].copy_from_slice(KIND.as_bytes());
    bytes[16..20].copy_from_slice(&log_format.to_le_bytes());
    bytes[20..28].copy_from_slice(&head.position.0.to_le_bytes());
    bytes[28..60].copy_from_slice(&head.hash.0);
    bytes[60..].copy_from_slice(&at.0.to_le_bytes());
    bytes
}

/// What it is, in the signed bytes and in the JSON.
const KIND: &str = "recount head v1";

/// A signed head as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    kind: String,
    log_format: u32,
    position: Position,
    hash: String,
    at_us: Timestamp,
    public_key: String,
    signature: String,
}

impl From<SignedHead> for Wire {
    fn from(signed: SignedHead) -> Self {
        Self {
            kind: KIND.to_owned(),
            log_format: signed.log_format,
            position: signed.head.position,
            hash: signed.head.hash.to_string(),
            at_us: signed.at,
            public_key: signed.public_key.to_string(),
            signature: signed.signature.to_string(),
        }
    }
}

impl TryFrom<Wire> for SignedHead {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        if wire.kind != KIND {
            return Err(format!("its kind is {:?}, not {KIND:?}", wire.kind));
        }
        let bad = |what: &'static str| move |error| format!("{what}: {error}");
        Ok(Self {
            log_format: wire.log_format,
            head: Head {
                position: wire.position,
                hash: Hash(hex::decode(&wire.hash).map_err(bad("hash"))?),
            },
            at: wire.at_us,
            public_key: hex::decode(&wire.public_key)
                .map_err(bad("public_key"))
                .and_then(|bytes| {
                    PublicKey::from_bytes(&bytes).map_err(|error| format!("public_key: {error}"))
                })?,
            signature: Signature(hex::decode(&wire.signature).map_err(bad("signature"))?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signed() -> SignedHead {
        let head = Head {
            position: Position(24),
            hash: Hash([0xab; 32]),
        };
        head.sign(
            Timestamp(1_795_338_843_000_000),
            &SigningKey::from_seed(&[7; 32]),
        )
    }

    #[test]
    fn the_signed_bytes_and_the_json_never_change() {
        let signed = signed();
        assert_eq!(
            hex::encode(&message(signed.log_format, signed.head, signed.at)),
            "7265636f756e74206865616420763100010000001800000000000000\
             abababababababababababababababababababababababababababababababab\
             c00cfde5d9600600"
        );
        assert_eq!(
            serde_json::to_string(&signed).expect("JSON"),
            // The signature is the one that OpenSSL makes over these bytes.
            "{\"kind\":\"recount head v1\",\"log_format\":1,\"position\":24,\"hash\":\"\
             abababababababababababababababababababababababababababababababab\",\
             \"at_us\":1795338843000000,\"public_key\":\"\
             ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c\",\"signature\":\"\
             9b88de93c87535c061ea0c0172783b4367fb0bd16c11ccf6977461e1a4b44c2b\
             b996e90d79305a0a180f27bfba15d8e43e3c2b96e3a1416ee9657272a4cd910d\"}"
        );
    }

    #[test]
    fn only_the_trusted_key_is_believed() {
        let (signed, other) = (signed(), SigningKey::from_seed(&[8; 32]).public_key());
        assert!(signed.verify_signature(None).is_ok());
        assert!(signed.verify_signature(Some(&signed.public_key)).is_ok());
        assert!(matches!(
            signed.verify_signature(Some(&other)),
            Err(CheckError::OtherKey { trusted, signer }) if (trusted, signer) == (other, signed.public_key)
        ));
        // A stranger's name under our signature.
        let renamed = SignedHead {
            public_key: other,
            ..signed
        };
        assert!(matches!(
            renamed.verify_signature(Some(&other)),
            Err(CheckError::BadSignature { signer }) if signer == other
        ));
        let newer = SignedHead {
            log_format: 1000,
            ..signed
        };
        assert!(matches!(
            newer.verify_signature(None),
            Err(CheckError::NewerFormat { found: 1000, .. })
        ));
    }

    #[test]
    fn json_that_is_no_signed_head_is_refused() {
        let good = serde_json::to_value(signed()).expect("JSON");
        let bad = [
            ("kind", serde_json::json!("recount head v2")),
            ("hash", serde_json::json!("ab")),
            ("public_key", serde_json::json!("02".repeat(32))),
            ("signature", serde_json::json!("zz".repeat(64))),
            ("more", serde_json::json!(1)),
        ];
        for (member, value) in bad {
            let mut json = good.clone();
            json[member] = value;
            let error = serde_json::from_value::<SignedHead>(json).expect_err("no signed head");
            assert!(error.to_string().contains(member), "{member}: {error}");
        }
    }

    proptest! {
        // Signing without optimisation takes its time.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_signed_reads_back_and_no_bit_of_it_can_change(
            position: u64, hash: [u8; 32], at: u64, seed: [u8; 32], flipped in 0..64 * 8_usize,
        ) {
            let head = Head { position: Position(position), hash: Hash(hash) };
            let signed = head.sign(Timestamp(at), &SigningKey::from_seed(&seed));
            let json = serde_json::to_string(&signed).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<SignedHead>(&json).expect("read back"), signed);
            prop_assert!(signed.verify_signature(None).is_ok());

            let flip = |bytes: &mut [u8]| bytes[flipped / 8 % bytes.len()] ^= 1 << (flipped % 8);
            let mut changed = [signed; 4];
            flip(&mut changed[0].head.hash.0);
            flip(&mut changed[1].signature.0);
            changed[2].head.position.0 ^= 1 << (flipped % 64);
            changed[3].at.0 ^= 1 << (flipped % 64);
            for changed in changed {
                prop_assert!(
                    matches!(changed.verify_signature(None), Err(CheckError::BadSignature { .. })),
                    "{:?}", changed
                );
            }
        }
    }
}
