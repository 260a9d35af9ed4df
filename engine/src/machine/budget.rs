//! How many retries a connection bears: a bucket of tokens that all its sessions draw from.
//!
//! One session's backoff knows nothing of the others. A thousand of them that lost the same server would each
//! come back in good order, and together keep it down. So each retry takes a token; tokens come back with time,
//! slowly, and one with each call that succeeds. While calls succeed the bucket is never in the way; in an
//! outage it lets through what time gives, whoever asks.

use std::time::Duration;

use recount_store::Timestamp;

/// A bucket of tokens. It starts full, since a process that has only begun has retried nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// How long one token takes to come back.
    refill: Duration,
    /// How long all of them take.
    whole: Duration,
    /// When it is full again, should nobody take or bring a token. That one number is the whole state: each
    /// token taken puts it off by one refill.
    full_at: Timestamp,
}

impl Budget {
    /// A full bucket of `tokens`, at least one, of which one comes back each `refill`.
    #[must_use]
    pub fn new(tokens: u32, refill: Duration) -> Self {
        Self {
            refill,
            whole: refill.saturating_mul(tokens.max(1)),
            full_at: Timestamp::default(),
        }
    }

    /// Takes a token for a retry.
    ///
    /// # Errors
    ///
    /// When the next one comes back, where there is none. Somebody else may take it first.
    pub fn take(&mut self, now: Timestamp) -> Result<(), Timestamp> {
        // A clock that was put back leaves a time that is further away than an empty bucket's.
        let missing = self.full_at.since(now).min(self.whole);
        let missing_then = missing.saturating_add(self.refill);
        if missing_then > self.whole {
            self.full_at = now.plus(missing);
            return Err(now.plus(missing_then.saturating_sub(self.whole)));
        }
        self.full_at = now.plus(missing_then);
        Ok(())
    }

    /// Brings a token back: a call succeeded, so there is no outage.
    pub fn give_back(&mut self) {
        let back = u64::try_from(self.refill.as_micros()).unwrap_or(u64::MAX);
        self.full_at = Timestamp(self.full_at.0.saturating_sub(back));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn emptied(tokens: u32) -> Budget {
        let mut budget = Budget::new(tokens, SECOND);
        for _ in 0..tokens {
            assert_eq!(budget.take(NOW), Ok(()));
        }
        budget
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_for_each_refill() {
        let mut budget = emptied(3);
        assert_eq!(budget.take(NOW), Err(NOW.plus(SECOND)));
        let half = NOW.plus(SECOND / 2);
        assert_eq!(budget.take(half), Err(NOW.plus(SECOND)));
        assert_eq!(budget.take(NOW.plus(SECOND)), Ok(()));
        assert_eq!(budget.take(NOW.plus(SECOND)), Err(NOW.plus(SECOND * 2)));
    }

    #[test]
    fn each_success_lets_one_more_through_and_no_more_than_were_taken() {
        let mut budget = emptied(3);
        budget.give_back();
        assert_eq!(budget.take(NOW), Ok(()));
        assert_eq!(budget.take(NOW), Err(NOW.plus(SECOND)));
        for _ in 0..100 {
            budget.give_back();
        }
        let taken = (0..100).filter(|_| budget.take(NOW).is_ok()).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn a_clock_that_is_put_back_does_not_keep_it_empty() {
        let mut budget = emptied(3);
        let before = Timestamp(1_000);
        assert_eq!(budget.take(before), Err(before.plus(SECOND)));
        assert_eq!(budget.take(before.plus(SECOND * 1000)), Ok(()));
    }

    #[test]
    fn no_policy_makes_it_panic() {
        for tokens in [0, 1, u32::MAX] {
            for refill in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
                let mut budget = Budget::new(tokens, refill);
                for now in [Timestamp(0), NOW, Timestamp(u64::MAX)] {
                    let _ = budget.take(now);
                    budget.give_back();
                }
            }
        }
    }

    proptest! {
        /// The promise, whoever asks when: in an outage no stretch of time sees more retries than the burst
        /// and what that time gives back.
        #[test]
        fn no_stretch_of_time_sees_more_than_its_share(
            tokens in 1_u32..6,
            pauses in prop::collection::vec(0_u64..3_000_000, 1..60),
        ) {
            let mut budget = Budget::new(tokens, SECOND);
            let mut now = NOW;
            let mut taken = Vec::new();
            for pause in pauses {
                now = now.plus(Duration::from_micros(pause));
                match budget.take(now) {
                    Ok(()) => taken.push(now),
                    Err(at) => prop_assert!(at > now && at.since(now) <= SECOND),
                }
            }
            for (n, from) in taken.iter().enumerate() {
                for (m, to) in taken.iter().enumerate().skip(n) {
                    let share = u64::from(tokens) + to.since(*from).as_secs();
                    prop_assert!((m - n + 1) as u64 <= share);
                }
            }
        }
    }
}
