//! What each verb tells of the logs that are kept to look back at: output, error and exit code together.
//!
//! One file for each log and verb, in `tests/command/told`: each command as it was typed, and what came. `UPDATE_EXPECT=1` writes
//! them anew. A verb that is missing here fails a test.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use recount_tests::command::verbs;
use recount_tests::files::{contents, set_mode};
use recount_tests::fixture::{FIXTURES, fixture};
use recount_tests::place::Place;
use recount_tests::process::{Finished, recount};
use regex::{Captures, Regex};

/// From when ages are told: after the last of the logs.
const NOW: &str = "2026-11-09T00:00:00Z";

/// What a file tells of, and the commands in it.
type Case = (&'static str, &'static [&'static [&'static str]]);

/// What looks back, and changes nothing in the data directory.
const LOOKING: &[Case] = &[
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
    (
        "sign",
        &[
            &["sign", "--key", "/dev/null"],
            &["sign", "--key", "key.pem"],
        ],
    ),
    (
        "dead-letters",
        &[
            &["dead-letters"],
            &["dead-letters", "--session", "latest", "--json"],
        ],
    ),
    (
        "incidents",
        &[
            &["incidents", "--since", "2026-11-08T20:00:00Z"],
            &["incidents", "latest"],
            &["incidents", "i1"],
            &["incidents", "--open", "--json"],
        ],
    ),
    (
        "step",
        &[&["step", "latest"], &["step", "latest", "--json"]],
    ),
    (
        "doctor",
        &[
            &["doctor"],
            &["doctor", "--quick", "--json"],
            &["doctor", "nowhere"],
        ],
    ),
    (
        "salvage",
        &[
            &["salvage", "data", "--into", "rescued"],
            &["salvage", "data", "--into", "rescued"],
            &["doctor", "rescued"],
        ],
    ),
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
        &[
            &[
                "export", "latest", "--format", "markdown", "--out", "out.md",
            ],
            &["export", "latest", "--format", "trace", "--out", "out.json"],
            &["export", "latest", "--format", "otlp", "--out", "out.otlp"],
        ],
    ),
    (
        "import",
        &[
            &["export", "--all", "--out", "all.jsonl"],
            &["import", "all.jsonl", "--into", "imported"],
            &["import", "all.jsonl", "--into", "imported"],
            &["import", "out.md", "--into", "other"],
        ],
    ),
    (
        "bundle",
        &[
            &["sign", "--key", "key.pem", "--out", "head.json"],
            &[
                "bundle",
                "latest",
                "--signed",
                "head.json",
                "--out",
                "session.bundle",
            ],
            &["bundle", "--check", "session.bundle"],
        ],
    ),
];

/// What changes a log: each begins with a copy of its own.
const CHANGING: &[Case] = &[
    ("close", &[&["close", "latest"], &["close", "latest"]]),
    (
        "cut",
        &[
            &["cut", "latest", "--before", "5", "--dry-run"],
            &["cut", "latest", "--all"],
            &["close", "latest"],
            &["cut", "latest", "--before", "5"],
            &["cut", "engine", "--all"],
        ],
    ),
    (
        "retain",
        &[
            &["retain", "--older-than", "0s", "--dry-run"],
            &["retain", "--frames-older-than", "0s", "--dry-run"],
            &["retain", "--frames-older-than", "0s"],
        ],
    ),
    ("compact", &[&["compact", "--json"]]),
    ("rebuild", &[&["rebuild"], &["verify"]]),
    ("requeue", &[&["requeue", "latest"]]),
    (
        "fork",
        &[
            &["fork", "latest"],
            &["show", "latest"],
            &["fork", "latest", "--at", "3"],
            &["fork", "nobody"],
        ],
    ),
    (
        "resolve",
        &[&["resolve", "latest"], &["resolve", "latest", "rerun"]],
    ),
    (
        "recover",
        &[
            &["recover", "--policy", "quick.toml"],
            &["recover", "--json"],
        ],
    ),
    (
        "run",
        &[
            &[
                "run",
                "--agent",
                "scripted",
                "--key",
                "once",
                "script: words=3 delay=1ms",
            ],
            &[
                "run",
                "--agent",
                "scripted",
                "--session",
                "latest",
                "--key",
                "once",
                "script: words=3 delay=1ms",
            ],
        ],
    ),
    ("demo", &[&["demo"]]),
];

/// What is asked of no log: it is the same beside each of them.
const OF_NONE: &[Case] = &[
    (
        "policy",
        &[
            &["policy"],
            &["policy", "check", "never.toml"],
            &["policy", "check", "wrong.toml"],
            &["policy", "check", "nowhere.toml"],
        ],
    ),
    (
        "key",
        &[
            &["key", "new", "new.pem"],
            &["key", "new", "new.pem"],
            &["key", "new", "other.pem", "--json"],
        ],
    ),
    (
        "man",
        &[&["man", "--out", "pages"], &["man", "--out", "never.toml"]],
    ),
    ("completions", &[&["completions", "klingon"]]),
];

/// A key to sign with; nothing but these logs was ever signed with it.
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIEGQnxG5VkRm7TH4JwsiksLkSPvQ2K8mA2lgQIxC80gn
-----END PRIVATE KEY-----
";

