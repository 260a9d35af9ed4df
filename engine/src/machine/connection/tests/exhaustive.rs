//! Every input in every state that can be reached, breadth first.
//!
//! Inputs come whether or not anything in flight could have led to them: one that was given up may come late. Time
//! passes from wake-up to wake-up. Two states are one where nothing that the machine looks at tells them apart:
//! times count from now, counts up to where they change nothing any more. What is left out, since it multiplies the
//! states and decides nothing else: heartbeats (`pulse.rs` has them), and the share of failures (`breaker.rs`).

use std::collections::{HashSet, VecDeque};

use recount_projections::breaker::State as Circuit;
use recount_projections::connection::Capabilities;

use super::*;
use crate::policy::Backoff;

/// Bounds that are as small as they can be and still differ.
fn policy() -> ConnectionPolicy {
    ConnectionPolicy {
        backoff: Backoff {
            delay_min: seconds(1),
            delay_max: seconds(2),
        },
        circuit: Backoff {
            delay_min: seconds(3),
            delay_max: seconds(3),
        },
        circuit_failures: 2,
        circuit_failed_percent: 101,
        held_after: seconds(2),
        probe_every: seconds(2),
        suspect_after: seconds(3),
        silence_max: seconds(4),
        silence_answering_max: seconds(6),
        start_timeout: limits::PROBE_PAUSE,
        answer_timeout: limits::PROBE_PAUSE,
        stop_timeout: seconds(1),
        ..ConnectionPolicy::default()
    }
}

/// More states than these mean that something is told apart that is the same.
const STATES_MAX: usize = 100_000;

/// A machine, what the shell has in flight for it, and a clock.
#[derive(Debug, Clone)]
struct Node {
    machine: Machine,
    flight: Flight,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    position: u64,
}

/// Everything that tells one state from another.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    phase: (&'static str, [Option<Duration>; 2], bool, u32),
    wish: (u8, bool, bool, bool),
    state: ConnectionState,
    lasted: Duration,
    failures: u32,
    scheduled: Option<bool>,
    server: Option<(bool, bool)>,
    ready: Option<String>,
    capabilities: Option<Vec<String>>,
    probe_failing: bool,
    gaps: usize,
    counted: Option<u64>,
    circuit: (u8, bool),
    flight: Flight,
    wakes: Option<Duration>,
}

impl Node {
    fn new(target: Target) -> Self {
        let mut node = Self {
            machine: Machine::new(id(), policy(), Connection::default(), Breaker::default()),
            flight: Flight::default(),
            now: Timestamp::from_millis(1_000_000),
            wake_at: None,
            position: 0,
        };
        for event in named(target) {
            node.record(event, Provenance::Live);
        }
        node.settle();
        node
    }

    fn key(&self) -> Key {
        let Machine {
            policy,
            connection,
            breaker,
            wish,
            trying,
            tried,
            asked_for,
            phase,
            counts,
            ..
        } = &self.machine;
        let ahead = |at: &Timestamp| at.since(self.now);
        let ago = |at: &Timestamp| self.now.since(*at);
        let phase = match phase {
            Phase::Resting => ("resting", [None, None], false, 0),
            Phase::Looking => ("looking", [None, None], false, 0),
            Phase::Choosing => ("choosing", [None, None], false, 0),
            Phase::Spawning => ("spawning", [None, None], false, 0),
            Phase::Starting => ("starting", [None, None], false, 0),
            Phase::Probing { until, again, .. } => {
                let again = again.as_ref().map(ahead);
                ("probing", [Some(ahead(until)), again], false, 0)
            }
            Phase::Opening => ("opening", [None, None], false, 0),
            Phase::Streaming {
                heard,
                probed,
                probing,
                missed,
                ..
            } => (
                "streaming",
                [Some(ago(heard)), Some(ago(probed))],
                *probing,
                (*missed).min(limits::PROBES_MISSED_MIN),
            ),
            Phase::Stopping { again } => ("stopping", [again.as_ref().map(ahead), None], false, 0),
        };
        let circuit = match breaker.state {
            Circuit::Closed => (0, false),
            Circuit::HalfOpen => (1, false),
            Circuit::Open { until } => (2, until > self.now),
        };
        Key {
            phase,
            wish: (*wish as u8, *trying, *tried, *asked_for),
            state: connection.state,
            lasted: ago(&connection.since).min(policy.held_after),
            failures: connection.failures.min(policy.circuit_failures),
            scheduled: connection.next_try.map(|at| at > self.now),
            server: connection
                .server
                .as_ref()
                .map(|server| (server.process.is_some(), server.stopping)),
            ready: connection.ready.as_ref().map(|ready| ready.version.clone()),
            capabilities: connection.capabilities.as_ref().map(
                |Capabilities { version, words }| {
                    [version.clone()].into_iter().chain(words.clone()).collect()
                },
            ),
            probe_failing: connection.probe_failing.is_some(),
            gaps: connection.gaps.len(),
            counted: counts.get("a").copied(),
            circuit,
            flight: self.flight.clone(),
            // A wake-up for a try is in `scheduled` or `circuit`.
            wakes: self
                .wake_at
                .as_ref()
                .map(ahead)
                .filter(|_| phase.0 != "resting"),
        }
    }

