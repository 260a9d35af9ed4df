//! Connections to servers that are processes, but hardly more.

use std::path::Path;
use std::sync::Mutex as Guard;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use recount_projections::connection::Process;
use recount_store::{
    ConnectionState, FrameNumber, MessageId, PermissionAnswer, Provenance, Recorded, Seq, Timestamp,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::*;
use crate::adapter::scripted::{Script, Scripted};
use crate::adapter::{
    AgentSession, AnswerOutcome, CallError, Delivery, Endpoint, Frame, FrameStream, Health, Launch,
    LaunchSpec, Observation, Report, SessionSpec, StreamError, StreamItem, Translated,
};
use crate::policy::ForeignServers;
use crate::shell::connection::{FromAgent, Link};
use crate::shell::inbox::Inbox;

fn processes() -> Processes {
    Processes::new(Arc::new(System))
}

type Item = Result<StreamItem, StreamError>;

/// An agent whose server is a shell that sleeps. Its stream is what the test puts into it.
///
/// A frame `SESSION NUMBER` counts, `SESSION busy` says so, `SESSION panic` is met by a mistake of the adapter's, `CHILD of PARENT` tells whose child it is.
#[derive(Default)]
struct Sleeper {
    streams: Guard<Vec<mpsc::UnboundedSender<Item>>>,
}

impl Sleeper {
    fn say(&self, data: &str) {
        let frame = Frame {
            data: data.to_owned(),
        };
        let streams = self.streams.lock().expect("no test panics with it");
        let stream = streams.last().expect("a stream is open");
        stream
            .send(Ok(StreamItem::Frame(frame)))
            .expect("it is read");
    }

    /// Ends the stream that is open.
    fn hang_up(&self) {
        self.streams.lock().expect("no test panics with it").pop();
    }
}

fn unused<T>() -> Result<T, CallError> {
    unreachable!("connections do not call it")
}

#[async_trait]
impl AgentAdapter for Sleeper {
    fn name(&self) -> &'static str {
        "sleeper"
    }

    fn launch(&self, spec: &LaunchSpec) -> Launch {
        // The second sleep stands for a tool: its own group, and alive after its server.
        let script = format!(
            "echo 'warming up'; setsid sleep 600 & echo 'listening on http://127.0.0.1:{}'; exec sleep 600",
            spec.port
        );
        Launch::Process {
            program: spec.program.clone().unwrap_or_else(|| "sh".to_owned()),
            args: vec!["-c".to_owned(), script],
            env: vec![("SLEEPER_HOME".to_owned(), spec.directory.clone())],
            ready_prefix: "listening on ",
        }
    }

    fn data_home(
        &self,
        command: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Option<String> {
        let is_server = command.first().is_some_and(|program| program == "sh");
        let home = environment.get("SLEEPER_HOME");
        home.filter(|_| is_server).cloned()
    }

    fn refuse_version(&self, _: &str) -> Option<String> {
        None
    }

    fn identity(&self, message: MessageId, _: Timestamp) -> String {
        message.to_string()
    }

    async fn health(&self, endpoint: &Endpoint) -> Result<Health, CallError> {
        assert!(endpoint.password.is_some());
        Ok(Health {
            version: "1".to_owned(),
        })
    }

    async fn open_stream(&self, _: &Endpoint) -> Result<FrameStream, CallError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.streams
            .lock()
            .expect("no test panics with it")
            .push(sender);
        let items = futures_util::stream::unfold(receiver, async |mut receiver| {
            Some((receiver.recv().await?, receiver))
        });
        Ok(items.boxed())
    }

    fn translate(&self, frame: &Frame) -> Translated {
        let words: Vec<&str> = frame.data.split(' ').collect();
        let observation = match words.as_slice() {
            [_, "busy"] => Observation::Busy,
            [_, "panic"] => panic!("a frame that nobody expected"),
            [_, "of", parent] => Observation::ChildOf {
                parent: (*parent).to_owned(),
            },
            [_, number] => Observation::Counted {
                number: number.parse().expect("a number"),
            },
            _ => Observation::Ignored,
        };
        Translated {
            session: words.first().map(|&session| session.to_owned()),
            observation,
        }
    }

    async fn create_session(&self, _: &Endpoint, _: &SessionSpec) -> Result<String, CallError> {
        unused()
    }

    async fn find_session(
        &self,
        _: &Endpoint,
        _: &SessionSpec,
    ) -> Result<Option<String>, CallError> {
        unused()
    }

    async fn store_message(&self, _: &Endpoint, _: &Delivery) -> Result<(), CallError> {
        unused()
    }

    async fn start_turn(&self, _: &Endpoint, _: &Delivery) -> Result<(), CallError> {
        unused()
    }

    async fn look_up(&self, _: &Endpoint, _: &AgentSession, _: &str) -> Result<Report, CallError> {
        unused()
    }

    async fn abort(&self, _: &Endpoint, _: &AgentSession) -> Result<(), CallError> {
        unused()
    }

    async fn answer_permission(
        &self,
        _: &Endpoint,
        _: &AgentSession,
        _: &str,
        _: PermissionAnswer,
    ) -> Result<AnswerOutcome, CallError> {
        unused()
    }

    async fn answer_question(
        &self,
        _: &Endpoint,
        _: &AgentSession,
        _: &str,
        _: Option<&[Vec<String>]>,
    ) -> Result<AnswerOutcome, CallError> {
        unused()
    }
}

