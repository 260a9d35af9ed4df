//! The architecture as a test: what a part must not know, its code must not name.
//!
//! Only absences are checked, in code and not in comments; ARCHITECTURE.md says why each holds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// What the files below `folder` must not name; test code is free.
fn check(folder: &str, except: &[&str], words: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let files = sources(&root.join(folder));
    assert!(!files.is_empty(), "{folder} holds no code: has it moved?");
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().display().to_string();
        if except.iter().any(|free| name.starts_with(free)) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        // Unit tests stand at the end of a file.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (number, line) in code.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{name}:{}: {word}", number + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "{folder} names what it must not know:\n{}",
        found.join("\n")
    );
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

const CLOCKS_AND_CHANCE: [&str; 5] = [
    "SystemTime",
    "Instant::now",
    "getrandom",
    "thread::sleep",
    "Clock",
];

#[test]
fn machines_know_no_runtime_no_network_and_no_clock() {
    let outside = [
        "tokio",
        "reqwest",
        "hyper",
        "std::fs",
        "std::net",
        "std::process",
        "async ",
    ];
    let tests = [
        "engine/src/machine/session/tests",
        "engine/src/machine/connection/tests",
    ];
    check("engine/src/machine", &tests, &outside);
    check("engine/src/machine", &tests, &CLOCKS_AND_CHANCE);
}

#[test]
fn projections_know_no_files_no_network_and_no_clock() {
    let outside = [
        "tokio",
        "reqwest",
        "std::fs",
        "std::net",
        "std::process",
        "recount_engine",
    ];
    check("projections/src", &[], &outside);
    check("projections/src", &[], &CLOCKS_AND_CHANCE);
}

#[test]
fn adapters_know_no_log_and_no_projections() {
    let outside = [
        "recount_projections",
        "Log::",
        "crate::machine",
        "crate::shell",
    ];
    check("engine/src/adapter", &[], &outside);
}

#[test]
fn the_store_knows_neither_what_events_mean_nor_who_sends_them() {
    check(
        "store/src",
        &[],
        &["recount_projections", "recount_engine", "reqwest"],
    );
}

#[test]
fn each_foreign_thing_is_known_in_one_place() {
    check(
        "store/src",
        &["store/src/codec/payload.rs", "store/src/codec/v1.rs"],
        &["bincode"],
    );
    check("store/src", &["store/src/log"], &["redb::"]);
    check("store/src", &["store/src/key.rs"], &["ed25519_dalek"]);
    for folder in ["projections/src", "engine/src", "replay-cli/src"] {
        check(folder, &[], &["bincode", "redb::", "ed25519_dalek"]);
    }
    check(
        "engine/src",
        &["engine/src/adapter"],
        &["reqwest", "eventsource_stream"],
    );
}

#[test]
fn verbs_that_look_back_cannot_write() {
    for verb in [
        "sessions",
        "show",
        "log",
        "find",
        "bisect",
        "why",
        "diff",
        "replay",
        "verify",
        "sign",
        "export",
        "incidents",
    ] {
        let file = format!("replay-cli/src/command/{verb}.rs");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let code = fs::read_to_string(root.join(&file)).unwrap();
        for word in ["recount_engine", "Log::open", ".append("] {
            assert!(!code.contains(word), "{file} names {word}");
        }
    }
    // These ask the engine's rules and adapters what they make of a log, and start none.
    for verb in ["decisions", "wire"] {
        let file = format!("replay-cli/src/command/{verb}.rs");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let code = fs::read_to_string(root.join(&file)).unwrap();
        for word in ["SessionManager", "Log::open", ".append("] {
            assert!(!code.contains(word), "{file} names {word}");
        }
    }
}

/// Cargo looks for tests elsewhere, and nobody misses a file that no other names.
#[test]
fn every_file_of_tests_is_run() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(tests.join("Cargo.toml")).unwrap();
    for file in code_in(tests) {
        let line = format!("path = \"{file}.rs\"\n");
        assert!(manifest.contains(&line), "Cargo.toml misses {file}.rs");
    }
    for entry in fs::read_dir(tests).unwrap() {
        let folder = entry.unwrap().path();
        let Ok(main) = fs::read_to_string(folder.join("main.rs")) else {
            continue;
        };
        let name = folder.file_name().unwrap().to_str().unwrap();
        let line = format!("path = \"{name}/main.rs\"\n");
        assert!(manifest.contains(&line), "Cargo.toml misses {name}");
        for file in code_in(&folder) {
            let line = format!("mod {file};\n");
            assert!(
                file == "main" || main.contains(&line),
                "{name}/main.rs misses {file}"
            );
        }
    }
}

/// The names, without their ending, of the files of code right in this folder.
fn code_in(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}
