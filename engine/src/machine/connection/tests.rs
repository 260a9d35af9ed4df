//! What a connection does, told as: given these events, when this happens, then that.

mod exhaustive;

use std::time::Duration;

use recount_projections::connection::{Process, Server};
use recount_store::{FrameNumber, NewEvent, Position, Provenance, Seq, StreamId};

use super::*;
use crate::limits;
use crate::machine::backoff;

const URL: &str = "http://127.0.0.1:4101";
const PROCESS: Process = Process {
    pid: 7,
    started: 70,
};

/// A machine with its log and its clock.
struct World {
    machine: Machine,
    position: u64,
    now: Timestamp,
    wake_at: Option<Timestamp>,
    events: Vec<Event>,
    effects: Vec<Effect>,
}

fn id() -> ConnectionId {
    ConnectionId::from_bytes([1; 10])
}

fn given(events: impl IntoIterator<Item = Event>) -> World {
    let mut world = World {
        machine: Machine::new(
            id(),
            ConnectionPolicy::default(),
            Connection::default(),
            Breaker::default(),
        ),
        position: 0,
        now: Timestamp::from_millis(1_000_000),
        wake_at: None,
        events: Vec::new(),
        effects: Vec::new(),
    };
    for event in events {
        world.record(event, Provenance::Live);
    }
    world.settle();
    world
}

impl World {
    fn record(&mut self, event: Event, provenance: Provenance) {
        self.position += 1;
        let (seq, position) = (Seq(self.position), Position(self.position));
        let new = NewEvent::live(event, self.now).known(provenance);
        let recorded = new.recorded(StreamId::Connection(id()), seq, position);
        self.machine.applied(&recorded);
    }

    fn take(&mut self, step: Step<Effect>) {
        for (n, new) in step.events.into_iter().enumerate() {
            if let Cause::Sibling(before) = new.cause {
                assert!(before < n, "a cause comes before what it causes");
            }
            self.events.push(new.event.clone());
            self.record(new.event, new.provenance);
        }
        self.effects.extend(step.effects);
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let step = self.machine.advance(self.now);
            if step.is_quiet() {
                self.wake_at = step.wake_at;
                return;
            }
            self.take(step);
        }
        panic!("it never comes to rest");
    }

    fn when(mut self, input: Input) -> Self {
        self.events.clear();
        self.effects.clear();
        let step = self.machine.handle(input, self.now);
        self.take(step);
        self.settle();
        self
    }

    fn after(mut self, passed: Duration) -> Self {
        self.now = self.now.plus(passed);
        self.when(Input::Woke)
    }

    #[track_caller]
    fn then(self, events: &[Event], effects: &[Effect]) -> Self {
        assert_eq!(self.events, events);
        assert_eq!(self.effects, effects);
        self
    }

    /// A stream to a server of our own, open since now.
    fn connected() -> Self {
        let connecting = given(named(managed())).when(Input::Wanted { now: false });
        connecting
            .when(chosen())
            .when(Input::Spawned(PROCESS))
            .when(listening())
            .when(passed())
            .when(Input::StreamOpened)
            .when(capable())
    }

    fn delay(&self, attempt: u32) -> Timestamp {
        let policy = ConnectionPolicy::default();
        let delay = backoff::delay(&policy.backoff, self.machine.seed, attempt);
        self.now.plus(delay)
    }

    fn circuit(&self, opening: u32) -> Timestamp {
        let policy = ConnectionPolicy::default();
        let delay = backoff::delay(&policy.circuit, self.machine.seed, opening);
        self.now.plus(delay)
    }
}

// ---- words

fn managed() -> Target {
    Target::Managed {
        program: None,
        directory: "/srv/project".to_owned(),
    }
}

fn named(target: Target) -> [Event; 1] {
    let agent = "opencode".to_owned();
    [Event::ConnectionOpened { agent, target }]
}

fn url() -> Target {
    Target::Url(URL.to_owned())
}

fn chosen() -> Input {
    Input::PortChosen {
        mark: "m".to_owned(),
        port: 4101,
    }
}

fn listening() -> Input {
    Input::Listening {
        url: URL.to_owned(),
    }
}

fn passed() -> Input {
    Input::ProbePassed {
        version: "1".to_owned(),
        refused: None,
    }
}

