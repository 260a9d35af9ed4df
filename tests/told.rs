//! What each verb tells of the logs that are kept to look back at: output, error and exit code together.
//!
//! One file for each log and verb, in `tests/told`: each command as it was typed, and what came. `UPDATE_EXPECT=1` writes
//! them anew. Full-screen verbs have tests of their own, and so has what starts an engine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

use expect_test::expect_file;
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use recount_tests::process::{Finished, Running};

/// From when ages are told: after the last of the logs.
const NOW: &str = "2026-11-09T00:00:00Z";

/// A verb, and the commands that are made of it.
type Case = (&'static str, &'static [&'static [&'static str]]);

/// Verbs that look back.
const LOOKING: [Case; 15] = [
    ("sessions", &[&["sessions"], &["sessions", "--json"]]),
    (
        "show",
        &[
            &["show", "latest"],
            &["show", "latest", "--at", "9"],
            &["show", "latest", "--at", "2026-11-01T00:00:00Z"],
            &["show", "nobody"],
        ],
    ),
    (
        "log",
        &[
            &["log", "latest", "--limit", "24"],
            &["log", "latest", "--reverse", "--limit", "6", "--frames"],
            &["log", "latest", "--limit", "3", "--json"],
        ],
    ),
    (
        "frames",
        &[
            &["frames", "--limit", "4"],
            &["frames", "--from", "3", "--limit", "1", "--json"],
            &["frames", "--from", "999999999"],
        ],
    ),
    ("replay", &[&["replay", "latest", "--instant"]]),
    (
        "replay-wire",
        &[
            &["replay", "latest", "--wire"],
            &["replay", "latest", "--wire", "--json"],
        ],
    ),
    (
        "verify",
        &[
            &["verify"],
            &["verify", "--json"],
            &["verify", "latest"],
            &["verify", "--signed", "/dev/null"],
        ],
    ),
    (
        "verify-decisions",
        &[
            &["verify", "--decisions"],
            &["verify", "latest", "--decisions", "--json"],
        ],
    ),
    (
        "whatif",
        &[
            &["whatif", "latest", "--policy", "/dev/null", "--different"],
            &["whatif", "latest", "--policy", "never.toml"],
            &["whatif", "latest", "--policy", "wrong.toml"],
        ],
    ),
    ("sign", &[&["sign", "--key", "/dev/null"]]),
    (
        "find",
        &[
            &["find", "--error", "--limit", "8"],
            &[
                "find",
                "--type",
                "MessageDeadLettered",
                "--limit",
                "2",
                "--json",
            ],
            &[
                "find",
                "--longer-than",
                "10m",
                "--newest-first",
                "--limit",
                "3",
            ],
            &["find", "--text", "nothing is like that"],
        ],
    ),
    (
        "bisect",
        &[
            &["bisect", "latest", "queue.open > 0"],
            &["bisect", "latest", "queue.open > 99"],
            &["bisect", "latest", "queue.open >"],
        ],
    ),
    (
        "why",
        &[
            &["why", "latest", "last"],
            &["why", "latest", "9", "--effects"],
            &["why", "latest", "99999"],
        ],
    ),
    ("diff", &[&["diff", "latest", "3", "8"]]),
    (
        "export",
        &[&[
            "export", "latest", "--format", "markdown", "--out", "out.md",
        ]],
    ),
];

/// Verbs that change a log: each begins with a copy of its own.
const CHANGING: [Case; 5] = [
    ("close", &[&["close", "latest"], &["close", "latest"]]),
    (
        "cut",
        &[
            &["cut", "latest", "--before", "5", "--dry-run"],
            &["cut", "latest", "--all"],
            &["cut", "engine", "--all"],
        ],
    ),
    (
        "retain",
        &[
            &["retain", "--older-than", "0s", "--dry-run"],
            &["retain", "--frames-older-than", "0s", "--dry-run"],
        ],
    ),
    ("compact", &[&["compact", "--json"]]),
    ("rebuild", &[&["rebuild"], &["verify"]]),
];

/// A log with what the commands need beside it.
fn prepared(name: &str) -> Place {
    let log = fixture(name);
    let write =
        |file: &str, text: &str| std::fs::write(log.data().with_file_name(file), text).unwrap();
    write("never.toml", "session.rerun = 'never'\n");
    write("wrong.toml", "session.reruns = 1\n");
    log
}

/// Each command as it was typed, and what came.
fn told(log: &Place, commands: &[&[&str]]) -> String {
    let mut told = String::new();
    for args in commands {
        let mut command = log.command(args);
        command.env("RECOUNT_NOW", NOW);
        let finished = Running::spawn(&mut command).finish(recount_tests::command::VERB_TIMEOUT);
        let Finished {
            status,
            stdout,
            stderr,
        } = finished;
        writeln!(told, "$ recount {}", args.join(" ")).unwrap();
        told.push_str(&stdout);
        if !stderr.is_empty() {
            write!(told, "--- stderr\n{stderr}").unwrap();
        }
        writeln!(told, "--- exit {}\n", status.code().unwrap()).unwrap();
    }
    let here = log.data().parent().unwrap().to_str().unwrap().to_owned();
    told.replace(&here, "HERE")
}

fn check(name: &str) {
    let kept = |verb: &str| Path::new("told").join(name).join(format!("{verb}.txt"));
    let log = prepared(name);
    for (verb, commands) in LOOKING {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(kept(verb));
        expect_file![path].assert_eq(&told(&log, commands));
    }
    for (verb, commands) in CHANGING {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(kept(verb));
        expect_file![path].assert_eq(&told(&prepared(name), commands));
    }
}

#[test]
fn a_day_without_faults() {
    check("clean");
}

#[test]
fn a_week_of_incidents() {
    check("week");
}

#[test]
fn a_log_whose_end_is_torn() {
    check("torn");
}

#[test]
fn a_log_of_which_the_half_is_missing() {
    check("short");
}

#[test]
fn a_mangled_log() {
    check("mangled");
}

#[test]
fn a_log_with_an_event_of_a_newer_release() {
    check("newer_event");
}

#[test]
fn a_log_in_a_newer_format() {
    check("newer_format");
}
