//! Files with keys: a private one is its owner's alone, and none is ever overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::Path;

use recount_store::{PublicKey, SigningKey};

use crate::failure::Failure;
use crate::output::note;

/// No key and no signed head is as long as this.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The private key in a file that nobody else can read.
///
/// # Errors
///
/// Where the file cannot be read, can be read by others too, or holds no such key.
pub(crate) fn private(path: &Path) -> Result<SigningKey, Failure> {
    let cannot = || format!("cannot use the key {}", path.display());
    let make = "recount key new FILE    makes one";
    let text = read(path).map_err(|error| Failure::because(cannot(), error).try_next(make))?;
    let key = SigningKey::from_pem(&text)
        .map_err(|error| Failure::because(cannot(), error).try_next(make))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(path).map_err(|error| Failure::because(cannot(), error))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Failure::new(format!(
                "{}: others may read or change it (its mode is {mode:o})",
                cannot()
            ))
            .try_next(format!(
                "chmod 600 {}    keeps it to you; if others had it, make a new one",
                path.display()
            )));
        }
    }
    Ok(key)
}

/// Says that it proves little to be signed by a key that nobody named, where nobody did.
pub(crate) fn note_trust(trusted: Option<&PublicKey>) {
    if trusted.is_none() {
        note("recount: whose key that is, the file alone says: name the one you trust");
        note("  --public-key KEY    64 hexadecimal digits, or a file of them or of PEM");
    }
}

/// The public key that a text is, or that the file of this name holds.
///
/// # Errors
///
/// Where it is neither.
pub(crate) fn public(key_or_file: &str) -> Result<PublicKey, Failure> {
    if let Ok(key) = key_or_file.parse() {
        return Ok(key);
    }
    let cannot = || format!("cannot use the public key {key_or_file}");
    let next = "--public-key takes 64 hexadecimal digits, or a file of them or of PEM";
    let text = read(Path::new(key_or_file))
        .map_err(|error| Failure::because(cannot(), error).try_next(next))?;
    text.parse::<PublicKey>()
        .map_err(|error| Failure::because(cannot(), error).try_next(next))
}

/// The text in a file that is not long.
///
/// # Errors
///
/// The system's, and where it is too long or no text.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    if read as u64 == FILE_BYTES_MAX {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "it is far longer than it should be",
        ));
    }
    Ok(text)
}

/// Makes a file with a text, whole and durable or not at all.
///
/// # Errors
///
/// Where the name is taken, and where the system refuses.
pub(crate) fn create(path: &Path, private: bool, text: &str) -> Result<(), Failure> {
    let cannot = || format!("cannot make {}", path.display());
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if private { 0o600 } else { 0o666 });
    let mut file = options.open(path).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(format!(
            "{} is there already; it was left as it is",
            path.display()
        ))
        .try_next("name a file that does not exist"),
        _ => Failure::because(cannot(), error),
    })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        Failure::because(cannot(), error)
    })
}
