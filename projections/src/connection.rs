//! Where a connection stands: its server, its tries, its gaps.

use std::collections::BTreeMap;

use recount_store::{ConnectionState, Event, Position, Recorded, Target, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Projection;

/// The link to one agent server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Connection {
    /// The agent's name; empty before the connection was named.
    pub agent: String,
    /// Where it leads; `None` before the connection was named.
    pub target: Option<Target>,
    /// Where it stands.
    pub state: ConnectionState,
    /// Since when it stands there.
    pub since: Timestamp,
    /// How many tries have failed since the last that held.
    pub failures: u32,
    /// Not before this time comes the next try; `None` where nothing holds it back but the breaker.
    pub next_try: Option<Timestamp>,
    /// What went wrong last; `None` once it is connected.
    pub last_error: Option<String>,
    /// How the stream ended, until it shows whether that was an error: then another try is scheduled.
    pub stream_end: Option<String>,
    /// The server that the engine started, or was about to start, and has not seen gone.
    pub server: Option<Server>,
    /// Who answered last.
    pub ready: Option<Ready>,
    /// What the server can do, where it was asked.
    pub capabilities: Option<Capabilities>,
    /// The failed probe that none has passed after.
    pub probe_failing: Option<Position>,
    /// The agent's sessions of which something is missing, each with the last event that says so.
    pub gaps: BTreeMap<String, Position>,
    /// The last event that moved anything here but a probe or a gap: what comes next follows from it.
    pub moved: Option<Position>,
}

/// A server that the engine started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// The mark that its process carries, and the name of its files.
    pub mark: String,
    /// The port that it was told to listen on.
    pub port: u16,
    /// Its process; `None` where its start was decided and not seen.
    pub process: Option<Process>,
    /// Whether it is to be stopped, whatever else is wanted.
    pub stopping: bool,
    /// The last event about it.
    pub position: Position,
}

/// A process, told from a later one of the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it began, in clock ticks since boot; 0 where unknown.
    pub started: u64,
}

/// A server that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Where.
    pub url: String,
    /// Its version, by its own word.
    pub version: String,
}

/// What a server said that it can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The version that it then had: another one may do other things.
    pub version: String,
    /// The words for it, in order.
    pub words: Vec<String>,
}

impl Connection {
    /// What the server can do, in order, as far as it is known.
    #[must_use]
    pub fn capabilities(&self) -> &[String] {
        let known = self.capabilities.as_ref();
        known.map_or(&[], |known| known.words.as_slice())
    }

    /// Which try the one that runs is, or the next one will be, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.failures.saturating_add(1)
    }

    fn stream_end_was_an_error(&mut self) {
        self.last_error = self.stream_end.take().or(self.last_error.take());
    }
}

impl Projection for Connection {
    const VERSION: u32 = 2;
    const NAME: &'static str = "connection";

