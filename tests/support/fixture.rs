//! Logs that are kept under `tests/fixtures`, and what the `recount` command says of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::command::VERB_TIMEOUT;
use crate::process::{Finished, Running, recount};

/// The files of a data directory.
const FILES: [&str; 3] = ["log.redb", "journal-a", "journal-b"];

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

/// A copy of a log that is kept, in a data directory of its own.
#[derive(Debug)]
pub struct Fixture(TempDir);

/// Unpacks the fixture of this name: a folder of `tests/fixtures`, whose README says what each is. As of every log, its
/// files are its owner's alone.
pub fn fixture(name: &str) -> Fixture {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    for file in FILES {
        let path = packed.join(format!("{file}.zst"));
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::write(data.join(file), zstd::decode_all(&bytes[..]).unwrap()).unwrap();
        fs::set_permissions(data.join(file), PermissionsExt::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    Fixture(folder)
}

impl Fixture {
    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// A verb of `recount` on it, in UTC, with nothing of this process's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(recount());
        command
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("RECOUNT_DATA", self.data());
        command
    }

    /// Runs a verb to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        Running::spawn(&mut self.command(args)).finish(VERB_TIMEOUT)
    }

    /// What a verb prints, on both outputs, and its exit code, as one text; the folder is HERE in it.
    pub fn told(&self, args: &[&str]) -> String {
        let Finished {
            status,
            stdout,
            stderr,
        } = self.run(args);
        let code = status
            .code()
            .map_or("signal".to_owned(), |code| code.to_string());
        let mut text = stdout;
        if !stderr.is_empty() {
            text.push_str("--- stderr\n");
            text.push_str(&stderr);
        }
        let here = self.0.path().to_str().unwrap();
        format!("{}--- exit {code}\n", text.replace(here, "HERE"))
    }
}
