//! Whether a try may be made, and what a failed one means for the next.

use recount_projections::breaker::{Breaker, RECENT_MAX, State};
use recount_store::{Event, Timestamp};

use super::backoff;
use crate::policy::{Backoff, ConnectionPolicy};

/// Whether a try may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may.
    Go,
    /// It may, as the one that decides whether the circuit closes.
    Probe,
    /// Not before then.
    Wait(Timestamp),
}

/// Whether a try may be made at `now`. `asked_for`: somebody wants one whatever the circuit says.
#[must_use]
pub fn permit(
    breaker: &Breaker,
    policy: &ConnectionPolicy,
    asked_for: bool,
    now: Timestamp,
) -> Permit {
    match breaker.state {
        State::Closed | State::HalfOpen => Permit::Go,
        State::Open { until } if asked_for || is_due(until, &policy.circuit, now) => Permit::Probe,
        State::Open { until } => Permit::Wait(until),
    }
}

/// Whether a time that was set by a delay has come. One that is further away than any delay was set
/// by a clock that has been put back since, and must not be waited for.
#[must_use]
pub fn is_due(at: Timestamp, policy: &Backoff, now: Timestamp) -> bool {
    now >= at || at.since(now) > policy.delay_max
}

/// What follows from a connection that could not be made, or did not hold: a time for the next try,
/// or an open circuit.
///
/// `failures` counts this one and those before it since the last that held; 0 means that this one had
/// held. `lasting`: trying again soon is of no use.
#[must_use]
pub fn after_failure(
    breaker: &Breaker,
    policy: &ConnectionPolicy,
    seed: u64,
    failures: u32,
    lasting: bool,
    now: Timestamp,
) -> Event {
    let probe_failed = breaker.state == State::HalfOpen && failures > 0;
    let too_many = failures >= policy.circuit_failures.max(1);
    if lasting || probe_failed || too_many || fails_too_often(breaker, policy, now) {
        let opening = breaker.openings.saturating_add(1);
        return Event::CircuitOpened {
            failures,
            until: now.plus(backoff::delay(&policy.circuit, seed, opening)),
        };
    }
    let attempt = failures.saturating_add(1);
    Event::ReconnectScheduled {
        attempt,
        at: now.plus(backoff::delay(&policy.backoff, seed, attempt)),
    }
}

/// Whether too large a share of what was tried lately has failed, with the failure that comes now.
fn fails_too_often(breaker: &Breaker, policy: &ConnectionPolicy, now: Timestamp) -> bool {
    let window = policy.circuit_window;
    let recent = || {
        breaker
            .recent
            .iter()
            .filter(|outcome| now.since(outcome.at) <= window)
    };
    let volume = recent().count() + 1;
    let failed = recent().filter(|outcome| outcome.failed).count() + 1;
    let volume_min = usize::try_from(policy.circuit_volume).unwrap_or(usize::MAX);
    let percent = usize::try_from(policy.circuit_failed_percent).unwrap_or(usize::MAX);
    volume >= volume_min.min(RECENT_MAX) && failed * 100 >= volume.saturating_mul(percent)
}

#[cfg(test)]
mod exhaustive;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use recount_projections::breaker::Outcome;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn breaker(state: State) -> Breaker {
        Breaker {
            state,
            ..Breaker::default()
        }
    }

    #[test]
    fn an_open_circuit_waits_for_its_time_or_for_a_person() {
        let until = Timestamp(2_000_000);
        let policy = ConnectionPolicy::default();
        let permit =
            |state, asked_for, now| super::permit(&breaker(state), &policy, asked_for, now);
        let open = State::Open { until };
        assert_eq!(permit(open, false, NOW), Permit::Wait(until));
        assert_eq!(permit(open, true, NOW), Permit::Probe);
        assert_eq!(permit(open, false, until), Permit::Probe);
        assert_eq!(permit(State::Closed, false, NOW), Permit::Go);
        assert_eq!(permit(State::HalfOpen, false, NOW), Permit::Go);
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_hold_it_open() {
        let policy = ConnectionPolicy::default();
        let until = NOW.plus(Duration::from_secs(3600));
        let open = breaker(State::Open { until });
        assert_eq!(permit(&open, &policy, false, NOW), Permit::Probe);
    }

    #[test]
    fn it_opens_after_so_many_failures_or_at_once_where_waiting_is_of_no_use() {
        let policy = ConnectionPolicy::default();
        let opens = |state, failures, lasting| {
            let event = after_failure(&breaker(state), &policy, 1, failures, lasting, NOW);
            matches!(event, Event::CircuitOpened { .. })
        };
        assert!(!opens(State::Closed, 0, false));
        assert!(!opens(State::Closed, 4, false));
        assert!(opens(State::Closed, 5, false));
        assert!(opens(State::Closed, 1, true));
        assert!(opens(State::HalfOpen, 1, false));
    }

    /// Whether it opens after these outcomes, one a second, the last a second ago; the failure that comes held.
    fn opens_after(policy: &ConnectionPolicy, outcomes: &[bool]) -> bool {
        let second = Duration::from_secs(1);
        let mut at = Timestamp(NOW.0 * 1_000);
        let mut breaker = Breaker::default();
        for &failed in outcomes {
            breaker.recent.push_back(Outcome { at, failed });
            at = at.plus(second);
        }
        let event = after_failure(&breaker, policy, 1, 0, false, at);
        matches!(event, Event::CircuitOpened { failures: 0, .. })
    }

    #[test]
    fn it_opens_where_the_connection_comes_and_goes() {
        let policy = ConnectionPolicy::default();
        let comes_and_goes = [false, true, false, true, false, true, false, true, false];
        assert!(opens_after(&policy, &comes_and_goes));
        // Too little of it to say, or so much good before it that it says little.
        assert!(!opens_after(&policy, &comes_and_goes[2..]));
        assert!(!opens_after(
            &policy,
            &[[false; 2].as_slice(), &comes_and_goes].concat()
        ));
        // One side of the window, and the other.
        let window = |seconds| ConnectionPolicy {
            circuit_window: Duration::from_secs(seconds),
            ..ConnectionPolicy::default()
        };
        assert!(opens_after(&window(9), &comes_and_goes));
        assert!(!opens_after(&window(8), &comes_and_goes));
    }

    #[test]
    fn no_policy_of_shares_makes_it_panic_or_asks_for_more_than_is_remembered() {
        for (volume, percent, opens) in [
            (u32::MAX, 100, true),
            (0, 0, true),
            (1, 101, false),
            (1, u32::MAX, false),
        ] {
            let policy = ConnectionPolicy {
                circuit_volume: volume,
                circuit_failed_percent: percent,
                circuit_window: Duration::MAX,
                ..ConnectionPolicy::default()
            };
            assert_eq!(
                opens_after(&policy, &[true; RECENT_MAX]),
                opens,
                "{percent}"
            );
        }
    }

    #[test]
    fn an_address_where_nothing_listens_opens_it_after_about_three_seconds() {
        let policy = ConnectionPolicy::default();
        for seed in 0..100 {
            let mut now = NOW;
            for failures in 1.. {
                match after_failure(&breaker(State::Closed), &policy, seed, failures, false, now) {
                    Event::ReconnectScheduled { at, .. } => now = at,
                    _ => break,
                }
            }
            let passed = now.since(NOW).as_millis();
            assert!((2_000..4_000).contains(&passed), "{seed}: {passed} ms");
        }
    }
}
