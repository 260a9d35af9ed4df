//! What a connection's machine records from where its log stands, for whatever the log does not tell.
//!
//! As with sessions: the fold, the time and what was observed are recorded; which effect was in flight is not. Each way
//! in which that may have been is tried with the machine that runs.

use recount_projections::{Breaker, Connection};
use recount_store::{ConnectionId, ConnectionState, Event, NewEvent, Timestamp};

use super::{Failure, Input, Machine, Phase, UNWANTED, Wish};
use crate::machine::Step;
use crate::policy::ConnectionPolicy;

/// Where a connection's log stands, and when.
#[derive(Clone, Copy)]
pub(crate) struct Standing<'a> {
    pub(crate) id: ConnectionId,
    pub(crate) policy: &'a ConnectionPolicy,
    pub(crate) connection: &'a Connection,
    pub(crate) breaker: &'a Breaker,
    /// Whether the process that writes has not tried yet.
    pub(crate) untried: bool,
    pub(crate) now: Timestamp,
}

impl<'a> Standing<'a> {
    /// The same, under another policy.
    pub(crate) fn under(self, policy: &'a ConnectionPolicy) -> Self {
        Self { policy, ..self }
    }

    /// The steps that the machine may take from here that begin with an event like `first`, each as its events.
    ///
    /// What was observed in `first` is what the machine is told; what it makes of it is its own.
    pub(crate) fn steps(self, first: &Event) -> Vec<Vec<NewEvent>> {
        let steps = match first {
            // What goes on without its beginning, or begins again without an end.
            Event::ServerStartDecided { .. }
                if self.connection.state == ConnectionState::Disconnected =>
            {
                self.tries()
            }
            Event::ConnectionChanged {
                to: ConnectionState::Connecting,
                ..
            } if self.connection.state != ConnectionState::Disconnected => {
                vec![self.left_open(), self.given_up()]
            }
            Event::CircuitHalfOpened
            | Event::ConnectionChanged {
                to: ConnectionState::Connecting,
                ..
            } => self.tries(),
            Event::ConnectionChanged { .. } => vec![self.left_open(), self.given_up()],
            Event::StreamOpened | Event::CircuitClosed => {
                vec![self.told(Phase::Opening, Input::StreamOpened)]
            }
            Event::StreamLost { reason } if reason == UNWANTED => {
                vec![self.told(self.streaming(), Input::Unwanted { stop: false })]
            }
            Event::StreamLost { reason } => {
                let ended = Input::StreamEnded {
                    reason: reason.clone(),
                };
                vec![self.told(self.streaming(), ended), self.left_open()]
            }
            Event::ConnectFailed { reason, .. } => self.failures(reason),
            Event::ServerStartDecided { mark, port } => {
                let chosen = Input::PortChosen {
                    mark: mark.clone(),
                    port: *port,
                };
                vec![self.told(Phase::Choosing, chosen)]
            }
            Event::ServerSpawned { pid, started } => {
                let process = recount_projections::connection::Process {
                    pid: *pid,
                    started: *started,
                };
                let spawned = || Input::Spawned(process);
                vec![
                    self.told(Phase::Spawning, spawned()),
                    self.unwanted(Phase::Spawning, spawned()),
                    self.told(Phase::Looking, Input::Found(process)),
                ]
            }
            Event::ServerStopDecided { reason } => self.stops(reason),
            Event::ServerExited { how } => self.exits(how),
            _ => Vec::new(),
        };
        steps.into_iter().map(|step| step.events).collect()
    }

    /// A machine that has this in flight, and is wanted.
    fn machine(self, phase: Phase) -> Machine {
        let mut machine = Machine::new(
            self.id,
            self.policy.clone(),
            self.connection.clone(),
            self.breaker.clone(),
        );
        machine.wish = Wish::Connection;
        machine.trying = self.connection.state == ConnectionState::Connecting;
        machine.phase = phase;
        machine
    }

    fn told(self, phase: Phase, input: Input) -> Step<super::Effect> {
        self.machine(phase).handle(input, self.now)
    }

    /// The same, where nobody wants the connection any more.
    fn unwanted(self, phase: Phase, input: Input) -> Step<super::Effect> {
        let mut machine = self.machine(phase);
        machine.wish = Wish::Nothing;
        machine.handle(input, self.now)
    }

