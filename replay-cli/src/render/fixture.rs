//! Events with fixed names and times, to render.

use jiff::tz::TimeZone;
use recount_store::{
    ConnectionId, ConnectionState, Event, Json, MessageId, NewEvent, OutputKind, Placement,
    Position, Recorded, Rerun, Seq, SessionId, StreamId, Target, Timestamp, ToolOutcome,
};

use super::Look;

/// 2026-11-22T09:14:03Z.
const BEGIN: u64 = 1_795_338_843_000_000;

/// The message that everything is about.
pub(crate) fn message() -> MessageId {
    MessageId::from_bytes([1; 10])
}

/// The session that everything is in.
pub(crate) fn session() -> SessionId {
    SessionId::from_bytes([2; 10])
}

/// Its connection.
pub(crate) fn connection() -> ConnectionId {
    ConnectionId::from_bytes([3; 10])
}

/// An event of the session; its number is its position, and the seconds of its time.
pub(crate) fn session_event(n: u64, event: Event) -> Recorded {
    recorded(n, StreamId::Session(session()), event)
}

/// An event of the connection.
pub(crate) fn connection_event(n: u64, event: Event) -> Recorded {
    recorded(n, StreamId::Connection(connection()), event)
}

fn recorded(n: u64, stream: StreamId, event: Event) -> Recorded {
    NewEvent::live(event, at(n)).recorded(stream, Seq(n), Position(n))
}

/// So many seconds after the beginning.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp(BEGIN + seconds * 1_000_000)
}

/// Without colour, as wide as it takes, UTC.
pub(crate) fn plain() -> Look {
    Look {
        colour: false,
        width: None,
        zone: TimeZone::UTC,
    }
}

/// A session whose agent dies in the middle of an answer after it used a tool, and that waits for a person.
pub(crate) fn story() -> Vec<Recorded> {
    let message = message();
    let events = vec![
        (
            true,
            Event::SessionOpened {
                connection: connection(),
                agent: "opencode".to_owned(),
                directory: "/home/project".to_owned(),
                model: Some("test/model".to_owned()),
                title: None,
            },
        ),
        (
            true,
            Event::MessageQueued {
                message,
                key: Some("build-17".to_owned()),
                text: "Why did it fail?\nBe brief.".to_owned(),
            },
        ),
        (
            false,
            Event::ConnectionOpened {
                agent: "opencode".to_owned(),
                target: Target::Managed {
                    program: None,
                    directory: "/home/project".to_owned(),
                },
            },
        ),
        (
            false,
            Event::ServerSpawned {
                pid: 4242,
                started: 1,
            },
        ),
        (
            false,
            Event::ServerReady {
                url: "http://127.0.0.1:4101".to_owned(),
                version: "1.18.3".to_owned(),
            },
        ),
        (
            false,
            Event::ConnectionChanged {
                from: ConnectionState::Connecting,
                to: ConnectionState::Connected,
            },
        ),
        (
            true,
            Event::AgentSessionBound {
                agent_session: "ses_1".to_owned(),
            },
        ),
        (
            true,
            Event::DeliveryStarted {
                message,
                attempt: 1,
                agent_message: "msg_1".to_owned(),
            },
        ),
        (
            true,
            Event::DeliveryAccepted {
                message,
                attempt: 1,
            },
        ),
        (true, Event::TurnRequested { message, run: 1 }),
        (true, Event::TurnStarted { message, run: 1 }),
        (
            true,
            Event::OutputAppended {
                message,
                run: 1,
                part: "prt_1".to_owned(),
                kind: OutputKind::Text,
                placement: Placement::End,
                text: "Let me look.\nIt".to_owned(),
            },
        ),
        (
            true,
            Event::ToolCallStarted {
                message,
                run: 1,
                call: "call_1".to_owned(),
                tool: "bash".to_owned(),
                input: Json(br#"{"command":"make"}"#.to_vec()),
            },
        ),
        (
            false,
            Event::StreamLost {
                reason: "the stream broke: connection reset".to_owned(),
            },
        ),
        (
            false,
            Event::ConnectionChanged {
                from: ConnectionState::Connected,
                to: ConnectionState::Disconnected,
            },
        ),
        (
            false,
            Event::ServerExited {
                how: "signal: 9 (SIGKILL)".to_owned(),
            },
        ),
        (
            false,
            Event::ReconnectScheduled {
                attempt: 1,
                at: at(17),
            },
        ),
        (
            true,
            Event::ToolCallEnded {
                message,
                run: 1,
                call: "call_1".to_owned(),
                outcome: ToolOutcome::Lost,
                output: String::new(),
            },
        ),
        (
            true,
            Event::TurnInterrupted {
                message,
                run: 1,
                answers: vec!["msg_2".to_owned()],
                evidence: "its process is gone".to_owned(),
            },
        ),
        (
            true,
            Event::RerunDecided {
                message,
                run: 1,
                rerun: Rerun::Wait,
                reason: "a tool had begun: bash".to_owned(),
            },
        ),
    ];
    let (mut session, mut link) = (0, 0);
    let event = |(n, (of_session, event))| {
        let (mut recorded, count) = if of_session {
            (session_event(n, event), &mut session)
        } else {
            (connection_event(n, event), &mut link)
        };
        *count += 1;
        recorded.seq = Seq(*count);
        recorded
    };
    (1..).zip(events).map(event).collect()
}
