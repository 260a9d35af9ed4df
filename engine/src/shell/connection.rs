//! A connection as its sessions see it: a link that is up or down, and an inbox each.

mod driver;
mod transitions;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_store::{ConnectionId, FrameNumber, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

pub(super) use driver::{Driver, Setting, stand};
pub(super) use transitions::Audience;
pub use transitions::Transitions;

use super::inbox::Inbox;
use crate::adapter::{AgentAdapter, Endpoint, Observation};
use crate::error::Error;
use crate::machine::budget::Budget;
use crate::watched;

/// Whether calls can be made.
#[derive(Debug, Clone, PartialEq)]
pub enum Link {
    /// Not connected.
    Down {
        /// Whether this process has tried enough for now: its tries have opened the breaker. One that an
        /// earlier process opened says nothing yet.
        circuit_open: bool,
        /// What went wrong last, for a person.
        reason: Option<String>,
    },
    /// Connected.
    Up {
        /// Where calls go.
        endpoint: Endpoint,
        /// Counts the openings of the stream in this process, from 1.
        epoch: u64,
        /// What the server can do, in the words of [`crate::adapter::capability`], as far as it is known by now.
        capabilities: Vec<String>,
    },
}

/// What an agent said of a session.
#[derive(Debug, Clone, PartialEq)]
pub struct FromAgent {
    /// The opening of the stream that it came over.
    pub epoch: u64,
    /// The frame that it came in, where that was kept.
    pub frame: Option<FrameNumber>,
    /// What it said.
    pub observation: Observation,
    /// Whether it said so of a sub-agent's session that works for this one.
    pub from_child: bool,
}

/// Where a connection stands, for people and for what watches over the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its name in the log.
    pub id: ConnectionId,
    /// Its agent and target, its state, its tries, its server and what that can do.
    pub connection: recount_projections::Connection,
    /// Whether it may be tried.
    pub breaker: recount_projections::Breaker,
}

/// A handle on a connection. Cheap to clone; its task ends when the last one is gone.
#[derive(Clone)]
pub struct Connection {
    id: ConnectionId,
    adapter: Arc<dyn AgentAdapter>,
    link: watched::Receiver<Link>,
    standing: watch::Receiver<Standing>,
    commands: mpsc::Sender<Command>,
    failure: LastFailure,
    budget: Arc<Mutex<Budget>>,
}

/// Why no server could be started, last.
#[derive(Clone, Default)]
struct LastFailure(Arc<Mutex<Option<Error>>>);

impl LastFailure {
    fn set(&self, failure: Option<Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn get(&self) -> Option<Error> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What handles ask of a connection's task.
enum Command {
    Want {
        now: bool,
    },
    Attach {
        agent_session: String,
        inbox: Inbox,
        done: oneshot::Sender<()>,
    },
    Detach {
        agent_session: String,
        inbox: Inbox,
    },
    Suspect,
    GapFilled {
        agent_session: String,
    },
    /// Ends the stream, the server if it is to be stopped, and the task.
    End {
        stop: bool,
        done: oneshot::Sender<()>,
    },
    /// Stops what an earlier engine left running, if nobody has wanted the connection since.
    StopIfUnused {
        done: oneshot::Sender<()>,
    },
}

impl Connection {
    /// Its name in the log.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The agent's protocol.
    #[must_use]
    pub fn adapter(&self) -> &Arc<dyn AgentAdapter> {
        &self.adapter
    }

    /// Whether calls can be made, now and as it changes. Closed when the connection was shut down.
    #[must_use]
    pub fn link(&self) -> watched::Receiver<Link> {
        self.link.clone()
    }

    /// Where it stands, as far as that is recorded.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Whether its task has ended: what is asked of this handle is not heard any more.
    pub(super) fn is_over(&self) -> bool {
        self.commands.is_closed()
    }

    /// Why the last try to start a server failed, with its data; `None` where none failed since one lived.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        self.failure.get()
    }

    /// Has it connect, when its delays and its breaker allow.
    pub async fn want(&self) {
        self.send(Command::Want { now: false }).await;
    }

    /// Has it connect since a person waits: the first try of this process is made at once, even if an
    /// earlier engine left the circuit open. After that it is [`Connection::want`].
    pub async fn want_now(&self) {
        self.send(Command::Want { now: true }).await;
    }

    /// From now on what the agent says of this session goes into `inbox`, as do the questions and the
    /// activity of its sub-agents' sessions. That alone makes nothing connect.
    pub async fn attach(&self, agent_session: &str, inbox: Inbox) {
        let (done, attached) = oneshot::channel();
        let agent_session = agent_session.to_owned();
        let command = Command::Attach {
            agent_session,
            inbox,
            done,
        };
        self.send(command).await;
        // An error means that the connection was shut down: its closed link says so.
        let _ = attached.await;
    }

    /// Ends what [`Connection::attach`] began with the same inbox. Where another was attached since, that one stays.
    pub async fn detach(&self, agent_session: &str, inbox: Inbox) {
        let agent_session = agent_session.to_owned();
        let command = Command::Detach {
            agent_session,
            inbox,
        };
        self.send(command).await;
    }

    /// Takes leave for a retry of a call, of the budget that all sessions of this connection share.
    ///
    /// # Errors
    ///
    /// When to ask again, where the budget is spent.
    pub fn may_retry(&self, now: Timestamp) -> Result<(), Timestamp> {
        self.budget().take(now)
    }

    /// A call succeeded, the first try or a later one: one retry more may be made.
    pub fn succeeded(&self) {
        self.budget().give_back();
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call failed: the server is probed now.
    pub fn suspect(&self) {
        // With so many commands waiting, a probe more or less does not matter.
        let _ = self.commands.try_send(Command::Suspect);
    }

    /// What was missing of a session was read from the agent's own history.
    pub async fn gap_filled(&self, agent_session: &str) {
        let agent_session = agent_session.to_owned();
        self.send(Command::GapFilled { agent_session }).await;
    }

    /// Ends the task; resolves once nothing is open.
    pub(super) async fn end(&self, stop: bool) {
        let (done, ended) = oneshot::channel();
        self.send(Command::End { stop, done }).await;
        let _ = ended.await;
    }

    /// Stops what an earlier engine left running, if nobody has wanted the connection since.
    pub(super) async fn stop_if_unused(&self) {
        let (done, stopped) = oneshot::channel();
        self.send(Command::StopIfUnused { done }).await;
        let _ = stopped.await;
    }

    async fn send(&self, command: Command) {
        // An error means that the connection was shut down: its closed link says so.
        let _ = self.commands.send(command).await;
    }
}
