//! `recount incidents` as its text, on the logs that are kept for that; and the guide that begins with it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, iter};

use expect_test::{expect, expect_file};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::fixture::fixture;
use recount_tests::process::{Running, recount};
use serde_json::Value;

#[test]
fn a_week_of_incidents() {
    let week = fixture("week");
    expect_file!["snapshots/incidents_week.txt"].assert_eq(&week.told(&["incidents"]));
}

#[test]
fn only_some_of_them() {
    let week = fixture("week");
    let told = [
        &["incidents", "--open"][..],
        &["incidents", "--kind", "panic"],
        &[
            "incidents",
            "--kind",
            "dead-letter",
            "--until",
            "2026-11-03T00:00:00Z",
        ],
        &["incidents", "--since", "2026-11-08T20:00:00Z"],
        &["incidents", "--session", "yrrtr0"],
        &["incidents", "--session", "yrrtr0", "--open"],
    ]
    .map(|args| format!("$ recount {}\n{}", args.join(" "), week.told(args)));
    expect![[r#""#]].assert_eq(&told.concat());
}

#[test]
fn one_is_reported() {
    let week = fixture("week");
    // It ended by a person's word, with two sessions in it.
    expect![[r#""#]].assert_eq(&week.told(&["incidents", "i318"]));
    // It is open, and its events are too many to be told.
    expect![[r#""#]].assert_eq(&week.told(&["incidents", "latest"]));
    // Nobody knows why an engine crashed.
    let crash = week.told(&["incidents", "--kind", "crash"]);
    let name = crash.lines().nth(1).unwrap().split(' ').next().unwrap();
    expect![[r#""#]].assert_eq(&week.told(&["incidents", name]));
}

#[test]
fn any_event_of_an_incident_names_it() {
    let week = fixture("week");
    let by_name = week.told(&["incidents", "i318", "--json"]);
    let incident: Value = serde_json::from_str(by_name.lines().next().unwrap()).unwrap();
    assert_eq!(incident["incident"], "i318");
    let positions: Vec<_> = incident["evidence"].as_array().unwrap().iter().collect();
    let timeline = incident["timeline"].as_array().unwrap().iter();
    let told: Vec<_> = timeline.map(|event| &event["position"]).collect();
    assert_eq!(positions, told);
    let last = format!("i{}", told.last().unwrap());
    assert_eq!(week.told(&["incidents", &last, "--json"]), by_name);
}

#[test]
fn json_has_the_same_incidents_as_the_table() {
    let week = fixture("week");
    let names = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with("---"));
        lines
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let of_json = |line: &str| -> Value { serde_json::from_str(line).unwrap() };
    let json = week.run(&["incidents", "--json"]).stdout;
    let json: Vec<_> = json.lines().map(of_json).collect();
    let in_json: Vec<_> = json
        .iter()
        .map(|row| row["incident"].as_str().unwrap())
        .collect();
    assert_eq!(names(&week.told(&["incidents"])), in_json);
    for row in json {
        assert_eq!(row["open"], Value::from(row["end"].is_null()), "{row}");
    }
}

#[test]
fn logs_in_any_state() {
    let names = [
        "clean",
        "torn",
        "newer_event",
        "mangled",
        "short",
        "newer_format",
    ];
    let told = names.map(|name| format!("{name}: {}", fixture(name).told(&["incidents"])));
    expect![[r#""#]].assert_eq(&told.concat());
}

#[test]
fn what_is_no_incident() {
    let clean = fixture("clean");
    let told = [
        &["incidents", "i7"][..],
        &["incidents", "latest"],
        &["incidents", "seven"],
        &["incidents", "i7", "--open"],
        &["incidents", "--kind", "bad-luck"],
    ]
    .map(|args| format!("$ recount {}\n{}", args.join(" "), clean.told(args)));
    expect![[r#""#]].assert_eq(&told.concat());
}

// ---- the guide

fn guide() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("docs/incident.md")
}

/// What the commands of the guide print is what stands in it, but for names, numbers and times. `UPDATE_EXPECT=1`
/// writes it anew.
#[test]
fn the_guide_tells_what_happens() {
    let written = fs::read_to_string(guide()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut lived = String::new();
    let mut in_block = false;
    for line in written.lines() {
        match (in_block, line.strip_prefix("$ ")) {
            (false, _) => in_block = line == "```console",
            (true, _) if line == "```" => in_block = false,
            (true, Some(command)) => {
                lived.push_str(&format!("{line}\n{}", shell(folder.path(), command)));
                continue;
            }
            // What it printed for whoever wrote the guide.
            (true, None) => continue,
        }
        lived.push_str(line);
        lived.push('\n');
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(guide(), &lived).unwrap();
        return;
    }
    assert_eq!(shape(&lived), shape(&written));
}

/// Has a shell do what a line of the guide says, and gives what it prints.
fn shell(folder: &Path, line: &str) -> String {
    let bin = recount().parent().unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec 2>&1; {line}")])
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", path)
        .env("TZ", "UTC")
        .env("RECOUNT_DATA", folder.join("night"));
    let finished = Running::spawn(&mut command).finish(VERB_TIMEOUT);
    assert!(finished.status.success(), "{line}: {finished:#?}");
    finished.stdout.replace(folder.to_str().unwrap(), "~")
}

/// A text without what is different each time: ids, numbers, times, and how wide columns are for them.
fn shape(text: &str) -> String {
    let is_id = |word: &&str| {
        word.len() == 16
            && word
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    };
    let words = || text.split(|c: char| !c.is_ascii_alphanumeric());
    let ids: BTreeSet<&str> = words()
        .filter(is_id)
        .filter(|id| id.bytes().any(|b| b.is_ascii_digit()))
        .collect();
    let mut text = text.to_owned();
    for id in &ids {
        text = text.replace(id, "ID").replace(&id[..6], "ID");
    }
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().map(masked).collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        // `350 ms`, `4.2 s`
        for at in 1..words.len() {
            if words[at - 1].ends_with('N') && ["ms", "s", "min"].contains(&words[at]) {
                words[at] = "TIME";
            }
        }
        out.push_str(&words.join(" "));
        out.push('\n');
    }
    out
}

/// A word with N for each number in it.
fn masked(word: &str) -> String {
    let mut out = String::new();
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_digit() {
            out.push(c);
            continue;
        }
        out.push('N');
        let more = |c: &char| c.is_ascii_digit() || *c == '.';
        iter::from_fn(|| chars.next_if(more)).for_each(drop);
    }
    out
}
