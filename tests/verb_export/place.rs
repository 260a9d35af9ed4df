//! A folder with a log in it, and `recount` run there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use expect_test::Expect;
use recount_store::{
    Cause, ConnectionId, ConnectionState, Event, Expected, Json, Log, MessageId, NewEvent,
    OutputKind, PermissionAnswer, Placement, Position, Refusal, SessionId, StreamId, Target,
    Timestamp, ToolOutcome,
};
use recount_tests::command::VERB_TIMEOUT;
use recount_tests::process::{Finished, Running, recount};
use tempfile::TempDir;

/// 2026-11-22T09:14:03Z.
pub(crate) const BEGIN: u64 = 1_795_338_843_000_000;

const SESSION: SessionId = SessionId::from_bytes([2; 10]);
const OTHER: SessionId = SessionId::from_bytes([3; 10]);
const CONNECTION: ConnectionId = ConnectionId::from_bytes([4; 10]);
const MESSAGE: MessageId = MessageId::from_bytes([1; 10]);

/// A folder whose `data` is the data directory.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One with a log.
    pub(crate) fn with_a_log() -> Self {
        let place = Self::new();
        written(&place.path("data"));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
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

    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        Running::spawn(&mut self.command(args)).finish(VERB_TIMEOUT)
    }

    /// What a verb prints that is to succeed.
    pub(crate) fn printed(&self, args: &[&str]) -> String {
        let finished = self.run(args);
        assert!(finished.status.success(), "{args:?}: {finished:#?}");
        assert_eq!(finished.stderr, "", "{args:?}");
        finished.stdout
    }

    /// Output, error and exit code, as one text.
    pub(crate) fn check(&self, args: &[&str], expected: &Expect) {
        let finished = self.run(args);
        let here = self.0.path().to_str().unwrap();
        let code = finished.status.code().unwrap();
        let text = format!(
            "{}--- stderr\n{}--- exit {code}\n",
            finished.stdout, finished.stderr
        );
        expected.assert_eq(&text.replace(here, "HERE"));
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
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
