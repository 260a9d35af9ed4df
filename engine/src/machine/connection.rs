//! One connection: find or start the server, open its stream, notice its end, try again, give it time.
//!
//! Each thing in flight is a [`Phase`]; each thing that can come back is an [`Input`]. An input that does
//! not fit the phase comes from something that was given up since, and is ignored.

use std::collections::BTreeMap;

use recount_projections::breaker::State as Circuit;
use recount_projections::connection::{Process, Ready, Server};
use recount_projections::{Breaker, Connection, Projection};
use recount_store::{Cause, ConnectionId, ConnectionState, Event, Recorded, Target, Timestamp};

use super::Step;
use super::breaker::{self, Permit};
use crate::limits;
use crate::policy::ConnectionPolicy;

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
    /// The stream is open.
    StreamOpened,
    /// The stream could not be opened.
    StreamFailed(Failure),
    /// The stream ended.
    StreamEnded {
        /// Why, for a person.
        reason: String,
    },
    /// Bytes came over the stream.
    Heard,
    /// A call to the server failed.
    Suspected,
    /// The agent counted something of one of its sessions.
    Counted {
        /// The agent's name of the session.
        agent_session: String,
        /// Its number.
        number: u64,
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

/// What this process has in flight.
#[derive(Debug, Clone, PartialEq)]
enum Phase {
    /// Nothing.
    Resting,
    /// [`Effect::Adopt`].
    Looking,
    /// [`Effect::ChoosePort`].
    Choosing,
    /// [`Effect::Spawn`].
    Spawning,
    /// [`Effect::AwaitReady`].
    Starting,
    /// [`Effect::Probe`], before the stream; or the pause before the next one.
    Probing {
        url: String,
        until: Timestamp,
        again: Option<Timestamp>,
    },
    /// [`Effect::OpenStream`].
    Opening,
    /// The open stream, and now and then [`Effect::Probe`].
    Streaming {
        url: String,
        heard: Timestamp,
        probed: Timestamp,
        probing: bool,
    },
    /// [`Effect::StopServer`], or the pause before the next one.
    Stopping { again: Option<Timestamp> },
}

/// What is wanted of the connection in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    Connection,
    Stop,
}

/// The machine of one connection.
#[derive(Debug, Clone)]
pub struct Machine {
    seed: u64,
    policy: ConnectionPolicy,
    connection: Connection,
    breaker: Breaker,
    wish: Wish,
    /// Whether this process began the try that the log says is being made.
    trying: bool,
    /// Whether this process has tried at all.
    tried: bool,
    /// Whether a person waits for the first try.
    asked_for: bool,
    phase: Phase,
    counts: BTreeMap<String, u64>,
}

impl Machine {
    /// The machine of a connection that stands where its log says.
    #[must_use]
    pub fn new(
        id: ConnectionId,
        policy: ConnectionPolicy,
        connection: Connection,
        breaker: Breaker,
    ) -> Self {
        let mut seed = [0; 8];
        seed.copy_from_slice(&id.to_bytes()[..8]);
        Self {
            seed: u64::from_le_bytes(seed),
            policy,
            connection,
            breaker,
            wish: Wish::Nothing,
            trying: false,
            tried: false,
            asked_for: false,
            phase: Phase::Resting,
            counts: BTreeMap::new(),
        }
    }

    /// Where the connection stands.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where its breaker stands.
    #[must_use]
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Whether the stream is open in this process.
    #[must_use]
    pub const fn is_streaming(&self) -> bool {
        matches!(self.phase, Phase::Streaming { .. })
    }

