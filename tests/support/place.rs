//! A folder with a log in it, and the `recount` command run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::Expect;
use recount_store::{NewEvent, StreamId};
use serde_json::Value;
use tempfile::TempDir;

use crate::files::contents;
use crate::process::{Finished, recount};
use crate::story::record;

/// A folder of a test's own, whose `data` is the data directory. It is removed when it is dropped.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    /// Nothing is there yet, not even `data`.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One whose log holds these events, each batch recorded at once.
    pub fn holding(events: impl IntoIterator<Item = (StreamId, Vec<NewEvent>)>) -> Self {
        let place = Self::new();
        record(&place.data(), events);
        place
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file in the folder.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    /// Everything in the folder.
    pub fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        contents(self.folder())
    }

    /// A verb of `recount` on the log here.
    pub fn command(&self, args: &[&str]) -> Command {
        command(&self.data(), args)
    }

    /// Runs a verb to its end.
    pub fn run(&self, args: &[&str]) -> Finished {
        Finished::of(&mut self.command(args))
    }

    /// What a verb prints and how it ends, as one text; the folder is HERE in it.
    pub fn told(&self, args: &[&str]) -> String {
        self.text(&self.run(args))
    }

    /// The same of what was run some other way.
    pub fn text(&self, finished: &Finished) -> String {
        let here = self.folder().to_str().unwrap();
        finished.text().replace(here, "HERE")
    }

    /// Each of these as it was typed, and what came.
    pub fn told_each(&self, commands: &[&[&str]]) -> String {
        let told = |args: &&[&str]| format!("$ recount {}\n{}", args.join(" "), self.told(args));
        commands.iter().map(told).collect()
    }

    /// Holds what a verb prints, and how it ends, to a text.
    pub fn check(&self, args: &[&str], expected: &Expect) {
        expected.assert_eq(&self.told(args));
    }

    /// What a verb prints that is to succeed.
    #[track_caller]
    pub fn printed(&self, args: &[&str]) -> String {
        self.run(args).printed()
    }

    /// The objects that it prints, one a line.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Vec<Value> {
        self.run(args).json()
    }

    /// The one object that it prints.
    #[track_caller]
    pub fn object(&self, args: &[&str]) -> Value {
        self.run(args).object()
    }
}

/// A verb of `recount` on the log in this directory, run beside it, in UTC, with nothing of this process's environment.
pub fn command(data: &Path, args: &[&str]) -> Command {
    let folder = data.parent().expect("it is in a folder");
    let mut command = Command::new(recount());
    command
        .args(args)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/bin:/bin")
        .env("TZ", "UTC")
        .env("RECOUNT_DATA", data);
    command
}
