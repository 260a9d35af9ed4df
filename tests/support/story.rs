//! Logs that a test writes itself: whose they are, how they begin, and what stands in most of them.

use std::path::Path;

use recount_store::{
    ConnectionId, ConnectionState, Event, Expected, Json, Log, MessageId, NewEvent, OutputKind,
    Placement, Provenance, Rerun, SessionId, StreamId, Target, Timestamp, ToolOutcome,
};

/// When they begin: 2026-11-22T09:14:03Z.
pub const BEGIN: Timestamp = Timestamp(1_795_338_843_000_000);

/// So long after that.
pub const fn after(milliseconds: u64) -> Timestamp {
    Timestamp(BEGIN.0 + milliseconds * 1000)
}

/// The session that most of it is about: `081040g2081040g2`.
pub const SESSION: SessionId = SessionId::from_bytes([2; 10]);

/// Another session: `0c1g60r30c1g60r3`.
pub const OTHER: SessionId = SessionId::from_bytes([3; 10]);

/// The connection of both: `0g2081040g208104`.
pub const CONNECTION: ConnectionId = ConnectionId::from_bytes([4; 10]);

/// The message of the session: `040g2081040g2081`.
pub const MESSAGE: MessageId = MessageId::from_bytes([1; 10]);

/// A session begins.
pub fn opened() -> Event {
    Event::SessionOpened {
        connection: CONNECTION,
        agent: "opencode".to_owned(),
        directory: "/work".to_owned(),
        model: None,
        title: None,
    }
}

/// Its connection begins.
pub fn linked() -> Event {
    Event::ConnectionOpened {
        agent: "opencode".to_owned(),
        target: Target::Url("http://127.0.0.1:4096".to_owned()),
    }
}

/// Somebody wants the agent to get this.
pub fn queued(message: MessageId, text: &str) -> Event {
    Event::MessageQueued {
        message,
        key: None,
        text: text.to_owned(),
    }
}

/// The agent goes on with its answer.
pub fn said(message: MessageId, run: u32, text: &str) -> Event {
    Event::OutputAppended {
        message,
        run,
        part: "prt".to_owned(),
        kind: OutputKind::Text,
        placement: Placement::End,
        text: text.to_owned(),
    }
}

/// A session whose agent died in the middle of its turn, and was run again, and one that was only opened; a tenth of a
/// second between any two events.
pub fn interrupted() -> impl Iterator<Item = (StreamId, Vec<NewEvent>)> {
    let (session, connection) = (StreamId::Session(SESSION), StreamId::Connection(CONNECTION));
    let message = MESSAGE;
    let changed = |from, to| Event::ConnectionChanged { from, to };
    let (down, trying, up) = (
        ConnectionState::Disconnected,
        ConnectionState::Connecting,
        ConnectionState::Connected,
    );
    let story = vec![
        (connection, linked()),
        (session, opened()),
        (session, queued(message, "Say it, с любовью")),
        (connection, changed(down, trying)),
        (connection, changed(trying, up)),
        (
            session,
            Event::AgentSessionBound {
                agent_session: "ses".to_owned(),
            },
        ),
        (
            session,
            Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: "msg".to_owned(),
            },
        ),
        (
            session,
            Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
        ),
        (session, Event::TurnRequested { message, run: 1 }),
        (session, Event::TurnStarted { message, run: 1 }),
        (session, said(message, 1, "Well, ")),
        (
            session,
            Event::ToolCallStarted {
                message,
                run: 1,
                call: "call".to_owned(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command": "true"}"#.to_vec()),
            },
        ),
        (
            session,
            Event::ToolCallEnded {
                message,
                run: 1,
                call: "call".to_owned(),
                outcome: ToolOutcome::Completed,
                output: "done".to_owned(),
            },
        ),
        (
            connection,
            Event::StreamLost {
                reason: "it broke".to_owned(),
            },
        ),
        (connection, changed(up, down)),
        (connection, changed(down, trying)),
        (connection, changed(trying, up)),
        (
            session,
            Event::TurnInterrupted {
                message,
                run: 1,
                answers: vec!["msg2".to_owned()],
                evidence: "it is gone".to_owned(),
            },
        ),
        (
            session,
            Event::RerunDecided {
                message,
                run: 1,
                rerun: Rerun::Run,
                reason: "the policy is auto".to_owned(),
            },
        ),
        (session, Event::TurnRequested { message, run: 2 }),
        (session, Event::TurnStarted { message, run: 2 }),
        (session, said(message, 2, "Well, it is said 💛\n")),
        (
            session,
            Event::TurnCompleted {
                message,
                run: 2,
                finish: "stop".to_owned(),
            },
        ),
        (StreamId::Session(OTHER), opened()),
    ];
    (0..).zip(story).map(|(n, (stream, event))| {
        let inferred = matches!(event, Event::TurnInterrupted { .. });
        let mut event = NewEvent::live(event, after(n * 100));
        if inferred {
            event = event.known(Provenance::Inferred);
        }
        (stream, vec![event])
    })
}

/// Records events as another program would that embeds the log, each batch at once.
pub fn record(data: &Path, events: impl IntoIterator<Item = (StreamId, Vec<NewEvent>)>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let log = Log::open(data).unwrap();
    runtime.block_on(async {
        for (stream, batch) in events {
            log.append(stream, Expected::Any, batch).await.unwrap();
        }
        log.close().await.unwrap();
    });
}
