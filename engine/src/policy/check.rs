//! What a policy has to obey.

use std::time::Duration;

use toml::Value;

use super::{Backoff, Error, Policy, duration};

/// The longest duration that a policy may name: longer ones are mistyped, or say "never", which nothing here may.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What may be nothing at all: it is done at once, or not waited for. Every other count and duration must be more.
const MAY_BE_ZERO: [&str; 10] = [
    "connection.held_after",
    "connection.stop_timeout",
    "engine.recovery_max",
    "engine.shut_down_timeout",
    "session.abort_patience",
    "session.agent_retry_max",
    "session.gather",
    "session.idle_after",
    "session.second_look_after",
    "session.unreachable_patience",
];

impl Policy {
    /// Whether this policy can work.
    ///
    /// # Errors
    ///
    /// [`Error::NotAllowed`] for the first key that cannot.
    pub fn validate(&self) -> Result<(), Error> {
        self.check("the policy")
    }

    /// The same; `origin` is what errors call where it comes from.
    pub(super) fn check(&self, origin: &str) -> Result<(), Error> {
        self.each_alone()
            .and_then(|()| self.together())
            .map_err(|found| Error::NotAllowed {
                origin: origin.to_owned(),
                key: found.key,
                found: found.found,
                allowed: found.allowed,
            })
    }

    fn each_alone(&self) -> Result<(), NotAllowed> {
        for (key, value) in self.keys() {
            let (zero, allowed) = match &value {
                Value::Integer(count) => (*count == 0, "at least 1"),
                // A text that is no duration is a choice between words.
                Value::String(text) => match duration::parse(text) {
                    Some(long) if long > DURATION_MAX => {
                        return Err(NotAllowed::new(&key, text, "at most 8784h, a year"));
                    }
                    Some(duration) => (duration.is_zero(), "more than that"),
                    None => (false, ""),
                },
                _ => (false, ""),
            };
            if zero && !MAY_BE_ZERO.contains(&key.as_str()) {
                let text = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                return Err(NotAllowed::new(&key, text, allowed));
            }
        }
        Ok(())
    }

    fn together(&self) -> Result<(), NotAllowed> {
        let Self {
            session,
            connection,
            ..
        } = self;
        let retries = &session.retries;
        backoff(
            "session.retries.never_sent.backoff",
            retries.never_sent.backoff,
        )?;
        backoff("session.retries.for_now.backoff", retries.for_now.backoff)?;
        backoff("session.retries.for_good.backoff", retries.for_good.backoff)?;
        backoff("session.retries.unknown.backoff", retries.unknown.backoff)?;
        backoff("session.look_backoff", session.look_backoff)?;
        backoff("connection.backoff", connection.backoff)?;
        backoff("connection.circuit", connection.circuit)?;
        ascending(
            ("session.request_grace", session.request_grace),
            ("session.request_grace_max", session.request_grace_max),
        )?;
        ascending(
            ("connection.suspect_after", connection.suspect_after),
            ("connection.silence_max", connection.silence_max),
        )?;
        ascending(
            ("connection.silence_max", connection.silence_max),
            (
                "connection.silence_answering_max",
                connection.silence_answering_max,
            ),
        )
    }
}

/// A key, what it says, and what it may say.
struct NotAllowed {
    key: String,
    found: String,
    allowed: String,
}

impl NotAllowed {
    fn new(key: &str, found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            found: found.into(),
            allowed: allowed.into(),
        }
    }
}

fn backoff(table: &str, backoff: Backoff) -> Result<(), NotAllowed> {
    ascending(
        (&format!("{table}.delay_min"), backoff.delay_min),
        (&format!("{table}.delay_max"), backoff.delay_max),
    )
}

fn ascending(less: (&str, Duration), more: (&str, Duration)) -> Result<(), NotAllowed> {
    if less.1 <= more.1 {
        return Ok(());
    }
    let allowed = format!("at most {}, which is {}", more.0, duration::text(more.1));
    Err(NotAllowed::new(less.0, duration::text(less.1), allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Policy)) -> String {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_default_can_work() {
        Policy::default().validate().unwrap();
    }

    #[test]
    fn what_may_be_zero_is_a_key() {
        let keys = Policy::default().keys();
        for name in MAY_BE_ZERO {
            assert!(keys.iter().any(|(key, _)| key == name), "{name}");
        }
    }

    #[test]
    fn every_other_count_and_duration_is_refused_at_zero() {
        for (key, value) in Policy::default().keys() {
            let zero = match value {
                Value::Integer(_) => "0",
                Value::String(text) if duration::parse(&text).is_some() => "'0s'",
                _ => continue,
            };
            let read = Policy::from_toml(&format!("{key} = {zero}"));
            assert_eq!(
                read.is_ok(),
                MAY_BE_ZERO.contains(&key.as_str()),
                "{key}: {read:?}"
            );
        }
    }

    #[test]
    fn what_depends_on_something_else_names_both() {
        let hour = Duration::from_secs(3600);
        let told = [
            refused(|policy| policy.connection.circuit.delay_min = hour),
            refused(|policy| policy.session.request_grace = hour),
            refused(|policy| policy.connection.suspect_after = hour),
            refused(|policy| policy.connection.silence_max = hour),
            refused(|policy| policy.session.turn_max = 100_000 * hour),
        ];
        let expected = [
            "the policy: connection.circuit.delay_min is 1h; it must be at most connection.circuit.delay_max, which is 1m",
            "the policy: session.request_grace is 1h; it must be at most session.request_grace_max, which is 1m",
            "the policy: connection.suspect_after is 1h; it must be at most connection.silence_max, which is 40s",
            "the policy: connection.silence_max is 1h; it must be at most connection.silence_answering_max, which is 1m",
            "the policy: session.turn_max is 100000h; it must be at most 8784h, a year",
        ];
        assert_eq!(told, expected);
    }
}
