//! An agent inside this process that does what a script says.
//!
//! It speaks OpenCode's own HTTP and stream on a loopback port, and its adapter is OpenCode's: a demo,
//! a test or a measurement goes through the whole path, with nothing installed and no model asked. What
//! it does was copied from OpenCode 1.18.33, its traps included: text that was being streamed is lost
//! when its server dies, tools stay `running`, questions vanish, nothing resumes by itself, a message
//! that is sent again is written over, and an older one that is sent again is run again. What it is sent while it works
//! is read after the tool at hand; what its script still had for the message before is not played then.
#![allow(clippy::doc_markdown, reason = "OpenCode is a name, not an item")]

mod agent;
mod hub;
mod run;
mod script;
mod server;
mod store;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_trait::async_trait;
use recount_store::{MessageId, PermissionAnswer, Timestamp};
use tokio::sync::Notify;

use crate::clock::Clock;

pub use self::script::{Script, Step};
pub use self::server::{PortlessServer, ScriptedServer};

use self::agent::Agent;
use self::hub::locked;
use self::store::Store;
use super::opencode::OpenCode;
use super::{
    AgentAdapter, AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Frame, FrameStream,
    Health, InProcessServer, Launch, LaunchSpec, Origin, Report, Secret, SessionSpec, Translated,
};

/// What its servers say of themselves.
const VERSION: &str = "1.18.33-scripted";

/// How often a silent stream carries a heartbeat, as OpenCode's does.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A scripted agent: an adapter whose servers run in this process. Clones are the same agent.
///
/// What it keeps lives as long as any clone of it, over any number of servers.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use recount_engine::adapter::InProcessServer as _;
/// use recount_engine::adapter::scripted::{Script, Scripted, Step};
///
/// let agent = Scripted::new(Script::always(vec![
///     Step::text("Hello, ", 1),
///     Step::Gate("go on".into()),
///     Step::text("world", 1),
/// ]));
/// let server = agent.serve("/project", 0, None).await?;
/// assert!(server.url().starts_with("http://127.0.0.1:"));
/// agent.open_gate("go on");
/// assert_eq!(agent.runs("a prompt that nobody sent"), 0);
/// server.stop().await;
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct Scripted {
    opencode: OpenCode,
    shared: Arc<Shared>,
}

/// What goes wrong with a call, apart from scripts. See [`Scripted::fault`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with a page of HTML, as by something else on the port.
    Html,
    /// It is answered with this status, and nothing is done.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// The connection is dropped, and nothing is done.
    Reset,
    /// It is done, and the connection is dropped instead of an answer.
    LoseAnswer,
    /// It is never answered, and nothing is done.
    Hang,
}

/// What all clones and servers of an agent share.
#[derive(Debug)]
struct Shared {
    script: Script,
    heartbeat: Duration,
    clock: Clock,
    store: Mutex<Store>,
    runs: Mutex<HashMap<String, u32>>,
    faults: Mutex<Vec<(String, u32, Fault)>>,
    gates: Mutex<HashSet<String>>,
    gate_opened: Notify,
    connections: AtomicU64,
    servers: Mutex<Vec<Weak<Agent>>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Agent(…)")
    }
}

impl Shared {
    /// Counts that the model would have been asked.
    fn asked(&self, prompt: &str) {
        *locked(&self.runs).entry(prompt.to_owned()).or_default() += 1;
    }

    fn servers(&self) -> MutexGuard<'_, Vec<Weak<Agent>>> {
        let mut servers = locked(&self.servers);
        servers.retain(|server| server.strong_count() > 0);
        servers
    }

    /// What is to go wrong with this call, counted down.
    fn fault(&self, call: &str) -> Option<Fault> {
        let mut faults = locked(&self.faults);
        let at = faults.iter().position(|(known, _, _)| known == call)?;
        let (_, times, fault) = &mut faults[at];
        *times -= 1;
        let fault = fault.clone();
        if *times == 0 {
            faults.remove(at);
        }
        Some(fault)
    }

    async fn gate(&self, name: &str) {
        loop {
            let opened = self.gate_opened.notified();
            if locked(&self.gates).contains(name) {
                return;
            }
            opened.await;
        }
    }
}

impl Scripted {
    /// An agent that follows `script`.
    #[must_use]
    pub fn new(script: Script) -> Self {
        Self::with_heartbeat(script, HEARTBEAT)
    }

    /// The same, whose silent streams carry a heartbeat this often.
    ///
    /// # Panics
    ///
    /// Where `heartbeat` is zero: that is no interval.
    #[must_use]
    pub fn with_heartbeat(script: Script, heartbeat: Duration) -> Self {
        Self::with_clock(script, heartbeat, Clock::system())
    }

    /// The same, whose history tells the time by `clock`.
    ///
    /// # Panics
    ///
    /// Where `heartbeat` is zero: that is no interval.
    #[must_use]
    pub fn with_clock(script: Script, heartbeat: Duration, clock: Clock) -> Self {
        assert!(!heartbeat.is_zero(), "a heartbeat needs an interval");
        Self {
            opencode: OpenCode::new(),
            shared: Arc::new(Shared {
                script,
                heartbeat,
                clock,
                store: Mutex::default(),
                runs: Mutex::default(),
                faults: Mutex::default(),
                gates: Mutex::default(),
                gate_opened: Notify::new(),
                connections: AtomicU64::new(0),
                servers: Mutex::default(),
            }),
        }
    }

