//! The engine, as it is measured: opened as an application opens it, over an agent that runs elsewhere.

use std::path::Path;
use std::time::Duration;

use recount_engine::{OpenSession, Options, Session, SessionManager, Target};

use crate::agent::DIRECTORY;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(600);

/// An engine that waits for whatever the agent says, however late. At full speed on few cores a turn is many
/// seconds behind its agent, and looking at the agent's history meanwhile is what a session does that
/// fears to have missed something.
///
/// # Panics
///
/// If there is no log to be had.
pub async fn patient(data: &Path, keep_frames: bool) -> SessionManager {
    let mut options = Options::new(data);
    options.policy.log.keep_frames = keep_frames;
    options.policy.session.request_grace = PATIENCE;
    options.policy.session.request_grace_max = PATIENCE;
    options.policy.session.look_every = PATIENCE;
    let manager = SessionManager::start(options).await;
    manager.expect("an engine")
}

/// An engine with the usual choices.
///
/// # Panics
///
/// If there is no log to be had.
pub async fn usual(data: &Path) -> SessionManager {
    let manager = SessionManager::start(Options::new(data)).await;
    manager.expect("an engine")
}

/// A new session with the agent whose server is there.
///
/// # Panics
///
/// If it cannot be recorded.
pub async fn open(manager: &SessionManager, url: &str) -> Session {
    let session = OpenSession {
        target: Target::Url(url.to_owned()),
        ..OpenSession::new("opencode", DIRECTORY)
    };
    manager.open(session).await.expect("a session")
}