/// A log, a folder and an agent, and whatever servers came to live.
struct World {
    log: Log,
    folder: tempfile::TempDir,
    agent: Arc<Sleeper>,
}

impl World {
    fn new() -> Self {
        Self {
            log: Log::in_memory().expect("a log in memory"),
            folder: tempfile::tempdir().expect("a folder"),
            agent: Arc::new(Sleeper::default()),
        }
    }

    fn engine(&self) -> ConnectionManager {
        self.engine_with(ConnectionPolicy::default())
    }

    fn engine_with(&self, policy: ConnectionPolicy) -> ConnectionManager {
        let adapters: Vec<Arc<dyn AgentAdapter>> = vec![self.agent.clone()];
        let servers = self.folder.path().join("servers");
        ConnectionManager::new(
            self.log.clone(),
            servers,
            adapters,
            policy,
            Clock::system(),
            Chance::system(),
        )
    }

    fn target(&self) -> Target {
        Target::Managed {
            program: None,
            directory: self.folder.path().to_string_lossy().into_owned(),
        }
    }

    async fn open(&self, engine: &ConnectionManager) -> Connection {
        let opened = engine.open("sleeper", self.target(), None).await;
        opened.expect("it opens")
    }

    fn history(&self, id: ConnectionId) -> Vec<Recorded> {
        let events = self.log.read(StreamId::Connection(id), Seq::FIRST);
        events.collect::<Result<_, _>>().expect("the log is whole")
    }

    fn state(&self, id: ConnectionId) -> State {
        recount_projections::fold(&self.history(id))
    }

    fn process(&self, id: ConnectionId) -> Process {
        let server = self.state(id).server.expect("a server");
        server.process.expect("a process")
    }

    fn mark(&self, id: ConnectionId) -> String {
        self.state(id).server.expect("a server").mark
    }

    fn files(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path().join("servers"));
        files.expect("the folder of servers").count()
    }

    fn count(&self, id: ConnectionId, matches: impl Fn(&Event) -> bool) -> usize {
        let history = self.history(id);
        history
            .iter()
            .filter(|recorded| matches(&recorded.event))
            .count()
    }
}

