//! The task that owns one connection: its machine, and everything that is open for it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use recount_projections::breaker::State as Circuit;
use recount_projections::connection::Server;
use recount_store::{ConnectionId, Expected, Log, StreamId, Target, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::{Command, Connection, FromAgent, LastFailure, Link};
use crate::adapter::{
    AgentAdapter, CallError, Endpoint, Frame, FrameStream, Observation, Secret, StreamError,
    StreamItem,
};
use crate::clock::Clock;
use crate::error::Error;
use crate::limits;
use crate::machine::Step;
use crate::machine::connection::{Effect, Failure, Input, Machine};
use crate::policy::ConnectionPolicy;
use crate::shell::route::{Parcel, Routes};
use crate::shell::server::{self, Announcement, Files, Running};

/// What all connections of an engine share.
#[derive(Clone)]
pub(in crate::shell) struct Setting {
    pub(in crate::shell) log: Log,
    pub(in crate::shell) files: Files,
    pub(in crate::shell) policy: ConnectionPolicy,
    pub(in crate::shell) clock: Clock,
    pub(in crate::shell) url_password: Option<Secret>,
}

/// The task of one connection.
pub(in crate::shell) struct Driver {
    setting: Setting,
    id: ConnectionId,
    adapter: Arc<dyn AgentAdapter>,
    machine: Machine,
    commands: mpsc::Receiver<Command>,
    link: watch::Sender<Link>,
    failure: LastFailure,
    routes: Routes,
    /// The effect in flight, but a probe.
    doing: Option<BoxFuture<'static, Done>>,
    /// The probe in flight.
    probing: Option<BoxFuture<'static, Input>>,
    running: Option<Running>,
    stream: Option<FrameStream>,
    epoch: u64,
    /// What a full inbox has no room for yet. Nothing is read from the stream meanwhile.
    blocked: Option<BoxFuture<'static, ()>>,
    wake_at: Option<Timestamp>,
    /// Who waits until nothing is open.
    ending: Vec<oneshot::Sender<()>>,
    last: bool,
}

/// What an effect came to.
enum Done {
    Input(Input),
    Started(Result<(Running, recount_projections::connection::Process), Error>),
    Found(Result<recount_projections::connection::Process, String>),
    Opened(Result<FrameStream, CallError>),
}

/// What can wake the task.
enum Happened {
    Asked(Command),
    Released,
    Done(Done),
    Probed(Input),
    Exited(String),
    Streamed(Option<Result<StreamItem, StreamError>>),
    Unblocked,
    Woke,
}

impl Driver {
    /// Starts the task, and gives the handle on it.
    pub(in crate::shell) fn start(
        setting: Setting,
        id: ConnectionId,
        adapter: Arc<dyn AgentAdapter>,
        machine: Machine,
    ) -> Connection {
        let (sender, commands) = mpsc::channel(limits::CONNECTION_COMMANDS_MAX);
        let (link, receiver) = watch::channel(down(&machine));
        let failure = LastFailure::default();
        let driver = Self {
            setting,
            id,
            adapter: Arc::clone(&adapter),
            machine,
            commands,
            link,
            failure: failure.clone(),
            routes: Routes::default(),
            doing: None,
            probing: None,
            running: None,
            stream: None,
            epoch: 0,
            blocked: None,
            wake_at: None,
            ending: Vec::new(),
            last: false,
        };
        tokio::spawn(driver.run());
        Connection {
            id,
            adapter,
            link: receiver,
            commands: sender,
            failure,
        }
    }

    async fn run(mut self) {
        if let Err(error) = self.work().await {
            tracing::error!(connection = %self.id, %error, "keep a connection");
            self.link.send_replace(Link::Down {
                circuit_open: false,
                reason: Some(error.to_string()),
            });
        }
    }

    async fn work(&mut self) -> Result<(), Error> {
        self.turn(Input::Woke).await?;
        while !(self.last && self.ending.is_empty()) {
            let input = match self.next().await {
                Happened::Released => return Ok(()),
                Happened::Asked(command) => self.asked(command),
                Happened::Done(done) => Some(self.done(done)),
                Happened::Probed(input) => Some(input),
                Happened::Exited(how) => Some(self.exited(&how)),
                Happened::Streamed(item) => self.streamed(item),
                // While an inbox was full nothing was read: that was no silence of the agent's.
                Happened::Unblocked => Some(Input::Heard),
                Happened::Woke if self.blocked.is_some() => Some(Input::Heard),
                Happened::Woke => Some(Input::Woke),
            };
            if let Some(input) = input {
                self.turn(input).await?;
            }
        }
        Ok(())
    }

    /// Waits for the next thing that happens. Dropping the future loses nothing.
    async fn next(&mut self) -> Happened {
        let wake_in = self
            .wake_at
            .map(|at| at.since(self.setting.clock.now()))
            .map(|wait| wait.max(limits::WAKE_MIN));
        let Self {
            commands,
            doing,
            probing,
            running,
            stream,
            blocked,
            ..
        } = self;
        // The stream comes last, since it may always have something.
        tokio::select! {
            biased;
            command = commands.recv() => command.map_or(Happened::Released, Happened::Asked),
            done = finished(doing) => Happened::Done(done),
            input = finished(probing) => Happened::Probed(input),
            how = exit_of(running) => Happened::Exited(how),
            () = finished(blocked) => Happened::Unblocked,
            () = wake_after(wake_in) => Happened::Woke,
            item = item_of(stream), if blocked.is_none() => Happened::Streamed(item),
        }
    }

    /// One turn of the loop: record what follows from an input, do it, and what is next, until nothing is.
    async fn turn(&mut self, input: Input) -> Result<(), Error> {
        let mut step = self.machine.handle(input, self.setting.clock.now());
        loop {
            self.perform(step).await?;
            step = self.machine.advance(self.setting.clock.now());
            if step.is_quiet() {
                break;
            }
        }
        self.wake_at = step.wake_at;
        self.publish();
        let wanted_again = self.machine.is_wanted() && !self.last;
        if self.machine.is_at_rest() || wanted_again {
            for done in self.ending.drain(..) {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            }
        }
        Ok(())
    }

    async fn perform(&mut self, step: Step<Effect>) -> Result<(), Error> {
        if !step.events.is_empty() {
            let stream = StreamId::Connection(self.id);
            let append = self.setting.log.append(stream, Expected::Any, step.events);
            for recorded in append.await? {
                tracing::debug!(connection = %self.id, event = ?recorded.event, "recorded");
                self.machine.applied(&recorded);
            }
        }
        for effect in step.effects {
            self.begin(effect).await;
        }
        Ok(())
    }

    fn publish(&mut self) {
        let link = match &self.machine.connection().ready {
            Some(ready) if self.machine.is_streaming() => {
                self.failure.set(None);
                Link::Up {
                    endpoint: self.endpoint(ready.url.clone()),
                    epoch: self.epoch,
                }
            }
            _ => down(&self.machine),
        };
        self.link.send_if_modified(|current| {
            let changed = *current != link;
            if changed {
                *current = link;
            }
            changed
        });
    }

    // ---- effects

    async fn begin(&mut self, effect: Effect) {
        match effect {
            Effect::Adopt(server) => self.adopt(server),
            Effect::ChoosePort => self.doing = Some(Box::pin(async { Done::Input(choose()) })),
            Effect::Spawn { mark, port } => self.spawn(mark, port),
            Effect::AwaitReady { mark } => self.await_ready(mark),
            Effect::Probe { url } => self.probe(url),
            Effect::OpenStream { url } => self.open_stream(url),
            Effect::Close => {
                (self.doing, self.probing) = (None, None);
                (self.stream, self.blocked) = (None, None);
            }
            Effect::StopServer(server) => self.stop_server(server),
            Effect::Forget { mark } => {
                self.running = None;
                server::sweep(&mark).await;
                self.setting.files.remove(&mark);
            }
        }
    }

    fn adopt(&mut self, server: Server) {
        // A child of this process is watched already: had it ended, that would have been heard.
        let known = self.running.as_ref().and(server.process);
        self.doing = Some(Box::pin(async move {
            if let Some(process) = known {
                return Done::Found(Ok(process));
            }
            let found = tokio::task::spawn_blocking(move || server::find(&server)).await;
            Done::Found(found.unwrap_or_else(|error| Err(error.to_string())))
        }));
    }

    fn spawn(&mut self, mark: String, port: u16) {
        let (program, directory) = match &self.machine.connection().target {
            Some(Target::Managed { program, directory }) => (program.clone(), directory.clone()),
            Some(Target::Url(_)) | None => (None, String::new()),
        };
        let files = self.setting.files.clone();
        let adapter = Arc::clone(&self.adapter);
        let starting = server::spawn(files, adapter, program, directory, mark, port);
        self.doing = Some(Box::pin(async move { Done::Started(starting.await) }));
    }

    fn await_ready(&mut self, mark: String) {
        let announcement = match &self.running {
            Some(running) => running.announcement(),
            None => Announcement::None,
        };
        let files = self.setting.files.clone();
        let within = self.setting.policy.start_timeout;
        self.doing = Some(Box::pin(async move {
            let url = match announcement {
                Announcement::Line(prefix) => {
                    server::announced(&files, &mark, prefix, within).await
                }
                Announcement::Made(url) => Some(url),
                Announcement::None => None,
            };
            if let Some(url) = url {
                return Done::Input(Input::Listening { url });
            }
            let how = format!("the server did not say in {within:?} that it listens");
            let reason = server::epitaph(&files, &mark, &how);
            Done::Input(Input::NotReady { reason })
        }));
    }

    fn probe(&mut self, url: String) {
        if let Some(server) = &self.machine.connection().server {
            self.setting.files.bound_output(&server.mark);
        }
        let endpoint = self.endpoint(url);
        let adapter = Arc::clone(&self.adapter);
        self.probing = Some(Box::pin(async move {
            // The adapter has its own limit; this one is for an adapter that has none.
            let health = timeout(limits::PROBE_TIMEOUT * 4, adapter.health(&endpoint)).await;
            match health.unwrap_or_else(|_| Err(late("a probe"))) {
                Ok(health) => Input::ProbePassed {
                    refused: adapter.refuse_version(&health.version),
                    version: health.version,
                },
                Err(error) => Input::ProbeFailed(failure(&error)),
            }
        }));
    }

    fn open_stream(&mut self, url: String) {
        let endpoint = self.endpoint(url);
        let adapter = Arc::clone(&self.adapter);
        self.doing = Some(Box::pin(async move {
            let opened = timeout(limits::CALL_TIMEOUT * 2, adapter.open_stream(&endpoint)).await;
            Done::Opened(opened.unwrap_or_else(|_| Err(late("the stream"))))
        }));
    }

    fn stop_server(&mut self, server: Server) {
        let running = self.running.take();
        let patience = self.setting.policy.stop_timeout;
        self.doing = Some(Box::pin(async move {
            Done::Input(match server::stop(server, running, patience).await {
                Some(how) => Input::Exited {
                    how,
                    port_taken: false,
                },
                None => Input::StopFailed,
            })
        }));
    }

    fn endpoint(&self, url: String) -> Endpoint {
        let connection = self.machine.connection();
        let password = match (&connection.target, &connection.server) {
            (Some(Target::Managed { .. }), Some(server)) => {
                self.setting.files.password(&server.mark)
            }
            (Some(Target::Managed { .. }), None) => None,
            (Some(Target::Url(_)) | None, _) => self.setting.url_password.clone(),
        };
        Endpoint { url, password }
    }

    // ---- inputs

    fn asked(&mut self, command: Command) -> Option<Input> {
        match command {
            // It ends for good: who asks now learns that from the link, which closes.
            Command::Want { .. } | Command::Attach { .. } if self.last => None,
            Command::Want { now } => Some(Input::Wanted { now }),
            Command::Attach {
                agent_session,
                inbox,
                done,
            } => {
                self.routes.attach(agent_session, inbox);
                let _ = done.send(());
                Some(Input::Wanted { now: false })
            }
            Command::Detach { agent_session } => {
                self.routes.detach(&agent_session);
                Some(Input::Detached { agent_session })
            }
            Command::Suspect => Some(Input::Suspected),
            Command::GapFilled { agent_session } => Some(Input::GapFilled { agent_session }),
            Command::End { stop, done } => {
                self.ending.push(done);
                self.last = true;
                Some(Input::Unwanted { stop })
            }
            Command::StopIfUnused { done } => {
                if self.machine.is_wanted() || self.routes.has_sessions() {
                    let _ = done.send(());
                    return None;
                }
                self.ending.push(done);
                Some(Input::Unwanted { stop: true })
            }
        }
    }

    fn done(&mut self, done: Done) -> Input {
        match done {
            Done::Input(input) => input,
            Done::Started(Ok((running, process))) => {
                self.running = Some(running);
                Input::Spawned(process)
            }
            Done::Started(Err(error)) => {
                let failure = Failure {
                    reason: error.to_string(),
                    lasting: matches!(error, Error::ProgramNotFound { .. }),
                };
                self.failure.set(Some(error));
                Input::SpawnFailed(failure)
            }
            Done::Found(Ok(process)) => {
                self.running.get_or_insert(Running::Adopted(process));
                Input::Found(process)
            }
            Done::Found(Err(how)) => Input::Missing { how },
            Done::Opened(Ok(stream)) => {
                self.stream = Some(stream);
                self.epoch += 1;
                Input::StreamOpened
            }
            Done::Opened(Err(error)) => Input::StreamFailed(failure(&error)),
        }
    }

    fn exited(&mut self, how: &str) -> Input {
        self.running = None;
        let server = self.machine.connection().server.as_ref();
        Input::Exited {
            how: server.map_or_else(
                || how.to_owned(),
                |server| server::epitaph(&self.setting.files, &server.mark, how),
            ),
            port_taken: server.is_some_and(server::lost_its_port),
        }
    }

    fn streamed(&mut self, item: Option<Result<StreamItem, StreamError>>) -> Option<Input> {
        match item {
            Some(Ok(StreamItem::Alive)) => Some(Input::Heard),
            Some(Ok(StreamItem::Frame(frame))) => self.take_frame(&frame),
            Some(Err(error)) => Some(Input::StreamEnded {
                reason: error.to_string(),
            }),
            None => Some(Input::StreamEnded {
                reason: "the server ended the stream".to_owned(),
            }),
        }
    }

    /// Passes a frame on to whom it concerns, and gives what the machine has to know of it.
    fn take_frame(&mut self, frame: &Frame) -> Option<Input> {
        let translated = self.adapter.translate(frame);
        let counted = match (&translated.session, &translated.observation) {
            (Some(session), Observation::Counted { number })
                if self.routes.is_attached(session) =>
            {
                Some(Input::Counted {
                    agent_session: session.clone(),
                    number: *number,
                })
            }
            _ => None,
        };
        if let Some(parcel) = self.routes.route(translated, self.epoch) {
            self.blocked = pass_on(parcel);
        }
        counted
    }
}

/// Puts an observation into its inbox; what there is no room for waits.
fn pass_on(parcel: Parcel) -> Option<BoxFuture<'static, ()>> {
    let Parcel { inbox, content } = parcel;
    match inbox.try_send(content) {
        Err(mpsc::error::TrySendError::Full(content)) => {
            Some(Box::pin(wait_for_room(inbox, content)))
        }
        // A session that has closed its inbox ended without a word, and misses nothing.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
    }
}

