//! The task that owns one connection: its machine, and everything that is open for it.

mod effects;

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt};
use recount_projections::breaker::State as Circuit;
use recount_projections::connection::Process;
use recount_projections::{Breaker, Connection as State, state_store};
use recount_store::{
    ConnectionId, Event, Expected, Log, LogReader, NewEvent, Seq, StreamId, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tracing::Instrument as _;

use effects::failure;

use super::transitions::Audience;
use super::{Command, Connection, LastFailure, Link, Standing};
use crate::adapter::{
    AgentAdapter, CallError, Frame, FrameStream, Observation, Secret, StreamError, StreamItem,
    Translated,
};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::error::Error;
use crate::limits;
use crate::machine::Step;
use crate::machine::backoff;
use crate::machine::budget::Budget;
use crate::machine::connection::{Effect, Failure, Input, Machine, seed};
use crate::metrics::{self, Share};
use crate::policy::ConnectionPolicy;
use crate::shell::panics;
use crate::shell::route::Routes;
use crate::shell::server::{self, Running, Servers};
use crate::shell::told;
use crate::watched;

/// What all connections of an engine share.
#[derive(Clone)]
pub(in crate::shell) struct Setting {
    pub(in crate::shell) log: Log,
    pub(in crate::shell) servers: Servers,
    pub(in crate::shell) policy: ConnectionPolicy,
    pub(in crate::shell) clock: Clock,
    pub(in crate::shell) chance: Chance,
    pub(in crate::shell) url_password: Option<Secret>,
    pub(in crate::shell) transitions: Audience,
}

/// The task of one connection.
pub(in crate::shell) struct Driver {
    setting: Setting,
    id: ConnectionId,
    adapter: Arc<dyn AgentAdapter>,
    machine: Machine,
    commands: mpsc::Receiver<Command>,
    link: watched::Sender<Link>,
    standing: watch::Sender<Standing>,
    failure: LastFailure,
    routes: Routes,
    /// The effect in flight, but a probe.
    doing: Option<BoxFuture<'static, Done>>,
    /// The probe in flight.
    probing: Option<BoxFuture<'static, Input>>,
    /// The question what the server can do.
    asking: Option<BoxFuture<'static, Input>>,
    running: Option<Running>,
    stream: Option<FrameStream>,
    epoch: u64,
    wake_at: Option<Timestamp>,
    /// Who waits until nothing is open.
    ending: Vec<oneshot::Sender<()>>,
    last: bool,
    /// What was wanted of it last: so it goes on after a panic.
    wish: Input,
    /// Whether the circuit was opened by tries of this process: what an earlier one found out may be over.
    given_up: bool,
    stands: Share,
    circuit_open: Share,
}

/// What an effect came to.
enum Done {
    Input(Input),
    Started(Result<(Running, Process), Error>),
    Found(Result<recount_projections::connection::Process, String>),
    Opened(Result<FrameStream, CallError>),
}

/// What can wake the task.
enum Happened {
    Asked(Command),
    Released,
    Done(Done),
    Answered(Input),
    Exited(String),
    Streamed(Option<Result<StreamItem, StreamError>>),
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
        let (link, receiver) = watched::channel(down(&machine, false));
        let (standing, stands) = watch::channel(standing_of(id, &machine));
        let failure = LastFailure::default();
        let budget = Budget::new(setting.policy.retry_tokens, setting.policy.retry_refill);
        let driver = Self {
            setting,
            id,
            adapter: Arc::clone(&adapter),
            machine,
            commands,
            link,
            standing,
            failure: failure.clone(),
            routes: Routes::default(),
            doing: None,
            probing: None,
            asking: None,
            running: None,
            stream: None,
            epoch: 0,
            wake_at: None,
            ending: Vec::new(),
            last: false,
            wish: Input::Woke,
            given_up: false,
            stands: Share::of(metrics::CONNECTIONS),
            circuit_open: Share::of(metrics::CIRCUITS_OPEN),
        };
        let span = tracing::info_span!("connection", connection = %id, agent = adapter.name());
        tokio::spawn(driver.run().instrument(span));
        Connection {
            id,
            adapter,
            link: receiver,
            standing: stands,
            commands: sender,
            failure,
            budget: Arc::new(Mutex::new(budget)),
        }
    }

    /// Says how the connection stands, to whoever counts.
    fn gauge(&mut self) {
        let open = !matches!(self.machine.breaker().state, Circuit::Closed);
        self.stands.set(usize::from(self.machine.is_streaming()));
        self.circuit_open.set(usize::from(open));
    }

    /// Works until the end, and over panics, its own and its adapter's.
    async fn run(mut self) {
        let mut panics = 0;
        loop {
            let begun = self.setting.clock.now();
            let reason = match AssertUnwindSafe(self.work()).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => return self.stand_still(error.to_string()),
                Err(panic) => panics::words(&*panic),
            };
            let now = self.setting.clock.now();
            let ConnectionPolicy {
                held_after,
                panics_max,
                backoff,
                ..
            } = self.setting.policy;
            panics = if now.since(begun) < held_after {
                panics + 1
            } else {
                1
            };
            tracing::error!(reason, panics, "a connection's task panicked");
            if let Err(error) = self.begin_anew(reason.clone(), now).await {
                return self.stand_still(error.to_string());
            }
            if panics >= panics_max {
                return self.stand_still(reason);
            }
            sleep(backoff::delay(&backoff, seed(self.id), panics)).await;
        }
    }

    /// Ends the task. Its link closes with it, and who asks the manager for the connection gets another one.
    fn stand_still(&self, reason: String) {
        tracing::error!(connection = %self.id, reason, "keep a connection");
        self.link.send_replace(Link::Down {
            circuit_open: false,
            reason: Some(reason),
        });
    }

    /// Records a panic, and begins anew from the log: what was in flight and in memory may be half done. The server
    /// lives, and its process is still watched.
    async fn begin_anew(&mut self, reason: String, now: Timestamp) -> Result<(), Error> {
        (self.doing, self.probing, self.asking) = (None, None, None);
        (self.stream, self.wake_at) = (None, None);
        let stream = StreamId::Connection(self.id);
        let panicked = NewEvent::live(Event::TaskPanicked { reason }, now);
        let log = &self.setting.log;
        let recorded = log.append(stream, Expected::Any, vec![panicked]).await?;
        self.setting.transitions.tell(recorded);
        let (connection, breaker) = stand(log, self.id)?;
        let policy = self.setting.policy.clone();
        self.machine = Machine::new(self.id, policy, connection, breaker).after_panic();
        self.publish();
        Ok(())
    }

    async fn work(&mut self) -> Result<(), Error> {
        self.turn(self.wish.clone()).await?;
        while !(self.last && self.ending.is_empty()) {
            let input = match self.next().await {
                Happened::Released => return Ok(()),
                Happened::Asked(command) => self.asked(command),
                Happened::Done(done) => Some(self.done(done)),
                Happened::Answered(input) => Some(input),
                Happened::Exited(how) => Some(self.exited(&how)),
                Happened::Streamed(item) => Some(self.read(item).await?),
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
            asking,
            running,
            stream,
            ..
        } = self;
        // The stream comes last, since it may always have something.
        tokio::select! {
            biased;
            command = commands.recv() => command.map_or(Happened::Released, Happened::Asked),
            done = finished(doing) => Happened::Done(done),
            input = finished(probing) => Happened::Answered(input),
            input = finished(asking) => Happened::Answered(input),
            how = exit_of(running) => Happened::Exited(how),
            () = wake_after(wake_in) => Happened::Woke,
            item = item_of(stream) => Happened::Streamed(item),
        }
    }

    /// One turn of the loop: record what follows from an input, do it, and what is next, until nothing is.
    async fn turn(&mut self, input: Input) -> Result<(), Error> {
        let mut step = self.machine.handle(input, self.setting.clock.now());
        let mut moved = false;
        loop {
            moved |= !step.events.is_empty();
            self.perform(step).await?;
            step = self.machine.advance(self.setting.clock.now());
            if step.is_quiet() {
                break;
            }
        }
        self.wake_at = step.wake_at;
        if moved {
            self.gauge();
        }
        // Whatever moves the link is an event.
        if moved {
            self.publish();
        }
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
            let events = append.await?;
            for recorded in &events {
                told::recorded(recorded);
                self.given_up |= matches!(recorded.event, Event::CircuitOpened { .. });
                self.machine.applied(recorded);
                if let Event::GapFound { agent_session, .. } = &recorded.event {
                    let missed = Translated {
                        session: Some(agent_session.clone()),
                        observation: Observation::Missed,
                    };
                    self.routes.route(missed, recorded.frame, self.epoch);
                }
            }
            let log = &self.setting.log;
            state_store::keep_milestone(log, stream, &events, self.machine.connection());
            state_store::keep_milestone(log, stream, &events, self.machine.breaker());
            self.setting.transitions.tell(events);
        }
        for effect in step.effects {
            self.begin(effect).await;
        }
        Ok(())
    }

    fn publish(&mut self) {
        self.standing
            .send_replace(standing_of(self.id, &self.machine));
        let link = match &self.machine.connection().ready {
            Some(ready) if self.machine.is_streaming() => {
                self.failure.set(None);
                Link::Up {
                    endpoint: self.endpoint(ready.url.clone()),
                    epoch: self.epoch,
                    capabilities: self.machine.connection().capabilities().to_vec(),
                }
            }
            _ => down(&self.machine, self.given_up),
        };
        self.link.send_if_modified(|current| {
            let changed = *current != link;
            if changed {
                *current = link;
            }
            changed
        });
    }

    // ---- inputs

    fn asked(&mut self, command: Command) -> Option<Input> {
        match command {
            // It ends for good: who asks now learns that from the link, which closes.
            Command::Want { .. } if self.last => None,
            Command::Want { now } => {
                self.wish = Input::Wanted { now: false };
                Some(Input::Wanted { now })
            }
            Command::Attach {
                agent_session,
                inbox,
                done,
            } => {
                self.routes.attach(agent_session, inbox);
                let _ = done.send(());
                None
            }
            Command::Detach {
                agent_session,
                inbox,
            } => {
                let detached = self.routes.detach(&agent_session, &inbox);
                detached.then_some(Input::Detached { agent_session })
            }
            Command::Suspect => Some(Input::Suspected),
            Command::GapFilled { agent_session } => Some(Input::GapFilled { agent_session }),
            Command::End { stop, done } => {
                self.ending.push(done);
                self.last = true;
                Some(self.unwanted(stop))
            }
            Command::StopIfUnused { done } => {
                if self.machine.is_wanted() || self.routes.has_sessions() {
                    let _ = done.send(());
                    return None;
                }
                self.ending.push(done);
                Some(self.unwanted(true))
            }
        }
    }

    fn unwanted(&mut self, stop: bool) -> Input {
        self.wish = Input::Unwanted { stop };
        self.wish.clone()
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
                    lasting: matches!(
                        error,
                        Error::ProgramNotFound { .. } | Error::ForeignServer { .. }
                    ),
                };
                self.failure.set(Some(error));
                Input::SpawnFailed(failure)
            }
            Done::Found(Ok(process)) => {
                let processes = self.setting.servers.processes.clone();
                self.running
                    .get_or_insert(Running::Adopted(process, processes));
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
        let Some(server) = &self.machine.connection().server else {
            self.running = None;
            return Input::Woke;
        };
        let running = self.running.take();
        let prefix = running.as_ref().and_then(Running::ready_prefix);
        Input::Exited {
            how: server::epitaph(&self.setting.servers.files, &server.mark, prefix, how),
            port_taken: server::lost_its_port(&self.setting.servers.processes, server),
        }
    }

    /// Takes an item of the stream, and with it what else has come already: at full speed hundreds of frames are
    /// one turn of the loop.
    async fn read(
        &mut self,
        item: Option<Result<StreamItem, StreamError>>,
    ) -> Result<Input, Error> {
        let mut input = self.streamed(item);
        for _ in 1..limits::ITEMS_AT_ONCE {
            let Some(item) = item_of(&mut self.stream).now_or_never() else {
                break;
            };
            // That something was heard is said once, with the last of them.
            if input != Input::Heard {
                self.turn(input).await?;
            }
            input = self.streamed(item);
        }
        Ok(input)
    }

    fn streamed(&mut self, item: Option<Result<StreamItem, StreamError>>) -> Input {
        match item {
            Some(Ok(StreamItem::Alive)) => Input::Heard,
            Some(Ok(StreamItem::Frame(frame))) => self.take_frame(&frame),
            Some(Err(error)) => Input::StreamEnded {
                reason: error.to_string(),
            },
            None => Input::StreamEnded {
                reason: "the server ended the stream".to_owned(),
            },
        }
    }

    /// Passes a frame on to whom it concerns, and gives what the machine has to know of it.
    ///
    /// It is kept before it is translated: what it leads to is never durable without it.
    fn take_frame(&mut self, frame: &Frame) -> Input {
        let Setting { log, clock, .. } = &self.setting;
        metrics::frame(frame.data.len());
        let number = log.keep_frame(self.id, clock.now(), frame.data.as_bytes());
        tracing::trace!(?number, bytes = frame.data.len(), "frame");
        let translated = self.adapter.translate(frame);
        let input = match (&translated.session, &translated.observation) {
            (Some(session), Observation::Counted { number: count })
                if self.routes.is_attached(session) =>
            {
                Input::Counted {
                    agent_session: session.clone(),
                    number: *count,
                    frame: number,
                }
            }
            (_, Observation::Heartbeat) => Input::Beat,
            _ => Input::Heard,
        };
        self.routes.route(translated, number, self.epoch);
        input
    }
}

/// Where a connection and its breaker stand by the log: from the last milestone of each.
pub(in crate::shell) fn stand(
    log: &LogReader,
    id: ConnectionId,
) -> recount_store::Result<(State, Breaker)> {
    state_store::load_connection(log, id, Seq(u64::MAX))
}

fn standing_of(id: ConnectionId, machine: &Machine) -> Standing {
    Standing {
        id,
        connection: machine.connection().clone(),
        breaker: machine.breaker().clone(),
    }
}

fn down(machine: &Machine, given_up: bool) -> Link {
    Link::Down {
        circuit_open: given_up && matches!(machine.breaker().state, Circuit::Open { .. }),
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
