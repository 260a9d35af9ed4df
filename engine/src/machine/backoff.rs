//! How long to wait before a try: doubling, capped, with jitter, the same for the same try.

use std::time::Duration;

use crate::policy::Backoff;

/// How long to wait before the try with this number, from 1.
///
/// The nominal delay doubles from try to try; the real one is up to a quarter less or more, so that
/// many who lost the same server do not come back at the same moment. The seed stands for who waits:
/// the same seed and try give the same delay, so that the decision can be derived again from the log.
#[must_use]
pub fn delay(policy: &Backoff, seed: u64, attempt: u32) -> Duration {
    // Saturates, then clamps: a plain product overflows after some sixty doublings.
    let doublings = attempt.saturating_sub(1).min(31);
    let nominal = policy
        .delay_min
        .saturating_mul(1 << doublings)
        .min(policy.delay_max);
    let micros = u64::try_from(nominal.as_micros()).unwrap_or(u64::MAX);
    let spread = micros / 2;
    let less = micros - micros / 4;
    let jitter = match spread {
        0 => 0,
        spread => mix(seed ^ mix(u64::from(attempt))) % spread,
    };
    Duration::from_micros(less.saturating_add(jitter)).min(policy.delay_max)
}

/// Scrambles a number: neighbours come out far apart (the finish of `SplitMix64`).
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Backoff = Backoff {
        delay_min: Duration::from_millis(100),
        delay_max: Duration::from_secs(30),
    };

    #[test]
    fn it_doubles_up_to_the_cap() {
        for seed in 0..200 {
            let mut nominal = Duration::from_millis(100);
            for attempt in 1..100 {
                let delay = delay(&POLICY, seed, attempt);
                assert!(delay >= nominal * 3 / 4, "{seed} {attempt} {delay:?}");
                assert!(delay <= nominal * 5 / 4, "{seed} {attempt} {delay:?}");
                assert!(delay <= POLICY.delay_max, "{seed} {attempt} {delay:?}");
                nominal = (nominal * 2).min(POLICY.delay_max);
            }
        }
    }

    #[test]
    fn no_policy_and_no_try_makes_it_panic() {
        let durations = [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_micros(1),
            Duration::from_secs(1),
            Duration::MAX,
        ];
        for delay_min in durations {
            for delay_max in durations {
                let policy = Backoff {
                    delay_min,
                    delay_max,
                };
                for attempt in [0, 1, 2, 31, 32, 33, 64, 65, u32::MAX] {
                    for seed in [0, 1, u64::MAX] {
                        assert!(delay(&policy, seed, attempt) <= delay_max);
                    }
                }
            }
        }
    }

    #[test]
    fn the_same_try_waits_the_same_and_others_differ() {
        assert_eq!(delay(&POLICY, 7, 3), delay(&POLICY, 7, 3));
        assert_ne!(delay(&POLICY, 7, 3), delay(&POLICY, 8, 3));
    }
}
