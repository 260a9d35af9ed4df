//! Conducts the others: opens the log, begins sessions and finds them, recovers, ends cleanly.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use recount_projections::{Pending, StateStore, Status};
use recount_store::{
    Cause, Event, Expected, Log, NewEvent, Position, Seq, SessionId, StreamId, Target,
};
use tokio::sync::Mutex;

use super::connection::Connection;
use super::connection_manager::ConnectionManager;
use super::dead_letter::{self, DeadLetter};
use super::session::{self, Session};
use crate::adapter::opencode::OpenCode;
use crate::adapter::scripted::{Script, Scripted};
use crate::adapter::{AgentAdapter, Secret};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::error::Error;
use crate::limits;
use crate::policy::Policy;

/// What an engine is opened with.
#[derive(Clone)]
pub struct Options {
    /// The data directory; made where it is missing.
    pub data: PathBuf,
    /// The agents that it can talk to.
    pub adapters: Vec<Arc<dyn AgentAdapter>>,
    /// Every bound and choice.
    pub policy: Policy,
    /// The password of servers that somebody else runs.
    pub url_password: Option<Secret>,
    /// What tells the time: the system's clock, but in tests.
    pub clock: Clock,
    /// Where new ids come from: the system's randomness, but in tests.
    pub chance: Chance,
}

impl Options {
    /// The usual choices: OpenCode and the scripted agent, all bounds at their defaults.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            adapters: vec![
                Arc::new(OpenCode::new()),
                Arc::new(Scripted::new(Script::default())),
            ],
            policy: Policy::default(),
            url_password: None,
            clock: Clock::system(),
            chance: Chance::system(),
        }
    }

    /// The same, with another agent instead of the one of the same name, or besides.
    #[must_use]
    pub fn with_adapter(mut self, adapter: Arc<dyn AgentAdapter>) -> Self {
        self.adapters.retain(|known| known.name() != adapter.name());
        self.adapters.push(adapter);
        self
    }
}

/// What a session is to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSession {
    /// Its id. Opening is safe to repeat with the same one; `None` makes a new one.
    pub id: Option<SessionId>,
    /// The agent's name.
    pub agent: String,
    /// The server.
    pub target: Target,
    /// The folder that the agent works in: absolute.
    pub directory: String,
    /// The model, as `PROVIDER/MODEL`; `None` leaves it to the agent.
    pub model: Option<String>,
    /// What the conversation is called.
    pub title: Option<String>,
}

impl OpenSession {
    /// A new session with an agent in a folder (absolute), whose server the engine starts there.
    #[must_use]
    pub fn new(agent: impl Into<String>, directory: impl Into<String>) -> Self {
        let directory = directory.into();
        Self {
            id: None,
            agent: agent.into(),
            target: Target::Managed {
                program: None,
                directory: directory.clone(),
            },
            directory,
            model: None,
            title: None,
        }
    }
}

/// What a recovery found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Recovered {
    /// The sessions that had something open.
    pub sessions: u64,
    /// Deliveries whose outcome was unknown and was found out.
    pub resolved: u64,
    /// Turns that completed.
    pub completed: u64,
    /// Turns that ended without a whole answer.
    pub failed: u64,
    /// Messages given up.
    pub dead_lettered: u64,
    /// Sessions that wait for a person.
    pub waiting: u64,
    /// Messages that are open and wait for nobody: none, unless the engine was stopped.
    pub open: u64,
}

/// The engine. Cheap to clone; all clones are the same one.
///
/// ```no_run
/// # async fn example() -> Result<(), recount_engine::Error> {
/// use recount_engine::{OpenSession, Options, SessionManager};
///
/// let manager = SessionManager::start(Options::new("data")).await?;
/// let session = manager.open(OpenSession::new("scripted", "/srv/project")).await?;
/// let message = session.send("hello", None).await?;
/// session.settled(message).await?;
/// manager.shut_down().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SessionManager {
    inner: Arc<Inner>,
}

struct Inner {
    states: StateStore,
    connections: ConnectionManager,
    policy: Policy,
    clock: Clock,
    chance: Chance,
    sessions: Mutex<BTreeMap<SessionId, Session>>,
    started: Position,
}