fn capable() -> Input {
    Input::Capable {
        capabilities: vec!["fork".to_owned()],
    }
}

fn found(capabilities: &[&str]) -> Event {
    Event::CapabilitiesFound {
        capabilities: capabilities.iter().map(|&word| word.to_owned()).collect(),
    }
}

fn ask_capabilities() -> Effect {
    Effect::AskCapabilities {
        url: URL.to_owned(),
    }
}

fn failure(lasting: bool) -> Failure {
    Failure {
        reason: "no".to_owned(),
        lasting,
    }
}

fn probe_failed() -> Event {
    Event::ProbeFailed {
        reason: "no".to_owned(),
    }
}

fn exited() -> Input {
    Input::Exited {
        how: "signal: 9".to_owned(),
        port_taken: false,
    }
}

fn changed(from: ConnectionState, to: ConnectionState) -> Event {
    Event::ConnectionChanged { from, to }
}

fn connecting() -> Event {
    changed(ConnectionState::Disconnected, ConnectionState::Connecting)
}

fn gave_up() -> Event {
    changed(ConnectionState::Connecting, ConnectionState::Disconnected)
}

fn disconnected() -> Event {
    changed(ConnectionState::Connected, ConnectionState::Disconnected)
}

fn start_decided() -> Event {
    Event::ServerStartDecided {
        mark: "m".to_owned(),
        port: 4101,
    }
}

fn server_spawned() -> Event {
    let Process { pid, started } = PROCESS;
    Event::ServerSpawned { pid, started }
}

fn server_ready() -> Event {
    Event::ServerReady {
        url: URL.to_owned(),
        version: "1".to_owned(),
    }
}

fn server_exited(how: &str) -> Event {
    Event::ServerExited {
        how: how.to_owned(),
    }
}

fn stream_lost(reason: &str) -> Event {
    Event::StreamLost {
        reason: reason.to_owned(),
    }
}

fn connect_failed(attempt: u32, reason: &str) -> Event {
    Event::ConnectFailed {
        attempt,
        reason: reason.to_owned(),
    }
}

fn server(process: Option<Process>, position: u64) -> Server {
    Server {
        mark: "m".to_owned(),
        port: 4101,
        process,
        stopping: false,
        position: Position(position),
    }
}

fn forget() -> Effect {
    Effect::Forget {
        mark: "m".to_owned(),
    }
}