    fn record(&mut self, event: Event, provenance: Provenance) {
        self.position += 1;
        let (seq, position) = (Seq(self.position), Position(self.position));
        let new = NewEvent::live(event, self.now).known(provenance);
        let recorded = new.recorded(StreamId::Connection(id()), seq, position);
        self.machine.applied(&recorded);
    }

    fn take(&mut self, step: Step<Effect>) {
        for new in step.events {
            self.may_happen(&new.event);
            self.record(new.event, new.provenance);
        }
        for effect in &step.effects {
            self.may_be_done(effect);
            self.flight.starts(effect);
        }
    }

    fn settle(&mut self) {
        for _ in 0..20 {
            let step = self.machine.advance(self.now);
            if step.is_quiet() {
                self.wake_at = step.wake_at;
                self.may_stand();
                return;
            }
            self.take(step);
        }
        panic!("it never comes to rest");
    }

    fn when(&self, input: &Input) -> Self {
        let mut next = self.clone();
        next.flight.lands(input);
        let step = next.machine.handle(input.clone(), next.now);
        next.take(step);
        next.settle();
        next
    }

    /// The engine dies, or the task panics, and another one opens the log.
    fn restarted(&self) -> Self {
        let mut next = self.clone();
        let Machine {
            policy,
            connection,
            breaker,
            ..
        } = next.machine;
        next.machine = Machine::new(id(), policy, connection, breaker);
        next.flight = Flight::default();
        next.settle();
        next
    }

    // ---- what may be

    /// The moves that there are, and from where: nothing is recorded that is not so.
    fn may_happen(&self, event: &Event) {
        use ConnectionState::{Connected, Connecting, Disconnected};
        let Connection {
            state,
            server,
            ready,
            probe_failing,
            gaps,
            capabilities,
            ..
        } = &self.machine.connection;
        let circuit = self.machine.breaker.state;
        let may = match event {
            Event::ConnectionChanged { from, to } => {
                from == state
                    && matches!(
                        (from, to),
                        (Disconnected, Connecting)
                            | (Connecting, Connected | Disconnected)
                            | (Connected, Disconnected)
                    )
            }
            Event::ServerStartDecided { .. } => server.is_none() && *state == Connecting,
            Event::ServerSpawned { .. } => server
                .as_ref()
                .is_some_and(|server| server.process.is_none()),
            Event::ServerReady { .. } | Event::ConnectFailed { .. } => *state == Connecting,
            Event::ServerStopDecided { .. } => {
                server.as_ref().is_some_and(|server| !server.stopping)
            }
            Event::ServerExited { .. } => server.is_some(),
            Event::StreamOpened => *state == Connecting && ready.is_some(),
            Event::StreamLost { .. } => *state == Connected,
            Event::ProbeFailed { .. } => probe_failing.is_none() && *state == Connected,
            Event::ProbeRecovered => probe_failing.is_some(),
            Event::GapFound { .. } => true,
            Event::GapFilled { agent_session } => gaps.contains_key(agent_session),
            Event::CapabilitiesFound {
                capabilities: found,
            } => {
                let known = capabilities.as_ref().map(|known| &known.words);
                *state == Connected && known != Some(found)
            }
            Event::ReconnectScheduled { .. } => {
                *state == Disconnected && circuit == Circuit::Closed
            }
            Event::CircuitOpened { .. } => {
                *state == Disconnected && matches!(circuit, Circuit::Closed | Circuit::HalfOpen)
            }
            Event::CircuitHalfOpened => {
                *state == Disconnected && matches!(circuit, Circuit::Open { .. })
            }
            Event::CircuitClosed => *state == Connected && circuit == Circuit::HalfOpen,
            _ => false,
        };
        assert!(may, "{event:?} in {self:#?}");
    }

    /// Nothing is done but what the log says is to be done.
    fn may_be_done(&self, effect: &Effect) {
        let Connection {
            state,
            server,
            ready,
            target,
            ..
        } = &self.machine.connection;
        let ours = matches!(target, Some(Target::Managed { .. }));
        let may = match effect {
            Effect::Adopt(known) => server.as_ref() == Some(known) && !known.stopping,
            Effect::ChoosePort | Effect::Forget { .. } => ours && server.is_none(),
            Effect::Spawn { mark, port } => server.as_ref().is_some_and(|server| {
                (&server.mark, server.port, server.process) == (mark, *port, None)
            }),
            Effect::AwaitReady { mark } => server
                .as_ref()
                .is_some_and(|server| server.mark == *mark && server.process.is_some()),
            Effect::Probe { .. } => *state != ConnectionState::Disconnected,
            Effect::OpenStream { url } => {
                *state == ConnectionState::Connecting
                    && ready.as_ref().is_some_and(|ready| ready.url == *url)
            }
            Effect::AskCapabilities { .. } => *state == ConnectionState::Connected,
            Effect::Close => true,
            Effect::StopServer(known) => ours && server.as_ref() == Some(known) && known.stopping,
        };
        assert!(may, "{effect:?} in {self:#?}");
    }

