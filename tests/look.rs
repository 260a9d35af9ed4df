//! `recount find`, `bisect`, `why` and `diff` as their text: what they print where, and their exit codes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

use std::path::Path;
use std::process::Command;

use expect_test::{Expect, expect};
use recount_store::{
    Cause, ConnectionId, ConnectionState, Event, Expected, Json, Log, MessageId, NewEvent,
    OutputKind, Placement, Position, Provenance, Refusal, Rerun, SessionId, StreamId, Target,
    Timestamp, ToolOutcome,
};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::process::{Finished, Running, recount};
use serde_json::{Value, json};
use tempfile::TempDir;

/// 2026-11-22T09:14:03Z.
const BEGIN: u64 = 1_795_338_843_000_000;

const SESSION: SessionId = SessionId::from_bytes([2; 10]);
const OTHER: SessionId = SessionId::from_bytes([3; 10]);
const CONNECTION: ConnectionId = ConnectionId::from_bytes([4; 10]);
const MESSAGE: MessageId = MessageId::from_bytes([1; 10]);
const SECOND: MessageId = MessageId::from_bytes([5; 10]);

/// A data directory with a log.
struct Place(TempDir);

impl Place {
    fn run(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(recount());
        command
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("TZ", "UTC")
            .env("RECOUNT_DATA", self.0.path().join("data"));
        Running::spawn(&mut command).finish(VERB_TIMEOUT)
    }

    /// What a verb prints and how it ends, as one text.
    fn check(&self, args: &[&str], expected: &Expect) {
        let finished = self.run(args);
        let mut text = finished.stdout;
        if !finished.stderr.is_empty() {
            text.push_str("--- stderr\n");
            text.push_str(&finished.stderr);
        }
        let code = finished.status.code().unwrap();
        expected.assert_eq(&format!("{text}--- exit {code}\n"));
    }