    fn apply(&mut self, recorded: &Recorded) {
        let position = recorded.position;
        match &recorded.event {
            Event::ConnectionOpened { agent, target } => {
                self.agent.clone_from(agent);
                self.target = Some(target.clone());
                self.since = recorded.at;
            }
            Event::ConnectionChanged { to, .. } => {
                self.state = *to;
                self.since = recorded.at;
                self.next_try = None;
                if *to == ConnectionState::Connected {
                    self.last_error = None;
                    self.stream_end = None;
                }
            }
            Event::ServerStartDecided { mark, port } => {
                self.server = Some(Server {
                    mark: mark.clone(),
                    port: *port,
                    process: None,
                    stopping: false,
                    position,
                });
                self.ready = None;
            }
            Event::ServerSpawned { pid, started } => {
                if let Some(server) = &mut self.server {
                    server.process = Some(Process {
                        pid: *pid,
                        started: *started,
                    });
                    server.position = position;
                }
            }
            Event::ServerReady { url, version } => {
                self.capabilities.take_if(|known| known.version != *version);
                self.ready = Some(Ready {
                    url: url.clone(),
                    version: version.clone(),
                });
            }
            Event::ServerStopDecided { .. } => {
                if let Some(server) = &mut self.server {
                    server.stopping = true;
                    server.position = position;
                }
            }
            Event::ServerExited { .. } => {
                self.server = None;
                self.ready = None;
                self.probe_failing = None;
            }
            Event::ConnectFailed { attempt, reason } => {
                self.failures = *attempt;
                self.last_error = Some(reason.clone());
                self.stream_end = None;
            }
            Event::StreamLost { reason } => self.stream_end = Some(reason.clone()),
            Event::ReconnectScheduled { attempt, at } => {
                self.stream_end_was_an_error();
                self.failures = attempt.saturating_sub(1);
                self.next_try = Some(*at);
            }
            Event::CircuitOpened { failures, .. } => {
                self.stream_end_was_an_error();
                self.failures = *failures;
                self.next_try = None;
            }
            Event::StreamOpened | Event::CircuitHalfOpened | Event::CircuitClosed => {}
            // These follow their own thread and leave `moved` alone.
            Event::ProbeFailed { .. } => {
                self.probe_failing = Some(position);
                return;
            }
            Event::ProbeRecovered => {
                self.probe_failing = None;
                return;
            }
            Event::CapabilitiesFound { capabilities } => {
                let ready = self.ready.as_ref();
                self.capabilities = Some(Capabilities {
                    version: ready.map_or_else(String::new, |ready| ready.version.clone()),
                    words: capabilities.clone(),
                });
                return;
            }
            Event::GapFound { agent_session, .. } => {
                self.gaps.insert(agent_session.clone(), position);
                return;
            }
            Event::GapFilled { agent_session } => {
                self.gaps.remove(agent_session);
                return;
            }
            // These are in other streams.
            Event::SessionOpened { .. }
            | Event::MessageQueued { .. }
            | Event::MessageCancelled { .. }
            | Event::PermissionAnswered { .. }
            | Event::TurnAbortAsked { .. }
            | Event::SessionClosed
            | Event::SessionForked { .. }
            | Event::AgentSessionForked { .. }
            | Event::AgentForkRefused { .. }
            | Event::ContextAdded { .. }
            | Event::AgentSessionBound { .. }
            | Event::AgentSessionLost { .. }
            | Event::DeliveryAccepted { .. }
            | Event::DeliveryRejected { .. }
            | Event::DeliveryUnknown { .. }
            | Event::DeliveryResolved { .. }
            | Event::TurnStarted { .. }
            | Event::OutputAppended { .. }
            | Event::OutputReplaced { .. }
            | Event::OutputOrdered { .. }
            | Event::ToolCallStarted { .. }
            | Event::ToolCallEnded { .. }
            | Event::PermissionAsked { .. }
            | Event::PermissionSettled { .. }
            | Event::AgentRetried { .. }
            | Event::AgentErrorReported { .. }
            | Event::TurnCompleted { .. }
            | Event::TurnFailed { .. }
            | Event::TurnAborted { .. }
            | Event::TurnInterrupted { .. }
            | Event::FrameUnrecognised { .. }
            | Event::AgentSessionRequested { .. }
            | Event::DeliveryStarted { .. }
            | Event::TurnRequested { .. }
            | Event::RetryScheduled { .. }
            | Event::MessageDeadLettered { .. }
            | Event::TurnStalled { .. }
            | Event::RerunDecided { .. }
            | Event::EngineStarted { .. }
            | Event::RecoveryStarted { .. }
            | Event::RecoveryFinished { .. }
            | Event::EngineStopped
            | Event::StreamCut { .. }
            | Event::MessageRequeued { .. }
            | Event::MessageSteered { .. }
            | Event::QuestionAnswered { .. }
            | Event::QuestionAsked { .. }
            | Event::QuestionSettled { .. }
            | Event::UnknownDecided { .. }
            | Event::QuestionExpired { .. }
            | Event::PolicyAdopted { .. }
            | Event::TaskPanicked { .. }
            | Event::Unknown { .. } => return,
        }
        self.moved = Some(position);
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{ConnectionId, NewEvent, Seq, StreamId};

    use super::*;
    use crate::fold;

    fn recorded(events: Vec<Event>) -> Vec<Recorded> {
        let stream = StreamId::Connection(ConnectionId::from_bytes([1; 10]));
        let numbered = (1..).zip(events);
        let record = |(n, event)| {
            NewEvent::live(event, Timestamp(n * 100)).recorded(stream, Seq(n), Position(n))
        };
        numbered.map(record).collect()
    }

    fn managed() -> Target {
        Target::Managed {
            program: None,
            directory: "/srv/project".to_owned(),
        }
    }

    fn beginning() -> Vec<Event> {
        vec![
            Event::ConnectionOpened {
                agent: "opencode".to_owned(),
                target: managed(),
            },
            Event::ConnectionChanged {
                from: ConnectionState::Disconnected,
                to: ConnectionState::Connecting,
            },
            Event::ServerStartDecided {
                mark: "m".to_owned(),
                port: 4101,
            },
            Event::ServerSpawned {
                pid: 7,
                started: 70,
            },
            Event::ServerReady {
                url: "http://127.0.0.1:4101".to_owned(),
                version: "1".to_owned(),
            },
            Event::StreamOpened,
            Event::ConnectionChanged {
                from: ConnectionState::Connecting,
                to: ConnectionState::Connected,
            },
        ]
    }

    #[test]
    fn a_server_is_started_and_connected_to() {
        let expected = Connection {
            agent: "opencode".to_owned(),
            target: Some(managed()),
            state: ConnectionState::Connected,
            since: Timestamp(700),
            server: Some(Server {
                mark: "m".to_owned(),
                port: 4101,
                process: Some(Process {
                    pid: 7,
                    started: 70,
                }),
                stopping: false,
                position: Position(4),
            }),
            ready: Some(Ready {
                url: "http://127.0.0.1:4101".to_owned(),
                version: "1".to_owned(),
            }),
            moved: Some(Position(7)),
            ..Connection::default()
        };
        assert_eq!(fold::<Connection>(&recorded(beginning())), expected);
    }

    #[test]
    fn a_server_that_dies_leaves_its_reason_and_the_time_of_the_next_try() {
        let mut events = beginning();
        events.extend([
            Event::StreamLost {
                reason: "eof".to_owned(),
            },
            Event::ConnectionChanged {
                from: ConnectionState::Connected,
                to: ConnectionState::Disconnected,
            },
            Event::ReconnectScheduled {
                attempt: 1,
                at: Timestamp(2000),
            },
            Event::ServerExited {
                how: "signal: 9".to_owned(),
            },
        ]);
        let expected = Connection {
            agent: "opencode".to_owned(),
            target: Some(managed()),
            since: Timestamp(900),
            next_try: Some(Timestamp(2000)),
            last_error: Some("eof".to_owned()),
            moved: Some(Position(11)),
            ..Connection::default()
        };
        assert_eq!(fold::<Connection>(&recorded(events)), expected);
    }

    #[test]
    fn a_connection_that_was_closed_has_no_error() {
        let mut events = beginning();
        events.extend([
            Event::StreamLost {
                reason: "it is not wanted any more".to_owned(),
            },
            Event::ConnectionChanged {
                from: ConnectionState::Connected,
                to: ConnectionState::Disconnected,
            },
        ]);
        assert_eq!(fold::<Connection>(&recorded(events)).last_error, None);
    }

    #[test]
    fn an_error_stays_until_a_connection_holds() {
        let mut events = beginning();
        events.extend([
            Event::StreamLost {
                reason: "eof".to_owned(),
            },
            Event::CircuitOpened {
                failures: 3,
                until: Timestamp(2000),
            },
        ]);
        let last_error = |events| fold::<Connection>(&recorded(events)).last_error;
        assert_eq!(last_error(events.clone()).as_deref(), Some("eof"));
        events.push(Event::ConnectFailed {
            attempt: 4,
            reason: "refused".to_owned(),
        });
        assert_eq!(last_error(events.clone()).as_deref(), Some("refused"));
        events.push(Event::ConnectionChanged {
            from: ConnectionState::Connecting,
            to: ConnectionState::Connected,
        });
        assert_eq!(last_error(events), None);
    }

    #[test]
    fn what_a_server_can_do_is_known_until_another_version_answers() {
        let mut events = beginning();
        let found = vec!["fork".to_owned()];
        events.push(Event::CapabilitiesFound {
            capabilities: found.clone(),
        });
        let known = |events: &[Event]| fold::<Connection>(&recorded(events.to_vec()));
        assert_eq!(known(&events).capabilities(), found);
        let ready = |version: &str| Event::ServerReady {
            url: "http://127.0.0.1:4102".to_owned(),
            version: version.to_owned(),
        };
        events.extend([
            Event::ServerExited {
                how: "signal: 9".to_owned(),
            },
            ready("1"),
        ]);
        assert_eq!(known(&events).capabilities(), found);
        events.push(ready("2"));
        assert_eq!(known(&events).capabilities, None);
    }

    #[test]
    fn gaps_and_probes_are_open_until_they_are_closed() {
        let mut events = beginning();
        events.extend([
            Event::GapFound {
                agent_session: "a".to_owned(),
                from: 4,
                to: 6,
            },
            Event::ProbeFailed {
                reason: "late".to_owned(),
            },
        ]);
        let open: Connection = fold(&recorded(events.clone()));
        assert_eq!(open.gaps, BTreeMap::from([("a".to_owned(), Position(8))]));
        assert_eq!(open.probe_failing, Some(Position(9)));

        events.extend([
            Event::GapFilled {
                agent_session: "a".to_owned(),
            },
            Event::ProbeRecovered,
        ]);
        assert_eq!(
            fold::<Connection>(&recorded(events)),
            fold::<Connection>(&recorded(beginning()))
        );
    }
}
