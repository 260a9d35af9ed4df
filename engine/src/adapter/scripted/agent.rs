//! What one server's process would hold in memory, and how it changes what is kept.
//!
//! Every change of what is kept goes through [`Agent::keep`], and with it its events: the base frame,
//! and the numbered one that repeats it. A dead server keeps nothing and says nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};

use super::Shared;
use super::hub::{Hub, locked};
use super::store::{Session, Store};

/// The living part of a server.
pub(super) struct Agent {
    pub(super) shared: Arc<Shared>,
    pub(super) hub: Hub,
    /// The folder of calls that name none.
    pub(super) directory: String,
    /// Lock order: the store before these.
    pub(super) running: Mutex<HashMap<String, Running>>,
    pub(super) questions: Mutex<Vec<Question>>,
    events: AtomicU64,
    dead: AtomicBool,
    pub(super) died: Notify,
    /// Work for the server to carry: it ends with it.
    pub(super) tasks: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

/// A session that is worked on.
pub(super) struct Running {
    pub(super) status: Value,
    pub(super) abort: Arc<Notify>,
}

/// A permission that was asked for, or a question in words.
pub(super) struct Question {
    /// `permission` or `question`: how its calls and frames begin.
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) session: String,
    pub(super) directory: String,
    pub(super) shown: Value,
    /// Takes the body of the reply; `null` refuses.
    pub(super) reply: oneshot::Sender<Value>,
}

/// An event that is kept: its kind and what it says.
pub(super) type Kept = (&'static str, Value);

impl Agent {
    pub(super) fn new(
        shared: Arc<Shared>,
        directory: String,
        tasks: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
    ) -> Self {
        Self {
            shared,
            hub: Hub::default(),
            directory,
            running: Mutex::default(),
            questions: Mutex::default(),
            events: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            tasks,
        }
    }

    /// Changes what is kept about a session, and tells. `None` where there is no such session any more,
    /// or no such server.
    pub(super) fn keep<T>(
        &self,
        session: &str,
        change: impl FnOnce(&mut Session) -> (T, Vec<Kept>),
    ) -> Option<T> {
        self.keep_in(|store| {
            let (given, events) = change(store.session_mut(session)?);
            Some((session.to_owned(), given, events))
        })
    }

    /// The same for a change that is not of one session from the beginning.
    pub(super) fn keep_in<T>(
        &self,
        change: impl FnOnce(&mut Store) -> Option<(String, T, Vec<Kept>)>,
    ) -> Option<T> {
        let mut store = locked(&self.shared.store);
        if self.is_dead() {
            return None;
        }
        let (session, given, events) = change(&mut store)?;
        let session = store.session_mut(&session)?;
        let mut frames = Vec::new();
        for (kind, properties) in events {
            let id = self.event_id();
            let base = json!({"id": id, "type": kind, "properties": properties});
            push_frame(&mut frames, Some(&session.directory), &base);
            let sync = json!({"id": id, "type": "sync", "syncEvent": {
                "id": id, "type": format!("{kind}.1"), "seq": session.seq,
                "aggregateID": session.id, "data": properties,
            }});
            push_frame(&mut frames, Some(&session.directory), &sync);
            session.seq += 1;
        }
        // Sent under the lock, so that numbers go out in order.
        self.hub.send(&frames);
        Some(given)
    }

    /// Tells something that is not kept.
    pub(super) fn tell(&self, directory: &str, kind: &str, properties: &Value) {
        let payload = json!({"id": self.event_id(), "type": kind, "properties": properties});
        let mut frame = Vec::new();
        push_frame(&mut frame, Some(directory), &payload);
        self.tell_bytes(&frame);
    }

    /// Tells frames that are written already.
    pub(super) fn tell_bytes(&self, frames: &[u8]) {
        if !self.is_dead() {
            self.hub.send(frames);
        }
    }

    /// Says how a session is worked on; `None` is not at all.
    pub(super) fn set_status(&self, session: &str, directory: &str, status: Option<Value>) {
        let shown = status.clone().unwrap_or_else(|| json!({"type": "idle"}));
        {
            let mut running = locked(&self.running);
            match (status, running.get_mut(session)) {
                (Some(status), Some(running)) => running.status = status,
                (None, _) => {
                    running.remove(session);
                }
                (Some(_), None) => {}
            }
        }
        let said = json!({"sessionID": session, "status": shown});
        self.tell(directory, "session.status", &said);
    }

    /// A frame that belongs to no session.
    pub(super) fn server_frame(&self, kind: &str) -> Vec<u8> {
        let mut frame = Vec::new();
        let payload = json!({"id": self.event_id(), "type": kind, "properties": {}});
        push_frame(&mut frame, None, &payload);
        frame
    }

    pub(super) fn event_id(&self) -> String {
        let number = self.events.fetch_add(1, Ordering::Relaxed);
        format!("evt_{number:012x}Scripted000000")
    }

    /// Dies as by SIGKILL: from here on nothing is kept and nothing told.
    pub(super) fn die(&self) {
        // Under the lock, so that no change is half done.
        let store = locked(&self.shared.store);
        self.dead.store(true, Ordering::SeqCst);
        drop(store);
        self.died.notify_one();
    }

    /// Milliseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        self.shared.clock.now().as_millis()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// Writes a frame as `/global/event` sends it.
fn push_frame(frames: &mut Vec<u8>, directory: Option<&str>, payload: &Value) {
    let frame = match directory {
        Some(directory) => {
            json!({"directory": directory, "project": "global", "payload": payload})
        }
        None => json!({"payload": payload}),
    };
    frames.extend_from_slice(b"data: ");
    frames.extend_from_slice(frame.to_string().as_bytes());
    frames.extend_from_slice(b"\n\n");
}
