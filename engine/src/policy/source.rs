//! Where a policy comes from: a file, and over it the environment.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use serde::Deserialize as _;
use toml::{Table, Value};

use super::{Error, Policy};

/// What a variable of the environment begins with that sets a key of the policy. The rest is the key in
/// capitals, with its tables and `_` between: `RECOUNT_POLICY_SESSION_RUNS_MAX`.
pub const VARIABLE_PREFIX: &str = "RECOUNT_POLICY_";

impl Policy {
    /// The default policy with what a text says over it, in TOML.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] and [`Error::NotAllowed`].
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        Self::default().with_toml("the policy", text)
    }

    /// The default policy with what a file says over it.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Unreadable`] and [`Error::NotAllowed`].
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::default().with_file(path)
    }

    /// This policy with what a file says over it: for programs whose defaults are others.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Unreadable`] and [`Error::NotAllowed`].
    pub fn with_file(self, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|error| Error::File {
            path: path.to_owned(),
            source: Arc::new(error),
        })?;
        self.with_toml(&path.display().to_string(), &text)
    }

    /// This policy with what a text says over it, in TOML. `origin` is what errors call the text.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] and [`Error::NotAllowed`].
    pub fn with_toml(self, origin: &str, text: &str) -> Result<Self, Error> {
        let said = text
            .parse::<Table>()
            .map_err(|error| unreadable(origin, &error))?;
        let mut table = self.table();
        lay_over(&mut table, said);
        let policy = read(table, origin)?;
        policy.check(origin)?;
        Ok(policy)
    }

    /// This policy with what the environment of the process says over it; see [`VARIABLE_PREFIX`].
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] and [`Error::NotAllowed`].
    pub fn with_environment(self) -> Result<Self, Error> {
        self.with_variables(env::vars_os())
    }

    /// The same, with these variables instead of the environment's. Those with another beginning are passed over.
    ///
    /// # Errors
    ///
    /// [`Error::Unreadable`] and [`Error::NotAllowed`].
    pub fn with_variables(
        mut self,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Error> {
        for (name, value) in variables {
            if let Some(name) = name
                .to_str()
                .filter(|name| name.starts_with(VARIABLE_PREFIX))
            {
                self = self.with_variable(name, &value.to_string_lossy())?;
            }
        }
        // At the end, since two of them may be right only together.
        self.check("the environment")?;
        Ok(self)
    }

    fn with_variable(self, name: &str, text: &str) -> Result<Self, Error> {
        let mut table = self.table();
        let keys = self.keys();
        let Some((key, old)) = keys.iter().find(|(key, _)| variable(key) == name) else {
            return Err(Error::Unreadable {
                origin: name.to_owned(),
                reason: format!("no such key; there are {}", near(name, &keys)),
            });
        };
        let value = match old {
            Value::Integer(_) => text.parse().ok().map(Value::Integer),
            Value::Float(_) => text.parse().ok().map(Value::Float),
            Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
            _ => None,
        };
        // What is none of these is told as the text that it is, by what wanted something else.
        let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
        let said = key.rsplit('.').fold(value, |value, name| {
            Value::Table(Table::from_iter([(name.to_owned(), value)]))
        });
        if let Value::Table(said) = said {
            lay_over(&mut table, said);
        }
        read(table, name)
    }

    /// Each key with its value: `session.runs_max`, 8.
    pub(super) fn keys(&self) -> Vec<(String, Value)> {
        let mut keys = Vec::new();
        list(&self.table(), "", &mut keys);
        keys
    }

    fn table(&self) -> Table {
        Table::try_from(self).expect("counts, texts and tables of them are TOML")
    }
}

/// The variable for a key.
fn variable(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// The variables that begin as this one does; all of them where none does.
fn near(name: &str, keys: &[(String, Value)]) -> String {
    let table = |name: &str| {
        let key = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default();
        key.split('_').next().unwrap_or_default().to_owned()
    };
    let all: Vec<_> = keys.iter().map(|(key, _)| variable(key)).collect();
    let near = |known: &&String| table(known) == table(name);
    let near: Vec<_> = all.iter().filter(near).cloned().collect();
    if near.is_empty() { all } else { near }.join(", ")
}

fn list(table: &Table, above: &str, keys: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        match value {
            Value::Table(inner) => list(inner, &format!("{above}{name}."), keys),
            value => keys.push((format!("{above}{name}"), value.clone())),
        }
    }
}

fn lay_over(table: &mut Table, said: Table) {
    for (name, value) in said {
        match (table.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(said)) => lay_over(below, said),
            (_, value) => {
                table.insert(name, value);
            }
        }
    }
}

fn read(table: Table, origin: &str) -> Result<Policy, Error> {
    Policy::deserialize(table).map_err(|error| unreadable(origin, &error))
}

