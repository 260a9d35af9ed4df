//! All connections of an engine: one for each agent and target, whoever asks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::join_all;
use recount_projections::{Breaker, Connection as State};
use recount_store::{
    Cause, ConnectionId, Event, Expected, Log, NewEvent, Position, StreamId, Target,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::connection::{Audience, Connection, Driver, Setting, Standing, Transitions, stand};
use super::process::Processes;
use super::server::{self, Files, Servers};
use crate::adapter::{AgentAdapter, Secret};
use crate::chance::Chance;
use crate::clock::{Clock, until};
use crate::computer::{Computer, System};
use crate::error::Error;
use crate::limits;
use crate::machine::connection::Machine;
use crate::policy::ConnectionPolicy;

/// Keeps the connections to agent servers: finds, starts, adopts, reconnects, stops.
///
/// A connection is dialled when a session wants it, not before.
pub struct ConnectionManager {
    setting: Setting,
    adapters: Vec<Arc<dyn AgentAdapter>>,
    /// `None` once the engine is shut down.
    connections: Mutex<Option<BTreeMap<ConnectionId, Connection>>>,
}

impl ConnectionManager {
    /// A manager that records in `log` and keeps the passwords of its servers in `servers_dir`.
    #[must_use]
    pub fn new(
        log: Log,
        servers_dir: PathBuf,
        adapters: Vec<Arc<dyn AgentAdapter>>,
        policy: ConnectionPolicy,
        clock: Clock,
        chance: Chance,
    ) -> Self {
        Self {
            setting: Setting {
                log,
                servers: Servers {
                    files: Files::new(servers_dir),
                    processes: Processes::new(Arc::new(System)),
                },
                policy,
                clock,
                chance,
                url_password: None,
                transitions: Audience::new(),
            },
            adapters,
            connections: Mutex::new(Some(BTreeMap::new())),
        }
    }

    /// The same, with the password for servers that somebody else runs.
    #[must_use]
    pub fn with_url_password(mut self, password: Option<Secret>) -> Self {
        self.setting.url_password = password;
        self
    }

    /// The same, whose servers run on another computer than this one: for tests.
    #[must_use]
    pub fn with_computer(mut self, computer: Arc<dyn Computer>) -> Self {
        self.setting.servers.processes = Processes::new(computer);
        self
    }

    /// The connection for this agent and target: the same one for the same pair.
    ///
    /// Its stream begins with `ConnectionOpened`, following from `cause`, where it is new.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownAgent`], [`Error::PasswordInUrl`], [`Error::ShutDown`], or what the log answered.
    pub async fn open(
        &self,
        agent: &str,
        target: Target,
        cause: Option<Position>,
    ) -> Result<Connection, Error> {
        let adapter = self.adapter(agent)?;
        let target = canonical(target);
        if holds_password(&target) {
            return Err(Error::PasswordInUrl);
        }
        let id = id_of(agent, &target);
        let mut connections = self.connections.lock().await;
        let connections = connections.as_mut().ok_or(Error::ShutDown)?;
        if let Some(connection) = running(connections, id) {
            return Ok(connection);
        }
        let stream = StreamId::Connection(id);
        if self.setting.log.stream_head(stream)?.is_none() {
            let agent = agent.to_owned();
            let event = Event::ConnectionOpened { agent, target };
            let opened = NewEvent::live(event, self.setting.clock.now())
                .because(cause.map_or(Cause::None, Cause::At));
            let append = self
                .setting
                .log
                .append(stream, Expected::NoStream, vec![opened]);
            self.setting.transitions.tell(append.await?);
        }
        let (state, breaker) = stand(&self.setting.log, id)?;
        let connection = self.start(id, adapter, state, breaker);
        connections.insert(id, connection.clone());
        Ok(connection)
    }

    /// The connection that the log knows by this id.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownConnection`], [`Error::UnknownAgent`], [`Error::ShutDown`], or what the log answered.
    pub async fn find(&self, id: ConnectionId) -> Result<Connection, Error> {
        let mut connections = self.connections.lock().await;
        let connections = connections.as_mut().ok_or(Error::ShutDown)?;
        if let Some(connection) = running(connections, id) {
            return Ok(connection);
        }
        let (state, breaker) = stand(&self.setting.log, id)?;
        if state.target.is_none() {
            return Err(Error::UnknownConnection { id });
        }
        let adapter = self.adapter(&state.agent)?;
        let connection = self.start(id, adapter, state, breaker);
        connections.insert(id, connection.clone());
        Ok(connection)
    }

    /// Where each connection stands that this engine has opened, in the order of their ids.
    pub async fn standings(&self) -> Vec<Standing> {
        let connections = self.connections.lock().await;
        let opened = connections.iter().flat_map(BTreeMap::values);
        opened.map(Connection::standing).collect()
    }

    /// Tells from now on what is recorded of all connections.
    #[must_use]
    pub fn subscribe(&self) -> Transitions {
        self.setting.transitions.listen()
    }

    /// Stops the servers that an earlier engine left running and that nobody has wanted since, and clears away what
    /// it had no time to: files of servers that are gone, and tools that outlived them.
    ///
    /// # Errors
    ///
    /// [`Error::ShutDown`], or what the log answered.
    pub async fn stop_unused(&self) -> Result<(), Error> {
        // Before the log: whatever has a file has been in the log before.
        let mut marks = self.setting.servers.files.marks();
        for (stream, _) in self.setting.log.streams()? {
            let StreamId::Connection(id) = stream else {
                continue;
            };
            let (state, _) = stand(&self.setting.log, id)?;
            if let Some(server) = state.server {
                marks.retain(|mark| *mark != server.mark);
                self.find(id).await?.stop_if_unused().await;
            }
        }
        for mark in marks {
            server::clear_away(&self.setting.servers, &mark).await;
        }
        Ok(())
    }

    /// Ends all streams, and stops what the engine started unless `keep_servers`. Bounded in time:
    /// what has not ended by then is in the log, and is adopted or stopped by the next engine.
    pub async fn shut_down(&self, keep_servers: bool) {
        let deadline = Instant::now() + limits::SHUT_DOWN_TIMEOUT;
        self.shut_down_by(deadline, keep_servers).await;
    }

    /// The same with a deadline; gives how many connections had not ended by then.
    pub(super) async fn shut_down_by(&self, deadline: Instant, keep_servers: bool) -> usize {
        let Some(connections) = self.connections.lock().await.take() else {
            return 0;
        };
        let ends = connections
            .values()
            .map(|connection| until(deadline, connection.end(!keep_servers)));
        let ends = join_all(ends).await;
        ends.iter().filter(|ended| ended.is_none()).count()
    }

    fn adapter(&self, agent: &str) -> Result<Arc<dyn AgentAdapter>, Error> {
        let known = self.adapters.iter().find(|adapter| adapter.name() == agent);
        known.cloned().ok_or_else(|| Error::UnknownAgent {
            agent: agent.to_owned(),
            known: self.adapters.iter().map(|adapter| adapter.name()).collect(),
        })
    }

    fn start(
        &self,
        id: ConnectionId,
        adapter: Arc<dyn AgentAdapter>,
        state: State,
        breaker: Breaker,
    ) -> Connection {
        let machine = Machine::new(id, self.setting.policy.clone(), state, breaker);
        Driver::start(self.setting.clone(), id, adapter, machine)
    }
}

/// The connection, unless its task has ended: then another one begins from the log.
fn running(
    connections: &BTreeMap<ConnectionId, Connection>,
    id: ConnectionId,
) -> Option<Connection> {
    let connection = connections.get(&id)?;
    (!connection.is_over()).then(|| connection.clone())
}

/// The one way in which a target is written, so that two ways of writing it are one connection.
fn canonical(target: Target) -> Target {
    let trimmed = |text: String| match text.trim_end_matches('/') {
        "" => text,
        trimmed => trimmed.to_owned(),
    };
    match target {
        Target::Url(url) => Target::Url(trimmed(url)),
        Target::Managed { program, directory } => Target::Managed {
            program,
            directory: trimmed(directory),
        },
    }
}

/// Whether an address names who calls, before its host.
fn holds_password(target: &Target) -> bool {
    let Target::Url(url) = target else {
        return false;
    };
    let after_scheme = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
    let host = after_scheme.split(['/', '?', '#']).next();
    host.is_some_and(|host| host.contains('@'))
}

fn id_of(agent: &str, target: &Target) -> ConnectionId {
    // Newlines stand in none of them.
    ConnectionId::from_text(&match target {
        Target::Url(url) => format!("{agent}\nurl\n{url}"),
        Target::Managed { program, directory } => {
            let program = program.as_deref().unwrap_or_default();
            format!("{agent}\nmanaged\n{program}\n{directory}")
        }
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
