//! Events in the making: each with its time and its cause.

use recount_store::{Cause, Event, NewEvent, Position, Provenance, Timestamp};

use super::Step;

/// The events of one step, in order, in the making.
pub(super) struct Draft {
    now: Timestamp,
    cause: Cause,
    events: Vec<NewEvent>,
}

impl Draft {
    /// Events that follow from the one at `position`.
    pub(super) fn after(position: Position, now: Timestamp) -> Self {
        Self {
            now,
            cause: Cause::At(position),
            events: Vec::new(),
        }
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: Event, provenance: Provenance) {
        self.events.push(NewEvent {
            event,
            at: self.now,
            cause: self.cause,
            provenance,
            id: None,
            frame: None,
        });
    }

    /// Adds an event from which the next ones follow.
    pub(super) fn then(&mut self, event: Event, provenance: Provenance) {
        self.push(event, provenance);
        self.cause = Cause::Sibling(self.events.len() - 1);
    }

    /// The events so far.
    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().map(|new| &new.event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(super) fn step(self) -> Step {
        Step {
            events: self.events,
            ..Step::default()
        }
    }
}