/// A log with what the commands need beside it.
fn prepared(name: &str) -> Place {
    let log = fixture(name);
    for (file, text) in [
        ("never.toml", "session.rerun = 'never'\n"),
        ("wrong.toml", "session.reruns = 1\n"),
        (
            "quick.toml",
            "[connection.backoff]\ndelay_min = '1ms'\ndelay_max = '1ms'\n",
        ),
        ("key.pem", KEY),
    ] {
        log.write(file, text);
        set_mode(&log.path(file), 0o600);
    }
    log
}

/// Each command as it was typed, and what came.
fn told(log: &Place, (about, commands): Case) -> String {
    let mut told = String::new();
    for args in commands {
        let mut command = log.command(args);
        command.env("RECOUNT_NOW", NOW);
        let finished = Finished::of(&mut command);
        writeln!(told, "$ recount {}\n{}", args.join(" "), finished.text()).unwrap();
    }
    let here = log.folder().to_str().unwrap();
    let program = recount().to_str().unwrap().to_owned();
    let told = told.replace(here, "HERE").replace(&program, "recount");
    steady(about, &told)
}

/// The text without what is another one each time.
fn steady(about: &str, told: &str) -> String {
    let replace = |text: &str, pattern: &str, by: &str| {
        let pattern = Regex::new(pattern).unwrap();
        pattern.replace_all(text, by).into_owned()
    };
    // What happens now; the logs are of the first days of November.
    let time = Regex::new(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?").unwrap();
    let told = time.replace_all(told, |found: &Captures<'_>| {
        let of_the_log = found[0].starts_with("2026-11-0");
        if of_the_log { &found[0] } else { "NOW" }.to_owned()
    });
    let told = replace(&told, r#""at_us":\d+"#, r#""at_us":NOW"#);
    let told = replace(&told, r"\b[0-9a-f]{128}\b", "SIGNATURE");
    let told = replace(&told, r"\bpid \d+", "pid PID");
    match about {
        "run" | "requeue" | "fork" => replace(&told, r"\b[0-9a-z]{16}\b", "ID"),
        "recover" => {
            let told = replace(&told, r"(trying again in|none for) [0-9.]+ m?s", "$1 SOON");
            // The system's own words for it.
            replace(&told, r"(lookup address information): .*", "$1: ...")
        }
        "key" => replace(&told, r"\b[0-9a-f]{64}\b", "PUBLIC-KEY"),
        // How its fall is seen, and what is written at which moment, is another race each time.
        "demo" => {
            let told = replace(&told, r"(?s)\n> What .*\n= completed\n", "\n...\n");
            let told = replace(&told, r"(?s)\nThe same as .*\nWhat came", "\nWhat came");
            let told = replace(&told, r"\b[0-9a-z]{16}\b", "ID");
            replace(&told, r"--at \d+", "--at N")
        }
        _ => told,
    }
}

/// Where it is kept what is told of a log.
fn kept(log: &str, about: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("command/told");
    folder.join(log).join(format!("{about}.txt"))
}

fn check(name: &str) {
    let log = prepared(name);
    let before = contents(&log.data());
    for case in LOOKING {
        expect_file![kept(name, case.0)].assert_eq(&told(&log, *case));
    }
    assert!(contents(&log.data()) == before, "it was only looked at");
    for case in OF_NONE {
        expect_file![kept("none", case.0)].assert_eq(&told(&log, *case));
    }
    for case in CHANGING {
        expect_file![kept(name, case.0)].assert_eq(&told(&prepared(name), *case));
    }
}

#[test]
fn every_verb_is_told_of() {
    let cases = [LOOKING, CHANGING, OF_NONE].concat();
    let commands = cases.iter().flat_map(|(_, commands)| *commands);
    let told: BTreeSet<&str> = commands.map(|args| args[0]).collect();
    let verbs = verbs();
    let verbs: BTreeSet<&str> = verbs.iter().map(String::as_str).collect();
    assert_eq!(told, verbs);
}

#[test]
fn nothing_is_kept_that_nobody_tells() {
    let of = |log: &str, cases: &[&[Case]]| -> BTreeSet<PathBuf> {
        let cases = cases.concat();
        cases.iter().map(|(about, _)| kept(log, about)).collect()
    };
    let mut told = of("none", &[OF_NONE]);
    told.extend(
        FIXTURES
            .iter()
            .flat_map(|name| of(name, &[LOOKING, CHANGING])),
    );
    let files = |folder: PathBuf| -> Vec<PathBuf> {
        let files = fs::read_dir(folder).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    };
    let all = files(Path::new(env!("CARGO_MANIFEST_DIR")).join("command/told"));
    let found: BTreeSet<PathBuf> = all.into_iter().flat_map(files).collect();
    // One that lacks is missed where it is told.
    let left_over: Vec<_> = found.difference(&told).collect();
    assert!(left_over.is_empty(), "{left_over:?}");

    let logs = files(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    let logs = logs.iter().filter(|path| path.is_dir());
    let logs: BTreeSet<&str> = logs
        .map(|path| path.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(logs, FIXTURES.into());
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