    /// The objects that a verb prints, which is to succeed.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let finished = self.run(args);
        assert!(finished.status.success(), "{finished:#?}");
        let lines = finished.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// An event of the log: its stream, what it follows from by position, and what it is; half a second apart.
type Told = (StreamId, u64, Event);

/// What two sessions did on one connection: the first is refused once, and its agent dies under a tool; the second
/// is answered.
fn story() -> Vec<Told> {
    let (session, other) = (StreamId::Session(SESSION), StreamId::Session(OTHER));
    let connection = StreamId::Connection(CONNECTION);
    let opened = || Event::SessionOpened {
        connection: CONNECTION,
        agent: "opencode".to_owned(),
        directory: "/work".to_owned(),
        model: None,
        title: None,
    };
    let queued = |message| Event::MessageQueued {
        message,
        key: None,
        text: "Mend the Build".to_owned(),
    };
    let started = |message, attempt| Event::DeliveryStarted {
        message,
        attempt,
        agent_message: format!("msg_{message}"),
    };
    let said = |message, text: &str| Event::OutputAppended {
        message,
        run: 1,
        part: format!("prt_{message}"),
        kind: OutputKind::Text,
        placement: Placement::End,
        text: text.to_owned(),
    };
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let (down, trying, up) = (
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    );
    let policy = json!({"session": {"rerun": "ask", "runs_max": 10, "retries": {"for_now": {"attempts_max": 8}}}});
    vec![
        (
            StreamId::Engine,
            0,
            Event::PolicyAdopted {
                policy: Json::of(&policy),
            },
        ),
        (
            connection,
            0,
            Event::ConnectionOpened {
                agent: "opencode".to_owned(),
                target: Target::Url("http://127.0.0.1:4096".to_owned()),
            },
        ),
        (session, 0, opened()),
        (session, 0, queued(MESSAGE)),
        (connection, 2, changed(down, trying)),
        (connection, 5, changed(trying, up)),
        (session, 4, started(MESSAGE, 1)),
        (
            session,
            7,
            Event::DeliveryRejected {
                message: MESSAGE,
                attempt: 1,
                refusal: Refusal::ForNow { retry_after: None },
                reason: "503: busy".to_owned(),
            },
        ),
        (
            session,
            8,
            Event::RetryScheduled {
                message: MESSAGE,
                attempt: 2,
                at: Timestamp(BEGIN + 4_500_000),
            },
        ),
        (session, 9, started(MESSAGE, 2)),
        (
            session,
            10,
            Event::DeliveryAccepted {
                message: MESSAGE,
                attempt: 2,
            },
        ),
        (
            session,
            11,
            Event::TurnRequested {
                message: MESSAGE,
                run: 1,
            },
        ),
        (
            session,
            12,
            Event::TurnStarted {
                message: MESSAGE,
                run: 1,
            },
        ),
        (session, 13, said(MESSAGE, "Let me look. ")),
        (session, 13, said(MESSAGE, "It says:")),
        (
            session,
            13,
            Event::ToolCallStarted {
                message: MESSAGE,
                run: 1,
                call: "call".to_owned(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command": "rm -rf target"}"#.to_vec()),
            },
        ),
        (
            connection,
            0,
            Event::StreamLost {
                reason: "it broke".to_owned(),
            },
        ),
        (connection, 17, changed(up, down)),
        (
            session,
            17,
            Event::ToolCallEnded {
                message: MESSAGE,
                run: 1,
                call: "call".to_owned(),
                outcome: ToolOutcome::Lost,
                output: String::new(),
            },
        ),
        (
            session,
            17,
            Event::TurnInterrupted {
                message: MESSAGE,
                run: 1,
                answers: Vec::new(),
                evidence: "its process is gone".to_owned(),
            },
        ),
        (
            session,
            20,
            Event::RerunDecided {
                message: MESSAGE,
                run: 1,
                rerun: Rerun::Wait,
                reason: "a tool had begun: bash".to_owned(),
            },
        ),
        (connection, 18, changed(down, trying)),
        (connection, 22, changed(trying, up)),
        (other, 0, opened()),
        (other, 0, queued(SECOND)),
        (other, 25, started(SECOND, 1)),
        (
            other,
            26,
            Event::DeliveryAccepted {
                message: SECOND,
                attempt: 1,
            },
        ),
        (
            other,
            27,
            Event::TurnRequested {
                message: SECOND,
                run: 1,
            },
        ),
        (
            other,
            28,
            Event::TurnStarted {
                message: SECOND,
                run: 1,
            },
        ),
        (other, 29, said(SECOND, "Let me look. It says:")),
        (
            other,
            30,
            Event::TurnCompleted {
                message: SECOND,
                run: 1,
                finish: "stop".to_owned(),
            },
        ),
    ]
}

fn write(data: &Path, told: Vec<Told>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let log = Log::open(data).unwrap();
        for (n, (stream, cause, event)) in (1..).zip(told) {
            let mut event = NewEvent::live(event, Timestamp(BEGIN + n * 500_000));
            if cause > 0 {
                event = event.because(Cause::At(Position(cause)));
            }
            if matches!(event.event, Event::TurnInterrupted { .. }) {
                event = event.known(Provenance::Inferred);
            }
            let appended = log.append(stream, Expected::Any, vec![event]).await;
            assert_eq!(appended.unwrap()[0].position, Position(n));
        }
        log.close().await.unwrap();
    });
}

fn with_a_log() -> Place {
    let place = Place(tempfile::tempdir().unwrap());
    write(&place.0.path().join("data"), story());
    place
}

