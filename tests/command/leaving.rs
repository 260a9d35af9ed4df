//! A place whose log has something of everything that leaves it.

use recount_store::{
    Cause, ConnectionState, Event, Json, NewEvent, PermissionAnswer, Position, Refusal, StreamId,
    ToolOutcome,
};
use recount_tests::place::Place;
use recount_tests::story::{CONNECTION, MESSAGE, OTHER, SESSION, after, linked, queued, said};

/// A message that arrives at its second attempt, with a tool, a permission and a connection that falls, and another
/// session between; a tenth of a second between any two events.
pub(crate) fn with_a_log() -> Place {
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
        (connection, linked(), 0),
        (session, opened(), 0),
        (session, queued(message, "Say it, с любовью\n```"), 0),
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
        (session, said(message, 1, "Well, *it* is said 💛"), 12),
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
    Place::holding((0..).zip(story).map(|(n, (stream, event, cause))| {
        let event = NewEvent::live(event, after(n * 100));
        (stream, vec![event.because(Cause::At(Position(cause)))])
    }))
}