fn unreadable(origin: &str, error: &toml::de::Error) -> Error {
    let told = error.to_string();
    let told = told.trim_end();
    let reason = match told.rsplit_once("\nin `") {
        Some((wrong, key)) => format!("{}: {wrong}", key.trim_end_matches('`')),
        None => told.to_owned(),
    };
    Error::Unreadable {
        origin: origin.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::policy::{Backoff, RerunPolicy};

    /// The file that shows every key.
    const EXAMPLE: &str = include_str!("../../../recount.toml");

    fn variables(pairs: &[(&str, &str)]) -> Result<Policy, String> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        Policy::default()
            .with_variables(pairs)
            .map_err(|error| error.to_string())
    }

    fn refused(text: &str) -> String {
        let refused = Policy::default().with_toml("recount.toml", text);
        refused.unwrap_err().to_string()
    }

    #[test]
    fn the_example_has_every_key_with_its_default() {
        assert_eq!(Policy::from_toml(EXAMPLE).unwrap(), Policy::default());
        let names = |keys: Vec<(String, Value)>| -> BTreeSet<String> {
            keys.into_iter().map(|(key, _)| key).collect()
        };
        let mut shown = Vec::new();
        list(&EXAMPLE.parse().unwrap(), "", &mut shown);
        assert_eq!(names(shown), names(Policy::default().keys()));
    }

    #[test]
    fn each_key_has_a_reason_in_the_example() {
        let mut before = "";
        for line in EXAMPLE.lines() {
            let says_something = !line.is_empty() && !line.starts_with('#');
            assert!(
                !says_something || before.starts_with('#'),
                "nothing is said about {line}"
            );
            before = line;
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let mut policy = Policy::default();
        policy.session.rerun = RerunPolicy::Never;
        policy.session.gather = Duration::from_micros(1_500);
        policy.session.turn_max = Duration::from_secs(3661);
        policy.connection.backoff = Backoff {
            delay_min: Duration::from_nanos(1),
            delay_max: Duration::from_secs(86_400),
        };
        assert_eq!(Policy::from_toml(&policy.to_toml()).unwrap(), policy);
        let json = policy.to_json();
        assert_eq!(serde_json::from_slice::<Policy>(&json.0).unwrap(), policy);
    }

    #[test]
    fn a_file_says_what_is_other_and_nothing_else() {
        let text = "[session.look_backoff]\ndelay_max = '1m'\n[log]\nkeep_frames = false";
        let mut expected = Policy::default();
        expected.session.look_backoff.delay_max = Duration::from_secs(60);
        expected.log.keep_frames = false;
        assert_eq!(Policy::from_toml(text).unwrap(), expected);
        assert_eq!(Policy::from_toml("").unwrap(), Policy::default());
    }

    #[test]
    fn each_key_has_one_variable() {
        let keys = Policy::default().keys();
        let names: BTreeSet<_> = keys.iter().map(|(key, _)| variable(key)).collect();
        assert_eq!(names.len(), keys.len());
        // Its own value in its variable changes nothing, whatever kind it is of.
        let same = keys.iter().map(|(key, value)| {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            (variable(key).into(), text.into())
        });
        let policy = Policy::default().with_variables(same).unwrap();
        assert_eq!(policy, Policy::default());
    }

    #[test]
    fn the_environment_goes_over_it() {
        let mut expected = Policy::default();
        expected.session.runs_max = 3;
        expected.session.rerun = RerunPolicy::Auto;
        expected.connection.backoff.delay_min = Duration::from_secs(2);
        expected.log.keep_frames = false;
        let found = variables(&[
            ("RECOUNT_POLICY_SESSION_RUNS_MAX", "3"),
            ("RECOUNT_POLICY_SESSION_RERUN", "auto"),
            ("RECOUNT_POLICY_CONNECTION_BACKOFF_DELAY_MIN", "2s"),
            ("RECOUNT_POLICY_LOG_KEEP_FRAMES", "false"),
            ("RECOUNT_POLICY", "not-a-key.toml"),
            ("RECOUNT_DATA", "/data"),
        ]);
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn an_error_says_where_which_and_what_is_allowed() {
        let told = [
            refused("session = 3"),
            refused("[session]\nrerun = 'maybe'"),
            refused("[session]\nturn_max = 30"),
            refused("[session]\nturn_max = 'soon'"),
            refused("[log]\nkeep_frame = true"),
            refused("[session]\nruns_max = 0"),
            refused("[session]\nturn_max = '0s'"),
            refused("[session]\nruns_max = -1"),
            refused("[session.look_backoff]\ndelay_min = '1h'"),
            refused("session.runs_max ="),
            variables(&[("RECOUNT_POLICY_SESSION_RUNS_MAX", "three")]).unwrap_err(),
            variables(&[("RECOUNT_POLICY_LOG_FRAMES", "3")]).unwrap_err(),
            variables(&[("RECOUNT_POLICY_SESSION_RUNS_MAX", "0")]).unwrap_err(),
        ];
        let duration = r#"a duration with its unit, such as "250ms", "30s", "5m" or "24h""#;
        let expected = [
            "recount.toml: session: invalid type: integer `3`, expected struct SessionPolicy".into(),
            "recount.toml: session.rerun: unknown variant `maybe`, expected one of `auto`, `ask`, `never`".into(),
            format!("recount.toml: session.turn_max: invalid type: integer `30`, expected {duration}"),
            format!("recount.toml: session.turn_max: invalid value: string \"soon\", expected {duration}"),
            "recount.toml: log: unknown field `keep_frame`, expected `keep_frames` or `settle_bytes`".into(),
            "recount.toml: session.runs_max is 0; it must be at least 1".into(),
            "recount.toml: session.turn_max is 0s; it must be more than that".into(),
            "recount.toml: session.runs_max: invalid value: integer `-1`, expected u32".into(),
            "recount.toml: session.look_backoff.delay_min is 1h; it must be at most session.look_backoff.delay_max, which is 30s"
                .into(),
            "recount.toml: TOML parse error at line 1, column 19
  |
1 | session.runs_max =
  |                   ^
string values must be quoted, expected literal string"
                .into(),
            "RECOUNT_POLICY_SESSION_RUNS_MAX: session.runs_max: invalid type: string \"three\", expected u32"
                .into(),
            "RECOUNT_POLICY_LOG_FRAMES: no such key; there are RECOUNT_POLICY_LOG_KEEP_FRAMES, \
             RECOUNT_POLICY_LOG_SETTLE_BYTES"
                .into(),
            "the environment: session.runs_max is 0; it must be at least 1".into(),
        ];
        let expected: [String; 13] = expected;
        assert_eq!(told, expected);
    }
}