fn probe() -> Effect {
    Effect::Probe {
        url: URL.to_owned(),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// ---- to be connected

#[test]
fn a_connection_that_nobody_wants_is_left_alone() {
    let world = given(named(managed()));
    assert_eq!(world.wake_at, None);
    world.then(&[], &[]);
}

#[test]
fn a_server_of_our_own_is_started_and_its_stream_opened() {
    given(named(managed()))
        .when(Input::Wanted { now: false })
        .then(&[connecting()], &[Effect::ChoosePort])
        .when(chosen())
        .then(
            &[start_decided()],
            &[Effect::Spawn {
                mark: "m".to_owned(),
                port: 4101,
            }],
        )
        .when(Input::Spawned(PROCESS))
        .then(
            &[server_spawned()],
            &[Effect::AwaitReady {
                mark: "m".to_owned(),
            }],
        )
        .when(listening())
        .then(&[], &[probe()])
        .when(passed())
        .then(
            &[server_ready()],
            &[Effect::OpenStream {
                url: URL.to_owned(),
            }],
        )
        .when(Input::StreamOpened)
        .then(
            &[
                Event::StreamOpened,
                changed(ConnectionState::Connecting, ConnectionState::Connected),
            ],
            &[ask_capabilities()],
        );
}

#[test]
fn a_server_of_somebody_else_is_asked_and_never_started() {
    given(named(url()))
        .when(Input::Wanted { now: false })
        .then(&[connecting()], &[probe()])
        .when(passed())
        .then(
            &[server_ready()],
            &[Effect::OpenStream {
                url: URL.to_owned(),
            }],
        );
}

// ---- failing to be

#[test]
fn an_address_where_nothing_listens_opens_the_circuit_and_is_probed_again() {
    let mut world = given(named(url())).when(Input::Wanted { now: false });
    for attempt in 1..5 {
        world = world.when(Input::ProbeFailed(failure(false)));
        let at = world.delay(attempt + 1);
        let scheduled = Event::ReconnectScheduled {
            attempt: attempt + 1,
            at,
        };
        assert_eq!(world.wake_at, Some(at));
        world = world.then(&[connect_failed(attempt, "no"), gave_up(), scheduled], &[]);
        let passed = at.since(world.now);
        world = world.after(passed).then(&[connecting()], &[probe()]);
    }
    let world = world.when(Input::ProbeFailed(failure(false)));
    let until = world.circuit(1);
    let opened = Event::CircuitOpened { failures: 5, until };
    assert_eq!(world.wake_at, Some(until));
    let waited = until.since(world.now);
    let world = world
        .then(&[connect_failed(5, "no"), gave_up(), opened], &[])
        .when(Input::Wanted { now: true })
        .then(&[], &[])
        .after(waited)
        .then(&[Event::CircuitHalfOpened, connecting()], &[probe()])
        .when(Input::ProbeFailed(failure(false)));
    let until = world.circuit(2);
    let opened = Event::CircuitOpened { failures: 6, until };
    let waited = until.since(world.now);
    world
        .then(&[connect_failed(6, "no"), gave_up(), opened], &[])
        .after(waited)
        .when(passed())
        .when(Input::StreamOpened)
        .then(
            &[
                Event::StreamOpened,
                changed(ConnectionState::Connecting, ConnectionState::Connected),
                Event::CircuitClosed,
            ],
            &[ask_capabilities()],
        );
}

#[test]
fn an_open_circuit_survives_a_restart_unless_a_person_waits() {
    let history = || {
        let [named] = named(url());
        [
            named,
            connect_failed(5, "no"),
            Event::CircuitOpened {
                failures: 5,
                until: Timestamp::from_millis(1_005_000),
            },
        ]
    };
    let waiting = given(history()).when(Input::Wanted { now: false });
    assert_eq!(waiting.wake_at, Some(Timestamp::from_millis(1_005_000)));
    waiting.then(&[], &[]);
    given(history())
        .when(Input::Wanted { now: true })
        .then(&[Event::CircuitHalfOpened, connecting()], &[probe()]);
}

#[test]
fn a_program_that_is_not_there_opens_the_circuit_at_once() {
    let world = given(named(managed()))
        .when(Input::Wanted { now: false })
        .when(chosen())
        .when(Input::SpawnFailed(failure(true)));
    let until = world.circuit(1);
    world.then(
        &[
            server_exited("it did not start"),
            connect_failed(1, "no"),
            gave_up(),
            Event::CircuitOpened { failures: 1, until },
        ],
        &[forget()],
    );
}

#[test]
fn a_version_that_must_not_be_used_is_stopped_and_not_tried_again_soon() {
    let world = given(named(managed()))
        .when(Input::Wanted { now: false })
        .when(chosen())
        .when(Input::Spawned(PROCESS))
        .when(listening())
        .when(Input::ProbePassed {
            version: "0".to_owned(),
            refused: Some("too old".to_owned()),
        });
    let until = world.circuit(1);
    world.then(
        &[
            Event::ServerStopDecided {
                reason: "too old".to_owned(),
            },
            connect_failed(1, "too old"),
            gave_up(),
            Event::CircuitOpened { failures: 1, until },
        ],
        &[
            Effect::Close,
            Effect::StopServer(Server {
                stopping: true,
                ..server(Some(PROCESS), 5)
            }),
        ],
    );
}

#[test]
fn a_taken_port_costs_a_try_and_no_long_wait() {
    let mut world = given(named(managed())).when(Input::Wanted { now: false });
    for attempt in 1..4 {
        world = world
            .when(chosen())
            .when(Input::Spawned(PROCESS))
            .when(Input::Exited {
                how: "exit status: 1".to_owned(),
                port_taken: true,
            });
        let at = world.delay(1);
        let scheduled = Event::ReconnectScheduled {
            attempt: attempt + 1,
            at,
        };
        let reason = "the server ended: exit status: 1";
        world = world.then(
            &[
                server_exited("exit status: 1"),
                connect_failed(attempt, reason),
                gave_up(),
                scheduled,
            ],
            &[forget(), Effect::Close],
        );
        let wait = at.since(world.now);
        world = world
            .after(wait)
            .then(&[connecting()], &[Effect::ChoosePort]);
    }
}

#[test]
fn a_server_that_lives_and_never_answers_is_stopped() {
    let world = given(named(managed()))
        .when(Input::Wanted { now: false })
        .when(chosen())
        .when(Input::Spawned(PROCESS))
        .when(listening())
        .when(Input::ProbeFailed(failure(false)))
        .then(&[], &[])
        .after(Duration::from_millis(250))
        .then(&[], &[probe()])
        .after(seconds(10))
        .when(Input::ProbeFailed(failure(false)));
    let at = world.delay(2);
    world
        .then(
            &[
                Event::ServerStopDecided {
                    reason: "no".to_owned(),
                },
                connect_failed(1, "no"),
                gave_up(),
                Event::ReconnectScheduled { attempt: 2, at },
            ],
            &[
                Effect::Close,
                Effect::StopServer(Server {
                    stopping: true,
                    ..server(Some(PROCESS), 5)
                }),
            ],
        )
        .after(seconds(1))
        .then(&[], &[])
        .when(exited())
        .then(
            &[server_exited("signal: 9"), connecting()],
            &[forget(), Effect::ChoosePort],
        );
}

// ---- what the server can do

/// The stream ends, is opened again at a server of this version, and this is to be done then.
#[track_caller]
fn reopened(world: World, version: &str, effects: &[Effect]) -> World {
    let world = world
        .after(seconds(10))
        .when(passed())
        .when(Input::StreamEnded {
            reason: "eof".to_owned(),
        })
        .after(seconds(1))
        .when(Input::Found(PROCESS))
        .when(Input::ProbePassed {
            version: version.to_owned(),
            refused: None,
        })
        .when(Input::StreamOpened);
    assert_eq!(world.effects, effects);
    world
}

#[test]
fn a_version_is_asked_once_what_it_can_do() {
    let world = World::connected();
    assert_eq!(world.events, [found(&["fork"])]);
    let world = reopened(world, "1", &[]);
    // Not asked, and told all the same.
    let world = world.when(capable()).then(&[], &[]);
    reopened(world, "2", &[ask_capabilities()])
        .when(capable())
        .then(&[found(&["fork"])], &[]);
}

#[test]
fn an_answer_that_is_lost_is_asked_for_with_the_next_stream_and_none_at_all_is_one() {
    let world = reopened(World::connected(), "2", &[ask_capabilities()])
        .when(Input::NotCapable(failure(false)))
        .then(&[], &[]);
    let world = reopened(world, "2", &[ask_capabilities()])
        .when(Input::NotCapable(failure(true)))
        .then(&[found(&[])], &[]);
    reopened(world, "2", &[]);
}

// ---- to be connected no more

#[test]
fn a_stream_that_held_is_opened_again_promptly_at_the_same_server() {
    let world = World::connected()
        .after(seconds(10))
        .when(passed())
        .when(Input::StreamEnded {
            reason: "eof".to_owned(),
        });
    let at = world.delay(1);
    let wait = at.since(world.now);
    assert!(wait <= Duration::from_millis(125));
    world
        .then(
            &[
                stream_lost("eof"),
                disconnected(),
                Event::ReconnectScheduled { attempt: 1, at },
            ],
            &[Effect::Close],
        )
        .after(wait)
        .then(&[connecting()], &[Effect::Adopt(server(Some(PROCESS), 4))])
        .when(Input::Found(PROCESS))
        .then(&[], &[probe()])
        .when(passed())
        .then(
            &[],
            &[Effect::OpenStream {
                url: URL.to_owned(),
            }],
        );
}

#[test]
fn a_stream_that_ends_right_after_it_opened_backs_off() {
    let mut world = World::connected();
    for failures in 1..5 {
        world = world.when(Input::StreamEnded {
            reason: "eof".to_owned(),
        });
        let attempt = failures + 1;
        let at = world.delay(attempt);
        let scheduled = Event::ReconnectScheduled { attempt, at };
        let wait = at.since(world.now);
        world = world
            .then(
                &[stream_lost("eof"), disconnected(), scheduled],
                &[Effect::Close],
            )
            .after(wait)
            .when(Input::Found(PROCESS))
            .when(passed())
            .when(Input::StreamOpened);
    }
    let world = world.when(Input::StreamEnded {
        reason: "eof".to_owned(),
    });
    let until = world.circuit(1);
    let opened = Event::CircuitOpened { failures: 5, until };
    world.then(
        &[stream_lost("eof"), disconnected(), opened],
        &[Effect::Close],
    );
}

#[test]
fn a_connection_that_comes_and_goes_opens_the_circuit_though_each_had_held() {
    let eof = || Input::StreamEnded {
        reason: "eof".to_owned(),
    };
    let mut world = World::connected();
    for _ in 1..5 {
        world = world.after(seconds(10)).when(passed()).when(eof());
        let at = world.delay(1);
        let wait = at.since(world.now);
        world = world
            .then(
                &[
                    stream_lost("eof"),
                    disconnected(),
                    Event::ReconnectScheduled { attempt: 1, at },
                ],
                &[Effect::Close],
            )
            .after(wait)
            .when(Input::Found(PROCESS))
            .when(passed())
            .when(Input::StreamOpened);
    }
    let world = world.after(seconds(10)).when(passed()).when(eof());
    let until = world.circuit(1);
    let opened = Event::CircuitOpened { failures: 0, until };
    let wait = until.since(world.now);
    let world = world
        .then(
            &[stream_lost("eof"), disconnected(), opened],
            &[Effect::Close],
        )
        .after(wait)
        .when(Input::Found(PROCESS))
        .when(passed())
        .when(Input::StreamOpened)
        .after(seconds(10))
        .when(passed())
        .when(eof());
    // What led to the circuit is not held against it once more.
    let at = world.delay(1);
    let scheduled = Event::ReconnectScheduled { attempt: 1, at };
    world.then(
        &[stream_lost("eof"), disconnected(), scheduled],
        &[Effect::Close],
    );
}

#[test]
fn a_server_that_dies_is_followed_by_another() {
    let world = World::connected().after(seconds(10)).when(exited());
    let at = world.delay(1);
    let wait = at.since(world.now);
    world
        .then(
            &[
                server_exited("signal: 9"),
                stream_lost("the server ended: signal: 9"),
                disconnected(),
                Event::ReconnectScheduled { attempt: 1, at },
            ],
            &[forget(), Effect::Close],
        )
        .after(wait)
        .then(&[connecting()], &[Effect::ChoosePort]);
}

#[test]
fn a_server_found_gone_is_followed_by_another_in_the_same_try() {
    World::connected()
        .when(Input::StreamEnded {
            reason: "eof".to_owned(),
        })
        .after(seconds(1))
        .when(Input::Missing {
            how: "not running any more".to_owned(),
        })
        .then(
            &[server_exited("not running any more")],
            &[forget(), Effect::ChoosePort],
        );
}

#[test]
fn silence_is_suspected_and_given_up_where_probes_fail_too() {
    let world = World::connected()
        .after(seconds(5))
        .then(&[], &[probe()])
        .when(Input::ProbeFailed(failure(false)))
        .then(&[], &[])
        .after(seconds(5))
        .then(&[], &[probe()])
        .when(Input::ProbeFailed(failure(false)))
        .then(&[probe_failed()], &[])
        .after(seconds(30));
    let at = world.delay(1);
    world.then(
        &[
            stream_lost("nothing came for 40 s, nor to probes"),
            disconnected(),
            Event::ReconnectScheduled { attempt: 1, at },
        ],
        &[Effect::Close],
    );
}

#[test]
fn silence_is_borne_longer_where_probes_pass_and_not_for_ever() {
    let mut world = World::connected();
    for _ in 0..11 {
        world = world
            .after(seconds(5))
            .then(&[], &[probe()])
            .when(passed())
            .then(&[], &[]);
    }
    let world = world.after(seconds(5));
    let at = world.delay(1);
    world.then(
        &[
            stream_lost("nothing came for 60 s"),
            disconnected(),
            Event::ReconnectScheduled { attempt: 1, at },
        ],
        &[Effect::Close],
    );
}

#[test]
fn the_agents_own_heartbeat_says_how_long_a_silence_is() {
    let mut world = World::connected();
    for _ in 0..4 {
        world = world.after(seconds(1)).when(Input::Beat).then(&[], &[]);
    }
    let world = world
        .after(seconds(1))
        .then(&[], &[probe()])
        .when(passed())
        .after(Duration::from_millis(1_500))
        .then(&[], &[probe()])
        .when(Input::ProbeFailed(failure(false)))
        .after(Duration::from_millis(500))
        .then(&[], &[probe()])
        .when(Input::ProbeFailed(failure(false)))
        .then(&[probe_failed()], &[])
        .after(seconds(1));
    // The next try's number is 2, since this connection had not held yet.
    let at = world.delay(2);
    world.then(
        &[
            stream_lost("nothing came for 4 s, nor to probes"),
            disconnected(),
            Event::ReconnectScheduled { attempt: 2, at },
        ],
        &[Effect::Close],
    );
}

#[test]
fn only_changes_of_health_are_events() {
    World::connected()
        .when(Input::Suspected)
        .then(&[], &[probe()])
        .when(Input::Suspected)
        .then(&[], &[])
        .when(Input::ProbeFailed(failure(false)))
        .when(Input::Suspected)
        .then(&[], &[probe()])
        .when(Input::ProbeFailed(failure(false)))
        .then(&[probe_failed()], &[])
        .when(Input::Suspected)
        .when(Input::ProbeFailed(failure(false)))
        .then(&[], &[])
        .when(Input::Suspected)
        .when(passed())
        .then(&[Event::ProbeRecovered], &[])
        .when(Input::Suspected)
        .when(passed())
        .then(&[], &[]);
}

#[test]
fn a_busy_server_misses_a_probe_now_and_then() {
    let mut world = World::connected();
    for _ in 0..3 {
        for answer in [Input::ProbeFailed(failure(false)), passed()] {
            world = world.when(Input::Suspected).then(&[], &[probe()]);
            world = world.when(answer).then(&[], &[]);
        }
    }
}

// ---- after a death of the engine

#[test]
fn what_a_dead_engine_left_open_is_closed_before_anything_else() {
    let [named] = named(managed());
    let history = [
        named,
        connecting(),
        start_decided(),
        server_spawned(),
        server_ready(),
        Event::StreamOpened,
        changed(ConnectionState::Connecting, ConnectionState::Connected),
    ];
    given(history)
        .then(&[stream_lost("the engine ended"), disconnected()], &[])
        .when(Input::Wanted { now: false })
        .then(&[connecting()], &[Effect::Adopt(server(Some(PROCESS), 4))])
        .when(Input::Found(PROCESS))
        .then(&[], &[probe()]);
}

#[test]
fn a_server_whose_start_was_not_seen_is_found_by_its_mark() {
    let [named] = named(managed());
    let history = || [named.clone(), connecting(), start_decided()];
    let looking = || {
        given(history())
            .then(&[gave_up()], &[])
            .when(Input::Wanted { now: false })
            .then(&[connecting()], &[Effect::Adopt(server(None, 3))])
    };
    looking()
        .when(Input::Found(PROCESS))
        .then(&[server_spawned()], &[probe()]);
    looking()
        .when(Input::Missing {
            how: "no process carries its mark".to_owned(),
        })
        .then(
            &[server_exited("no process carries its mark")],
            &[forget(), Effect::ChoosePort],
        );
}

#[test]
fn a_stop_that_was_decided_is_done_again_after_a_death() {
    let [named] = named(managed());
    let history = [
        named,
        start_decided(),
        server_spawned(),
        Event::ServerStopDecided {
            reason: "no".to_owned(),
        },
    ];
    given(history)
        .then(
            &[],
            &[Effect::StopServer(Server {
                stopping: true,
                ..server(Some(PROCESS), 4)
            })],
        )
        .when(Input::StopFailed)
        .then(&[], &[])
        .after(seconds(3))
        .then(
            &[],
            &[Effect::StopServer(Server {
                stopping: true,
                ..server(Some(PROCESS), 4)
            })],
        )
        .when(exited())
        .then(&[server_exited("signal: 9")], &[forget()]);
}

// ---- not wanted any more

#[test]
fn a_server_of_our_own_is_stopped_or_kept_when_nobody_wants_it() {
    let lost = || stream_lost("it is not wanted any more");
    World::connected()
        .when(Input::Unwanted { stop: false })
        .then(&[lost(), disconnected()], &[Effect::Close]);
    let world = World::connected().when(Input::Unwanted { stop: true });
    assert!(!world.machine.is_at_rest());
    let world = world
        .then(
            &[
                lost(),
                disconnected(),
                Event::ServerStopDecided {
                    reason: "it is not wanted any more".to_owned(),
                },
            ],
            &[
                Effect::Close,
                Effect::StopServer(Server {
                    stopping: true,
                    ..server(Some(PROCESS), 11)
                }),
            ],
        )
        .when(exited())
        .then(&[server_exited("signal: 9")], &[forget()]);
    assert!(world.machine.is_at_rest());
}

#[test]
fn a_start_that_is_not_wanted_any_more_is_seen_to_its_end() {
    let world = given(named(managed()))
        .when(Input::Wanted { now: false })
        .when(chosen())
        .when(Input::Unwanted { stop: true })
        .then(&[], &[])
        .when(Input::Spawned(PROCESS));
    assert!(world.events.contains(&server_spawned()));
    assert!(matches!(
        world.effects.as_slice(),
        [Effect::Close, Effect::StopServer(_)]
    ));
}

// ---- gaps

#[test]
fn what_the_agent_counts_was_heard_and_a_gap_names_its_frame() {
    let counted = |number| Input::Counted {
        agent_session: "a".to_owned(),
        number,
        frame: Some(FrameNumber(number)),
    };
    let much_of_it = ConnectionPolicy::default().silence_answering_max * 2 / 3;
    let mut world = World::connected()
        .after(much_of_it)
        .when(counted(4))
        .after(much_of_it)
        .then(&[], &[]);
    let step = world.machine.handle(counted(6), world.now);
    let frames: Vec<_> = step.events.iter().map(|event| event.frame).collect();
    assert_eq!(frames, [Some(FrameNumber(6))]);
}

#[test]
fn a_number_that_is_too_high_is_a_gap_until_it_was_filled() {
    let counted = |number| Input::Counted {
        agent_session: "a".to_owned(),
        number,
        frame: Some(FrameNumber(number)),
    };
    let filled = || Input::GapFilled {
        agent_session: "a".to_owned(),
    };
    World::connected()
        .when(counted(4))
        .then(&[], &[])
        .when(counted(5))
        .then(&[], &[])
        .when(counted(8))
        .then(
            &[Event::GapFound {
                agent_session: "a".to_owned(),
                from: 6,
                to: 8,
            }],
            &[],
        )
        .when(counted(7))
        .when(counted(9))
        .then(&[], &[])
        .when(filled())
        .then(
            &[Event::GapFilled {
                agent_session: "a".to_owned(),
            }],
            &[],
        )
        .when(filled())
        .then(&[], &[]);
}

// ---- whatever happens

/// A generator that is good enough to wander about (the finish of `SplitMix64`).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn input(&mut self) -> Input {
        let session = "a".to_owned();
        match self.below(24) {
            0 => Input::Wanted {
                now: self.below(2) == 0,
            },
            1 => Input::Unwanted {
                stop: self.below(2) == 0,
            },
            2 => Input::Found(PROCESS),
            3 => Input::Missing {
                how: "gone".to_owned(),
            },
            4 | 5 => chosen(),
            6 | 7 => Input::Spawned(PROCESS),
            8 => Input::SpawnFailed(failure(self.below(2) == 0)),
            9 => listening(),
            10 => Input::NotReady {
                reason: "late".to_owned(),
            },
            11 => exited(),
            12 => Input::StopFailed,
            13 => passed(),
            14 => Input::ProbePassed {
                version: "0".to_owned(),
                refused: Some("old".to_owned()),
            },
            15 => Input::ProbeFailed(failure(self.below(2) == 0)),
            16 | 17 => Input::StreamOpened,
            18 => Input::StreamFailed(failure(false)),
            19 => Input::StreamEnded {
                reason: "eof".to_owned(),
            },
            20 => Input::Counted {
                agent_session: session,
                number: self.below(9),
                frame: None,
            },
            21 => Input::Beat,
            22 => match self.below(3) {
                0 => capable(),
                lasting => Input::NotCapable(failure(lasting == 1)),
            },
            _ => Input::GapFilled {
                agent_session: session,
            },
        }
    }
}

