//! Logs that a test writes itself: whose they are, how they begin, and what stands in most of them.

use std::path::Path;

use recount_store::{
    ConnectionId, Event, Expected, Log, MessageId, NewEvent, OutputKind, Placement, SessionId,
    StreamId, Target, Timestamp,
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
