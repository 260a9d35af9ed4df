//! What `recount` is given and cannot use: a clear word, nothing recorded, nothing overwritten, nothing left.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use recount_store::Log;
use recount_tests::command::{finish, object_of, verb};
use recount_tests::engine::Scene;
use recount_tests::files::contents;
use recount_tests::process::{Finished, Running, recount};

/// A refusal needs no server to be started.
const SOON: Duration = Duration::from_secs(60);

/// Holds a refusal to its manners: an exit code, words on standard error alone, no panic.
fn refused(finished: &Finished, code: i32, words: &str) {
    assert_eq!(finished.status.code(), Some(code), "{finished:#?}");
    assert_eq!(finished.stdout, "", "{finished:#?}");
    assert!(finished.stderr.contains(words), "{words:?}: {finished:#?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:#?}");
}

/// What `recount run` does that talks to a server at this address; it must not have found its agent there.
fn run_against(scene: &Scene, url: &str, words: &str) {
    let finished =
        Running::spawn(&mut verb(&scene.home, &["run", "--url", url, "fake:plain"])).finish(SOON);
    refused(&finished, 1, words);
    // The message is in the log, and so is that it was given up.
    let stands = object_of(&scene.home, &["show", "latest", "--json"]);
    assert_eq!(
        stands["messages"][0]["state"], "dead_lettered",
        "{stands:#}"
    );
    let recovered = object_of(&scene.home, &["recover", "--json"]);
    assert_eq!(recovered["sessions"], 0, "{recovered:#}");
    assert!(finish(&scene.home, &["verify"]).status.success());
    assert!(scene.provider.calls().is_empty());
    scene.home.marker().assert_none_left();
}

#[test]
fn an_address_where_nothing_listens() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    run_against(&Scene::new(), &url, "cannot be reached");
}

#[test]
fn a_server_that_answers_everything_with_a_page() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // What is asked for does not matter; its beginning is enough to answer.
            let _ = stream.read(&mut [0; 4096]);
            let page = "<!doctype html><title>Welcome</title>";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close";
            let _ = write!(
                stream,
                "{head}\r\ncontent-length: {}\r\n\r\n{page}",
                page.len()
            );
        }
    });
    run_against(&Scene::new(), &url, "cannot be reached");
}

#[test]
fn messages_that_cannot_be_sent() {
    let scene = Scene::new();
    for empty in ["", "  \n"] {
        refused(&finish(&scene.home, &["run", empty]), 2, "empty");
    }
    // No command line holds that much: it comes from a file.
    let long = scene.home.path("long");
    fs::write(&long, vec![b'x'; 50 << 20]).unwrap();
    let mut through_a_pipe = scene.home.command("sh");
    through_a_pipe
        .env("RECOUNT_DATA", scene.home.path("recount"))
        .args(["-c", r#"cat "$1" | "$2" run -"#, "sh"])
        .args([long.as_path(), recount()]);
    refused(
        &Running::spawn(&mut through_a_pipe).finish(SOON),
        2,
        "52428800 bytes",
    );
    // Nothing of it is in a log: there is none.
    assert!(!scene.home.path("recount").exists());
    scene.home.marker().assert_none_left();
}

#[test]
fn an_agent_that_is_not_installed() {
    let scene = Scene::new();
    let mut command = verb(&scene.home, &["run", "fake:plain"]);
    command.env("PATH", scene.home.path("tmp"));
    let finished = Running::spawn(&mut command).finish(SOON);
    refused(&finished, 1, "npm install -g opencode-ai");
    assert!(
        finished.stderr.contains("--agent scripted"),
        "{finished:#?}"
    );
}

#[test]
fn a_session_that_nobody_opened() {
    let scene = Scene::new();
    let answered = finish(&scene.home, &["run", "--agent", "scripted", "hello"]);
    assert!(answered.status.success(), "{answered:#?}");
    for args in [
        ["show", "0000000000000000"],
        ["log", "0000000000000000"],
        ["replay", "0000000000000000"],
    ] {
        refused(&finish(&scene.home, &args), 1, "0000000000000000");
    }
    let run = ["run", "--session", "0000000000000000", "fake:plain"];
    refused(&finish(&scene.home, &run), 1, "0000000000000000");
}

#[test]
fn a_log_that_another_process_writes() {
    let scene = Scene::new();
    let data = scene.home.path("recount");
    let writer = Log::open(&data).unwrap();
    refused(
        &finish(&scene.home, &["run", "--agent", "scripted", "hello"]),
        1,
        "another process",
    );
    refused(&finish(&scene.home, &["recover"]), 1, "another process");
    // To look, nobody has to wait.
    assert!(finish(&scene.home, &["verify"]).status.success());
    assert!(finish(&scene.home, &["sessions"]).status.success());
    drop(writer);
    let answered = finish(&scene.home, &["run", "--agent", "scripted", "hello"]);
    assert!(answered.status.success(), "{answered:#?}");
    scene.home.marker().assert_none_left();
}

#[test]
fn directories_and_files_that_are_not_ours() {
    const RUN: &[&str] = &["run", "--agent", "scripted", "hello"];
    let scene = Scene::new();
    let foreign = |name: &str, file: &str, holds: &[u8]| {
        let directory = scene.home.path(name);
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join(file), holds).unwrap();
        directory
    };
    let refuse = |data: &Path, args: &[&str], words: &str| {
        let mut command = verb(&scene.home, args);
        let finished = Running::spawn(command.env("RECOUNT_DATA", data)).finish(SOON);
        refused(&finished, 1, words);
    };

    // A directory of something else: it is no place to begin a log in, nor to look for one.
    let letters = foreign("letters", "to-a-friend.txt", b"Dear friend");
    for args in [RUN, &["recover"], &["sessions"], &["show", "latest"]] {
        refuse(&letters, args, "not a data directory");
    }
    assert_eq!(contents(&letters).len(), 1);

    // Files of other programs where the log would be.
    for (name, holds) in [
        ("text", &b"Dear friend"[..]),
        ("zeros", &[0; 4096]),
        ("database", b"SQLite format 3\0 and so on"),
    ] {
        let data = foreign(name, "log.redb", holds);
        let before = contents(&data);
        for args in [RUN, &["recover"], &["sessions"], &["verify"]] {
            refuse(&data, args, "not a log");
        }
        assert_eq!(contents(&data), before, "{name}");
    }

    // A file where the directory would be.
    let file = scene.home.path("file");
    fs::write(&file, "Dear friend").unwrap();
    refuse(&file, RUN, file.to_str().unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), "Dear friend");
    scene.home.marker().assert_none_left();
}
