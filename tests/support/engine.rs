//! An engine in the test's own process, over the real agent, and what it must leave behind.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use recount_engine::{MessageState, OpenSession, Options, Session, SessionManager, Target};
use recount_projections::{Projection, Transcript, fold, state_store};
use recount_store::{Event, LogReader, MessageId, Recorded, Seq, StreamId, verify};
use rustix::process::{Pid, Signal, kill_process};

use crate::agent_http::Agent;
use crate::opencode::Home;
use crate::provider::Provider;
use crate::timing::within;

/// How long a turn may take whose model answers at once: a cold server under load takes half a minute.
const TURN_TIMEOUT: Duration = Duration::from_secs(90);

/// A provider, and a home where an agent and an engine's data are.
#[derive(Debug)]
pub struct Scene {
    /// The model.
    pub provider: Provider,
    /// Where everything is.
    pub home: Home,
}

impl Scene {
    /// Nothing has happened yet.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let provider = Provider::start();
        let home = Home::new(&provider);
        Self { provider, home }
    }

    /// The usual options, with the data in this home.
    pub fn options(&self) -> Options {
        Options::new(self.home.path("recount"))
    }

    /// A new session whose server the engine starts.
    pub async fn open(&self, manager: &SessionManager) -> Session {
        let target = Target::Managed {
            program: Some(text(self.home.agent_program())),
            directory: text(self.home.project_dir()),
        };
        self.open_on(manager, target).await
    }

    /// A new session with a server that somebody else started.
    pub async fn open_at(&self, manager: &SessionManager, url: String) -> Session {
        self.open_on(manager, Target::Url(url)).await
    }

    async fn open_on(&self, manager: &SessionManager, target: Target) -> Session {
        let spec = OpenSession {
            id: None,
            agent: "opencode".into(),
            target,
            directory: text(self.home.project_dir()),
            model: None,
            title: None,
        };
        manager.open(spec).await.unwrap()
    }

    /// A look into the server that the engine started last, past the engine.
    pub fn agent(&self, log: &LogReader) -> Agent {
        let (mut mark, mut found) = (None, None);
        for recorded in log.read_all(recount_store::Position::default().next()) {
            match recorded.unwrap().event {
                Event::ServerStartDecided { mark: chosen, .. } => mark = Some(chosen),
                Event::ServerReady { url, .. } => found = Some(url),
                _ => {}
            }
        }
        let mark = mark.expect("a server was started");
        let password = self.home.path("recount/servers").join(mark);
        let password = fs::read_to_string(password).unwrap();
        Agent::at(&found.expect("it was ready"), Some(&password), &self.home)
    }

    /// Ends the engine, and holds it to what it promises of every ending: no process is left, the log is
    /// whole, and whoever reads it cold gets the states that the engine had in memory.
    pub async fn end(&self, manager: SessionManager, sessions: &[Session]) {
        self.shut_down(manager).await;
        self.home.marker().assert_none_left();
        self.whole(sessions);
    }

    /// Ends the engine.
    pub async fn shut_down(&self, manager: SessionManager) {
        let down = within(
            Duration::from_secs(20),
            "the engine to end",
            manager.shut_down(),
        );
        down.await.unwrap();
    }

    /// Holds the log of an engine that has ended to being whole, and to say what the engine had in memory.
    pub fn whole(&self, sessions: &[Session]) {
        let reader = LogReader::open(self.home.path("recount")).unwrap();
        let verified = verify(&reader, None).unwrap();
        assert_eq!(verified.unknown, 0);
        for session in sessions {
            let held = session.state().expect("it is in memory");
            let cold: recount_projections::Session = cold(&reader, session);
            assert_eq!(cold, held, "folded from the first event");
            let stream = StreamId::Session(session.id());
            let loaded: recount_projections::Session = state_store::load(&reader, stream).unwrap();
            assert_eq!(loaded, held, "loaded from its last snapshot");
        }
    }
}

/// Sends a prompt and waits until it is answered.
pub async fn ask(session: &Session, prompt: &str) -> MessageId {
    let message = session.send(prompt, None).await.unwrap();
    assert_eq!(
        settled(session, message).await,
        MessageState::Completed,
        "{prompt}: {:#?}",
        session.state().expect("it is in memory").turn
    );
    message
}

/// Waits until a message is settled.
pub async fn settled(session: &Session, message: MessageId) -> MessageState {
    within(TURN_TIMEOUT, "the turn's end", session.settled(message))
        .await
        .unwrap()
}

/// What the log says was said and done, read now from its beginning.
pub fn transcript(log: &LogReader, session: &Session) -> Transcript {
    cold(log, session)
}

/// The text of the last run of a message's turn, as the log has it.
pub fn answer(log: &LogReader, session: &Session, message: MessageId) -> String {
    let transcript = transcript(log, session);
    transcript.turn_of(message).expect("it was answered").text()
}

/// The events of a stream, from the first.
pub fn events(log: &LogReader, stream: StreamId) -> Vec<Recorded> {
    let events = log.read(stream, Seq::FIRST);
    events.collect::<Result<_, _>>().unwrap()
}

/// The events of the connection that a session goes over.
pub fn connection_events(log: &LogReader, session: &Session) -> Vec<Recorded> {
    let opening = session
        .state()
        .expect("it is in memory")
        .opening
        .expect("it was opened");
    events(log, StreamId::Connection(opening.connection))
}

/// The process of the server that was started last for a session.
pub fn server_pid(log: &LogReader, session: &Session) -> u32 {
    let spawned = |recorded: &Recorded| match recorded.event {
        Event::ServerSpawned { pid, .. } => Some(pid),
        _ => None,
    };
    let events = connection_events(log, session);
    events
        .iter()
        .rev()
        .find_map(spawned)
        .expect("a server was started")
}

/// `kill -9`, of this one process. One that is gone already is not missed.
pub fn kill_9(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Stops this one process where it stands, as `kill -STOP` does: its sockets stay, and nobody answers.
pub fn pause(pid: u32) {
    signal(pid, Signal::STOP);
}

/// Lets a process go on that was stopped.
pub fn go_on(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

fn cold<P: Projection>(log: &LogReader, session: &Session) -> P {
    fold(&events(log, StreamId::Session(session.id())))
}
