//! `recount export` and `recount import`: what goes out is what the formats' own definitions say, and what comes in is
//! what went out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes snapshots like that"
)]

#[path = "verb_export/trace_format.rs"]
mod trace_format;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use recount_store::{
    Cause, ConnectionId, ConnectionState, Event, Expected, Json, Log, MessageId, NewEvent,
    OutputKind, PermissionAnswer, Placement, Position, Refusal, SessionId, SigningKey, StreamId,
    Target, Timestamp, ToolOutcome,
};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::process::{Finished, Running, recount};
use serde_json::Value;
use tempfile::TempDir;

/// 2026-11-22T09:14:03Z.
const BEGIN: u64 = 1_795_338_843_000_000;

const SESSION: SessionId = SessionId::from_bytes([2; 10]);
const OTHER: SessionId = SessionId::from_bytes([3; 10]);
const CONNECTION: ConnectionId = ConnectionId::from_bytes([4; 10]);
const MESSAGE: MessageId = MessageId::from_bytes([1; 10]);

/// A folder whose `data` is the data directory.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(recount());
        command
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", "/usr/bin:/bin")
            .env("TZ", "UTC")
            .env("RECOUNT_DATA", self.path("data"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Finished {
        Running::spawn(&mut self.command(args)).finish(VERB_TIMEOUT)
    }

    /// What a verb prints that is to succeed.
    fn printed(&self, args: &[&str]) -> String {
        let finished = self.run(args);
        assert!(finished.status.success(), "{args:?}: {finished:#?}");
        assert_eq!(finished.stderr, "", "{args:?}");
        finished.stdout
    }

    /// Output, error and exit code, as one text.
    fn check(&self, args: &[&str], expected: &Expect) {
        let finished = self.run(args);
        let here = self.0.path().to_str().unwrap();
        let code = finished.status.code().unwrap();
        let text = format!(
            "{}--- stderr\n{}--- exit {code}\n",
            finished.stdout, finished.stderr
        );
        expected.assert_eq(&text.replace(here, "HERE"));
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }
}

/// Writes a log: a message that arrives at its second attempt, with a tool, a permission and a connection that falls,
/// and another session between.
fn written(data: &Path) {
    let message = MESSAGE;
    let opened = || Event::SessionOpened {
        connection: CONNECTION,
        agent: "opencode".to_owned(),
        directory: "/work".to_owned(),
        model: Some("anthropic/claude".to_owned()),
        title: Some("A <b>title</b>".to_owned()),
    };
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let (down, trying, up) = (
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    );
    let (engine, session) = (StreamId::Engine, StreamId::Session(SESSION));
    let connection = StreamId::Connection(CONNECTION);
    // Each event and the position of the one that it follows from.
    let story = vec![
        (
            engine,
            Event::EngineStarted {
                version: "0.1.0".to_owned(),
                pid: 7,
            },
            0,
        ),
        (
            connection,
            Event::ConnectionOpened {
                agent: "opencode".to_owned(),
                target: Target::Url("http://127.0.0.1:4096".to_owned()),
            },
            0,
        ),
        (session, opened(), 0),
        (
            session,
            Event::MessageQueued {
                message,
                key: None,
                text: "Say it, с любовью\n```".to_owned(),
            },
            0,
        ),
        (StreamId::Session(OTHER), opened(), 0),
        (connection, changed(down, trying), 4),
        (
            session,
            Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: "msg".to_owned(),
            },
            4,
        ),
        (
            session,
            Event::DeliveryRejected {
                message,
                attempt: 1,
                refusal: Refusal::NeverSent,
                reason: "connection refused".to_owned(),
            },
            7,
        ),
        (connection, changed(trying, up), 6),
        (
            session,
            Event::DeliveryStarted {
                message,
                attempt: 2,
                agent_message: "msg".to_owned(),
            },
            8,
        ),
        (
            session,
            Event::DeliveryAccepted {
                message,
                attempt: 2,
            },
            10,
        ),
        (session, Event::TurnRequested { message, run: 1 }, 11),
        (session, Event::TurnStarted { message, run: 1 }, 12),
        (
            session,
            Event::ToolCallStarted {
                message,
                run: 1,
                call: "call".to_owned(),
                tool: "bash".to_owned(),
                input: Json(b"{\"command\":\r\n\"true\"}".to_vec()),
            },
            12,
        ),
        (
            session,
            Event::PermissionAsked {
                message,
                permission: "per".to_owned(),
                action: "bash".to_owned(),
                detail: "true".to_owned(),
                call: Some("call".to_owned()),
            },
            12,
        ),
        (
            session,
            Event::PermissionAnswered {
                message,
                permission: "per".to_owned(),
                answer: PermissionAnswer::Once,
            },
            15,
        ),
        (
            connection,
            Event::StreamLost {
                reason: "it broke".to_owned(),
            },
            0,
        ),
        (connection, changed(up, down), 17),
        (
            session,
            Event::ToolCallEnded {
                message,
                run: 1,
                call: "call".to_owned(),
                outcome: ToolOutcome::Completed,
                output: "done".to_owned(),
            },
            12,
        ),
        (
            session,
            Event::OutputAppended {
                message,
                run: 1,
                part: "prt".to_owned(),
                kind: OutputKind::Text,
                placement: Placement::End,
                text: "Well, *it* is said 💛".to_owned(),
            },
            12,
        ),
        (
            session,
            Event::TurnCompleted {
                message,
                run: 1,
                finish: "stop".to_owned(),
            },
            12,
        ),
        (StreamId::Session(OTHER), Event::SessionClosed, 0),
        (
            engine,
            Event::Unknown {
                type_number: 60_000,
                type_version: 2,
                payload: vec![0, 1, 255],
            },
            0,
        ),
        (StreamId::Session(OTHER), Event::EngineStopped, 0),
    ];
    let log = Log::open(data).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        for (n, (stream, event, cause)) in (0..).zip(story) {
            let event = NewEvent::live(event, Timestamp(BEGIN + n * 100_000));
            let event = event.because(Cause::At(Position(cause)));
            let appended = log.append(stream, Expected::Any, vec![event]).await;
            appended.unwrap();
        }
        log.close().await.unwrap();
    });
}

