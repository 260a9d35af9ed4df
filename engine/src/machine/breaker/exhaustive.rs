//! Every move of a breaker from every state that can be reached, breadth first, with small bounds.
//!
//! Around it is the least of a connection that there can be: away, trying, or up. Time goes by in whole seconds, as
//! a process that wakes late would see it, so that the states come to an end.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use recount_projections::Projection;
use recount_store::{ConnectionId, NewEvent, Position, Seq, StreamId};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// More states than these mean that something is told apart that is the same.
const STATES_MAX: usize = 200_000;

fn policy() -> ConnectionPolicy {
    let backoff = |delay_max| Backoff {
        delay_min: SECOND,
        delay_max,
    };
    ConnectionPolicy {
        backoff: backoff(SECOND * 2),
        circuit: backoff(SECOND * 3),
        circuit_failures: 3,
        circuit_window: SECOND * 5,
        circuit_volume: 4,
        circuit_failed_percent: 50,
        held_after: SECOND,
        ..ConnectionPolicy::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Link {
    /// Not before this, where a try was scheduled.
    Away(Option<Timestamp>),
    Trying,
    Up(Timestamp),
}

#[derive(Debug, Clone)]
struct Node {
    breaker: Breaker,
    link: Link,
    now: Timestamp,
}

/// What tells one state from another: times count from now, counts up to where they change nothing any more.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    circuit: (u8, u64),
    failures: u32,
    openings: u32,
    lost: bool,
    recent: Vec<(u64, bool)>,
    link: (u8, u64),
}

impl Node {
    fn key(&self) -> Key {
        let policy = policy();
        let seconds = |duration: Duration| duration.as_micros().div_ceil(1_000_000);
        let whole = |duration| u64::try_from(seconds(duration)).unwrap_or(u64::MAX);
        let Breaker {
            state,
            failures,
            openings,
            recent,
            lost,
        } = &self.breaker;
        let in_window = recent
            .iter()
            .map(|outcome| (self.now.since(outcome.at), outcome.failed))
            .filter(|(age, _)| *age <= policy.circuit_window);
        Key {
            circuit: match state {
                State::Closed => (0, 0),
                State::HalfOpen => (1, 0),
                State::Open { until } => (2, whole(until.since(self.now))),
            },
            failures: (*failures).min(policy.circuit_failures),
            // From the fourth on all are as long.
            openings: (*openings).min(4),
            lost: *lost,
            recent: in_window
                .map(|(age, failed)| (whole(age), failed))
                .collect(),
            link: match self.link {
                Link::Away(None) => (0, 0),
                Link::Away(Some(at)) => (1, whole(at.since(self.now))),
                Link::Trying => (2, 0),
                Link::Up(since) => (3, whole(self.now.since(since).min(policy.held_after))),
            },
        }
    }

    fn record(&mut self, event: Event) {
        let before = self.breaker.state;
        let stream = StreamId::Connection(ConnectionId::from_bytes([1; 10]));
        let new = NewEvent::live(event, self.now);
        self.breaker
            .apply(&new.recorded(stream, Seq(1), Position(1)));
        let after = self.breaker.state;
        let moves = matches!(
            (before, after),
            (State::Closed | State::HalfOpen, State::Open { .. })
                | (State::Open { .. }, State::HalfOpen)
                | (State::HalfOpen, State::Closed)
        );
        let may = before == after || moves;
        assert!(may, "from {before:?}: {self:#?}");
        assert!(self.breaker.recent.len() <= RECENT_MAX);
    }

    /// A try failed, or a stream was lost; `failures` as [`after_failure`] counts them.
    fn failed(mut self, happened: Event, failures: u32, lasting: bool) -> Self {
        self.record(happened);
        let event = after_failure(&self.breaker, &policy(), 7, failures, lasting, self.now);
        self.link = match &event {
            Event::ReconnectScheduled { at, .. } => {
                assert_eq!(self.breaker.state, State::Closed, "{self:#?}");
                Link::Away(Some(*at))
            }
            Event::CircuitOpened { until, .. } => {
                let open = until.since(self.now);
                assert!(open > Duration::ZERO && open <= policy().circuit.delay_max);
                Link::Away(None)
            }
            other => panic!("{other:?}"),
        };
        self.record(event);
        self
    }

    /// A try, as soon as one may be made, or none yet.
    fn tried(mut self, asked_for: bool) -> Self {
        if let Link::Away(Some(at)) = self.link
            && !asked_for
            && !is_due(at, &policy().backoff, self.now)
        {
            return self;
        }
        match permit(&self.breaker, &policy(), asked_for, self.now) {
            Permit::Go => {}
            Permit::Probe => self.record(Event::CircuitHalfOpened),
            Permit::Wait(until) => {
                assert!(!asked_for, "who asks is not held back: {self:#?}");
                assert!(until > self.now, "{self:#?}");
                return self;
            }
        }
        self.link = Link::Trying;
        self
    }

    /// Everything that can happen next.
    fn next(&self) -> Vec<Self> {
        let mut later = self.clone();
        later.now = later.now.plus(SECOND);
        let attempt = self.breaker.failures.saturating_add(1);
        let node = || self.clone();
        let mut next = vec![later];
        match self.link {
            Link::Away(_) => next.extend([node().tried(false), node().tried(true)]),
            Link::Trying => {
                let reason = || "refused".to_owned();
                for lasting in [false, true] {
                    let reason = reason();
                    let failed = Event::ConnectFailed { attempt, reason };
                    next.push(node().failed(failed, attempt, lasting));
                }
                let mut up = node();
                up.record(Event::StreamOpened);
                if up.breaker.state != State::Closed {
                    up.record(Event::CircuitClosed);
                }
                up.link = Link::Up(up.now);
                next.push(up);
            }
            Link::Up(since) => {
                let held = self.now.since(since) >= policy().held_after;
                let failures = if held { 0 } else { attempt };
                let lost = Event::StreamLost {
                    reason: "eof".to_owned(),
                };
                next.push(node().failed(lost, failures, false));
            }
        }
        next
    }
}

#[test]
fn every_move_from_every_state_leads_where_it_may() {
    let first = Node {
        breaker: Breaker::default(),
        link: Link::Away(None),
        now: Timestamp::from_millis(1_000_000),
    };
    let mut known = HashSet::from([first.key()]);
    let mut ahead = VecDeque::from([first]);
    let mut states = HashSet::new();
    while let Some(node) = ahead.pop_front() {
        states.insert(std::mem::discriminant(&node.breaker.state));
        for next in node.next() {
            if known.insert(next.key()) {
                ahead.push_back(next);
            }
        }
        // Whatever happened, some time without anything lets a try through.
        let mut patient = node.clone();
        patient.now = patient.now.plus(policy().circuit.delay_max);
        if matches!(patient.link, Link::Away(_)) {
            assert_eq!(patient.tried(false).link, Link::Trying, "{node:#?}");
        }
        assert!(known.len() < STATES_MAX, "the states do not end: {node:#?}");
    }
    println!("{} states", known.len());
    assert_eq!(states.len(), 3, "closed, open and half open");
    // Fewer mean that something is not reached any more.
    assert!(known.len() > 1_000, "{}", known.len());
}
