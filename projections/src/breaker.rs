//! Whether a connection may be tried: the breaker, as its events left it.

use std::collections::VecDeque;

use recount_store::{Event, Recorded, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Projection;

/// How many outcomes are remembered: enough to tell a connection that comes and goes from one that had a bad day.
pub const RECENT_MAX: usize = 32;

/// The breaker of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// Where it stands.
    pub state: State,
    /// How many tries have failed since the last connection that held.
    pub failures: u32,
    /// How often it has opened since the last connection that held; it stays open longer each time.
    pub openings: u32,
    /// How the last tries ended and the last streams, the oldest first, since the circuit opened last; at most
    /// [`RECENT_MAX`]. A connection that comes and goes never fails twice in a row, and is told by these.
    pub recent: VecDeque<Outcome>,
    /// Whether a stream has ended of which it has not shown yet whether that was an error.
    pub lost: bool,
}

/// How a try ended, or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When.
    pub at: Timestamp,
    /// Whether the try failed or the stream was lost; else a stream was opened.
    pub failed: bool,
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

impl Breaker {
    fn remember(&mut self, at: Timestamp, failed: bool) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Outcome { at, failed });
        self.lost = false;
    }

    /// Another try is made after the stream ended: so it was an error, and not the engine's own end.
    fn remember_loss(&mut self, at: Timestamp) {
        if self.lost {
            self.remember(at, true);
        }
    }
}

impl Projection for Breaker {
    const VERSION: u32 = 2;
    const NAME: &'static str = "breaker";

    fn apply(&mut self, recorded: &Recorded) {
        match &recorded.event {
            Event::StreamOpened => self.remember(recorded.at, false),
            Event::StreamLost { .. } => self.lost = true,
            Event::ConnectFailed { attempt, .. } => {
                self.remember(recorded.at, true);
                self.failures = *attempt;
            }
            Event::ReconnectScheduled { attempt, .. } => {
                self.remember_loss(recorded.at);
                self.failures = attempt.saturating_sub(1);
                if self.failures == 0 {
                    self.openings = 0;
                }
            }
            Event::CircuitOpened { failures, until } => {
                self.state = State::Open { until: *until };
                self.failures = *failures;
                self.openings = self.openings.saturating_add(1);
                // What came before has had its answer.
                (self.recent, self.lost) = (VecDeque::new(), false);
            }
            Event::CircuitHalfOpened => self.state = State::HalfOpen,
            Event::CircuitClosed => self.state = State::Closed,
            // What else happens on a connection does not move its breaker.
            Event::ConnectionOpened { .. }
            | Event::ServerSpawned { .. }
            | Event::ServerReady { .. }
            | Event::ServerExited { .. }
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
            | Event::CapabilitiesFound { .. }
            | Event::PolicyAdopted { .. }
            | Event::TaskPanicked { .. }
            | Event::Unknown { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use recount_store::{ConnectionId, NewEvent, Position, Seq, StreamId};

    use super::*;
    use crate::fold;

    fn recorded(events: Vec<Event>) -> Vec<Recorded> {
        let stream = StreamId::Connection(ConnectionId::from_bytes([1; 10]));
        let numbered = (1..).zip(events);
        let record =
            |(n, event)| NewEvent::live(event, Timestamp(n)).recorded(stream, Seq(n), Position(n));
        numbered.map(record).collect()
    }

    fn failed(attempt: u32) -> Event {
        Event::ConnectFailed {
            attempt,
            reason: "refused".to_owned(),
        }
    }

    fn lost() -> Event {
        Event::StreamLost {
            reason: "eof".to_owned(),
        }
    }

    fn scheduled(attempt: u32) -> Event {
        let at = Timestamp(9);
        Event::ReconnectScheduled { attempt, at }
    }

    fn outcome(at: u64, failed: bool) -> Outcome {
        let at = Timestamp(at);
        Outcome { at, failed }
    }

    #[test]
    fn failures_open_it_and_a_probe_that_connects_closes_it() {
        let until = Timestamp(9);
        let mut events = vec![failed(1), scheduled(2), failed(2)];
        let trying = Breaker {
            failures: 2,
            recent: [outcome(1, true), outcome(3, true)].into(),
            ..Breaker::default()
        };
        assert_eq!(fold::<Breaker>(&recorded(events.clone())), trying);

        events.push(Event::CircuitOpened { failures: 2, until });
        let open = Breaker {
            state: State::Open { until },
            failures: 2,
            openings: 1,
            ..Breaker::default()
        };
        assert_eq!(fold::<Breaker>(&recorded(events.clone())), open);

        events.extend([
            Event::CircuitHalfOpened,
            Event::StreamOpened,
            Event::CircuitClosed,
        ]);
        let closed = Breaker {
            state: State::Closed,
            recent: [outcome(6, false)].into(),
            ..open
        };
        assert_eq!(fold::<Breaker>(&recorded(events)), closed);
    }

    #[test]
    fn a_connection_that_held_clears_what_was_counted() {
        let until = Timestamp(9);
        let events = vec![
            Event::CircuitOpened { failures: 5, until },
            Event::CircuitHalfOpened,
            Event::CircuitClosed,
            scheduled(1),
        ];
        assert_eq!(fold::<Breaker>(&recorded(events)), Breaker::default());
    }

    #[test]
    fn each_opening_and_each_loss_is_remembered_but_not_an_end_on_purpose() {
        let events = vec![
            Event::StreamOpened,
            lost(),
            scheduled(1),
            Event::StreamOpened,
            // Nobody wanted it any more, or the engine ended; another one tries, and fails.
            lost(),
            failed(1),
            scheduled(2),
        ];
        let expected = [
            outcome(1, false),
            outcome(3, true),
            outcome(4, false),
            outcome(6, true),
        ];
        assert_eq!(fold::<Breaker>(&recorded(events)).recent, expected);
    }

    #[test]
    fn no_more_are_remembered_than_the_bound() {
        let events = vec![Event::StreamOpened; RECENT_MAX + 3];
        let recent = fold::<Breaker>(&recorded(events)).recent;
        assert_eq!(recent.len(), RECENT_MAX);
        assert_eq!(recent.front(), Some(&outcome(4, false)));
    }
}
