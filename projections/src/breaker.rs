//! Whether a connection may be tried: the breaker, as its events left it.

use recount_store::{Event, Recorded, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Projection;

/// The breaker of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// Where it stands.
    pub state: State,
    /// How many tries have failed since the last connection that held.
    pub failures: u32,
    /// How often it has opened since the last connection that held; it stays open longer each time.
    pub openings: u32,
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum State {
    /// Tries are made, with their delays.
    #[default]
    Closed,
    /// None is made.
    Open {
        /// Until then.
        until: Timestamp,
    },
    /// One is made, and what it meets decides.
    HalfOpen,
}

impl Projection for Breaker {
    const VERSION: u32 = 1;
    const NAME: &'static str = "breaker";

    fn apply(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::ConnectFailed { attempt, .. } => self.failures = *attempt,
            Event::ReconnectScheduled { attempt, .. } => {
                self.failures = attempt.saturating_sub(1);
                if self.failures == 0 {
                    self.openings = 0;
                }
            }
            Event::CircuitOpened { failures, until } => {
                self.state = State::Open { until: *until };
                self.failures = *failures;
                self.openings = self.openings.saturating_add(1);
            }
            Event::CircuitHalfOpened => self.state = State::HalfOpen,
            Event::CircuitClosed => self.state = State::Closed,
            // What else happens on a connection does not move its breaker.
            Event::ConnectionOpened { .. }
            | Event::ServerSpawned { .. }
            | Event::ServerReady { .. }
            | Event::ServerExited { .. }
            | Event::StreamOpened
            | Event::StreamLost { .. }
            | Event::ProbeFailed { .. }
            | Event::ProbeRecovered
            | Event::GapFound { .. }
            | Event::GapFilled { .. }
            | Event::ConnectionChanged { .. }
            | Event::ServerStartDecided { .. }
            | Event::ServerStopDecided { .. }
            // These are in other streams.
            | Event::SessionOpened { .. }
            | Event::MessageQueued { .. }
            | Event::MessageCancelled { .. }
            | Event::PermissionAnswered { .. }
            | Event::TurnAbortAsked { .. }
            | Event::SessionClosed
            | Event::AgentSessionBound { .. }
            | Event::AgentSessionLost { .. }
            | Event::DeliveryAccepted { .. }
            | Event::DeliveryRejected { .. }
            | Event::DeliveryUnknown { .. }
            | Event::DeliveryResolved { .. }
            | Event::TurnStarted { .. }
            | Event::OutputAppended { .. }
            | Event::OutputReplaced { .. }
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
            | Event::CapabilitiesFound { .. }
            | Event::PolicyAdopted { .. }
            | Event::TaskPanicked { .. }
            | Event::Unknown { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{Class, ConnectionId, Position, Provenance, Seq, StreamId};

    use super::*;
    use crate::fold;

    fn recorded(events: Vec<Event>) -> Vec<Recorded> {
        let numbered = (1..).zip(events);
        let record = |(n, event)| Recorded {
            position: Position(n),
            stream: StreamId::Connection(ConnectionId::from_bytes([1; 10])),
            seq: Seq(n),
            at: Timestamp(n),
            cause: None,
            class: Class::Decided,
            provenance: Provenance::Live,
            id: None,
            frame: None,
            event,
        };
        numbered.map(record).collect()
    }

    fn failed(attempt: u32) -> Event {
        Event::ConnectFailed {
            attempt,
            reason: "refused".to_owned(),
        }
    }

    #[test]
    fn failures_open_it_and_a_probe_that_connects_closes_it() {
        let until = Timestamp(9);
        let mut events = vec![
            failed(1),
            Event::ReconnectScheduled {
                attempt: 2,
                at: until,
            },
            failed(2),
            Event::CircuitOpened { failures: 2, until },
        ];
        let open = Breaker {
            state: State::Open { until },
            failures: 2,
            openings: 1,
        };
        assert_eq!(fold::<Breaker>(&recorded(events.clone())), open);

        events.extend([Event::CircuitHalfOpened, Event::CircuitClosed]);
        let closed = Breaker {
            state: State::Closed,
            ..open
        };
        assert_eq!(fold::<Breaker>(&recorded(events)), closed);
    }

    #[test]
    fn a_connection_that_held_clears_what_was_counted() {
        let at = Timestamp(9);
        let events = vec![
            Event::CircuitOpened {
                failures: 5,
                until: at,
            },
            Event::CircuitHalfOpened,
            Event::CircuitClosed,
            Event::ReconnectScheduled { attempt: 1, at },
        ];
        assert_eq!(fold::<Breaker>(&recorded(events)), Breaker::default());
    }
}
