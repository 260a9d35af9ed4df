//! The store from outside: what survives, what is refused, what is found out.

mod bad_input;
mod chance;
mod crash;
mod damage;
mod disk;
mod excerpt;
mod failure;
mod frames;
mod format;
mod history;
mod life;
mod power;
mod released;
mod tamper;
mod upkeep;

use recount_store::{Event, NewEvent, Recorded, SessionId, StreamId, Timestamp};

/// The stream of a session.
fn session(n: u8) -> StreamId {
    StreamId::Session(SessionId::from_bytes([n; 10]))
}

/// An event that says `text`.
fn said(text: impl Into<String>) -> NewEvent {
    let reason = text.into();
    NewEvent::live(Event::StreamLost { reason }, Timestamp(7))
}

/// What such an event says.
fn text(recorded: &Recorded) -> &str {
    match &recorded.event {
        Event::StreamLost { reason } => reason,
        other => panic!("not ours: {other:?}"),
    }
}

/// A runtime to drive a log with.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime")
}