/// What the shell has in flight, as its effects and inputs tell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Flight {
    doing: Option<Doing>,
    probing: bool,
    asking: bool,
    /// Whether a server was started and not seen gone.
    alive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    Adopting,
    Choosing,
    Spawning,
    Starting,
    Opening,
    Stopping,
}

impl Flight {
    fn lands(&mut self, input: &Input) {
        let answers = match input {
            Input::Found(_) | Input::Missing { .. } => [Doing::Adopting].as_slice(),
            Input::PortChosen { .. } => &[Doing::Choosing],
            Input::Spawned(_) => &[Doing::Spawning],
            Input::SpawnFailed(_) => &[Doing::Choosing, Doing::Spawning],
            Input::Listening { .. } | Input::NotReady { .. } => &[Doing::Starting],
            Input::StreamOpened | Input::StreamFailed(_) => &[Doing::Opening],
            Input::Exited { .. } | Input::StopFailed => &[Doing::Stopping],
            Input::ProbePassed { .. } | Input::ProbeFailed(_) => {
                self.probing = false;
                &[]
            }
            Input::Capable { .. } | Input::NotCapable(_) => {
                self.asking = false;
                &[]
            }
            _ => &[],
        };
        self.doing.take_if(|doing| answers.contains(doing));
    }

    fn starts(&mut self, effect: &Effect) {
        let doing = match effect {
            Effect::Adopt(_) => Doing::Adopting,
            Effect::ChoosePort => Doing::Choosing,
            Effect::Spawn { .. } => Doing::Spawning,
            Effect::AwaitReady { .. } => Doing::Starting,
            Effect::OpenStream { .. } => Doing::Opening,
            Effect::StopServer(_) => Doing::Stopping,
            Effect::Probe { .. } => {
                self.probing = true;
                return;
            }
            Effect::AskCapabilities { .. } => {
                assert!(!self.asking, "it is asked already");
                self.asking = true;
                return;
            }
            Effect::Close => {
                assert_ne!(
                    self.doing,
                    Some(Doing::Stopping),
                    "a stop is seen to its end"
                );
                (self.doing, self.probing, self.asking) = (None, false, false);
                return;
            }
            Effect::Forget { .. } => return,
        };
        assert_eq!(
            self.doing, None,
            "two things in flight, the second {doing:?}"
        );
        self.doing = Some(doing);
    }

