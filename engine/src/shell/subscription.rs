//! Who listens to a session: each listener has a bounded backlog of its own, so a slow one misses something
//! and is told, and nobody waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use recount_store::{Event, MessageId, Recorded};
use tokio::sync::Notify;

use super::presence::Visit;
use super::told;
use crate::error::Error;
use crate::metrics;
use crate::watched;

/// What a subscriber of a session is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Update {
    /// The agent says something, at this moment. Not durable yet: the event that records it follows.
    Output {
        /// The message whose turn it is.
        message: MessageId,
        /// The agent's name for the part of its answer.
        part: String,
        /// The text.
        text: String,
    },
    /// An event is durable.
    Recorded(Arc<Recorded>),
}

/// Updates of one session, as they come; whether it sleeps or works.
///
/// Holds what was not taken yet, up to a bound in bytes, and nothing before the first update.
pub struct Subscription {
    visit: Visit,
    listener: Arc<Listener>,
}

impl Subscription {
    pub(super) fn new(visit: Visit, bytes_max: usize) -> Self {
        let listener = visit.audience().join(bytes_max);
        Self { visit, listener }
    }

    /// The next update; `None` when the engine has ended, or this session stands still until it starts again.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Lagged`] once, with the count, where this subscriber was too slow and missed some; what
    /// was recorded is in the log.
    pub async fn next(&mut self) -> Result<Option<Update>, Error> {
        loop {
            match self.listener.backlog().take() {
                Next::Update(update) => return Ok(Some(update)),
                Next::Missed(missed) => {
                    metrics::missed(missed);
                    return Err(Error::Lagged { missed });
                }
                Next::Ended => return Ok(None),
                Next::Nothing => {}
            }
            self.listener.filled.notified().await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.visit.audience().leave(&self.listener);
    }
}

/// All who listen to a session, and all who wait for it to come to something.
pub(super) struct Audience {
    listeners: Mutex<Listeners>,
    progress: watched::Sender<Progress>,
}

#[derive(Default)]
struct Listeners {
    all: Vec<Arc<Listener>>,
    /// Whether nothing more will come.
    ended: bool,
}

/// How far a session has come, for those who wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// Counts what was recorded.
    pub(super) recorded: u64,
    /// Whether nothing is open that can go on without a person, by what this process knows.
    pub(super) at_rest: bool,
    /// Whether nothing more will come.
    pub(super) ended: bool,
}

impl Default for Audience {
    fn default() -> Self {
        Self {
            listeners: Mutex::default(),
            progress: watched::Sender::new(Progress::default()),
        }
    }
}

impl Audience {
    /// How far it has come, now and as it goes on.
    pub(super) fn progress(&self) -> watched::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Whether anybody listens: what nobody hears need not be said.
    pub(super) fn listens(&self) -> bool {
        !self.listeners().all.is_empty()
    }

    pub(super) fn tell(&self, update: &Update) {
        for listener in &self.listeners().all {
            listener.put(update.clone());
        }
    }

    /// Tells what was recorded. Whether it is at rest after that is said by [`Audience::rests`].
    pub(super) fn recorded(&self, events: Vec<Recorded>) {
        self.progress.send_modify(|progress| {
            progress.recorded += events.len() as u64;
            progress.at_rest = false;
        });
        events.iter().for_each(told::recorded);
        if self.listens() {
            for event in events {
                self.tell(&Update::Recorded(Arc::new(event)));
            }
        }
    }

    /// Says whether it is at rest.
    pub(super) fn rests(&self, at_rest: bool) {
        self.progress.send_if_modified(|progress| {
            std::mem::replace(&mut progress.at_rest, at_rest) != at_rest
        });
    }

    /// Says that nothing more will come.
    pub(super) fn end(&self) {
        let mut listeners = self.listeners();
        listeners.ended = true;
        for listener in &listeners.all {
            listener.backlog().ended = true;
            listener.filled.notify_one();
        }
        drop(listeners);
        self.progress.send_modify(|progress| progress.ended = true);
    }

    fn join(&self, bytes_max: usize) -> Arc<Listener> {
        let mut listeners = self.listeners();
        let listener = Arc::new(Listener {
            backlog: Mutex::new(Backlog {
                updates: VecDeque::new(),
                bytes: 0,
                bytes_max,
                missed: 0,
                ended: listeners.ended,
            }),
            filled: Notify::new(),
        });
        listeners.all.push(Arc::clone(&listener));
        listener
    }

