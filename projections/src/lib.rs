//! What it means: pure folds over recorded events, and the store that keeps them in memory.
//!
//! No clock, no network, no chance. The same fold serves deciding, recovering and looking back, so that
//! a replay shows exactly what the engine believed.

pub mod pending;
pub mod queue;
pub mod session;
pub mod state_store;
pub mod transcript;
pub mod turn;
pub mod waits;

pub mod incident;

pub mod breaker;
pub mod connection;

pub use breaker::Breaker;
pub use connection::Connection;

use recount_store::Recorded;

pub use incident::{Incident, Incidents};
pub use pending::Pending;
pub use queue::{GivenUp, Message, MessageState, Queue, WaitsFor};
pub use session::{Session, Status};
pub use state_store::{SharedSession, StateStore};
pub use transcript::Transcript;
pub use turn::{Turn, TurnState};
pub use waits::Waits;

/// A state that is made of events and of nothing else.
pub trait Projection: Default {
    /// The version of the fold: raised when the same events would give another state, so that
    /// snapshots of the old one are not used any more.
    const VERSION: u32;

    /// The name under which its snapshots are kept.
    const NAME: &'static str;

    /// Takes one event in. Events come in the order of the log, each once.
    fn apply(&mut self, recorded: &Recorded);
}

/// The state after these events.
pub fn fold<'a, P: Projection>(events: impl IntoIterator<Item = &'a Recorded>) -> P {
    let mut state = P::default();
    for recorded in events {
        state.apply(recorded);
    }
    state
}

#[cfg(test)]
mod tests;