    /// Whatever is waited for will come: it is in flight, or there is a time to wake.
    fn may_stand(&self) {
        let Flight { doing, probing, .. } = &self.flight;
        let machine = &self.machine;
        let doing = doing.as_ref();
        let stands = match &machine.phase {
            Phase::Resting => {
                let stopping = machine
                    .connection
                    .server
                    .as_ref()
                    .is_some_and(|s| s.stopping);
                doing.is_none() && !stopping && (!machine.is_wanted() || self.wake_at.is_some())
            }
            Phase::Looking => doing == Some(&Doing::Adopting),
            Phase::Choosing => doing == Some(&Doing::Choosing),
            Phase::Spawning => doing == Some(&Doing::Spawning),
            Phase::Starting => doing == Some(&Doing::Starting),
            Phase::Probing { again: None, .. } => doing.is_none() && *probing,
            Phase::Opening => doing == Some(&Doing::Opening),
            Phase::Streaming { probing: asked, .. } => {
                doing.is_none() && self.wake_at.is_some() && (!asked || *probing)
            }
            Phase::Stopping { again: None } => doing == Some(&Doing::Stopping),
            Phase::Probing { again, .. } | Phase::Stopping { again } => {
                doing.is_none() && self.wake_at == *again
            }
        };
        assert!(stands, "{self:#?}");
        let connected = machine.connection.state == ConnectionState::Connected;
        assert_eq!(machine.is_streaming(), connected, "{self:#?}");
    }
}

/// What can happen to a link and to a server of our own.
fn to_the_link() -> Vec<Input> {
    let gone = |port_taken| Input::Exited {
        how: "signal: 9".to_owned(),
        port_taken,
    };
    let mut inputs = vec![
        Input::Found(PROCESS),
        Input::Missing {
            how: "gone".to_owned(),
        },
        chosen(),
        Input::Spawned(PROCESS),
        listening(),
        Input::NotReady {
            reason: "late".to_owned(),
        },
        Input::StopFailed,
        passed(),
        Input::ProbePassed {
            version: "0".to_owned(),
            refused: Some("old".to_owned()),
        },
        capable(),
        Input::StreamOpened,
        Input::StreamEnded {
            reason: "eof".to_owned(),
        },
        Input::Heard,
        Input::Suspected,
        Input::Woke,
    ];
    for flag in [false, true] {
        inputs.extend([
            Input::Wanted { now: flag },
            Input::Unwanted { stop: flag },
            Input::SpawnFailed(failure(flag)),
            gone(flag),
            Input::ProbeFailed(failure(flag)),
            Input::NotCapable(failure(flag)),
            Input::StreamFailed(failure(flag)),
        ]);
    }
    inputs
}

/// What goes on over a link that stands: it multiplies the states, and does nothing to a server.
fn over_the_link() -> Vec<Input> {
    let agent_session = || "a".to_owned();
    let counted = |number| Input::Counted {
        agent_session: agent_session(),
        number,
        frame: None,
    };
    vec![
        counted(1),
        counted(3),
        Input::GapFilled {
            agent_session: agent_session(),
        },
        Input::Detached {
            agent_session: agent_session(),
        },
        Input::ProbePassed {
            version: "2".to_owned(),
            refused: None,
        },
    ]
}

/// Goes through all states from this one on, and counts them.
fn explore(first: Node, inputs: &[Input]) -> usize {
    let mut known = HashSet::from([first.key()]);
    let mut ahead = VecDeque::from([first]);
    while let Some(node) = ahead.pop_front() {
        let answered = inputs.iter().map(|input| node.when(input));
        let woken = node.wake_at.map(|at| {
            let now = at.max(node.now);
            Node {
                now,
                ..node.clone()
            }
            .when(&Input::Woke)
        });
        for next in answered.chain(woken).chain([node.restarted()]) {
            if known.insert(next.key()) {
                ahead.push_back(next);
            }
        }
        assert!(known.len() < STATES_MAX, "the states do not end: {node:#?}");
    }
    known.len()
}

#[test]
fn every_input_in_every_state_leads_where_it_may() {
    let to_the_link = to_the_link();
    let all = [to_the_link.as_slice(), &over_the_link()].concat();
    let managed = explore(Node::new(managed()), &to_the_link);
    let url = explore(Node::new(url()), &all);
    println!("{managed} states with a server of our own, {url} with somebody else's");
    // Fewer mean that something is not reached any more.
    assert!(managed > 4_000, "{managed}");
    assert!(url > 5_000, "{url}");
}