async fn wait_for_room(inbox: mpsc::Sender<FromAgent>, content: FromAgent) {
    let _ = inbox.send(content).await;
}

fn choose() -> Input {
    let chosen = server::choose_mark().and_then(|mark| Ok((mark, server::choose_port()?)));
    match chosen {
        Ok((mark, port)) => Input::PortChosen { mark, port },
        Err(error) => Input::SpawnFailed(Failure {
            reason: format!("cannot find a free port: {error}"),
            lasting: false,
        }),
    }
}

fn late(what: &str) -> CallError {
    CallError::Unknown {
        reason: format!("{what} was not answered in time"),
    }
}

fn failure(error: &CallError) -> Failure {
    let lasting = match error {
        CallError::RefusedForGood { .. } | CallError::Unsupported { .. } => true,
        CallError::NeverSent { .. }
        | CallError::NoSuchSession { .. }
        | CallError::RefusedForNow { .. }
        | CallError::Unknown { .. } => false,
    };
    Failure {
        reason: error.to_string(),
        lasting,
    }
}

fn down(machine: &Machine) -> Link {
    Link::Down {
        circuit_open: matches!(machine.breaker().state, Circuit::Open { .. }),
        reason: machine.connection().last_error.clone(),
    }
}

/// What a future gives, which is gone then; never where there is none.
async fn finished<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    match slot {
        Some(future) => {
            let output = future.await;
            *slot = None;
            output
        }
        None => pending().await,
    }
}

async fn exit_of(running: &mut Option<Running>) -> String {
    match running {
        Some(running) => running.exited().await,
        None => pending().await,
    }
}

/// The next item; a stream that has ended or broken is gone then.
async fn item_of(stream: &mut Option<FrameStream>) -> Option<Result<StreamItem, StreamError>> {
    match stream {
        Some(open) => {
            let item = open.next().await;
            if !matches!(item, Some(Ok(_))) {
                *stream = None;
            }
            item
        }
        None => pending().await,
    }
}

async fn wake_after(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => pending().await,
    }
}