    /// What must hold after every step, whatever came before.
    fn check(&mut self, world: &World) {
        for event in &world.events {
            match event {
                Event::ServerStartDecided { .. } => {
                    assert!(!self.alive, "a second server beside a first");
                    self.alive = true;
                }
                Event::ServerExited { .. } => self.alive = false,
                _ => {}
            }
        }
        for effect in &world.effects {
            self.starts(effect);
        }
        let machine = &world.machine;
        assert!(
            !machine.is_wanted() || self.doing.is_some() || self.probing || world.wake_at.is_some(),
            "wanted, and nothing will ever happen: {machine:?}"
        );
        let connected = machine.connection.state == ConnectionState::Connected;
        assert_eq!(machine.is_streaming(), connected, "{machine:?}");
    }
}

#[test]
fn whatever_happens_there_is_one_server_and_something_to_come() {
    for seed in 0..2_000 {
        let mut chance = Chance(seed);
        let target = if seed % 2 == 0 { managed() } else { url() };
        let mut world = given(named(target));
        let mut flight = Flight::default();
        for _ in 0..120 {
            let passed = Duration::from_millis(chance.below(9_000));
            world.now = world.now.plus(passed);
            let input = chance.input();
            flight.lands(&input);
            world = world.when(input);
            flight.check(&world);
            if chance.below(40) == 0 {
                world = restarted(world);
                (flight.doing, flight.probing, flight.asking) = (None, false, false);
                flight.check(&world);
            }
        }
    }
}

/// The engine dies and another one opens the log.
fn restarted(mut world: World) -> World {
    let Machine {
        policy,
        connection,
        breaker,
        ..
    } = world.machine;
    world.machine = Machine::new(id(), policy, connection, breaker);
    world.events.clear();
    world.effects.clear();
    world.settle();
    world
}
