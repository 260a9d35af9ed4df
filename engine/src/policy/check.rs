//! What a policy has to obey.

use std::time::Duration;

use toml::Value;

use super::{Error, Policy, duration};

/// The longest duration that a policy may name: longer ones are mistyped, or say "never", which nothing here may.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// What may be nothing at all: it is done at once, or not waited for. Every other count and duration must be more.
const MAY_BE_ZERO: [&str; 11] = [
    "connection.held_after",
    "connection.stop_timeout",
    "engine.recovery_max",
    "engine.shut_down_timeout",
    "session.abort_patience",
    "session.agent_retry_max",
    "session.gather",
    "session.idle_after",
    "session.second_look_after",
    "session.stalls_rerun_max",
    "session.unreachable_patience",
];

/// What must not be longer than something else. Besides, no `delay_min` is longer than the `delay_max` beside it.
const ASCENDING: [(&str, &str); 4] = [
    ("session.request_grace", "session.request_grace_max"),
    ("connection.suspect_after", "connection.silence_max"),
    ("connection.silence_max", "connection.silence_answering_max"),
    // Else a server would be stopped that was never given the time to answer.
    (
        "connection.calls.probe_timeout",
        "connection.answer_timeout",
    ),
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
        let keys = self.keys();
        let alone = keys.iter().map(|(key, value)| alone(key, value));
        let pairs = keys.iter().filter_map(|(key, _)| {
            let table = key.strip_suffix(".delay_min")?;
            Some((key.clone(), format!("{table}.delay_max")))
        });
        let named = ASCENDING.map(|(less, more)| (less.to_owned(), more.to_owned()));
        let together = pairs.chain(named).map(|(less, more)| {
            let long = |wanted: &str| {
                let (_, value) = keys.iter().find(|(key, _)| key == wanted)?;
                duration::parse(value.as_str()?)
            };
            ascending((&less, long(&less)), (&more, long(&more)))
        });
        alone
            .chain(together)
            .collect::<Result<(), _>>()
            .map_err(|found| Error::NotAllowed {
                origin: origin.to_owned(),
                key: found.key,
                found: found.found,
                allowed: found.allowed,
            })
    }
}

/// A key, what it says, and what it may say.
struct NotAllowed {
    key: String,
    found: String,
    allowed: String,
}

fn alone(key: &str, value: &Value) -> Result<(), NotAllowed> {
    let refused = |found: &str, allowed: &str| NotAllowed {
        key: key.to_owned(),
        found: found.to_owned(),
        allowed: allowed.to_owned(),
    };
    let may_be_zero = MAY_BE_ZERO.contains(&key);
    match value {
        Value::Integer(0) if !may_be_zero => Err(refused("0", "at least 1")),
        // A text that is no duration is a choice between words.
        Value::String(text) => match duration::parse(text) {
            Some(long) if long > DURATION_MAX => Err(refused(text, "at most 8784h, a year")),
            Some(Duration::ZERO) if !may_be_zero => Err(refused(text, "more than that")),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn ascending(
    (less, short): (&str, Option<Duration>),
    (more, long): (&str, Option<Duration>),
) -> Result<(), NotAllowed> {
    match (short, long) {
        (Some(short), Some(long)) if short > long => Err(NotAllowed {
            key: less.to_owned(),
            found: duration::text(short),
            allowed: format!("at most {more}, which is {}", duration::text(long)),
        }),
        _ => Ok(()),
    }
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
    fn what_is_named_here_is_a_key() {
        let keys = Policy::default().keys();
        let ascending = ASCENDING.iter().flat_map(|(less, more)| [*less, *more]);
        for name in ascending.chain(MAY_BE_ZERO) {
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
