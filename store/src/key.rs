//! Keys that sign, as people make them with common tools. The only file that names ed25519-dalek.
//!
//! A private key is a PEM file as `openssl genpkey -algorithm ed25519` writes it (PKCS#8, RFC 8410), a
//! public key one as `openssl pkey -pubout` does, or 64 hexadecimal digits. This file knows texts and no
//! files: keeping a private key where nobody else can read it is its owner's work.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use ed25519_dalek::Signer as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    KeypairBytes,
};

use crate::hex;

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wanted}: {reason}")]
pub struct ParseKeyError {
    /// What should have been there.
    wanted: &'static str,
    /// What was there instead.
    reason: String,
}

/// A private key: who has it can sign. Wiped from memory when it is dropped.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key that follows from 32 random bytes; chance is the caller's.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The key in a PEM text (PKCS#8, not encrypted).
    ///
    /// # Errors
    ///
    /// [`ParseKeyError`] where the text is anything else.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        ed25519_dalek::SigningKey::from_pkcs8_pem(text)
            .map(Self)
            .map_err(|error| ParseKeyError {
                wanted: "not a private ed25519 key in PEM (PKCS#8, not encrypted)",
                reason: no_pem(text, "PRIVATE KEY", &error),
            })
    }

    /// The key as PEM, byte for byte what OpenSSL writes. Wiped from memory when it is dropped.
    ///
    /// # Panics
    ///
    /// Never: 32 bytes always have this form.
    #[must_use]
    pub fn to_pem(&self) -> impl Deref<Target = String> + use<> {
        // Without the public key, which is the older form: every tool reads that one.
        let bytes = KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        };
        bytes
            .to_pkcs8_pem(LineEnding::LF)
            .expect("32 bytes can be written down")
    }

    /// The public key that belongs to it.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SigningKey {
    /// Tells only whose it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public_key())
    }
}

/// A public key: says who signed. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key with these bytes.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError`] where no key has them.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, ParseKeyError> {
        ed25519_dalek::VerifyingKey::from_bytes(bytes)
            .map(|key| Self(key.to_bytes()))
            .map_err(|error| ParseKeyError {
                wanted: NO_PUBLIC_KEY,
                reason: error.to_string(),
            })
    }

    /// The key in a PEM text.
    ///
    /// # Errors
    ///
    /// [`ParseKeyError`] where the text is anything else.
    pub fn from_pem(text: &str) -> Result<Self, ParseKeyError> {
        ed25519_dalek::VerifyingKey::from_public_key_pem(text)
            .map(|key| Self(key.to_bytes()))
            .map_err(|error| ParseKeyError {
                wanted: NO_PUBLIC_KEY,
                reason: no_pem(text, "PUBLIC KEY", &error),
            })
    }

    /// The key as PEM, byte for byte what OpenSSL writes.
    ///
    /// # Panics
    ///
    /// Never: 32 bytes always have this form.
    #[must_use]
    pub fn to_pem(self) -> String {
        self.parse()
            .to_public_key_pem(LineEnding::LF)
            .expect("32 bytes can be written down")
    }

    /// The bytes of this key.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }

    /// Whether the key's owner signed this message.
    ///
    /// The strict way: keys and signatures that fit more than one message are refused.
    pub(crate) fn has_signed(self, message: &[u8], signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        self.parse().verify_strict(message, &signature).is_ok()
    }

    fn parse(self) -> ed25519_dalek::VerifyingKey {
        ed25519_dalek::VerifyingKey::from_bytes(&self.0).expect("these bytes were a key before")
    }
}

/// Why a text is not the PEM of a kind of key. Most often it is another file, which the parser does not say.
fn no_pem(text: &str, kind: &str, error: &dyn fmt::Display) -> String {
    let begins = format!("-----BEGIN {kind}-----");
    match text.lines().next().unwrap_or_default().trim_end() {
        line if line == begins => error.to_string(),
        line if line.starts_with("-----BEGIN ") => format!("it begins with {line}"),
        _ => format!("it does not begin with {begins}"),
    }
}