impl SessionManager {
    /// Opens the log, and says so in it. Nothing is connected before somebody asks for a session.
    ///
    /// # Errors
    ///
    /// [`Error::Policy`] where the policy cannot work, [`Error::Log`] where the data directory is not ours, not
    /// permitted, or in use.
    pub async fn start(options: Options) -> Result<Self, Error> {
        // First, so that a policy that cannot work changes nothing.
        options.policy.validate()?;
        let log = Log::open_with(&options.data, options.policy.log)?;
        Self::start_over(log, options).await
    }

    /// The same over a log that is open already, for tests whose disk is their own.
    ///
    /// # Errors
    ///
    /// As [`SessionManager::start`].
    #[doc(hidden)]
    pub async fn start_over(log: Log, options: Options) -> Result<Self, Error> {
        let Options {
            data,
            adapters,
            policy,
            url_password,
            clock,
            chance,
        } = options;
        let event = Event::EngineStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        };
        let mut events = vec![NewEvent::live(event, clock.now())];
        if let Some(event) = adopted(&log, &policy)? {
            events.push(NewEvent::live(event, clock.now()).because(Cause::Sibling(0)));
        }
        let recorded = log.append(StreamId::Engine, Expected::Any, events).await?;
        let started = recorded
            .first()
            .map_or(Position::default(), |first| first.position);
        let connections = ConnectionManager::new(
            log.clone(),
            data.join("servers"),
            adapters,
            policy.connection.clone(),
            clock,
            chance.clone(),
        )
        .with_url_password(url_password);
        let states = StateStore::new(log, policy.engine.sessions_cached_max);
        let sessions = Mutex::default();
        let inner = Inner {
            states,
            connections,
            policy,
            clock,
            chance,
            sessions,
            started,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The log, for reading beside the engine.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.inner.states.log()
    }

