//! A policy as it was recorded, maybe by another build.

use recount_store::event::Json;
use serde_json::Value;

use super::Policy;

impl Policy {
    /// The policy that was recorded, and the keys of it that this build does not know, which are left aside. A key that
    /// it lacks has its default: the build that recorded it had no such choice, and did what is the default now.
    pub(crate) fn from_recorded(
        Json(bytes): &Json,
    ) -> Result<(Self, Vec<String>), serde_json::Error> {
        let mut policy = serde_json::to_value(Self::default())?;
        let mut unknown = Vec::new();
        lay_over(
            &mut policy,
            serde_json::from_slice(bytes)?,
            "",
            &mut unknown,
        );
        Ok((serde_json::from_value(policy)?, unknown))
    }
}

/// Takes from `recorded` what has a place in `known`, and notes the names of the rest.
fn lay_over(known: &mut Value, recorded: Value, path: &str, unknown: &mut Vec<String>) {
    match (known, recorded) {
        (Value::Object(known), Value::Object(recorded)) => {
            for (key, value) in recorded {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{key}");
                match known.get_mut(&key) {
                    Some(known) => lay_over(known, value, &path, unknown),
                    None => unknown.push(path),
                }
            }
        }
        (known, recorded) => *known = recorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> (Policy, Vec<String>) {
        Policy::from_recorded(&Json(json.into())).expect("it is read")
    }

    #[test]
    fn what_this_build_recorded_is_read_as_it_was() {
        let mut policy = Policy::default();
        policy.session.runs_max = 3;
        policy.connection.retry_tokens = 1;
        let read = Policy::from_recorded(&policy.to_json()).expect("it is read");
        assert_eq!(read, (policy, Vec::new()));
    }

    #[test]
    fn unknown_keys_are_named_and_lacking_ones_have_their_default() {
        let mut policy = Policy::default();
        policy.session.runs_max = 3;
        policy.session.retries.unknown.attempts_max = 2;
        let recorded = r#"{
            "session": {
                "runs_max": 3, "later": {"than": "this"},
                "retries": {"unknown": {"attempts_max": 2, "or_so": true}}
            },
            "service": {"port": 1}
        }"#;
        let unknown = ["service", "session.later", "session.retries.unknown.or_so"];
        let (read, mut keys) = read(recorded);
        keys.sort();
        assert_eq!((read, keys), (policy, unknown.map(str::to_owned).to_vec()));
        assert_eq!(self::read("{}"), (Policy::default(), Vec::new()));
    }

    #[test]
    fn a_value_that_cannot_be_read_is_an_error() {
        for json in [
            "",
            "{",
            r#"{"session": 1}"#,
            r#"{"session": {"rerun": "sometimes"}}"#,
        ] {
            assert!(Policy::from_recorded(&Json(json.into())).is_err(), "{json}");
        }
    }
}