async fn up(connection: &Connection, least_epoch: u64) {
    let mut link = connection.link();
    let reached =
        link.wait_for(|link| matches!(link, Link::Up { epoch, .. } if *epoch >= least_epoch));
    let reached = timeout(Duration::from_secs(20), reached).await;
    reached.expect("in time").expect("not shut down");
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

/// The engine dies: its tasks end without a word, its children live.
async fn die(engine: ConnectionManager, connection: Connection) {
    let mut link = connection.link();
    drop((engine, connection));
    while link.changed().await.is_ok() {}
}

#[tokio::test]
async fn a_server_that_is_killed_is_followed_by_another_and_nothing_is_left_behind() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    assert_eq!(world.count(id, |_| true), 1, "nothing happens unwanted");

    connection.attach("a", Inbox::new(1 << 20)).await;
    connection.want().await;
    up(&connection, 1).await;
    let (first, first_mark) = (world.process(id), world.mark(id));
    eventually("the tool runs", || {
        processes().marked(&first_mark).len() == 2
    })
    .await;

    processes().kill(first);
    up(&connection, 2).await;
    assert_ne!(world.process(id), first);
    assert_eq!(processes().marked(&first_mark), [], "its tool is gone too");
    assert_eq!(world.files(), 2, "a password and an output");

    let second_mark = world.mark(id);
    engine.shut_down(false).await;
    assert_eq!(world.state(id).server, None);
    assert_eq!(world.state(id).state, ConnectionState::Disconnected);
    assert_eq!(processes().marked(&second_mark), []);
    assert_eq!(world.files(), 0);
    let opened = engine.open("sleeper", world.target(), None).await;
    assert!(matches!(opened, Err(Error::ShutDown)));
}

#[tokio::test]
async fn a_server_outlives_its_engine_and_is_adopted() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    connection.want().await;
    up(&connection, 1).await;
    let process = world.process(id);
    die(engine, connection).await;

    let engine = world.engine();
    let connection = engine.find(id).await.expect("the log knows it");
    connection.want().await;
    up(&connection, 1).await;
    assert_eq!(world.process(id), process);
    let starts = |event: &Event| matches!(event, Event::ServerStartDecided { .. });
    assert_eq!(world.count(id, starts), 1);

    // It is no child of this engine, and its end is noticed all the same.
    processes().kill(process);
    let exits = |event: &Event| matches!(event, Event::ServerExited { .. });
    eventually("its end is noticed", || world.count(id, exits) == 1).await;
    engine.shut_down(false).await;
}

#[tokio::test]
async fn a_server_whose_start_was_not_seen_is_found_by_its_mark() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    die(engine, connection).await;

    let mark = super::super::server::choose_mark(&Chance::system());
    let servers = world.folder.path().join("servers");
    std::fs::create_dir(&servers).expect("a folder");
    std::fs::write(servers.join(&mark), "secret").expect("a file");
    let decided = Event::ServerStartDecided {
        mark: mark.clone(),
        port: 9,
    };
    let decided = NewEvent::live(decided, Clock::system().now());
    let append = world
        .log
        .append(StreamId::Connection(id), Expected::Any, vec![decided]);
    append.await.expect("it is recorded");
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .env("RECOUNT_SERVER", &mark)
        .spawn()
        .expect("sleep starts");

    let engine = world.engine();
    let connection = engine.find(id).await.expect("the log knows it");
    connection.want().await;
    up(&connection, 1).await;
    assert_eq!(world.process(id), processes().of(child.id()));
    let history = world.history(id);
    let spawned = history
        .iter()
        .find(|recorded| matches!(recorded.event, Event::ServerSpawned { .. }));
    assert_eq!(
        spawned.map(|event| event.provenance),
        Some(Provenance::Inferred)
    );
    engine.shut_down(false).await;
    assert!(!child.wait().expect("it ended").success());
}