    /// What had to be decided before something like `event` was observed, where the log lacks that.
    pub(crate) fn begun_before(self, event: &Event) -> Option<Vec<NewEvent>> {
        let of_a_try = matches!(
            event,
            Event::ServerSpawned { .. }
                | Event::ServerReady { .. }
                | Event::StreamOpened
                | Event::ConnectFailed { .. }
        );
        if of_a_try && self.connection.state == ConnectionState::Disconnected {
            let mut machine = self.machine(Phase::Resting);
            machine.asked_for = true;
            return Some(machine.advance(self.now).events);
        }
        if matches!(event, Event::ServerSpawned { .. }) && self.connection.server.is_none() {
            // Its mark and its port were chosen by chance, and stand nowhere else.
            let chosen = Input::PortChosen {
                mark: String::new(),
                port: 0,
            };
            return Some(self.told(Phase::Choosing, chosen).events);
        }
        // A server of ours that has not answered yet is stopped before its try has failed.
        if let (Event::ConnectFailed { reason, .. }, Some(server)) =
            (event, &self.connection.server)
            && self.connection.ready.is_none()
            && !server.stopping
        {
            let stops = self.stops(reason).into_iter().flat_map(|step| step.events);
            let stop = |new: &NewEvent| matches!(new.event, Event::ServerStopDecided { .. });
            return Some(stops.filter(stop).take(1).collect());
        }
        None
    }

    /// A try of its own time, and one that somebody waited for: only a process's first is made for that.
    fn tries(self) -> Vec<Step<super::Effect>> {
        let of = |asked_for| {
            let mut machine = self.machine(Phase::Resting);
            machine.asked_for = asked_for;
            machine.advance(self.now)
        };
        vec![of(false), of(self.untried)]
    }

    /// What a process finds that an earlier one left.
    fn left_open(self) -> Step<super::Effect> {
        let mut machine = self.machine(Phase::Resting);
        machine.trying = false;
        machine.advance(self.now)
    }

    /// A try that nobody wants any more.
    fn given_up(self) -> Step<super::Effect> {
        self.told(Phase::Looking, Input::Unwanted { stop: false })
    }

    fn failures(self, reason: &str) -> Vec<Step<super::Effect>> {
        let failed = |lasting| {
            Input::StreamFailed(Failure {
                reason: reason.to_owned(),
                lasting,
            })
        };
        [false, true]
            .map(|lasting| self.told(Phase::Opening, failed(lasting)))
            .into()
    }

    /// A server that is not wanted any more, and one that did not do what it should.
    fn stops(self, reason: &str) -> Vec<Step<super::Effect>> {
        let mut unwanted = self.machine(Phase::Resting);
        unwanted.wish = Wish::Stop;
        let mut steps = vec![unwanted.advance(self.now)];
        for lasting in [false, true] {
            let failed = Input::ProbeFailed(Failure {
                reason: reason.to_owned(),
                lasting,
            });
            steps.push(self.told(Self::probing(), failed));
        }
        steps
    }

    fn exits(self, how: &str) -> Vec<Step<super::Effect>> {
        let exited = |port_taken| Input::Exited {
            how: how.to_owned(),
            port_taken,
        };
        let failed = |lasting| {
            Input::SpawnFailed(Failure {
                reason: String::new(),
                lasting,
            })
        };
        let missing = Input::Missing {
            how: how.to_owned(),
        };
        let resting = match self.connection.state {
            ConnectionState::Disconnected => Some(self.told(Phase::Resting, exited(false))),
            ConnectionState::Connecting | ConnectionState::Connected => None,
        };
        let mut steps = vec![
            self.told(self.streaming(), exited(false)),
            self.told(Phase::Opening, exited(false)),
            self.told(Phase::Opening, exited(true)),
            self.told(Phase::Spawning, failed(false)),
            self.told(Phase::Spawning, failed(true)),
            self.unwanted(Phase::Spawning, failed(false)),
            self.told(Phase::Looking, missing),
        ];
        steps.extend(resting);
        steps
    }

    fn streaming(self) -> Phase {
        Phase::Streaming {
            url: String::new(),
            heard: self.now,
            probed: self.now,
            probing: false,
            missed: 0,
            pulse: super::Pulse::default(),
        }
    }

    /// A probe whose time is over.
    fn probing() -> Phase {
        Phase::Probing {
            url: String::new(),
            until: Timestamp(0),
            again: None,
        }
    }
}