    /// Opens a session, or gives the one that was opened with the same id before.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where it could not be recorded, and whatever the connection's agent is missing.
    pub async fn open(&self, spec: OpenSession) -> Result<Session, Error> {
        let id = spec
            .id
            .unwrap_or_else(|| SessionId::from_random(self.inner.chance.number()));
        let known = self
            .inner
            .states
            .session(id)?
            .with(|state| state.opening.is_some());
        if known {
            return self.find(id).await;
        }
        let OpenSession {
            agent,
            target,
            directory,
            model,
            title,
            ..
        } = spec;
        let connection = self.inner.connections.open(&agent, target, None).await?;
        let event = Event::SessionOpened {
            connection: connection.id(),
            agent,
            directory,
            model,
            title,
        };
        let events = vec![NewEvent::live(event, self.inner.clock.now())];
        match self
            .inner
            .states
            .append(id, Expected::NoStream, events)
            .await
        {
            // Somebody opened it in between: that one is as good.
            Ok(_) | Err(recount_store::Error::Conflict { .. }) => self.find(id).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The session with this id.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`] where the log has none.
    pub async fn find(&self, id: SessionId) -> Result<Session, Error> {
        let mut sessions = self.inner.sessions.lock().await;
        if let Some(session) = sessions.get(&id) {
            return Ok(session.clone());
        }
        let connection = self.connection_of(id).await?;
        let inner = &self.inner;
        let session = session::spawn(
            id,
            &inner.states,
            connection,
            inner.policy.session.clone(),
            inner.clock,
            inner.chance.clone(),
        )?;
        sessions.insert(id, session.clone());
        Ok(session)
    }

    async fn connection_of(&self, id: SessionId) -> Result<Connection, Error> {
        let connection = self
            .inner
            .states
            .session(id)?
            .with(|state| state.opening.as_ref().map(|opening| opening.connection))
            .ok_or(Error::UnknownSession { session: id })?;
        self.inner.connections.find(connection).await
    }

    /// What is open in the log, this engine's own sessions included.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where it cannot be read.
    pub fn pending(&self) -> Result<Pending, Error> {
        Ok(self.inner.states.pending()?)
    }

    /// The messages of all sessions that were given up and not queued again; [`Session::requeue`] does that.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where the log cannot be read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        let mut found = Vec::new();
        for id in self.pending()?.dead_letters.into_keys() {
            let state = self.inner.states.session(id)?;
            found.extend(dead_letter::of(self.log(), id, &state)?);
        }
        Ok(found)
    }

    /// Carries everything that an earlier engine left open to its end: deliveries are resolved, turns are
    /// found or ended, servers that still run are adopted, and stopped when this engine ends.
    ///
    /// It comes back when nothing is open that can go on without a person. It can be killed at any point,
    /// and run again.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where the log cannot be read or written.
    pub async fn recover(&self) -> Result<Recovered, Error> {
        let pending = self.pending()?;
        // Servers without a session at work are adopted too, so that shutting down stops them.
        for connection in &pending.servers {
            self.inner.connections.find(*connection).await?;
        }
        if pending.sessions.is_empty() {
            self.inner.connections.stop_unused().await?;
            return Ok(Recovered::default());
        }
        let count = pending.sessions.len() as u64;
        let began = self
            .record(Event::RecoveryStarted { sessions: count })
            .await?;
        let mut open = Vec::new();
        for id in pending.sessions.keys() {
            let session = self.find(*id).await?;
            if !session.rests() {
                // Somebody waits for this: what an earlier engine had scheduled is not waited for.
                self.connection_of(*id).await?.want_now().await;
            }
            open.push(session);
        }
        for session in &open {
            session.at_rest().await?;
        }
        self.inner.connections.stop_unused().await?;
        let recovered = self.summary(began, &open)?;
        self.record(Event::RecoveryFinished {
            sessions: count,
            resolved: recovered.resolved,
            completed: recovered.completed,
            dead_lettered: recovered.dead_lettered,
            waiting: recovered.waiting,
        })
        .await?;
        Ok(recovered)
    }

    fn summary(&self, began: Position, sessions: &[Session]) -> Result<Recovered, Error> {
        let mut found = Recovered {
            sessions: sessions.len() as u64,
            ..Recovered::default()
        };
        for session in sessions {
            session.with_state(|state| match state.status() {
                Status::Waiting => found.waiting += 1,
                _ => found.open += state.queue.open().count() as u64,
            });
        }
        for recorded in self.log().read_all(began) {
            match recorded?.event {
                Event::DeliveryResolved { .. } => found.resolved += 1,
                Event::TurnCompleted { .. } => found.completed += 1,
                Event::TurnFailed { .. } | Event::TurnAborted { .. } => found.failed += 1,
                Event::MessageDeadLettered { .. } => found.dead_lettered += 1,
                _ => {}
            }
        }
        Ok(found)
    }

    async fn record(&self, event: Event) -> Result<Position, Error> {
        let event =
            NewEvent::live(event, self.inner.clock.now()).because(Cause::At(self.inner.started));
        let recorded = self
            .log()
            .append(StreamId::Engine, Expected::Any, vec![event])
            .await?;
        Ok(recorded
            .first()
            .map_or(Position::default(), |first| first.position))
    }

    /// Ends everything in order: sessions, connections, the servers that were started, the log.
    ///
    /// A server whose agent waits for a person's answer is left running, since the question would die with
    /// it; the next engine adopts it. What is open stays open in the log.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where the last commit fails; everything else is ended all the same.
    pub async fn shut_down(&self) -> Result<(), Error> {
        let sessions = std::mem::take(&mut *self.inner.sessions.lock().await);
        let sessions: Vec<Session> = sessions.into_values().collect();
        let mut keep_servers = false;
        for session in &sessions {
            keep_servers |= session.with_state(recount_projections::Session::questions_open);
            session.stop().await;
        }
        self.inner.connections.shut_down(keep_servers).await;
        self.record(Event::EngineStopped).await?;
        self.inner.states.snapshot_pending()?;
        self.log().close().await?;
        Ok(())
    }
}

/// That this policy is in force, where the log does not say so already.
///
/// What was said long ago is said again: retention cuts the engine's stream, but not what one policy was said in.
fn adopted(log: &Log, policy: &Policy) -> Result<Option<Event>, Error> {
    let policy = policy.to_json();
    let engine = log.read_backwards(StreamId::Engine, Seq(u64::MAX));
    for recorded in engine.take(limits::POLICY_LOOKBACK) {
        if let Event::PolicyAdopted { policy: known } = recorded?.event {
            return Ok((known != policy).then_some(Event::PolicyAdopted { policy }));
        }
    }
    Ok(Some(Event::PolicyAdopted { policy }))
}

#[cfg(test)]
mod tests;