#[tokio::test]
async fn a_kept_server_is_stopped_by_the_next_engine_if_nobody_wants_it() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    connection.want().await;
    up(&connection, 1).await;
    engine.shut_down(true).await;
    let process = world.process(id);
    assert!(processes().is_alive(process));

    let engine = world.engine();
    engine.stop_unused().await.expect("it stops it");
    assert!(!processes().is_alive(process));
    assert_eq!(world.state(id).server, None);
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_and_not_tried_again_soon() {
    let world = World::new();
    let engine = world.engine();
    let target = Target::Managed {
        program: Some("there-is-no-such-program".to_owned()),
        directory: world.folder.path().to_string_lossy().into_owned(),
    };
    let opened = engine.open("sleeper", target, None).await;
    let connection = opened.expect("it opens");
    connection.want_now().await;
    let mut link = connection.link();
    let open = link.wait_for(|link| {
        matches!(
            link,
            Link::Down {
                circuit_open: true,
                ..
            }
        )
    });
    let Ok(Ok(_)) = timeout(Duration::from_secs(5), open).await else {
        panic!("the circuit opens");
    };
    let failure = connection.failure();
    assert!(
        matches!(failure, Some(Error::ProgramNotFound { .. })),
        "{failure:?}"
    );
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_session_that_takes_nothing_is_in_nobodys_way() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    // Room for one observation, and one that is read at once.
    let (slow, quick) = (Inbox::new(0), Inbox::new(1 << 20));
    connection.attach("a", slow.clone()).await;
    connection.attach("c", quick.clone()).await;
    connection.want().await;
    up(&connection, 1).await;
    let said = |frame: u64, from_child| FromAgent {
        epoch: 1,
        frame: Some(FrameNumber(frame)),
        observation: Observation::Busy,
        from_child,
    };
    let missed = FromAgent {
        epoch: 1,
        frame: None,
        observation: Observation::Missed,
        from_child: false,
    };
    world.agent.say("b of a");
    for n in 0..10 {
        world.agent.say("b busy");
        world.agent.say("c busy");
        // The first frame said whose child it is.
        assert_eq!(quick.next().await, said(2 * n + 3, false));
    }
    assert_eq!(slow.next().await, said(2, true));
    assert_eq!(slow.next().await, missed);
    world.agent.say("a busy");
    assert_eq!(slow.next().await, said(22, false));
    engine.shut_down(false).await;
}

#[tokio::test]
async fn a_stream_of_nothing_but_frames_is_not_silent() {
    let world = World::new();
    let engine = world.engine_with(ConnectionPolicy {
        silence_max: Duration::from_secs(2),
        silence_answering_max: Duration::from_secs(2),
        ..ConnectionPolicy::default()
    });
    let connection = world.open(&engine).await;
    connection.want().await;
    up(&connection, 1).await;
    for _ in 0..30 {
        world.agent.say("a busy");
        sleep(Duration::from_millis(100)).await;
    }
    let lost = |event: &Event| matches!(event, Event::StreamLost { .. });
    assert_eq!(world.count(connection.id(), lost), 0);
    engine.shut_down(false).await;
}

#[tokio::test]
async fn a_hole_in_what_the_agent_counts_is_recorded_over_reconnects_too() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    let inbox = Inbox::new(1 << 20);
    connection.attach("a", inbox.clone()).await;
    connection.want().await;
    up(&connection, 1).await;
    world.agent.say("a 1");
    inbox.next().await;
    world.agent.hang_up();
    up(&connection, 2).await;
    world.agent.say("a 4");
    for observation in [Observation::Counted { number: 4 }, Observation::Missed] {
        let said = FromAgent {
            epoch: 2,
            frame: Some(FrameNumber(2)),
            observation,
            from_child: false,
        };
        assert_eq!(inbox.next().await, said);
    }
    assert!(world.state(id).gaps.contains_key("a"));
    connection.gap_filled("a").await;
    eventually("it is filled", || world.state(id).gaps.is_empty()).await;
    engine.shut_down(false).await;
}

/// A process that none of our engines started, ended with the test.
struct Stranger(std::process::Child);

impl Stranger {
    fn new(environment: &[(&str, &Path)]) -> Self {
        let mut command = std::process::Command::new("sh");
        // It waits for a line that never comes, with no process of its own that would outlive it.
        command.args(["-c", "read -r line"]);
        command.stdin(std::process::Stdio::piped());
        command.envs(environment.iter().copied());
        Self(command.spawn().expect("it starts"))
    }

