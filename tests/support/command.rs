//! The `recount` command, run in a home, and what it prints for machines.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::opencode::Home;
use crate::process::terminal::Terminal;
use crate::process::{Finished, recount};

/// Longer than any verb may take, on a machine that does much else.
pub const VERB_TIMEOUT: Duration = Duration::from_secs(120);

/// A verb of `recount`, on the data of this home.
pub fn verb(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(recount());
    command.env("RECOUNT_DATA", home.path("recount")).args(args);
    command
}

/// The verbs that `recount --help` lists.
pub fn verbs() -> Vec<String> {
    let help = Finished::of(Command::new(recount()).arg("--help")).printed();
    let verbs = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Lines that go on with what is said of a verb begin farther in.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .map(str::to_owned);
    let verbs: Vec<String> = verbs.collect();
    assert!(verbs.iter().any(|verb| verb == "whatif"), "{help}");
    verbs
}

/// Runs a verb on a terminal.
pub fn on_terminal(home: &Home, args: &[&str]) -> Terminal {
    Terminal::run(&verb(home, args))
}

/// Runs a verb to its end.
pub fn finish(home: &Home, args: &[&str]) -> Finished {
    Finished::of(&mut verb(home, args))
}

/// Runs a verb that is to succeed, and gives the objects that it prints, one a line.
#[track_caller]
pub fn json_of(home: &Home, args: &[&str]) -> Vec<Value> {
    finish(home, args).json()
}

/// The same, of a verb that prints one.
#[track_caller]
pub fn object_of(home: &Home, args: &[&str]) -> Value {
    finish(home, args).object()
}

/// The objects in lines of JSON.
#[track_caller]
pub fn objects<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Value> {
    let object = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"))
    };
    lines.into_iter().map(object).collect()
}