    /// Whether somebody wants it in this process.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wish == Wish::Connection
    }

    /// Whether nothing is open or in flight, and nothing that is wanted gone remains.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let stopped = self.wish != Wish::Stop || self.connection.server.is_none();
        self.phase == Phase::Resting
            && self.connection.state == ConnectionState::Disconnected
            && stopped
    }

    /// Takes in an event that is durable now.
    pub fn applied(&mut self, recorded: &Recorded) {
        self.connection.apply(recorded);
        self.breaker.apply(recorded);
    }

    /// What follows from something that happened.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Step<Effect> {
        let mut step = Step::default();
        match input {
            Input::Wanted { now } => {
                self.wish = Wish::Connection;
                self.asked_for |= now && !self.tried;
            }
            Input::Unwanted { stop } => self.unwanted(&mut step, stop, now),
            Input::Found(process) => self.found(&mut step, process, now),
            Input::Missing { how } => self.missing(&mut step, how, now),
            Input::PortChosen { mark, port } => self.port_chosen(&mut step, mark, port, now),
            Input::Spawned(process) => self.spawned(&mut step, process, now),
            Input::SpawnFailed(failure) => self.spawn_failed(&mut step, &failure, now),
            Input::Listening { url } => self.listening(&mut step, url, now),
            Input::NotReady { reason } => {
                if self.phase == Phase::Starting {
                    self.stop_and_fail(&mut step, reason, false, now);
                }
            }
            Input::Exited { how, port_taken } => self.exited(&mut step, how, port_taken, now),
            Input::StopFailed => {
                if let Phase::Stopping { again } = &mut self.phase {
                    *again = Some(now.plus(self.policy.stop_timeout));
                }
            }
            Input::ProbePassed { version, refused } => {
                self.probe_passed(&mut step, version, refused, now);
            }
            Input::ProbeFailed(failure) => self.probe_failed(&mut step, &failure, now),
            Input::StreamOpened => self.stream_opened(&mut step, now),
            Input::StreamFailed(failure) => {
                if matches!(self.phase, Phase::Opening) {
                    let next = Next::of(&failure);
                    self.fail(&mut step, failure.reason, next, now);
                }
            }
            Input::StreamEnded { reason } => {
                if self.is_streaming() {
                    self.lose(&mut step, reason, now);
                }
            }
            Input::Heard => {
                if let Phase::Streaming { heard, .. } = &mut self.phase {
                    *heard = now;
                }
            }
            Input::Suspected => {
                if let Phase::Streaming {
                    url,
                    probed,
                    probing,
                    ..
                } = &mut self.phase
                    && !*probing
                {
                    (*probing, *probed) = (true, now);
                    step.effects.push(Effect::Probe { url: url.clone() });
                }
            }
            Input::Counted {
                agent_session,
                number,
            } => self.counted(&mut step, agent_session, number, now),
            Input::GapFilled { agent_session } => {
                if let Some(found) = self.connection.gaps.get(&agent_session) {
                    let cause = Cause::At(*found);
                    step.record(Event::GapFilled { agent_session }, now, cause);
                }
            }
            Input::Detached { agent_session } => {
                self.counts.remove(&agent_session);
            }
            Input::Woke => {}
        }
        step
    }

    /// What is to be done next, given where things stand; quiet once nothing is.
    pub fn advance(&mut self, now: Timestamp) -> Step<Effect> {
        match &self.phase {
            Phase::Resting => self.rest(now),
            Phase::Probing {
                again: Some(at), ..
            } if now < *at => Step::wait(*at),
            Phase::Probing {
                url,
                until,
                again: Some(_),
            } => {
                let (url, until) = (url.clone(), *until);
                self.probe(url, until)
            }
            Phase::Stopping { again: Some(at) } if now < *at => Step::wait(*at),
            Phase::Stopping { again: Some(_) } => self.stop(),
            Phase::Streaming { .. } => self.watch(now),
            Phase::Looking
            | Phase::Choosing
            | Phase::Spawning
            | Phase::Starting
            | Phase::Probing { again: None, .. }
            | Phase::Opening
            | Phase::Stopping { again: None } => Step::default(),
        }
    }

    // ---- nothing in flight

    fn rest(&mut self, now: Timestamp) -> Step<Effect> {
        if self.connection.state != ConnectionState::Disconnected && !self.trying {
            return self.close_what_another_process_left_open(now);
        }
        let server = self.connection.server.as_ref();
        if server.is_some_and(|server| server.stopping) {
            return self.stop();
        }
        match self.wish {
            Wish::Nothing => Step::default(),
            Wish::Stop if server.is_some() => {
                let mut step = Step::default();
                let reason = "it is not wanted any more".to_owned();
                self.record(&mut step, Event::ServerStopDecided { reason }, now);
                step
            }
            Wish::Stop => Step::default(),
            Wish::Connection if self.trying => self.connect(now),
            Wish::Connection => self.try_when_due(now),
        }
    }

    /// The process that had the stream open, or was about to, died: say so before anything else.
    fn close_what_another_process_left_open(&mut self, now: Timestamp) -> Step<Effect> {
        let mut step = Step::default();
        if self.connection.state == ConnectionState::Connected {
            let reason = "the engine ended".to_owned();
            self.record(&mut step, Event::StreamLost { reason }, now);
        }
        self.change(&mut step, ConnectionState::Disconnected, now);
        step.inferred();
        step
    }

    fn try_when_due(&mut self, now: Timestamp) -> Step<Effect> {
        let scheduled = self.connection.next_try.filter(|at| now < *at);
        if let (Some(at), false) = (scheduled, self.asked_for) {
            return Step::wait(at);
        }
        let mut step = Step::default();
        match breaker::permit(&self.breaker, self.asked_for, now) {
            Permit::Wait(until) => return Step::wait(until),
            Permit::Probe => self.record(&mut step, Event::CircuitHalfOpened, now),
            Permit::Go => {}
        }
        self.change(&mut step, ConnectionState::Connecting, now);
        (self.trying, self.tried, self.asked_for) = (true, true, false);
        step
    }

    fn connect(&mut self, now: Timestamp) -> Step<Effect> {
        let mut step = Step::default();
        match (&self.connection.target, &self.connection.server) {
            (Some(Target::Url(url)), _) => return self.probe(url.clone(), now),
            (Some(Target::Managed { .. }), Some(server)) => {
                step.effects.push(Effect::Adopt(server.clone()));
                self.phase = Phase::Looking;
            }
            (Some(Target::Managed { .. }), None) => {
                step.effects.push(Effect::ChoosePort);
                self.phase = Phase::Choosing;
            }
            (None, _) => {
                let reason = "the log does not say where it leads".to_owned();
                self.fail(&mut step, reason, Next::Later, now);
            }
        }
        step
    }

    fn stop(&mut self) -> Step<Effect> {
        let mut step = Step::default();
        if let Some(server) = &self.connection.server {
            step.effects.push(Effect::StopServer(server.clone()));
            self.phase = Phase::Stopping { again: None };
        }
        step
    }

    fn probe(&mut self, url: String, until: Timestamp) -> Step<Effect> {
        let mut step = Step::default();
        step.effects.push(Effect::Probe { url: url.clone() });
        self.phase = Phase::Probing {
            url,
            until,
            again: None,
        };
        step
    }

    // ---- a server of our own

    fn found(&mut self, step: &mut Step<Effect>, process: Process, now: Timestamp) {
        let (Phase::Looking, Some(server)) = (&self.phase, &self.connection.server) else {
            return;
        };
        let patience = match self.connection.ready {
            Some(_) => self.policy.answer_timeout,
            None => self.policy.start_timeout,
        };
        let url = match &self.connection.ready {
            Some(ready) => ready.url.clone(),
            None => format!("http://127.0.0.1:{}", server.port),
        };
        if server.process.is_none() {
            let Process { pid, started } = process;
            self.record(step, Event::ServerSpawned { pid, started }, now);
            step.inferred();
        }
        step.effects
            .extend(self.probe(url, now.plus(patience)).effects);
    }

    fn missing(&mut self, step: &mut Step<Effect>, how: String, now: Timestamp) {
        if self.phase == Phase::Looking {
            self.phase = Phase::Resting;
            self.gone(step, how, now);
            step.inferred();
        }
    }

    fn port_chosen(&mut self, step: &mut Step<Effect>, mark: String, port: u16, now: Timestamp) {
        if self.phase == Phase::Choosing {
            let event = Event::ServerStartDecided {
                mark: mark.clone(),
                port,
            };
            self.record(step, event, now);
            step.effects.push(Effect::Spawn { mark, port });
            self.phase = Phase::Spawning;
        }
    }

    fn spawned(&mut self, step: &mut Step<Effect>, process: Process, now: Timestamp) {
        let (Phase::Spawning, Some(server)) = (&self.phase, &self.connection.server) else {
            return;
        };
        let mark = server.mark.clone();
        let Process { pid, started } = process;
        self.record(step, Event::ServerSpawned { pid, started }, now);
        if self.wish == Wish::Connection {
            step.effects.push(Effect::AwaitReady { mark });
            self.phase = Phase::Starting;
        } else {
            self.abandon(step, now);
        }
    }

    fn spawn_failed(&mut self, step: &mut Step<Effect>, failure: &Failure, now: Timestamp) {
        if !matches!(self.phase, Phase::Choosing | Phase::Spawning) {
            return;
        }
        self.gone(step, "it did not start".to_owned(), now);
        self.fail(step, failure.reason.clone(), Next::of(failure), now);
    }

    fn listening(&mut self, step: &mut Step<Effect>, url: String, now: Timestamp) {
        if self.phase == Phase::Starting {
            let until = now.plus(self.policy.answer_timeout);
            step.effects.extend(self.probe(url, until).effects);
        }
    }

    fn exited(&mut self, step: &mut Step<Effect>, how: String, port_taken: bool, now: Timestamp) {
        if self.connection.server.is_none() {
            return;
        }
        self.gone(step, how.clone(), now);
        match self.phase {
            Phase::Streaming { .. } => self.lose(step, format!("the server ended: {how}"), now),
            Phase::Looking | Phase::Starting | Phase::Probing { .. } | Phase::Opening => {
                let next = if port_taken {
                    Next::Soon
                } else {
                    Next::Backoff
                };
                step.effects.push(Effect::Close);
                self.fail(step, format!("the server ended: {how}"), next, now);
            }
            Phase::Stopping { .. } => self.phase = Phase::Resting,
            Phase::Resting | Phase::Choosing | Phase::Spawning => {}
        }
    }

    /// The server's process is gone: record it, and clear away what it left.
    fn gone(&mut self, step: &mut Step<Effect>, how: String, now: Timestamp) {
        if let Some(server) = &self.connection.server {
            let cause = Cause::At(server.position);
            step.record(Event::ServerExited { how }, now, cause);
            step.effects.push(Effect::Forget {
                mark: server.mark.clone(),
            });
        }
    }

    // ---- the server's health

    fn probe_passed(
        &mut self,
        step: &mut Step<Effect>,
        version: String,
        refused: Option<String>,
        now: Timestamp,
    ) {
        match &mut self.phase {
            Phase::Probing { url, .. } => {
                let url = url.clone();
                match refused {
                    Some(reason) => self.stop_and_fail(step, reason, true, now),
                    None => self.answered(step, Ready { url, version }, now),
                }
            }
            Phase::Streaming { probing, .. } => {
                *probing = false;
                self.recovered(step, now);
            }
            Phase::Resting
            | Phase::Looking
            | Phase::Choosing
            | Phase::Spawning
            | Phase::Starting
            | Phase::Opening
            | Phase::Stopping { .. } => {}
        }
    }

    fn answered(&mut self, step: &mut Step<Effect>, ready: Ready, now: Timestamp) {
        self.recovered(step, now);
        let url = ready.url.clone();
        if self.connection.ready.as_ref() != Some(&ready) {
            let Ready { url, version } = ready;
            self.record(step, Event::ServerReady { url, version }, now);
        }
        step.effects.push(Effect::OpenStream { url });
        self.phase = Phase::Opening;
    }

    fn recovered(&mut self, step: &mut Step<Effect>, now: Timestamp) {
        if let Some(failed) = self.connection.probe_failing {
            step.record(Event::ProbeRecovered, now, Cause::At(failed));
        }
    }

    fn probe_failed(&mut self, step: &mut Step<Effect>, failure: &Failure, now: Timestamp) {
        match &mut self.phase {
            Phase::Probing { until, again, .. } if now < *until => {
                *again = Some(now.plus(limits::PROBE_PAUSE));
            }
            Phase::Probing { .. } => {
                self.stop_and_fail(step, failure.reason.clone(), failure.lasting, now);
            }
            Phase::Streaming { probing, .. } => {
                *probing = false;
                if self.connection.probe_failing.is_none() {
                    let reason = failure.reason.clone();
                    self.record(step, Event::ProbeFailed { reason }, now);
                }
            }
            Phase::Resting
            | Phase::Looking
            | Phase::Choosing
            | Phase::Spawning
            | Phase::Starting
            | Phase::Opening
            | Phase::Stopping { .. } => {}
        }
    }

    // ---- the stream

    fn stream_opened(&mut self, step: &mut Step<Effect>, now: Timestamp) {
        let (Phase::Opening, Some(ready)) = (&self.phase, &self.connection.ready) else {
            return;
        };
        let url = ready.url.clone();
        self.record(step, Event::StreamOpened, now);
        self.change(step, ConnectionState::Connected, now);
        if self.breaker.state != Circuit::Closed {
            self.record(step, Event::CircuitClosed, now);
        }
        self.trying = false;
        self.phase = Phase::Streaming {
            url,
            heard: now,
            probed: now,
            probing: false,
        };
    }

    fn watch(&mut self, now: Timestamp) -> Step<Effect> {
        let Phase::Streaming {
            url,
            heard,
            probed,
            probing,
        } = &mut self.phase
        else {
            return Step::default();
        };
        let failing = self.connection.probe_failing.is_some();
        let silence_max = match failing {
            true => self.policy.silence_max,
            false => self.policy.silence_answering_max,
        };
        let given_up_at = heard.plus(silence_max);
        if now >= given_up_at {
            let silence = now.since(*heard).as_secs();
            let health = if failing { ", nor to probes" } else { "" };
            let reason = format!("nothing came for {silence} s{health}");
            let mut step = Step::default();
            self.lose(&mut step, reason, now);
            return step;
        }
        let suspect_at = heard.plus(self.policy.suspect_after);
        let in_turn = probed.plus(self.policy.probe_every);
        let probe_at = match *probed < suspect_at {
            true => in_turn.min(suspect_at),
            false => in_turn,
        };
        if *probing {
            return Step::wait(given_up_at);
        }
        if now < probe_at {
            return Step::wait(given_up_at.min(probe_at));
        }
        (*probing, *probed) = (true, now);
        Step {
            effects: vec![Effect::Probe { url: url.clone() }],
            wake_at: Some(given_up_at),
            ..Step::default()
        }
    }

    fn counted(&mut self, step: &mut Step<Effect>, session: String, number: u64, now: Timestamp) {
        let Some(last) = self.counts.get_mut(&session) else {
            self.counts.insert(session, number);
            return;
        };
        let expected = last.saturating_add(1);
        *last = number.max(*last);
        if number > expected {
            let event = Event::GapFound {
                agent_session: session,
                from: expected,
                to: number,
            };
            self.record(step, event, now);
        }
    }

    // ---- ends

    fn unwanted(&mut self, step: &mut Step<Effect>, stop: bool, now: Timestamp) {
        self.wish = if stop { Wish::Stop } else { Wish::Nothing };
        self.asked_for = false;
        match self.phase {
            // What is begun there must be seen to its end; it is given up then.
            Phase::Spawning | Phase::Stopping { .. } => {}
            Phase::Streaming { .. } => {
                let reason = "it is not wanted any more".to_owned();
                self.record(step, Event::StreamLost { reason }, now);
                self.abandon(step, now);
            }
            Phase::Resting if !self.trying => {}
            Phase::Resting
            | Phase::Looking
            | Phase::Choosing
            | Phase::Starting
            | Phase::Probing { .. }
            | Phase::Opening => self.abandon(step, now),
        }
    }

    fn abandon(&mut self, step: &mut Step<Effect>, now: Timestamp) {
        self.change(step, ConnectionState::Disconnected, now);
        step.effects.push(Effect::Close);
        (self.trying, self.phase) = (false, Phase::Resting);
    }

    /// The stream is gone: schedule the next, soon if this one had held.
    fn lose(&mut self, step: &mut Step<Effect>, reason: String, now: Timestamp) {
        let held = now.since(self.connection.since) >= self.policy.held_after;
        let failures = match held {
            true => 0,
            false => self.connection.attempt(),
        };
        self.record(step, Event::StreamLost { reason }, now);
        self.abandon(step, now);
        self.schedule(step, failures, Next::Backoff, now);
    }

    /// A server that does not do what it should: ours is stopped, another's is left alone.
    fn stop_and_fail(
        &mut self,
        step: &mut Step<Effect>,
        reason: String,
        lasting: bool,
        now: Timestamp,
    ) {
        if self.connection.server.is_some() {
            let event = Event::ServerStopDecided {
                reason: reason.clone(),
            };
            self.record(step, event, now);
            step.effects.push(Effect::Close);
        }
        let next = if lasting { Next::Later } else { Next::Backoff };
        self.fail(step, reason, next, now);
    }

    fn fail(&mut self, step: &mut Step<Effect>, reason: String, next: Next, now: Timestamp) {
        let attempt = self.connection.attempt();
        self.record(step, Event::ConnectFailed { attempt, reason }, now);
        self.change(step, ConnectionState::Disconnected, now);
        (self.trying, self.phase) = (false, Phase::Resting);
        self.schedule(step, attempt, next, now);
    }

    fn schedule(&self, step: &mut Step<Effect>, failures: u32, next: Next, now: Timestamp) {
        if self.wish != Wish::Connection {
            return;
        }
        let lasting = next == Next::Later;
        let follows = |failures| {
            breaker::after_failure(
                &self.breaker,
                &self.policy,
                self.seed,
                failures,
                lasting,
                now,
            )
        };
        let event = match (follows(failures), next) {
            // Another port will do: the wait is that of a first try.
            (Event::ReconnectScheduled { attempt, .. }, Next::Soon) => Event::ReconnectScheduled {
                attempt,
                at: now.plus(super::backoff::delay(&self.policy.backoff, self.seed, 1)),
            },
            (event, _) => event,
        };
        self.record(step, event, now);
    }

    fn change(&self, step: &mut Step<Effect>, to: ConnectionState, now: Timestamp) {
        let from = self.connection.state;
        self.record(step, Event::ConnectionChanged { from, to }, now);
    }

    fn record(&self, step: &mut Step<Effect>, event: Event, now: Timestamp) {
        let cause = self.connection.moved.map_or(Cause::None, Cause::At);
        step.record(event, now, cause);
    }
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// At once, almost.
    Soon,
    /// After the delay of the try.
    Backoff,
    /// When the circuit lets one through.
    Later,
}

impl Next {
    const fn of(failure: &Failure) -> Self {
        if failure.lasting {
            Self::Later
        } else {
            Self::Backoff
        }
    }
}

#[cfg(test)]
mod tests;