    fn process(&self) -> Process {
        processes().of(self.0.id())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_stranger_of_the_same_id_and_beginning_is_neither_adopted_nor_killed() {
    for forget_beginning in [false, true] {
        let world = World::new();
        let engine = world.engine();
        let connection = world.open(&engine).await;
        let id = connection.id();
        let stranger = Stranger::new(&[]);
        let mut claimed = stranger.process();
        if forget_beginning {
            claimed.started = 0;
        }
        let Process { pid, started } = claimed;
        let before = [
            Event::ServerStartDecided {
                mark: "m".to_owned(),
                port: 1,
            },
            Event::ServerSpawned { pid, started },
        ];
        let before = before.map(|event| NewEvent::live(event, Timestamp(1)));
        let append = world
            .log
            .append(StreamId::Connection(id), Expected::Any, before.to_vec());
        append.await.expect("it is durable");
        die(engine, connection).await;

        let engine = world.engine();
        let connection = world.open(&engine).await;
        connection.want().await;
        up(&connection, 1).await;
        assert_ne!(world.process(id).pid, pid);
        engine.shut_down(false).await;
        assert!(processes().is_alive(stranger.process()));
    }
}

#[tokio::test]
async fn what_a_dead_engine_had_not_cleared_away_is() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    connection.want().await;
    up(&connection, 1).await;
    let (server, mark) = (world.process(id), world.mark(id));
    eventually("the tool runs", || processes().marked(&mark).len() == 2).await;
    die(engine, connection).await;
    // It died between the record and what was to be done then.
    processes().kill(server);
    let how = "signal: 9".to_owned();
    let exited = NewEvent::live(Event::ServerExited { how }, Timestamp(1));
    let append = world
        .log
        .append(StreamId::Connection(id), Expected::Any, vec![exited]);
    append.await.expect("it is durable");

    let engine = world.engine();
    engine.stop_unused().await.expect("the log is read");
    assert_eq!(processes().marked(&mark), []);
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn a_server_on_the_same_data_as_somebody_elses_is_refused_where_the_policy_says_so() {
    let world = World::new();
    let stranger = Stranger::new(&[("SLEEPER_HOME", world.folder.path())]);
    let refuse = ConnectionPolicy {
        foreign_servers: ForeignServers::Refuse,
        ..ConnectionPolicy::default()
    };
    let engine = world.engine_with(refuse.clone());
    let connection = world.open(&engine).await;
    connection.want().await;
    let mut link = connection.link();
    let given_up = |link: &Link| {
        matches!(
            link,
            Link::Down {
                circuit_open: true,
                ..
            }
        )
    };
    let refused = timeout(Duration::from_secs(20), link.wait_for(given_up)).await;
    refused.expect("in time").expect("not shut down");
    let (pid, home) = (stranger.process().pid, world.folder.path().display());
    assert_eq!(
        connection.failure().expect("it failed").to_string(),
        format!(
            "another server of sleeper (process {pid}) works on the same data, in {home}: \
             stop it, or set connection.foreign_servers to \"allow\""
        )
    );
    engine.shut_down(false).await;
    assert_eq!(world.files(), 0);

    // It is allowed by default, and a server of our own is never a stranger's.
    let engine = world.engine();
    let connection = world.open(&engine).await;
    connection.want_now().await;
    up(&connection, 1).await;
    drop(stranger);
    die(engine, connection).await;
    let engine = world.engine_with(refuse);
    let connection = world.open(&engine).await;
    connection.want().await;
    up(&connection, 1).await;
    engine.shut_down(false).await;
}

fn panicked(event: &Event) -> bool {
    let words = "a frame that nobody expected";
    matches!(event, Event::TaskPanicked { reason } if reason == words)
}

#[tokio::test]
async fn a_panic_is_recorded_and_the_connection_begins_anew_at_the_same_server() {
    let world = World::new();
    let engine = world.engine();
    let connection = world.open(&engine).await;
    let id = connection.id();
    let inbox = Inbox::new(1 << 20);
    connection.attach("a", inbox.clone()).await;
    connection.want().await;
    up(&connection, 1).await;
    let process = world.process(id);
    world.agent.say("a panic");
    up(&connection, 2).await;
    assert_eq!(world.count(id, panicked), 1);
    assert_eq!(world.process(id), process);
    let history = world.history(id);
    let lost: Vec<&str> = history
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::StreamLost { reason } => Some(reason.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(lost, ["the engine failed by a mistake of its own"]);
    // Whoever was attached is so still.
    world.agent.say("a busy");
    assert_eq!(inbox.next().await.epoch, 2);
    engine.shut_down(false).await;
    assert!(!processes().is_alive(process));
}

#[tokio::test]
async fn a_connection_that_panics_too_often_stands_still_until_it_is_asked_for() {
    let world = World::new();
    let engine = world.engine_with(ConnectionPolicy {
        panics_max: 2,
        ..ConnectionPolicy::default()
    });
    let connection = world.open(&engine).await;
    connection.want().await;
    for epoch in 1..=2 {
        up(&connection, epoch).await;
        world.agent.say("a panic");
    }
    let mut link = connection.link();
    let closed = async { while link.changed().await.is_ok() {} };
    timeout(Duration::from_secs(20), closed)
        .await
        .expect("in time");
    let reason = Some("a frame that nobody expected".to_owned());
    let down = Link::Down {
        circuit_open: false,
        reason,
    };
    assert_eq!(*link.borrow(), down);
    let another = world.open(&engine).await;
    another.want().await;
    up(&another, 1).await;
    assert_eq!(world.count(another.id(), panicked), 2);
    engine.shut_down(false).await;
}

#[tokio::test]
async fn what_happens_to_connections_is_told_and_where_they_stand() {
    let world = World::new();
    let engine = world.engine();
    let mut transitions = engine.subscribe();
    let connection = world.open(&engine).await;
    let id = connection.id();
    connection.want().await;
    up(&connection, 1).await;
    let asked = || connection.standing().connection.capabilities.is_some();
    eventually("it is asked what it can do", asked).await;
    let expected = Standing {
        id,
        connection: world.state(id),
        breaker: recount_projections::fold(&world.history(id)),
    };
    assert_eq!(expected.connection.state, ConnectionState::Connected);
    assert_eq!(engine.standings().await, [expected]);
    engine.shut_down(false).await;
    assert_eq!(engine.standings().await, []);
    drop((engine, connection));
    let mut told = Vec::new();
    while let Some(recorded) = transitions.next().await.expect("none is missed") {
        told.push((*recorded).clone());
    }
    assert_eq!(told, world.history(id));
}

#[tokio::test]
async fn a_server_inside_this_process_dies_and_is_followed_by_another() {
    let world = World::new();
    let scripted = Scripted::new(Script::always(Vec::new()));
    let engine = ConnectionManager::new(
        world.log.clone(),
        world.folder.path().join("servers"),
        vec![Arc::new(scripted.clone())],
        ConnectionPolicy::default(),
        Clock::system(),
        Chance::system(),
    );
    let opened = engine.open("scripted", world.target(), None).await;
    let connection = opened.expect("it opens");
    let id = connection.id();
    connection.want().await;
    up(&connection, 1).await;
    assert_eq!(world.process(id).pid, std::process::id());
    let mut link = connection.link();
    let capable =
        |link: &Link| matches!(link, Link::Up { capabilities, .. } if !capabilities.is_empty());
    let told = timeout(Duration::from_secs(20), link.wait_for(capable)).await;
    told.expect("in time").expect("not shut down");
    scripted.kill();
    up(&connection, 2).await;
    // The same version is not asked again.
    assert!(capable(&connection.link().borrow()));
    let found = |event: &Event| matches!(event, Event::CapabilitiesFound { .. });
    assert_eq!(world.count(id, found), 1);
    engine.shut_down(false).await;
    assert_eq!(world.state(id).server, None);
    assert_eq!(scripted.open_streams(), 0);
    assert_eq!(world.files(), 0);
}
