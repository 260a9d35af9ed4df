//! What `recount` is given and cannot use: a clear word, nothing recorded, nothing overwritten, nothing left.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use expect_test::{Expect, expect};
use recount_store::Log;
use recount_tests::fixture::fixture;
use recount_tests::place::Place;
use recount_tests::process::Finished;
use recount_tests::story::interrupted;

#[test]
fn where_nothing_is_one_is_told_how_to_begin_and_nothing_is_made() {
    let place = Place::new();
    place.check(
        &["sessions"],
        &expect![[r#"
        --- stderr
        recount: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 0
    "#]],
    );
    place.check(
        &["log", "latest"],
        &expect![[r#"
        --- stderr
        recount: cannot open the log: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 1
    "#]],
    );
    place.check(
        &["verify"],
        &expect![[r#"
        --- stderr
        recount: cannot open the log: there is no log in HERE/data; nothing was recorded there yet
          recount demo           shows all of it at work
          recount run MESSAGE    begins a session
          --data DIR             or RECOUNT_DATA names another data directory
        --- exit 1
    "#]],
    );
    place.check(
        &["recover"],
        &expect![[r#"
        nothing was open
        --- stderr
        recount: there is no log in HERE/data; nothing was recorded there yet
        --- exit 0
    "#]],
    );
    assert_eq!(place.contents(), []);
}

/// A place where this file is in the data directory, and nothing else.
fn with_a_file(name: &str, contents: &[u8]) -> Place {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    fs::write(place.data().join(name), contents).unwrap();
    place
}

/// Has all verbs refuse a data directory, and leave it as it was.
fn refused(place: &Place, expected: &Expect) {
    let before = place.contents();
    let run = ["run", "--agent", "scripted", "hello"];
    let mut told = String::new();
    for args in [
        &["sessions"][..],
        &["show", "latest"],
        &["log", "latest"],
        &["replay", "latest"],
        &["verify"],
        &["recover"],
        &run,
    ] {
        let output = place.run(args);
        let text = place.text(&output);
        assert_eq!(output.stdout, "", "{args:?}: {text}");
        // Most say the same.
        if !told.ends_with(&text) {
            told.extend(["recount ", args[0], "\n", &text]);
        }
        assert_eq!(place.contents(), before, "{args:?}: {text}");
    }
    expected.assert_eq(&told);
}

#[test]
fn a_directory_that_is_not_ours() {
    refused(
        &with_a_file("thesis.txt", b"all my work"),
        &expect![[r#"
            recount sessions
            --- stderr
            recount: cannot open the log: HERE/data is not a data directory of recount: it holds "thesis.txt" and no log; name an empty or a new directory
            --- exit 1
        "#]],
    );
}

#[test]
fn a_file_of_another_program() {
    for contents in [
        &b"a file of another program"[..],
        &[0; 4096],
        b"SQLite format 3\0 and so on",
    ] {
        refused(
            &with_a_file("log.redb", contents),
            &expect![[r#"
                recount sessions
                --- stderr
                recount: cannot open the log: HERE/data/log.redb is not a log of recount (Not a redb database: magic number mismatch); it was left as it is: move it away, or name another data directory
                  recount doctor HERE/data    says what is wrong with it, and what to do
                --- exit 1
            "#]],
        );
    }
}

#[test]
fn a_file_where_the_directory_would_be() {
    let place = Place::new();
    place.write("data", "all my work");
    refused(
        &place,
        &expect![[r#"
            recount sessions
            --- stderr
            recount: cannot open the log: cannot look at HERE/data/log.redb: Not a directory (os error 20)
              name the directory that holds log.redb: --data DIR, or RECOUNT_DATA
            --- exit 1
        "#]],
    );
    let mut told = place.told(&["doctor"]);
    told += &place.told(&["doctor", "data"]);
    told += &place.told(&["doctor", "date"]);
    expect![[r#"
        error: cannot look at HERE/data/log.redb: Not a directory (os error 20)
          it is a file, and not a data directory
            name the directory that holds log.redb: --data DIR, or RECOUNT_DATA
        --- stderr
        recount: 1 thing needs doing in HERE/data
        --- exit 1
        error: cannot look at data/log.redb: Not a directory (os error 20)
          it is a file, and not a data directory
            name the directory that holds log.redb: --data DIR, or RECOUNT_DATA
        --- stderr
        recount: 1 thing needs doing in data
        --- exit 1
        error: there is no directory date
          its name is mistyped, or it was moved away
            recount doctor    looks at the data directory that is used without a name
        --- stderr
        recount: 1 thing needs doing in date
        --- exit 1
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_log_of_a_newer_release() {
    refused(
        &fixture("newer_format"),
        &expect![[r#"
        recount sessions
        --- stderr
        recount: cannot open the log: HERE/data/log.redb has format 2, and this release reads up to 1; it was left as it is: use the release that wrote it or a newer one
        --- exit 1
    "#]],
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_without_permission() {
    let place = Place::new();
    // Here not even root makes folders.
    for verb in [
        &[
            "--data",
            "/sys/recount",
            "run",
            "--agent",
            "scripted",
            "hello",
        ][..],
        &["--data", "/sys/recount", "demo"],
    ] {
        let text = place.told(verb);
        let expected =
            "--- stderr\nrecount: cannot open the log: cannot create the directory /sys/recount: ";
        let at = text.find("--- stderr").unwrap_or_default();
        assert!(text[at..].starts_with(expected), "{text}");
        assert!(text.ends_with("--- exit 1\n"), "{text}");
    }
}

#[test]
fn a_second_writer_is_refused_while_readers_are_not() {
    let place = Place::holding(interrupted());
    let writer = Log::open(place.data()).unwrap();
    let mut told = Vec::new();
    for verb in [
        &["run", "--agent", "scripted", "hello"][..],
        &["recover"],
        &["close", "latest"],
        &["cut", "latest", "--all"],
        &["retain", "--older-than", "30d"],
        &["compact"],
        &["rebuild"],
    ] {
        told.push(place.told(verb));
    }
    told.dedup();
    expect![[r#"
        --- stderr
        recount: cannot open the log: another process is writing HERE/data/log.redb: wait for it to end, or name another data directory
          end that process, if it is to end, and run this again
          recount sessions, show, log, dead-letters, doctor    look at it meanwhile
        --- exit 1
    "#]].assert_eq(&told.concat());
    assert_eq!(place.json(&["sessions", "--json"]).len(), 2);
    place.printed(&["verify"]);
    drop(writer);
    place.printed(&["run", "--agent", "scripted", "hello"]);
}

#[test]
fn a_message_that_cannot_be_sent_leaves_nothing_behind() {
    let place = Place::new();
    place.check(
        &["run", "--agent", "scripted", ""],
        &expect![[r#"
        --- stderr
        recount: cannot send this: the message is empty: there is nothing to send
        --- exit 2
    "#]],
    );
    let sent = |input: Vec<u8>| {
        let mut command = place.command(&["run", "--agent", "scripted", "-"]);
        place.text(&Finished::given(&mut command, input))
    };
    expect![[r#"
        --- stderr
        recount: cannot send this: the message is empty: there is nothing to send
        --- exit 2
    "#]]
    .assert_eq(&sent(b" \n".to_vec()));
    expect![[r#"
        --- stderr
        recount: cannot send this: the message has 50000000 bytes; at most 8388608 are taken: put long material into a file that the agent can read
        --- exit 2
    "#]].assert_eq(&sent(vec![b'x'; 50_000_000]));
    expect![[r#"
        --- stderr
        recount: cannot send this: it is no UTF-8 text: invalid utf-8 sequence of 1 bytes from index 1
        --- exit 2
    "#]].assert_eq(&sent(vec![b'x', 0xff]));
    assert_eq!(place.contents(), []);
}

#[test]
fn without_the_agents_program_nothing_is_queued() {
    let place = Place::new();
    let mut command = place.command(&["run", "hello"]);
    let output = Finished::of(command.env("PATH", "/nowhere"));
    expect![[r#"
        --- stderr
        recount: cannot find the program "opencode" on the PATH
          npm install -g opencode-ai    installs it
          --agent-bin PATH              names it where it is elsewhere
          --agent scripted              tries things out without it
        --- exit 1
    "#]]
    .assert_eq(&place.text(&output));
    assert_eq!(place.contents(), []);
}

/// What a run says at its end, and the names of the events of its message.
fn given_up(url: &str) -> (String, Vec<String>) {
    let place = Place::new();
    let began = Instant::now();
    let output = place.run(&["run", "--url", url, "hello"]);
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it took too long"
    );
    let text = place.text(&output).replace(url, "URL");
    let (_, end) = text.split_once("recount: ").unwrap_or(("", &text));
    let events = place.json(&["log", "latest", "--json"]);
    let session = events[0]["data"].to_string();
    assert!(session.contains("opencode"), "{session}");
    let names = events
        .iter()
        .filter(|event| event["stream"].as_str().unwrap().starts_with("session"))
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect();
    let id = place.object(&["sessions", "--json"])["session"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(place.object(&["verify", "--json"])["ok"], true);
    assert_eq!(place.object(&["recover", "--json"])["sessions"], 0);
    (end.replace(&id, "ID"), names)
}

#[test]
fn a_server_that_cannot_be_reached() {
    // Bound and let go: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (end, events) = given_up(&format!("http://127.0.0.1:{port}"));
    expect![[r#"
        the message was given up: the agent cannot be reached: GET /global/health: Connection refused (os error 111)
          recount log ID    shows what happened
        --- exit 1
    "#]].assert_eq(&end);
    assert_eq!(
        events,
        ["SessionOpened", "MessageQueued", "MessageDeadLettered"]
    );
}

#[test]
fn a_server_that_answers_with_a_page() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let page = "<!doctype html><title>Hello</title>";
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
            let _ = write!(stream, "{head}content-length: {}\r\n\r\n{page}", page.len());
        }
    });
    let (end, events) = given_up(&url);
    expect![[r#"
        the message was given up: the agent cannot be reached: GET /global/health: no OpenCode server answers there: text/html where application/json was expected
          recount log ID    shows what happened
        --- exit 1
    "#]].assert_eq(&end);
    assert_eq!(
        events,
        ["SessionOpened", "MessageQueued", "MessageDeadLettered"]
    );
}

#[test]
fn wrong_use_is_told_with_code_2() {
    let place = Place::holding(interrupted());
    for verb in [
        &["run"][..],
        &["run", "--agent", "nobody", "hello"],
        &["run", "--url", "127.0.0.1:4096", "hello"],
        &["run", "--url", "http://me:secret@127.0.0.1:4096", "hello"],
        &[
            "run",
            "--url",
            "http://127.0.0.1:1",
            "--agent-bin",
            "opencode",
            "hello",
        ],
        &["run", "--dir", "nowhere", "--agent", "scripted", "hello"],
        &["run", "--session", "081", "--agent", "scripted", "hello"],
        &[
            "run",
            "--session",
            "081",
            "--url",
            "http://127.0.0.1:1",
            "hello",
        ],
        &["show", "latest", "--at", "noon"],
        &["replay", "latest", "--speed", "-1"],
        &["log", "latest", "--limit", "0"],
        &["log", "latest", "--since", "yesterday"],
        &["cut", "latest"],
        &["cut", "latest", "--before", "0"],
        &["retain", "--older-than", "a month"],
        &["nosuchverb"],
    ] {
        let output = place.run(verb);
        assert_eq!(output.status.code(), Some(2), "{verb:?}: {output:#?}");
        assert_eq!(output.stdout, "", "{verb:?}");
        assert!(!output.stderr.contains("secret"), "{verb:?}");
    }
}
