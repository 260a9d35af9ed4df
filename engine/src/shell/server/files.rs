//! What is kept about a server beside the log: its password, and what it writes.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::adapter::Secret;
use crate::error::Error;
use crate::limits;

/// The files of servers: `MARK` holds the password, `MARK.out` what the server writes.
#[derive(Debug, Clone)]
pub(in crate::shell) struct Files {
    directory: Arc<Path>,
}

impl Files {
    pub(in crate::shell) fn new(directory: PathBuf) -> Self {
        Self {
            directory: directory.into(),
        }
    }

    /// Makes a password and keeps it, durably, before anybody can need it.
    pub(super) fn make_password(&self, mark: &str) -> Result<Secret, Error> {
        let path = self.path(mark);
        let failed = |source| Error::ServerFile {
            action: "write the password to",
            path: path.clone(),
            source: Arc::new(source),
        };
        let password = random_hex::<32>().map_err(failed)?;
        self.write_durably(&path, &password).map_err(failed)?;
        Ok(Secret::new(password))
    }

    fn write_durably(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.directory)?;
        let mut file = private(OpenOptions::new().write(true).create_new(true)).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        File::open(&self.directory)?.sync_all()
    }

    /// The password of a server; `None` where there is no file of it.
    pub(in crate::shell) fn password(&self, mark: &str) -> Option<Secret> {
        fs::read_to_string(self.path(mark)).ok().map(Secret::new)
    }

    pub(super) fn create_output(&self, mark: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        private(options.append(true).create(true))
            .open(self.output(mark))
            .map(drop)
    }

    /// Empties what a server has written, once it is long.
    pub(in crate::shell) fn bound_output(&self, mark: &str) {
        let path = self.output(mark);
        if fs::metadata(&path).is_ok_and(|about| about.len() > limits::SERVER_OUTPUT_BYTES_MAX) {
            let _ = OpenOptions::new().write(true).truncate(true).open(path);
        }
    }

    /// The address in the line that says the server listens.
    pub(super) fn announced(&self, mark: &str, prefix: &str) -> Option<String> {
        let file = File::open(self.output(mark)).ok()?;
        let mut bytes = Vec::new();
        file.take(limits::SERVER_OUTPUT_BYTES_MAX)
            .read_to_end(&mut bytes)
            .ok()?;
        // A line without its end may still grow.
        String::from_utf8_lossy(&bytes)
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .find_map(|line| line.trim().strip_prefix(prefix))
            .map(|address| address.trim().to_owned())
    }

    /// The end of what a server wrote, for an error, but for the line that says it listens; its
    /// password, should it be there, is not.
    pub(super) fn last_words(&self, mark: &str, ready_prefix: Option<&str>) -> Option<String> {
        let mut file = File::open(self.output(mark)).ok()?;
        let length = file.metadata().ok()?.len();
        let from = length.saturating_sub(limits::LAST_WORDS_BYTES_MAX as u64);
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(limits::LAST_WORDS_BYTES_MAX as u64)
            .read_to_end(&mut bytes)
            .ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let says_more =
            |line: &&str| !ready_prefix.is_some_and(|prefix| line.trim().starts_with(prefix));
        let lines: Vec<&str> = text.lines().filter(says_more).collect();
        let mut words = lines.join("\n").trim().to_owned();
        if let Some(password) = self.password(mark) {
            words = words.replace(password.reveal(), "…");
        }
        (!words.is_empty()).then_some(words)
    }

    /// Whether anything is kept about a server.
    pub(super) fn are_kept(&self, mark: &str) -> bool {
        self.path(mark).exists()
    }

    /// The marks of all servers that anything is kept about.
    pub(in crate::shell) fn marks(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let stems = entries.filter_map(|entry| {
            let path = PathBuf::from(entry.ok()?.file_name());
            Some(path.file_stem()?.to_str()?.to_owned())
        });
        let marks: BTreeSet<String> = stems.collect();
        marks.into_iter().collect()
    }

    /// Removes what is kept about a server.
    pub(in crate::shell) fn remove(&self, mark: &str) {
        for path in [self.path(mark), self.output(mark)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "remove a server's file");
            }
        }
    }

    fn path(&self, mark: &str) -> PathBuf {
        // A mark is ours, but it is read back from the log: nothing in it may lead elsewhere.
        let name: String = mark.chars().filter(char::is_ascii_alphanumeric).collect();
        self.directory.join(name)
    }

    pub(super) fn output(&self, mark: &str) -> PathBuf {
        self.path(mark).with_extension("out")
    }
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Random bytes from the system, as text.
pub(super) fn random_hex<const N: usize>() -> io::Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    let mut text = String::with_capacity(2 * N);
    for byte in bytes {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    Ok(text)
}
