//! Each example runs with nothing installed, and says what it is to say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// What an example prints.
fn printed(example: &str) -> String {
    // All of the workspace, since dependencies then have the features that they have for its tests, and are built once.
    let mut cargo = Command::new(env!("CARGO"));
    let asked = ["build", "--quiet", "--workspace", "--example", example];
    let built = cargo.args(asked).status().unwrap();
    assert!(built.success(), "{example} does not build");
    let test = std::env::current_exe().unwrap();
    let builds = test.ancestors().nth(2).unwrap();
    let mut program = Command::new(builds.join("examples").join(example));
    let ran = program.output().unwrap();
    let said = String::from_utf8(ran.stdout).unwrap();
    let wrong = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{example}: {said}{wrong}");
    said
}

#[test]
fn send_and_wait() {
    let said = "completed\nYou said: fix the tests\nasked once: true\n";
    assert_eq!(printed("send_and_wait"), said);
}

#[test]
fn stream() {
    let said = "Each piece is shown at once, and recorded a moment later.\ncompleted\n";
    assert_eq!(printed("stream"), said);
}

#[test]
fn permissions() {
    // As with the real agent, what is refused ends the turn.
    let said = "ls: Once\nrm -rf /: Reject\nfailed\n";
    assert_eq!(printed("permissions"), said);
}

#[test]
fn many_sessions() {
    let said = "100 sessions, 200 messages answered\n0 open\n";
    assert_eq!(printed("many_sessions"), said);
}

#[test]
fn fork() {
    let said = "old: You said: fix the tests\n\
                old: You said: delete those that still fail\n\
                new: You said: leave those that still fail\n\
                copied by the agent: true\n\
                first message asked: 1\n";
    assert_eq!(printed("fork"), said);
}

#[test]
fn shutdown() {
    let said = "left behind: 0 sessions, 0 connections\nwho waited is told: true\nwho calls is told: true\n";
    assert_eq!(printed("shutdown"), said);
}

#[test]
fn recovery() {
    let said = "open: 1\nrecovered: 1 completed, 0 waiting, 0 open\nrun 2: Here I am again.\n";
    assert_eq!(printed("recovery"), said);
}
