//! What can be wrong with a policy: where it stands, which key, and what would be right.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a policy cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the policy {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: Arc<std::io::Error>,
    },
    /// It is no TOML, names a key that there is not, or gives one a value of another kind.
    #[error("{origin}: {reason}")]
    Unreadable {
        /// The file, or the variable of the environment.
        origin: String,
        /// What is wrong, with the key, or with the line where it is no TOML at all.
        reason: String,
    },
    /// A value that cannot work.
    #[error("{origin}: {key} is {found}; it must be {allowed}")]
    NotAllowed {
        /// The file, or the environment.
        origin: String,
        /// The key, with its table: `session.runs_max`.
        key: String,
        /// What it says.
        found: String,
        /// What is allowed, as the end of a sentence: `at least 1`.
        allowed: String,
    },
}
