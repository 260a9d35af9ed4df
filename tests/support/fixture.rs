//! Logs that are kept under `tests/fixtures`.

use std::fs;
use std::path::Path;

use crate::files::set_mode;
use crate::place::Place;

/// The files of a data directory that are kept.
pub const FILES: [&str; 3] = ["log.redb", "journal-a", "journal-b"];

/// The logs that are kept, each with a test of its own in `told.rs`.
pub const FIXTURES: [&str; 7] = [
    "clean",
    "week",
    "torn",
    "mangled",
    "short",
    "newer_event",
    "newer_format",
];

/// A place with a copy of the log of this name: a folder of `tests/fixtures`, whose README says what each is.
pub fn fixture(name: &str) -> Place {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    set_mode(&place.data(), 0o700);
    for file in FILES {
        let path = packed.join(format!("{file}.zst"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = place.data().join(file);
        fs::write(&file, zstd::decode_all(&bytes[..]).unwrap()).unwrap();
        set_mode(&file, 0o600);
    }
    place
}
