//! What to do next: pure machines, told the time and what happened.
//!
//! A machine is a fold of the log and a little that is true of this process alone: which effect is in
//! flight. `handle(input, now)` gives a [`Step`]; the shell appends its events in one commit, tells them
//! to the machine with `applied`, performs the effects, and asks `advance(now)` until that is quiet.
//! A start after a crash is nothing else: load the fold, ask `advance`.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod connection;
pub mod session;

use recount_store::{Cause, Event, FrameNumber, NewEvent, Provenance, Timestamp};

/// What a machine answers: what to record, and what to do once that is durable.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<E> {
    /// To be appended in one commit.
    pub events: Vec<NewEvent>,
    /// To be done after that.
    pub effects: Vec<E>,
    /// When the machine wants to be asked again, should nothing happen before.
    pub wake_at: Option<Timestamp>,
}

impl<E> Default for Step<E> {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            effects: Vec::new(),
            wake_at: None,
        }
    }
}

impl<E> Step<E> {
    /// Whether there is nothing to record and nothing to do.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.effects.is_empty()
    }

    /// A step that only waits.
    #[must_use]
    pub fn wait(until: Timestamp) -> Self {
        Self {
            wake_at: Some(until),
            ..Self::default()
        }
    }

    /// Adds an event; the first follows from `first_cause`, each further one from the one before it.
    pub fn record(&mut self, event: Event, at: Timestamp, first_cause: Cause) {
        let cause = self
            .events
            .len()
            .checked_sub(1)
            .map_or(first_cause, Cause::Sibling);
        self.events.push(NewEvent::live(event, at).because(cause));
    }

    /// A step that only does something.
    #[must_use]
    pub fn act(effect: E) -> Self {
        Self {
            effects: vec![effect],
            ..Self::default()
        }
    }

    /// The same step, and then this effect.
    #[must_use]
    pub fn and(mut self, effect: E) -> Self {
        self.effects.push(effect);
        self
    }

    /// Marks all events of this step as told of by a frame that was kept.
    pub fn told_by(&mut self, frame: Option<FrameNumber>) {
        for event in &mut self.events {
            event.frame = frame;
        }
    }

    /// Marks all events of this step as concluded, not seen.
    pub fn inferred(&mut self) {
        for event in &mut self.events {
            event.provenance = Provenance::Inferred;
        }
    }
}