    fn leave(&self, listener: &Arc<Listener>) {
        let mut listeners = self.listeners();
        listeners.all.retain(|other| !Arc::ptr_eq(other, listener));
    }

    fn listeners(&self) -> MutexGuard<'_, Listeners> {
        let listeners = self.listeners.lock();
        listeners.unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listener {
    backlog: Mutex<Backlog>,
    filled: Notify,
}

impl Listener {
    fn put(&self, update: Update) {
        self.backlog().put(update);
        self.filled.notify_one();
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        let backlog = self.backlog.lock();
        backlog.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a listener has not taken yet.
struct Backlog {
    updates: VecDeque<Update>,
    /// What all of it weighs.
    bytes: usize,
    bytes_max: usize,
    /// How many were dropped since it was last told.
    missed: u64,
    ended: bool,
}

#[derive(Debug, PartialEq)]
enum Next {
    Update(Update),
    Missed(u64),
    Ended,
    Nothing,
}

impl Backlog {
    /// Drops the oldest where there is no room: what is newest is worth most to who looks on.
    fn put(&mut self, update: Update) {
        self.bytes += weight(&update);
        self.updates.push_back(update);
        while self.bytes > self.bytes_max && self.updates.len() > 1 {
            self.bytes -= self.updates.pop_front().as_ref().map_or(0, weight);
            self.missed += 1;
        }
    }

    fn take(&mut self) -> Next {
        if self.missed > 0 {
            return Next::Missed(std::mem::take(&mut self.missed));
        }
        match self.updates.pop_front() {
            Some(update) => {
                self.bytes -= weight(&update);
                Next::Update(update)
            }
            None if self.ended => Next::Ended,
            None => {
                // A burst is over: its room is given back.
                self.updates = VecDeque::new();
                Next::Nothing
            }
        }
    }
}

/// The memory that an update keeps, more or less.
fn weight(update: &Update) -> usize {
    size_of::<Recorded>()
        + match update {
            Update::Output { text, .. } => text.len(),
            Update::Recorded(recorded) => match &recorded.event {
                Event::MessageQueued { text, .. }
                | Event::OutputAppended { text, .. }
                | Event::OutputReplaced { text, .. } => text.len(),
                Event::OutputOrdered { items, .. } => items.iter().map(String::len).sum(),
                Event::ToolCallStarted { input, .. } => input.0.len(),
                Event::ToolCallEnded { output, .. } => output.len(),
                Event::FrameUnrecognised { frame, .. } => frame.0.len(),
                // Words of a few dozen bytes.
                _ => 0,
            },
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Update {
        Update::Output {
            message: MessageId::from_random(1),
            part: "p".to_owned(),
            text: text.to_owned(),
        }
    }

    fn drain(listener: &Listener) -> Vec<Next> {
        let mut taken = Vec::new();
        loop {
            taken.push(listener.backlog().take());
            if matches!(taken.last(), Some(Next::Nothing | Next::Ended)) {
                return taken;
            }
        }
    }

    #[test]
    fn a_slow_listener_is_told_how_much_it_missed_and_a_quick_one_misses_nothing() {
        let audience = Audience::default();
        assert!(!audience.listens());
        let slow = audience.join(2 * weight(&output("1")));
        let quick = audience.join(1 << 20);
        let updates: Vec<Update> = (1..=5).map(|n| output(&n.to_string())).collect();
        for update in &updates {
            audience.tell(update);
        }
        let told = |updates: &[Update]| updates.iter().cloned().map(Next::Update).collect();
        let mut all: Vec<Next> = told(&updates);
        all.push(Next::Nothing);
        assert_eq!(drain(&quick), all);
        let mut last: Vec<Next> = vec![Next::Missed(3)];
        last.extend(updates[3..].iter().cloned().map(Next::Update));
        last.push(Next::Nothing);
        assert_eq!(drain(&slow), last);
        assert_eq!(slow.backlog().bytes, 0);

        // It is told once, and goes on.
        audience.tell(&output("6"));
        audience.end();
        let end = [Next::Update(output("6")), Next::Ended];
        assert_eq!(drain(&slow), end);
        audience.leave(&slow);
        audience.leave(&quick);
        assert!(!audience.listens());
        assert_eq!(drain(&audience.join(0)), [Next::Ended]);
    }

    #[test]
    fn one_update_fits_whatever_its_length() {
        let audience = Audience::default();
        let listener = audience.join(0);
        audience.tell(&output("long"));
        assert_eq!(
            drain(&listener),
            [Next::Update(output("long")), Next::Nothing]
        );
    }
}