fn with_a_log() -> Place {
    let place = Place::new();
    written(&place.path("data"));
    place
}

#[test]
fn an_import_is_the_same_log_and_is_exported_to_the_same_bytes() {
    let place = with_a_log();
    for (what, name) in [("--all", "all"), ("081", "one")] {
        let exported = place.printed(&["export", what]);
        place.file("session.jsonl", &exported);
        place.printed(&["import", "session.jsonl", "--into", name]);
        place.printed(&["--data", name, "verify"]);
        assert_eq!(place.printed(&["--data", name, "export", what]), exported);
        let log = |data: &str| place.printed(&["--data", data, "log", "081", "--json"]);
        assert_eq!(log(name), log("data"));
    }

    // All that was signed of the old log holds of the new one.
    let key = SigningKey::from_seed(&[7; 32]);
    let log = recount_store::LogReader::open(place.path("data")).unwrap();
    let signed = log.head().unwrap().sign(Timestamp(BEGIN), &key);
    place.file("head.json", &serde_json::to_string(&signed).unwrap());
    place.printed(&[
        "--data",
        "all",
        "verify",
        "--signed",
        "head.json",
        "--public-key",
        &key.public_key().to_string(),
    ]);
}

#[test]
fn what_was_imported_is_told() {
    let place = with_a_log();
    let exported = place.printed(&["export", "081", "--out", "session.jsonl"]);
    let length = fs::metadata(place.path("session.jsonl")).unwrap().len();
    assert_eq!(
        exported,
        format!("written: session.jsonl, {length} bytes\n")
    );
    place.check(
        &["import", "session.jsonl", "--into", "new"],
        &expect![[r#""#]],
    );
    place.check(
        &["import", "session.jsonl", "--into", "newer", "--json"],
        &expect![[r#""#]],
    );
    place.check(&["--data", "new", "sessions"], &expect![[r#""#]]);
}

#[test]
fn what_cannot_be_proven_is_refused_by_its_line() {
    let place = with_a_log();
    let exported = place.printed(&["export", "081"]);
    let lines: Vec<&str> = exported.lines().collect();
    let refused = |name: &str, text: &str, expected: &Expect| {
        place.file(name, text);
        place.check(&["import", name, "--into", "new"], expected);
        assert!(!place.path("new").exists(), "{name} left something behind");
    };
    refused(
        "changed.jsonl",
        &exported.replace("с любовью", "now"),
        &expect![[r#""#]],
    );
    let mut swapped = lines.clone();
    swapped.swap(7, 8);
    refused(
        "swapped.jsonl",
        &(swapped.join("\n") + "\n"),
        &expect![[r#""#]],
    );
    refused(
        "cut.jsonl",
        &(lines[..lines.len() - 1].join("\n") + "\n"),
        &expect![[r#""#]],
    );
    refused(
        "log.jsonl",
        &place.printed(&["log", "081", "--json"]),
        &expect![[r#""#]],
    );
    refused("empty.jsonl", "", &expect![[r#""#]]);

    // What is there already is left as it is.
    place.file("session.jsonl", &exported);
    let before = place.printed(&["verify"]);
    place.check(&["import", "session.jsonl"], &expect![[r#""#]]);
    assert_eq!(place.printed(&["verify"]), before);
    place.check(
        &["export", "081", "--out", "session.jsonl"],
        &expect![[r#""#]],
    );
    place.check(
        &["import", "nowhere.jsonl", "--into", "new"],
        &expect![[r#""#]],
    );
    place.check(&["export", "081", "--texts"], &expect![[r#""#]]);
    place.check(
        &["export", "--all", "--format", "markdown"],
        &expect![[r#""#]],
    );
}

#[test]
fn a_conversation_is_told_in_markdown() {
    let place = with_a_log();
    place.check(
        &["export", "081", "--format", "markdown"],
        &expect![[r#""#]],
    );
}

#[test]
fn a_trace_is_what_the_format_says() {
    let place = with_a_log();
    for texts in [&["--texts"][..], &[]] {
        for what in ["081", "--all"] {
            let args = [&["export", what, "--format", "trace"], texts].concat();
            let printed = place.printed(&args);
            let found = trace_format::check(&serde_json::from_str(&printed).unwrap());
            assert_eq!(printed, place.printed(&args), "a second one is the same");
            let arrows = found.unwrap();
            assert!(arrows > 3, "only {arrows} arrows in {printed}");
        }
    }
}

#[test]
fn spans_are_read_by_the_official_definitions() {
    let place = with_a_log();
    let args = ["export", "081", "--format", "otlp", "--texts"];
    let printed = place.printed(&args);
    assert_eq!(printed, place.printed(&args), "a second export is the same");
    let ours: Value = serde_json::from_str(&printed).unwrap();
    let request: ExportTraceServiceRequest = serde_json::from_str(&printed).unwrap();
    // All that we say is understood, and none of it as something else.
    let theirs = serde_json::to_value(&request).unwrap();
    within(&ours, &theirs, "");

    let [resource] = &request.resource_spans[..] else {
        panic!("one resource")
    };
    let spans = &resource.scope_spans[0].spans;
    let mut ids = HashSet::new();
    for span in spans {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(
            ids.insert((&span.trace_id, &span.span_id)),
            "an id is there twice"
        );
    }
    let parents: HashMap<_, _> = spans
        .iter()
        .map(|span| (&span.span_id, span.name.as_str()))
        .collect();
    let tree: Vec<_> = spans
        .iter()
        .map(|span| {
            let parent = parents.get(&span.parent_span_id).copied();
            format!("{} < {}", span.name, parent.unwrap_or("none"))
        })
        .collect();
    expect![[r#""#]].assert_eq(&tree.join("\n"));

    let private = place.printed(&args[..4]);
    for text in ["любовью", "is said", "done", "true"] {
        assert!(printed.contains(text), "{text}");
        assert!(
            !private.contains(&format!("\"{text}")),
            "{text} left without being asked for"
        );
    }
}

/// Fails where something of `ours` is not in `theirs`.
fn within(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in ours {
                let path = format!("{path}.{name}");
                let other = theirs.get(name);
                // What has its default value may be left out.
                if other.is_none() && (value == &Value::from(0) || value == &serde_json::json!({}))
                {
                    continue;
                }
                within(
                    value,
                    other.unwrap_or_else(|| panic!("{path} is lost")),
                    &path,
                );
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{path}");
            for (n, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                within(ours, theirs, &format!("{path}[{n}]"));
            }
        }
        (ours, theirs) => assert_eq!(ours, theirs, "{path}"),
    }
}

/// A real engine's log: its causes, its recovery, and a connection that falls.
#[test]
fn the_demo_can_be_carried_elsewhere() {
    let place = Place::new();
    let finished = place.run(&["demo", "--json"]);
    assert!(finished.status.success(), "{finished:#?}");
    let exported = place.printed(&["export", "latest"]);
    place.file("demo.jsonl", &exported);
    place.printed(&["import", "demo.jsonl", "--into", "new"]);
    place.printed(&["--data", "new", "verify"]);
    assert_eq!(
        place.printed(&["--data", "new", "export", "latest"]),
        exported
    );
    let show = |data: &str| place.printed(&["--data", data, "show", "latest", "--json"]);
    assert_eq!(show("new"), show("data"));
    for format in ["trace", "otlp", "markdown"] {
        let of =
            |data: &str| place.printed(&["--data", data, "export", "latest", "--format", format]);
        assert_eq!(of("new"), of("data"), "{format}");
    }
    let trace = place.printed(&["export", "latest", "--format", "trace"]);
    trace_format::check(&serde_json::from_str(&trace).unwrap()).unwrap();
    let otlp = place.printed(&["export", "latest", "--format", "otlp"]);
    serde_json::from_str::<ExportTraceServiceRequest>(&otlp).unwrap();
}
