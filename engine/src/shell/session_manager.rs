//! Conducts the others: opens the log, begins sessions and finds them, recovers, ends cleanly.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use recount_projections::{MessageState, Pending, StateStore, Status};
use recount_store::{
    Cause, Event, Expected, Log, NewEvent, Position, Seq, SessionId, StreamId, Target,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::Instrument as _;

use super::connection::{Connection, Standing, Transitions};
use super::connection_manager::ConnectionManager;
use super::dead_letter::{self, DeadLetter};
use super::presence::{Presences, Visit};
use super::session::{self, Call, Session, Setting};
use super::told;
use crate::adapter::opencode::OpenCode;
use crate::adapter::scripted::{Script, Scripted};
use crate::adapter::{AgentAdapter, Secret};
use crate::chance::Chance;
use crate::clock::{Clock, until};
use crate::computer::{Computer, System};
use crate::error::Error;
use crate::fork::Beginning;
use crate::limits;
use crate::policy::{Policy, SessionPolicy};

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
    /// What servers are started on: this computer, but in tests.
    pub computer: Arc<dyn Computer>,
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
            computer: Arc::new(System),
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

/// A session that goes on from where another one stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkSession {
    /// The other session.
    pub from: SessionId,
    /// The last event of it that belongs to the new one, too; `None` is its last.
    pub at: Option<Seq>,
    /// The id of the new session. Forking is safe to repeat with the same one; `None` makes a new one.
    pub id: Option<SessionId>,
    /// The model, as `PROVIDER/MODEL`; `None` is that of the other session.
    pub model: Option<String>,
    /// What the conversation is called; `None` is what the other one is called.
    pub title: Option<String>,
}

