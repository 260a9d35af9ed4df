//! What a connection's machine is told, and what it wants done.

use recount_projections::connection::{Process, Server};
use recount_store::FrameNumber;

/// Why the engine lets go of a stream, or stops a server, that nobody has work for: it went as it should. Whoever
/// reads a log tells it from a loss by this: with it a stream's end is no error, and nothing is scheduled. Logs have it,
/// so it stays as it is.
pub const UNWANTED: &str = "it is not wanted any more";

/// What can happen to a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Somebody has work for it.
    Wanted {
        /// A person waits: the first try of this process is made now, whatever was scheduled before.
        now: bool,
    },
    /// Nobody has work for it any more.
    Unwanted {
        /// Whether the server that the engine started is to be stopped too.
        stop: bool,
    },
    /// The process of a server in the log is alive.
    Found(Process),
    /// No process belongs to the server in the log.
    Missing {
        /// How that shows, for a person.
        how: String,
    },
    /// A mark and a free port were chosen for a server.
    PortChosen {
        /// The mark.
        mark: String,
        /// The port.
        port: u16,
    },
    /// The server's process was started.
    Spawned(Process),
    /// No process could be started, or none prepared.
    SpawnFailed(Failure),
    /// The server says where it listens.
    Listening {
        /// There.
        url: String,
    },
    /// The server did not say in time that it listens.
    NotReady {
        /// What went wrong, for a person.
        reason: String,
    },
    /// The server's process is gone.
    Exited {
        /// How, for a person.
        how: String,
        /// Whether somebody else has its port.
        port_taken: bool,
    },
    /// The server's process could not be ended.
    StopFailed,
    /// The server answered a probe.
    ProbePassed {
        /// Its version.
        version: String,
        /// Why a server of this version must not be used.
        refused: Option<String>,
    },
    /// The server did not answer a probe, or not as it should.
    ProbeFailed(Failure),
    /// The server said what it can do.
    Capable {
        /// The words for it, in order.
        capabilities: Vec<String>,
    },
    /// The server did not say what it can do.
    NotCapable(Failure),
    /// The stream is open.
    StreamOpened,
    /// The stream could not be opened.
    StreamFailed(Failure),
    /// The stream ended.
    StreamEnded {
        /// Why, for a person.
        reason: String,
    },
    /// Bytes came over the stream, a frame among them or not.
    Heard,
    /// The agent's heartbeat came over the stream, which it sends whether or not it has anything to say.
    Beat,
    /// A call to the server failed.
    Suspected,
    /// The agent counted something of one of its sessions, which was heard over the stream.
    Counted {
        /// The agent's name of the session.
        agent_session: String,
        /// Its number.
        number: u64,
        /// The frame that it did so in, where that was kept.
        frame: Option<FrameNumber>,
    },
    /// What was missing of a session was read from the agent's history.
    GapFilled {
        /// The agent's name of the session.
        agent_session: String,
    },
    /// Nobody follows this session of the agent any more.
    Detached {
        /// The agent's name of the session.
        agent_session: String,
    },
    /// The time that was asked for has come.
    Woke,
}

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, for a person.
    pub reason: String,
    /// Whether trying again soon is of no use: a program that is not there, a password that is wrong.
    pub lasting: bool,
}

/// What a connection wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Find the process of this server: by its id and start, or by its mark where those were not seen.
    Adopt(Server),
    /// Choose a mark and a free port.
    ChoosePort,
    /// Write the password's file and start the server.
    Spawn {
        /// Its mark.
        mark: String,
        /// Its port.
        port: u16,
    },
    /// Wait for the server's word that it listens.
    AwaitReady {
        /// Its mark.
        mark: String,
    },
    /// Ask the server how it is.
    Probe {
        /// Where.
        url: String,
    },
    /// Ask the server what it can do.
    AskCapabilities {
        /// Where.
        url: String,
    },
    /// Open the stream.
    OpenStream {
        /// Where.
        url: String,
    },
    /// Close the stream, and give up whatever else is in flight but a stop.
    Close,
    /// End the process of this server and all that carry its mark, and remove its files.
    StopServer(Server),
    /// Remove the files of a server that is gone, and end what it left behind.
    Forget {
        /// Its mark.
        mark: String,
    },
}