const NO_PUBLIC_KEY: &str = "not a public ed25519 key (PEM, or 64 hexadecimal digits)";

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = ParseKeyError;

    /// Reads 64 hexadecimal digits, or PEM.
    fn from_str(text: &str) -> Result<Self, ParseKeyError> {
        let text = text.trim();
        if text.starts_with("-----") {
            return Self::from_pem(text);
        }
        let bytes = hex::decode(text).map_err(|error| ParseKeyError {
            wanted: NO_PUBLIC_KEY,
            reason: error.to_string(),
        })?;
        Self::from_bytes(&bytes)
    }
}

/// A signature: 64 bytes of ed25519, shown as 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // As `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` wrote them.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIHc9mtqX5uB5QO61G0rYyRVi3F4cCLyxCJ9OvzH12Yf9
-----END PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA/UuktVsBzQhoNk9Z0zmO+gstoC5YG9ah288LVD8+P0Y=
-----END PUBLIC KEY-----
";

    #[test]
    fn keys_of_openssl_are_read_and_written_byte_for_byte() {
        let key = SigningKey::from_pem(PRIVATE).expect("a key");
        assert_eq!(*key.to_pem(), PRIVATE);
        assert_eq!(key.public_key().to_pem(), PUBLIC);
        assert_eq!(PUBLIC.parse(), Ok(key.public_key()));
        let hex = "fd4ba4b55b01cd0868364f59d3398efa0b2da02e581bd6a1dbcf0b543f3e3f46";
        assert_eq!(key.public_key().to_string(), hex);
        assert_eq!(hex.to_uppercase().parse(), Ok(key.public_key()));
        assert_eq!(format!("{key:?}"), format!("SigningKey(of {hex})"));
    }

    #[test]
    fn keys_with_their_public_half_are_read_too() {
        // The examples of RFC 8410, section 10.3: the second form has attributes and the public key.
        let newer = "-----BEGIN PRIVATE KEY-----
MHICAQEwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
oB8wHQYKKoZIhvcNAQkJFDEPDA1DdXJkbGUgQ2hhaXJzgSEAGb9ECWmEzf6FQbrB
Z9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PRIVATE KEY-----
";
        let older = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC
-----END PRIVATE KEY-----
";
        let key = SigningKey::from_pem(newer).expect("a key");
        assert_eq!(*key.to_pem(), older);
    }

    #[test]
    fn what_is_no_key_is_refused_with_its_reason() {
        let encrypted = PRIVATE.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let of_another_kind = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VuAyEA/UuktVsBzQhoNk9Z0zmO+gstoC5YG9ah288LVD8+P0Y=
-----END PUBLIC KEY-----
";
        for text in ["", "abc", PUBLIC, &encrypted, &PRIVATE[..80]] {
            let error = SigningKey::from_pem(text).expect_err("no key").to_string();
            assert!(error.starts_with("not a private ed25519 key"), "{error}");
        }
        for text in [
            "",
            "abc",
            PRIVATE,
            of_another_kind,
            &"f".repeat(63),
            &"g".repeat(64),
            // Not the y of any point of the curve.
            &format!("02{}", "0".repeat(62)),
        ] {
            let error = text.parse::<PublicKey>().expect_err("no key").to_string();
            assert!(error.starts_with("not a public ed25519 key"), "{error}");
        }
    }

    #[test]
    fn only_the_message_that_was_signed_is_signed() {
        // RFC 8032, section 7.1, test 2.
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
            .expect("hex");
        let key = SigningKey::from_seed(&seed);
        let signature = key.sign(&[0x72]);
        assert_eq!(
            signature.to_string(),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(key.public_key().has_signed(&[0x72], &signature));
        assert!(!key.public_key().has_signed(&[0x73], &signature));
        let mut other = signature;
        other.0[0] ^= 1;
        assert!(!key.public_key().has_signed(&[0x72], &other));
    }
}