impl ForkSession {
    /// A session that goes on from where another one stands, with the same model and title.
    #[must_use]
    pub fn new(from: SessionId) -> Self {
        Self {
            from,
            at: None,
            id: None,
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
    /// Messages that are open and wait for nobody: none, unless there was not enough time.
    pub open: u64,
}

/// What had not ended when the time for shutting down was over. The next engine finds it in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Left {
    /// Sessions that were still recording.
    pub sessions: usize,
    /// Connections whose server had not ended.
    pub connections: usize,
}

/// The engine. Cheap to clone; all clones are the same one.
///
/// It ends with [`SessionManager::shut_down`]. Where it is dropped without, and with it every [`Session`], its tasks
/// are told to end and nobody waits for them: what was acknowledged is durable, servers that it started are left
/// running, and the next engine carries on with all of it, as after a crash.
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
    presences: Presences,
    started: Position,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody holds the engine any more: its tasks end, and the log with the last of them.
        self.presences.close();
    }
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
        crate::metrics::describe();
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
            computer,
        } = options;
        let event = Event::EngineStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: computer.own_pid(),
        };
        let mut events = vec![NewEvent::live(event, clock.now())];
        if let Some(event) = adopted(&log, &policy)? {
            events.push(NewEvent::live(event, clock.now()).because(Cause::Sibling(0)));
        }
        let recorded = log.append(StreamId::Engine, Expected::Any, events).await?;
        recorded.iter().for_each(told::recorded);
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
        .with_url_password(url_password)
        .with_computer(computer);
        let states = StateStore::new(log, policy.engine.sessions_cached_max);
        let inner = Inner {
            states,
            connections,
            policy,
            clock,
            chance,
            presences: Presences::new(),
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
        let id = match self.new_id(spec.id)? {
            New::Is(id) => id,
            New::Was(id) => return self.find(id).await,
        };
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
        self.begin(id, events).await
    }

    /// Opens a session that goes on from where another one stood, or gives the one that was opened with the same id before.
    ///
    /// It has the same agent and folder. A turn that had not ended at that moment is no part of it. With the first message
    /// that is sent, the agent is asked to copy its own session up to there; one that does not is told what was said, in
    /// front of that message. The log says which: [`Event::AgentSessionForked`], or [`Event::ContextAdded`].
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`] where the log has no such session, [`Error::NoSuchEvent`] where that has no such event,
    /// [`Error::BeginningCut`] where its beginning is gone; else as [`SessionManager::open`].
    pub async fn fork(&self, spec: ForkSession) -> Result<Session, Error> {
        let id = match self.new_id(spec.id)? {
            New::Is(id) => id,
            New::Was(id) => return self.find(id).await,
        };
        let beginning = Beginning::of(self.log(), spec.from, spec.at)?;
        // Whether there is such an agent is found out before anything is recorded.
        let connection = beginning.opening().connection;
        self.inner.connections.find(connection).await?;
        let events = beginning.events(spec.model, spec.title, self.inner.clock.now());
        self.begin(id, events).await
    }

    fn new_id(&self, wanted: Option<SessionId>) -> Result<New, Error> {
        Ok(match wanted {
            Some(id) if self.with_state(id, |state| state.opening.is_some())? => New::Was(id),
            Some(id) => New::Is(id),
            None => New::Is(SessionId::from_random(self.inner.chance.number())),
        })
    }

    /// Records the first events of a session.
    async fn begin(&self, id: SessionId, events: Vec<NewEvent>) -> Result<Session, Error> {
        match self
            .inner
            .states
            .append(id, Expected::NoStream, events)
            .await
        {
            Ok(recorded) => {
                recorded.iter().for_each(told::recorded);
                self.find(id).await
            }
            // Somebody opened it in between: that one is as good.
            Err(recount_store::Error::Conflict { .. }) => self.find(id).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The session with this id.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSession`] where the log has none.
    pub async fn find(&self, id: SessionId) -> Result<Session, Error> {
        let (known, open) = self.with_state(id, |state| {
            (state.opening.is_some(), state.queue.head().is_some())
        })?;
        if !known {
            return Err(Error::UnknownSession { session: id });
        }
        if open {
            match self.awake(id).await {
                // Where it stands can be looked at all the same.
                Ok(_) | Err(Error::StandsStill { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Session::new(id, self.clone()))
    }

    pub(super) fn states(&self) -> &StateStore {
        &self.inner.states
    }

    pub(super) fn policy(&self) -> &SessionPolicy {
        &self.inner.policy.session
    }

    pub(super) fn chance(&self) -> &Chance {
        &self.inner.chance
    }

    pub(super) fn visit(&self, id: SessionId) -> Visit {
        self.inner.presences.visit(id)
    }

    /// Comes to a session, which is awake where something is open in it.
    pub(super) async fn touch(&self, id: SessionId) -> Result<Visit, Error> {
        if self.with_state(id, |state| state.queue.head().is_some())? {
            return Ok(self.awake(id).await?.0);
        }
        Ok(self.visit(id))
    }

    /// Comes to a session and has it awake as long as what comes back is held.
    pub(super) async fn awake(&self, id: SessionId) -> Result<(Visit, mpsc::Sender<Call>), Error> {
        let visit = self.visit(id);
        if let Some(calls) = visit.calls()? {
            return Ok((visit, calls));
        }
        let setting = Setting {
            states: self.inner.states.clone(),
            connection: self.connection_of(id).await?,
            policy: self.inner.policy.session.clone(),
            clock: self.inner.clock,
        };
        let connection = setting.connection.id();
        let span = tracing::info_span!(parent: None, "session", session = %id, %connection);
        let calls = visit.begin(|begun| {
            drop(tokio::spawn(session::keep(setting, begun).instrument(span)));
        })?;
        Ok((visit, calls))
    }

    fn with_state<T>(
        &self,
        id: SessionId,
        look: impl FnOnce(&recount_projections::Session) -> T,
    ) -> Result<T, Error> {
        Ok(self.inner.states.session(id)?.with(look))
    }

    async fn connection_of(&self, id: SessionId) -> Result<Connection, Error> {
        let connection = self
            .with_state(id, |state| Some(state.opening.as_ref()?.connection))?
            .ok_or(Error::UnknownSession { session: id })?;
        self.inner.connections.find(connection).await
    }

    /// Where each connection stands that this engine has opened: its state and breaker, its tries and the last error,
    /// its server and what that can do.
    pub async fn connections(&self) -> Vec<Standing> {
        self.inner.connections.standings().await
    }

    /// Tells from now on what happens to all connections, each event as soon as it is durable.
    #[must_use]
    pub fn subscribe_connections(&self) -> Transitions {
        self.inner.connections.subscribe()
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
    /// It comes back when nothing is open that can go on without a person, or when `recovery_max` is over; what is
    /// open then goes on by itself. So many sessions at once, and no more, are carried on. It can be killed at any
    /// point, and run again: what it brought to its end is not touched any more.
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
        let sessions: Vec<SessionId> = pending.sessions.into_keys().collect();
        let count = sessions.len() as u64;
        let began = self
            .record(Event::RecoveryStarted { sessions: count })
            .await?;
        let at_once = self.inner.policy.engine.recovered_at_once;
        // A task of its own: it goes on where the time is over, or where nobody waits any more.
        let carrying = carry_on(Arc::downgrade(&self.inner), sessions.clone(), at_once);
        let carrying = tokio::spawn(carrying);
        if let Ok(carried) = timeout(self.inner.policy.engine.recovery_max, carrying).await {
            carried.map_err(|_| Error::Panicked)??;
        } else {
            tracing::warn!("recovery takes longer, and goes on by itself");
        }
        let recovered = self.summary(began, &sessions)?;
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

    /// Has a session carry on.
    async fn resume(&self, id: SessionId) -> Result<Visit, Error> {
        let (visit, _) = self.awake(id).await?;
        let head = self.with_state(id, |state| Some(state.queue.head()?.state))?;
        if head.is_some_and(|state| state != MessageState::Waiting) {
            // Somebody waits for this: what an earlier engine had scheduled is not waited for.
            self.connection_of(id).await?.want_now().await;
        }
        Ok(visit)
    }

    fn summary(&self, began: Position, sessions: &[SessionId]) -> Result<Recovered, Error> {
        let mut found = Recovered {
            sessions: sessions.len() as u64,
            ..Recovered::default()
        };
        for id in sessions {
            self.with_state(*id, |state| match state.status() {
                Status::Waiting => found.waiting += 1,
                _ => found.open += state.queue.open().count() as u64,
            })?;
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
        recorded.iter().for_each(told::recorded);
        Ok(recorded
            .first()
            .map_or(Position::default(), |first| first.position))
    }

    /// Ends everything in order: sessions, connections, the servers that were started, the log.
    ///
    /// It is [`SessionManager::shut_down_within`] the time that the policy gives it.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where the last commit fails; everything else is ended all the same.
    pub async fn shut_down(&self) -> Result<Left, Error> {
        self.shut_down_within(self.inner.policy.engine.shut_down_timeout)
            .await
    }

    /// Ends everything in order, and says what had not ended in time.
    ///
    /// Calls are not taken any more, what was gathered is recorded, servers are stopped, and at last the log is
    /// closed. That last step is waited for however long it takes. A server whose agent waits for a person's
    /// answer is left running, since the question would die with it; the next engine adopts it. What is open stays
    /// open in the log.
    ///
    /// # Errors
    ///
    /// [`Error::Log`] where the last commit fails; everything else is ended all the same.
    pub async fn shut_down_within(&self, within: Duration) -> Result<Left, Error> {
        let Inner {
            states,
            connections,
            presences,
            ..
        } = &*self.inner;
        let deadline = Instant::now() + within;
        let asked = |id| {
            let state = states.session(id);
            state.is_ok_and(|state| state.with(recount_projections::Session::questions_open))
        };
        let awake = presences.awake();
        presences.close();
        let ended = until(deadline, presences.empty()).await;
        // Asked now and not before: what the log tells already may be on its way into the states.
        let keep_servers = awake.into_iter().any(asked);
        let left = Left {
            sessions: ended.map_or_else(|| presences.awake().len(), |()| 0),
            connections: connections.shut_down_by(deadline, keep_servers).await,
        };
        if left != Left::default() {
            tracing::warn!(?left, "not everything ended in time");
        }
        let recorded = self.record(Event::EngineStopped).await;
        let kept = states.snapshot_pending();
        self.log().close().await?;
        recorded?;
        kept?;
        Ok(left)
    }
}

/// The id of a session that is to be opened.
enum New {
    /// It is free.
    Is(SessionId),
    /// A session was opened with it before.
    Was(SessionId),
}

/// Carries sessions on, some at a time, until each rests. Ends early with the engine, which it does not keep.
async fn carry_on(
    engine: Weak<Inner>,
    sessions: Vec<SessionId>,
    at_once: usize,
) -> Result<(), Error> {
    let manager = || engine.upgrade().map(|inner| SessionManager { inner });
    stream::iter(sessions)
        .map(Ok)
        .try_for_each_concurrent(at_once, |id| {
            let manager = manager();
            async move {
                let Some(manager) = manager else {
                    return Ok(());
                };
                let resumed = manager.resume(id).await;
                drop(manager);
                let rested = match resumed {
                    Ok(visit) => session::rest(&visit).await,
                    Err(error) => Err(error),
                };
                match rested {
                    Err(error @ Error::Log(_)) => Err(error),
                    // One that cannot be carried on keeps no other from it, and is counted as open.
                    Err(error) => {
                        tracing::warn!(session = %id, %error, "carry on");
                        Ok(())
                    }
                    Ok(()) => Ok(()),
                }
            }
        })
        .await?;
    match manager() {
        Some(manager) => manager.inner.connections.stop_unused().await,
        None => Ok(()),
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