#[test]
fn events_are_found_by_what_they_are_like() {
    let place = with_a_log();
    let found = |args: &[&str]| -> Vec<u64> {
        let args = [&["find", "--json"], args].concat();
        let lines = place.json(&args);
        lines
            .iter()
            .map(|line| line["position"].as_u64().unwrap())
            .collect()
    };
    place.check(&["find", "--error"], &expect![[r#""#]]);
    place.check(&["find", "--longer-than", "1s"], &expect![[r#""#]]);
    place.check(
        &["find", "--type", "TurnInterrupted", "--json"],
        &expect![[r#""#]],
    );
    assert_eq!(
        found(&["--type", "StreamLost", "--type", "PolicyAdopted"]),
        [1, 17]
    );
    assert_eq!(found(&["--state", "connected"]), [6, 23]);
    assert_eq!(found(&["--text", "mend"]), [4, 25]);
    assert_eq!(found(&["--text", "rm .*target$"]), [16]);
    assert_eq!(
        found(&["--class", "decided", "--session", "081"]),
        [5, 6, 7, 9, 10, 12, 18, 21, 22, 23]
    );
    assert_eq!(found(&["--provenance", "inferred"]), [20]);
    let time = "2026-11-22T09:14:12Z";
    assert_eq!(found(&["--since", time, "--until", time]), [18]);
    assert_eq!(
        found(&["--error", "--newest-first", "--limit", "2"]),
        [20, 19]
    );
    assert_eq!(
        found(&["--where", "data.attempt > 1 and class == \"decided\""]),
        [9, 10]
    );
    assert_eq!(
        found(&["--where", "data.input.command contains \"rm -rf\""]),
        [16]
    );
    assert_eq!(
        found(&["--longer-than", "1s", "--newest-first"]),
        [12, 31, 23]
    );
    assert_eq!(found(&["--longer-than", "1s", "--limit", "1"]), [23]);
    assert_eq!(found(&[]).len(), story().len());
    let span = &place.json(&["find", "--longer-than", "1s", "--json"])[0]["span"];
    assert_eq!(
        span,
        &json!({"of": "outage", "milliseconds": 2500, "began": 18, "ended": true})
    );
}

#[test]
fn what_cannot_be_looked_for_is_said() {
    let place = with_a_log();
    place.check(&["find", "--type", "TurnFailed"], &expect![[r#""#]]);
    place.check(&["find", "--text", "("], &expect![[r#""#]]);
    place.check(&["find", "--where", "data.attempt >"], &expect![[r#""#]]);
    place.check(&["find", "--where", "sesion == \"x\""], &expect![[r#""#]]);
    let finished = place.run(&["find", "--type", "StreamLos"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(finished.stderr.contains("StreamLost"), "{finished:#?}");
}

#[test]
fn the_moment_at_which_something_became_true_is_found() {
    let place = with_a_log();
    place.check(
        &[
            "bisect",
            "081",
            "connection.state == \"disconnected\" and events > 2",
        ],
        &expect![[r#""#]],
    );
    place.check(
        &[
            "bisect",
            "081",
            "connection.state == \"connected\"",
            "--all",
        ],
        &expect![[r#""#]],
    );
    place.check(
        &[
            "bisect",
            "081",
            "turns.last.text contains \"says\"",
            "--json",
        ],
        &expect![[r#""#]],
    );
    place.check(
        &["bisect", "081", "queue.dead_letters > 0"],
        &expect![[r#""#]],
    );
    place.check(
        &["bisect", "081", "queue.deadletters > 0"],
        &expect![[r#""#]],
    );
}

#[test]
fn the_causes_of_an_event_are_told_with_what_was_known() {
    let place = with_a_log();
    place.check(&["why", "081", "last"], &expect![[r#""#]]);
    place.check(&["why", "081", "last:RetryScheduled"], &expect![[r#""#]]);
    place.check(&["why", "081", "~4", "--effects"], &expect![[r#""#]]);
    place.check(&["why", "081", "10", "--effects"], &expect![[r#""#]]);
    place.check(&["why", "081", "99"], &expect![[r#""#]]);
    place.check(&["why", "081", "last:TurnFailed"], &expect![[r#""#]]);
    let told = place.json(&["why", "081", "last", "--json"]);
    let told: Vec<_> = told
        .iter()
        .map(|line| json!([line["is"], line["type"], line["knew"]["turn"]["tools"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["event", "RerunDecided", ["bash"]]),
            json!(["cause", "TurnInterrupted", null]),
            json!(["cause", "StreamLost", null])
        ]
    );
    let told = place.json(&["why", "081", "10", "--effects", "--json"]);
    let told: Vec<_> = told
        .iter()
        .filter(|line| line["is"] == "effect")
        .map(|line| json!([line["type"], line["depth"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["OutputAppended", 1]),
            json!(["OutputAppended", 1]),
            json!(["ToolCallStarted", 1])
        ]
    );
}

#[test]
fn two_moments_of_a_session_are_compared() {
    let place = with_a_log();
    place.check(&["diff", "081", "3", "9"], &expect![[r#""#]]);
    place.check(
        &[
            "diff",
            "081",
            "2026-11-22T09:14:10Z",
            "2026-11-22T09:14:12Z",
        ],
        &expect![[r#""#]],
    );
    place.check(&["diff", "081", "5", "5"], &expect![[r#""#]]);
    place.check(&["diff", "081", "5", "99"], &expect![[r#""#]]);
    place.check(&["diff", "081", "5"], &expect![[r#""#]]);
    place.check(&["diff", "081", "noon", "9"], &expect![[r#""#]]);
    let told = place.json(&["diff", "081", "2", "4", "--json"]);
    assert_eq!(
        told,
        [json!({
            "session": SESSION,
            "from": 2,
            "to": 4,
            "changes": [
                {"path": "messages[040g2081040g2081].state", "before": "queued", "after": "refused"},
            ],
            "events": {},
        })]
    );
}

#[test]
fn two_sessions_are_laid_beside_each_other() {
    let place = with_a_log();
    place.check(&["diff", "081", "0c1"], &expect![[r#""#]]);
    place.check(&["diff", "081", "081"], &expect![[r#""#]]);
    let told = place.json(&["diff", "081", "0c1", "--json"]);
    let told: Vec<_> = told
        .iter()
        .map(|line| {
            json!([
                line["difference"],
                line["first"]["type"],
                line["second"]["type"]
            ])
        })
        .collect();
    assert_eq!(told, [json!([])]);
}

/// Two sessions, alike but for when, where and in how many pieces: nothing is different.
#[test]
fn what_differs_in_times_is_no_difference() {
    let place = Place(tempfile::tempdir().unwrap());
    let mut told = story();
    // The first session's own, with the second's events after them once more under another name.
    let of_second: Vec<Told> = told
        .iter()
        .filter(|(stream, ..)| *stream == StreamId::Session(OTHER))
        .cloned()
        .collect();
    let third = SessionId::from_bytes([6; 10]);
    let (first_of_second, first_of_third) = (24, told.len() as u64 + 1);
    for (_, cause, event) in of_second {
        let cause = match cause {
            0 => 0,
            cause => cause - first_of_second + first_of_third,
        };
        told.push((StreamId::Session(third), cause, event));
    }
    write(&place.0.path().join("data"), told);
    let finished = place.run(&["diff", &OTHER.to_string(), &third.to_string()]);
    assert_eq!(
        finished.stdout,
        format!("{OTHER} and {third} are alike: 8 events\n"),
        "{finished:#?}"
    );
}

#[test]
fn a_log_with_many_goes_is_searched_in_order() {
    let place = Place(tempfile::tempdir().unwrap());
    let data = place.0.path().join("data");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let count: u64 = 40_000;
    runtime.block_on(async {
        let log = Log::open(&data).unwrap();
        let event = |n: u64| {
            let event = match n % 10_000 {
                0 => Event::SessionClosed,
                _ => Event::MessageCancelled { message: MESSAGE },
            };
            NewEvent::live(event, Timestamp(BEGIN + n))
        };
        for batch in (1..=count).collect::<Vec<_>>().chunks(2_000) {
            let events = batch.iter().copied().map(event).collect();
            let appended = log
                .append(StreamId::Session(SESSION), Expected::Any, events)
                .await;
            appended.unwrap();
        }
        log.close().await.unwrap();
    });
    let found = |more: &[&str]| -> Vec<u64> {
        let args = [&["find", "--json", "--type", "SessionClosed"], more].concat();
        let lines = place.json(&args);
        lines
            .iter()
            .map(|line| line["position"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(found(&[]), [10_000, 20_000, 30_000, 40_000]);
    assert_eq!(found(&["--newest-first"]), [40_000, 30_000, 20_000, 10_000]);
    assert_eq!(found(&["--newest-first", "--limit", "1"]), [40_000]);
    let all = place.run(&["find", "--json"]);
    assert_eq!(all.stdout.lines().count() as u64, count);
}
