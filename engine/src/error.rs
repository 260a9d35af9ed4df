//! What can go wrong in the engine, with the data that whoever acts on it needs.

use std::path::PathBuf;
use std::sync::Arc;

use recount_store::{ConnectionId, Position, Seq, SessionId};

/// Why the engine could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log refused.
    #[error(transparent)]
    Log(#[from] recount_store::Error),
    /// The policy cannot work.
    #[error(transparent)]
    Policy(#[from] crate::policy::Error),
    /// No adapter has this name.
    #[error("there is no agent called {agent:?}; there are: {}", known.join(", "))]
    UnknownAgent {
        /// What was asked for.
        agent: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },
    /// An address that holds a name or a password: it would be recorded with the connection.
    #[error("a server's address must hold no password; Options::url_password is the place for it")]
    PasswordInUrl,
    /// The log has no such connection.
    #[error("the log has no connection {id}")]
    UnknownConnection {
        /// What was asked for.
        id: ConnectionId,
    },
    /// The agent's program is not on this computer.
    #[error(
        "cannot find the program {program:?} of the agent {agent}: {}",
        install_hint(agent)
    )]
    ProgramNotFound {
        /// The agent.
        agent: String,
        /// The program that was looked for.
        program: String,
    },
    /// Somebody else runs a server on the same data, and the policy forbids another one beside it.
    #[error(
        "another server of {agent} (process {pid}) works on the same data, in {home}: \
         stop it, or set connection.foreign_servers to \"allow\""
    )]
    ForeignServer {
        /// The agent.
        agent: String,
        /// Its process.
        pid: u32,
        /// Where both keep what they know.
        home: String,
    },
    /// The agent's server could not be started.
    #[error("cannot {action}: {source}")]
    Server {
        /// A bare verb phrase: `start opencode`.
        action: String,
        /// The system's answer.
        source: Arc<std::io::Error>,
    },
    /// A file about a server could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    ServerFile {
        /// A bare verb phrase: `write the password to`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: Arc<std::io::Error>,
    },
    /// The session does not take it, as it stands.
    #[error(transparent)]
    Rejected(#[from] crate::command::Rejection),
    /// The log has no such session.
    #[error("the log has no session {session}")]
    UnknownSession {
        /// What was asked for.
        session: SessionId,
    },
    /// A session has no event with this number.
    #[error("session {session} has no event {at}: its last one is {last}")]
    NoSuchEvent {
        /// The session.
        session: SessionId,
        /// What was asked for.
        at: Seq,
        /// The number of its last event.
        last: Seq,
    },
    /// The beginning of a session was cut off, and with it where it stood afterwards.
    #[error("the beginning of session {session} was cut off, so where it stood is not known")]
    BeginningCut {
        /// The session.
        session: SessionId,
    },
    /// The log names a policy that this build cannot read: it was recorded by another one.
    #[error("the policy that was recorded at position {position} cannot be read: {reason}")]
    RecordedPolicy {
        /// Where it stands.
        position: Position,
        /// What is wrong with it.
        reason: String,
    },
    /// A subscriber was too slow, and missed updates; what was recorded is in the log.
    #[error("{missed} updates were missed, being read too slowly; the log has them")]
    Lagged {
        /// How many.
        missed: u64,
    },
    /// The session's task has ended, since the engine was shut down or its log failed.
    #[error("the session has stopped: the engine was shut down, or its log failed")]
    Stopped,
    /// The engine failed at this call by a mistake of its own. The session has begun anew from its log.
    #[error("recount failed at this by a mistake of its own; its log says what became of it")]
    Panicked,
    /// The engine failed at this session again and again by a mistake of its own, and has left it alone.
    #[error(
        "session {session} stands still until recount starts again, since it failed again and again: {reason}"
    )]
    StandsStill {
        /// The session.
        session: SessionId,
        /// What it said the last time, for whoever mends it.
        reason: String,
    },
    /// The engine was shut down, or its log failed.
    #[error("recount was shut down")]
    ShutDown,
}

fn install_hint(agent: &str) -> String {
    let install = match agent {
        "opencode" => "install it (npm install -g opencode-ai)",
        _ => "install it",
    };
    format!("{install}, or see how things work without it: --agent scripted")
}
