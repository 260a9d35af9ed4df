//! How long a silence means something: learned from the agent's heartbeat, bounded by the policy.
//!
//! A server that beats every second and has been silent for ten is not well; one that beats every ten is. The
//! policy has to hold for agents of which nothing is known, so its bounds are long. They are what holds until two
//! beats were heard, and no silence is ever borne longer.

use std::time::Duration;

use recount_store::Timestamp;

use crate::limits::{HEARTBEAT_MIN, HEARTBEATS_KEPT, PROBE_PAUSE};
use crate::policy::ConnectionPolicy;

/// The heartbeats of one open stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Pulse {
    last: Option<Timestamp>,
    /// The last gaps between beats, the oldest overwritten; zero where there is none yet.
    gaps: [Duration; HEARTBEATS_KEPT],
    next: usize,
}

/// What silences mean on one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// After so long the server is probed out of turn.
    pub(super) suspect_after: Duration,
    /// How long one that is suspected is left until the next probe.
    pub(super) probe_again: Duration,
    /// After so long the stream is given up, where the server does not answer probes either.
    pub(super) silence_max: Duration,
    /// After so long the stream is given up though the server answers.
    pub(super) silence_answering_max: Duration,
}

impl Pulse {
    /// A heartbeat came.
    pub(super) fn beat(&mut self, now: Timestamp) {
        let gap = self.last.map(|last| now.since(last));
        self.last = Some(now);
        // Beats that waited somewhere come together, and tell nothing of the agent.
        if let Some(gap) = gap.filter(|gap| *gap >= HEARTBEAT_MIN) {
            self.gaps[self.next] = gap;
            self.next = (self.next + 1) % HEARTBEATS_KEPT;
        }
    }

    /// How far the beats are apart: the largest of the last few gaps, since one that is late is nothing new then,
    /// and one that is early changes nothing.
    fn period(&self) -> Option<Duration> {
        self.gaps.into_iter().max().filter(|gap| !gap.is_zero())
    }

    /// What silences mean now: two beats missed are a reason to ask, three and more to give up.
    pub(super) fn patience(&self, policy: &ConnectionPolicy) -> Patience {
        let Some(period) = self.period() else {
            return Patience {
                suspect_after: policy.suspect_after,
                probe_again: policy.probe_every,
                silence_max: policy.silence_max,
                silence_answering_max: policy.silence_answering_max,
            };
        };
        let half = period / 2;
        Patience {
            suspect_after: half.saturating_mul(5).min(policy.suspect_after),
            probe_again: half.max(PROBE_PAUSE).min(policy.probe_every),
            silence_max: period.saturating_mul(4).min(policy.silence_max),
            silence_answering_max: period.saturating_mul(6).min(policy.silence_answering_max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_millis(1_200);

    /// The patience after beats with these gaps between them.
    fn after(gaps: impl IntoIterator<Item = Duration>) -> Patience {
        let mut pulse = Pulse::default();
        let mut now = Timestamp::from_millis(1_000_000);
        pulse.beat(now);
        for gap in gaps {
            now = now.plus(gap);
            pulse.beat(now);
        }
        pulse.patience(&ConnectionPolicy::default())
    }

    fn policy() -> Patience {
        Pulse::default().patience(&ConnectionPolicy::default())
    }

    #[test]
    fn the_policy_holds_until_two_beats_were_heard() {
        let ConnectionPolicy {
            suspect_after,
            probe_every,
            silence_max,
            silence_answering_max,
            ..
        } = ConnectionPolicy::default();
        let expected = Patience {
            suspect_after,
            probe_again: probe_every,
            silence_max,
            silence_answering_max,
        };
        assert_eq!(policy(), expected);
        assert_eq!(after([]), expected);
        // OpenCode's ten seconds are what the policy was made for.
        assert_eq!(after([Duration::from_secs(10)]), expected);
    }

    #[test]
    fn a_quick_heart_shortens_all_of_it() {
        let expected = Patience {
            suspect_after: Duration::from_secs(3),
            probe_again: Duration::from_millis(600),
            silence_max: Duration::from_millis(4_800),
            silence_answering_max: Duration::from_millis(7_200),
        };
        assert_eq!(after([BEAT]), expected);
        assert_eq!(after([BEAT; 100]), expected);
    }

    #[test]
    fn a_slow_heart_lengthens_none_of_it() {
        assert_eq!(after([Duration::from_secs(90)]), policy());
        assert_eq!(after([Duration::MAX]), policy());
    }

    #[test]
    fn one_late_beat_is_believed_for_a_while() {
        let late = BEAT * 3;
        let mut gaps = vec![BEAT; 5];
        gaps.push(late);
        assert_eq!(after(gaps.clone()).silence_max, late * 4);
        gaps.extend([BEAT; HEARTBEATS_KEPT - 1]);
        assert_eq!(after(gaps.clone()).silence_max, late * 4);
        gaps.push(BEAT);
        assert_eq!(after(gaps).silence_max, BEAT * 4);
    }

    #[test]
    fn beats_that_waited_and_came_together_are_no_quick_heart() {
        let together = [Duration::from_millis(3); 20];
        assert_eq!(after(together), policy());
        let gaps = [BEAT].into_iter().chain(together);
        assert_eq!(after(gaps), after([BEAT]));
    }
}