    /// Starts a server on loopback; port 0 is any free one. It ends when it is dropped.
    ///
    /// # Errors
    ///
    /// Where the port is taken.
    pub async fn serve(
        &self,
        directory: &str,
        port: u16,
        password: Option<Secret>,
    ) -> io::Result<ScriptedServer> {
        let shared = Arc::clone(&self.shared);
        ScriptedServer::start(shared, directory.to_owned(), port, password).await
    }

    /// Starts a server without a port. It lives until it is killed.
    #[must_use]
    pub fn serve_without_port(&self, directory: &str, password: Option<Secret>) -> PortlessServer {
        PortlessServer::start(Arc::clone(&self.shared), directory.to_owned(), password)
    }

    /// Loses all that it keeps, as with its database: sessions, and what was said in them.
    pub fn forget(&self) {
        locked(&self.shared.store).forget();
    }

    /// Kills all its servers as by SIGKILL.
    pub fn kill(&self) {
        for server in self.shared.servers().iter().filter_map(Weak::upgrade) {
            server.die();
        }
    }

    /// Lets [`Step::Gate`]s of this name through, now and later.
    pub fn open_gate(&self, name: impl Into<String>) {
        locked(&self.shared.gates).insert(name.into());
        self.shared.gate_opened.notify_waiters();
    }

    /// Has the next `times` calls go wrong that are made with this method and whose path ends with this
    /// segment: `GET health`, `GET event`, `POST session`, `POST message`, `POST prompt_async`, `GET status`.
    pub fn fault(&self, call: impl Into<String>, times: u32, fault: Fault) {
        if times > 0 {
            locked(&self.shared.faults).push((call.into(), times, fault));
        }
    }

    /// How often a prompt was run: what the real agent would have asked its model at least.
    #[must_use]
    pub fn runs(&self, prompt: &str) -> u32 {
        locked(&self.shared.runs).get(prompt).copied().unwrap_or(0)
    }

    /// How often any prompt was run.
    #[must_use]
    pub fn runs_in_all(&self) -> u32 {
        locked(&self.shared.runs).values().sum()
    }

    /// How many sessions it keeps.
    #[must_use]
    pub fn sessions(&self) -> usize {
        locked(&self.shared.store).sessions().len()
    }

    /// How many streams of events are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        let servers = self.shared.servers();
        let living = servers.iter().filter_map(Weak::upgrade);
        living
            .filter(|server| !server.is_dead())
            .map(|server| server.hub.open_streams())
            .sum()
    }

    /// How many connections were ever accepted.
    #[must_use]
    pub fn connections_accepted(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl AgentAdapter for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn launch(&self, spec: &LaunchSpec) -> Launch {
        let agent = self.clone();
        let spec = spec.clone();
        Launch::InProcess(Box::pin(async move {
            let password = Some(spec.password);
            let server = agent.serve(&spec.directory, spec.port, password).await?;
            Ok(Box::new(server) as Box<dyn InProcessServer>)
        }))
    }

    fn refuse_version(&self, version: &str) -> Option<String> {
        self.opencode.refuse_version(version)
    }

    fn identity(&self, message: MessageId, now: Timestamp) -> String {
        self.opencode.identity(message, now)
    }

    fn can_steer(&self) -> bool {
        self.opencode.can_steer()
    }

    async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError> {
        self.opencode.health(endpoint).await
    }

    async fn capabilities(&self, endpoint: &Endpoint) -> Result<Vec<String>, CallError> {
        self.opencode.capabilities(endpoint).await
    }

    async fn open_stream(&self, endpoint: &Endpoint) -> Result<FrameStream, CallError> {
        self.opencode.open_stream(endpoint).await
    }

    fn translate(&self, frame: &Frame) -> Translated {
        self.opencode.translate(frame)
    }

    async fn create_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<String, CallError> {
        self.opencode.create_session(endpoint, spec).await
    }

    async fn find_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
    ) -> Result<Option<String>, CallError> {
        self.opencode.find_session(endpoint, spec).await
    }

    async fn fork_session(
        &self,
        endpoint: &Endpoint,
        spec: &SessionSpec,
        origin: &Origin,
    ) -> Result<String, CallError> {
        self.opencode.fork_session(endpoint, spec, origin).await
    }

    async fn store_message(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
    ) -> Result<(), CallError> {
        self.opencode.store_message(endpoint, delivery).await
    }

    async fn start_turn(&self, endpoint: &Endpoint, delivery: &Delivery) -> Result<(), CallError> {
        self.opencode.start_turn(endpoint, delivery).await
    }

    async fn look_up(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        agent_message: &str,
    ) -> Result<Report, CallError> {
        self.opencode
            .look_up(endpoint, session, agent_message)
            .await
    }

    async fn abort(&self, endpoint: &Endpoint, session: &AgentSession) -> Result<(), CallError> {
        self.opencode.abort(endpoint, session).await
    }

    async fn answer_permission(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        permission: &str,
        answer: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError> {
        self.opencode
            .answer_permission(endpoint, session, permission, answer)
            .await
    }

    async fn answer_question(
        &self,
        endpoint: &Endpoint,
        session: &AgentSession,
        question: &str,
        answers: Option<&[Vec<String>]>,
    ) -> Result<AnswerOutcome, CallError> {
        self.opencode
            .answer_question(endpoint, session, question, answers)
            .await
    }
}

#[cfg(test)]
mod tests;
