//! One connection: find or start the server, open its stream, notice its end, try again, give it time.
//!
//! Each thing in flight is a `Phase`; each thing that can come back is an [`Input`]. An input that does
//! not fit the phase comes from something that was given up since, and is ignored.

mod ends;
mod pulse;
mod server;
pub(crate) mod stances;
mod stream;
mod vocabulary;

use std::collections::BTreeMap;

use recount_projections::{Breaker, Connection, Projection};
use recount_store::{Cause, ConnectionId, ConnectionState, Event, Recorded, Target, Timestamp};

pub use vocabulary::{Effect, Failure, Input, UNWANTED};

use ends::Next;
use pulse::Pulse;

use super::Step;
use super::breaker::{self, Permit};
use crate::policy::ConnectionPolicy;

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
        pulse: Pulse,
        probed: Timestamp,
        probing: bool,
        /// Probes that failed in a row.
        missed: u32,
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
    /// How who had the connection before this one ended, for a person.
    end_before: &'static str,
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
        Self {
            seed: seed(id),
            policy,
            connection,
            breaker,
            wish: Wish::Nothing,
            trying: false,
            tried: false,
            asked_for: false,
            end_before: "the engine ended",
            phase: Phase::Resting,
            counts: BTreeMap::new(),
        }
    }

    /// The same machine, after one in this process whose task panicked.
    #[must_use]
    pub fn after_panic(mut self) -> Self {
        self.end_before = "the engine failed by a mistake of its own";
        self
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
            Input::Exited { how, port_taken } => self.exited(&mut step, &how, port_taken, now),
            Input::StopFailed => {
                if let Phase::Stopping { again } = &mut self.phase {
                    *again = Some(now.plus(self.policy.stop_timeout));
                }
            }
            Input::ProbePassed { version, refused } => {
                self.probe_passed(&mut step, version, refused, now);
            }
            Input::ProbeFailed(failure) => self.probe_failed(&mut step, &failure, now),
            Input::Capable { capabilities } => self.capable(&mut step, capabilities, now),
            Input::NotCapable(failure) => {
                // What has no answer to that can do nothing that has to be asked for. One that is lost is asked for
                // again when the stream is opened again.
                if failure.lasting {
                    self.capable(&mut step, Vec::new(), now);
                }
            }
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
            Input::Heard => self.heard(now),
            Input::Beat => {
                self.heard(now);
                if let Phase::Streaming { pulse, .. } = &mut self.phase {
                    pulse.beat(now);
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
                frame,
            } => {
                self.heard(now);
                self.counted(&mut step, agent_session, number, now);
                step.told_by(frame);
            }
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
            }
            | Phase::Stopping { again: Some(at) }
                if now < *at =>
            {
                Step::wait(*at)
            }
            Phase::Probing {
                url,
                until,
                again: Some(_),
            } => {
                let (url, until) = (url.clone(), *until);
                self.probe(url, until)
            }
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
            Wish::Stop if server.is_some() => {
                let mut step = Step::default();
                let reason = UNWANTED.to_owned();
                self.record(&mut step, Event::ServerStopDecided { reason }, now);
                step
            }
            Wish::Stop | Wish::Nothing => Step::default(),
            Wish::Connection if self.trying => self.connect(now),
            Wish::Connection => self.try_when_due(now),
        }
    }

    /// The process that had the stream open, or was about to, died: say so before anything else.
    fn close_what_another_process_left_open(&mut self, now: Timestamp) -> Step<Effect> {
        let mut step = Step::default();
        if self.connection.state == ConnectionState::Connected {
            let reason = self.end_before.to_owned();
            self.record(&mut step, Event::StreamLost { reason }, now);
        }
        self.change(&mut step, ConnectionState::Disconnected, now);
        step.inferred();
        step
    }

    fn try_when_due(&mut self, now: Timestamp) -> Step<Effect> {
        let backoff = &self.policy.backoff;
        let is_ahead = |at: &Timestamp| !breaker::is_due(*at, backoff, now);
        let scheduled = self.connection.next_try.filter(is_ahead);
        if let (Some(at), false) = (scheduled, self.asked_for) {
            return Step::wait(at);
        }
        let mut step = Step::default();
        match breaker::permit(&self.breaker, &self.policy, self.asked_for, now) {
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
}

/// What the delays of a connection are scattered by.
#[must_use]
pub fn seed(id: ConnectionId) -> u64 {
    let mut seed = [0; 8];
    seed.copy_from_slice(&id.to_bytes()[..8]);
    u64::from_le_bytes(seed)
}

#[cfg(test)]
mod tests;
