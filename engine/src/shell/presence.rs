//! Which sessions are in memory, and why: a task works on them, somebody calls, waits or listens.
//!
//! All others are a name in the application's hands and events in the log. Each reason is a [`Visit`]; with the
//! last one gone, the session leaves memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_store::SessionId;
use tokio::sync::mpsc;

use super::session::Call;
use super::subscription::Audience;
use crate::error::Error;
use crate::limits;
use crate::watched;

/// The sessions of an engine that are in memory. Cheap to clone; all clones are the same ones.
#[derive(Clone)]
pub(super) struct Presences(Arc<Shared>);

struct Shared {
    known: Mutex<Known>,
    /// How many tasks there are.
    tasks: watched::Sender<usize>,
    stop: watched::Sender<bool>,
}

#[derive(Default)]
struct Known {
    sessions: BTreeMap<SessionId, Arc<Presence>>,
    /// Whether the engine ends: no task begins any more.
    closed: bool,
}

/// What there is of a session in memory, beside its state.
struct Presence {
    audience: Audience,
    standing: Mutex<Standing>,
}

/// Whether a session has a task.
enum Standing {
    /// It has none, since nothing is to be done.
    Asleep,
    /// It has one, which is called by this.
    Awake(mpsc::Sender<Call>),
    /// It has none, and gets none.
    Ended(Error),
}

/// A reason for a session to be in memory.
#[derive(Clone)]
pub(super) struct Visit {
    all: Presences,
    id: SessionId,
    presence: Arc<Presence>,
}

/// What a session's task is begun with. As long as it lives, the task counts as one.
pub(super) struct Begun {
    pub(super) visit: Visit,
    pub(super) calls: mpsc::Receiver<Call>,
    /// Becomes true when the task is to end.
    pub(super) stop: watched::Receiver<bool>,
}

impl Presences {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            known: Mutex::default(),
            tasks: watched::Sender::new(0),
            stop: watched::Sender::new(false),
        }))
    }

    /// Comes to a session.
    pub(super) fn visit(&self, id: SessionId) -> Visit {
        let mut known = lock(&self.0.known);
        let closed = known.closed;
        let presence = known.sessions.entry(id).or_insert_with(|| {
            let presence = Presence {
                audience: Audience::default(),
                standing: Mutex::new(Standing::Asleep),
            };
            if closed {
                presence.end(Error::ShutDown);
            }
            Arc::new(presence)
        });
        Visit {
            all: self.clone(),
            id,
            presence: Arc::clone(presence),
        }
    }

    /// The sessions that have a task.
    pub(super) fn awake(&self) -> Vec<SessionId> {
        let known = lock(&self.0.known);
        let sessions = known.sessions.iter();
        let awake = sessions.filter(|(_, presence)| presence.is_awake());
        awake.map(|(id, _)| *id).collect()
    }

    /// How many sessions are in memory.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        lock(&self.0.known).sessions.len()
    }

    /// Has all tasks end; none begins any more.
    pub(super) fn close(&self) {
        let mut known = lock(&self.0.known);
        known.closed = true;
        for presence in known.sessions.values() {
            // The task of one that is awake says so when it has ended.
            if !presence.is_awake() {
                presence.end(Error::ShutDown);
            }
        }
        self.0.stop.send_replace(true);
    }

    /// Waits until no task is left.
    pub(super) async fn empty(&self) {
        let mut tasks = self.0.tasks.subscribe();
        // An error would mean that the sender is gone, which is here.
        let _ = tasks.wait_for(|tasks| *tasks == 0).await;
    }
}

impl Presence {
    fn is_awake(&self) -> bool {
        matches!(*lock(&self.standing), Standing::Awake(_))
    }

    fn end(&self, error: Error) {
        let mut standing = lock(&self.standing);
        // What it ended of first is why.
        if !matches!(*standing, Standing::Ended(_)) {
            *standing = Standing::Ended(error);
        }
        drop(standing);
        self.audience.end();
    }
}

impl Visit {
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn audience(&self) -> &Audience {
        &self.presence.audience
    }

    /// How its task is called; `None` where it has none.
    ///
    /// # Errors
    ///
    /// What it ended of.
    pub(super) fn calls(&self) -> Result<Option<mpsc::Sender<Call>>, Error> {
        match &*lock(&self.presence.standing) {
            Standing::Asleep => Ok(None),
            Standing::Awake(calls) => Ok(Some(calls.clone())),
            Standing::Ended(error) => Err(error.clone()),
        }
    }

    /// What it ended of.
    pub(super) fn ended(&self) -> Error {
        match &*lock(&self.presence.standing) {
            Standing::Ended(error) => error.clone(),
            Standing::Asleep | Standing::Awake(_) => Error::Stopped,
        }
    }

    /// Begins a task, where there is none yet, and gives how it is called.
    ///
    /// # Errors
    ///
    /// What it ended of; [`Error::ShutDown`] where the engine ends.
    pub(super) fn begin(&self, spawn: impl FnOnce(Begun)) -> Result<mpsc::Sender<Call>, Error> {
        // Held to the end: whoever closes the engine waits for this task, or it does not begin.
        let known = lock(&self.all.0.known);
        if known.closed {
            return Err(Error::ShutDown);
        }
        let mut standing = lock(&self.presence.standing);
        match &*standing {
            Standing::Awake(calls) => return Ok(calls.clone()),
            Standing::Ended(error) => return Err(error.clone()),
            Standing::Asleep => {}
        }
        let (sender, calls) = mpsc::channel(limits::SESSION_CALLS_MAX);
        *standing = Standing::Awake(sender.clone());
        self.all.0.tasks.send_modify(|tasks| *tasks += 1);
        let visit = self.clone();
        let stop = self.all.0.stop.subscribe();
        spawn(Begun { visit, calls, stop });
        Ok(sender)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut known = lock(&self.all.0.known);
        // This visit and the map: nobody else comes to it without the lock.
        if Arc::strong_count(&self.presence) == 2 {
            let standing = lock(&self.presence.standing);
            // One that stands still must not begin anew because nobody looked at it for a while.
            if !matches!(*standing, Standing::Ended(Error::StandsStill { .. })) {
                known.sessions.remove(&self.id);
            }
        }
    }
}

impl Begun {
    /// Lets the session sleep, unless somebody calls; says whether it does.
    pub(super) fn fall_asleep(&self) -> bool {
        let mut standing = lock(&self.visit.presence.standing);
        // The sender in `standing` alone: nobody holds another one, and none is made without the lock.
        let unheard = self.calls.sender_strong_count() == 1 && self.calls.is_empty();
        if unheard {
            *standing = Standing::Asleep;
        }
        unheard
    }

    /// Ends the session for all who call, wait or listen.
    pub(super) fn end(&self, error: Error) {
        self.visit.presence.end(error);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // One that did not say how it ended was ended from outside, with its runtime.
        if self.visit.presence.is_awake() {
            self.end(Error::Stopped);
        }
        self.visit.all.0.tasks.send_modify(|tasks| *tasks -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
