//! `recount show` of a long session, or a long connection: what is left out, and that milestones change nothing but the time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

use std::path::Path;
use std::process::{Command, Output};

use expect_test::expect;
use recount_store::{
    ConnectionId, Event, Expected, Log, LogReader, MessageId, NewEvent, OutputKind, Placement, Seq,
    SessionId, StreamId, Timestamp,
};
use recount_tests::process::recount;
use serde_json::{Value, json};

/// 2026-11-22T09:14:03Z.
const BEGIN: u64 = 1_795_338_843_000_000;

const SESSION: StreamId = StreamId::Session(SessionId::from_bytes([2; 10]));

const CONNECTION: ConnectionId = ConnectionId::from_bytes([4; 10]);

/// How many messages the session has, and how many events each.
const MESSAGES: u64 = 25;
const EACH: u64 = 2800;

/// Message after message, each with a long answer; the events are a tenth of a second after each other.
fn events() -> impl Iterator<Item = NewEvent> {
    let events = (0..MESSAGES).flat_map(|number| {
        let message = MessageId::from_random(u128::from(number) + 1);
        let queued = Event::MessageQueued {
            message,
            key: None,
            text: format!("question {number}"),
        };
        let said = move |n| Event::OutputAppended {
            message,
            run: 1,
            part: "prt_1".to_owned(),
            kind: OutputKind::Text,
            placement: Placement::End,
            text: format!("{n} "),
        };
        let completed = Event::TurnCompleted {
            message,
            run: 1,
            finish: "stop".to_owned(),
        };
        [queued, Event::TurnRequested { message, run: 1 }]
            .into_iter()
            .chain((0..EACH - 3).map(said))
            .chain([completed])
    });
    (0..)
        .zip(events)
        .map(|(n, event)| NewEvent::live(event, Timestamp(BEGIN + n * 100_000)))
}

fn run(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(recount());
    command
        .env("RECOUNT_DATA", data)
        .env("TZ", "UTC")
        .args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn shown(data: &Path, args: &[&str]) -> Value {
    let args = [&["show", "latest", "--json"], args].concat();
    serde_json::from_slice(&run(data, &args).stdout).unwrap()
}

#[tokio::test]
async fn any_moment_is_shown_the_same_with_milestones_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let log = Log::open(&data).unwrap();
    let mut all: Vec<_> = events().collect();
    while !all.is_empty() {
        let rest = all.split_off(all.len().min(1000));
        log.append(SESSION, Expected::Any, all).await.unwrap();
        all = rest;
    }
    log.close().await.unwrap();

    // Both ends of a milestone, and the middle of an answer; by number and by time.
    let moments = [
        "1",
        "32767",
        "32768",
        "32769",
        "69999",
        "2026-11-22T10:14:03.05Z",
    ];
    let show = |at: &&str| shown(&data, &["--at", at]);
    let before: Vec<_> = moments.iter().map(show).collect();
    let numbers: Vec<_> = before.iter().map(|shown| shown["events"].clone()).collect();
    assert_eq!(
        numbers,
        [1, 32_767, 32_768, 32_769, 69_999, 36_001].map(Value::from)
    );
    let whole = shown(&data, &["--all"]);
    let last = shown(&data, &[]);

    run(&data, &["rebuild"]);
    let reader = LogReader::open(&data).unwrap();
    let milestone = |number| {
        let kept = reader.snapshot(SESSION, &format!("session@{number}"));
        kept.unwrap().map(|kept| kept.seq)
    };
    assert_eq!(
        [1, 2, 3].map(milestone),
        [Some(Seq(32_768)), Some(Seq(65_536)), None]
    );
    drop(reader);
    assert_eq!(moments.iter().map(show).collect::<Vec<_>>(), before);
    assert_eq!(shown(&data, &["--all"]), whole);
    assert_eq!(shown(&data, &[]), last);

    // The last twenty, each with its whole answer.
    let (messages, turns) = (
        whole["messages"].as_array().unwrap(),
        whole["turns"].as_array().unwrap(),
    );
    assert_eq!((&whole["earlier"], messages.len()), (&json!(0), 25));
    assert_eq!(last["earlier"], 5);
    assert_eq!(last["messages"], json!(messages[5..]));
    assert_eq!(last["turns"], json!(turns[5..]));

    let text = String::from_utf8(run(&data, &["show", "latest", "--at", "69999"]).stdout).unwrap();
    let from = text.find("5 earlier").unwrap();
    let lines: Vec<&str> = text[from..].lines().take(4).collect();
    expect![[r#"
        5 earlier messages, with all that was done about them: --all shows them

        message 6 0000000000000006  completed, 0 attempts
          > question 5"#]]
    .assert_eq(&lines.join("\n"));
}

/// A session on a connection that is lost again and again: so many events on it before the session, and after.
async fn on_a_long_connection(data: &Path, events: u64) {
    let log = Log::open(data).unwrap();
    let connection = StreamId::Connection(CONNECTION);
    let lost = |attempt: u64| {
        let event = Event::ConnectFailed {
            attempt: u32::try_from(attempt).unwrap(),
            reason: format!("it broke, time {attempt}"),
        };
        NewEvent::live(event, Timestamp(BEGIN + attempt * 1000))
    };
    let opened = Event::SessionOpened {
        connection: CONNECTION,
        agent: "opencode".to_owned(),
        directory: "/home/project".to_owned(),
        model: None,
        title: None,
    };
    let opened = NewEvent::live(opened, Timestamp(BEGIN + events * 1000));
    for (from, to) in [(0, events), (events, 2 * events)] {
        for first in (from..to).step_by(5000) {
            let batch = (first..to.min(first + 5000)).map(lost).collect();
            log.append(connection, Expected::Any, batch).await.unwrap();
        }
        let session = if from == 0 {
            opened.clone()
        } else {
            let at = Timestamp(BEGIN + to * 1000);
            NewEvent::live(Event::SessionClosed, at)
        };
        log.append(SESSION, Expected::Any, vec![session])
            .await
            .unwrap();
    }
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_long_connection_is_shown_the_same_with_milestones_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    on_a_long_connection(&data, 40_000).await;
    let moments = ["1", "2", "2026-11-22T09:14:55.5Z"];
    let show = |at: &&str| shown(&data, &["--at", at])["connection"].clone();
    let before: Vec<_> = moments.iter().map(show).collect();
    let errors: Vec<_> = before
        .iter()
        .map(|shown| shown["last_error"].clone())
        .collect();
    assert_eq!(
        errors,
        [39_999, 79_999, 52_500].map(|n| json!(format!("it broke, time {n}")))
    );

    run(&data, &["rebuild"]);
    let reader = LogReader::open(&data).unwrap();
    let milestone = |name| {
        let kept = reader.snapshot(StreamId::Connection(CONNECTION), name);
        kept.unwrap().map(|kept| kept.seq)
    };
    let kept = ["connection@1", "breaker@2", "connection@3"].map(milestone);
    assert_eq!(kept, [Some(Seq(32_768)), Some(Seq(65_536)), None]);
    drop(reader);
    assert_eq!(moments.iter().map(show).collect::<Vec<_>>(), before);
}
